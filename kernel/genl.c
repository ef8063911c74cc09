// SPDX-License-Identifier: GPL-2.0
/*
 * Generic netlink family "vasi": state changes and counters
 *
 * Tables by hand from Documentation/netlink/specs/vasi.yaml, since what the
 * generator makes of it needs a newer kernel than the oldest supported.
 */
#include <linux/module.h>
#include <linux/vasi_genl.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>

#include "vasi_private.h"

enum { VASI_MCGRP_STATE_NR };

static struct genl_family vasi_family;

static const struct genl_multicast_group vasi_mcgrps[] = {
	[VASI_MCGRP_STATE_NR] = {
		.name = VASI_MCGRP_STATE,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
};

static const struct nla_policy vasi_stream_policy[] = {
	[VASI_A_STREAM_ID] = NLA_POLICY_MIN(NLA_U64, 1),
	[VASI_A_STREAM_SERVICE] = NLA_POLICY_RANGE(NLA_U32,
						   VASI_SERVICE_SOURCE,
						   VASI_SERVICE_TARGET),
};

static int put_counters(struct sk_buff *skb, struct vasi_stream *s)
{
	struct nlattr *nest = nla_nest_start(skb, VASI_A_STREAM_COUNT);
	int i;

	/* the attributes have the order of the counters */
	BUILD_BUG_ON(VASI_A_COUNT_MAX - VASI_A_COUNT_HARVESTS + 1 !=
		     VASI_COUNT_MAX);
	if (!nest)
		return -EMSGSIZE;
	for (i = 0; i < VASI_COUNT_MAX; i++)
		if (nla_put_u64_64bit(skb, VASI_A_COUNT_HARVESTS + i,
				      atomic64_read(&s->count[i]),
				      VASI_A_COUNT_PAD))
			return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int put_name(struct sk_buff *skb, struct vasi_stream *s)
{
	if (nla_put_u64_64bit(skb, VASI_A_STREAM_ID, s->id,
			      VASI_A_STREAM_PAD) ||
	    nla_put_u32(skb, VASI_A_STREAM_SERVICE, s->service))
		return -EMSGSIZE;
	return 0;
}

static int put_stream(struct sk_buff *skb, u32 portid, u32 seq, int flags,
		      struct vasi_stream *s)
{
	struct vasi_stream_info info;
	void *head = genlmsg_put(skb, portid, seq, &vasi_family, flags,
				 VASI_GENL_STREAM_GET);

	if (!head)
		return -EMSGSIZE;
	vasi_fill_info(s, &info);
	if (put_name(skb, s) ||
	    nla_put_u32(skb, VASI_A_STREAM_STATE, info.state) ||
	    nla_put_u32(skb, VASI_A_STREAM_REASON, info.reason) ||
	    nla_put_u32(skb, VASI_A_STREAM_FLAGS, info.flags) ||
	    nla_put_s32(skb, VASI_A_STREAM_PID, info.pid) ||
	    nla_put_u32(skb, VASI_A_STREAM_OPENS, info.opens) ||
	    nla_put_u32(skb, VASI_A_STREAM_THREADS, info.threads) ||
	    nla_put_u64_64bit(skb, VASI_A_STREAM_BYTES_LEFT, info.bytes_left,
			      VASI_A_STREAM_PAD) ||
	    nla_put_u64_64bit(skb, VASI_A_STREAM_SUSPENDED_NS,
			      info.suspended_ns, VASI_A_STREAM_PAD) ||
	    put_counters(skb, s)) {
		genlmsg_cancel(skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return 0;
}

/* the same capability as for what the device tells of it */
static bool may_see(const struct sk_buff *skb, struct vasi_stream *s)
{
	return netlink_ns_capable(skb, s->mm->user_ns, CAP_SYS_PTRACE);
}

struct vasi_lookup {
	const struct sk_buff *skb;
	u64 id;
	u32 service;
	struct vasi_stream *found;
};

static int match_stream(struct vasi_stream *s, void *arg)
{
	struct vasi_lookup *l = arg;

	if (s->id != l->id || s->service != l->service || !may_see(l->skb, s))
		return 0;
	l->found = vasi_stream_get(s);
	return 1;
}

/* referenced, or an error that the requester is told in words */
static struct vasi_stream *find_stream(const struct sk_buff *skb,
				       struct genl_info *info)
{
	struct vasi_lookup l = { .skb = skb };

	if (GENL_REQ_ATTR_CHECK(info, VASI_A_STREAM_ID) ||
	    GENL_REQ_ATTR_CHECK(info, VASI_A_STREAM_SERVICE)) {
		NL_SET_ERR_MSG(info->extack, "stream ID or service is missing");
		return ERR_PTR(-EINVAL);
	}
	l.id = nla_get_u64(info->attrs[VASI_A_STREAM_ID]);
	l.service = nla_get_u32(info->attrs[VASI_A_STREAM_SERVICE]);
	vasi_visit_streams(match_stream, &l);
	if (!l.found) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[VASI_A_STREAM_ID],
				    "no stream of this ID and service");
		return ERR_PTR(-ENOENT);
	}
	return l.found;
}

static int stream_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vasi_stream *s = find_stream(skb, info);
	struct sk_buff *reply;
	int ret = -ENOMEM;

	if (IS_ERR(s))
		return PTR_ERR(s);
	reply = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (reply)
		ret = put_stream(reply, info->snd_portid, info->snd_seq, 0, s);
	vasi_stream_put(s);
	if (ret) {
		nlmsg_free(reply);
		return ret;
	}
	return genlmsg_reply(reply, info);
}

struct vasi_dump {
	struct sk_buff *skb;
	struct netlink_callback *cb;
	long at;
};

static int dump_stream(struct vasi_stream *s, void *arg)
{
	struct vasi_dump *d = arg;
	int ret;

	if (d->at++ < d->cb->args[0] || !may_see(d->cb->skb, s))
		return 0;
	ret = put_stream(d->skb, NETLINK_CB(d->cb->skb).portid,
			 d->cb->nlh->nlmsg_seq, NLM_F_MULTI, s);
	if (!ret)
		d->cb->args[0] = d->at;
	return ret;
}

static int stream_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct vasi_dump d = { .skb = skb, .cb = cb };
	int ret = vasi_visit_streams(dump_stream, &d);

	/* a full message is sent, the rest is asked for again */
	return ret && !skb->len ? ret : skb->len;
}

