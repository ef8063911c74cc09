// SPDX-License-Identifier: GPL-2.0
/*
 * The pause, and the only way out of it forward: seal, commit, resumed
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "engine/fault.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/utf8.h"
#include "session/children.h"
#include "session/recover.h"
#include "session/source.h"

/* a guest that cannot be stopped or described now may be in a moment */
#define ATTEMPTS	3
#define RETRY_MS	100
#define CHILD_POLL_MS	50
#define CATCH_UPS	3
#define PING_POLLS	20
#define SUSPEND_MS	2000
#define PAUSE_MAX_MS	20000
#define PAUSE_MAX_CAP_MS 3600000
#define ASK_AGAIN_MS	500
#define ASK_MS		10000

static const char *holdup_name(uint32_t reason)
{
	switch (reason) {
	case VASI_HOLDUP_UNINTERRUPTIBLE:
		return "waits in the kernel (storage?)";
	case VASI_HOLDUP_VFORK:
		return "waits for a vforked child";
	case VASI_HOLDUP_RUNNING:
		return "did not come to the kernel in time";
	case VASI_HOLDUP_STORM:
		return "and others are born faster than they are stopped";
	case VASI_HOLDUP_STOPPED:
		return "is stopped, frozen or traced";
	default:
		return "did not stop";
	}
}

static void pause_part(struct source *s, enum pause_part part)
{
	int64_t now = now_ns();

	s->summary.pause_ns[part] += now - s->pause_mark;
	s->pause_mark = now;
}

/* it was measured on the other side, within what was measured here */
static void pause_move(struct source *s, enum pause_part from,
		       enum pause_part to, uint64_t ns)
{
	if (ns > s->summary.pause_ns[from])
		ns = s->summary.pause_ns[from];
	s->summary.pause_ns[from] -= ns;
	s->summary.pause_ns[to] += ns;
}

/*
 * redis-server saving, a shell running a command: it will be over soon.
 * 1: it took a while, in which the guest wrote.
 */
static int wait_childless(struct source *s)
{
	int64_t deadline = deadline_in(s->m->child_wait_ms);
	unsigned int polls = 0;
	struct child child;
	int ret;

	for (;;) {
		ret = children_first(s->capture.proc, &child);
		if (ret < 0)
			return source_guest_fail(s, ret, "looking for children");
		if (!ret)
			return polls > 0;
		if (!deadline_left(deadline))
			return failure_set(&s->failure, -EBUSY,
					   "the guest has a child process (%d, %s) and it did not end within %u ms",
					   child.pid, child.comm,
					   s->m->child_wait_ms);
		polls++;
		ret = peer_pause(&s->peer, CHILD_POLL_MS);
		/* the target shall not think that nobody is there */
		if (!ret && polls % PING_POLLS == 0)
			ret = source_ping(s, NULL);
		if (ret)
			return ret;
	}
}

static int roll_back(struct source *s)
{
	int ret = s->access->resume(s->guest);

	if (ret < 0)
		return source_guest_fail(s, ret, "resume");
	s->suspended = false;
	s->capture.suspended = false;
	s->pause_end = 0;
	memset(s->summary.pause_ns, 0, sizeof(s->summary.pause_ns));
	return 0;
}

/* however little at a time the target takes, it does not keep the guest */
static unsigned int pause_max_ms(const struct source *s)
{
	uint64_t ms = PAUSE_MAX_MS;

	if (s->m->pause_max_ms)
		return s->m->pause_max_ms;
	if (ms < 10ULL * s->m->pause_limit_ms)
		ms = 10ULL * s->m->pause_limit_ms;
	if (ms < 2 * (s->summary.predicted_ns / NSEC_PER_MSEC))
		ms = 2 * (s->summary.predicted_ns / NSEC_PER_MSEC);
	return ms < PAUSE_MAX_CAP_MS ? ms : PAUSE_MAX_CAP_MS;
}

static int suspend(struct source *s)
{
	unsigned int ms = s->m->suspend_ms ? s->m->suspend_ms : SUSPEND_MS;
	struct guest_holdup holdup = { 0 };
	int ret;

	s->pause_mark = now_ns();
	ret = s->access->suspend(s->guest, ms, 0, &holdup);
	if (ret == -ETIMEDOUT)
		return failure_set(&s->failure, ret,
				   "the guest cannot be suspended within %u ms: thread %d (%s) %s",
				   ms, holdup.tid, holdup.comm,
				   holdup_name(holdup.reason));
	if (ret < 0)
		return source_guest_fail(s, ret, "suspend");
	s->suspended = true;
	s->capture.suspended = true;
	s->pause_end = deadline_in(pause_max_ms(s));
	pause_part(s, PAUSE_SUSPEND);
	return 0;
}

/*
 * Without children, and what it wrote while that was waited for is not left to
 * the pause. A guest that has children again and again gets so many tries.
 */
