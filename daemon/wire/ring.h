/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Bulk I/O of one data connection: one io_uring, or plain calls without it
 *
 * A send is started and waited for apart, so that its owner can read the next
 * pages meanwhile. There are no deadlines here: whoever supervises a connection
 * ends a stalled one by shutdown(), and every call returns.
 */
#ifndef MSPD_WIRE_RING_H
#define MSPD_WIRE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <liburing.h>

/**
 * struct ring - one direction-free connection
 * @fd: blocking stream socket, not owned
 * @tls: what goes over it is encrypted
 * @kernel_tls: by the kernel, as far as it is sent
 * @use_uring: the kernel has io_uring and lets us, and nothing is encrypted here
 * @uring: only if @use_uring
 * @msg: what is being sent
 * @left: bytes of it that are not sent
 * @result: of a send that was plain
 * @busy: a send was started and not waited for
 */
struct ring {
	int fd;
	bool tls, kernel_tls;
	bool use_uring;
	struct io_uring uring;
	struct msghdr msg;
	size_t left;
	int result;
	bool busy;
};

/* @uring: false forces plain calls */
int ring_init(struct ring *r, int fd, bool uring);
/* a send must not be in flight */
void ring_exit(struct ring *r);
/* @iov and what it points to belong to the ring until ring_send_wait() */
int ring_send_start(struct ring *r, struct iovec *iov, size_t n);
int ring_send_wait(struct ring *r);
/* exactly @len bytes; -ENODATA: closed before the first of them */
int ring_recv(struct ring *r, void *buf, size_t len);

#endif /* MSPD_WIRE_RING_H */
