// SPDX-License-Identifier: GPL-2.0
/*
 * The target's side of one migration
 *
 * The thread that runs this is the tracer of the guest being built: it answers
 * the source's messages one at a time, while stream threads write pages. Until
 * the guest is resumed, whatever goes wrong ends in restore_abort().
 */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include "engine/fault.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/digest.h"
#include "lib/utf8.h"
#include "log.h"
#include "session/recover.h"
#include "session/report.h"
#include "session/target.h"
#include "wire/frame.h"
#include "wire/sock.h"

#define HANDSHAKE_MS	10000
#define IDLE_MS		30000
#define MAX_STREAMS	16
#define SEND_MS		10000
#define GOODBYE_MS	2000

unsigned int target_handshake_ms(const struct target *t)
{
	return t->cfg->handshake_ms ? t->cfg->handshake_ms : HANDSHAKE_MS;
}

unsigned int target_idle_ms(const struct target *t)
{
	return t->cfg->idle_ms ? t->cfg->idle_ms : IDLE_MS;
}

int target_send(struct target *t, enum control_type type,
		const ProtobufCMessage *m)
{
	return peer_send(&t->peer, type, m, SEND_MS);
}

int target_fail(struct target *t, int err, const char *what)
{
	char text[400];

	if (t->findings.errors)
		return failure_set(&t->failure, err, "%s: %s", what,
				   findings_first_error(&t->findings, text,
							sizeof(text)));
	return failure_set(&t->failure, err, "%s: %s", what, strerror(-err));
}

int target_receiver_fail(struct target *t, int err)
{
	return failure_set(&t->failure, err, "%s",
			   receiver_error(t->receiver));
}

/* -- handshake */

/* it becomes a part of paths */
static bool name_valid(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= sizeof(((struct target *)0)->name) || *name == '.')
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("._-", *name))
			return false;
	return true;
}

/* a host without TLS understands why not when it is told without TLS */
static int target_secure(struct target *t, int64_t deadline)
{
	int ret = peer_secure(&t->peer, t->cfg->keys, TLS_ACCEPT, deadline);

	if (ret == -EPROTOTYPE)
		control_preamble_send(t->peer.fd, deadline);
	return ret;
}

static int target_preamble(struct target *t)
{
	int64_t deadline = deadline_in(target_handshake_ms(t));
	struct control_versions v = { 0 };
	int ret = target_secure(t, deadline);

	if (ret)
		return ret;
	ret = control_preamble(t->peer.fd, deadline, &v);
	if (ret < 0 && tls_why(t->peer.fd))
		return peer_lost(&t->peer, ret);
	if (ret == -EPROTOTYPE)
		return failure_set(&t->failure, ret,
				   "what connected speaks TLS, and this host does without (tls = off): set the same on both hosts");
	if (ret == -EPROTONOSUPPORT)
		return failure_set(&t->failure, ret,
				   "the source speaks protocol %u to %u, this mspd %u to %u",
				   v.min, v.max, CONTROL_PROTO_MIN,
				   CONTROL_PROTO_MAX);
	if (ret == -EPROTO)
		return failure_set(&t->failure, ret,
				   "what connected is not mspd");
	if (ret < 0)
		return failure_set(&t->failure, ret,
				   "what connected did not introduce itself: %s",
				   strerror(-ret));
	return 0;
}

/* it is no stranger: from here on it counts as a migration */
static int target_admit(struct target *t)
{
	const struct keys_cert *cert = tls_peer(t->peer.fd);
	int ret = !t->rep->admit ? 0 :
		  t->rep->admit(t->rep, cert ? cert->name : "");

	if (ret == -EBUSY)
		return failure_set(&t->failure, ret,
				   "max_migrations is reached on this host");
	if (ret == -ESHUTDOWN)
		return failure_set(&t->failure, ret,
				   "the mspd of this host is stopping");
	return ret ? target_fail(t, ret, "no word from this host's mspd") : 0;
}

/* the source may ask for one; what it tracks by is its own business */
static int target_choose(struct target *t, const Mspd__Hello *h,
			 struct vasi_query *q)
{
	int wish = h->access ? word_index(access_words, h->access) :
			       ACCESS_AUTO;