static int wait_ready(struct source *s)
{
	int ret;

	while ((ret = wait_childless(s)) > 0) {
		if (s->catch_ups++ >= CATCH_UPS)
			return 0;
		report_phase(s->rep, "copy");
		ret = rounds_run(s, true);
		if (ret)
			return ret;
		report_phase(s->rep, "switch-over");
	}
	return ret;
}

/* Suspended and without children, or not suspended and a failure. */
static int stop_guest(struct source *s)
{
	struct child child;
	int ret = 0;

	for (int i = 0; i < ATTEMPTS; i++) {
		struct failure last = { 0 };

		ret = wait_ready(s);
		if (ret)
			return ret;
		ret = suspend(s);
		if (ret == -ETIMEDOUT && i + 1 < ATTEMPTS) {
			s->failure = last;
			ret = peer_pause(&s->peer, RETRY_MS);
			if (ret)
				return ret;
			continue;
		}
		if (ret)
			return ret;
		/* one that was forked on the way into the suspend */
		ret = children_first(s->capture.proc, &child);
		if (!ret)
			return 0;
		if (ret < 0)
			return source_guest_fail(s, ret, "looking for children");
		ret = roll_back(s);
		if (ret)
			return ret;
		ret = failure_set(&last, -EBUSY,
				  "the guest forks all the time: child %d (%s)",
				  child.pid, child.comm);
		if (i + 1 == ATTEMPTS)
			s->failure = last;
	}
	return ret;
}

/*
 * The last round: the state is read while the last pages are on their way.
 * Without a final image the round is good even so; @ret_state says why.
 */
static int last_round(struct source *s, Mspd__Image **ret_image,
		      int *ret_state)
{
	struct round_report r = { .decision = s->last.decision };
	Mspd__Image *image = NULL;
	int ret, state;

	ret = rounds_harvest(s, &r);
	if (ret)
		return ret;
	pause_part(s, PAUSE_HARVEST);
	ret = rounds_begin(s, &r);
	if (ret)
		return ret;
	state = files_sync(&s->capture);
	if (state >= 0)
		state = capture_final(&s->capture, &image);
	if (state < 0)
		image = NULL;
	pause_part(s, PAUSE_STATE);
	ret = rounds_sent(s, &r);
	if (!ret)
		ret = rounds_applied(s, &r);
	pause_part(s, PAUSE_PAGES);
	pause_move(s, PAUSE_PAGES, PAUSE_DIGEST, r.digest_ns);
	if (ret) {
		image_free(image);
		return ret;
	}
	*ret_image = image;
	*ret_state = state;
	return 0;
}

/* Suspended with its final image, or an error. */
static int stop_and_capture(struct source *s, Mspd__Image **ret)
{
	char text[400];
	int err, state = 0;

	for (int i = 0; i < ATTEMPTS; i++) {
		err = stop_guest(s);
		if (err)
			return err;
		err = last_round(s, ret, &state);
		if (err || *ret)
			return err;
		err = roll_back(s);
		if (err)
			return err;
		rounds_report(s);
		if (!s->findings.errors)
			return source_guest_fail(s, state, "reading its state");
		if (i + 1 == ATTEMPTS)
			break;
		findings_clear(&s->findings);
		err = peer_pause(&s->peer, RETRY_MS);
		if (err)
			return err;
	}
	report_findings(s->rep, &s->findings, "source");
	return failure_set(&s->failure, -EBUSY,
			   "the guest cannot be moved any more: %s",
			   findings_first_error(&s->findings, text,
						sizeof(text)));
}

static int finish_target(struct source *s, Mspd__Image *image)
{
	Mspd__Final msg = MSPD__FINAL__INIT;
	struct control_message answer;
	const Mspd__Ready *ready;
	uint64_t digest_ns, journal_ns;
	int ret;

	/* from here on the target may have a guest that is complete */
	s->final = true;
	msg.image = image;
	ret = peer_send(&s->peer, CONTROL_FINAL, &msg.base,
			source_reply_ms(s));
	if (!ret)
		ret = source_expect(s, CONTROL_READY, &answer);
	if (ret)
		return ret;
	ready = answer.ready;
	digest_ns = ready->digest_ns;
	journal_ns = ready->journal_ns;
	s->summary.guest_bytes = pagemap_pages(s->known) *
				 sysconf(_SC_PAGESIZE);
	if (ready->digest != pagemap_sum(s->known) ||
	    ready->pages != pagemap_pages(s->known))
		ret = failure_set(&s->failure, -EBADMSG,
				  "the guest on %s is not the guest here: digest %016llx of %llu pages there, %016llx of %llu here",
				  s->peer.name,
				  (unsigned long long)ready->digest,
				  (unsigned long long)ready->pages,
				  (unsigned long long)pagemap_sum(s->known),
				  (unsigned long long)pagemap_pages(s->known));
	control_free(&answer);
	pause_part(s, PAUSE_RESTORE);
	/* measured there, so it is taken out of what was measured here */
	pause_move(s, PAUSE_RESTORE, PAUSE_DIGEST, digest_ns);
	pause_move(s, PAUSE_RESTORE, PAUSE_JOURNAL, journal_ns);
	fault_die("prepared");
	return ret;
}

