// SPDX-License-Identifier: GPL-2.0
/*
 * Streams on guests without the module: who may have one, and what a guest
 * notices of being stopped and asked
 */
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/user.h>

#include "useraccess/counting.h"

#define CYCLES		100
#define LATE_CYCLES	1500

/* -- who may */

static int attach_elsewhere(pid_t guest)
{
	struct guest *g;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid)
		_exit(-a->attach(&g, guest, VASI_SERVICE_TARGET, 77));
	must(waitpid(pid, &status, 0) == pid);
	return -WEXITSTATUS(status);
}

static void test_lock(void)
{
	const pid_t pid = start_guest(count);
	struct guest *g = attached(pid), *other;

	ok(a->attach(&other, pid, VASI_SERVICE_SOURCE, 78) == -EBUSY,
	   "a guest is in one stream at a time");
	ok(attach_elsewhere(pid) == -EBUSY, "whoever asks");
	must(!a->join(&other, g));
	a->close(g);
	ok(attach_elsewhere(pid) == -EBUSY, "until the last handle");
	a->close(other);
	ok(!attach_elsewhere(pid), "or the death of its holder");
	ok(!attach_elsewhere(pid), "both of which free it");
	end_guest(pid);
}

static void test_refused(void)
{
	struct guest *g;

	ok(a->attach(&g, getpid(), VASI_SERVICE_SOURCE, 1) == -EINVAL &&
	   a->attach(&g, 1, VASI_SERVICE_SOURCE, 1) == -EINVAL,
	   "the mover itself and the first process are refused");
	ok(a->attach(&g, 1 << 22, VASI_SERVICE_SOURCE, 1) == -ESRCH,
	   "one that is not there is told so");
	ok(a->attach(&g, getppid(), 3, 1) == -EOPNOTSUPP &&
	   a->attach(&g, getppid(), VASI_SERVICE_SOURCE, 0) == -EINVAL,
	   "nonsense is refused");
}

/* -- its end */

static void exec_soon(void)
{
	page->ready = 1;
	while (!page->go)
		;
	execl("/bin/sleep", "sleep", "100", NULL);
}

static bool hangs_up(struct guest *g)
{
	struct pollfd p = { .fd = a->pollfd(g) };

	return poll(&p, 1, DEADLINE_MS) == 1 && p.revents & POLLHUP;
}

static void test_exec(void)
{
	const pid_t pid = start_guest(exec_soon);
	struct guest *g = attached(pid);
	struct pollfd p = { .fd = a->pollfd(g) };
	size_t n;

	wait_ready();
	ok(!poll(&p, 1, 100), "nothing is told while all is well");
	page->go = 1;
	ok(hangs_up(g) && a->objects(g, NULL, 0, &n) == -ECANCELED,
	   "an exec ends the stream");
	ok(a->suspend(g, DEADLINE_MS, 0, NULL) == -ECANCELED,
	   "the new program is not suspended");
	a->close(g);
	end_guest(pid);
}

static void test_end(void)
{
	const pid_t pid = start_guest(count);
	struct guest *g = attached(pid);
	size_t n;

	kill(pid, SIGKILL);
	ok(hangs_up(g) && a->objects(g, NULL, 0, &n) == -ESRCH,
	   "so does the guest's end");
	a->close(g);
	end_guest(pid);
}

/* -- calls by the guest */

#define PATTERN 0x5a

/* keeps content where calls could leave something: below its stack pointer */
__attribute__((noinline))
static void watch_stack(void)
{
	volatile uint8_t *below = (uint8_t *)__builtin_frame_address(0) - 20000;
	long i;

	for (i = 0; i < 12000; i++)
		below[i] = PATTERN;
	page->ready = 1;
	for (;;) {
		for (i = 0; i < 12000; i++)
			if (below[i] != PATTERN)
				page->wrong = 1;
		page->rounds[0]++;
	}
}

