// SPDX-License-Identifier: GPL-2.0
/*
 * How the tracer stops the guest's threads
 *
 * A thread is stopped where it would take a signal: it sleeps in no call any
 * more, and what becomes of an interrupted one is decided by the kernel when
 * the thread goes on. So its registers are left as they are, with two
 * exceptions: calls that have failed with EINTR for the stop alone are made to
 * restart, and a restartable sequence is given up, since a thread that makes
 * calls leaves it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/procfile.h"
#include "state/regs.h"

/* most stops come at once: they are waited for without sleeping, others not */
#define YIELDS		64
#define POLLS_DEAD	16
#define POLL_FIRST_NS	10000
#define POLL_MAX_NS	1000000
#define PASSES_LATE	3
#define SYSCALL_BYTES	2
#define CALLS_MAX	16384

/* -- one stop */

int user_wait(pid_t tid, int64_t deadline, int *ret_status)
{
	struct timespec pause = { 0, POLL_FIRST_NS };
	unsigned int yields = 0;

	for (;;) {
		pid_t got = waitpid(tid, ret_status,
				    __WALL | __WNOTHREAD | WNOHANG);

		if (got == tid)
			return WIFSTOPPED(*ret_status) ? 0 : -ESRCH;
		if (got < 0 && errno != EINTR)
			return -ESRCH;
		if (yields++ < YIELDS) {
			sched_yield();
			continue;
		}
		if (now_ns() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < POLL_MAX_NS)
			pause.tv_nsec *= 2;
	}
}

static int thread_file(const struct user_stream *s, pid_t tid,
		       const char *name, char **ret)
{
	char path[64];

	snprintf(path, sizeof(path), "task/%d/%s", tid, name);
	return procfile_read(s->proc, path, ret, NULL);
}

static uint64_t hex_field(const char *text, const char *key)
{
	const char *f = procfile_field(text, key);

	return f ? strtoull(f, NULL, 16) : 0;
}

/* the last of the numbers in the line */
static int32_t inner_tid(const char *status)
{
	const char *f = procfile_field(status, "NSpid"), *end;

	if (!f)
		return 0;
	end = strchrnul(f, '\n');
	while (end > f && end[-1] != '\t' && end[-1] != ' ')
		end--;
	return atoi(end);
}

static bool is_socket(const struct user_stream *s, uint64_t fd)
{
	char path[32], to[16];
	ssize_t n;

	snprintf(path, sizeof(path), "fd/%d", (int)fd);
	n = readlinkat(s->proc, path, to, sizeof(to));
	return n > 7 && !memcmp(to, "socket:", 7);
}

/*
 * Calls that give up with EINTR for every interruption, although nothing has
 * happened yet. (Sockets with a timeout are the reason for all that read and
 * write.)
 */
static bool may_restart(const struct user_stream *s,
			const struct user_regs_struct *regs)
{
	switch (regs->orig_rax) {
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
	case __NR_preadv2:
	case __NR_pwritev2:
	case __NR_sendfile:
		return is_socket(s, regs->rdi);
	case __NR_splice:
		return is_socket(s, regs->rdi) || is_socket(s, regs->rdx);
	default:
		return false;
	}
}

/*
 * EINTR that was meant for the stop alone becomes the code that restarts the
 * call, or still gives EINTR if a signal handler comes to run. A call with a
 * signal mask of its own is restarted even so: that mask is lost when the
 * thread makes calls, and is back, with the signal, when it is made again.
 *
 * Signals without a handler do not count: those that are ignored are pending
 * for a thread that is traced, and for no other one.
 */
static void fix_eintr(const struct user_stream *s, struct user_thread *t,
		      const char *status)
{
	const uint64_t blocked = hex_field(status, "SigBlk");
	const uint64_t pending = (hex_field(status, "SigPnd") |
				  hex_field(status, "ShdPnd")) &
				 hex_field(status, "SigCgt");

	if ((long)t->regs.orig_rax < 0 || (long)t->regs.rax != -EINTR ||
	    (pending & ~blocked && blocked == t->mask) ||
	    !may_restart(s, &t->regs))
		return;
	t->regs.rax = (unsigned long)-ERESTARTNOHAND;
	t->fixup = true;
}

static bool guest_bytes(const struct user_stream *s, uint64_t at, void *to,
			size_t len)
{
	return pread(s->mem, to, len, (off_t)at) == (ssize_t)len;
}

