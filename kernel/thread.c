// SPDX-License-Identifier: GPL-2.0
/*
 * A thread: what it tells of itself when it is parked, and its records
 */
#include <linux/elf.h>
#include <linux/file.h>
#include <linux/futex.h>
#include <linux/regset.h>
#include <linux/rseq.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/syscalls.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>
#include <asm/unistd.h>

#include "compat/task.h"
#include "suspend.h"

/* where xfeatures is in an XSAVE image: behind the 512 bytes of FXSAVE */
#define XSTATE_BV_OFFSET	512

static bool is_socket(unsigned int fd)
{
	struct file *file = fget(fd);
	bool ret;

	if (!file)
		return false;
	ret = S_ISSOCK(file_inode(file)->i_mode);
	fput(file);
	return ret;
}

/*
 * Calls that give up with EINTR for every interruption, although nothing has
 * happened yet: these can be made again. (Sockets with a timeout are the reason
 * for all that read and write.)
 */
static bool may_restart(int nr, struct pt_regs *regs)
{
	switch (nr) {
	case __NR_epoll_wait:
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
	case __NR_rt_sigtimedwait:
	case __NR_semop:
	case __NR_semtimedop:
	case __NR_io_getevents:
	case __NR_io_pgetevents:
	case __NR_io_uring_enter:
	case __NR_accept:
	case __NR_accept4:
	case __NR_connect:
	case __NR_recvfrom:
	case __NR_recvmsg:
	case __NR_recvmmsg:
	case __NR_sendto:
	case __NR_sendmsg:
	case __NR_sendmmsg:
		return true;
	case __NR_read:
	case __NR_readv:
	case __NR_write:
	case __NR_writev:
		return is_socket(regs->di);
	default:
		return false;
	}
}

/*
 * The work runs before the kernel decides what becomes of an interrupted call.
 * EINTR that was meant for this work alone is turned into the code that
 * restarts the call, or still gives EINTR if a signal handler comes to run.
 */
bool vasi_thread_fixup(void)
{
	struct pt_regs *regs = task_pt_regs(current);
	int nr;

	if (current->flags & (VASI_PF_WORKER | PF_EXITING))
		return false;
	nr = syscall_get_nr(current, regs);
	if (nr == -1 || in_32bit_syscall() || regs->ax != (unsigned long)-EINTR ||
	    task_sigpending(current) || !may_restart(nr, regs))
		return false;
	regs->ax = -ERESTARTNOHAND;
	/*
	 * A work that runs late in the way to user mode is past that decision:
	 * make it be taken again.
	 */
	set_thread_flag(TIF_NOTIFY_SIGNAL);
	return true;
}

/*
 * Inside a restartable sequence the kernel will abort it when the thread goes
 * on, since it was scheduled. The record says so already: the target starts
 * the thread at the abort handler.
 */
static bool rseq_abort(struct user_regs_struct *regs)
{
	struct rseq_cs cs;
	u64 ptr;

	if (!current->rseq ||
	    copy_from_user(&ptr, &current->rseq->rseq_cs, sizeof(ptr)) ||
	    !ptr || copy_from_user(&cs, u64_to_user_ptr(ptr), sizeof(cs)) ||
	    regs->ip - cs.start_ip >= cs.post_commit_offset)
		return false;
	regs->ip = cs.abort_ip;
	return true;
}

/* the functions that restart a call; static to other files, known by name */
static struct restart_fn {
	const char *name;
	u32 kind;
	const void *fn;		/* once it was met */
} restart_fns[] = {
	{ "hrtimer_nanosleep_restart", VASI_RESTART_NANOSLEEP },
	{ "do_restart_poll", VASI_RESTART_POLL },
	{ "futex_wait_restart", VASI_RESTART_FUTEX },
	{ "posix_cpu_nsleep_restart", VASI_RESTART_CPUSLEEP },
};

static u32 restart_kind(const void *fn)
{
	struct restart_fn *r, *end = restart_fns + ARRAY_SIZE(restart_fns);
	char name[KSYM_NAME_LEN];

	for (r = restart_fns; r < end; r++)
		if (READ_ONCE(r->fn) == fn)
			return r->kind;
	snprintf(name, sizeof(name), "%ps", fn);
	/* a compiler's clone has a suffix */
	name[strcspn(name, ".")] = '\0';
	for (r = restart_fns; r < end; r++)
		if (!strcmp(r->name, name)) {
			WRITE_ONCE(r->fn, fn);
			return r->kind;
		}
	return VASI_RESTART_UNKNOWN;
}

