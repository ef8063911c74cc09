/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TCP sockets with deadlines
 *
 * All sockets are non-blocking and close-on-exec. Deadlines are absolute
 * (lib/clock.h). -ETIMEDOUT when one passes, -ECONNRESET when the peer closed
 * in the middle.
 */
#ifndef MSPD_WIRE_SOCK_H
#define MSPD_WIRE_SOCK_H

#include <stddef.h>
#include <stdint.h>

/* socket, or -errno; -ENOENT: no such host */
int sock_connect(const char *host, uint16_t port, int64_t deadline);
/* the address the peer @fd has, another port */
int sock_connect_peer(int fd, uint16_t port, int64_t deadline);
/* first free port in [low, high], any if both are 0 */
int sock_listen(const char *host, uint16_t low, uint16_t high,
		uint16_t *ret_port);
int sock_accept(int fd, int64_t deadline);
int sock_send(int fd, const void *buf, size_t len, int64_t deadline);
int sock_recv(int fd, void *buf, size_t len, int64_t deadline);
/* a control connection that was accepted elsewhere */
int sock_adopt(int fd);

#endif /* MSPD_WIRE_SOCK_H */