/* as the kernel would have done when the thread was scheduled there */
static void leave_rseq(const struct user_stream *s, struct user_thread *t)
{
	struct { uint32_t version, flags; uint64_t start, len, abort; } cs;
	struct __ptrace_rseq_configuration c = { 0 };
	uint64_t at;

	if ((long)t->regs.orig_rax >= 0 ||
	    ptrace(PTRACE_GET_RSEQ_CONFIGURATION, t->tid, sizeof(c), &c) < 0 ||
	    !c.rseq_abi_pointer ||
	    !guest_bytes(s, c.rseq_abi_pointer + 8, &at, sizeof(at)) ||
	    !at || !guest_bytes(s, at, &cs, sizeof(cs)) ||
	    t->regs.rip - cs.start >= cs.len)
		return;
	t->regs.rip = cs.abort;
	t->rseq_abort = true;
}

static struct user_call *call_of(struct user_stream *s, pid_t tid)
{
	struct user_call *c;
	size_t i;

	for (i = 0; i < s->nr_calls; i++)
		if (s->calls[i].tid == tid)
			return &s->calls[i];
	/* of threads that are long gone, most of them */
	if (s->nr_calls == CALLS_MAX)
		s->nr_calls = 0;
	c = reallocarray(s->calls, s->nr_calls + 1, sizeof(*c));
	if (!c)
		return NULL;
	s->calls = c;
	c[s->nr_calls] = (struct user_call){ .tid = tid };
	return &c[s->nr_calls++];
}

/*
 * A thread that was let go is stopped again before it sleeps, or before it has
 * even come to restart_syscall(): then nothing shows what it was in, but it was
 * seen before.
 */
static void recall_call(struct user_stream *s, struct user_thread *t)
{
	const struct user_regs_struct *r = &t->regs;
	const bool on_its_way = r->rax == __NR_restart_syscall;
	const bool interrupted = (long)r->rax == -ERESTART_RESTARTBLOCK &&
				 (long)r->orig_rax >= 0;
	const uint64_t rip = r->rip + (on_its_way ? SYSCALL_BYTES : 0);
	struct user_call *c;

	if (!interrupted && !on_its_way)
		return;
	c = call_of(s, t->tid);
	if (!c)
		return;
	if (interrupted && r->orig_rax != __NR_restart_syscall)
		t->restarted = (int)r->orig_rax;
	if (t->restarted > 0)
		*c = (struct user_call){ t->tid, t->restarted, rip };
	else if (c->rip == rip && c->nr)
		t->restarted = c->nr;
}

static struct user_thread *thread_of(struct user_stream *s, pid_t tid)
{
	for (size_t i = 0; i < s->nr_threads; i++)
		if (s->threads[i].tid == tid)
			return &s->threads[i];
	return NULL;
}

/* a thread that has come to its stop */
static int look_at(struct user_stream *s, struct user_thread *t)
{
	_cleanup_free_ char *status = NULL;
	int r = thread_file(s, t->tid, "status", &status);

	if (r)
		return r;
	if (ptrace(PTRACE_GETREGS, t->tid, 0, &t->regs) ||
	    ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(t->mask), &t->mask))
		return -errno;
	t->inner = inner_tid(status);
	t->mute = user_is_mute(s, t, status);
	fix_eintr(s, t, status);
	leave_rseq(s, t);
	recall_call(s, t);
	if ((t->fixup || t->rseq_abort) &&
	    ptrace(PTRACE_SETREGS, t->tid, 0, &t->regs))
		return -errno;
	return 0;
}

/*
 * A call that was interrupted once is restart_syscall() from then on, whatever
 * it was. While the thread sleeps in it the kernel's stack shows what that is,
 * but for a plain sleep: that is among the scheduler's functions, which are
 * not shown.
 */
static int restarted_call(const struct user_stream *s, pid_t tid)
{
	_cleanup_free_ char *call = NULL, *stack = NULL;

	if (thread_file(s, tid, "syscall", &call) ||
	    atoi(call) != __NR_restart_syscall)
		return 0;
	if (thread_file(s, tid, "stack", &stack) || !*stack ||
	    strstr(stack, "cpu_n"))
		return -1;
	if (strstr(stack, "poll"))
		return __NR_poll;
	if (strstr(stack, "futex"))
		return __NR_futex;
	return __NR_nanosleep;
}

