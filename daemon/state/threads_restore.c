// SPDX-License-Identifier: GPL-2.0
/*
 * Threads, on the target
 *
 * They are made while the source runs. In the pause each gets one table of
 * calls, into which all kinds of resources put theirs, and its registers.
 */
#include <elf.h>
#include <errno.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include "lib/cleanup.h"
#include "state/process.h"
#include "state/rearm.h"
#include "state/remote_stop.h"
#include "state/threads.h"

#define XSTATE_MAX_BYTES	(64UL << 10)
#define XSTATE_HEADER		512	/* behind the legacy area */

pid_t restore_host_tid(const struct restore *r, int32_t tid)
{
	size_t i;

	for (i = 0; i < r->nr_threads; i++)
		if (r->threads[i].tid == tid)
			return r->threads[i].host_tid;
	return 0;
}

static int fail_thread(struct restore *r, int err, int32_t tid,
		       const char *text)
{
	char object[32];

	snprintf(object, sizeof(object), "thread %d", tid);
	return restore_fail(r, err, "thread.make", object, "%s: %s", text,
			    strerror(-err));
}

/* a clone: the event stop of the leader, the trap behind it, the new thread */
static int clone_stops(struct restore *r, long *ret_host)
{
	struct remote *re = &r->remote;
	struct user_regs_struct regs;
	unsigned long host = 0;
	int status, err;

	if (ptrace(PTRACE_CONT, re->leader, 0, 0))
		return -errno;
	err = remote_wait(re, re->leader, &status);
	if (err)
		return err;
	if (status >> 8 == (SIGTRAP | PTRACE_EVENT_CLONE << 8)) {
		if (ptrace(PTRACE_GETEVENTMSG, re->leader, 0, &host) ||
		    ptrace(PTRACE_CONT, re->leader, 0, 0))
			return -errno;
		err = remote_wait(re, re->leader, &status);
		if (err)
			return err;
	}
	if (status >> 8 != SIGTRAP)
		return -EPROTO;
	if (!host) {
		err = remote_get_regs(re->leader, &regs);
		return err ? err : (int)(long)regs.rax;
	}
	*ret_host = (long)host;
	return remote_wait(re, (pid_t)host, &status);
}

static int make_thread(struct restore *r, int32_t tid)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
			 CLONE_THREAD | CLONE_SYSVSEM,
		.set_tid_size = 1,
	};
	struct remote *re = &r->remote;
	struct restore_thread *v;
	struct user_regs_struct regs;
	uint64_t addr;
	long host = 0;
	int err;

	v = reallocarray(r->threads, r->nr_threads + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	r->threads = v;
	args.set_tid = remote_copy(re, &tid, sizeof(tid));
	addr = remote_copy(re, &args, sizeof(args));
	if (!args.set_tid || !addr)
		return -ENOBUFS;
	err = remote_get_regs(re->leader, &regs);
	if (err)
		return err;
	remote_call_regs(re, &regs, __NR_clone3,
			 REMOTE_ARGS(addr, sizeof(args), 0, 0, 0, 0, 0));
	err = remote_set_regs(re->leader, &regs);
	if (!err)
		err = clone_stops(r, &host);
	if (host)
		v[r->nr_threads++] = (struct restore_thread){ tid,
							      (pid_t)host };
	remote_reset(re);
	return err ? fail_thread(r, err, tid, "cannot be made") : 0;
}

/* it has registered no address that its end would write to */
static int end_thread(struct restore *r, size_t index)
{
	const struct restore_thread t = r->threads[index];
	struct user_regs_struct regs;
	int status, err;

	err = remote_get_regs(t.host_tid, &regs);
	if (err)
		return err;
	remote_call_regs(&r->remote, &regs, __NR_exit,
			 REMOTE_ARGS(0, 0, 0, 0, 0, 0, 0));
	err = remote_set_regs(t.host_tid, &regs);
	if (err)
		return err;
	if (ptrace(PTRACE_CONT, t.host_tid, 0, 0))
		return -errno;
	err = remote_wait(&r->remote, t.host_tid, &status);
	if (err != -ESRCH)
		return fail_thread(r, err ? err : -EPROTO, t.tid,
				   "does not end");
	r->threads[index] = r->threads[--r->nr_threads];
	return 0;
}

