// SPDX-License-Identifier: GPL-2.0
/*
 * Migrations of a fake guest, good ones and all the ways to go wrong
 */
#include <signal.h>
#include <unistd.h>
#include "session/drive.h"
#include "session/journal.h"
#include "session/session.h"
#include "session/world.h"
#include "tap.h"
#include "wire/control.h"

#define SOURCE_HAS(type)	(1 << (type))
#define TARGET_HAS(type)	(1 << ((type) + 8))

static void fresh(void)
{
	world_new();
	world->plan.pause_limit_ms = 1;
}

static void test_idle(void)
{
	int ret;

	for (unsigned int streams = 1; streams <= 8; streams *= 2) {
		fresh();
		world->plan.pause_limit_ms = 5000;
		ret = drive(&(struct drive){ .streams = streams });
		ok(moved(ret), "an idle guest moves over %u streams", streams);
	}
	ok(world->timens_monotonic >= WORLD_TIMENS &&
	   world->timens_monotonic < WORLD_TIMENS + 1000000000,
	   "its clock does not go back");
	ok(world->rounds == 2, "in a round and the pause (%d)", world->rounds);
	/* each is rounded to a microsecond */
	ok(world->pause_total > 0 && world->pause_sum < 0.001 * 8 +
	   world->pause_total && world->pause_sum + 0.001 * 8 >
	   world->pause_total,
	   "the parts of the pause make up the whole");
	ok(!world->marked, "nothing was given back");
}

static void test_busy(void)
{
	int ret;

	fresh();
	world->plan.busy = true;
	ret = drive(&(struct drive){ .streams = 4 });
	ok(moved(ret), "a guest that writes, drops and uses an object");
	ok(world->rounds >= 3, "in several rounds (%d)", world->rounds);

	for (int i = 0; i < 5; i++) {
		fresh();
		world->plan.busy = true;
		world->plan.churn = true;
		ret = drive(&(struct drive){ .streams = 3 });
		ok(moved(ret), "a guest that maps and unmaps, %d", i);
	}

	fresh();
	world->plan.busy = true;
	world->plan.flags = true;
	ret = drive(&(struct drive){ .streams = 2 });
	ok(moved(ret), "flags told late do not take content away");
}

static void test_rewrite(void)
{
	int ret;

	fresh();
	world->plan.busy = true;
	world->plan.rewrite = true;
	ret = drive(&(struct drive){ .streams = 2 });
	ok(moved(ret), "a guest that writes what is there, and drops pages");
	ok(world->written_again > 100 &&
	   world->equal_again > 4 * world->sent_again,
	   "pages that are what they were are not sent again (%d written, %d sent, %d equal)",
	   world->written_again, world->sent_again, world->equal_again);
}

static void test_compression(enum compression c)
{
	const char *name = compression_words[c];
	int ret;

	fresh();
	world->plan.busy = true;
	world->plan.churn = true;
	ret = drive(&(struct drive){ .streams = 3, .compression = c });
	ok(moved(ret), "%s: a busy guest", name);
	if (c == COMPRESSION_AUTO)
		return;
	ok(world->wire_bytes < world->plain_bytes / 2,
	   "%s: with fewer bytes (%d of %d)", name, world->wire_bytes,
	   world->plain_bytes);
	fresh();
	ret = drive(&(struct drive){ .compression = c, .fault = "plain" });
	ok(moved(ret) && world->wire_bytes > world->plain_bytes &&
	   strstr(world->events, "does not know it"),
	   "%s: a target that does not know it, and a warning", name);
	fresh();
	ret = drive(&(struct drive){ .compression = c, .fault = "flip=1" });
	ok(rolled_back(ret, "is corrupt"), "%s: a bit changes on the way",
	   name);
}

static void test_refused(void)
{
	int ret;

	fresh();
	ret = drive(&(struct drive){ .validate_only = true });
	ok(!ret && world->source_ok && !world->prepared && !world->tracking &&
	   !world->suspends && strstr(world->events, "all features"),
	   "a validation touches nothing");
	fresh();
	world->plan.refuse_source = true;
	world->plan.refuse_target = true;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "fd 7 (socket:[1234]): is connected"),
	   "refused by the source, with the object named");
	ok(strstr(world->events, "fd 3 (/san/log)"),
	   "and what the target has against it is told, too");
	fresh();
	world->plan.refuse_target = true;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "fd 3 (/san/log): is not there") &&
	   !world->prepared, "refused by the target");
	fresh();
	world->plan.name_taken = true;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "redis"), "a name that is taken");
}

