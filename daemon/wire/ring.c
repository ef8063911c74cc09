// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "wire/ring.h"
#include "wire/tls.h"

int ring_init(struct ring *r, int fd, bool uring)
{
	int flags = fcntl(fd, F_GETFL);

	/* io_uring hands EAGAIN through on a non-blocking socket */
	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK))
		return -errno;
	memset(r, 0, sizeof(*r));
	r->fd = fd;
	r->tls = tls_on(fd);
	r->kernel_tls = tls_kernel_sends(fd);
	r->use_uring = uring && (!r->tls || r->kernel_tls) &&
		       io_uring_queue_init(4, &r->uring, 0) == 0;
	return 0;
}

void ring_exit(struct ring *r)
{
	if (r->use_uring)
		io_uring_queue_exit(&r->uring);
	r->use_uring = false;
}

static int ring_submit(struct ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
	int ret;

	if (!sqe)
		return -EBUSY;
	/* TLS of the kernel refuses flags that it does not know */
	io_uring_prep_sendmsg(sqe, r->fd, &r->msg, MSG_NOSIGNAL |
			      (r->kernel_tls ? 0 : MSG_WAITALL));
	do {
		ret = io_uring_submit(&r->uring);
	} while (ret == -EINTR);
	return ret < 0 ? ret : 0;
}

/* the first @n bytes are gone */
static void ring_advance(struct ring *r, size_t n)
{
	r->left -= n;
	while (n && n >= r->msg.msg_iov->iov_len) {
		n -= r->msg.msg_iov->iov_len;
		r->msg.msg_iov++;
		r->msg.msg_iovlen--;
	}
	if (n) {
		r->msg.msg_iov->iov_base =
			(char *)r->msg.msg_iov->iov_base + n;
		r->msg.msg_iov->iov_len -= n;
	}
}

/* the socket blocks: who is told to wait was interrupted */
static ssize_t ring_send_some(struct ring *r)
{
	ssize_t n;
	short events;

	if (r->tls && !r->kernel_tls) {
		n = tls_write(r->fd, r->msg.msg_iov->iov_base,
			      r->msg.msg_iov->iov_len, &events);
		return n == -EAGAIN ? 0 : n;
	}
	n = sendmsg(r->fd, &r->msg, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n;
}

static int ring_send_plain(struct ring *r)
{
	while (r->left) {
		ssize_t n = ring_send_some(r);

		if (n < 0)
			return n;
		ring_advance(r, n);
	}
	return 0;
}

static ssize_t ring_recv_some(struct ring *r, void *buf, size_t len)
{
	ssize_t n;
	short events;

	do {
		if (r->tls) {
			n = tls_read(r->fd, buf, len, &events);
		} else {
			n = recv(r->fd, buf, len, MSG_WAITALL);
			if (n < 0)
				n = errno == EINTR ? -EAGAIN : -errno;
		}
	} while (n == -EAGAIN);
	return n;
}

int ring_send_start(struct ring *r, struct iovec *iov, size_t n)
{
	int ret;

	r->msg = (struct msghdr){ .msg_iov = iov, .msg_iovlen = n };
	r->left = 0;
	for (size_t i = 0; i < n; i++)
		r->left += iov[i].iov_len;
	ret = r->use_uring ? ring_submit(r) : 0;
	if (!r->use_uring)
		r->result = ring_send_plain(r);
	r->busy = !ret;
	return ret;
}

int ring_send_wait(struct ring *r)
{
	struct io_uring_cqe *cqe;
	int ret;

	if (!r->busy)
		return 0;
	if (!r->use_uring) {
		r->busy = false;
		return r->result;
	}
	for (;;) {
		ret = io_uring_wait_cqe(&r->uring, &cqe);
		if (ret == -EINTR)
			continue;
		if (ret)
			return ret;
		ret = cqe->res;
		io_uring_cqe_seen(&r->uring, cqe);
		if (ret > 0)
			ring_advance(r, ret);
		if (ret < 0 && ret != -EINTR && ret != -EAGAIN)
			break;
		if (!r->left) {
			ret = 0;
			break;
		}
		ret = ring_submit(r);
		if (ret)
			break;
	}
	r->busy = false;
	return ret;
}

int ring_recv(struct ring *r, void *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = ring_recv_some(r, (char *)buf + got, len - got);

		if (n < 0)
			return n;
		if (!n)
			return got ? -ECONNRESET : -ENODATA;
		got += n;
	}
	return 0;
}
