// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "wire/sock.h"
#include "wire/tls.h"

#define SOCK_BACKLOG	128

static void cleanup_addrinfo(struct addrinfo **ai)
{
	if (*ai)
		freeaddrinfo(*ai);
}

static int sock_wait(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int left = deadline_left(deadline);
		int n = poll(&p, 1, left);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n && !left)
			return -ETIMEDOUT;
	}
}

static int sock_options(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)))
		return -errno;
	return 0;
}

int sock_adopt(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC))
		return -errno;
	return sock_options(fd);
}

/* @own: where to connect from, NULL: as the routes say */
static int connect_address(const struct sockaddr *sa, socklen_t len,
			   const struct sockaddr *own, int64_t deadline)
{
	_cleanup_close_ int fd = -1;
	socklen_t size = sizeof(int);
	int ret, err = 0;

	fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    0);
	if (fd < 0)
		return -errno;
	ret = sock_options(fd);
	if (ret)
		return ret;
	if (own && bind(fd, own, len))
		return -errno;
	if (connect(fd, sa, len)) {
		if (errno != EINPROGRESS)
			return -errno;
		ret = sock_wait(fd, POLLOUT, deadline);
		if (ret)
			return ret;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size))
			return -errno;
		if (err)
			return -err;
	}
	return steal_fd(&fd);
}

static int resolve(const char *host, uint16_t port, int flags,
		   struct addrinfo **ret)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | flags,
	};
	char service[8];

	snprintf(service, sizeof(service), "%u", port);
	switch (getaddrinfo(host && *host ? host : NULL, service, &hints,
			    ret)) {
	case 0:
		return 0;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_AGAIN:
		return -EAGAIN;
	case EAI_SYSTEM:
		return -errno;
	default:
		return -ENOENT;
	}
}

int sock_connect(const char *host, uint16_t port, int64_t deadline)
{
	_cleanup_(cleanup_addrinfo) struct addrinfo *list = NULL;
	int ret;

	ret = resolve(host, port, 0, &list);
	if (ret)
		return ret;
	ret = -ENOENT;
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		ret = connect_address(ai->ai_addr, ai->ai_addrlen, NULL,
				      deadline);
		if (ret >= 0)
			break;
	}
	return ret;
}

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_storage storage;
};

static int set_port(union address *a, uint16_t port)
{
	switch (a->sa.sa_family) {
	case AF_INET:
		a->in.sin_port = htons(port);
		return 0;
	case AF_INET6:
		a->in6.sin6_port = htons(port);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}

int sock_connect_peer(int fd, uint16_t port, int64_t deadline)
{
	socklen_t len = sizeof(union address), own_len = len;
	union address peer, own;
	int ret;

	if (getpeername(fd, &peer.sa, &len) ||
	    getsockname(fd, &own.sa, &own_len))
		return -errno;
	ret = set_port(&peer, port);
	if (!ret)
		ret = set_port(&own, 0);
	return ret ? ret : connect_address(&peer.sa, len, &own.sa, deadline);
}

bool sock_same_peer(int a, int b)
{
	socklen_t len_a = sizeof(union address), len_b = len_a;
	union address peer_a, peer_b;

	if (getpeername(a, &peer_a.sa, &len_a) ||
	    getpeername(b, &peer_b.sa, &len_b) ||
	    peer_a.sa.sa_family != peer_b.sa.sa_family)
		return false;
	if (peer_a.sa.sa_family == AF_INET)
		return peer_a.in.sin_addr.s_addr == peer_b.in.sin_addr.s_addr;
	return peer_a.sa.sa_family == AF_INET6 &&
	       !memcmp(&peer_a.in6.sin6_addr, &peer_b.in6.sin6_addr,
		       sizeof(peer_a.in6.sin6_addr));
}

static int listen_address(const struct addrinfo *ai, uint16_t *ret_port)
{
	_cleanup_close_ int fd = -1;
	union address own;
	socklen_t len = sizeof(own);
	int on = 1;

	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) ||
	    listen(fd, SOCK_BACKLOG) || getsockname(fd, &own.sa, &len))
		return -errno;
	*ret_port = ntohs(own.sa.sa_family == AF_INET6 ? own.in6.sin6_port :
			  own.in.sin_port);
	return steal_fd(&fd);
}