static void test_calls(void)
{
	const pid_t pid = start_guest(watch_stack);
	struct guest *g = attached(pid);
	struct user_stream *s = user_of(g);
	uint64_t arg[6] = { 0 };
	struct timespec ts[8] = { 0 };
	long ret = 0;
	int i, good = 0;

	wait_ready();
	for (i = 0; i < CYCLES; i++)
		good += !user_syscall(s, 0, SYS_getpid, arg, &ret) &&
			ret == pid;
	ok(good == CYCLES, "a running guest makes calls");
	ok(!user_syscall_mem(s, 0, SYS_clock_gettime, arg, 1, ts, sizeof(ts),
			     &ret) && !ret && ts[0].tv_sec &&
	   !ts[1].tv_sec, "also with memory");
	ok(runs() && !page->wrong, "it keeps what is below its stack");
	ok(!a->suspend(g, DEADLINE_MS, 0, NULL) &&
	   !user_syscall(s, pid, SYS_gettid, arg, &ret) && ret == pid,
	   "a suspended one does as well");
	a->close(g);
	ok(runs() && !page->wrong, "and goes on behind the last close");
	end_guest(pid);
}

/* -- what a guest notices */

static void complain(const char *what, long a1)
{
	if (!page->wrong)
		snprintf(page->text, sizeof(page->text), "%s %ld", what, a1);
	page->wrong = 1;
}

static void *wait_for_nothing(void *arg)
{
	struct epoll_event ev;
	int fd = epoll_create1(0);
	long n;

	(void)arg;
	n = epoll_wait(fd, &ev, 1, -1);
	complain("epoll_wait", n < 0 ? errno : n);
	return NULL;
}

static void *sleep_often(void *arg)
{
	(void)arg;
	for (;;) {
		const int64_t begin = now_ns();
		struct timespec ts = { 0, 7000000 };

		if (nanosleep(&ts, NULL))
			complain("nanosleep", errno);
		if (now_ns() - begin < 7000000)
			complain("nanosleep is early by",
				 7000000 - (now_ns() - begin));
		page->rounds[1]++;
	}
	return NULL;
}

/* the same sum again and again, in vector registers */
static void *compute(void *arg)
{
	double want = 0;

	(void)arg;
	for (;;) {
		double sum[8] = { 0 };
		double all = 0;
		int i, j;

		for (i = 1; i < 2000; i++)
			for (j = 0; j < 8; j++)
				sum[j] += (i * (j + 1.5)) / (i * i + j);
		for (j = 0; j < 8; j++)
			all += sum[j];
		if (want != 0 && want != all)
			complain("sum", (long)((all - want) * 1e9));
		want = all;
		page->rounds[2]++;
	}
	return NULL;
}

static void on_alarm(int sig)
{
	(void)sig;
	page->alarms++;
}

/* signals are let in by the call alone */
static void *take_alarms(void *arg)
{
	sigset_t none;

	(void)arg;
	sigemptyset(&none);
	for (;;) {
		const int before = page->alarms;

		if (!ppoll(NULL, 0, NULL, &none))
			complain("ppoll", 0);
		if (page->alarms == before)
			complain("ppoll without a signal", errno);
		page->rounds[3]++;
	}
	return NULL;
}

static void sensitive(void)
{
	void *(*const body[])(void *) = {
		wait_for_nothing, sleep_often, compute, take_alarms,
	};
	struct itimerval it = { { 0, 3000 }, { 0, 3000 } };
	struct sigaction sa = { .sa_handler = on_alarm };
	sigset_t set;
	pthread_t t;
	size_t i;

	must(!sigaction(SIGALRM, &sa, NULL));
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < sizeof(body) / sizeof(body[0]); i++)
		must(!pthread_create(&t, NULL, body[i], NULL));
	must(!setitimer(ITIMER_REAL, &it, NULL));
	page->ready = 1;
	count();
}

static bool progress(void)
{
	long n[4];
	int i;

	for (i = 0; i < 4; i++)
		n[i] = page->rounds[i];
	for (i = 0; i < 4; i++)
		if (!wait_until(page->rounds[i] != n[i]))
			return false;
	return true;
}

static void test_unnoticed(void)
{
	const pid_t pid = start_guest(sensitive);
	struct guest *g = attached(pid);
	int i, good = 0, asked = 0;
	int64_t longest = 0;
	size_t len;
	void *buf;

	wait_ready();
	must(progress());
	for (i = 0; i < CYCLES; i++) {
		const int64_t begin = now_ns();

		if (a->suspend(g, DEADLINE_MS, 0, NULL))
			break;
		if (!a->state(g, &buf, &len)) {
			asked++;
			free(buf);
		}
		good += !a->resume(g);
		if (now_ns() - begin > longest)
			longest = now_ns() - begin;
		sleep_ms(2);
		/* and while it runs */
		if (!a->state(g, &buf, &len)) {
			asked++;
			free(buf);
		}
	}
	note("the longest of %d pauses: %.1f ms", CYCLES,
	     (double)longest / 1e6);
	ok(good == CYCLES && asked == 2 * CYCLES,
	   "%d suspends, each with a look at all of it", good);
	ok(progress(), "all threads go on");
	ok(!page->wrong, "none has noticed%s%s", page->wrong ? ": " : "",
	   page->text);
	a->close(g);
	end_guest(pid);
}

