// SPDX-License-Identifier: GPL-2.0
/* Options of sockets that have no connection */
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include "lib/cleanup.h"
#include "state/sockopt.h"

#define MAX_VALUE 64

struct option {
	int family;	/* 0 = all */
	int level, name;
	int set_name;	/* to set it, 0 = the same */
	const char *text;
};

#define OPT(family, level, name) { family, level, name, 0, #name }
#define TCP 0x100	/* AF_INET and AF_INET6 */

static const struct option options[] = {
	OPT(0, SOL_SOCKET, SO_KEEPALIVE),
	OPT(0, SOL_SOCKET, SO_OOBINLINE),
	OPT(0, SOL_SOCKET, SO_PRIORITY),
	OPT(0, SOL_SOCKET, SO_RCVLOWAT),
	OPT(0, SOL_SOCKET, SO_LINGER),
	OPT(0, SOL_SOCKET, SO_RCVTIMEO),
	OPT(0, SOL_SOCKET, SO_SNDTIMEO),
	OPT(0, SOL_SOCKET, SO_TIMESTAMP),
	OPT(AF_UNIX, SOL_SOCKET, SO_PASSCRED),
	OPT(AF_UNIX, SOL_SOCKET, SO_PASSSEC),
	OPT(TCP, SOL_SOCKET, SO_REUSEADDR),
	OPT(TCP, SOL_SOCKET, SO_REUSEPORT),
	OPT(TCP, SOL_SOCKET, SO_DONTROUTE),
	OPT(TCP, SOL_SOCKET, SO_MARK),
	OPT(TCP, SOL_SOCKET, SO_BUSY_POLL),
	OPT(TCP, SOL_SOCKET, SO_ZEROCOPY),
	OPT(TCP, SOL_SOCKET, SO_BINDTODEVICE),
	OPT(TCP, IPPROTO_TCP, TCP_NODELAY),
	OPT(TCP, IPPROTO_TCP, TCP_CORK),
	OPT(TCP, IPPROTO_TCP, TCP_MAXSEG),
	OPT(TCP, IPPROTO_TCP, TCP_KEEPIDLE),
	OPT(TCP, IPPROTO_TCP, TCP_KEEPINTVL),
	OPT(TCP, IPPROTO_TCP, TCP_KEEPCNT),
	OPT(TCP, IPPROTO_TCP, TCP_SYNCNT),
	OPT(TCP, IPPROTO_TCP, TCP_LINGER2),
	OPT(TCP, IPPROTO_TCP, TCP_DEFER_ACCEPT),
	OPT(TCP, IPPROTO_TCP, TCP_WINDOW_CLAMP),
	OPT(TCP, IPPROTO_TCP, TCP_USER_TIMEOUT),
	OPT(TCP, IPPROTO_TCP, TCP_FASTOPEN),
	OPT(TCP, IPPROTO_TCP, TCP_NOTSENT_LOWAT),
	OPT(TCP, IPPROTO_TCP, TCP_CONGESTION),
	OPT(AF_INET, IPPROTO_IP, IP_TOS),
	OPT(AF_INET, IPPROTO_IP, IP_TTL),
	OPT(AF_INET, IPPROTO_IP, IP_FREEBIND),
	OPT(AF_INET, IPPROTO_IP, IP_TRANSPARENT),
	OPT(AF_INET, IPPROTO_IP, IP_MTU_DISCOVER),
	OPT(AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY),
	OPT(AF_INET6, IPPROTO_IPV6, IPV6_UNICAST_HOPS),
	OPT(AF_INET6, IPPROTO_IPV6, IPV6_TCLASS),
	OPT(AF_INET6, IPPROTO_IPV6, IPV6_MTU_DISCOVER),
	OPT(AF_INET6, IPPROTO_IPV6, IPV6_FREEBIND),
	OPT(AF_INET6, IPPROTO_IPV6, IPV6_TRANSPARENT),
};

/* sizes that the program set itself; the kernel tells them doubled */
static const struct option buffers[] = {
	{ 0, SOL_SOCKET, SO_SNDBUF, SO_SNDBUFFORCE, "SO_SNDBUF" },
	{ 0, SOL_SOCKET, SO_RCVBUF, SO_RCVBUFFORCE, "SO_RCVBUF" },
};

static bool applies(const struct option *o, int family)
{
	if (o->family == TCP)
		return family == AF_INET || family == AF_INET6;
	return !o->family || o->family == family;
}