static bool has_thread(const Mspd__Image *img, int32_t tid)
{
	size_t i;

	for (i = 0; i < img->n_threads; i++)
		if (img->threads[i]->tid == tid)
			return true;
	return false;
}

int threads_match(struct restore *r, const Mspd__Image *img)
{
	size_t i;
	int err = 0;

	/* the leader is first, and stays */
	for (i = r->nr_threads; i-- > 1 && !err;)
		if (!has_thread(img, r->threads[i].tid))
			err = end_thread(r, i);
	for (i = 0; i < img->n_threads && !err; i++)
		if (!restore_host_tid(r, img->threads[i]->tid))
			err = make_thread(r, img->threads[i]->tid);
	return err;
}

int threads_prepare(struct restore *r, const Mspd__Image *early)
{
	return threads_match(r, early);
}

static int queue_altstack(struct restore *r, pid_t host, const Mspd__Thread *t)
{
	const stack_t ss = {
		.ss_sp = (void *)t->sas_sp, .ss_size = t->sas_size,
		.ss_flags = (int)(t->sas_flags & ~(SS_ONSTACK | SS_DISABLE)),
	};
	uint64_t addr = remote_copy(&r->remote, &ss, sizeof(ss));

	if (!addr)
		return -ENOBUFS;
	return remote_queue(&r->remote, host, "sigaltstack", __NR_sigaltstack,
			    addr, 0);
}

static int queue_name(struct restore *r, pid_t host, const Mspd__Thread *t)
{
	char name[16] = {};
	uint64_t addr;

	memcpy(name, t->comm, strnlen(t->comm, sizeof(name) - 1));
	addr = remote_copy(&r->remote, name, sizeof(name));
	if (!addr)
		return -ENOBUFS;
	return remote_queue(&r->remote, host, "PR_SET_NAME", __NR_prctl,
			    PR_SET_NAME, addr);
}

static int queue_thread(struct restore *r, const Mspd__Thread *t)
{
	const pid_t host = restore_host_tid(r, t->tid);
	struct remote *re = &r->remote;
	int err;

	err = queue_name(r, host, t);
	if (!err && t->clear_child_tid)
		err = remote_queue(re, host, "set_tid_address",
				   __NR_set_tid_address, t->clear_child_tid);
	if (!err && t->robust_list)
		err = remote_queue(re, host, "set_robust_list",
				   __NR_set_robust_list, t->robust_list,
				   t->robust_len);
	if (!err && t->sas_size)
		err = queue_altstack(r, host, t);
	if (!err && t->rseq)
		err = remote_queue(re, host, "rseq", __NR_rseq, t->rseq,
				   t->rseq_len, 0, t->rseq_sig);
	if (!err && t->timer_slack_ns)
		err = remote_queue(re, host, "PR_SET_TIMERSLACK", __NR_prctl,
				   PR_SET_TIMERSLACK, t->timer_slack_ns);
	if (!err)
		err = signals_queue(r, t->tid, t->pending, t->n_pending);
	return err;
}

int threads_finish(struct restore *r, const Mspd__Image *final)
{
	size_t i;
	int err;

	err = threads_match(r, final);
	for (i = 0; i < final->n_threads && !err; i++)
		err = queue_thread(r, final->threads[i]);
	return err;
}

