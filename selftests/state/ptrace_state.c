// SPDX-License-Identifier: GPL-2.0
/*
 * State records of a guest that ptrace holds, as the module would write them
 *
 * What only the guest can ask is asked by calls that it makes in the vDSO's
 * syscall instruction, between two system call stops.
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
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "ptrace_guest.h"
#include "state/maps.h"
#include "state/procfile.h"
#include "state/regs.h"

#define ROOM		(8UL << 20)
#define XSTATE_ROOM	65536
#define SCRATCH_BELOW	8192	/* the leader's stack pointer */
#define SCRATCH_BYTES	512

struct out {
	uint8_t *buf;
	size_t len;
};

static void put(struct out *o, uint16_t type, int32_t tid, uint32_t note,
		const void *payload, size_t bytes)
{
	struct vasi_record rec = {
		.bytes = (uint32_t)((sizeof(rec) + bytes + 7) & ~7UL),
		.type = type, .tid = tid, .note = note,
		.payload = (uint32_t)bytes,
	};

	if (o->len + rec.bytes > ROOM)
		abort();
	memset(o->buf + o->len, 0, rec.bytes);
	memcpy(o->buf + o->len, &rec, sizeof(rec));
	memcpy(o->buf + o->len + sizeof(rec), payload, bytes);
	o->len += rec.bytes;
}

static int find_call(struct ptrace_guest *p)
{
	_cleanup_close_ int dir = -1;
	uint8_t code[65536];
	struct map_text t;
	char path[64], *text;
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d", p->guest.pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (procfile_read(dir, "maps", &text, NULL) || map_text_parse(&t, text))
		return -EIO;
	for (i = 0; i < t.n && !p->call_at; i++) {
		const uint8_t *at;
		ssize_t n;

		if (strcmp(t.v[i].name, "[vdso]"))
			continue;
		n = pread(p->mem, code, sizeof(code), (off_t)t.v[i].start);
		at = n > 0 ? memmem(code, (size_t)n, "\x0f\x05", 2) : NULL;
		if (at)
			p->call_at = t.v[i].start + (uint64_t)(at - code);
	}
	map_text_free(&t);
	return p->call_at ? 0 : -ENOENT;
}

static long ask(struct ptrace_guest *p, pid_t tid, long nr, uint64_t a,
		uint64_t b, uint64_t c, uint64_t d)
{
	struct user_regs_struct old, regs;
	uint64_t mask, all = ~0ULL;
	int i, status;

	ptrace(PTRACE_GETREGS, tid, 0, &old);
	ptrace(PTRACE_GETSIGMASK, tid, 8, &mask);
	ptrace(PTRACE_SETSIGMASK, tid, 8, &all);
	regs = old;
	regs.rax = (unsigned long)nr;
	regs.orig_rax = -1UL;
	regs.rdi = a;
	regs.rsi = b;
	regs.rdx = c;
	regs.r10 = d;
	regs.rip = p->call_at;
	ptrace(PTRACE_SETREGS, tid, 0, &regs);
	for (i = 0; i < 2;) {
		ptrace(PTRACE_SYSCALL, tid, 0, 0);
		if (waitpid(tid, &status, __WALL | __WNOTHREAD) != tid ||
		    !WIFSTOPPED(status))
			return -ESRCH;
		i += WSTOPSIG(status) == (SIGTRAP | 0x80);
	}
	ptrace(PTRACE_GETREGS, tid, 0, &regs);
	ptrace(PTRACE_SETREGS, tid, 0, &old);
	ptrace(PTRACE_SETSIGMASK, tid, 8, &mask);
	return (long)regs.rax;
}

/* asks a call that writes @len bytes to an address (argument @at of @arg) */
static long ask_bytes(struct ptrace_guest *p, pid_t tid, long nr,
		      uint64_t *arg, int at, void *ret, size_t len)
{
	struct user_regs_struct regs;
	uint8_t saved[SCRATCH_BYTES];
	uint64_t scratch;
	long got;

	ptrace(PTRACE_GETREGS, p->threads[0].host_tid, 0, &regs);
	scratch = (regs.rsp - SCRATCH_BELOW) & ~63ULL;
	arg[at] = scratch;
	if (pread(p->mem, saved, len, (off_t)scratch) != (ssize_t)len)
		return -EFAULT;
	got = ask(p, tid, nr, arg[0], arg[1], arg[2], arg[3]);
	if (pread(p->mem, ret, len, (off_t)scratch) != (ssize_t)len ||
	    pwrite(p->mem, saved, len, (off_t)scratch) != (ssize_t)len)
		return -EFAULT;
	return got;
}

