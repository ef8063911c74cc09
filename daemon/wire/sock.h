/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TCP sockets with deadlines
 *
 * All sockets are non-blocking and close-on-exec. Deadlines are absolute
 * (lib/clock.h). -ETIMEDOUT when one passes, -ECONNRESET when the peer closed
 * in the middle. All of it is the same with TLS, whose failures wire/tls.h tells.
 */
#ifndef MSPD_WIRE_SOCK_H
#define MSPD_WIRE_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "wire/tls.h"

/* socket, or -errno; -ENOENT: no such host */
int sock_connect(const char *host, uint16_t port, int64_t deadline);
/* from and to the addresses that @fd has, another port */
int sock_connect_peer(int fd, uint16_t port, int64_t deadline);
/* first free port in [low, high], any if both are 0 */
int sock_listen(const char *host, uint16_t low, uint16_t high,
		uint16_t *ret_port);
int sock_accept(int fd, int64_t deadline);
int sock_send(int fd, const void *buf, size_t len, int64_t deadline);
int sock_recv(int fd, void *buf, size_t len, int64_t deadline);
/* what there is: bytes, 0 at the end, -EAGAIN: wait for @ret_events first */
ssize_t sock_recv_some(int fd, void *buf, size_t len, short *ret_events);
/* whatever comes is dropped until the peer has closed */
void sock_drain(int fd, int64_t deadline);
/* a control connection that was accepted elsewhere */
int sock_adopt(int fd);
/* the whole handshake, see tls_begin() and tls_step() */
int sock_secure(int fd, struct tls_context *c, enum tls_side side, bool bulk,
		int64_t deadline);
/* both come from the same address */
bool sock_same_peer(int a, int b);
/* with what belongs to it; -1 is fine */
void sock_close(int *fd);

#define _cleanup_sock_ _cleanup_(sock_close)

#endif /* MSPD_WIRE_SOCK_H */
