// SPDX-License-Identifier: GPL-2.0
/*
 * The sets that trackers remember things in, against plain arrays; and what an
 * entry of pagemap is
 */
#include "tap.h"
#include "usertrack.h"

#define PAGES	40000		/* some leaves of a page set */
#define STEPS	6000

static bool model[PAGES];
static uint32_t why[PAGES];

static uint32_t rnd(void)
{
	static uint32_t seed = 4711;

	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

static void piece(size_t *from, size_t *to)
{
	*from = rnd() % PAGES;
	*to = *from + 1 + rnd() % (rnd() % 50 ? 40 : 20000);
	if (*to > PAGES)
		*to = PAGES;
}

static bool same_pages(const struct pageset *s, uint64_t base)
{
	uint64_t at = base, from, to, end = base + PAGES * PAGE;
	size_t i = 0;

	while (pageset_run(s, at, end, &from, &to)) {
		for (; i < (from - base) / PAGE; i++)
			if (model[i])
				return false;
		for (; i < (to - base) / PAGE; i++)
			if (!model[i])
				return false;
		at = to;
	}
	for (; i < PAGES; i++)
		if (model[i])
			return false;
	return true;
}

static void pages(void)
{
	const uint64_t base = 0x7f1234567000;
	struct pageset s = {};
	uint64_t from, to;
	bool good = true;

	for (int step = 0; step < STEPS && good; step++) {
		size_t a, b;

		piece(&a, &b);
		for (size_t i = a; i < b; i++)
			model[i] = step & 1;
		if (step & 1)
			must(!pageset_set(&s, base + a * PAGE,
					  base + b * PAGE));
		else
			pageset_clear(&s, base + a * PAGE, base + b * PAGE);
		if (step % 50 == 0)
			good = same_pages(&s, base);
	}
	ok(good && same_pages(&s, base), "a set of pages is what an array is");
	ok(!pageset_run(&s, 0, base, &from, &to) &&
	   !pageset_run(&s, base + PAGES * PAGE, UINT64_MAX & -PAGE, &from,
			&to), "and has nothing outside");
	pageset_clear(&s, 0, UINT64_MAX & -PAGE);
	ok(!s.n, "an empty set takes no memory for pages");
	pageset_free(&s);
}

static bool same_spans(struct spans *s)
{
	const struct span *v;
	uint64_t at = 0;
	size_t i = 0;

	while ((v = spans_find(s, at))) {
		uint32_t reason = 0;

		for (; i < v->start; i++)
			if (model[i])
				return false;
		for (; i < v->end; i++) {
			if (!model[i])
				return false;
			reason |= why[i];
		}
		/* all that was given for any part of it */
		if (reason & ~v->reason)
			return false;
		at = v->end;
		/* apart from each other */
		if (i < PAGES && model[i])
			return false;
	}
	for (; i < PAGES; i++)
		if (model[i])
			return false;
	return true;
}

static void ranges(void)
{
	struct spans s = {};
	bool good = true;

	memset(model, 0, sizeof(model));
	for (int step = 0; step < STEPS && good; step++) {
		bool add = rnd() % 3;
		size_t a, b;

		piece(&a, &b);
		for (size_t i = a; i < b; i++) {
			why[i] = (model[i] ? why[i] : 0) | (1U << step % 7);
			model[i] = add;
		}
		must(!(add ? spans_add(&s, a, b, 1U << step % 7) :
			     spans_remove(&s, a, b)));
		if (step % 20 == 0)
			good = same_spans(&s);
	}
	ok(good && same_spans(&s), "ranges are what an array is");
	ok(!spans_add(&s, 5, 5, 0) && !spans_remove(&s, 7, 7) &&
	   same_spans(&s), "an empty range is nothing");
	spans_free(&s);
	ok(!spans_find(&s, 0), "nothing is in an empty set");
}

static void many_ranges(void)
{
	struct spans s = {};
	size_t n = 0;

	/* from the top, twice: the room is for different ones */
	for (int twice = 0; twice < 2; twice++)
		for (uint64_t i = 100000; i > 0; i--)
			must(!spans_add(&s, 2 * i, 2 * i + 1, 1));
	for (const struct span *v = spans_find(&s, 0); v;
	     v = spans_find(&s, v->end))
		n++;
	ok(n == 100000 && s.max <= 4 * n, "a hundred thousand ranges");
	for (uint64_t i = 1; i <= 100000; i++)
		must(!spans_add(&s, 2 * i + 1, 2 * i + 2, 2));
	spans_find(&s, 0);
	ok(s.n == 1 && s.v[0].start == 2 && s.v[0].end == 200002 &&
	   s.v[0].reason == 3, "become one");
	spans_free(&s);
}

static void entries(void)
{
	const uint64_t frame = 0x1234;

	ok(softdirty_categories(0, frame) == 0, "an empty entry");
	ok(softdirty_categories(PAGEMAP_SOFT_DIRTY, frame) == SCAN_WRITTEN,
	   "a hole of a new mapping");
	ok(softdirty_categories(PAGEMAP_PRESENT | 0x77, frame) == SCAN_PRESENT,
	   "a page");
	ok(softdirty_categories(PAGEMAP_PRESENT | PAGEMAP_SOFT_DIRTY | 0x77,
				frame) == (SCAN_PRESENT | SCAN_WRITTEN),
	   "a written one");
	ok(softdirty_categories(PAGEMAP_PRESENT | PAGEMAP_FILE | 0x77,
				frame) == (SCAN_PRESENT | SCAN_FILE),
	   "a file's");
	/* it is no anonymous page, and looks like a file's */
	ok(softdirty_categories(PAGEMAP_PRESENT | PAGEMAP_FILE | frame,
				frame) == (SCAN_PRESENT | SCAN_ZERO),
	   "the zero page");
	ok(softdirty_categories(PAGEMAP_PRESENT | PAGEMAP_FILE, 0) ==
	   (SCAN_PRESENT | SCAN_FILE), "page frames that are not told");
	ok(softdirty_categories(PAGEMAP_SWAPPED | PAGEMAP_SOFT_DIRTY | 3,
				frame) == (SCAN_SWAPPED | SCAN_WRITTEN),
	   "a page in swap");
}

int main(void)
{
	pages();
	ranges();
	many_ranges();
	entries();
	return tap_end();
}