/* -- calls that restart */

static void sleep_long(void)
{
	struct timespec ts = { 600, 0 };

	page->ready = 1;
	syscall(SYS_nanosleep, &ts, NULL);
}

static void sleep_clock(void)
{
	struct timespec ts = { 600, 0 }, left;

	page->ready = 1;
	syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &ts, &left);
}

static void poll_long(void)
{
	page->ready = 1;
	poll(NULL, 0, 600000);
}

static void futex_long(void)
{
	struct timespec ts = { 600, 0 };
	int word = 0;

	page->ready = 1;
	syscall(SYS_futex, &word, 0, 0, &ts, NULL, 0);
}

static void test_restart(const char *name, void (*body)(void), uint32_t kind,
			 int clock)
{
	const pid_t pid = start_guest(body);
	struct guest *g = attached(pid);
	int i, good = 0;

	wait_ready();
	must(wait_until(thread_state(pid, pid) == 'S'));
	for (i = 0; i < 4; i++) {
		const struct vasi_rec_restart *r;
		const struct user_regs_struct *regs;
		size_t len;
		void *buf;

		must(!a->suspend(g, DEADLINE_MS, 0, NULL));
		must(!a->state(g, &buf, &len));
		r = find_record(buf, len, VASI_REC_RESTART, pid, -1, NULL);
		regs = find_record(buf, len, VASI_REC_REGSET, pid, 1, NULL);
		good += r && regs && (long)regs->rax == -516 &&
			r->kind == kind && r->clock == clock &&
			r->remaining_ns > 590 * NSEC &&
			r->remaining_ns <= 600 * NSEC;
		free(buf);
		must(!a->resume(g));
		/* asleep again, or still on its way */
		if (i % 2)
			must(wait_until(thread_state(pid, pid) == 'S'));
	}
	ok(good == 4, "%s is known for what it is, also when restarted: %d of 4",
	   name, good);
	a->close(g);
	end_guest(pid);
}

/* -- a thread that does not stop in time */

static int sleeping_child(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
	return 0;
}

static void wait_for_child(void)
{
	char *stack = malloc(65536);

	page->ready = 1;
	clone(sleeping_child, stack + 65536, CLONE_VFORK | SIGCHLD, NULL);
}

static bool is_traced(pid_t pid)
{
	char path[64], line[128];
	int tracer = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	must(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "TracerPid: %d", &tracer);
	fclose(f);
	return tracer;
}

/* of a tracer that did not wait for its end one in some hundred is seen */
static void test_late(void)
{
	const pid_t pid = start_guest(wait_for_child);
	struct guest *g = attached(pid);
	struct guest_holdup holdup;
	int i, good = 0;

	wait_ready();
	must(wait_until(thread_state(pid, pid) == 'D'));
	for (i = 0; i < LATE_CYCLES; i++)
		good += a->suspend(g, 1, 0, &holdup) == -ETIMEDOUT &&
			holdup.reason == VASI_HOLDUP_VFORK && !is_traced(pid);
	ok(good == LATE_CYCLES,
	   "one that was late is not traced any more: %d of %d", good,
	   LATE_CYCLES);
	a->close(g);
	end_guest(pid);
}

int main(void)
{
	const int skip = counting_begin();

	if (skip)
		return skip;
	test_lock();
	test_refused();
	test_exec();
	test_end();
	test_calls();
	test_unnoticed();
	test_restart("nanosleep", sleep_long, VASI_RESTART_NANOSLEEP,
		     CLOCK_MONOTONIC);
	test_restart("clock_nanosleep", sleep_clock, VASI_RESTART_NANOSLEEP,
		     CLOCK_BOOTTIME);
	test_restart("poll", poll_long, VASI_RESTART_POLL, CLOCK_MONOTONIC);
	test_restart("futex", futex_long, VASI_RESTART_FUTEX, CLOCK_MONOTONIC);
	test_late();
	return tap_end();
}