static int seize(struct user_stream *s, pid_t tid)
{
	const int restarted = restarted_call(s, tid);
	struct user_thread *t;

	if (s->nr_threads == s->max_threads) {
		size_t max = s->max_threads ? 2 * s->max_threads : 16;

		t = reallocarray(s->threads, max, sizeof(*t));
		if (!t)
			return -ENOMEM;
		s->threads = t;
		s->max_threads = max;
	}
	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD))
		return -errno;
	s->threads[s->nr_threads++] = (struct user_thread){
		.tid = tid, .restarted = restarted,
	};
	return ptrace(PTRACE_INTERRUPT, tid, 0, 0) ? -errno : 0;
}

/* one has told something; @t->held when it is what was waited for */
static int take(struct user_stream *s, struct user_thread *t, int status)
{
	/* a signal on its way goes on, the stop comes behind it */
	if (status >> 16 != PTRACE_EVENT_STOP)
		return ptrace(PTRACE_CONT, t->tid, 0, WSTOPSIG(status)) ?
		       -errno : 0;
	t->held = true;
	t->stopped = WSTOPSIG(status) != SIGTRAP;
	return look_at(s, t);
}

static bool has_ended(const struct user_stream *s, pid_t tid)
{
	_cleanup_free_ char *status = NULL;
	const char *f;

	if (thread_file(s, tid, "status", &status))
		return true;
	f = procfile_field(status, "State");
	return !f || *f == 'Z' || *f == 'X';
}

/*
 * One that is held tells of nothing but its end: the guest is killed, or another
 * thread, which did not stop yet, is in an exec and waits until we have seen
 * it. Then the first thread's number is that thread's, which stops later. 1: it
 * has ended.
 */
static int look_again(const struct user_stream *s, const struct user_thread *t)
{
	const bool first = t->tid == s->pid;
	siginfo_t info = {};

	/* the end of the first one is for its parent to see */
	if (waitid(P_PID, (id_t)t->tid, &info, WSTOPPED | WNOHANG | __WALL |
		   __WNOTHREAD | (first ? 0 : WEXITED)))
		return !first;
	if (!info.si_pid)
		return 0;
	return info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED ?
	       -ECANCELED : 1;
}

/*
 * Looks at all that have not stopped yet; returns one of them, 0 = there is
 * none, or -errno. The first thread tells of its end only when all others are
 * gone (@dead: look for it, and for that of threads that are held: @ret_lost).
 */
static pid_t poll_stops(struct user_stream *s, bool dead, bool *ret_lost)
{
	pid_t late = 0;
	size_t i;

	for (i = 0; i < s->nr_threads; i++) {
		struct user_thread *t = &s->threads[i];
		int status, r;
		pid_t got;

		if (t->held) {
			r = dead ? look_again(s, t) : 0;
			if (r < 0)
				return r;
			if (r) {
				*ret_lost = true;
				s->threads[i--] = s->threads[--s->nr_threads];
			}
			continue;
		}
		got = waitpid(t->tid, &status, __WALL | __WNOTHREAD | WNOHANG);
		if (!got && !(dead && t->tid == s->pid &&
			      has_ended(s, t->tid))) {
			late = t->tid;
			continue;
		}
		if (got <= 0 || !WIFSTOPPED(status)) {
			s->threads[i--] = s->threads[--s->nr_threads];
			continue;
		}
		r = take(s, t, status);
		if (r == -ESRCH)
			r = 0;	/* killed: its end is still to be told */
		if (r)
			return r;
		if (!t->held)
			late = t->tid;
	}
	return late;
}

/*
 * All that are seized; -ETIMEDOUT and @ret_late. A thread that calls exec may
 * come to no stop at all, and one that was lost to it is the sign of an exec, or
 * a kill, that goes on.
 */
static int await(struct user_stream *s, int64_t deadline, pid_t *ret_late)
{
	struct timespec pause = { 0, POLL_FIRST_NS };
	unsigned int tries;
	bool lost = false;

	for (tries = 0;; tries++) {
		const bool dead = tries % POLLS_DEAD == POLLS_DEAD - 1;
		const pid_t late = poll_stops(s, dead, &lost);
		const int r = dead ? user_alive(s) : 0;

		if (r)
			return r;
		if (late < 0 || (!late && !lost))
			return late;
		*ret_late = late;
		if (tries < YIELDS) {
			sched_yield();
			continue;
		}
		if (now_ns() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < POLL_MAX_NS)
			pause.tv_nsec *= 2;
	}
}