static void test_guest_ends(void)
{
	char what[64];
	int ret;

	for (int round = 1; round <= 3; round++) {
		fresh();
		world->plan.busy = true;
		world->plan.die_in_round = round;
		ret = drive(&(struct drive){ 0 });
		snprintf(what, sizeof(what), "killed in round %d", round);
		ok(rolled_back(ret, "exited or was killed"), "%s", what);
		fresh();
		world->plan.busy = true;
		world->plan.exec_in_round = round;
		ret = drive(&(struct drive){ 0 });
		ok(rolled_back(ret, "called exec"), "exec in round %d", round);
	}
}

static void test_suspend(void)
{
	int ret;

	fresh();
	world->plan.holdups = 2;
	ret = drive(&(struct drive){ 0 });
	ok(moved(ret), "two suspends fail, the third is good");
	fresh();
	world->plan.holdups = 3;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "thread 4711 (stuck) waits in the kernel"),
	   "no suspend succeeds: the thread is named");
	fresh();
	world->plan.busy = true;
	world->plan.bad_captures = 1;
	ret = drive(&(struct drive){ 0 });
	ok(moved(ret) && world->resumes == 1,
	   "a resource in the way once: resumed, tried again");
	fresh();
	world->plan.busy = true;
	world->plan.bad_captures = 3;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "fd 9 (anon_inode:inotify): cannot be moved"),
	   "a resource that stays in the way is named");
	fresh();
	world->plan.child_wait_ms = 300;
	ret = drive(&(struct drive){ .child = true });
	ok(rolled_back(ret, "has a child process") && !world->suspends,
	   "a child that does not end: never suspended");
	fresh();
	world->plan.pause_limit_ms = 5000;
	world->plan.child_wait_ms = 20000;
	ret = drive(&(struct drive){ .child = true, .child_ms = 1000 });
	ok(moved(ret) && world->rounds == 3,
	   "one that ends: another round before the pause (%d)",
	   world->rounds);
	fresh();
	world->plan.busy = true;
	world->plan.cancel_in_round = 2;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "cancelled by the operator"), "a cancel");
	ok(strstr(world->target_error, "cancelled by the operator"),
	   "which the target knows, too");
}

static void test_barrier(void)
{
	int ret;

	fresh();
	world->plan.busy = true;
	world->plan.pause_limit_ms = 0;	/* as many rounds as there can be */
	/* as many streams as rounds: the last copy takes another way */
	ret = drive(&(struct drive){
		.fault = "rotate,delay=2:2000", .streams = 8 });
	ok(moved(ret), "a stream 2 s late does not bring old pages back");
	fresh();
	world->plan.busy = true;
	world->plan.pause_limit_ms = 0;	/* as many rounds as there can be */
	ret = drive(&(struct drive){
		.fault = "rotate,delay=2:2000,nobarrier", .streams = 8 });
	/* or two frames have written to a page at the same time */
	ok(ret < 0 && rolled_back(ret, strstr(world->source_error, "reads back") ?
				  "as something else" : "is not the guest here"),
	   "without the barrier it does, and the digest tells");
	ok(world_differences() > 0, "as the test's own comparison says");
}

static void test_corrupt(void)
{
	int ret;

	for (int round = 1; round <= 2; round++) {
		fresh();
		world->plan.busy = true;
		world->plan.pause_limit_ms = 0;	/* rounds until one has data */
		ret = drive(&(struct drive){
			.fault = round == 1 ? "flip=1" : "flip=2" });
		ok(rolled_back(ret, "is corrupt"),
		   "a bit changes on the way in round %d or later", round);
	}
	fresh();
	ret = drive(&(struct drive){ .fault = "digest" });
	ok(rolled_back(ret, "is not the guest here"),
	   "the target has another digest");
	fresh();
	world->plan.fail_restore = true;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "cannot restore the guest"),
	   "the target cannot restore");
	fresh();
	world->plan.fail_record = true;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "cannot be entered in the registry"),
	   "the target cannot keep a record: the guest stays");
}

static const enum control_type to_target[] = {
	CONTROL_HELLO, CONTROL_PING, CONTROL_VALIDATE, CONTROL_PREPARE,
	CONTROL_ROUND_MAPS, CONTROL_ROUND_END, CONTROL_FINAL,
};

