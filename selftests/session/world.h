/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest that is nothing but memory, and the two hosts it moves between
 *
 * Its "threads" are one writer thread of the test; its dirty tracking is the
 * writer's own book-keeping. Both hosts' memory is shared between processes,
 * so that the test can compare it when all is over.
 */
#ifndef SELFTESTS_SESSION_WORLD_H
#define SELFTESTS_SESSION_WORLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "guest/guest.h"

#define WORLD_BASE	0x10000000ULL
#define WORLD_PAGES	2048
#define WORLD_PAGE	4096
#define WORLD_BYTES	(WORLD_PAGES * WORLD_PAGE)
/* pages that the guest maps and unmaps all the time */
#define WORLD_LOOSE	1024
#define WORLD_LOOSE_END	1152
#define WORLD_HOT	7
#define OBJECT_PAGES	32
#define OBJECT_SPACE	1
#define WORLD_TIMENS	123456789012345LL

/**
 * struct world_page - book-keeping of a page on the source
 * @mapped: belongs to a mapping
 * @populated: has content
 * @reported: by a harvest, and nothing happened since
 */
struct world_page {
	_Atomic bool mapped, populated, reported;
};

/* what shall go wrong; set before a migration */
struct world_plan {
	bool refuse_source, refuse_target;
	bool name_taken;
	bool no_module;
	bool fail_resume;		/* the target's one call that cannot */
	bool fail_restore;
	bool fail_destroy;		/* the source's copy stays */
	bool fail_record;		/* no entry in the registry */
	bool busy;			/* the guest writes all the time */
	bool churn;			/* and maps and unmaps */
	bool rewrite;			/* it writes what is there already */
	bool flags;			/* mappings look new that are not */
	int die_in_round;		/* the guest is killed */
	int exec_in_round;
	int holdups;			/* suspends that time out */
	int bad_captures;		/* final captures that are refused */
	int cancel_in_round;
	unsigned int pause_limit_ms;
	unsigned int max_rounds;
	unsigned int pause_max_ms;
	unsigned int child_wait_ms;
};

struct world {
	struct world_plan plan;
	uint32_t abi;
	/* source */
	_Atomic bool stop;		/* writer ends */
	_Atomic bool suspended, stopped; /* asked for; the writer stands */
	_Atomic bool sealed, destroyed, dead, execed;
	_Atomic int harvests, suspends, resumes, tracking, opens, marked;
	struct world_page page[WORLD_PAGES];
	uint64_t writes;
	/* target */
	_Atomic bool prepared, parked, running, aborted, released, adopted;
	_Atomic bool recorded, left;
	_Atomic int frames_outside;
	int64_t timens_monotonic;
	bool target_mapped[WORLD_PAGES];
	uint32_t target_advice;
	/* results */
	char source_error[512], target_error[512];
	bool source_ok, target_ok, in_doubt;
	int rounds;
	int plain_bytes, wire_bytes;
	/* from the second round on, pages */
	int written_again, sent_again, equal_again;
	double pause_total, pause_sum;
	char events[16384];
	/* content */
	unsigned char source[WORLD_BYTES] __attribute__((aligned(4096)));
	unsigned char target[WORLD_BYTES] __attribute__((aligned(4096)));
	unsigned char object[OBJECT_PAGES * WORLD_PAGE]
		__attribute__((aligned(4096)));
};

extern struct world *world;
extern int world_object_fd;	/* the target's object */
extern const struct guest_access world_access;

/* a new one; the old is gone */
void world_new(void);
void world_free(void);
/* the guest's life */
void world_start(void);
void world_stop(void);
/* what the guest is on both hosts, compared by the test itself: pages that
 * differ
 */
int world_differences(void);

#endif /* SELFTESTS_SESSION_WORLD_H */
