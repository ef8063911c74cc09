// SPDX-License-Identifier: GPL-2.0
/*
 * One thread in each kind of call that blocks without a time limit. A waker
 * goes round, wakes one after the other with a number, and waits until it has
 * been taken: a call that returns without it, or never, is an error.
 */
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <linux/futex.h>

#include "check.h"

#define WAKE_SIGNAL (SIGRTMIN + 4)

enum { READ_PIPE, READ_EVENTFD, POLL, PPOLL, SELECT, PSELECT, EPOLL_WAIT, FUTEX,
       SIGWAIT, COND, PAUSE, KINDS };

static const char *const names[KINDS] = {
	"read-pipe", "read-eventfd", "poll", "ppoll", "select", "pselect",
	"epoll_wait", "futex", "sigtimedwait", "cond_wait", "pause"
};

static struct {
	/* a pipe, or an eventfd in fd[0] and fd[1] alike */
	int fd[2];
	_Atomic uint64_t sent, taken;
} kinds[KINDS];

static int epoll_fd = -1;
static _Atomic uint32_t futex_word;
static pthread_mutex_t cond_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static uint64_t cond_value;

unsigned int blocked_kinds(void)
{
	return KINDS;
}

const char *blocked_kind_name(unsigned int kind)
{
	return names[kind];
}

int blocked_setup(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = EPOLL_WAIT };
	unsigned int i;
	int r;

	for (i = 0; i <= EPOLL_WAIT; i++) {
		if (i == READ_EVENTFD) {
			r = eventfd(0, EFD_CLOEXEC);
			kinds[i].fd[0] = kinds[i].fd[1] = r;
		} else {
			r = pipe2(kinds[i].fd, O_CLOEXEC);
		}
		if (r < 0)
			return -errno;
		r = keep_fd(kinds[i].fd[0]);
		if (!r && i != READ_EVENTFD)
			r = keep_fd(kinds[i].fd[1]);
		if (r < 0)
			return r;
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		return -errno;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, kinds[EPOLL_WAIT].fd[0], &ev) < 0)
		return -errno;
	return keep_fd(epoll_fd);
}

static void take_number(struct worker *w, unsigned int kind, uint64_t expected)
{
	uint64_t n;

	if (read(kinds[kind].fd[0], &n, sizeof(n)) != sizeof(n))
		fail_call(w, "read");
	else if (n != expected)
		fail(w, "woken with %llu, expected %llu", (unsigned long long)n,
		     (unsigned long long)expected);
}

/* 1: woken; 0: not woken, try again; <0: failed with errno set */
static int wait_once(unsigned int kind, uint64_t expected)
{
	int fd = kinds[kind].fd[0];
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	struct epoll_event ev = { 0 };
	siginfo_t info;
	sigset_t set;
	fd_set fds;

	switch (kind) {
	case POLL:
		return poll(&pfd, 1, -1);
	case PPOLL:
		return ppoll(&pfd, 1, NULL, NULL);
	case SELECT:
		FD_ZERO(&fds);
		FD_SET(fd, &fds);
		return select(fd + 1, &fds, NULL, NULL, NULL);
	case PSELECT:
		FD_ZERO(&fds);
		FD_SET(fd, &fds);
		return pselect(fd + 1, &fds, NULL, NULL, NULL, NULL);
	case EPOLL_WAIT:
		return epoll_wait(epoll_fd, &ev, 1, -1) < 0 ? -1 :
		       ev.data.u64 == EPOLL_WAIT;
	case FUTEX:
		if (syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE,
			    (uint32_t)(expected - 1), NULL, NULL, 0) < 0 &&
		    errno != EAGAIN)
			return -1;
		/* futex(2) allows a wake-up that nobody sent */
		return atomic_load(&futex_word) == (uint32_t)expected;
	case SIGWAIT:
		sigemptyset(&set);
		sigaddset(&set, WAKE_SIGNAL);
		if (sigtimedwait(&set, &info, NULL) < 0)
			return -1;
		return info.si_code == SI_QUEUE && info.si_pid == getpid() &&
		       (uint32_t)info.si_value.sival_int == (uint32_t)expected;
	case COND:
		pthread_mutex_lock(&cond_lock);
		while (cond_value != expected)
			pthread_cond_wait(&cond, &cond_lock);
		pthread_mutex_unlock(&cond_lock);
		return 1;
	default:
		return 1;
	}
}

static const char *call_name(unsigned int kind)
{
	return kind == READ_PIPE || kind == READ_EVENTFD ? "read" : names[kind];
}

void blocked_wait(struct worker *w)
{
	unsigned int kind = w->check->arg;
	uint64_t expected = 1;
	int r;

	while (kind == PAUSE) {
		pause();
		fail(w, "pause() returned, and no signal has a handler here");
	}

	while (tick(w)) {
		do {
			r = wait_once(kind, expected);
			if (r < 0)
				fail_call(w, call_name(kind));
			else if (r == 0 && kind != FUTEX)
				fail(w, "woken by something else");
		} while (r <= 0);
		if (kind <= EPOLL_WAIT)
			take_number(w, kind, kind == READ_EVENTFD ? 1 : expected);
		atomic_store(&kinds[kind].taken, expected);
		expected++;
	}
}

static int wake(unsigned int kind, uint64_t n)
{
	uint64_t one = 1;

	switch (kind) {
	case READ_EVENTFD:
		return write(kinds[kind].fd[1], &one, sizeof(one)) ==
		       sizeof(one) ? 0 : -1;
	case FUTEX:
		atomic_store(&futex_word, (uint32_t)n);
		return syscall(SYS_futex, &futex_word, FUTEX_WAKE_PRIVATE, 1,
			       NULL, NULL, 0) < 0 ? -1 : 0;
	case SIGWAIT:
		return sigqueue(getpid(), WAKE_SIGNAL,
				(union sigval){ .sival_int = (int)n });
	case COND:
		pthread_mutex_lock(&cond_lock);
		cond_value = n;
		pthread_cond_signal(&cond);
		pthread_mutex_unlock(&cond_lock);
		return 0;
	default:
		return write(kinds[kind].fd[1], &n, sizeof(n)) == sizeof(n) ?
		       0 : -1;
	}
}

void blocked_waker(struct worker *w)
{
	unsigned int kind;

	for (;;) {
		for (kind = 0; kind < PAUSE; kind++) {
			uint64_t n = atomic_load(&kinds[kind].sent) + 1;

			pace(w, 40 * NSEC_PER_MSEC);
			if (atomic_load(&kinds[kind].taken) != n - 1)
				fail(w, "%s took %llu numbers, %llu were sent",
				     names[kind],
				     (unsigned long long)atomic_load(&kinds[kind].taken),
				     (unsigned long long)n - 1);
			atomic_store(&kinds[kind].sent, n);
			if (wake(kind, n) < 0)
				fail_call(w, "wake");
			/* only a taken number is a loop: a lost one is a stall */
			while (atomic_load(&kinds[kind].taken) < n)
				pace(w, NSEC_PER_MSEC);
			tick(w);
		}
	}
}