void ptrace_guest_restart_eintr(pid_t tid)
{
	struct user_regs_struct regs;
	static const long calls[] = {
		__NR_epoll_wait, __NR_epoll_pwait, __NR_rt_sigtimedwait,
		__NR_semop, __NR_semtimedop, __NR_accept, __NR_accept4,
		__NR_recvfrom, __NR_recvmsg, __NR_connect, __NR_sendto,
		__NR_sendmsg,
	};
	size_t i;

	ptrace(PTRACE_GETREGS, tid, 0, &regs);
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		if ((long)regs.orig_rax == calls[i] &&
		    (long)regs.rax == -EINTR) {
			regs.rax = (unsigned long)-ERESTARTNOHAND;
			ptrace(PTRACE_SETREGS, tid, 0, &regs);
		}
	}
}

static int64_t read_time(struct ptrace_guest *p, uint64_t at)
{
	int64_t ts[2] = {};

	if (!at || pread(p->mem, ts, 16, (off_t)at) != 16)
		return -1;
	return ts[0] * NSEC_PER_SEC + ts[1];
}

static void put_restart(struct ptrace_guest *p, struct out *o, int32_t tid,
			const struct user_regs_struct *r)
{
	struct vasi_rec_restart b = { .expiry_ns = -1, .remaining_ns = -1,
				      .clock = CLOCK_MONOTONIC };
	bool absolute = false;

	switch (r->orig_rax) {
	case __NR_nanosleep:
	case __NR_clock_nanosleep: {
		const bool clock = r->orig_rax == __NR_clock_nanosleep;
		const uint64_t left = clock ? r->r10 : r->rsi;

		b.kind = VASI_RESTART_NANOSLEEP;
		b.user1 = left;
		b.remaining_ns = read_time(p, left ? left :
					   clock ? r->rdx : r->rdi);
		break;
	}
	case __NR_poll:
		b.kind = VASI_RESTART_POLL;
		b.user1 = r->rdi;
		b.user2 = r->rsi;
		if ((int)r->rdx >= 0)
			b.remaining_ns = (int)r->rdx * 1000000LL;
		break;
	case __NR_futex:
		b.kind = VASI_RESTART_FUTEX;
		b.user1 = r->rdi;
		b.user2 = (uint32_t)r->rdx;
		b.user3 = (r->rsi & 0x7f) == FUTEX_WAIT_BITSET ?
			  (uint32_t)r->r9 : ~0U;
		b.user4 = r->rsi & FUTEX_PRIVATE_FLAG ? 0 :
			  VASI_RESTART_FUTEX_SHARED;
		b.remaining_ns = read_time(p, r->r10);
		absolute = (r->rsi & 0x7f) == FUTEX_WAIT_BITSET;
		if (r->rsi & FUTEX_CLOCK_REALTIME) {
			b.user4 |= VASI_RESTART_FUTEX_CLOCKRT;
			b.clock = CLOCK_REALTIME;
		}
		break;
	default:
		b.kind = VASI_RESTART_UNKNOWN;
	}
	/* (offsets of a time namespace are not looked at: there are none) */
	if (b.remaining_ns >= 0 && absolute) {
		b.expiry_ns = b.remaining_ns;
		b.remaining_ns -= clock_ns(b.clock);
		if (b.remaining_ns < 0)
			b.remaining_ns = 0;
	} else if (b.remaining_ns >= 0) {
		b.expiry_ns = b.remaining_ns + clock_ns(b.clock);
	}
	put(o, VASI_REC_RESTART, tid, 0, &b, sizeof(b));
}

static void put_pending(struct out *o, pid_t host, int32_t tid, int shared)
{
	struct __ptrace_peeksiginfo_args args = {
		.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0, .nr = 32,
	};
	siginfo_t si[32];
	long n = ptrace(PTRACE_PEEKSIGINFO, host, &args, si);

	if (n > 0)
		put(o, VASI_REC_SIGPENDING, tid, 0, si,
		    (size_t)n * sizeof(si[0]));
}

/* prctl() that writes its answer, or returns it */
static uint32_t ask_prctl(struct ptrace_guest *p, pid_t tid, int option,
			  bool writes)
{
	uint64_t arg[4] = { (uint64_t)option };
	int v = 0;

	if (!writes)
		return (uint32_t)ask(p, tid, __NR_prctl, arg[0], 0, 0, 0);
	ask_bytes(p, tid, __NR_prctl, arg, 1, &v, sizeof(v));
	return (uint32_t)v;
}

