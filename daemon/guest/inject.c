// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that a stopped thread of the source makes for us
 *
 * The syscall instruction is one that the guest has, the vDSO's. Memory for
 * arguments is a page of its own, which the guest maps when it is needed and
 * unmaps before anybody looks at its mappings: whatever it has already may
 * be in use, or on its way to the target.
 * The call runs between two stops, the second of which is again one where the
 * thread would take a signal. There its registers are put back, so that what
 * the kernel had still to decide about an interrupted call is decided as if
 * nothing had been. No trap is taken: a breakpoint or a single step would send
 * SIGTRAP by force, which resets a disposition that ignores it.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/maps.h"
#include "state/procfile.h"

#define CALL_MS		5000
#define STOP_MS		200
#define CHUNK		(256UL << 10)
#define PAGE		4096ULL
#define LOWEST		65536ULL	/* what vm.mmap_min_addr may be */
#define PLACES		8
#define MAX_ARGS	6
#define CS_64BIT	0x33
#define GET_DISPATCH_CONFIG	0x4211
#define DISPATCHED	2	/* SYS_USER_DISPATCH, si_code of a SIGSYS */
#define SIGNAL_BIT(sig)	(1ULL << ((sig) - 1))

/* struct ptrace_sud_config */
struct dispatch_config {
	uint64_t mode, selector, offset, len;
};

static const uint8_t insn[2] = { 0x0f, 0x05 };	/* syscall */

static bool is_call(const struct user_stream *s, uint64_t at)
{
	uint8_t code[sizeof(insn)];

	return at && pread(s->mem, code, sizeof(code), (off_t)at) ==
	       sizeof(code) && !memcmp(code, insn, sizeof(insn));
}

/* any two such bytes will do: what is behind them is not come to */
static uint64_t look_in(const struct user_stream *s, const struct map_line *line,
			uint8_t *code)
{
	uint64_t at;

	for (at = line->start; at < line->end; at += CHUNK) {
		const size_t left = line->end - at < CHUNK ?
				    (size_t)(line->end - at) : CHUNK;
		const ssize_t n = pread(s->mem, code, left, (off_t)at);
		const uint8_t *p = n > 0 ? memmem(code, (size_t)n, insn,
						  sizeof(insn)) : NULL;

		if (p)
			return at + (uint64_t)(p - code);
	}
	return 0;
}

static int read_maps(const struct user_stream *s, struct map_text *ret)
{
	char *text;
	int r = procfile_read(s->proc, "maps", &text, NULL);

	return r ? r : map_text_parse(ret, text);
}

/*
 * In the vDSO, where it does not change. A guest that was moved from a host
 * with another kernel has none: then in any code.
 */
static int find_call(struct user_stream *s)
{
	_cleanup_free_ uint8_t *code = NULL;
	struct map_text t;
	size_t i;
	int r, pass;

	if (is_call(s, s->call_at))
		return 0;
	s->call_at = 0;
	code = malloc(CHUNK);
	if (!code)
		return -ENOMEM;
	r = read_maps(s, &t);
	if (r)
		return r;
	for (pass = 0; pass < 2; pass++)
		for (i = 0; i < t.n && !s->call_at; i++) {
			const bool vdso = !strcmp(t.v[i].name, "[vdso]");

			if (t.v[i].prot & PROT_EXEC &&
			    strcmp(t.v[i].name, "[vsyscall]") &&
			    vdso == !pass)
				s->call_at = look_in(s, &t.v[i], code);
		}
	map_text_free(&t);
	return s->call_at ? 0 : -ENOENT;
}

/* -- who may */

bool user_dispatched(pid_t tid)
{
	struct dispatch_config c = { 0 };

	return !ptrace((enum __ptrace_request)GET_DISPATCH_CONFIG, tid,
		       sizeof(c), &c) && c.mode;
}

bool user_is_mute(const struct user_stream *s, const struct user_thread *t,
		  const char *status)
{
	const char *f = procfile_field(status, "Seccomp");

	return (f && atoi(f)) || s->dispatched || t->regs.cs != CS_64BIT ||
	       user_dispatched(t->tid);
}

/* -- one call */

/* to the entry of the call; job control may stop it on the way */
static int to_entry(pid_t tid, int64_t deadline, int *ret_status)
{
	int r;

	do {
		*ret_status = 0;
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0))
			return -errno;
		r = user_wait(tid, deadline, ret_status);
		if (r)
			return r;
	} while (*ret_status >> 16 == PTRACE_EVENT_STOP);
	return WSTOPSIG(*ret_status) == (SIGTRAP | 0x80) ? 0 : -EPROTO;
}

