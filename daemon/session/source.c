// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/utsname.h>
#include "engine/fault.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/digest.h"
#include "session/source.h"
#include "wire/frame.h"
#include "wire/sock.h"

#define REPLY_MS	30000
#define HANDSHAKE_MS	10000
#define CLOCK_SAMPLES	8
#define DESTROY_MS	10000
#define CHECKS		3
#define CHECK_AGAIN_MS	100

unsigned int source_reply_ms(const struct source *s)
{
	unsigned int ms = s->m->reply_ms, left;

	/* nothing is to be done for the first answer; streams come with it */
	if (!ms)
		ms = s->summary.streams ? REPLY_MS : HANDSHAKE_MS;
	if (!s->pause_end)
		return ms;
	left = deadline_left(s->pause_end);
	return left < ms ? left : ms;
}

int source_guest_fail(struct source *s, int err, const char *what)
{
	switch (err) {
	case -EPERM:
		return failure_set(&s->failure, err,
				   "guest %s, %s: this host does not let mspd trace it: it lacks CAP_SYS_PTRACE, or a security module or another tracer is in the way",
				   s->m->name, what);
	case -ESRCH:
		return failure_set(&s->failure, err,
				   "the guest exited or was killed");
	case -ECANCELED:
		return failure_set(&s->failure, err,
				   "the guest called exec, its stream was aborted");
	default:
		return failure_set(&s->failure, err, "guest %s, %s: %s",
				   s->m->name, what, strerror(-err));
	}
}

int source_stray(struct source *s, struct control_message *msg)
{
	int ret = 0;

	if (msg->type == CONTROL_ROUND_APPLIED && s->unapplied)
		s->unapplied--;
	else
		ret = failure_set(&s->failure, -EPROTO,
				  "%s sent %s where it does not belong",
				  s->peer.name, control_name(msg->type));
	control_free(msg);
	return ret;
}

int source_expect(struct source *s, enum control_type type,
		  struct control_message *ret)
{
	int64_t deadline = deadline_in(source_reply_ms(s));

	for (;;) {
		struct control_message msg;
		int err = peer_recv(&s->peer, deadline, &msg);

		if (err)
			return err;
		if (msg.type == type) {
			*ret = msg;
			return 0;
		}
		err = source_stray(s, &msg);
		if (err)
			return err;
	}
}

/* -- validate */

static int source_attach(struct source *s)
{
	const struct migration *m = s->m;
	int ret;

	s->pidfd = pidfd_open(m->pid, 0);
	if (s->pidfd < 0)
		return failure_set(&s->failure, -errno,
				   "guest %s: process %d: %m", m->name,
				   m->pid);
	ret = s->access->attach(&s->guest, m->pid, VASI_SERVICE_SOURCE,
				m->stream_id);
	if (ret == -EBUSY)
		return failure_set(&s->failure, ret,
				   "guest %s is in another migration", m->name);
	if (ret < 0)
		return source_guest_fail(s, ret, "attach");
	/* the PID may have been another process's between the two */
	if (pidfd_send_signal(s->pidfd, 0, NULL, 0))
		return source_guest_fail(s, -ESRCH, "attach");
	ret = capture_open(&s->capture, s->guest, m->pid, m->connections,
			   &s->findings);
	if (ret < 0)
		return source_guest_fail(s, ret, "reading its state");
	s->capture_open = true;
	s->peer.guest_fd = s->access->pollfd(s->guest);
	s->peer.guest = s->guest;
	return 0;
}

