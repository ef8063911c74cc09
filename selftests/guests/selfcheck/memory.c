// SPDX-License-Identifier: GPL-2.0
/*
 * Memory whose right content is a function of numbers kept elsewhere: the heap,
 * the arena with its known dirty rate, and pages behind protections.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "check.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))

/* ---- heap ---- */

#define SLOTS 256
#define MAX_BLOCK 20000

static unsigned char heap_byte(uint64_t key, size_t i)
{
	return (unsigned char)(mix64(key + i / 8) >> (i % 8 * 8));
}

/*
 * A block's bytes follow from (slot, generation). The generations' sum is the
 * number of operations, which only this thread's stack knows.
 */
void heap_churn(struct worker *w)
{
	static uint32_t generation[2][SLOTS];
	uint32_t *gen = generation[w->check->arg];
	struct {
		unsigned char *p;
		size_t size;
	} slot[SLOTS] = { 0 };
	uint64_t ops = 0, sum;
	unsigned int i;
	size_t j;

	while (tick(w)) {
		unsigned int n = (unsigned int)(prng_next(&w->prng) % SLOTS);
		uint64_t key = mix64_pair(n + w->check->arg * SLOTS, gen[n]);
		unsigned char *p;
		size_t size;

		for (j = 0; j < slot[n].size; j++) {
			if (slot[n].p[j] == heap_byte(key, j))
				continue;
			fail(w, "block %u generation %u: wrong byte at %p",
			     n, gen[n], (void *)&slot[n].p[j]);
			break;
		}

		size = prng_next(&w->prng) % MAX_BLOCK;
		/* now and then above the mmap threshold */
		if (prng_next(&w->prng) % 64 == 0)
			size += 200000;
		if (prng_next(&w->prng) % 4) {
			free(slot[n].p);
			p = malloc(size);
		} else {
			p = realloc(slot[n].p, size ? size : 1);
		}
		if (!p && size) {
			fail(w, "no memory for %zu bytes", size);
			size = 0;
		}
		gen[n]++;
		ops++;
		key = mix64_pair(n + w->check->arg * SLOTS, gen[n]);
		for (j = 0; j < size; j++)
			p[j] = heap_byte(key, j);
		slot[n].p = p;
		slot[n].size = size;

		if (ops % 8 == 0) {
			for (sum = 0, i = 0; i < SLOTS; i++)
				sum += gen[i];
			if (sum != ops)
				fail(w, "sum of generations %llu after %llu operations",
				     (unsigned long long)sum,
				     (unsigned long long)ops);
			pace(w, 5 * NSEC_PER_MSEC);
		}
	}
}

/*
 * ---- arena ----
 * Word 0 of a page counts its visits c; visit c wrote mix(page, c) into word
 * 1 + c % 511. So the whole page follows from (page, c), and the sum of all c
 * from the number of visits.
 */

static uint64_t *arena;
static uint64_t arena_pages;

static void arena_visit(struct worker *w, uint64_t page)
{
	uint64_t *p = arena + page * WORDS;
	uint64_t c = p[0];

	if (p[1 + c % (WORDS - 1)] != mix64_pair(page, c))
		fail(w, "page %llu at %p: visit %llu left no trace",
		     (unsigned long long)page, (void *)p,
		     (unsigned long long)c);
	c++;
	p[1 + c % (WORDS - 1)] = mix64_pair(page, c);
	p[0] = c;
}

static uint64_t arena_verify_page(struct worker *w, uint64_t page)
{
	const uint64_t *p = arena + page * WORDS;
	uint64_t c = p[0], i;

	for (i = 0; i < WORDS - 1; i++) {
		uint64_t at = c - i;

		if (p[1 + at % (WORDS - 1)] == mix64_pair(page, at))
			continue;
		fail(w, "page %llu at %p: word of visit %llu is wrong (now %llu)",
		     (unsigned long long)page, (const void *)p,
		     (unsigned long long)at, (unsigned long long)c);
		break;
	}
	return c - (WORDS - 1);
}

int arena_setup(void)
{
	uint64_t page, c;

	arena_pages = options.arena_bytes / PAGE;
	arena = mmap(NULL, options.arena_bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena == MAP_FAILED)
		return -errno;
	for (page = 0; page < arena_pages; page++) {
		uint64_t *p = arena + page * WORDS;

		for (c = 1; c < WORDS; c++)
			p[1 + c % (WORDS - 1)] = mix64_pair(page, c);
		p[0] = WORDS - 1;
	}
	return 0;
}