/* The connection is gone, or silent: a new one may tell. Or nobody does. */
static int ask(struct source *s)
{
	unsigned int ms = source_reply_ms(s);
	int64_t deadline = deadline_in(ms < ASK_MS ? ms : ASK_MS);
	char why[RECOVER_TEXT];
	int left, ret;

	for (;;) {
		left = deadline_left(deadline);
		ret = recover_ask(s->m->host, s->m->port, s->m->keys, s->m->stream_id,
				  false, left, why);
		if (ret >= 0 || left <= ASK_AGAIN_MS)
			return ret;
		sleep_ms(ASK_AGAIN_MS);
	}
}

static int in_doubt(struct source *s)
{
	char reason[sizeof(s->failure.text)];

	s->summary.in_doubt = true;
	snprintf(reason, sizeof(reason), "%s", s->failure.text);
	snprintf(s->failure.text, sizeof(s->failure.text),
		 "in doubt: %.300s; the guest stays stopped and sealed here until the target has answered whether it runs there",
		 reason);
	utf8_repair(s->failure.text);
	return -EINPROGRESS;
}

/* Resumed, or the reason why it is not known that it is. */
static int await_resumed(struct source *s)
{
	Mspd__Commit msg = MSPD__COMMIT__INIT;
	struct control_message answer = { 0 };
	uint64_t journal_ns = 0;
	int ret;

	msg.stream_id = s->m->stream_id;
	ret = peer_send(&s->peer, CONTROL_COMMIT, &msg.base,
			source_reply_ms(s));
	fault_die("sent");
	if (!ret)
		ret = peer_recv(&s->peer, deadline_in(source_reply_ms(s)),
				&answer);
	if (!ret && answer.type != CONTROL_RESUMED)
		ret = failure_set(&s->failure, -EPROTO,
				  "%s sent %s where Resumed was due",
				  s->peer.name, control_name(answer.type));
	else if (!ret)
		journal_ns = answer.resumed->journal_ns;
	control_free(&answer);
	pause_part(s, PAUSE_RESUME);
	pause_move(s, PAUSE_RESUME, PAUSE_JOURNAL, journal_ns);
	return ret;
}

/*
 * The guest is sealed before it is on record that it was given away, and that
 * is durable before the first byte of Commit. From then on there is no way back
 * by ourselves: only the target's own word that it does not run the guest
 * unseals it here.
 */
static int commit(struct source *s)
{
	int ret, verdict;

	if (!deadline_left(s->pause_end))
		return failure_set(&s->failure, -ETIMEDOUT, "no time is left");
	ret = s->access->seal(s->guest);
	if (ret < 0)
		return source_guest_fail(s, ret, "seal");
	fault_die("sealed");
	pause_part(s, PAUSE_RESUME);
	ret = journal_append(&s->journal, JOURNAL_COMMIT);
	fault_die("committed");
	pause_part(s, PAUSE_JOURNAL);
	if (ret) {
		failure_set(&s->failure, ret,
			    "the journal does not take the commit: %s",
			    strerror(-ret));
		/* a power loss could bring it to light: it is taken back first */
		if (!journal_append(&s->journal, JOURNAL_RETURNED))
			return ret;
	}
	s->pause_end = 0;
	s->peer.rep = NULL;
	s->peer.guest_fd = -1;
	s->committed = true;
	if (ret)
		close(steal_fd(&s->peer.fd));
	else
		ret = await_resumed(s);
	fault_die("resumed");
	if (!ret)
		return 0;
	verdict = s->peer.refused ? VERDICT_REFUSED : ask(s);
	if (verdict == VERDICT_COMMITTED) {
		pause_part(s, PAUSE_RESUME);
		s->failure = (struct failure){ 0 };
		return 0;
	}
	if (verdict != VERDICT_REFUSED)
		return in_doubt(s);
	s->peer.refused = true;
	s->committed = false;
	return ret;
}

static void tell_pause_end(struct source *s)
{
	char reason[sizeof(s->failure.text)];

	if (!s->pause_end || deadline_left(s->pause_end))
		return;
	snprintf(reason, sizeof(reason), "%s", s->failure.text);
	snprintf(s->failure.text, sizeof(s->failure.text),
		 "the guest stood still for %u ms, which is as long as it may: %.300s",
		 pause_max_ms(s), reason);
	utf8_repair(s->failure.text);
}

int switch_over(struct source *s)
{
	Mspd__Image *image = NULL;
	int ret;

	report_phase(s->rep, "switch-over");
	ret = stop_and_capture(s, &image);
	if (!ret)
		ret = finish_target(s, image);
	if (!ret)
		ret = commit(s);
	if (ret)
		tell_pause_end(s);
	if (!image)
		return ret;
	image_free(image);
	rounds_report(s);
	return ret;
}
