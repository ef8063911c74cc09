// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include "lib/cleanup.h"
#include "stats.h"

/* libnl's numbers are its own */
static int to_errno(int r)
{
	static const int table[][2] = {
		{ NLE_INTR, EINTR }, { NLE_AGAIN, EAGAIN },
		{ NLE_NOMEM, ENOMEM }, { NLE_EXIST, EEXIST },
		{ NLE_INVAL, EINVAL }, { NLE_OBJ_NOTFOUND, ENOENT },
		{ NLE_PERM, EPERM }, { NLE_NOACCESS, EACCES },
		{ NLE_OPNOTSUPP, EOPNOTSUPP }, { NLE_BUSY, EBUSY },
		{ NLE_MSG_OVERFLOW, EMSGSIZE }, { NLE_NODEV, ENODEV },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (r == -table[i][0])
			return -table[i][1];
	return r < 0 ? -EIO : r;
}

int stats_open(struct stats *s)
{
	int r;

	*s = (struct stats) { .sock = nl_socket_alloc() };
	if (!s->sock)
		return -ENOMEM;
	r = genl_connect(s->sock);
	if (r >= 0)
		r = genl_ctrl_resolve(s->sock, VASI_FAMILY_NAME);
	if (r < 0) {
		stats_close(s);
		return to_errno(r);
	}
	s->family = r;
	return 0;
}

void stats_close(struct stats *s)
{
	nl_socket_free(s->sock);
	s->sock = NULL;
}

/**
 * struct dump - the streams of a dump so far
 * @v: array
 * @n: entries
 * @error: -errno, or 0
 */
struct dump {
	struct vasi_info *v;
	size_t n;
	int error;
};

static uint32_t u32(struct nlattr **a, int type)
{
	return a[type] ? nla_get_u32(a[type]) : 0;
}

static uint64_t u64(struct nlattr **a, int type)
{
	return a[type] ? nla_get_u64(a[type]) : 0;
}

static int take(struct nl_msg *msg, void *arg)
{
	static struct nla_policy policy[VASI_A_STREAM_MAX + 1] = {
		[VASI_A_STREAM_ID] = { .type = NLA_U64 },
		[VASI_A_STREAM_SERVICE] = { .type = NLA_U32 },
		[VASI_A_STREAM_STATE] = { .type = NLA_U32 },
		[VASI_A_STREAM_REASON] = { .type = NLA_U32 },
		[VASI_A_STREAM_FLAGS] = { .type = NLA_U32 },
		[VASI_A_STREAM_PID] = { .type = NLA_U32 },
		[VASI_A_STREAM_OPENS] = { .type = NLA_U32 },
		[VASI_A_STREAM_THREADS] = { .type = NLA_U32 },
		[VASI_A_STREAM_BYTES_LEFT] = { .type = NLA_U64 },
		[VASI_A_STREAM_SUSPENDED_NS] = { .type = NLA_U64 },
		[VASI_A_STREAM_COUNT] = { .type = NLA_NESTED },
	};
	struct nlattr *a[VASI_A_STREAM_MAX + 1], *c[VASI_A_COUNT_MAX + 1];
	struct dump *d = arg;
	struct vasi_info *p;

	if (genlmsg_parse(nlmsg_hdr(msg), 0, a, VASI_A_STREAM_MAX, policy) < 0)
		return NL_SKIP;
	p = realloc(d->v, (d->n + 1) * sizeof(*p));
	if (!p) {
		d->error = -ENOMEM;
		return NL_SKIP;
	}
	d->v = p;
	p += d->n++;
	*p = (struct vasi_info) {
		.out_stream = {
			.stream_id = u64(a, VASI_A_STREAM_ID),
			.service = u32(a, VASI_A_STREAM_SERVICE),
			.state = u32(a, VASI_A_STREAM_STATE),
			.reason = u32(a, VASI_A_STREAM_REASON),
			.flags = u32(a, VASI_A_STREAM_FLAGS),
			.pid = u32(a, VASI_A_STREAM_PID),
			.opens = u32(a, VASI_A_STREAM_OPENS),
			.threads = u32(a, VASI_A_STREAM_THREADS),
			.bytes_left = u64(a, VASI_A_STREAM_BYTES_LEFT),
			.suspended_ns = u64(a, VASI_A_STREAM_SUSPENDED_NS),
		},
	};
	if (!a[VASI_A_STREAM_COUNT] ||
	    nla_parse_nested(c, VASI_A_COUNT_MAX, a[VASI_A_STREAM_COUNT],
			     NULL) < 0)
		return NL_OK;
	for (int i = 0; i < VASI_COUNT_MAX; i++)
		p->out_count[i] = u64(c, VASI_A_COUNT_HARVESTS + i);
	return NL_OK;
}

int stats_dump(struct stats *s, struct vasi_info **ret, size_t *ret_n)
{
	struct dump d = { 0 };
	int r;

	nl_socket_modify_cb(s->sock, NL_CB_VALID, NL_CB_CUSTOM, take, &d);
	r = genl_send_simple(s->sock, s->family, VASI_GENL_STREAM_GET,
			     VASI_FAMILY_VERSION, NLM_F_DUMP);
	if (r >= 0)
		r = nl_recvmsgs_default(s->sock);
	r = r < 0 ? to_errno(r) : d.error;
	if (r < 0) {
		free(d.v);
		return r;
	}
	*ret = d.v;
	*ret_n = d.n;
	return 0;
}

int stats_reset(struct stats *s, uint64_t stream_id, uint32_t service)
{
	struct nl_msg *msg = nlmsg_alloc();
	int r = -NLE_NOMEM;

	if (!msg)
		return -ENOMEM;
	if (genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, s->family, 0, 0,
			VASI_GENL_STREAM_RESET, VASI_FAMILY_VERSION) &&
	    nla_put_u64(msg, VASI_A_STREAM_ID, stream_id) >= 0 &&
	    nla_put_u32(msg, VASI_A_STREAM_SERVICE, service) >= 0)
		r = nl_send_sync(s->sock, msg);	/* frees it */
	else
		nlmsg_free(msg);
	return to_errno(r);
}