	int ret;

	if (t->cfg->access) {
		t->access = t->cfg->access;
		ret = t->access->probe(q);
		if (ret)
			snprintf(t->how, sizeof(t->how), "%s", strerror(-ret));
		return ret;
	}
	if (wish < 0) {
		snprintf(t->how, sizeof(t->how), "the access is unknown");
		return wish;
	}
	if (wish == ACCESS_AUTO)
		wish = t->cfg->wish;
	return access_choose(wish, TRACKER_AUTO, &t->access, q, t->how,
			     sizeof(t->how));
}

static int hello_check(struct target *t, const Mspd__Hello *h,
		       struct vasi_query *q)
{
	int ret = target_choose(t, h, q);

	if (ret < 0)
		return failure_set(&t->failure, ret,
				   "guests cannot be reached here: %s", t->how);
	if (h->abi != q->out_abi)
		return failure_set(&t->failure, -EPROTONOSUPPORT,
				   "the vasi module here has ABI version %u, the source's %u: load matching modules",
				   q->out_abi, h->abi);
	if (h->page_size != GUEST_PAGE_SIZE)
		return failure_set(&t->failure, -EOPNOTSUPP,
				   "the source has pages of %u bytes, this host of %lu",
				   h->page_size, GUEST_PAGE_SIZE);
	if (!name_valid(h->name) || strlen(h->uuid) >= sizeof(t->uuid) ||
	    !h->stream_id || !h->streams)
		return failure_set(&t->failure, -EINVAL,
				   "a malformed name, UUID, stream ID or number of streams");
	return 0;
}

/* It is no migration: the source of one wants to know what became of it. */
static int target_query(struct target *t, const Mspd__Query *m)
{
	Mspd__Status answer = MSPD__STATUS__INIT;
	char why[RECOVER_TEXT];
	int ret;

	t->stream_id = m->stream_id;
	t->state = TARGET_ASKED;
	ret = m->stream_id ? recover_answer(t->cfg->journal_dir, m->stream_id,
					    m->lost, why) : -EINVAL;
	if (!m->stream_id)
		snprintf(why, sizeof(why), "that is no stream ID");
	if (ret < 0)
		return failure_set(&t->failure, ret, "%s", why);
	t->verdict = ret;
	answer.stream_id = m->stream_id;
	answer.verdict = ret;
	return target_send(t, CONTROL_STATUS, &answer.base);
}

static int target_hello(struct target *t, const Mspd__Hello *hello)
{
	unsigned int max = t->cfg->max_streams ? t->cfg->max_streams :
						 MAX_STREAMS;
	Mspd__Welcome welcome = MSPD__WELCOME__INIT;
	struct vasi_query query = { 0 };
	struct utsname uts;
	int ret;

	ret = hello_check(t, hello, &query);
	if (!ret) {
		snprintf(t->name, sizeof(t->name), "%s", hello->name);
		snprintf(t->uuid, sizeof(t->uuid), "%s", hello->uuid);
		t->stream_id = hello->stream_id;
		t->streams = hello->streams;
		t->encodings = fault_plain() ? 0 :
			       hello->encodings & ENCODING_BITS;
		ret = t->rep->reserve ? t->rep->reserve(t->rep, t->name,
							t->uuid) : 0;
		if (ret == -EEXIST)
			failure_set(&t->failure, ret,
				    "a guest with the name %s or its UUID is here already",
				    t->name);
		else if (ret < 0)
			failure_set(&t->failure, ret,
				    "cannot reserve the name %s: %s", t->name,
				    strerror(-ret));
	}
	if (ret < 0)
		return ret;
	if (max > SENDER_MAX_STREAMS)
		max = SENDER_MAX_STREAMS;
	if (t->streams > max)
		t->streams = max;
	uname(&uts);
	welcome.streams = t->streams;
	welcome.has_encodings = 1;
	welcome.encodings = t->encodings;
	welcome.abi = query.out_abi;
	welcome.kernel = uts.release;
	welcome.hostname = uts.nodename;
	return target_send(t, CONTROL_WELCOME, &welcome.base);
}