void arena_run(struct worker *w)
{
	uint64_t started = checked_now(w), visits = 0, scan = 0, scan_sum = 0;
	uint64_t at_scan_start = 0, due, i;

	while (tick(w)) {
		due = (checked_now(w) - started) * options.rate / NSEC_PER_SEC;
		/* after a stop, go on at the rate instead of catching up */
		if (due > visits + options.rate / 4 + 1) {
			due = visits + options.rate / 4 + 1;
			started = checked_now(w) -
				  due * NSEC_PER_SEC / (options.rate ? options.rate : 1);
		}
		while (visits < due) {
			arena_visit(w, prng_next(&w->prng) % arena_pages);
			visits++;
		}

		/*
		 * The whole arena is read in slices while it is written; the
		 * sum is taken in one go, when the slices are through.
		 */
		for (i = 0; i < 16 && scan < arena_pages; i++)
			arena_verify_page(w, scan++);
		if (scan == arena_pages) {
			for (scan_sum = 0, i = 0; i < arena_pages; i++)
				scan_sum += arena[i * WORDS] - (WORDS - 1);
			if (scan_sum != visits)
				fail(w, "counters sum to %llu after %llu visits (%llu at the last sum)",
				     (unsigned long long)scan_sum,
				     (unsigned long long)visits,
				     (unsigned long long)at_scan_start);
			at_scan_start = visits;
			scan = 0;
		}
		pace(w, 10 * NSEC_PER_MSEC);
	}
}

/* ---- pages behind protections ---- */

#define GUARDED 8

static void guarded_fill(unsigned char *p, uint64_t key)
{
	uint64_t *q = (uint64_t *)p;
	size_t i;

	for (i = 0; i < GUARDED * WORDS; i++)
		q[i] = mix64_pair(key, i);
}

static void guarded_verify(struct worker *w, const unsigned char *p,
			   uint64_t key, const char *what)
{
	const uint64_t *q = (const uint64_t *)p;
	size_t i;

	for (i = 0; i < GUARDED * WORDS; i++) {
		if (q[i] != mix64_pair(key, i)) {
			fail(w, "%s page at %p: wrong content", what,
			     (const void *)&q[i]);
			return;
		}
	}
}

static void protect(struct worker *w, void *p, int prot)
{
	if (mprotect(p, GUARDED * PAGE, prot) < 0)
		fail_call(w, "mprotect");
}

/*
 * The kernel is asked whether the protection still stands: a copy from or to
 * a forbidden page is EFAULT, and nothing has to be caught.
 */
static bool readable(const void *p)
{
	return access(p, F_OK) == 0 || errno != EFAULT;
}

static bool writable(void *p)
{
	return syscall(SYS_getrandom, p, 1UL, 0UL) == 1;
}

void protect_run(struct worker *w)
{
	unsigned char *none, *ro, *area;
	uint64_t generation = 1;

	area = mmap(NULL, 3 * GUARDED * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED) {
		fail_call(w, "mmap");
		return;
	}
	none = area;
	ro = area + 2 * GUARDED * PAGE;
	guarded_fill(none, generation);
	guarded_fill(ro, ~generation);
	protect(w, none, PROT_NONE);
	protect(w, ro, PROT_READ);

	while (tick(w)) {
		pace(w, 50 * NSEC_PER_MSEC);
		if (readable(none))
			fail(w, "PROT_NONE page is readable");
		if (!readable(ro))
			fail(w, "PROT_READ page is not readable");
		if (writable(ro))
			fail(w, "PROT_READ page is writable");
		guarded_verify(w, ro, ~generation, "PROT_READ");
		if (atomic_load(&w->loops) % 8)
			continue;

		protect(w, none, PROT_READ);
		guarded_verify(w, none, generation, "PROT_NONE");
		generation++;
		protect(w, none, PROT_READ | PROT_WRITE);
		protect(w, ro, PROT_READ | PROT_WRITE);
		guarded_fill(none, generation);
		guarded_fill(ro, ~generation);
		protect(w, none, PROT_NONE);
		protect(w, ro, PROT_READ);
	}
}