int threads_after_creds(struct restore *r, const Mspd__Image *final)
{
	size_t i;
	int err = 0;

	for (i = 0; i < final->n_threads && !err; i++) {
		const Mspd__Thread *t = final->threads[i];

		if (t->pdeath_signal)
			err = remote_queue(&r->remote,
					   restore_host_tid(r, t->tid),
					   "PR_SET_PDEATHSIG", __NR_prctl,
					   PR_SET_PDEATHSIG, t->pdeath_signal);
	}
	return err;
}

/* bytes of the XSTATE register set of this host */
static long xstate_bytes(pid_t tid, uint8_t *buf)
{
	struct iovec iov = { buf, XSTATE_MAX_BYTES };

	return ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) ?
		-errno : (long)iov.iov_len;
}

/*
 * The size of the set is the host's. What one side has more of is in its
 * initial state, or the components in use would not fit.
 */
static int set_xstate(struct restore *r, pid_t host, const Mspd__Thread *t,
		      uint8_t *buf)
{
	const Mspd__Regset *set = thread_regset(t, NT_X86_XSTATE);
	const long bytes = xstate_bytes(host, buf);
	struct iovec iov = { buf, (size_t)bytes };
	size_t len = set->data.len;

	if (bytes < 0)
		return (int)bytes;
	if (len < XSTATE_HEADER + 64)
		return -EPROTO;
	if (len > (size_t)bytes)
		len = (size_t)bytes;
	memset(buf, 0, (size_t)bytes);
	memcpy(buf, set->data.data, len);
	if (ptrace(PTRACE_SETREGSET, host, NT_X86_XSTATE, &iov))
		return fail_thread(r, -errno, t->tid,
				   "has registers that this CPU has not");
	return 0;
}

static int set_thread(struct restore *r, const Mspd__Thread *t,
		      const struct rearmed *rearmed, uint8_t *buf)
{
	const Mspd__Regset *set = thread_regset(t, NT_PRSTATUS);
	const pid_t host = restore_host_tid(r, t->tid);
	uint64_t mask = t->sigmask;
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };
	int err;

	if (set->data.len != sizeof(regs))
		return -EPROTO;
	memcpy(&regs, set->data.data, sizeof(regs));
	regs_fix(&regs, rearmed);
	err = set_xstate(r, host, t, buf);
	if (err)
		return err;
	if (ptrace(PTRACE_SETREGSET, host, NT_PRSTATUS, &iov))
		return fail_thread(r, -errno, t->tid, "refuses its registers");
	if (ptrace(PTRACE_SETSIGMASK, host, sizeof(mask), &mask))
		return -errno;
	return 0;
}

static int block_everything(struct restore *r)
{
	uint64_t all = ~0ULL;
	size_t i;

	for (i = 0; i < r->nr_threads; i++)
		if (ptrace(PTRACE_SETSIGMASK, r->threads[i].host_tid,
			   sizeof(all), &all))
			return -errno;
	return 0;
}

int threads_leave(struct restore *r, const Mspd__Image *final)
{
	_cleanup_free_ struct rearmed *rearmed = NULL;
	_cleanup_free_ uint8_t *buf = malloc(XSTATE_MAX_BYTES);
	long got;
	size_t i;
	int err = 0;

	rearmed = calloc(final->n_threads, sizeof(*rearmed));
	if (!rearmed || !buf)
		return -ENOMEM;
	for (i = 0; i < final->n_threads; i++)
		if (!thread_regset(final->threads[i], NT_PRSTATUS) ||
		    !thread_regset(final->threads[i], NT_X86_XSTATE))
			return -EPROTO;
	err = rearm_threads(r, final, rearmed);
	if (!err)
		err = block_everything(r);
	if (!err)
		err = signals_last(r, final);
	if (err)
		return err;
	got = remote_last_call(&r->remote, 0, __NR_munmap, r->remote.base,
			       REMOTE_BLOB_BYTES);
	if (got < 0)
		return (int)got;
	r->remote.base = 0;
	for (i = 0; i < final->n_threads && !err; i++)
		err = set_thread(r, final->threads[i], &rearmed[i], buf);
	return err;
}