/* the first message says what this is */
static int target_first(struct target *t)
{
	struct control_message msg;
	int ret = peer_recv(&t->peer, deadline_in(target_handshake_ms(t)),
			    &msg);

	if (ret)
		return ret;
	if (msg.type == CONTROL_HELLO)
		ret = target_hello(t, msg.hello);
	else if (msg.type == CONTROL_QUERY)
		ret = target_query(t, msg.query);
	else
		ret = failure_set(&t->failure, -EPROTO,
				  "%s sent %s where Hello was due",
				  t->peer.name, control_name(msg.type));
	control_free(&msg);
	return ret;
}

/* -- validate, prepare */

static void options_set(struct target *t, const Mspd__Prepare *p)
{
	t->opt = (struct restore_options){
		.name = t->name,
		.stream_id = t->stream_id,
		.access = t->access,
		.timens_monotonic_ns = p ? p->timens_monotonic_ns : 0,
		.timens_boottime_ns = p ? p->timens_boottime_ns : 0,
	};
	if (*t->cfg->cgroup_root) {
		snprintf(t->cgroup, sizeof(t->cgroup), "%s/%s",
			 t->cfg->cgroup_root, t->name);
		t->opt.cgroup = t->cgroup;
	}
}

static int on_validate(struct target *t, const Mspd__Validate *m)
{
	_cleanup_(findings_clear) struct findings f = { 0 };
	Mspd__Findings answer = MSPD__FINDINGS__INIT;
	int ret;

	report_phase(t->rep, "validate");
	options_set(t, NULL);
	finding_add(&f, FINDING_PASS, "access", "", "%s", t->how);
	ret = restore_check(&t->opt, m->image, &f);
	if (ret < 0 && !f.errors)
		return target_fail(t, ret, "validation");
	findings_to_wire(&f, &answer.findings, &answer.n_findings);
	ret = target_send(t, CONTROL_FINDINGS, &answer.base);
	findings_wire_free(answer.findings, answer.n_findings);
	return ret;
}

/* before there is anything to find: what is found has a name */
static int target_journal(struct target *t)
{
	struct journal_record r = {
		.role = JOURNAL_TARGET, .type = JOURNAL_BEGIN,
		.stream_id = t->stream_id,
	};
	int ret;

	snprintf(r.guest, sizeof(r.guest), "%s", t->name);
	snprintf(r.uuid, sizeof(r.uuid), "%s", t->uuid);
	snprintf(r.access, sizeof(r.access), "%s", t->access->name);
	snprintf(r.cgroup, sizeof(r.cgroup), "%s", t->cgroup);
	snprintf(r.host, sizeof(r.host), "%s", t->cfg->peer);
	ret = journal_create(&t->journal, t->cfg->journal_dir, &r);
	if (ret == -EEXIST)
		return failure_set(&t->failure, ret,
				   "this migration is over: stream %016llx is in the journal here",
				   (unsigned long long)t->stream_id);
	return ret ? target_fail(t, ret, "the journal") : 0;
}

static int on_prepare(struct target *t, const Mspd__Prepare *m)
{
	Mspd__Prepared answer = MSPD__PREPARED__INIT;
	_cleanup_close_ int listener = -1;
	uint8_t token[TOKEN_BYTES];
	int64_t begin = now_ns();
	uint16_t port = 0;
	int ret;

	report_phase(t->rep, "prepare");
	options_set(t, m);
	ret = target_journal(t);
	if (ret)
		return ret;
	ret = restore_prepare(&t->restore, &t->opt, m->image, &t->findings);
	if (ret < 0)
		return target_fail(t, ret, "cannot prepare the guest");
	listener = sock_listen(t->cfg->listen_host, t->cfg->port_low,
			       t->cfg->port_high, &port);
	if (listener < 0)
		return target_fail(t, listener,
				   "no port for data connections");
	if (getrandom(token, sizeof(token), 0) != sizeof(token))
		return target_fail(t, -errno, "getrandom");
	answer.data_port = port;
	answer.token = (ProtobufCBinaryData){ sizeof(token), token };
	answer.has_prepare_ns = 1;
	answer.prepare_ns = now_ns() - begin;
	ret = target_send(t, CONTROL_PREPARED, &answer.base);
	if (!ret)
		ret = target_streams(t, listener, token);
	if (ret)
		return ret;
	t->state = TARGET_COPY;
	report_phase(t->rep, "copy");
	return 0;
}