static int source_connect(struct source *s)
{
	int64_t deadline = deadline_in(s->m->reply_ms ? s->m->reply_ms :
							HANDSHAKE_MS);
	struct control_versions v = { 0 };
	int ret;

	ret = sock_connect(s->m->host, s->m->port, deadline);
	if (ret < 0)
		return failure_set(&s->failure, ret, "cannot connect to %s port %u: %s",
				   s->m->host, s->m->port,
				   ret == -ENOENT ? "no such host" :
				   ret == -EAGAIN ?
				   "its address cannot be looked up now" :
				   strerror(-ret));
	s->peer.fd = ret;
	ret = peer_secure(&s->peer, s->m->keys, TLS_CONNECT, deadline);
	if (ret)
		return ret;
	ret = control_preamble(s->peer.fd, deadline, &v);
	if (ret < 0 && tls_why(s->peer.fd))
		return peer_lost(&s->peer, ret);
	if (ret == -EPROTONOSUPPORT)
		return failure_set(&s->failure, ret,
				   "%s speaks protocol %u to %u, this mspd %u to %u: install matching versions",
				   s->peer.name, v.min, v.max,
				   CONTROL_PROTO_MIN, CONTROL_PROTO_MAX);
	if (ret == -EPROTO)
		return failure_set(&s->failure, ret,
				   "what listens at %s port %u is not mspd",
				   s->m->host, s->m->port);
	if (ret < 0)
		return failure_set(&s->failure, ret, "%s %s", s->peer.name,
				   ret == -ETIMEDOUT ?
				   "does not answer in time" :
				   ret == -ECONNRESET ?
				   "closed the connection without a word" :
				   strerror(-ret));
	return 0;
}

static int source_hello(struct source *s, struct utsname *uts)
{
	Mspd__Hello hello = MSPD__HELLO__INIT;
	struct control_message answer;
	struct vasi_query query = { 0 };
	unsigned int streams, wanted = s->m->streams;
	int ret;

	if (!wanted || wanted > SENDER_MAX_STREAMS)
		return failure_set(&s->failure, -EINVAL,
				   "streams=%u: 1 to %u are possible", wanted,
				   SENDER_MAX_STREAMS);

	ret = s->access->probe(&query);
	if (ret < 0)
		return failure_set(&s->failure, ret,
				   "guests cannot be reached any more: %s",
				   strerror(-ret));
	hello.access = (char *)access_words[s->m->access];
	hello.name = (char *)s->m->name;
	hello.uuid = (char *)s->m->uuid;
	hello.stream_id = s->m->stream_id;
	hello.streams = wanted;
	hello.abi = query.out_abi;
	hello.page_size = GUEST_PAGE_SIZE;
	hello.kernel = uts->release;
	hello.hostname = uts->nodename;
	hello.has_encodings = 1;
	hello.encodings = compression_bits(s->m->compression);
	ret = peer_send(&s->peer, CONTROL_HELLO, &hello.base,
			source_reply_ms(s));
	if (!ret)
		ret = source_expect(s, CONTROL_WELCOME, &answer);
	if (ret)
		return ret;
	streams = answer.welcome->streams;
	s->encodings = answer.welcome->encodings;
	if (answer.welcome->kernel)
		s->summary.kernel[1] = strdup(answer.welcome->kernel);
	control_free(&answer);
	if (!streams || streams > wanted)
		return failure_set(&s->failure, -EPROTO,
				   "%s grants %u data connections of %u",
				   s->peer.name, streams, wanted);
	if (s->encodings & ~hello.encodings)
		return failure_set(&s->failure, -EPROTO,
				   "%s grants encodings that nobody asked for",
				   s->peer.name);
	s->summary.streams = streams;
	return 0;
}

/* Nothing stands against a move because of it, but somebody may wonder. */
static void tell_compression(struct source *s)
{
	const char *wish = compression_words[s->m->compression];
	_cleanup_(findings_clear) struct findings f = { 0 };

	if (s->m->compression == COMPRESSION_AUTO)
		finding_add(&f, FINDING_PASS, "compression", "",
			    s->encodings == ENCODING_BITS ?
			    "auto: by lz4 or zstd while one makes it faster" :
			    s->encodings ? "auto: while it makes it faster" :
			    "none, as %s knows none", s->peer.name);
	else if (s->encodings == compression_bits(s->m->compression))
		finding_add(&f, FINDING_PASS, "compression", "", "%s", wish);
	else
		finding_add(&f, FINDING_WARNING, "compression", "",
			    "%s is wished, and %s does not know it: pages are sent as they are",
			    wish, s->peer.name);
	report_findings(s->rep, &f, "source");
}

