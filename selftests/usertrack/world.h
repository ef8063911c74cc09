/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest that counts in two ways, and does to its memory what programs do
 *
 * Writers add one to random words of an arena and to a counter of their own: the
 * sum over the arena is the number of increments. Chaos is a thread that maps,
 * moves, drops, forks...; where that changes the content the sum is lost.
 */
#ifndef USERTRACK_WORLD_H
#define USERTRACK_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include "usertrack.h"

#define WRITERS	2
#define ARENA	(8UL << 20)
#define PAGES	(ARENA / PAGE)

/**
 * struct world - what guest and test share, outside of the tracked memory
 * @arena: address in the guest
 * @huge: it is made of huge pages
 * @file: it is a private mapping of a file
 * @chaos: operations to choose from, a mask
 * @stop: writers are to end
 * @ended: threads that have
 * @count: increments made, by writer
 * @ops: operations done
 */
struct world {
	uint32_t *arena;
	bool huge, file;
	uint32_t chaos;
	int stop, ended;
	int64_t count[WRITERS];
	int64_t ops;
};

enum {
	C_PAGEOUT = 1, C_COLD = 2, C_COLLAPSE = 4, C_FORK = 8, C_PROTECT = 16,
	C_READ = 32,
	/* these change the content, and the sum with it */
	C_DONTNEED = 64, C_FREE = 128, C_MAP = 256, C_MOVE = 512,
};

#define C_KEEP	(C_DONTNEED - 1)
#define C_ALL	(2 * C_MOVE - 1)

/* shared by guest and test; one guest at a time */
extern struct world *w;

/* to be called once, before the first guest */
void world_init(void);
/* what a guest's arena is before it is written */
void world_base(unsigned char *p);
/* the guest's own thread */
void world_run(void);
/* has the guest end its writers and waits for that */
void world_still(void);
/* of the words of an arena */
int64_t world_sum(const unsigned char *p);

#endif /* USERTRACK_WORLD_H */
