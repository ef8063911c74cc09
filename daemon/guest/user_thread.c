// SPDX-License-Identifier: GPL-2.0
/*
 * Records of a thread that the tracer holds
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "guest/user_records.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/procfile.h"
#include "state/regs.h"

#define XSTATE_ROOM	65536
#define XSTATE_BV	512	/* behind the legacy area */
#define PEEK_AT_ONCE	32
#define CS_64BIT	0x33
#define PAGE_BYTES	4096

static const uint8_t syscall_insn[2] = { 0x0f, 0x05 };

static bool bytes_at(const struct user_records *o, uint64_t at, void *to,
		     size_t len)
{
	return pread(o->s->mem, to, len, (off_t)at) == (ssize_t)len;
}

/*
 * A thread that was let go and stopped again before the call is about to enter
 * restart_syscall(). No other kernel has its restart block, so the record says
 * what it was before that: a call that was interrupted and knows how to go on.
 */
static void back_in_restart(const struct user_records *o,
			    struct user_regs_struct *regs)
{
	uint8_t insn[sizeof(syscall_insn)];

	if (regs->rax != __NR_restart_syscall ||
	    !bytes_at(o, regs->rip, insn, sizeof(insn)) ||
	    memcmp(insn, syscall_insn, sizeof(insn)))
		return;
	regs->rip += sizeof(insn);
	regs->orig_rax = __NR_restart_syscall;
	regs->rax = (unsigned long)-ERESTART_RESTARTBLOCK;
}

/*
 * Which call it was in the first place, when it has been restarted before. The
 * guest's code may still say it in the instruction before, mov $nr, %eax. Of
 * the two sleeps one begins with the number of a clock and one with an address.
 */
static long first_call(const struct user_records *o,
		       const struct user_thread *t,
		       const struct user_regs_struct *regs)
{
	uint8_t code[7];
	uint32_t nr;

	if (regs->orig_rax != __NR_restart_syscall)
		return (long)regs->orig_rax;
	if (bytes_at(o, regs->rip - sizeof(code), code, sizeof(code)) &&
	    code[0] == 0xb8 && !memcmp(&code[5], syscall_insn, 2)) {
		memcpy(&nr, &code[1], sizeof(nr));
		return nr;
	}
	if (t->restarted != __NR_nanosleep)
		return t->restarted;
	return regs->rdi < PAGE_BYTES ? __NR_clock_nanosleep : __NR_nanosleep;
}

static int64_t time_at(const struct user_records *o, uint64_t at)
{
	int64_t ts[2];

	if (!at || !bytes_at(o, at, ts, sizeof(ts)))
		return -1;
	return ts[0] * NSEC_PER_SEC + ts[1];
}

/* an absolute time of the guest's, as the host counts */
static int64_t host_time(const struct user_records *o, int clock, int64_t ns)
{
	if (clock == CLOCK_MONOTONIC)
		return ns - o->timens[0];
	return clock == CLOCK_BOOTTIME ? ns - o->timens[1] : ns;
}

static void sleep_record(const struct user_records *o,
			 const struct user_regs_struct *r, bool clock,
			 struct vasi_rec_restart *b)
{
	const uint64_t asked = clock ? r->rdx : r->rdi;

	b->kind = VASI_RESTART_NANOSLEEP;
	b->user1 = clock ? r->r10 : r->rsi;
	if (clock)
		b->clock = (int)r->rdi;
	if (b->clock < 0 || b->clock == CLOCK_THREAD_CPUTIME_ID)
		b->kind = VASI_RESTART_UNKNOWN;
	else if (b->clock == CLOCK_PROCESS_CPUTIME_ID)
		b->kind = VASI_RESTART_CPUSLEEP;
	/* what is left was written there when the call was interrupted */
	b->remaining_ns = time_at(o, b->user1 ? b->user1 : asked);
	if (b->remaining_ns < 0)
		b->kind = VASI_RESTART_UNKNOWN;
}