/*
 * A thread that was let go and stopped again before it came to user mode, or
 * to the next instruction there, is about to enter restart_syscall(). No other
 * kernel has its restart block, so the record says what it was before that: a
 * call that was interrupted and knows how to go on.
 */
static bool back_in_restart(struct user_regs_struct *regs)
{
	static const u8 syscall_insn[2] = { 0x0f, 0x05 };
	u8 insn[sizeof(syscall_insn)];

	if (regs->ax != __NR_restart_syscall ||
	    restart_kind(current->restart_block.fn) == VASI_RESTART_UNKNOWN ||
	    copy_from_user(insn, (void __user *)regs->ip, sizeof(insn)) ||
	    memcmp(insn, syscall_insn, sizeof(insn)))
		return false;
	regs->ip += sizeof(insn);
	regs->orig_ax = __NR_restart_syscall;
	regs->ax = -ERESTART_RESTARTBLOCK;
	return true;
}

void vasi_thread_capture(struct vasi_capture *cap)
{
	const struct user_regset_view *view = task_user_regset_view(current);
	struct pt_regs *regs = task_pt_regs(current);
	const struct user_regset *set;
	void *data;
	int len;

	cap->syscall = syscall_get_nr(current, regs);
	if (cap->syscall == -1)
		cap->where = VASI_WHERE_USER;
	else if (regs->ax == (unsigned long)-ENOSYS)
		/* what the entry puts there: in io_uring, or for a tracer */
		cap->where = VASI_WHERE_IN_SYSCALL;
	else
		cap->where = VASI_WHERE_SYSCALL;

	/* registers of 32-bit code have another layout and no reader here */
	if (view->e_machine != EM_X86_64)
		return;
	for (set = view->regsets; set < view->regsets + view->n; set++) {
		if (set->core_note_type == NT_PRSTATUS) {
			len = regset_get(current, set, sizeof(cap->regs),
					 &cap->regs);
			if (len != sizeof(cap->regs))
				return;
		} else if (set->core_note_type == NT_X86_XSTATE) {
			len = regset_get_alloc(current, set,
					       set->n * set->size, &data);
			if (len < 0)
				return;
			cap->xstate = data;
			cap->xstate_len = len;
		}
	}
	if (back_in_restart(&cap->regs)) {
		cap->where = VASI_WHERE_SYSCALL;
		cap->syscall = __NR_restart_syscall;
	} else if (cap->where == VASI_WHERE_USER) {
		cap->rseq_abort = rseq_abort(&cap->regs);
	}
	cap->valid = cap->xstate;
}

void vasi_capture_free(struct vasi_capture *cap)
{
	kvfree(cap->xstate);
}

static u64 xstate_in_use(const struct vasi_capture *cap)
{
	u64 bv;

	if (cap->xstate_len < XSTATE_BV_OFFSET + sizeof(bv))
		return 0;
	memcpy(&bv, cap->xstate + XSTATE_BV_OFFSET, sizeof(bv));
	return bv;
}

/*
 * The action that will handle the next signal of @t, NULL if none will be. The
 * mask is the one that counts when the registers go on from here: that of
 * sigsuspend() is set again by the call itself when it restarts.
 */
static const struct k_sigaction *next_handler(struct task_struct *t,
					      struct sighand_struct *sighand)
{
	sigset_t set = t->pending.signal, shared;
	int sig;

	/* a shared signal is taken by the thread that was told of it */
	if (test_tsk_thread_flag(t, TIF_SIGPENDING)) {
		shared = t->signal->shared_pending.signal;
		sigorsets(&set, &set, &shared);
	}
	sigandnsets(&set, &set, &t->blocked);
	if (test_tsk_restore_sigmask(t))
		sigandnsets(&set, &set, &t->saved_sigmask);
	for (sig = 1; sig <= _NSIG; sig++) {
		if (!sigismember(&set, sig))
			continue;
		if (sighand->action[sig - 1].sa.sa_handler == SIG_DFL ||
		    sighand->action[sig - 1].sa.sa_handler == SIG_IGN)
			continue;
		return &sighand->action[sig - 1];
	}
	return NULL;
}

/*
 * What the kernel does with an interrupted call when it runs a handler, done to
 * the record: on the target the handler runs first, so a call that restarts
 * afterwards (sigsuspend, say) would wait for a signal that is gone.
 */
static void settle_restart(struct user_regs_struct *regs,
			   const struct k_sigaction *ka)
{
	if ((int)regs->orig_ax == -1 || !ka)
		return;
	switch ((long)regs->ax) {
	case -ERESTARTSYS:
		if (ka->sa.sa_flags & SA_RESTART)
			break;
		fallthrough;
	case -ERESTARTNOHAND:
	case -ERESTART_RESTARTBLOCK:
		regs->ax = -EINTR;
		break;
	}
}

