// SPDX-License-Identifier: GPL-2.0
/*
 * System calls that a stopped thread of the source makes for us
 *
 * Nothing is put into the guest for it: the syscall instruction is one that it
 * has, the vDSO's.
 * The call runs between two stops, the second of which is again one where the
 * thread would take a signal. There its registers are put back, so that what
 * the kernel had still to decide about an interrupted call is decided as if
 * nothing had been. No trap is taken: a breakpoint or a single step would send
 * SIGTRAP by force, which resets a disposition that ignores it.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/maps.h"
#include "state/procfile.h"

#define CALL_MS		5000
#define STOP_MS		200
#define CHUNK		(256UL << 10)
/* clear of the red zone, and of what a signal frame would need */
#define SCRATCH_BELOW	16384
#define MAX_ARGS	6

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

/*
 * In the vDSO, where it does not change. A guest that was moved from a host
 * with another kernel has none: then in any code.
 */
static int find_call(struct user_stream *s)
{
	_cleanup_free_ uint8_t *code = NULL;
	struct map_text t;
	char *text;
	size_t i;
	int r, pass;

	if (is_call(s, s->call_at))
		return 0;
	s->call_at = 0;
	code = malloc(CHUNK);
	if (!code)
		return -ENOMEM;
	r = procfile_read(s->proc, "maps", &text, NULL);
	if (!r)
		r = map_text_parse(&t, text);
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

/* to the entry of the call; job control may stop it on the way */
static int to_entry(pid_t tid, int64_t deadline)
{
	int status, r;

	do {
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0))
			return -errno;
		r = user_wait(tid, deadline, &status);
		if (r)
			return r;
	} while (status >> 16 == PTRACE_EVENT_STOP);
	return WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : -EPROTO;
}

/* through it, to a stop like the one it came from */
static int to_stop(pid_t tid, int64_t deadline)
{
	int status, r;

	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) ||
	    ptrace(PTRACE_CONT, tid, 0, 0))
		return -errno;
	r = user_wait(tid, deadline, &status);
	if (r)
		return r;
	return status >> 16 == PTRACE_EVENT_STOP ? 0 : -EPROTO;
}

static int block(struct user_thread *t)
{
	uint64_t all = ~0ULL;

	if (t->blocked)
		return 0;
	if (ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(all), &all))
		return -errno;
	t->blocked = true;
	return 0;
}

void user_inject_end(struct user_thread *t)
{
	if (t->blocked)
		ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(t->mask), &t->mask);
	t->blocked = false;
}

int user_inject(struct user_stream *s, struct user_thread *t, long nr,
		const uint64_t arg[6], long *ret)
{
	const int64_t deadline = deadline_in(CALL_MS);
	struct user_regs_struct regs = t->regs;
	int r;

	if (t->stopped)
		return -EBUSY;
	r = find_call(s);
	if (!r)
		r = block(t);
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
	if (ptrace(PTRACE_SETREGS, t->tid, 0, &regs))
		return -errno;
	r = to_entry(t->tid, deadline);
	if (!r)
		r = to_stop(t->tid, deadline);
	if (!r && ptrace(PTRACE_GETREGS, t->tid, 0, &regs))
		r = -errno;
	if (ptrace(PTRACE_SETREGS, t->tid, 0, &t->regs) && !r)
		r = -errno;
	*ret = (long)regs.rax;
	return r;
}

int user_inject_mem(struct user_stream *s, struct user_thread *t, long nr,
		    const uint64_t arg[6], int at, void *buf, size_t len,
		    long *ret)
{
	const uint64_t scratch = (t->regs.rsp - SCRATCH_BELOW) & ~63ULL;
	uint8_t saved[USER_SCRATCH_BYTES];
	uint64_t args[MAX_ARGS];
	int r;

	if (len > sizeof(saved))
		return -EINVAL;
	memcpy(args, arg, sizeof(args));
	args[at] = scratch;
	if (pread(s->mem, saved, len, (off_t)scratch) != (ssize_t)len ||
	    pwrite(s->mem, buf, len, (off_t)scratch) != (ssize_t)len)
		return -EFAULT;
	r = user_inject(s, t, nr, args, ret);
	if (pread(s->mem, buf, len, (off_t)scratch) != (ssize_t)len ||
	    pwrite(s->mem, saved, len, (off_t)scratch) != (ssize_t)len)
		return r ? r : -EFAULT;
	return r;
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
	for (i = 0; i < s->nr_threads; i++) {
		*ret = &s->threads[i];
		if (tid ? s->threads[i].tid == tid : !s->threads[i].stopped)
			return 0;
	}
	return tid ? -ESRCH : -EBUSY;
}

static int make_call(struct user_stream *s, void *arg)
{
	struct call *c = arg;
	struct user_thread *t;
	int r = some_thread(s, c->tid, &t);

	if (r)
		return r;
	if (c->buf)
		r = user_inject_mem(s, t, c->nr, c->arg, c->at, c->buf, c->len,
				    c->ret);
	else
		r = user_inject(s, t, c->nr, c->arg, c->ret);
	user_inject_end(t);
	return r;
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