static void put_thread(struct ptrace_guest *p, struct out *o,
		       const struct ptrace_thread *t)
{
	struct vasi_rec_thread rec = { .where = VASI_WHERE_RUNNING,
				       .timer_slack_ns = 50000 };
	struct __ptrace_rseq_configuration rseq;
	struct user_regs_struct regs;
	static uint8_t xstate[XSTATE_ROOM];
	struct iovec iov = { xstate, sizeof(xstate) };
	uint64_t arg[4] = {}, addr;
	char path[64];
	stack_t ss;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", p->guest.pid,
		 t->host_tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, rec.comm, 16);

		if (n > 0)
			rec.comm[n - 1] = 0;
		close(fd);
	}
	if (!p->stopped) {
		put(o, VASI_REC_THREAD, t->tid, 0, &rec, sizeof(rec));
		return;
	}
	ptrace(PTRACE_GETREGS, t->host_tid, 0, &regs);
	rec.where = (long)regs.orig_rax >= 0 ? VASI_WHERE_SYSCALL :
					       VASI_WHERE_USER;
	put(o, VASI_REC_REGSET, t->tid, NT_PRSTATUS, &regs, sizeof(regs));
	ptrace(PTRACE_GETREGSET, t->host_tid, NT_X86_XSTATE, &iov);
	put(o, VASI_REC_REGSET, t->tid, NT_X86_XSTATE, xstate, iov.iov_len);
	if (regs_need_restart_block(&regs))
		put_restart(p, o, t->tid, &regs);
	ptrace(PTRACE_GETSIGMASK, t->host_tid, 8, &rec.sigmask);
	put_pending(o, t->host_tid, t->tid, 0);
	syscall(__NR_get_robust_list, t->host_tid, &rec.robust_list, &addr);
	rec.robust_len = (uint32_t)addr;
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, t->host_tid, sizeof(rseq),
		   &rseq) > 0) {
		rec.rseq = rseq.rseq_abi_pointer;
		rec.rseq_len = rseq.rseq_abi_pointer ? rseq.rseq_abi_size : 0;
		rec.rseq_sig = rseq.signature;
	}
	if (!ask_bytes(p, t->host_tid, __NR_sigaltstack, arg, 1, &ss,
		       sizeof(ss)) && !(ss.ss_flags & SS_DISABLE)) {
		rec.sas_sp = (uintptr_t)ss.ss_sp;
		rec.sas_size = ss.ss_size;
		rec.sas_flags = (uint32_t)ss.ss_flags;
	}
	rec.pdeath_signal = ask_prctl(p, t->host_tid, PR_GET_PDEATHSIG, true);
	rec.timer_slack_ns = ask_prctl(p, t->host_tid, PR_GET_TIMERSLACK,
				       false);
	memset(arg, 0, sizeof(arg));
	arg[0] = PR_GET_TID_ADDRESS;
	if (!ask_bytes(p, t->host_tid, __NR_prctl, arg, 1, &addr, 8))
		rec.clear_child_tid = addr;
	put(o, VASI_REC_THREAD, t->tid, 0, &rec, sizeof(rec));
}

static void put_actions(struct ptrace_guest *p, struct out *o, const char *text)
{
	struct { uint64_t handler, flags, restorer, mask; } ksa;
	struct vasi_rec_sigaction v[64] = {};
	const uint64_t used =
		strtoull(procfile_field(text, "SigCgt"), NULL, 16) |
		strtoull(procfile_field(text, "SigIgn"), NULL, 16);
	uint64_t i;

	for (i = 0; i < 64 && p->stopped; i++) {
		uint64_t arg[4] = { i + 1, 0, 0, 8 };

		if (!(used >> i & 1) ||
		    ask_bytes(p, p->threads[0].host_tid, __NR_rt_sigaction, arg,
			      2, &ksa, sizeof(ksa)))
			continue;
		v[i] = (struct vasi_rec_sigaction){
			ksa.handler, ksa.flags, ksa.restorer, ksa.mask,
		};
	}
	put(o, VASI_REC_SIGACTION, 0, 0, v, sizeof(v));
}

