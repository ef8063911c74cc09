// SPDX-License-Identifier: GPL-2.0
/*
 * Sleeps, timeouts and timers. None may end early, none may fail with EINTR;
 * how late they end is recorded for the ticker only, and judged by nobody.
 */
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <linux/futex.h>

#include "check.h"

#define ALARM_NS (25 * NSEC_PER_MSEC)

static void not_early(struct worker *w, const char *call, uint64_t until)
{
	uint64_t end = checked_now(w);

	if (end < until)
		fail(w, "%s ended %llu ns early", call,
		     (unsigned long long)(until - end));
}

/* ---- the gap that a user of this guest would see ---- */

void ticker_run(struct worker *w)
{
	uint64_t last = checked_now(w), now;

	while (tick(w)) {
		pace(w, NSEC_PER_MSEC);
		now = checked_now(w);
		note_gap(last, now - last);
		last = now;
	}
}

/* ---- sleeps: relative with and without remainder, absolute ---- */

void sleep_run(struct worker *w)
{
	struct timespec ts, rem;
	uint64_t ns, until;
	int r;

	while (tick(w)) {
		ns = (1 + prng_next(&w->prng) % 700) * NSEC_PER_MSEC;
		until = checked_now(w) + ns;
		ts = ns_to_ts(ns);
		switch (prng_next(&w->prng) % 4) {
		case 0:
			if (nanosleep(&ts, &rem) < 0)
				fail_call(w, "nanosleep");
			else
				not_early(w, "nanosleep", until);
			break;
		case 1:
			r = clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &rem);
			errno = r;
			if (r)
				fail_call(w, "clock_nanosleep");
			else
				not_early(w, "clock_nanosleep", until);
			break;
		case 2:
			ts = ns_to_ts(until);
			r = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts,
					    NULL);
			errno = r;
			if (r)
				fail_call(w, "clock_nanosleep");
			else
				not_early(w, "absolute clock_nanosleep", until);
			break;
		default:
			if (usleep((useconds_t)(ns / NSEC_PER_USEC)) < 0)
				fail_call(w, "usleep");
			else
				not_early(w, "usleep", until);
		}
	}
}

/* ---- every call that takes a timeout; nothing ever happens but the time ---- */

static int wait_poll(const struct timespec *ts, uint64_t until)
{
	(void)until;
	return poll(NULL, 0, (int)(ts_to_ns(ts) / NSEC_PER_MSEC));
}

static int wait_ppoll(const struct timespec *ts, uint64_t until)
{
	(void)until;
	return ppoll(NULL, 0, ts, NULL);
}

static int wait_select(const struct timespec *ts, uint64_t until)
{
	struct timeval tv = { ts->tv_sec, ts->tv_nsec / 1000 };

	(void)until;
	return select(0, NULL, NULL, NULL, &tv);
}

static int wait_pselect(const struct timespec *ts, uint64_t until)
{
	(void)until;
	return pselect(0, NULL, NULL, NULL, ts, NULL);
}

/* these report the end of their time as an error: turned into 0 */
static int expect_errno(long r, int err)
{
	if (r < 0 && errno == err)
		return 0;
	return r < 0 ? -1 : 1;
}

static int wait_futex(const struct timespec *ts, uint64_t until)
{
	static uint32_t word;

	(void)until;
	return expect_errno(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, ts,
				    NULL, 0), ETIMEDOUT);
}

