// SPDX-License-Identifier: GPL-2.0
/*
 * TCP sockets without a connection: listening, bound, or new
 *
 * The port is taken before the pause, so that a conflict is found early. It
 * listens in the pause: who connects before is refused and tries again.
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
	return is_tcp(e) && (e->listening || e->tcp_state == TCP_CLOSE);
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = fd_copy(look, e);
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	char ulp[16] = "";
	int r;

	if (fd < 0)
		return fd;
	len = sizeof(ulp);
	if (!getsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, &len) && len && ulp[0])
		return fd_refuse(look, e, "fd.socket.ulp",
				 "protocol \"%s\" of the kernel is on it; close it first",
				 ulp);
	r = socket_capture(e, of);
	if (!r)
		r = sockopt_capture(look, e, fd, of);
	if (r || !e->listening)
		return r;
	len = sizeof(info);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return -errno;
	/* of a listening socket: those who wait, and how many may */
	if (info.tcpi_unacked && look->c->connections == CONNECTIONS_REFUSE)
		return fd_refuse(look, e, "fd.connection",
				 "%u connections wait to be accepted; use connections=close to drop them",
				 info.tcpi_unacked);
	of->backlog = info.tcpi_sacked;
	of->has_backlog = 1;
	return 0;
}

static bool has_port(const Mspd__OpenFile *of)
{
	const struct sockaddr_in *a = (const void *)of->address.data;

	/* the port is at the same place in both families */
	return of->address.len >= sizeof(*a) && a->sin_port;
}

static const char *address_text(const Mspd__OpenFile *of, char *buf, size_t len)
{
	const struct sockaddr_in *a4 = (const void *)of->address.data;
	const struct sockaddr_in6 *a6 = (const void *)of->address.data;
	char host[INET6_ADDRSTRLEN] = "?";

	if (of->family == AF_INET)
		inet_ntop(AF_INET, &a4->sin_addr, host, sizeof(host));
	else if (of->address.len >= sizeof(*a6))
		inet_ntop(AF_INET6, &a6->sin6_addr, host, sizeof(host));
	snprintf(buf, len, of->family == AF_INET6 ? "[%s]:%u" : "%s:%u", host,
		 ntohs(a4->sin_port));
	return buf;
}

/*
 * Connections that the last owner of the port left behind do not keep it: it is
 * bound, and listens, as if SO_REUSEADDR were set, which another one that
 * listens still forbids. settle() puts the option right.
 */
static int make(const Mspd__OpenFile *of, int *ret_fd, const char **ret_what)
{
	_cleanup_close_ int fd = -1;
	int one = 1, r;

	*ret_what = "socket";
	if (of->type != SOCK_STREAM || of->protocol != IPPROTO_TCP ||
	    (of->family != AF_INET && of->family != AF_INET6))
		return -EBADMSG;
	fd = socket((int)of->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	r = sockopt_restore(fd, of, ret_what);
	if (r)
		return r;
	*ret_what = "address";
	if (has_port(of) &&
	    (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	     bind(fd, (const void *)of->address.data,
		  (socklen_t)of->address.len)))
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static const char *advice(int err)
{
	switch (-err) {
	case EADDRINUSE:
		return "; end the program that has it";
	case EADDRNOTAVAIL:
		return "; add the address to the target";
	case ENODEV:
		return "; the interface is missing";
	}
	return "";
}

static int open_tcp(struct files_target *t, const Mspd__OpenFile *of,
		    int *ret_fd)
{
	char address[64];
	const char *what;
	int r = make(of, ret_fd, &what);

	if (!r)
		return 0;
	return files_fail(t, of, r, "%s of %s on the target: %s%s", what,
			  address_text(of, address, sizeof(address)),
			  strerror(-r), advice(r));
}

/* Listening, too: two that are bound may exist, two that listen may not. */
static int check(struct files_check *t, const Mspd__OpenFile *of)
{
	char object[PATH_MAX + 64], address[64];
	_cleanup_close_ int fd = -1;
	const char *what;
	int r;

	r = make(of, &fd, &what);
	if (!r && of->has_backlog) {
		what = "address";
		r = listen(fd, 0) ? -errno : 0;
	}
	if (r)
		finding_add(t->f, FINDING_ERROR, "fd.listen",
			    file_object(t->table, of, object, sizeof(object)),
			    "%s of %s on the target: %s%s", what,
			    address_text(of, address, sizeof(address)),
			    strerror(-r), advice(r));
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return socket_equal(a, b);
}

static bool reuses_address(const Mspd__OpenFile *of)
{
	size_t i;

	for (i = 0; i < of->n_sockopts; i++)
		if (of->sockopts[i]->level == SOL_SOCKET &&
		    of->sockopts[i]->name == SO_REUSEADDR)
			return true;
	return false;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	int reuse = reuses_address(p->file);
	char address[64];

	if (p->file->has_backlog && listen(p->copy, (int)p->file->backlog))
		return files_fail(t, p->file, -errno, "can't listen at %s: %s%s",
				  address_text(p->file, address, sizeof(address)),
				  strerror(errno), advice(-errno));
	if (setsockopt(p->copy, SOL_SOCKET, SO_REUSEADDR, &reuse,
		       sizeof(reuse)))
		return files_fail(t, p->file, -errno, "SO_REUSEADDR: %s",
				  strerror(errno));
	return 0;
}

const struct fd_kind fd_kind_tcp = {
	.name = "tcp",
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_tcp,
	.same = same,
	.settle = settle,
};
