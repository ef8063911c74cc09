// SPDX-License-Identifier: GPL-2.0
/*
 * The netlink family: streams by dump and by ID, reset, state changes as they
 * happen, errors in words
 */
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <linux/vasi_genl.h>

#include "vasi_test.h"

/* what the last messages said */
struct found {
	int streams;
	uint64_t id;
	uint32_t service, state, flags, threads;
	int32_t pid;
	uint64_t suspends;
	int counters;
	/* states that were notified, in order */
	uint32_t states[16];
	int nr_states;
};

static uint64_t wanted;
static int family;

static int on_message(struct nl_msg *msg, void *arg)
{
	struct nlattr *attr[VASI_A_STREAM_MAX + 1];
	struct nlattr *count[VASI_A_COUNT_MAX + 1];
	struct genlmsghdr *head = genlmsg_hdr(nlmsg_hdr(msg));
	struct found *f = arg;
	int i;

	if (genlmsg_parse(nlmsg_hdr(msg), 0, attr, VASI_A_STREAM_MAX, NULL) ||
	    !attr[VASI_A_STREAM_ID] || !attr[VASI_A_STREAM_SERVICE] ||
	    !attr[VASI_A_STREAM_STATE])
		return NL_SKIP;
	if (nla_get_u64(attr[VASI_A_STREAM_ID]) != wanted)
		return NL_OK;
	if (head->cmd == VASI_GENL_STREAM_NTF) {
		if (f->nr_states < 16)
			f->states[f->nr_states++] =
				nla_get_u32(attr[VASI_A_STREAM_STATE]);
		return NL_OK;
	}
	f->streams++;
	f->id = nla_get_u64(attr[VASI_A_STREAM_ID]);
	f->service = nla_get_u32(attr[VASI_A_STREAM_SERVICE]);
	f->state = nla_get_u32(attr[VASI_A_STREAM_STATE]);
	if (attr[VASI_A_STREAM_PID])
		f->pid = nla_get_s32(attr[VASI_A_STREAM_PID]);
	if (attr[VASI_A_STREAM_FLAGS])
		f->flags = nla_get_u32(attr[VASI_A_STREAM_FLAGS]);
	if (attr[VASI_A_STREAM_THREADS])
		f->threads = nla_get_u32(attr[VASI_A_STREAM_THREADS]);
	if (attr[VASI_A_STREAM_COUNT] &&
	    !nla_parse_nested(count, VASI_A_COUNT_MAX,
			      attr[VASI_A_STREAM_COUNT], NULL)) {
		for (i = VASI_A_COUNT_HARVESTS, f->counters = 0;
		     i <= VASI_A_COUNT_MAX; i++)
			f->counters += !!count[i];
		if (count[VASI_A_COUNT_SUSPENDS])
			f->suspends = nla_get_u64(count[VASI_A_COUNT_SUSPENDS]);
	}
	return NL_OK;
}

/* the text that came with an error */
static char error_text[256];

static int on_error(struct sockaddr_nl *nla, struct nlmsgerr *err, void *arg)
{
	struct nlmsghdr *inner = &err->msg;
	char *at = (char *)inner + (err->error ? inner->nlmsg_len :
						 sizeof(*inner));
	struct nlmsghdr *outer = (struct nlmsghdr *)((char *)err - NLMSG_HDRLEN);
	int left = (char *)outer + outer->nlmsg_len - at;
	struct nlattr *attr;
	int rest;

	(void)nla;
	error_text[0] = 0;
	if (outer->nlmsg_flags & 0x200 /* NLM_F_ACK_TLVS */)
		nla_for_each_attr(attr, (struct nlattr *)at, left, rest)
			if (nla_type(attr) == 1 /* NLMSGERR_ATTR_MSG */)
				snprintf(error_text, sizeof(error_text), "%s",
					 (char *)nla_data(attr));
	*(int *)arg = err->error;
	return NL_STOP;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	(void)msg;
	*(int *)arg = 0;
	return NL_STOP;
}

static int on_finish(struct nl_msg *msg, void *arg)
{
	(void)msg;
	*(int *)arg = 0;
	return NL_STOP;
}

/* 0 or -errno of the kernel */
static int request(int cmd, int flags, uint64_t id, uint32_t service,
		   struct found *f)
{
	struct nl_sock *sk = nl_socket_alloc();
	struct nl_msg *msg = nlmsg_alloc();
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	int ret = 1, one = 1;