/* Findings, or an early image, or both. */
static int look_here(struct source *s)
{
	int64_t begin;
	int ret;

	ret = capture_check(&s->capture);
	if (ret < 0 && !s->findings.errors)
		return source_guest_fail(s, ret, "validation");
	begin = now_ns();
	ret = capture_early(&s->capture, &s->early);
	s->est.state_ns = now_ns() - begin;
	return ret;
}

/* What a guest has open for a moment, in /proc say, is looked at again. */
static int check_here(struct source *s, bool again)
{
	int ret;

	if (!again)
		report_phase(s->rep, "validate");
	findings_clear(&s->findings);
	for (int i = 0;; i++) {
		ret = look_here(s);
		if (!s->findings.errors || i + 1 == CHECKS)
			break;
		if (ret >= 0)
			image_free(s->early);
		s->early = NULL;
		findings_clear(&s->findings);
		ret = peer_pause(&s->peer, CHECK_AGAIN_MS);
		if (ret)
			return ret;
	}
	if (s->failure.err)
		return s->failure.err;
	finding_add(&s->findings, FINDING_PASS, "access", "", "%s", s->how);
	if (!again || s->findings.errors)
		report_findings(s->rep, &s->findings, "source");
	if (ret < 0 && !s->findings.errors)
		return source_guest_fail(s, ret, "reading its state");
	if (ret < 0)
		s->early = NULL;
	return 0;
}

static int check_there(struct source *s, struct findings *remote)
{
	Mspd__Validate msg = MSPD__VALIDATE__INIT;
	struct control_message answer;
	int ret;

	msg.image = s->early;
	ret = peer_send(&s->peer, CONTROL_VALIDATE, &msg.base,
			source_reply_ms(s));
	if (!ret)
		ret = source_expect(s, CONTROL_FINDINGS, &answer);
	if (ret)
		return ret;
	findings_from_wire(remote, answer.findings->findings,
			   answer.findings->n_findings);
	control_free(&answer);
	return 0;
}

/*
 * Until nothing is left against it, or it stays: a file that was open for a moment has
 * another name by the time the target looks for it.
 */
static int check_both(struct source *s, struct findings *remote)
{
	int ret;

	for (int i = 0;; i++) {
		ret = check_there(s, remote);
		if (ret || !remote->errors || s->findings.errors ||
		    i + 1 == CHECKS)
			break;
		image_free(s->early);
		s->early = NULL;
		findings_clear(remote);
		ret = peer_pause(&s->peer, CHECK_AGAIN_MS);
		if (!ret)
			ret = check_here(s, true);
		if (ret || !s->early)
			return ret;
	}
	report_findings(s->rep, remote, "target");
	return ret;
}

/* Both sides say all they have against it; then it is refused or goes on. */
static int source_validate(struct source *s, struct utsname *uts)
{
	_cleanup_(findings_clear) struct findings remote = { 0 };
	char text[400];
	int ret;

	ret = check_here(s, false);
	if (!ret)
		ret = source_connect(s);
	if (!ret)
		ret = source_hello(s, uts);
	if (!ret)
		tell_compression(s);
	if (!ret && s->early)
		ret = check_both(s, &remote);
	if (s->findings.errors) {
		s->failure = (struct failure){ 0 };
		return failure_set(&s->failure, -EOPNOTSUPP,
				   "guest %s cannot be moved: %s", s->m->name,
				   findings_first_error(&s->findings, text,
							sizeof(text)));
	}
	if (!ret && remote.errors)
		ret = failure_set(&s->failure, -EOPNOTSUPP,
				  "%s cannot take guest %s: %s", s->peer.name,
				  s->m->name,
				  findings_first_error(&remote, text,
						       sizeof(text)));
	return ret;
}

/* -- prepare */

