/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trackers without the module as a test sees them: a guest that does what it is
 * told, system calls included, and harvests that are added up
 */
#ifndef USERTRACK_USERTRACK_H
#define USERTRACK_USERTRACK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/track.h"
#include "guest/user_mem.h"

#define PAGE	4096UL
#define HUGE	(2UL << 20)

/* what every guest can do besides what its test teaches it */
#define DO_CALL	1000

/**
 * struct doer - a guest that does one thing after another
 * @pid: the guest
 * @proc: its folder in /proc
 * @memfd: its /proc/PID/mem
 * @box: what it is told, shared with it
 * @mem: its memory
 * @t: its tracker
 * @stopped: by doer_stop()
 */
struct doer {
	pid_t pid;
	int proc, memfd;
	struct doer_box *box;
	struct user_mem mem;
	struct tracker *t;
	bool stopped;
};

/* memory that a guest and its test share */
void *shared_memory(size_t bytes);

/*
 * Starts a guest that serves, in a thread of its own, what it is told to do;
 * @act does a thing in it, @run is its main thread, which never returns (NULL:
 * it waits). It dies with its test.
 */
void doer_start(struct doer *d, int64_t (*act)(int what, int64_t *arg),
		void (*run)(void));
/* has it do one thing and waits until that is done */
int64_t doer_do(struct doer *d, int what, int64_t a, int64_t b, int64_t c);
/* ends the guest, but not its tracker */
void doer_kill(struct doer *d);
void doer_end(struct doer *d);
/* a userfaultfd of its memory, which it does not keep; or -errno */
int doer_uffd(struct doer *d, int flags);
/* all its threads, until doer_go() */
void doer_stop(struct doer *d);
void doer_go(struct doer *d);

/**
 * struct tally - what harvests said of some addresses
 * @data: pages of VASI_KIND_DATA
 * @zero: pages of VASI_KIND_ZERO
 * @hole: pages of VASI_KIND_HOLE
 * @huge: pages in ranges with a shift of 21
 * @ranges: how many
 * @reasons: all reasons
 */
struct tally {
	uint64_t data, zero, hole, huge;
	uint64_t ranges;
	uint32_t reasons;
};

/* adds to @tally (may be NULL), calls @fn (may be NULL) for each; -errno */
int harvest(struct doer *d, uint64_t start, uint64_t end, struct tally *tally,
	    void (*fn)(const struct vasi_range *r, void *arg), void *arg);
/* harvests until nothing is reported */
int settle(struct doer *d, uint64_t start, uint64_t end);
int mark(struct doer *d, uint64_t start, uint64_t pages);
/* bytes of @pages at @addr: 0 or -errno */
int read_pages(struct doer *d, uint64_t addr, uint64_t pages, void *data);

#endif /* USERTRACK_USERTRACK_H */