int sock_listen(const char *host, uint16_t low, uint16_t high,
		uint16_t *ret_port)
{
	int ret = -EADDRINUSE;

	for (unsigned int port = low; port <= high; port++) {
		_cleanup_(cleanup_addrinfo) struct addrinfo *list = NULL;
		int err = resolve(host, port, AI_PASSIVE, &list);

		if (err)
			return err;
		for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
			ret = listen_address(ai, ret_port);
			if (ret >= 0)
				return ret;
		}
		if (ret != -EADDRINUSE)
			break;
	}
	return ret;
}

int sock_accept(int fd, int64_t deadline)
{
	for (;;) {
		int ret = sock_wait(fd, POLLIN, deadline), s;

		if (ret)
			return ret;
		s = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (s >= 0) {
			ret = sock_options(s);
			if (!ret)
				return s;
			close(s);
			return ret;
		}
		/* a connection that was gone before it was taken */
		if (errno != EAGAIN && errno != EINTR &&
		    errno != ECONNABORTED)
			return -errno;
	}
}

int sock_secure(int fd, struct tls_context *c, enum tls_side side, bool bulk,
		int64_t deadline)
{
	int ret = tls_begin(fd, c, side, bulk);
	short events;

	if (ret)
		return ret;
	/* who always has some more does not put it off */
	while ((ret = tls_step(fd, &events)) == -EAGAIN) {
		ret = deadline_left(deadline) ?
		      sock_wait(fd, events, deadline) : -ETIMEDOUT;
		if (ret)
			break;
	}
	return ret;
}

static ssize_t send_some(int fd, const void *buf, size_t len, short *ret_events)
{
	ssize_t n;

	if (tls_on(fd))
		return tls_write(fd, buf, len, ret_events);
	*ret_events = POLLOUT;
	do {
		n = send(fd, buf, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return n;
}

ssize_t sock_recv_some(int fd, void *buf, size_t len, short *ret_events)
{
	ssize_t n;

	if (tls_on(fd))
		return tls_read(fd, buf, len, ret_events);
	*ret_events = POLLIN;
	do {
		n = recv(fd, buf, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int sock_send(int fd, const void *buf, size_t len, int64_t deadline)
{
	const char *p = buf;

	while (len) {
		short events;
		ssize_t n = send_some(fd, p, len, &events);
		int ret;

		if (n >= 0) {
			p += n;
			len -= n;
			continue;
		}
		if (n != -EAGAIN)
			return n;
		ret = sock_wait(fd, events, deadline);
		if (ret)
			return ret;
	}
	return 0;
}

int sock_recv(int fd, void *buf, size_t len, int64_t deadline)
{
	char *p = buf;

	while (len) {
		short events;
		ssize_t n = sock_recv_some(fd, p, len, &events);
		int ret;

		if (n > 0) {
			p += n;
			len -= n;
			/* who always has some more does not put it off */
			if (len && !deadline_left(deadline))
				return -ETIMEDOUT;
			continue;
		}
		if (!n)
			return -ECONNRESET;
		if (n != -EAGAIN)
			return n;
		ret = sock_wait(fd, events, deadline);
		if (ret)
			return ret;
	}
	return 0;
}

void sock_drain(int fd, int64_t deadline)
{
	char buf[4096];

	while (deadline_left(deadline)) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
		if (n < 0 && sock_wait(fd, POLLIN, deadline))
			return;
	}
}

void sock_close(int *fd)
{
	tls_end(*fd);
	cleanup_close(fd);
	*fd = -1;
}