int source_ping(struct source *s, struct clock_sample *ret)
{
	Mspd__Ping ping = MSPD__PING__INIT;
	struct control_message answer;
	struct clock_sample sample;
	int err;

	sample.sent_ns = now_ns();
	ping.cookie = sample.sent_ns;
	err = peer_send(&s->peer, CONTROL_PING, &ping.base,
			source_reply_ms(s));
	if (!err)
		err = source_expect(s, CONTROL_PONG, &answer);
	if (err)
		return err;
	sample.monotonic_ns = now_ns();
	sample.boottime_ns = clock_ns(CLOCK_BOOTTIME);
	sample.target_monotonic_ns = answer.pong->monotonic_ns;
	sample.target_boottime_ns = answer.pong->boottime_ns;
	control_free(&answer);
	if (ret)
		*ret = sample;
	return 0;
}

static int source_clocks(struct source *s, struct timens *ret)
{
	struct clock_sample sample[CLOCK_SAMPLES];
	const struct clock_sample *best;
	struct timens guest;
	int err;

	err = timens_of_records(s->capture.records, s->capture.records_len,
				&guest);
	if (err)
		return source_guest_fail(s, err, "its clocks");
	for (unsigned int i = 0; i < CLOCK_SAMPLES; i++) {
		err = source_ping(s, &sample[i]);
		if (err)
			return err;
	}
	*ret = timens_offsets(sample, CLOCK_SAMPLES, &guest);
	best = timens_best(sample, CLOCK_SAMPLES);
	s->est.round_trip_ns = best->monotonic_ns - best->sent_ns;
	return 0;
}

static int connect_stream(struct source *s, unsigned int index, uint16_t port,
			  const uint8_t *token, int64_t deadline)
{
	struct stream_hello hello = {
		.stream_id = s->m->stream_id,
		.stream = index,
	};
	unsigned char buf[HELLO_BYTES];
	_cleanup_sock_ int fd = -1;
	int ret = 0;

	memcpy(hello.token, token, TOKEN_BYTES);
	stream_hello_encode(buf, &hello);
	fd = sock_connect_peer(s->peer.fd, port, deadline);
	if (fd < 0)
		return fd;
	if (s->peer.tls)
		ret = sock_secure(fd, s->peer.tls, TLS_CONNECT, true, deadline);
	/* the token is for who gave it */
	if (!ret && !peer_same(&s->peer, fd))
		ret = -EKEYREJECTED;
	if (!ret)
		ret = sock_send(fd, buf, sizeof(buf), deadline);
	return ret ? ret : steal_fd(&fd);
}

static int source_streams(struct source *s, uint16_t port,
			  const uint8_t *token)
{
	int64_t deadline = deadline_in(source_reply_ms(s));
	struct sender_config cfg = {
		.guest = s->guest,
		.known = s->known,
		.nr = s->summary.streams,
	};
	int fd[SENDER_MAX_STREAMS], ret;

	cfg.fd = fd;
	if (s->m->compression == COMPRESSION_AUTO)
		cfg.encodings = s->encodings;
	else if (s->encodings & ENCODING_BIT(ENCODING_LZ4))
		cfg.encoding = ENCODING_LZ4;
	else if (s->encodings & ENCODING_BIT(ENCODING_ZSTD))
		cfg.encoding = ENCODING_ZSTD;
	for (unsigned int i = 0; i < cfg.nr; i++) {
		fd[i] = connect_stream(s, i, port, token, deadline);
		if (fd[i] >= 0)
			continue;
		ret = fd[i];
		while (i-- > 0)
			sock_close(&fd[i]);
		return failure_set(&s->failure, ret,
				   "data connection to %s port %u: %s",
				   s->peer.name, port, strerror(-ret));
	}
	s->summary.tls = !s->peer.tls ? "off" :
			 tls_kernel_sends(fd[0]) ? "kernel" : "process";
	ret = sender_new(&s->sender, &cfg);
	if (ret)
		return source_guest_fail(s, ret, "data connections");
	return 0;
}