static void test_lost_target(void)
{
	char fault[32];
	int ret;

	for (size_t i = 0; i < sizeof(to_target) / sizeof(*to_target); i++) {
		enum control_type type = to_target[i];

		fresh();
		snprintf(fault, sizeof(fault), "close=%d", type);
		ret = drive(&(struct drive){ .fault = fault });
		if (type == CONTROL_HELLO)	/* taken before the loop */
			ok(moved(ret), "(Hello is no message of the loop)");
		else
			ok(rolled_back(ret, "closed the connection"),
			   "the target dies at %s", control_name(type));
		if (type == CONTROL_HELLO)
			continue;
		fresh();
		snprintf(fault, sizeof(fault), "stall=%d", type);
		ret = drive(&(struct drive){ .fault = fault,
					     .reply_ms = 500 });
		ok(rolled_back(ret, "does not answer in time"),
		   "the target stalls at %s", control_name(type));
	}
}

static void test_pause_max(void)
{
	char fault[32];
	int ret;

	fresh();
	world->plan.pause_max_ms = 500;
	snprintf(fault, sizeof(fault), "stall=%d", CONTROL_FINAL);
	ret = drive(&(struct drive){ .fault = fault });
	ok(rolled_back(ret, "stood still for 500 ms") && world->resumes == 1,
	   "a guest stands still for so long and no longer");
}

static void test_commit(void)
{
	char fault[32];
	int ret;

	fresh();
	world->plan.fail_resume = true;
	ret = drive(&(struct drive){ 0 });
	ok(rolled_back(ret, "cannot resume the guest") && world->resumes == 1,
	   "the target says it does not run the guest: it runs here");
	ok(drive_journals() == TARGET_HAS(JOURNAL_REFUSED),
	   "which it has on record, and nobody else has anything");
	fresh();
	ret = drive(&(struct drive){ 0 });
	ok(moved(ret) && !drive_journals(),
	   "a good move leaves no record behind");
	fresh();
	ret = drive(&(struct drive){ .fault = "digest" });
	ok(rolled_back(ret, "is not the guest here") &&
	   drive_journals() == (SOURCE_HAS(JOURNAL_RETURNED) |
				TARGET_HAS(JOURNAL_REFUSED)),
	   "one that is rolled back behind Ready leaves it to be told");
	for (int i = 0; i < 2; i++) {
		fresh();
		snprintf(fault, sizeof(fault), "%s=%d", i ? "stall" : "close",
			 CONTROL_COMMIT);
		ret = drive(&(struct drive){ .fault = fault,
					     .reply_ms = 500 });
		ok(ret == -EINPROGRESS && world->in_doubt && world->sealed &&
		   world->suspended && !world->resumes && !world->running &&
		   strstr(world->source_error, "in doubt"),
		   "the target %s at Commit: in doubt, nobody runs",
		   i ? "stalls" : "dies");
		ok(drive_journals() == (SOURCE_HAS(JOURNAL_COMMIT) |
					TARGET_HAS(i ? JOURNAL_REFUSED :
						       JOURNAL_PREPARED)),
		   "as both have on record");
	}
}

/* a disk that is full, at every record */
static void test_journal_full(void)
{
	static const struct {
		const char *fault, *text;
	} cases[] = {
		{ "journal=source.begin", "journal in" },
		{ "journal=target.begin", "the journal: No space" },
		{ "journal=target.prepared",
		  "the journal does not take the guest" },
		{ "journal=source.commit",
		  "the journal does not take the commit" },
		{ "journal=target.commit",
		  "the journal does not take the commit" },
		{ "journal=source.completed", NULL },
	};
	int ret;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		fresh();
		ret = drive(&(struct drive){ .fault = cases[i].fault });
		ok(cases[i].text ? rolled_back(ret, cases[i].text) : moved(ret),
		   "the disk is full, %s", cases[i].fault);
	}
}

static void test_copy_stays(void)
{
	int ret;

	fresh();
	world->plan.fail_destroy = true;
	ret = drive(&(struct drive){ 0 });
	ok(!ret && world->source_ok && world->running && world->sealed &&
	   !world->left && strstr(world->events, "could not be removed"),
	   "a copy that cannot be ended stays, stopped and listed");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_idle();
	test_busy();
	test_rewrite();
	test_compression(COMPRESSION_AUTO);
	test_compression(COMPRESSION_LZ4);
	test_compression(COMPRESSION_ZSTD);
	test_refused();
	test_guest_ends();
	test_suspend();
	test_barrier();
	test_corrupt();
	test_lost_target();
	test_pause_max();
	test_commit();
	test_journal_full();
	test_copy_stays();
	drive_end();
	world_free();
	return tap_end();
}