	must(sk && msg && cb && !genl_connect(sk));
	must(!setsockopt(nl_socket_get_fd(sk), 270 /* SOL_NETLINK */,
			 11 /* NETLINK_EXT_ACK */, &one, sizeof(one)));
	genlmsg_put(msg, 0, 0, family, 0, flags, cmd, VASI_FAMILY_VERSION);
	if (id)
		nla_put_u64(msg, VASI_A_STREAM_ID, id);
	if (service)
		nla_put_u32(msg, VASI_A_STREAM_SERVICE, service);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_message, f);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, &ret);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_finish, &ret);
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, &ret);
	must(nl_send_auto(sk, msg) > 0);
	while (ret > 0 && nl_recvmsgs(sk, cb) >= 0)
		;
	nl_cb_put(cb);
	nlmsg_free(msg);
	nl_socket_free(sk);
	return ret;
}

static struct nl_sock *listener(struct found *f)
{
	struct nl_sock *sk = nl_socket_alloc();
	int group;

	must(sk && !genl_connect(sk));
	group = genl_ctrl_resolve_grp(sk, VASI_FAMILY_NAME, VASI_MCGRP_STATE);
	must(group >= 0);
	nl_socket_disable_seq_check(sk);
	must(!nl_socket_add_membership(sk, group));
	nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, on_message, f);
	nl_socket_set_nonblocking(sk);
	return sk;
}

static void test_notifications(struct found *f)
{
	static const uint32_t expect[] = {
		VASI_STATE_SUSPENDING, VASI_STATE_SUSPENDED, VASI_STATE_ENABLED,
	};

	ok(f->nr_states == 3 && !memcmp(f->states, expect, sizeof(expect)),
	   "suspend and resume are told as three states (%d)", f->nr_states);
}

int main(void)
{
	struct found f = {}, heard = {};
	struct nl_sock *ctrl = nl_socket_alloc(), *ears;
	int fd = -1;
	pid_t pid;

	must(ctrl && !genl_connect(ctrl));
	family = genl_ctrl_resolve(ctrl, VASI_FAMILY_NAME);
	nl_socket_free(ctrl);
	if (!ok(family > 0, "the family is there"))
		return tap_end();

	pid = fork_guest();
	if (!pid)
		for (;;)
			pause();
	wanted = new_stream_id();
	ok(!request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_DUMP, 0, 0, &f) &&
	   !f.streams, "a dump without streams ends");
	must(!vasi_attach_as(pid, VASI_SERVICE_SOURCE, wanted, &fd));
	ears = listener(&heard);
	must(!suspend(fd));

	ok(!request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_ACK, wanted,
		    VASI_SERVICE_SOURCE, &f) && f.streams == 1 &&
	   f.pid == pid && f.state == VASI_STATE_SUSPENDED &&
	   f.flags == VASI_STREAM_SUSPENDED && f.threads == 1 &&
	   f.suspends == 1 && f.counters == VASI_COUNT_MAX,
	   "a stream by its ID, with its counters");
	memset(&f, 0, sizeof(f));
	ok(!request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_DUMP, 0, 0, &f) &&
	   f.streams == 1 && f.pid == pid && f.suspends == 1, "and in a dump");
	ok(!request(VASI_GENL_STREAM_RESET, NLM_F_REQUEST | NLM_F_ACK, wanted,
		    VASI_SERVICE_SOURCE, &f) &&
	   !request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_ACK, wanted,
		    VASI_SERVICE_SOURCE, &f) && !f.suspends,
	   "a reset clears the counters");
	must(!resume(fd));
	while (nl_recvmsgs_default(ears) >= 0)
		;
	test_notifications(&heard);
	nl_socket_free(ears);

	ok(request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_ACK, wanted,
		   VASI_SERVICE_TARGET, &f) == -ENOENT && error_text[0],
	   "no such stream: ENOENT, '%s'", error_text);
	ok(request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_ACK, 0, 0,
		   &f) == -EINVAL && error_text[0], "no ID: EINVAL, '%s'",
	   error_text);
	ok(request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_ACK, wanted, 3,
		   &f) == -ERANGE, "no such service: ERANGE, '%s'", error_text);
	must(!seteuid(65534));
	ok(request(VASI_GENL_STREAM_RESET, NLM_F_REQUEST | NLM_F_ACK, wanted,
		   VASI_SERVICE_SOURCE, &f) == -EPERM,
	   "a reset needs a capability");
	ok(request(VASI_GENL_STREAM_GET, NLM_F_REQUEST | NLM_F_ACK, wanted,
		   VASI_SERVICE_SOURCE, &f) == -ENOENT,
	   "so does seeing a stream");
	must(!seteuid(0));
	close(fd);
	end_guest(pid);
	return tap_end();
}
