// SPDX-License-Identifier: GPL-2.0
/*
 * sleepers FILE SECONDS THREADS: every thread does one sleep, each of another
 * kind in turn, and all of it once. When all have woken, FILE says for each
 * when it slept and woke on CLOCK_MONOTONIC, what the call returned and whether
 * that was early. Suspend it twice within the sleep, or move it on in its sleep.
 */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <linux/futex.h>

#include "guest.h"

#define MAX_THREADS 512

struct sleeper {
	pthread_t thread;
	unsigned int kind;
	uint64_t start, end;
	int result;
};

static const char *const kinds[] = {
	"nanosleep", "nanosleep_no_remainder", "clock_nanosleep_abs", "futex",
	"futex_abs", "poll", "select", "epoll_wait", "cond_timedwait",
};

static uint64_t duration;

static int timed_out(long r)
{
	return r < 0 && errno == ETIMEDOUT ? 0 : r < 0 ? -errno : -EPROTO;
}

static int futex_sleep(const struct timespec *ts, bool absolute)
{
	uint32_t word = 0;

	return timed_out(syscall(SYS_futex, &word,
				 absolute ? FUTEX_WAIT_BITSET_PRIVATE :
					    FUTEX_WAIT_PRIVATE,
				 0, ts, NULL, FUTEX_BITSET_MATCH_ANY));
}

static int cond_sleep(const struct timespec *until)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_condattr_t attr;
	pthread_cond_t cond;
	int r;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cond, &attr);
	pthread_mutex_lock(&lock);
	do {
		r = pthread_cond_timedwait(&cond, &lock, until);
	} while (r == 0);
	pthread_mutex_unlock(&lock);
	return r == ETIMEDOUT ? 0 : -r;
}

static int epoll_sleep(int ms)
{
	int fd = epoll_create1(EPOLL_CLOEXEC), r;
	struct epoll_event ev;

	if (fd < 0)
		return -errno;
	r = epoll_wait(fd, &ev, 1, ms) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static void *sleep_once(void *arg)
{
	struct sleeper *s = arg;
	struct timespec ts = ns_to_ts(duration), until, rem;
	struct timeval tv = { ts.tv_sec, ts.tv_nsec / 1000 };
	int ms = (int)(duration / NSEC_PER_MSEC);

	s->start = now_ns();
	until = ns_to_ts(s->start + duration);
	switch (s->kind) {
	case 0:
		s->result = nanosleep(&ts, &rem) < 0 ? -errno : 0;
		break;
	case 1:
		s->result = nanosleep(&ts, NULL) < 0 ? -errno : 0;
		break;
	case 2:
		s->result = -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME,
					     &until, NULL);
		break;
	case 3:
		s->result = futex_sleep(&ts, false);
		break;
	case 4:
		s->result = futex_sleep(&until, true);
		break;
	case 5:
		s->result = poll(NULL, 0, ms) < 0 ? -errno : 0;
		break;
	case 6:
		s->result = select(0, NULL, NULL, NULL, &tv) < 0 ? -errno : 0;
		break;
	case 7:
		s->result = epoll_sleep(ms);
		break;
	default:
		s->result = cond_sleep(&until);
	}
	s->end = now_ns();
	return NULL;
}

int main(int argc, char **argv)
{
	static struct sleeper sleepers[MAX_THREADS];
	static char text[MAX_THREADS * 200 + 200];
	unsigned int n, i, failed = 0;
	size_t len = 0;
	double seconds;

	if (argc != 4) {
		fprintf(stderr, "usage: sleepers FILE SECONDS THREADS\n");
		return 2;
	}
	seconds = strtod(argv[2], NULL);
	n = (unsigned int)strtoul(argv[3], NULL, 10);
	if (seconds <= 0 || seconds > 1e6 || n < 1 || n > MAX_THREADS) {
		fprintf(stderr, "sleepers: 1 to %d threads, more than 0 seconds\n",
			MAX_THREADS);
		return 2;
	}
	duration = (uint64_t)(seconds * 1000) * NSEC_PER_MSEC;

	for (i = 0; i < n; i++) {
		sleepers[i].kind = i % ARRAY_SIZE(kinds);
		if (pthread_create(&sleepers[i].thread, NULL, sleep_once,
				   &sleepers[i])) {
			fprintf(stderr, "sleepers: cannot start thread %u\n", i);
			return 1;
		}
	}
	for (i = 0; i < n; i++) {
		pthread_join(sleepers[i].thread, NULL);
		if (sleepers[i].result ||
		    sleepers[i].end - sleepers[i].start < duration)
			failed++;
	}

	len += (size_t)snprintf(text, sizeof(text),
				"{\"ok\": %s, \"pid\": %d, \"duration_ns\": %llu, \"failed\": %u, \"sleepers\": [",
				failed ? "false" : "true", getpid(),
				(unsigned long long)duration, failed);
	for (i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			"%s\n {\"kind\": \"%s\", \"start_ns\": %llu, \"slept_ns\": %llu, \"result\": \"%s\"}",
			i ? "," : "", kinds[sleepers[i].kind],
			(unsigned long long)sleepers[i].start,
			(unsigned long long)(sleepers[i].end - sleepers[i].start),
			sleepers[i].result ? strerrorname_np(-sleepers[i].result) : "ok");
	len += (size_t)snprintf(text + len, sizeof(text) - len, "]}\n");
	if (write_whole(argv[1], text, len) < 0)
		return 1;
	return failed ? 1 : 0;
}