static int stream_reset_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct vasi_stream *s = find_stream(skb, info);
	int i;

	if (IS_ERR(s))
		return PTR_ERR(s);
	for (i = 0; i < VASI_COUNT_MAX; i++)
		atomic64_set(&s->count[i], 0);
	vasi_stream_put(s);
	return 0;
}

static const struct genl_ops vasi_ops[] = {
	{
		.cmd = VASI_GENL_STREAM_GET,
		.doit = stream_get_doit,
		.dumpit = stream_get_dumpit,
	},
	{
		.cmd = VASI_GENL_STREAM_RESET,
		.flags = GENL_ADMIN_PERM,
		.doit = stream_reset_doit,
	},
};

static struct genl_family vasi_family __ro_after_init = {
	.name = VASI_FAMILY_NAME,
	.version = VASI_FAMILY_VERSION,
	.netnsok = true,
	.module = THIS_MODULE,
	.maxattr = ARRAY_SIZE(vasi_stream_policy) - 1,
	.policy = vasi_stream_policy,
	.ops = vasi_ops,
	.n_ops = ARRAY_SIZE(vasi_ops),
	.resv_start_op = VASI_GENL_STREAM_GET,
	.mcgrps = vasi_mcgrps,
	.n_mcgrps = ARRAY_SIZE(vasi_mcgrps),
};

static bool has_listeners(void)
{
	struct net *net;
	bool found = false;

	rcu_read_lock();
	for_each_net_rcu(net)
		if (genl_has_listeners(&vasi_family, net, VASI_MCGRP_STATE_NR)) {
			found = true;
			break;
		}
	rcu_read_unlock();
	return found;
}

void vasi_genl_notify(struct vasi_stream *s)
{
	struct sk_buff *skb;
	void *head;

	if (!has_listeners())
		return;
	/* a message that is lost for want of memory costs the reader a query */
	skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!skb)
		return;
	head = genlmsg_put(skb, 0, 0, &vasi_family, 0, VASI_GENL_STREAM_NTF);
	if (!head || put_name(skb, s) ||
	    nla_put_u32(skb, VASI_A_STREAM_STATE, READ_ONCE(s->state)) ||
	    nla_put_u32(skb, VASI_A_STREAM_REASON, READ_ONCE(s->reason))) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_end(skb, head);
	genlmsg_multicast_allns(&vasi_family, skb, 0, VASI_MCGRP_STATE_NR);
}

int vasi_genl_init(void)
{
	return genl_register_family(&vasi_family);
}

void vasi_genl_exit(void)
{
	genl_unregister_family(&vasi_family);
}
