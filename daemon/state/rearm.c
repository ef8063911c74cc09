// SPDX-License-Identifier: GPL-2.0
/*
 * Sleeps that go on for what is left of them
 *
 * A restart block is in the kernel, and only a call that is interrupted writes
 * it. So the thread makes the call with the remaining time and is interrupted;
 * the call that the guest sees goes on by restart_syscall.
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/process.h"
#include "state/rearm.h"
#include "state/remote_stop.h"
#include "state/shell.h"
#include "state/threads.h"

struct call {
	long nr;
	uint64_t arg[6];
};

static bool put_timespec(struct restore *r, int64_t ns, uint64_t *ret_addr)
{
	const struct timespec ts = { ns / NSEC_PER_SEC, ns % NSEC_PER_SEC };

	*ret_addr = remote_copy(&r->remote, &ts, sizeof(ts));
	return *ret_addr;
}

static int sleep_call(struct restore *r, const Mspd__Restart *b, int64_t left,
		      struct call *ret)
{
	ret->nr = __NR_clock_nanosleep;
	ret->arg[0] = (uint64_t)(int64_t)b->clock;
	ret->arg[3] = b->user1;
	return put_timespec(r, left, &ret->arg[2]) ? 0 : -ENOBUFS;
}

static void poll_call(const Mspd__Restart *b, int64_t left, struct call *ret)
{
	ret->nr = __NR_poll;
	ret->arg[0] = b->user1;
	ret->arg[1] = b->user2;
	ret->arg[2] = b->remaining_ns < 0 ? (uint64_t)-1 :
		      (uint64_t)((left + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

static int futex_call(struct restore *r, const Mspd__Restart *b,
		      struct call *ret)
{
	const bool real = b->user4 & VASI_RESTART_FUTEX_CLOCKRT;

	ret->nr = __NR_futex;
	ret->arg[0] = b->user1;
	ret->arg[1] = FUTEX_WAIT_BITSET | (real ? FUTEX_CLOCK_REALTIME : 0) |
		      (b->user4 & VASI_RESTART_FUTEX_SHARED ? 0 :
		       FUTEX_PRIVATE_FLAG);
	ret->arg[2] = b->user2;
	ret->arg[5] = b->user3;
	if (b->expiry_ns < 0)
		return 0;
	return put_timespec(r, b->expiry_ns, &ret->arg[3]) ? 0 : -ENOBUFS;
}

/*
 * What is left on the guest's clock, which ran on; of a clock that stood still
 * (CPU time) all that was.
 */
static int64_t time_left(const struct restore *r, const Mspd__Image *final,
			 const Mspd__Restart *b)
{
	int64_t left = b->remaining_ns;

	if (b->kind == VASI_RESTART_CPUSLEEP)
		return left > 0 ? left : 0;
	if (b->clock == CLOCK_MONOTONIC)
		left = b->expiry_ns - clock_ns(CLOCK_MONOTONIC) -
		       r->opt.timens_monotonic_ns;
	else if (b->clock == CLOCK_BOOTTIME)
		left = b->expiry_ns - clock_ns(CLOCK_BOOTTIME) -
		       r->opt.timens_boottime_ns;
	else
		left -= restore_elapsed_ns(r, final->process);
	return left > 0 ? left : 0;
}

static int make_call(struct restore *r, const Mspd__Image *final,
		     const Mspd__Restart *b, struct call *ret)
{
	const int64_t left = time_left(r, final, b);

	*ret = (struct call){};
	switch (b->kind) {
	case VASI_RESTART_NANOSLEEP:
	case VASI_RESTART_CPUSLEEP:
		return sleep_call(r, b, left, ret);
	case VASI_RESTART_POLL:
		poll_call(b, left, ret);
		return 0;
	case VASI_RESTART_FUTEX:
		return futex_call(r, b, ret);
	default:
		return -EPROTO;
	}
}

/*
 * Up to the stop at the call's entry: an interrupt that comes from there on
 * finds the call begun.
 */
static int begin(struct restore *r, pid_t tid, const struct call *call)
{
	struct user_regs_struct regs;
	int status, err;

	err = remote_get_regs(tid, &regs);
	if (err)
		return err;
	remote_call_regs(&r->remote, &regs, call->nr, call->arg);
	err = remote_set_regs(tid, &regs);
	if (err)
		return err;
	if (ptrace(PTRACE_SYSCALL, tid, 0, 0))
		return -errno;
	err = remote_wait(&r->remote, tid, &status);
	if (err)
		return err;
	if (WSTOPSIG(status) != (SIGTRAP | 0x80))
		return -EPROTO;
	return ptrace(PTRACE_CONT, tid, 0, 0) ? -errno : 0;
}

static bool is_interrupt(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

/*
 * A call that ended has run into its trap, and the interrupt came before that
 * or after. Both are to be taken: one that is left would come to the guest.
 */
static int take_other(struct restore *r, pid_t tid, int status)
{
	int other, err;

	if (ptrace(PTRACE_CONT, tid, 0, 0))
		return -errno;
	err = remote_wait(&r->remote, tid, &other);
	if (err)
		return err;
	return is_interrupt(status) ? (other >> 8 == SIGTRAP ? 0 : -EPROTO) :
				      (is_interrupt(other) ? 0 : -EPROTO);
}

/* interrupts it; its outcome is in the registers */
static int end(struct restore *r, pid_t tid, struct rearmed *ret)
{
	struct user_regs_struct regs;
	int status, err;

	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0))
		return -errno;
	err = remote_wait(&r->remote, tid, &status);
	if (!err)
		err = remote_get_regs(tid, &regs);
	if (err)
		return err;
	if (!is_interrupt(status) && status >> 8 != SIGTRAP)
		return -EPROTO;
	if (regs.rip == r->remote.code + remote_code_trapped) {
		err = take_other(r, tid, status);
		if (err)
			return err;
	}
	ret->armed = (long)regs.rax == -ERESTART_RESTARTBLOCK;
	ret->value = (long)regs.rax;
	return 0;
}

static bool wants(const Mspd__Thread *t)
{
	const Mspd__Regset *set = thread_regset(t, NT_PRSTATUS);
	struct user_regs_struct regs;

	if (!t->restart || !set || set->data.len != sizeof(regs))
		return false;
	memcpy(&regs, set->data.data, sizeof(regs));
	return regs_need_restart_block(&regs);
}

int rearm_threads(struct restore *r, const Mspd__Image *final,
		  struct rearmed *ret)
{
	size_t i;
	int err = 0;

	for (i = 0; i < final->n_threads && !err; i++) {
		const Mspd__Thread *t = final->threads[i];
		struct call call;

		ret[i] = (struct rearmed){ false, -EINTR };
		if (!wants(t))
			continue;
		err = make_call(r, final, t->restart, &call);
		if (!err)
			err = begin(r, restore_host_tid(r, t->tid), &call);
	}
	for (i = 0; i < final->n_threads && !err; i++) {
		const Mspd__Thread *t = final->threads[i];

		if (!wants(t))
			continue;
		err = end(r, restore_host_tid(r, t->tid), &ret[i]);
		/* of these calls nothing else can be restarted */
		if (!err && !ret[i].armed && ret[i].value <= -ERESTARTSYS)
			err = -EPROTO;
		if (err) {
			char object[32];

			snprintf(object, sizeof(object), "thread %d", t->tid);
			restore_fail(r, err, "thread.restart", object,
				     "cannot go on sleeping: %s",
				     strerror(-err));
		}
	}
	remote_reset(&r->remote);
	return err;
}