static int on_ping(struct target *t, const Mspd__Ping *m)
{
	Mspd__Pong answer = MSPD__PONG__INIT;

	answer.cookie = m->cookie;
	answer.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	answer.boottime_ns = clock_ns(CLOCK_BOOTTIME);
	return target_send(t, CONTROL_PONG, &answer.base);
}

/* -- the loop */

/* A test wants silence: until the source gives up. */
static int fault_silence(struct target *t)
{
	char c;

	while (sock_recv(t->peer.fd, &c, 1, deadline_in(target_idle_ms(t))) !=
	       -ECONNRESET)
		;
	return failure_set(&t->failure, -ECONNRESET, "the source gave up");
}

static int target_message(struct target *t, const struct control_message *msg)
{
	enum target_state due = TARGET_HELLO;

	if (fault_close(msg->type))
		kill(getpid(), SIGKILL);
	if (fault_stall(msg->type))
		return fault_silence(t);
	if (msg->type == CONTROL_PING)
		return on_ping(t, msg->ping);
	if (msg->type == CONTROL_ROUND_MAPS || msg->type == CONTROL_ROUND_END ||
	    msg->type == CONTROL_FINAL)
		due = TARGET_COPY;
	else if (msg->type == CONTROL_COMMIT)
		due = TARGET_READY;
	if (t->state != due)
		return failure_set(&t->failure, -EPROTO,
				   "%s does not belong here",
				   control_name(msg->type));
	switch (msg->type) {
	case CONTROL_VALIDATE:
		return on_validate(t, msg->validate);
	case CONTROL_PREPARE:
		return on_prepare(t, msg->prepare);
	case CONTROL_ROUND_MAPS:
		return target_round_maps(t, msg->round_maps);
	case CONTROL_ROUND_END:
		return target_round_end(t, msg->round_end);
	case CONTROL_FINAL:
		return target_final(t, msg->final);
	case CONTROL_COMMIT:
		return target_commit(t, msg->commit);
	default:
		return failure_set(&t->failure, -EPROTO,
				   "%s does not belong here",
				   control_name(msg->type));
	}
}

/* The next message; data that arrives is a sign of life, too. */
static int target_next(struct target *t, struct control_message *ret)
{
	int64_t deadline = deadline_in(target_idle_ms(t));
	int event = t->receiver ? receiver_eventfd(t->receiver) : -1;
	int err;

	for (;;) {
		uint64_t bytes = t->receiver ? receiver_bytes(t->receiver) : 0;

		if (bytes != t->bytes_seen) {
			t->bytes_seen = bytes;
			deadline = deadline_in(target_idle_ms(t));
		}
		err = peer_wait(&t->peer, event, deadline);
		if (err < 0)
			return err;
		/* the source says why before it closes its data connections */
		if (err & PEER_MESSAGE)
			return peer_recv(&t->peer, deadline, ret);
		if (err & PEER_EXTRA) {
			err = receiver_status(t->receiver);
			if (!err)
				continue;
			if (err == -ECONNRESET)
				peer_last_words(&t->peer);
			return target_receiver_fail(t, err);
		}
	}
}

static int target_steps(struct target *t)
{
	int ret;

	t->known = pagemap_new();
	if (!t->known)
		return failure_set(&t->failure, -ENOMEM, "out of memory");
	ret = sock_adopt(t->peer.fd);
	if (ret)
		return target_fail(t, ret, "socket");
	ret = target_preamble(t);
	if (!ret)
		ret = target_admit(t);
	if (!ret)
		ret = target_first(t);
	while (!ret && t->state != TARGET_RESUMED &&
	       t->state != TARGET_ASKED) {
		struct control_message msg;

		ret = target_next(t, &msg);
		if (ret)
			break;
		ret = target_message(t, &msg);
		control_free(&msg);
	}
	return ret;
}

