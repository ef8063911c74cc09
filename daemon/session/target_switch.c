// SPDX-License-Identifier: GPL-2.0
/*
 * The target's part of the pause: complete, promised, committed, resumed
 *
 * Each record of the journal is durable before the message that depends on it.
 */
#include <errno.h>
#include <string.h>
#include "engine/fault.h"
#include "lib/clock.h"
#include "log.h"
#include "session/known.h"
#include "session/report.h"
#include "session/target.h"

#define PARK_MS		5000
/* the guest's clock may have to catch up with what it saw on the source */
#define CLOCK_WAIT_NS	(2 * NSEC_PER_SEC)
/* the source ends its copy first */
#define COMPLETED_MS	12000
/* for somebody who asks at this time */
#define LOCK_MS		1000

/*
 * The offset was rounded up, but hosts' clocks drift while a migration lasts:
 * the guest must not see an earlier time than it saw before.
 */
static int wait_clock(struct target *t, const Mspd__Process *p)
{
	int64_t behind;

	if (!p || !p->has_clock_monotonic_ns)
		return 0;
	behind = p->clock_monotonic_ns -
		 (now_ns() + t->opt.timens_monotonic_ns);
	if (behind <= 0)
		return 0;
	if (behind > CLOCK_WAIT_NS)
		return failure_set(&t->failure, -ERANGE,
				   "the guest's clock would go back by %lld ms: the hosts' clocks drift too fast",
				   (long long)(behind / NSEC_PER_MSEC));
	sleep_ms(behind / NSEC_PER_MSEC + 1);
	return 0;
}

/*
 * Whatever happens to this process from Commit on, the guest must be found: it
 * is on record before the source can let it go.
 */
static int target_record(struct target *t)
{
	int ret;

	if (!t->rep->arriving)
		return 0;
	ret = t->rep->arriving(t->rep, t->name, t->uuid,
			       restore_pid(t->restore));
	if (ret < 0)
		return failure_set(&t->failure, ret,
				   "the guest cannot be entered in the registry: %s",
				   strerror(-ret));
	t->recorded = true;
	fault_die("recorded");
	return 0;
}

/* from here on the copy stays, whoever ends, until its owner is known */
static int target_promise(struct target *t)
{
	int ret;

	t->journal.last.pid = restore_pid(t->restore);
	ret = journal_append(&t->journal, JOURNAL_PREPARED);
	if (ret)
		return target_fail(t, ret,
				   "the journal does not take the guest");
	t->state = TARGET_READY;
	fault_die("prepared");
	return 0;
}

int target_final(struct target *t, const Mspd__Final *m)
{
	Mspd__Ready answer = MSPD__READY__INIT;
	int64_t begin = now_ns(), end;
	int ret;

	/* from here on nobody but us writes to the guest */
	ret = receiver_status(t->receiver);
	if (ret)
		return target_receiver_fail(t, ret);
	t->bytes_seen = receiver_bytes(t->receiver);
	receiver_free(t->receiver);
	t->receiver = NULL;
	if (m->image->maps && known_keeps(t->maps, m->image->maps))
		return failure_set(&t->failure, -EPROTO,
				   "the mappings changed behind the last round");
	ret = restore_finish(t->restore, m->image);
	if (ret < 0)
		return target_fail(t, ret, "cannot restore the guest");
	end = now_ns();
	answer.has_restore_ns = 1;
	answer.restore_ns = end - begin;
	ret = wait_clock(t, m->image->process);
	if (ret)
		return ret;
	begin = now_ns();
	ret = restore_park(t->restore, PARK_MS);
	if (ret < 0)
		return target_fail(t, ret, "cannot park the guest");
	fault_die("parked");
	ret = target_record(t);
	if (ret)
		return ret;
	end = now_ns();
	answer.has_park_ns = 1;
	answer.park_ns = end - begin;
	ret = target_promise(t);
	if (ret)
		return ret;
	answer.has_journal_ns = 1;
	answer.journal_ns = now_ns() - end;
	end = now_ns();
	answer.digest = pagemap_sum(t->known) ^ fault_digest();
	answer.pages = pagemap_pages(t->known);
	answer.has_digest_ns = 1;
	answer.digest_ns = now_ns() - end;
	ret = target_send(t, CONTROL_READY, &answer.base);
	fault_die("ready");
	report_phase(t->rep, "switch-over");
	return ret;
}

int target_commit(struct target *t, const Mspd__Commit *m)
{
	Mspd__Resumed answer = MSPD__RESUMED__INIT;
	struct guest *g = restore_guest(t->restore);
	pid_t pid = restore_pid(t->restore);
	int64_t begin = now_ns();
	int ret;

	if (m->stream_id != t->stream_id)
		return failure_set(&t->failure, -EPROTO,
				   "Commit of another migration");
	ret = journal_append(&t->journal, JOURNAL_COMMIT);
	if (ret)
		return target_fail(t, ret,
				   "the journal does not take the commit");
	fault_die("committed");
	answer.has_journal_ns = 1;
	answer.journal_ns = now_ns() - begin;
	begin = now_ns();
	ret = t->access->resume(g);
	if (ret < 0)
		return target_fail(t, ret, "cannot resume the guest");
	t->state = TARGET_RESUMED;
	fault_die("resumed");
	answer.pid = pid;
	answer.has_resume_ns = 1;
	answer.resume_ns = now_ns() - begin;
	/* if it does not arrive the source is in doubt, and asks */
	target_send(t, CONTROL_RESUMED, &answer.base);
	fault_die("told");
	if (t->rep->adopted)
		t->rep->adopted(t->rep, t->name, t->uuid, pid);
	t->access->signal(g, VASI_SIGNAL_COMPLETE,
			       VASI_ENTITY_TARGET_MOVER << 24);
	fault_die("adopted");
	/* all is decided: who asks gets the answer from the file */
	journal_close(&t->journal);
	return 0;
}

bool target_refuse(struct target *t)
{
	int ret;

	if (t->state != TARGET_READY)
		return true;
	ret = journal_append(&t->journal, JOURNAL_REFUSED);
	if (!ret) {
		fault_die("refused");
		return true;
	}
	log_error("guest %s stays here, stopped: the journal does not take that it is refused: %s",
		  t->name, strerror(-ret));
	restore_release(t->restore);
	t->restore = NULL;
	return false;
}

void target_completed(struct target *t)
{
	int64_t deadline = deadline_in(COMPLETED_MS);
	struct control_message msg;
	struct journal j;

	if (control_recv(t->peer.fd, deadline, &msg))
		return;
	if (msg.type == CONTROL_COMPLETED &&
	    msg.completed->stream_id == t->stream_id &&
	    !journal_open(&j, t->cfg->journal_dir, JOURNAL_TARGET,
			  t->stream_id, LOCK_MS))
		journal_remove(&j);
	control_free(&msg);
}