static void futex_record(const struct user_records *o,
			 const struct user_regs_struct *r,
			 struct vasi_rec_restart *b)
{
	const bool bitset = (r->rsi & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
	const int64_t ns = time_at(o, r->r10);

	b->kind = VASI_RESTART_FUTEX;
	b->user1 = r->rdi;
	b->user2 = (uint32_t)r->rdx;
	b->user3 = bitset ? (uint32_t)r->r9 : FUTEX_BITSET_MATCH_ANY;
	if (!(r->rsi & FUTEX_PRIVATE_FLAG))
		b->user4 |= VASI_RESTART_FUTEX_SHARED;
	if (r->rsi & FUTEX_CLOCK_REALTIME) {
		b->user4 |= VASI_RESTART_FUTEX_CLOCKRT;
		b->clock = CLOCK_REALTIME;
	}
	if (ns < 0)
		return;
	if (bitset)
		b->expiry_ns = host_time(o, b->clock, ns);
	else
		b->remaining_ns = ns;
}

/*
 * The restart block itself is nowhere to be seen. What is left of a sleep is
 * told by the guest's memory if it wants to know it; else, and of poll() and
 * FUTEX_WAIT, only how long it was to be in the first place: then it sleeps
 * that long again.
 */
static void restart_record(struct user_records *o, const struct user_thread *t,
			   const struct user_regs_struct *r)
{
	struct vasi_rec_restart b = {
		.kind = VASI_RESTART_UNKNOWN, .clock = CLOCK_MONOTONIC,
		.expiry_ns = -1, .remaining_ns = -1,
	};

	switch (first_call(o, t, r)) {
	case __NR_nanosleep:
		sleep_record(o, r, false, &b);
		break;
	case __NR_clock_nanosleep:
		sleep_record(o, r, true, &b);
		break;
	case __NR_poll:
		b.kind = VASI_RESTART_POLL;
		b.user1 = r->rdi;
		b.user2 = (uint32_t)r->rsi;
		if ((int)r->rdx >= 0)
			b.remaining_ns = (int)r->rdx * NSEC_PER_MSEC;
		break;
	case __NR_futex:
		futex_record(o, r, &b);
		break;
	}
	if (b.kind == VASI_RESTART_CPUSLEEP) {
		b.expiry_ns = -1;
	} else if (b.expiry_ns >= 0) {
		b.remaining_ns = b.expiry_ns - clock_ns(b.clock);
		if (b.remaining_ns < 0)
			b.remaining_ns = 0;
	} else if (b.remaining_ns >= 0) {
		b.expiry_ns = b.remaining_ns + clock_ns(b.clock);
	}
	user_put(o, VASI_REC_RESTART, t->inner, 0, &b, sizeof(b));
}

/*
 * What the kernel does with an interrupted call when it runs a handler, done to
 * the record: on the target the handler runs first, so a call that restarts
 * afterwards (sigsuspend, say) would wait for a signal that is gone.
 */
static void settle_restart(const struct user_records *o, uint64_t deliverable,
			   struct user_regs_struct *regs)
{
	const struct vasi_rec_sigaction *sa = NULL;
	int i;

	for (i = 0; i < NR_SIGNALS && !sa; i++)
		if (deliverable >> i & 1 && o->action[i].handler > 1)
			sa = &o->action[i];
	if (!sa || (long)regs->orig_rax < 0)
		return;
	switch ((long)regs->rax) {
	case -ERESTARTSYS:
		if (sa->flags & SA_RESTART)
			break;
		__attribute__((fallthrough));
	case -ERESTARTNOHAND:
	case -ERESTART_RESTARTBLOCK:
		regs->rax = (unsigned long)-EINTR;
		break;
	}
}

uint64_t user_pending_record(struct user_records *o, pid_t tid, int32_t inner,
			     bool shared)
{
	struct __ptrace_peeksiginfo_args args = {
		.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
		.nr = PEEK_AT_ONCE,
	};
	_cleanup_free_ siginfo_t *v = NULL;
	uint64_t set = 0;
	size_t n = 0, i;
	long got;

	do {
		siginfo_t *more = reallocarray(v, n + PEEK_AT_ONCE,
					       sizeof(*v));

		if (!more) {
			o->err = -ENOMEM;
			return 0;
		}
		v = more;
		args.off = n;
		got = ptrace(PTRACE_PEEKSIGINFO, tid, &args, v + n);
		if (got < 0) {
			o->err = -errno;
			return 0;
		}
		n += (size_t)got;
	} while (got == PEEK_AT_ONCE);
	for (i = 0; i < n; i++)
		set |= 1ULL << (v[i].si_signo - 1);
	if (n)
		user_put(o, VASI_REC_SIGPENDING, inner, 0, v, n * sizeof(*v));
	return set;
}

static void name_of(const struct user_records *o, pid_t tid, uint8_t comm[16])
{
	_cleanup_free_ char *text = NULL;
	char path[48];

	snprintf(path, sizeof(path), "task/%d/comm", tid);
	if (!procfile_read(o->s->proc, path, &text, NULL))
		snprintf((char *)comm, 16, "%.*s", (int)strcspn(text, "\n"),
			 text);
}

static uint64_t slack_of(pid_t tid)
{
	_cleanup_free_ char *text = NULL;
	char path[48];

	/* a thread has a folder of its own, though it is not listed */
	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", tid);
	return procfile_read(AT_FDCWD, path, &text, NULL) ? 0 :
	       strtoull(text, NULL, 10);
}

static void ask_thread(struct user_records *o, struct user_thread *t,
		       struct vasi_rec_thread *rec)
{
	struct __ptrace_rseq_configuration rseq = { 0 };
	stack_t ss = {};
	uint64_t addr = 0, head = 0;
	size_t len = 0;
	int death = 0;
	long r;