/* before there is anything to find: what is found has a name */
static int source_journal(struct source *s)
{
	struct journal_record r = {
		.role = JOURNAL_SOURCE, .type = JOURNAL_BEGIN,
		.stream_id = s->m->stream_id, .pid = s->m->pid,
		.port = s->m->port,
	};
	int ret;

	snprintf(r.guest, sizeof(r.guest), "%s", s->m->name);
	snprintf(r.uuid, sizeof(r.uuid), "%s", s->m->uuid);
	snprintf(r.access, sizeof(r.access), "%s", s->access->name);
	snprintf(r.host, sizeof(r.host), "%s", s->m->host);
	ret = journal_create(&s->journal, s->m->journal_dir, &r);
	if (ret)
		return failure_set(&s->failure, ret, "journal in %s: %s",
				   s->m->journal_dir, strerror(-ret));
	return 0;
}

static int source_prepare(struct source *s)
{
	Mspd__Prepare msg = MSPD__PREPARE__INIT;
	struct control_message answer;
	uint8_t token[TOKEN_BYTES];
	struct timens offset;
	uint16_t port = 0;
	int ret;

	report_phase(s->rep, "prepare");
	ret = source_journal(s);
	if (!ret)
		ret = source_clocks(s, &offset);
	if (ret)
		return ret;
	ret = s->access->track(s->guest, 1);
	if (ret < 0)
		return source_guest_fail(s, ret, "tracking");
	msg.image = s->early;
	msg.timens_monotonic_ns = offset.monotonic_ns;
	msg.timens_boottime_ns = offset.boottime_ns;
	ret = peer_send(&s->peer, CONTROL_PREPARE, &msg.base,
			source_reply_ms(s));
	if (!ret)
		ret = source_expect(s, CONTROL_PREPARED, &answer);
	if (ret)
		return ret;
	if (answer.prepared->token.len == TOKEN_BYTES) {
		port = answer.prepared->data_port;
		memcpy(token, answer.prepared->token.data, TOKEN_BYTES);
	}
	/* the pause has to make up for the differences only */
	s->est.restore_ns = answer.prepared->prepare_ns / 2;
	control_free(&answer);
	if (!port)
		return failure_set(&s->failure, -EPROTO,
				   "%s sent a malformed Prepared",
				   s->peer.name);
	return source_streams(s, port, token);
}

/* -- the end */

/* The guest runs there: what is here goes. */
static void source_complete(struct source *s)
{
	const uint32_t reason = VASI_ENTITY_SOURCE_MOVER << 24;
	Mspd__Completed msg = MSPD__COMPLETED__INIT;
	int ret;

	sender_free(s->sender);
	s->sender = NULL;
	/* whoever finds the copy later knows from it that it may be ended */
	s->access->signal(s->guest, VASI_SIGNAL_RESUMED, reason);
	ret = s->access->destroy(s->guest, DESTROY_MS);
	if (ret < 0 && ret != -ESRCH) {
		/*
		 * It stays sealed, so never runs twice, and listed; the
		 * journal stays too, and it is tried again
		 */
		finding_add(&s->findings, FINDING_WARNING, "source.destroy", "",
			    "the stopped copy of the guest could not be removed: %s",
			    strerror(-ret));
		report_findings(s->rep, &s->findings, "source");
		return;
	}
	fault_die("destroyed");
	if (s->rep->adopted)
		s->rep->adopted(s->rep, s->m->name, s->m->uuid, s->m->pid);
	/* without that record the journal is looked at once more, and goes */
	ret = journal_append(&s->journal, JOURNAL_COMPLETED);
	fault_die("completed");
	if (ret)
		return;
	msg.stream_id = s->m->stream_id;
	control_send(s->peer.fd, CONTROL_COMPLETED, &msg.base,
		     deadline_in(1000));
	journal_remove(&s->journal);
}

/*
 * Nobody is to be asked if the target has nothing or said so; else it is told
 * until it answers, by the supervisor.
 */
static void source_returned(struct source *s)
{
	if (s->journal.fd < 0 || s->suspended)
		return;
	if (!s->final || s->peer.refused)
		journal_remove(&s->journal);
	/* if it is not taken, *begin* has the supervisor tell it, too */
	else if (s->journal.last.type != JOURNAL_RETURNED)
		journal_append(&s->journal, JOURNAL_RETURNED);
}