/* through it, to a stop like the one it came from */
static int to_stop(pid_t tid, int64_t deadline, int *ret_status)
{
	int r;

	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) ||
	    ptrace(PTRACE_CONT, tid, 0, 0))
		return -errno;
	*ret_status = 0;
	r = user_wait(tid, deadline, ret_status);
	if (r)
		return r;
	return *ret_status >> 16 == PTRACE_EVENT_STOP ? 0 : -EPROTO;
}

static int put_back(struct user_thread *t)
{
	return ptrace(PTRACE_SETREGS, t->tid, 0, &t->regs) ||
	       ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(t->mask), &t->mask) ?
	       -errno : 0;
}

/* a dispatched call, where that cannot be known before: not the guest's affair */
static bool was_dispatched(struct user_stream *s, struct user_thread *t)
{
	siginfo_t info;
	size_t i;

	if (ptrace(PTRACE_GETSIGINFO, t->tid, 0, &info) ||
	    info.si_signo != SIGSYS || info.si_code != DISPATCHED)
		return false;
	s->dispatched = true;
	for (i = 0; i < s->nr_threads; i++)
		s->threads[i].mute = true;
	return true;
}

/*
 * To a stop like the one it came from, wherever it is now (@status; 0: it
 * runs). It is waited for as long as it lives: let go with the registers of a
 * call the guest would be lost. A signal that came instead of the call is
 * acted upon, so that it is not lost either: -EAGAIN.
 */
static int bring_back(struct user_stream *s, struct user_thread *t, int status)
{
	bool passed = false;
	int r;

	while (status >> 16 != PTRACE_EVENT_STOP) {
		int sig = 0;

		if (status && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			/* about to enter the call: that of no number */
			if (ptrace(PTRACE_POKEUSER, t->tid,
				   offsetof(struct user, regs.orig_rax), -1L))
				return -errno;
		} else if (status) {
			passed = true;
			if (!was_dispatched(s, t))
				sig = WSTOPSIG(status);
			r = put_back(t);
			if (r)
				return r;
		}
		if (ptrace(PTRACE_INTERRUPT, t->tid, 0, 0) ||
		    (status && ptrace(PTRACE_CONT, t->tid, 0, sig)))
			return -errno;
		r = user_wait(t->tid, INT64_MAX, &status);
		if (r)
			return r;
	}
	if (!passed)
		return put_back(t);
	t->stopped = WSTOPSIG(status) != SIGTRAP;
	if (ptrace(PTRACE_GETREGS, t->tid, 0, &t->regs) ||
	    ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(t->mask), &t->mask))
		return -errno;
	return -EAGAIN;
}

/*
 * All signals are blocked meanwhile, and not for longer. But for a SIGSYS that
 * the guest lets in: one by force would find it blocked, and reset its action.
 */
static int call(struct user_stream *s, struct user_thread *t, long nr,
		const uint64_t arg[6], long *ret)
{
	const int64_t deadline = deadline_in(CALL_MS);
	struct user_regs_struct regs = t->regs;
	uint64_t all = ~SIGNAL_BIT(SIGSYS) | t->mask;
	int r, back, status = 0;

	if (t->mute)
		return -EOPNOTSUPP;
	r = find_call(s);
	if (r)
		return r;
	regs.rip = s->call_at;
	regs.rax = (unsigned long)nr;
	regs.orig_rax = -1UL;
	regs.rdi = arg[0];
	regs.rsi = arg[1];
	regs.rdx = arg[2];
	regs.r10 = arg[3];
	regs.r8 = arg[4];
	regs.r9 = arg[5];
	if (ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(all), &all) ||
	    ptrace(PTRACE_SETREGS, t->tid, 0, &regs)) {
		r = -errno;
		put_back(t);
		return r;
	}
	r = to_entry(t->tid, deadline, &status);
	if (!r)
		r = to_stop(t->tid, deadline, &status);
	if (!r && ptrace(PTRACE_GETREGS, t->tid, 0, &regs))
		r = -errno;
	back = bring_back(s, t, status);
	if (!r)
		*ret = (long)regs.rax;
	return back ? back : r;
}

int user_inject(struct user_stream *s, struct user_thread *t, long nr,
		const uint64_t arg[6], long *ret)
{
	return t->stopped ? -EBUSY : call(s, t, nr, arg, ret);
}

/* -- calls with memory */

/*
 * In the middle of the largest gap, so that it neither joins a neighbour nor
 * is in the way of one.
 */