static int add(Mspd__OpenFile *of, const struct option *o, const void *value,
	       size_t len)
{
	Mspd__SockOpt *opt, **v;

	v = reallocarray(of->sockopts, of->n_sockopts + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	of->sockopts = v;
	opt = malloc(sizeof(*opt));
	if (!opt)
		return -ENOMEM;
	*opt = (Mspd__SockOpt)MSPD__SOCK_OPT__INIT;
	v[of->n_sockopts++] = opt;
	opt->level = o->level;
	opt->name = o->set_name ? o->set_name : o->name;
	opt->value.data = malloc(len + 1);
	if (!opt->value.data)
		return -ENOMEM;
	memcpy(opt->value.data, value, len);
	opt->value.len = len;
	return 0;
}

static int add_buffers(int fd, Mspd__OpenFile *of)
{
	int lock = 0, size, r;
	socklen_t len = sizeof(lock);
	size_t i;

	if (getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len))
		return 0;
	for (i = 0; i < ARRAY_SIZE(buffers); i++) {
		if (!(lock & 1 << i))
			continue;
		len = sizeof(size);
		if (getsockopt(fd, SOL_SOCKET, buffers[i].name, &size, &len))
			return -errno;
		size /= 2;
		r = add(of, &buffers[i], &size, sizeof(size));
		if (r)
			return r;
	}
	return 0;
}

int sockopt_capture(struct fd_look *look, const struct fd_entry *e, int fd,
		    Mspd__OpenFile *of)
{
	_cleanup_close_ int fresh = -1;
	socklen_t len = 0;
	size_t i;
	int r;

	/* number of instructions in place of a length */
	if (!getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &len) && len)
		return fd_refuse(look, e, "fd.socket.filter",
				 "a packet filter is attached; detach it first");
	fresh = socket(e->family, e->type | SOCK_CLOEXEC, e->protocol);
	if (fresh < 0)
		return -errno;
	for (i = 0; i < ARRAY_SIZE(options); i++) {
		const struct option *o = &options[i];
		char value[MAX_VALUE] = { 0 }, usual[MAX_VALUE] = { 0 };
		socklen_t usual_len = sizeof(usual);

		len = sizeof(value);
		if (!applies(o, e->family) ||
		    getsockopt(fd, o->level, o->name, value, &len) ||
		    getsockopt(fresh, o->level, o->name, usual, &usual_len))
			continue;
		if (len == usual_len && !memcmp(value, usual, len))
			continue;
		r = add(of, o, value, len);
		if (r)
			return r;
	}
	return add_buffers(fd, of);
}

static const struct option *known(const Mspd__SockOpt *opt)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].level == opt->level &&
		    options[i].name == opt->name)
			return &options[i];
	for (i = 0; i < ARRAY_SIZE(buffers); i++)
		if (buffers[i].level == opt->level &&
		    buffers[i].set_name == opt->name)
			return &buffers[i];
	return NULL;
}

int sockopt_restore(int fd, const Mspd__OpenFile *of, const char **ret_name)
{
	size_t i;

	for (i = 0; i < of->n_sockopts; i++) {
		const Mspd__SockOpt *opt = of->sockopts[i];
		const struct option *o = known(opt);

		*ret_name = o ? o->text : "unknown";
		if (!o)
			return -EOPNOTSUPP;
		if (setsockopt(fd, opt->level, opt->name, opt->value.data,
			       (socklen_t)opt->value.len))
			return -errno;
	}
	return 0;
}

static bool bytes_equal(const ProtobufCBinaryData *a,
			const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

bool sockopt_equal(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	size_t i;

	if (a->n_sockopts != b->n_sockopts)
		return false;
	for (i = 0; i < a->n_sockopts; i++)
		if (a->sockopts[i]->level != b->sockopts[i]->level ||
		    a->sockopts[i]->name != b->sockopts[i]->name ||
		    !bytes_equal(&a->sockopts[i]->value, &b->sockopts[i]->value))
			return false;
	return true;
}

int socket_capture(const struct fd_entry *e, Mspd__OpenFile *of)
{
	of->family = (uint32_t)e->family;
	of->type = (uint32_t)e->type;
	of->protocol = (uint32_t)e->protocol;
	of->has_family = of->has_type = of->has_protocol = 1;
	of->address.data = malloc(sizeof(e->addr));
	if (!of->address.data)
		return -ENOMEM;
	of->has_address = 1;
	of->address.len = e->addr_len;
	memcpy(of->address.data, &e->addr, e->addr_len);
	return 0;
}

bool socket_equal(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->family == b->family && a->type == b->type &&
		a->protocol == b->protocol &&
		bytes_equal(&a->address, &b->address) && sockopt_equal(a, b);
}