/* processes that the kernel has ended since its start for lack of memory */
static uint64_t oom_kills(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/vmstat", "re");
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "oom_kill ", 9))
			return strtoull(line + 9, NULL, 10);
	return 0;
}

/* the guest is the first to go until it is complete */
static void tell_of_memory(struct target *t)
{
	char reason[sizeof(t->failure.text)];

	if (!t->restore || t->failure.err == -ECANCELED ||
	    t->failure.err == -ECONNRESET || oom_kills() == t->oom_kills)
		return;
	snprintf(reason, sizeof(reason), "%s", t->failure.text);
	snprintf(t->failure.text, sizeof(t->failure.text),
		 "memory ran out, and the kernel has ended a process for it (make room for the guest, or raise memory.max of its cgroup): %.300s",
		 reason);
	utf8_repair(t->failure.text);
}

/* Nothing of the guest stays here, and then the source may know. */
static void target_abort(struct target *t)
{
	Mspd__Failed msg = MSPD__FAILED__INIT;

	receiver_free(t->receiver);
	t->receiver = NULL;
	tell_of_memory(t);
	if (!target_refuse(t))
		return;
	if (t->restore)
		restore_abort(t->restore);
	t->restore = NULL;
	if (t->recorded && t->rep->forget)
		t->rep->forget(t->rep, t->name);
	/* a refusal stays, nothing else was promised */
	if (t->state == TARGET_READY)
		journal_close(&t->journal);
	else
		journal_remove(&t->journal);
	msg.text = t->failure.text;
	msg.error = -t->failure.err;
	findings_to_wire(&t->findings, &msg.findings, &msg.n_findings);
	control_send(t->peer.fd, CONTROL_FAILED, &msg.base,
		     deadline_in(GOODBYE_MS));
	findings_wire_free(msg.findings, msg.n_findings);
}

/* A close with something unread would take our last message with it. */
static void target_goodbye(struct target *t)
{
	shutdown(t->peer.fd, SHUT_WR);
	sock_drain(t->peer.fd, deadline_in(GOODBYE_MS));
}

/* it asked for a validation and got it */
static bool target_only_asked(const struct target *t)
{
	return t->state == TARGET_HELLO && t->stream_id &&
	       t->failure.err == -ECONNRESET;
}

int target_run(int fd, const struct target_config *cfg, struct reporter *rep)
{
	struct target *t = calloc(1, sizeof(*t));
	struct summary sum = { 0 };
	int ret;

	if (!t) {
		close(fd);
		return -ENOMEM;
	}
	fault_init();
	*t = (struct target){
		.cfg = cfg, .rep = rep,
		.peer = { .fd = fd, .name = "the source", .guest_fd = -1,
			  .rep = rep },
		.journal.fd = -1,
	};
	t->peer.failure = &t->failure;
	t->oom_kills = oom_kills();
	ret = target_steps(t);
	if (ret && target_only_asked(t)) {
		ret = 0;
		sum.validate_only = true;
	}
	if (ret)
		target_abort(t);
	else if (t->restore)
		restore_release(t->restore);
	sum.ok = !ret;
	sum.error = ret ? t->failure.text : NULL;
	sum.rounds = json_array();
	sum.streams = t->streams;
	sum.stream_id = t->stream_id;
	sum.guest_bytes = t->known ? pagemap_pages(t->known) *
				     GUEST_PAGE_SIZE : 0;
	sum.bytes_sent = t->receiver ? receiver_bytes(t->receiver) :
				       t->bytes_seen;
	if (t->state == TARGET_ASKED)
		sum.asked = t->verdict == VERDICT_COMMITTED ? "committed" :
			    t->verdict == VERDICT_REFUSED ? "refused" :
			    "unknown";
	else
		report_phase(rep, ret ? "rolled-back" : "completed");
	report_summary(rep, &sum);
	if (t->state == TARGET_RESUMED)
		target_completed(t);
	target_goodbye(t);
	receiver_free(t->receiver);
	pagemap_free(t->known);
	maps_free(t->maps);
	findings_clear(&t->findings);
	json_decref(sum.rounds);
	journal_close(&t->journal);
	peer_release(&t->peer);
	free(t);
	return ret;
}