static void put_itimers(struct ptrace_guest *p, struct out *o)
{
	struct vasi_rec_itimer v[3] = {};
	uint64_t i;

	for (i = 0; i < 3 && p->stopped; i++) {
		uint64_t arg[4] = { i };
		struct itimerval it;

		if (ask_bytes(p, p->threads[0].host_tid, __NR_getitimer, arg, 1,
			      &it, sizeof(it)))
			continue;
		v[i].interval_ns = it.it_interval.tv_sec * NSEC_PER_SEC +
				   it.it_interval.tv_usec * 1000;
		v[i].value_ns = it.it_value.tv_sec * NSEC_PER_SEC +
				it.it_value.tv_usec * 1000;
		/* it starts again when its signal is taken */
		if (!v[i].value_ns)
			v[i].value_ns = v[i].interval_ns;
	}
	put(o, VASI_REC_ITIMER, 0, 0, v, sizeof(v));
}

static int put_process(struct ptrace_guest *p, struct out *o, int dir)
{
	struct vasi_rec_process rec = { .dumpable = 1, .exit_signal = SIGCHLD };
	_cleanup_free_ char *stat = NULL, *offsets = NULL;
	unsigned long long f[53] = {};
	long long mono_s = 0, boot_s = 0;
	long mono_ns = 0, boot_ns = 0;
	char *at;
	int i;

	if (procfile_read(dir, "stat", &stat, NULL) ||
	    procfile_read(dir, "timens_offsets", &offsets, NULL))
		return -ESRCH;
	sscanf(offsets, "monotonic %lld %ld boottime %lld %ld", &mono_s,
	       &mono_ns, &boot_s, &boot_ns);
	at = strrchr(stat, ')') + 3;
	for (i = 3; i <= 52 && at && *at; i++) {
		char *end;

		if (i > 3)
			f[i] = strtoull(at, &end, 10);
		else
			end = at + 1;
		at = end + 1;
	}
	rec.pid = ptrace_guest_inner_tid(p->guest.pid, p->guest.pid);
	rec.nr_threads = (uint32_t)f[20];
	rec.start_code = f[26];
	rec.end_code = f[27];
	rec.start_stack = f[28];
	rec.start_data = f[45];
	rec.end_data = f[46];
	rec.start_brk = f[47];
	rec.brk = f[47];
	rec.arg_start = f[48];
	rec.arg_end = f[49];
	rec.env_start = f[50];
	rec.env_end = f[51];
	if (p->stopped) {
		const pid_t tid = p->threads[0].host_tid;

		rec.brk = (uint64_t)ask(p, tid, __NR_brk, 0, 0, 0, 0);
		rec.dumpable = ask_prctl(p, tid, PR_GET_DUMPABLE, false);
		rec.thp_disable = ask_prctl(p, tid, PR_GET_THP_DISABLE, false);
		rec.child_subreaper = ask_prctl(p, tid, PR_GET_CHILD_SUBREAPER,
						true);
	}
	rec.clock_monotonic = clock_ns(CLOCK_MONOTONIC);
	rec.clock_boottime = clock_ns(CLOCK_BOOTTIME);
	rec.timens_monotonic = mono_s * NSEC_PER_SEC + mono_ns;
	rec.timens_boottime = boot_s * NSEC_PER_SEC + boot_ns;
	put(o, VASI_REC_PROCESS, 0, 0, &rec, sizeof(rec));
	return 0;
}

int ptrace_guest_state(struct guest *g, void **ret_buf, size_t *ret_len)
{
	struct ptrace_guest *p = (struct ptrace_guest *)g;
	_cleanup_free_ char *auxv = NULL, *status = NULL;
	_cleanup_close_ int dir = -1;
	struct out o = { malloc(ROOM), 0 };
	struct ptrace_guest early = *p;
	char path[64];
	size_t i, len;
	int r;

	snprintf(path, sizeof(path), "/proc/%d", g->pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || !o.buf)
		return -ESRCH;
	r = procfile_read(dir, "auxv", &auxv, &len);
	if (!r)
		r = procfile_read(dir, "status", &status, NULL);
	if (!r && p->stopped && !p->call_at)
		r = find_call(p);
	if (!r)
		r = put_process(p, &o, dir);
	if (r) {
		free(o.buf);
		return r;
	}
	put(&o, VASI_REC_AUXV, 0, 0, auxv, len);
	put_actions(p, &o, status);
	put_itimers(p, &o);
	if (p->stopped) {
		for (i = 0; i < p->nr_threads; i++)
			put_thread(p, &o, &p->threads[i]);
		put_pending(&o, g->pid, 0, 1);
	} else {
		struct ptrace_thread one = {
			g->pid, ptrace_guest_inner_tid(g->pid, g->pid),
		};

		put_thread(&early, &o, &one);
	}
	*ret_buf = o.buf;
	*ret_len = o.len;
	return 0;
}
