// SPDX-License-Identifier: GPL-2.0
/*
 * Sleeps with so little left that they end while they are begun anew: whatever
 * comes first, the interrupt or the end, no trap stays behind for the guest
 */
#include <elf.h>
#include <linux/time_types.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>
#include "bare.h"
#include "lib/clock.h"
#include "state/procfile.h"
#include "state/rearm.h"
#include "state/remote_stop.h"

#define ROUNDS		10000
#define STEP_NS		20	/* from round to round */
#define SPREAD		2500	/* steps */

#define ERESTART_RESTARTBLOCK	516

static bool trap_pending(const struct bare *m)
{
	char path[32], *text;
	const char *field;
	uint64_t set;
	int dir;

	snprintf(path, sizeof(path), "/proc/%d", m->r->ns.pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(dir >= 0 && !procfile_read(dir, "status", &text, NULL));
	close(dir);
	field = procfile_field(text, "SigPnd");
	must(field);
	set = strtoull(field, NULL, 16);
	free(text);
	return set & 1ULL << (SIGTRAP - 1);
}

static int sleep_once(struct bare *m, int64_t left, struct rearmed *ret)
{
	struct user_regs_struct regs = {
		.rax = (unsigned long)-ERESTART_RESTARTBLOCK,
	};
	Mspd__Regset set = MSPD__REGSET__INIT, *sets = &set;
	Mspd__Restart block = MSPD__RESTART__INIT;
	Mspd__Thread thread = MSPD__THREAD__INIT, *threads = &thread;
	Mspd__Process process = MSPD__PROCESS__INIT;
	Mspd__Image img = MSPD__IMAGE__INIT;

	set.note = NT_PRSTATUS;
	set.data = (ProtobufCBinaryData){ sizeof(regs), (void *)&regs };
	block.kind = VASI_RESTART_NANOSLEEP;
	block.clock = CLOCK_MONOTONIC;
	block.expiry_ns = clock_ns(CLOCK_MONOTONIC) + left;
	block.remaining_ns = left;
	thread.tid = m->r->threads[0].tid;
	thread.regsets = &sets;
	thread.n_regsets = 1;
	thread.restart = &block;
	img.process = &process;
	img.threads = &threads;
	img.n_threads = 1;
	return rearm_threads(m->r, &img, ret);
}

int main(void)
{
	struct bare m = { .c = { .pidfd = -1, .proc = -1 } };
	unsigned int armed = 0, ended = 0, failed = 0, traps = 0, i;

	bare_build(&m);
	/* it shall end when it is told to */
	must(!remote_call(&m.r->remote, 0, SYS_prctl, PR_SET_TIMERSLACK, 1));
	for (i = 0; i < ROUNDS; i++) {
		struct rearmed r;

		int err = sleep_once(&m, (i % SPREAD) * STEP_NS, &r);

		if (err)
			failed++;
		else if (r.armed)
			armed++;
		else
			ended += !r.value;
		traps += trap_pending(&m);
	}
	note("%u were interrupted, %u had ended", armed, ended);
	ok(!failed && armed + ended == ROUNDS, "all go on or have ended");
	ok(armed && ended, "both were met");
	ok(!traps, "%u traps stay behind", traps);
	bare_end(&m);
	return tap_end();
}