static void source_roll_back(struct source *s)
{
	Mspd__Abort msg = MSPD__ABORT__INIT;

	if (s->suspended && s->access->resume(s->guest) >= 0)
		s->suspended = false;
	source_returned(s);
	if (s->guest)
		rounds_mark(s);
	if (s->peer.fd >= 0 && !s->peer.refused) {
		msg.reason = s->failure.text;
		control_send(s->peer.fd, CONTROL_ABORT, &msg.base,
			     deadline_in(1000));
	}
	sender_free(s->sender);
	s->sender = NULL;
	if (s->guest)
		s->access->track(s->guest, 0);
}

static void source_close(struct source *s)
{
	sender_free(s->sender);
	if (s->capture_open)
		capture_close(&s->capture);
	if (s->guest)
		s->access->close(s->guest);
	if (s->early)
		image_free(s->early);
	peer_release(&s->peer);
	cleanup_close(&s->pidfd);
	journal_close(&s->journal);
	pagemap_free(s->known);
	extents_free(&s->extents);
	maps_free(s->maps);
	free(s->maps_sent);
	free(s->harvest.items);
	pageset_free(&s->harvest.again);
	free((char *)s->summary.kernel[1]);
	findings_clear(&s->findings);
	json_decref(s->summary.rounds);
}

/* data connections do without it, one buffer after the other */
static void say_without_ring(struct source *s)
{
	size_t len = strlen(s->how);
	struct io_uring ring;
	int ret = io_uring_queue_init(1, &ring, 0);

	if (!ret)
		io_uring_queue_exit(&ring);
	else
		snprintf(s->how + len, sizeof(s->how) - len,
			 "%ssent without io_uring (%s%s)", len ? "; " : "",
			 strerror(-ret), ret == -EPERM ?
			 ": kernel.io_uring_disabled or a seccomp filter" : "");
}

static int source_choose(struct source *s)
{
	int ret;

	if (s->access)
		return 0;
	ret = access_choose(s->m->access, s->m->tracker, &s->access, NULL,
			    s->how, sizeof(s->how));
	if (ret)
		return failure_set(&s->failure, ret,
				   "this host cannot move guests: %s", s->how);
	say_without_ring(s);
	s->summary.how = s->how;
	return 0;
}

static int source_steps(struct source *s, struct utsname *uts)
{
	int ret;

	s->known = pagemap_new();
	if (!s->known || !s->summary.rounds)
		return failure_set(&s->failure, -ENOMEM, "out of memory");
	ret = source_choose(s);
	if (!ret)
		ret = source_attach(s);
	if (!ret)
		ret = source_validate(s, uts);
	if (ret || s->m->validate_only)
		return ret;
	ret = source_prepare(s);
	if (ret)
		return ret;
	report_phase(s->rep, "copy");
	ret = rounds_run(s, false);
	if (!ret)
		ret = switch_over(s);
	if (!ret)
		source_complete(s);
	return ret;
}

int source_run(const struct migration *m, const struct guest_access *access,
	       struct reporter *rep)
{
	struct source *s = calloc(1, sizeof(*s));
	struct utsname uts;
	int ret;

	if (!s)
		return -ENOMEM;
	fault_init();
	uname(&uts);
	*s = (struct source){
		.m = m, .access = access, .rep = rep, .pidfd = -1,
		.journal.fd = -1,
		.peer = { .fd = -1, .guest_fd = -1, .rep = rep },
		.summary = {
			.stream_id = m->stream_id,
			.validate_only = m->validate_only,
			.rounds = json_array(),
			.kernel = { uts.release },
		},
	};
	s->peer.failure = &s->failure;
	s->peer.findings = &s->findings;
	snprintf(s->peer.name, sizeof(s->peer.name), "target %s", m->host);

	ret = source_steps(s, &uts);
	if (ret && !s->committed)
		source_roll_back(s);
	s->summary.ok = !ret;
	s->summary.error = ret ? s->failure.text : NULL;
	report_phase(rep, !ret ? "completed" : s->summary.in_doubt ?
		     "in-doubt" : "rolled-back");
	report_summary(rep, &s->summary);
	source_close(s);
	free(s);
	return ret;
}
