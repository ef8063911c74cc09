// SPDX-License-Identifier: GPL-2.0
/*
 * Connections
 *
 * They stay behind. With connections=close the guest finds each of them closed
 * by its peer: a read gives the end of file, a poll POLLIN and POLLRDHUP (and
 * POLLHUP on a Unix socket), a write fails with EPIPE at the latest the second
 * time. That is what servers take for a client that went away; a reset would be
 * reported as an error by most.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include "lib/cleanup.h"
#include "state/sockopt.h"

static bool is_tcp(const struct fd_entry *e)
{
	return (e->family == AF_INET || e->family == AF_INET6) &&
		e->type == SOCK_STREAM && e->protocol == IPPROTO_TCP;
}

static bool match(const struct fd_entry *e)
{
	if (is_tcp(e))
		return !e->listening && e->tcp_state != TCP_CLOSE;
	return e->family == AF_UNIX && e->has_peer &&
		(e->type == SOCK_STREAM || e->type == SOCK_SEQPACKET);
}

static void peer_text(int fd, char *buf, size_t len)
{
	struct sockaddr_storage peer;
	socklen_t peer_len = sizeof(peer);
	char host[INET6_ADDRSTRLEN];

	snprintf(buf, len, "its peer");
	if (getpeername(fd, (struct sockaddr *)&peer, &peer_len))
		return;
	if (peer.ss_family == AF_INET) {
		struct sockaddr_in *a = (void *)&peer;

		inet_ntop(AF_INET, &a->sin_addr, host, sizeof(host));
		snprintf(buf, len, "%s:%u", host, ntohs(a->sin_port));
	} else if (peer.ss_family == AF_INET6) {
		struct sockaddr_in6 *a = (void *)&peer;

		inet_ntop(AF_INET6, &a->sin6_addr, host, sizeof(host));
		snprintf(buf, len, "[%s]:%u", host, ntohs(a->sin6_port));
	}
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	if (look->c->connections == CONNECTIONS_REFUSE) {
		_cleanup_close_ int fd = fd_copy(look, e);
		char peer[80];

		peer_text(fd, peer, sizeof(peer));
		return fd_refuse(look, e, "fd.connection",
				 "there is a connection to %s; close it, or use connections=close",
				 peer);
	}
	of->family = (uint32_t)e->family;
	of->type = (uint32_t)e->type;
	of->has_family = of->has_type = 1;
	return 0;
}

/* A connection within this host whose other end is closed in good order. */
static int closed_tcp(int family, int *ret_fd)
{
	_cleanup_close_ int listener = -1, ours = -1, peer = -1;
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6,
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in a4 = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *addr = family == AF_INET ? (void *)&a4 : (void *)&a6;
	socklen_t len = family == AF_INET ? sizeof(a4) : sizeof(a6);

	listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	ours = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (listener < 0 || ours < 0 || bind(listener, addr, len) ||
	    listen(listener, 1) || getsockname(listener, addr, &len) ||
	    connect(ours, addr, len))
		return -errno;
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (peer < 0)
		return -errno;
	*ret_fd = steal_fd(&ours);
	return 0;
}

static int closed_unix(int type, int *ret_fd)
{
	int pair[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair))
		return -errno;
	close(pair[1]);
	*ret_fd = pair[0];
	return 0;
}

static int open_closed(struct files_target *t, const Mspd__OpenFile *of,
		       int *ret_fd)
{
	int r = -EBADMSG;

	if (of->family == AF_INET || of->family == AF_INET6)
		r = closed_tcp((int)of->family, ret_fd);
	else if (of->family == AF_UNIX)
		r = closed_unix((int)of->type, ret_fd);
	if (r)
		return files_fail(t, of, r, "no closed connection can be made: %s",
				  strerror(-r));
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->family == b->family && a->type == b->type;
}

const struct fd_kind fd_kind_closed = {
	.name = "closed",
	.match = match,
	.capture = capture,
	.open = open_closed,
	.same = same,
};