static s64 clock_now(clockid_t clock)
{
	switch (clock) {
	case CLOCK_REALTIME:
		return ktime_get_real_ns();
	case CLOCK_BOOTTIME:
		return ktime_get_boottime_ns();
	case CLOCK_TAI:
		return ktime_get_clocktai_ns();
	default:
		return ktime_get_ns();
	}
}

/*
 * CPU time of @t as its own CPU clock has it: clock IDs are encoded as PID and
 * kind, PID 0 being the caller. Returns -1 for clocks of others.
 */
static s64 cpu_clock_now(struct task_struct *t, clockid_t clock)
{
	struct task_struct *each;
	u64 sum;

	if (CPUCLOCK_PID(clock) || CPUCLOCK_WHICH(clock) != CPUCLOCK_SCHED)
		return -1;
	if (CPUCLOCK_PERTHREAD(clock))
		return t->se.sum_exec_runtime;
	sum = t->signal->sum_sched_runtime;
	for_each_thread(t, each)
		sum += each->se.sum_exec_runtime;
	return sum;
}

static void restart_record(struct vasi_out *out, struct task_struct *t, s32 tid)
{
	const struct restart_block *rb = &t->restart_block;
	struct vasi_rec_restart rec = {
		.kind = restart_kind(rb->fn),
		.clock = CLOCK_MONOTONIC,
		.expiry_ns = -1,
		.remaining_ns = -1,
	};
	s64 now;

	switch (rec.kind) {
	case VASI_RESTART_NANOSLEEP:
		rec.clock = rb->nanosleep.clockid;
		rec.expiry_ns = rb->nanosleep.expires;
		if (rb->nanosleep.type == TT_NATIVE)
			rec.user1 = (unsigned long)rb->nanosleep.rmtp;
		else if (rb->nanosleep.type != TT_NONE)
			rec.kind = VASI_RESTART_UNKNOWN;
		break;
	case VASI_RESTART_CPUSLEEP:
		rec.clock = rb->nanosleep.clockid;
		rec.expiry_ns = rb->nanosleep.expires;
		rec.user1 = (unsigned long)rb->nanosleep.rmtp;
		now = cpu_clock_now(t, rec.clock);
		if (now < 0) {
			rec.kind = VASI_RESTART_UNKNOWN;
			break;
		}
		rec.clock = CPUCLOCK_PERTHREAD(rec.clock) ?
			    CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID;
		rec.remaining_ns = max(rec.expiry_ns - now, 0LL);
		break;
	case VASI_RESTART_POLL:
		if (rb->poll.has_timeout)
			rec.expiry_ns = (s64)rb->poll.tv_sec * NSEC_PER_SEC +
					rb->poll.tv_nsec;
		rec.user1 = (unsigned long)rb->poll.ufds;
		rec.user2 = rb->poll.nfds;
		break;
	case VASI_RESTART_FUTEX:
		if (rb->futex.flags & VASI_FUTEX_TIMEOUT)
			rec.expiry_ns = rb->futex.time;
		rec.user1 = (unsigned long)rb->futex.uaddr;
		rec.user2 = rb->futex.val;
		rec.user3 = rb->futex.bitset;
		if (rb->futex.flags & VASI_FUTEX_SHARED)
			rec.user4 |= VASI_RESTART_FUTEX_SHARED;
		if (rb->futex.flags & VASI_FUTEX_CLOCKRT) {
			rec.user4 |= VASI_RESTART_FUTEX_CLOCKRT;
			rec.clock = CLOCK_REALTIME;
		}
		break;
	}
	if (rec.expiry_ns >= 0 && rec.remaining_ns < 0 &&
	    rec.kind != VASI_RESTART_UNKNOWN)
		rec.remaining_ns = max(rec.expiry_ns - clock_now(rec.clock), 0LL);
	vasi_out_record(out, VASI_REC_RESTART, tid, 0, &rec, sizeof(rec));
}

struct sighand_struct *vasi_lock_sighand(struct task_struct *t)
{
	struct sighand_struct *sighand;

	/* its memory is reused by type only, so it may be locked, then checked */
	for (;;) {
		sighand = rcu_dereference(t->sighand);
		if (!sighand)
			return NULL;
		spin_lock_irq(&sighand->siglock);
		if (sighand == rcu_access_pointer(t->sighand)) {
			/* sparse can't follow a lock that is held on success */
			__release(&sighand->siglock);
			return sighand;
		}
		spin_unlock_irq(&sighand->siglock);
	}
}

