// SPDX-License-Identifier: GPL-2.0
/* Locks, condition variables and timed waits: lost and doubled wake-ups. */
#include <sched.h>

#include "check.h"

/* ---- ping-pong: the value decides whose turn it is ---- */

static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_cond = PTHREAD_COND_INITIALIZER;
static uint64_t turn;

void sync_pingpong(struct worker *w)
{
	uint64_t expected = w->check->arg;

	while (tick(w)) {
		pthread_mutex_lock(&turn_lock);
		while (turn % 2 != w->check->arg)
			pthread_cond_wait(&turn_cond, &turn_lock);
		if (turn != expected)
			fail(w, "turn %llu where %llu was expected",
			     (unsigned long long)turn,
			     (unsigned long long)expected);
		turn++;
		expected = turn + 1;
		pthread_cond_signal(&turn_cond);
		pthread_mutex_unlock(&turn_lock);
		if (w->check->arg)
			pace(w, 2 * NSEC_PER_MSEC);
	}
}

/*
 * ---- several kinds of lock around unprotected counters ----
 * Each thread keeps the number of its own additions; their sum must be the
 * counter. A thread publishes its number before it leaves the lock.
 */

enum { PLAIN, ROBUST, INHERITING, READ_WRITE, LOCK_TYPES };

static struct {
	pthread_once_t once;
	pthread_mutex_t mutex[READ_WRITE];
	pthread_rwlock_t rw;
	uint64_t counter[LOCK_TYPES];
	uint64_t added[LOCK_TYPES][2];
} locks = {
	.once = PTHREAD_ONCE_INIT,
	.rw = PTHREAD_RWLOCK_INITIALIZER,
};

static void locks_init(void)
{
	pthread_mutexattr_t attr;

	pthread_mutex_init(&locks.mutex[PLAIN], NULL);

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&locks.mutex[ROBUST], &attr);

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&locks.mutex[INHERITING], &attr);
}

void sync_lockers(struct worker *w)
{
	static const char *const names[] = {
		"plain", "robust", "inheriting", "reader-writer"
	};
	unsigned int me = w->check->arg;
	uint64_t mine[LOCK_TYPES] = { 0 };

	pthread_once(&locks.once, locks_init);
	while (tick(w)) {
		int kind = (int)(prng_next(&w->prng) % LOCK_TYPES);
		uint64_t *counter = &locks.counter[kind];
		int r;

		r = kind == READ_WRITE ? pthread_rwlock_wrlock(&locks.rw) :
				      pthread_mutex_lock(&locks.mutex[kind]);
		if (r) {
			fail(w, "%s lock: %s", names[kind], strerrorname_np(r));
			pace(w, 100 * NSEC_PER_MSEC);
			continue;
		}
		if (locks.added[kind][me] != mine[kind])
			fail(w, "%s lock: own additions %llu, published %llu",
			     names[kind], (unsigned long long)mine[kind],
			     (unsigned long long)locks.added[kind][me]);
		if (locks.added[kind][0] + locks.added[kind][1] != *counter)
			fail(w, "%s lock: counter is not the sum of additions",
			     names[kind]);
		/* a window in which the holder can be stopped */
		*(volatile uint64_t *)counter = *counter + 1;
		if (mine[kind] % 4 == 0)
			sched_yield();
		locks.added[kind][me] = ++mine[kind];

		r = kind == READ_WRITE ? pthread_rwlock_unlock(&locks.rw) :
				      pthread_mutex_unlock(&locks.mutex[kind]);
		if (r)
			fail(w, "%s unlock: %s", names[kind],
			     strerrorname_np(r));
		if (prng_next(&w->prng) % 16 == 0)
			pace(w, NSEC_PER_MSEC);
	}
}

/* ---- timed waits that nobody signals: only the time ends them ---- */

void sync_timedwait(struct worker *w)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_condattr_t attr;
	pthread_cond_t cond;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cond, &attr);

	while (tick(w)) {
		uint64_t wait = (1 + prng_next(&w->prng) % 300) * NSEC_PER_MSEC;
		uint64_t until = checked_now(w) + wait;
		struct timespec ts = ns_to_ts(until);
		uint64_t end;
		int r;

		pthread_mutex_lock(&lock);
		do {
			r = pthread_cond_timedwait(&cond, &lock, &ts);
			/* a wake-up without a signal is allowed by POSIX */
		} while (r == 0);
		pthread_mutex_unlock(&lock);
		end = checked_now(w);
		if (r != ETIMEDOUT)
			fail(w, "cond_timedwait: %s", strerrorname_np(r));
		else if (end < until)
			fail(w, "cond_timedwait ended %llu ns early",
			     (unsigned long long)(until - end));
	}
}