static int find_place(struct user_stream *s)
{
	uint64_t end = LOWEST, best = 0;
	struct map_text t;
	size_t i;
	int r = read_maps(s, &t);

	if (r)
		return r;
	s->page_place = 0;
	for (i = 0; i < t.n; i++) {
		const uint64_t start = t.v[i].start;

		if (start < 1ULL << 47 && start > end && start - end > best) {
			best = start - end;
			s->page_place = (end + best / 2) & ~(PAGE - 1);
		}
		if (t.v[i].end > end)
			end = t.v[i].end;
	}
	map_text_free(&t);
	return best >= 3 * PAGE ? 0 : -ENOMEM;
}

int user_inject_begin(struct user_stream *s, struct user_thread *t)
{
	uint64_t arg[6] = {
		0, PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, (uint64_t)-1,
	};
	long at = -EEXIST;
	int i, r = 0;

	if (s->page)
		return 0;
	/* other threads may run, and map where nothing was */
	for (i = 0; i < PLACES && at == -EEXIST && !r; i++) {
		if (i || !s->page_place)
			r = find_place(s);
		arg[0] = s->page_place;
		if (!r)
			r = user_inject(s, t, SYS_mmap, arg, &at);
	}
	if (r)
		return r;
	if (at < 0 && at > -(long)PAGE)
		return -ENOMEM;	/* whichever of its limits it was */
	s->page = (uint64_t)at;
	return 0;
}

int user_inject_mem(struct user_stream *s, struct user_thread *t, long nr,
		    const uint64_t arg[6], int at, void *buf, size_t len,
		    long *ret)
{
	uint64_t args[MAX_ARGS];
	int r;

	if (len > USER_SCRATCH_BYTES)
		return -EINVAL;
	r = user_inject_begin(s, t);
	if (r)
		return r;
	memcpy(args, arg, sizeof(args));
	args[at] = s->page;
	if (pwrite(s->mem, buf, len, (off_t)s->page) != (ssize_t)len)
		return -EFAULT;
	r = user_inject(s, t, nr, args, ret);
	if (!r && pread(s->mem, buf, len, (off_t)s->page) != (ssize_t)len)
		r = -EFAULT;
	return r;
}

/* By one that job control has stopped if need be: it is stopped again behind it. */
int user_inject_end(struct user_stream *s)
{
	uint64_t arg[6] = { s->page, PAGE };
	struct user_thread *t = NULL;
	long ret = 0;
	size_t i;
	int r;

	if (!s->page)
		return 0;
	for (i = 0; i < s->nr_threads; i++) {
		struct user_thread *other = &s->threads[i];

		if (other->held && !other->mute && (!t || t->stopped))
			t = other;
	}
	r = t ? call(s, t, SYS_munmap, arg, &ret) : -EBUSY;
	if (!r && !ret)
		s->page = 0;
	return r ? r : (int)ret;
}

/* -- from outside of the tracer */

struct call {
	pid_t tid;
	long nr;
	const uint64_t *arg;
	int at;
	void *buf;
	size_t len;
	long *ret;
};

/* one that is stopped, or one that can be */
static int some_thread(struct user_stream *s, pid_t tid,
		       struct user_thread **ret)
{
	size_t i;
	int r;

	if (!s->nr_threads) {
		r = user_stop(s, tid ? tid : s->pid, deadline_in(STOP_MS),
			      NULL);
		if (r)
			return r == -EPERM ? -EBUSY : r;
	}
	r = tid ? -ESRCH : -EBUSY;
	for (i = 0; i < s->nr_threads; i++) {
		struct user_thread *t = &s->threads[i];

		if (tid ? t->tid != tid : t->stopped)
			continue;
		*ret = t;
		if (!t->mute)
			return 0;
		r = -EOPNOTSUPP;
	}
	return r;
}

static int make_call(struct user_stream *s, void *arg)
{
	struct call *c = arg;
	struct user_thread *t;
	int end, r = some_thread(s, c->tid, &t);

	if (r)
		return r;
	if (c->buf)
		r = user_inject_mem(s, t, c->nr, c->arg, c->at, c->buf, c->len,
				    c->ret);
	else
		r = user_inject(s, t, c->nr, c->arg, c->ret);
	end = user_inject_end(s);
	return r ? r : end;
}

int user_syscall(struct user_stream *s, pid_t tid, long nr,
		 const uint64_t arg[6], long *ret)
{
	struct call c = { .tid = tid, .nr = nr, .arg = arg, .ret = ret };
	int r = user_alive(s);

	return r ? r : user_trace(s, make_call, &c);
}

int user_syscall_mem(struct user_stream *s, pid_t tid, long nr,
		     const uint64_t arg[6], int at, void *buf, size_t len,
		     long *ret)
{
	struct call c = { tid, nr, arg, at, buf, len, ret };
	int r = user_alive(s);

	return r ? r : user_trace(s, make_call, &c);
}