	if (syscall(__NR_get_robust_list, t->tid, &head, &len) == 0 && head) {
		rec->robust_list = head;
		rec->robust_len = (uint32_t)len;
	}
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, t->tid, sizeof(rseq),
		   &rseq) >= 0 && rseq.rseq_abi_pointer) {
		rec->rseq = rseq.rseq_abi_pointer;
		rec->rseq_len = rseq.rseq_abi_size;
		rec->rseq_sig = rseq.signature;
	}
	rec->timer_slack_ns = slack_of(t->tid);
	r = user_ask_mem(o, t, __NR_sigaltstack, USER_CALL(0), 1, &ss,
			 sizeof(ss));
	if (!user_answer(o, r) && !(ss.ss_flags & SS_DISABLE)) {
		rec->sas_sp = (uintptr_t)ss.ss_sp;
		rec->sas_size = ss.ss_size;
		rec->sas_flags = (uint32_t)ss.ss_flags & ~(uint32_t)SS_ONSTACK;
	}
	r = user_ask_mem(o, t, __NR_prctl, USER_CALL(PR_GET_PDEATHSIG), 1,
			 &death, sizeof(death));
	user_answer(o, r);
	rec->pdeath_signal = (uint32_t)death;
	r = user_ask_mem(o, t, __NR_prctl, USER_CALL(PR_GET_TID_ADDRESS), 1,
			 &addr, sizeof(addr));
	if (r && !o->err)
		o->err = -EOPNOTSUPP;
	rec->clear_child_tid = addr;
}

uint64_t user_thread_records(struct user_records *o, struct user_thread *t,
			     bool leads)
{
	struct vasi_rec_thread rec = { .syscall = -1, .sigmask = t->mask };
	_cleanup_free_ uint8_t *xstate = malloc(XSTATE_ROOM);
	struct iovec iov = { xstate, XSTATE_ROOM };
	struct user_regs_struct regs = t->regs;
	uint64_t pending;

	if (!xstate) {
		o->err = -ENOMEM;
		return 0;
	}
	name_of(o, t->tid, rec.comm);
	rec.unmovable = user_held_thread(o, t->tid, t);
	rec.fixup = t->fixup;
	rec.rseq_abort = t->rseq_abort;
	if (t->stopped) {
		rec.where = VASI_WHERE_STOPPED;
		user_put(o, VASI_REC_THREAD, t->inner, 0, &rec, sizeof(rec));
		return 0;
	}
	/* what a filter or 32-bit code is told by is enough to refuse it */
	if (!t->mute)
		ask_thread(o, t, &rec);
	back_in_restart(o, &regs);
	rec.where = (long)regs.orig_rax < 0 ? VASI_WHERE_USER :
					      VASI_WHERE_SYSCALL;
	if ((long)regs.orig_rax >= 0)
		rec.syscall = (int32_t)regs.orig_rax;
	if (ptrace(PTRACE_GETREGSET, t->tid, NT_X86_XSTATE, &iov)) {
		o->err = -errno;
		return 0;
	}
	if (iov.iov_len >= XSTATE_BV + sizeof(rec.xstate_in_use))
		memcpy(&rec.xstate_in_use, xstate + XSTATE_BV,
		       sizeof(rec.xstate_in_use));
	user_put(o, VASI_REC_THREAD, t->inner, 0, &rec, sizeof(rec));
	pending = user_pending_record(o, t->tid, t->inner, false);
	if (leads)
		pending |= o->shared_pending;
	settle_restart(o, pending & ~t->mask, &regs);
	/* registers of 32-bit code have another layout and no reader */
	if (regs.cs != CS_64BIT)
		return rec.xstate_in_use;
	user_put(o, VASI_REC_REGSET, t->inner, NT_PRSTATUS, &regs,
		 sizeof(regs));
	user_put(o, VASI_REC_REGSET, t->inner, NT_X86_XSTATE, xstate,
		 iov.iov_len);
	if (regs_need_restart_block(&regs))
		restart_record(o, t, &regs);
	return rec.xstate_in_use;
}

void user_thread_running(struct user_records *o, pid_t tid)
{
	struct vasi_rec_thread rec = {
		.where = VASI_WHERE_RUNNING, .syscall = -1,
	};
	_cleanup_free_ char *status = NULL;
	const char *f, *end;
	char path[48];

	snprintf(path, sizeof(path), "task/%d/status", tid);
	if (procfile_read(o->s->proc, path, &status, NULL))
		return;
	f = procfile_field(status, "State");
	if (!f || *f == 'Z' || *f == 'X')
		return;
	name_of(o, tid, rec.comm);
	rec.unmovable = user_held_thread(o, tid, NULL);
	rec.timer_slack_ns = slack_of(tid);
	f = procfile_field(status, "SigBlk");
	rec.sigmask = f ? strtoull(f, NULL, 16) : 0;
	f = procfile_field(status, "NSpid");
	if (!f)
		return;
	end = strchrnul(f, '\n');
	while (end > f && end[-1] != '\t' && end[-1] != ' ')
		end--;
	user_put(o, VASI_REC_THREAD, atoi(end), 0, &rec, sizeof(rec));
}
