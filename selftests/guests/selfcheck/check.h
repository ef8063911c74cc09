/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A check is the body of one thread. It loops while tick() says so and calls
 * fail() with what it found; it never decides that a duration was too long,
 * because a guest may be stopped at any time for as long as its mover likes.
 */
#ifndef SELFCHECK_CHECK_H
#define SELFCHECK_CHECK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest.h"

struct worker;

struct check {
	const char *name;
	void (*run)(struct worker *w);
	/* distinguishes threads of one body */
	unsigned int arg;
	/* runs as long as the guest does without a loop: not a stall */
	bool silent;
};

struct worker {
	const struct check *check;
	unsigned int index;
	pthread_t thread;
	pid_t tid;
	_Atomic uint64_t loops;
	uint64_t last_ns;
	/* when pace() returned */
	uint64_t rested_ns;
	uint64_t prng;
	/* of the main thread: to see that nothing moves any more */
	uint64_t seen_loops;
	unsigned int still;
	/* errors of this thread that were kept as text */
	unsigned int told;
};

struct options {
	const char *dir;
	uint64_t seconds;
	size_t arena_bytes;
	uint64_t rate;
	unsigned int stall_lines;
	/* SIGSTOP makes some calls return EINTR (signal(7)); count, not fail */
	bool stop_signals;
};

extern struct options options;

/* main.c */
bool tick(struct worker *w);
void pace(struct worker *w, uint64_t ns);
uint64_t checked_now(struct worker *w);

/* report.c */
__attribute__((format(printf, 2, 3)))
void fail(struct worker *w, const char *fmt, ...);
void fail_call(struct worker *w, const char *call);
bool interrupted_by_stop(const char *call);
unsigned long error_count(void);
void first_error(char *buf, size_t size);
void note_gap(uint64_t at_ns, uint64_t gap_ns);
uint64_t take_max_gap(void);
int status_open(void);
void status_line(struct worker *workers, unsigned int n);
int report_write(struct worker *workers, unsigned int n, const char *why);

/* setup before any thread runs; each returns 0 or -errno */
int arena_setup(void);
int blocked_setup(void);
int files_setup(void);
int io_setup(void);
int attrs_setup(void);
int timeouts_setup(void);
int itimer_setup(void);

/* and this one when they all run */
int attrs_snapshot(void);

/* Transient descriptors are opened and closed under the read side. */
extern pthread_rwlock_t fd_table_lock;
void attrs_verify(struct worker *w);
int keep_fd(int fd);

/* thread bodies */
void sync_pingpong(struct worker *w);
void sync_lockers(struct worker *w);
void sync_timedwait(struct worker *w);
void heap_churn(struct worker *w);
void arena_run(struct worker *w);
void protect_run(struct worker *w);
void maps_churn(struct worker *w);
void maps_kinds(struct worker *w);
void vector_run(struct worker *w);
void tls_run(struct worker *w);
void epoll_run(struct worker *w);
void pipe_writer(struct worker *w);
void pipe_reader(struct worker *w);
void pipe_kept(struct worker *w);
void stdio_run(struct worker *w);
void sleep_run(struct worker *w);
void timeouts_run(struct worker *w);
void itimer_run(struct worker *w);
void ticker_run(struct worker *w);
void blocked_wait(struct worker *w);
void blocked_waker(struct worker *w);
unsigned int blocked_kinds(void);
const char *blocked_kind_name(unsigned int kind);

#endif
