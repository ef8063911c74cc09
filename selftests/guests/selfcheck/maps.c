// SPDX-License-Identifier: GPL-2.0
/* Mappings that come, go, move, lose pages and get new ones. */
#include <stdlib.h>
#include <sys/mman.h>

#include "check.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))

#define REGIONS 16
#define MAX_PAGES 64UL
/* the page may hold its stamp or zeroes: MADV_FREE leaves that open */
#define MAYBE_ZERO (1ULL << 63)

struct region {
	uint64_t *base;
	size_t pages;
	uint64_t uid;
	/* what the page must hold; 0: zeroes */
	uint64_t stamp[MAX_PAGES];
};

struct churn {
	struct worker *w;
	struct region region[REGIONS];
	uint64_t next_stamp;
	/* sum of all stamps alive: kept by addition, checked by counting */
	uint64_t alive;
};

static uint64_t *page_of(const struct region *r, size_t i)
{
	return r->base + i * WORDS;
}

static void drop(struct churn *c, struct region *r, size_t i)
{
	c->alive -= r->stamp[i] & ~MAYBE_ZERO;
	r->stamp[i] = 0;
}

static void put(struct churn *c, struct region *r, size_t i)
{
	uint64_t *p = page_of(r, i);

	drop(c, r, i);
	r->stamp[i] = ++c->next_stamp;
	c->alive += r->stamp[i];
	p[0] = r->stamp[i];
	p[1 + r->stamp[i] % (WORDS - 2)] = 0;
	p[WORDS - 1] = mix64_pair(r->uid * MAX_PAGES + i, r->stamp[i]);
}

static void verify(struct churn *c, struct region *r)
{
	size_t i;

	for (i = 0; i < r->pages; i++) {
		const uint64_t *p = page_of(r, i);
		uint64_t want = r->stamp[i] & ~MAYBE_ZERO;

		if (p[0] == want &&
		    p[WORDS - 1] ==
			    (want ? mix64_pair(r->uid * MAX_PAGES + i, want) : 0))
			continue;
		if ((r->stamp[i] & MAYBE_ZERO) && !p[0] && !p[WORDS - 1]) {
			drop(c, r, i);
			continue;
		}
		fail(c->w, "page %zu at %p: stamp %llx, expected %llx", i,
		     (const void *)p, (unsigned long long)p[0],
		     (unsigned long long)r->stamp[i]);
		put(c, r, i);
	}
}

static int region_map(struct churn *c, struct region *r, size_t pages)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		fail_call(c->w, "mmap");
		return -ENOMEM;
	}
	r->base = p;
	r->pages = pages;
	r->uid = ++c->next_stamp;
	memset(r->stamp, 0, sizeof(r->stamp));
	return 0;
}

static void region_unmap(struct churn *c, struct region *r)
{
	size_t i;

	for (i = 0; i < r->pages; i++)
		drop(c, r, i);
	if (munmap(r->base, r->pages * PAGE) < 0)
		fail_call(c->w, "munmap");
	r->pages = 0;
}

static void region_resize(struct churn *c, struct region *r, size_t pages)
{
	size_t i;
	void *p;

	p = mremap(r->base, r->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
	if (p == MAP_FAILED) {
		fail_call(c->w, "mremap");
		return;
	}
	for (i = pages; i < r->pages; i++)
		drop(c, r, i);
	r->base = p;
	r->pages = pages;
}

/* onto ground that holds something else, which mremap throws away */
static void region_move(struct churn *c, struct region *r)
{
	size_t bytes = r->pages * PAGE;
	uint64_t *to, *p;

	to = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED) {
		fail_call(c->w, "mmap");
		return;
	}
	to[0] = ~0ULL;
	p = mremap(r->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (p == MAP_FAILED)
		fail_call(c->w, "mremap");
	else
		r->base = p;
}

static void region_advise(struct churn *c, struct region *r, size_t first,
			  size_t n, int advice)
{
	size_t i;

	if (madvise(page_of(r, first), n * PAGE, advice) < 0) {
		fail_call(c->w, "madvise");
		return;
	}
	for (i = first; i < first + n; i++) {
		if (advice == MADV_DONTNEED)
			drop(c, r, i);
		else if (r->stamp[i])
			r->stamp[i] |= MAYBE_ZERO;
	}
}

static void region_step(struct churn *c, struct region *r)
{
	uint64_t *prng = &c->w->prng;
	size_t first, n, i;

	if (!r->pages) {
		region_map(c, r, 1 + prng_next(prng) % MAX_PAGES);
		return;
	}
	verify(c, r);
	first = prng_next(prng) % r->pages;
	n = 1 + prng_next(prng) % (r->pages - first);

	switch (prng_next(prng) % 12) {
	case 0:
		region_unmap(c, r);
		break;
	case 1:
		region_resize(c, r, 1 + prng_next(prng) % MAX_PAGES);
		break;
	case 2:
		region_move(c, r);
		break;
	case 3:
		region_advise(c, r, first, n, MADV_DONTNEED);
		break;
	case 4:
		region_advise(c, r, first, n, MADV_FREE);
		break;
	case 5:
		/* splits the mapping; the next step joins it again */
		if (mprotect(page_of(r, first), n * PAGE, PROT_READ) < 0)
			fail_call(c->w, "mprotect");
		pace(c->w, 5 * NSEC_PER_MSEC);
		verify(c, r);
		if (mprotect(page_of(r, first), n * PAGE,
			     PROT_READ | PROT_WRITE) < 0)
			fail_call(c->w, "mprotect");
		break;
	default:
		for (i = first; i < first + n; i++)
			put(c, r, i);
	}
}

void maps_churn(struct worker *w)
{
	struct churn *c = calloc(1, sizeof(*c));
	unsigned int i;
	uint64_t sum;
	size_t j;

	if (!c) {
		fail(w, "no memory");
		return;
	}
	c->w = w;
	while (tick(w)) {
		region_step(c, &c->region[prng_next(&w->prng) % REGIONS]);
		if (atomic_load(&w->loops) % 4)
			continue;
		for (sum = 0, i = 0; i < REGIONS; i++) {
			verify(c, &c->region[i]);
			for (j = 0; j < c->region[i].pages; j++)
				sum += c->region[i].stamp[j] & ~MAYBE_ZERO;
		}
		if (sum != c->alive)
			fail(w, "stamps sum to %llu, expected %llu",
			     (unsigned long long)sum,
			     (unsigned long long)c->alive);
		pace(w, 10 * NSEC_PER_MSEC);
	}
}