static int wait_futex_abs(const struct timespec *ts, uint64_t until)
{
	static uint32_t word;
	struct timespec abs = ns_to_ts(until);

	(void)ts;
	return expect_errno(syscall(SYS_futex, &word,
				    FUTEX_WAIT_BITSET_PRIVATE, 0, &abs, NULL,
				    FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
}

static int wait_sem(const struct timespec *ts, uint64_t until)
{
	struct timespec abs = ns_to_ts(until);
	sem_t sem;

	(void)ts;
	sem_init(&sem, 0, 0);
	return expect_errno(sem_clockwait(&sem, CLOCK_MONOTONIC, &abs),
			    ETIMEDOUT);
}

static int wait_sigtimedwait(const struct timespec *ts, uint64_t until)
{
	sigset_t set;

	(void)until;
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	return expect_errno(sigtimedwait(&set, NULL, ts), EAGAIN);
}

static int timeout_epoll_fd = -1;

static int wait_epoll(const struct timespec *ts, uint64_t until)
{
	struct epoll_event ev;

	(void)until;
	return epoll_wait(timeout_epoll_fd, &ev, 1,
			  (int)(ts_to_ns(ts) / NSEC_PER_MSEC));
}

static const struct {
	const char *call;
	int (*wait)(const struct timespec *ts, uint64_t until);
} timeouts[] = {
	{ "poll", wait_poll },
	{ "ppoll", wait_ppoll },
	{ "select", wait_select },
	{ "pselect", wait_pselect },
	{ "futex", wait_futex },
	{ "absolute futex", wait_futex_abs },
	{ "sem_clockwait", wait_sem },
	{ "sigtimedwait", wait_sigtimedwait },
	{ "epoll_wait", wait_epoll },
};

int timeouts_setup(void)
{
	timeout_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return timeout_epoll_fd < 0 ? -errno : keep_fd(timeout_epoll_fd);
}

void timeouts_run(struct worker *w)
{
	while (tick(w)) {
		unsigned int i = (unsigned int)(prng_next(&w->prng) %
						ARRAY_SIZE(timeouts));
		uint64_t ns = (1 + prng_next(&w->prng) % 900) * NSEC_PER_MSEC;
		struct timespec ts = ns_to_ts(ns);
		uint64_t until = checked_now(w) + ns;
		int r = timeouts[i].wait(&ts, until);

		if (r < 0)
			fail_call(w, timeouts[i].call);
		else if (r > 0)
			fail(w, "%s: something happened", timeouts[i].call);
		else
			not_early(w, timeouts[i].call, until);
	}
}

/* ---- ITIMER_REAL, its handler on an alternate stack ---- */

static unsigned char *alt_stack;
static size_t alt_stack_size;
static _Atomic uint64_t alarms, wrong_stack, wrong_info;

static void on_alarm(int sig, siginfo_t *info, void *context)
{
	unsigned char here;

	(void)context;
	if (&here < alt_stack || &here >= alt_stack + alt_stack_size)
		atomic_fetch_add(&wrong_stack, 1);
	if (sig != SIGALRM || info->si_signo != SIGALRM ||
	    info->si_code != SI_KERNEL)
		atomic_fetch_add(&wrong_info, 1);
	atomic_fetch_add(&alarms, 1);
}

static int itimer_start(void)
{
	struct itimerval it = {
		.it_value.tv_usec = ALARM_NS / NSEC_PER_USEC,
		.it_interval.tv_usec = ALARM_NS / NSEC_PER_USEC,
	};
	stack_t ss = { 0 };
	sigset_t set;

	alt_stack_size = 65536;
	alt_stack = malloc(alt_stack_size);
	if (!alt_stack)
		return -ENOMEM;
	ss.ss_sp = alt_stack;
	ss.ss_size = alt_stack_size;
	if (sigaltstack(&ss, NULL) < 0)
		return -errno;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return setitimer(ITIMER_REAL, &it, NULL) < 0 ? -errno : 0;
}

int itimer_setup(void)
{
	struct sigaction sa = {
		.sa_sigaction = on_alarm,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART,
	};

	sigemptyset(&sa.sa_mask);
	return sigaction(SIGALRM, &sa, NULL) < 0 ? -errno : 0;
}

/*
 * The loops of this thread are alarms: when they end, it stalls and is found.
 * A general register carries a sum across the handler's frames.
 */
void itimer_run(struct worker *w)
{
	uint64_t started = checked_now(w), seen = 0, n, possible, sum, i;
	struct itimerval it;
	int r;

	r = itimer_start();
	if (r < 0) {
		fail(w, "setitimer: %s", strerrorname_np(-r));
		return;
	}
	for (;;) {
		for (sum = 0, i = 1; i <= 20000; i++) {
			sum += i;
			asm volatile("" : "+r"(sum));
		}
		if (sum != 20000ULL * 20001 / 2)
			fail(w, "a sum over signals came out as %llu",
			     (unsigned long long)sum);

		n = atomic_load(&alarms);
		possible = (checked_now(w) - started) / ALARM_NS;
		if (n > possible + 2)
			fail(w, "%llu alarms where %llu are possible",
			     (unsigned long long)n,
			     (unsigned long long)possible);
		if (atomic_exchange(&wrong_stack, 0))
			fail(w, "handler ran off its alternate stack");
		if (atomic_exchange(&wrong_info, 0))
			fail(w, "handler got a wrong siginfo");
		if (getitimer(ITIMER_REAL, &it) < 0)
			fail_call(w, "getitimer");
		else if (it.it_interval.tv_usec != ALARM_NS / NSEC_PER_USEC)
			fail(w, "the interval timer's interval changed");
		if (n != seen) {
			seen = n;
			tick(w);
		}
		/* here, and only here, a handler may interrupt */
		r = poll(NULL, 0, 5);
		if (r < 0 && errno != EINTR)
			fail_call(w, "poll");
	}
}