void vasi_unlock_sighand(struct sighand_struct *sighand)
{
	__acquire(&sighand->siglock);
	spin_unlock_irq(&sighand->siglock);
}

/* siglock held */
void vasi_pending_record(struct vasi_out *out, struct sigpending *pending,
			 s32 tid)
{
	sigset_t bare = pending->signal;
	struct sigqueue *q;
	siginfo_t info;
	size_t begin;
	int sig;

	if (sigisemptyset(&pending->signal))
		return;
	begin = vasi_out_begin(out);
	list_for_each_entry(q, &pending->list, list) {
		copy_siginfo_to_external(&info, &q->info);
		vasi_out_bytes(out, &info, sizeof(info));
		sigdelset(&bare, q->info.si_signo);
	}
	/* sent when there was no memory to say more */
	for (sig = 1; sig <= _NSIG; sig++) {
		if (!sigismember(&bare, sig))
			continue;
		memset(&info, 0, sizeof(info));
		info.si_signo = sig;
		info.si_code = SI_USER;
		vasi_out_bytes(out, &info, sizeof(info));
	}
	vasi_out_end(out, begin, VASI_REC_SIGPENDING, tid);
}

/* Returns the XSTATE components that the thread uses. */
u64 vasi_thread_records(struct vasi_out *out, struct vasi_suspension *susp,
			struct task_struct *t, struct pid_namespace *ns)
{
	struct vasi_rec_thread rec = { .where = VASI_WHERE_RUNNING, .syscall = -1 };
	s32 tid = task_pid_nr_ns(t, ns);
	const struct k_sigaction *ka;
	struct sighand_struct *sighand;
	struct user_regs_struct regs;
	struct vasi_park *park = NULL;
	const sigset_t *mask;

	if (susp) {
		spin_lock(&susp->lock);
		park = vasi_park_find(susp, t);
		if (park && park->state != VASI_PARK_PARKED) {
			rec.where = vasi_park_in_vfork(susp, t) ?
				    VASI_WHERE_VFORK : VASI_WHERE_STOPPED;
			park = NULL;
		}
		spin_unlock(&susp->lock);
	}

	rec.unmovable = vasi_held_thread(t, t->group_leader);
	strscpy_pad((char *)rec.comm, t->comm, sizeof(rec.comm));
	rec.sas_sp = t->sas_ss_sp;
	rec.sas_size = t->sas_ss_size;
	rec.sas_flags = t->sas_ss_flags;
	rec.pdeath_signal = t->pdeath_signal;
	rec.robust_list = (unsigned long)t->robust_list;
	rec.robust_len = t->robust_list ? sizeof(struct robust_list_head) : 0;
	rec.clear_child_tid = (unsigned long)t->clear_child_tid;
	rec.rseq = (unsigned long)t->rseq;
	rec.rseq_len = vasi_task_rseq_len(t);
	rec.rseq_sig = t->rseq_sig;
	rec.timer_slack_ns = t->timer_slack_ns;
	if (park) {
		rec.where = park->cap.where;
		rec.syscall = park->cap.syscall;
		rec.rseq_abort = park->cap.rseq_abort;
		rec.fixup = park->cap.fixup;
		rec.xstate_in_use = xstate_in_use(&park->cap);
		regs = park->cap.regs;
	}

	sighand = vasi_lock_sighand(t);
	if (sighand) {
		mask = test_tsk_restore_sigmask(t) ? &t->saved_sigmask :
						     &t->blocked;
		BUILD_BUG_ON(sizeof(*mask) != sizeof(rec.sigmask));
		memcpy(&rec.sigmask, mask, sizeof(rec.sigmask));
		ka = next_handler(t, sighand);
		if (park)
			settle_restart(&regs, ka);
		vasi_out_record(out, VASI_REC_THREAD, tid, 0, &rec, sizeof(rec));
		vasi_pending_record(out, &t->pending, tid);
		vasi_unlock_sighand(sighand);
	} else {
		vasi_out_record(out, VASI_REC_THREAD, tid, 0, &rec, sizeof(rec));
	}

	if (!park || !park->cap.valid)
		return rec.xstate_in_use;
	vasi_out_record(out, VASI_REC_REGSET, tid, NT_PRSTATUS, &regs,
			sizeof(regs));
	vasi_out_record(out, VASI_REC_REGSET, tid, NT_X86_XSTATE,
			park->cap.xstate, park->cap.xstate_len);
	if ((long)regs.ax == -ERESTART_RESTARTBLOCK)
		restart_record(out, t, tid);
	return rec.xstate_in_use;
}