/* -- all of them */

static void name_culprit(const struct user_stream *s, pid_t tid,
			 uint32_t reason, struct guest_holdup *ret)
{
	_cleanup_free_ char *status = NULL, *call = NULL;
	const char *f;
	long nr = -1;

	if (!ret)
		return;
	*ret = (struct guest_holdup){ .tid = tid, .reason = reason };
	if (thread_file(s, tid, "status", &status))
		return;
	f = procfile_field(status, "Name");
	if (f)
		snprintf(ret->comm, sizeof(ret->comm), "%.*s",
			 (int)strcspn(f, "\n"), f);
	f = procfile_field(status, "TracerPid");
	if (f && atoi(f) && atoi(f) != gettid()) {
		ret->reason = VASI_HOLDUP_STOPPED;
		return;
	}
	f = procfile_field(status, "State");
	if (!f || *f != 'D')
		return;
	ret->reason = VASI_HOLDUP_UNINTERRUPTIBLE;
	/* what waits for a vforked child is a call that makes processes */
	if (!thread_file(s, tid, "syscall", &call))
		nr = atol(call);
	if (nr == __NR_vfork || nr == __NR_clone || nr == __NR_clone3)
		ret->reason = VASI_HOLDUP_VFORK;
}

/* seizes the threads that are new; returns how many came or went */
static int seize_new(struct user_stream *s, unsigned int *ret_dead,
		     pid_t *ret_tid)
{
	_cleanup_closedir_ DIR *dir = NULL;
	const struct dirent *e;
	int fd, news = 0;

	*ret_dead = 0;
	fd = openat(s->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(dir))) {
		const pid_t tid = atoi(e->d_name);
		int r;

		if (*e->d_name == '.' || thread_of(s, tid))
			continue;
		r = seize(s, tid);
		if (!r) {
			news++;
		} else if (r == -ESRCH || (r == -EPERM && has_ended(s, tid))) {
			/*
			 * The first thread stays when it has ended. Any other
			 * may stand for one that is not in the list.
			 */
			if (tid == s->pid)
				*ret_dead = 1;
			else
				news++;
		} else {
			*ret_tid = tid;
			return r;
		}
	}
	return news;
}

/*
 * The list of threads is made while they come and go, and may lack some. Their
 * number is counted otherwise.
 */
static bool is_all(const struct user_stream *s, unsigned int dead)
{
	_cleanup_free_ char *status = NULL;
	const char *f;

	if (procfile_read(s->proc, "status", &status, NULL))
		return true;
	f = procfile_field(status, "Threads");
	return !f || strtoul(f, NULL, 10) <= s->nr_threads + dead;
}

int user_stop(struct user_stream *s, pid_t tid, int64_t deadline,
	      struct guest_holdup *ret_holdup)
{
	unsigned int pass = 0, dead = 0;
	pid_t culprit = tid;
	int news, r;

	/* its threads would stop, but never come to a call, or back from one */
	if (user_is_frozen(s)) {
		name_culprit(s, tid ? tid : s->pid, VASI_HOLDUP_STOPPED,
			     ret_holdup);
		return -ETIMEDOUT;
	}
	do {
		if (tid) {
			news = 0;
			r = seize(s, tid);
			if (r == -EPERM && has_ended(s, tid))
				r = -ESRCH;
		} else {
			pass++;
			news = seize_new(s, &dead, &culprit);
			r = news < 0 ? news : 0;
		}
		if (!r)
			r = await(s, deadline, &culprit);
		if (!r && !tid && !news && is_all(s, dead))
			break;
		if (!r && !tid && now_ns() >= deadline)
			r = -ETIMEDOUT;
	} while (!r && !tid);
	if (!r && !s->nr_threads)
		r = -ESRCH;
	if (r == -EPERM || r == -ETIMEDOUT)
		name_culprit(s, culprit, pass > PASSES_LATE ?
			     VASI_HOLDUP_STORM : VASI_HOLDUP_RUNNING,
			     ret_holdup);
	return r;
}
