// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "guest/pageset.h"

#define PAGE_SHIFT	12
#define LEAF_SHIFT	26
#define LEAF_BYTES	(1ULL << LEAF_SHIFT)
#define LEAF_PAGES	(1U << (LEAF_SHIFT - PAGE_SHIFT))
#define WORDS		(LEAF_PAGES / 64)

/**
 * struct pageset_leaf - pages of LEAF_BYTES addresses
 * @index: first address / LEAF_BYTES
 * @pages: how many are set
 * @bits: the set
 */
struct pageset_leaf {
	uint64_t index;
	uint32_t pages;
	uint64_t bits[WORDS];
};

void pageset_free(struct pageset *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct pageset){};
}

/* where the first leaf of @index or behind it is */
static size_t find(const struct pageset *s, uint64_t index)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->v[mid]->index >= index)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static struct pageset_leaf *get(struct pageset *s, uint64_t index)
{
	size_t at = find(s, index);
	struct pageset_leaf *leaf;

	if (at < s->n && s->v[at]->index == index)
		return s->v[at];
	if (s->n == s->max) {
		size_t max = s->max ? 2 * s->max : 16;
		struct pageset_leaf **v = reallocarray(s->v, max, sizeof(*v));

		if (!v)
			return NULL;
		s->v = v;
		s->max = max;
	}
	leaf = calloc(1, sizeof(*leaf));
	if (!leaf)
		return NULL;
	leaf->index = index;
	memmove(&s->v[at + 1], &s->v[at], (s->n - at) * sizeof(*s->v));
	s->v[at] = leaf;
	s->n++;
	return leaf;
}

/* the bits of word @w that are in [@from, @to) of a leaf */
static uint64_t mask_of(unsigned int w, unsigned int from, unsigned int to)
{
	uint64_t mask = ~0ULL;

	if (from > w * 64)
		mask &= ~0ULL << (from - w * 64);
	if (to < w * 64 + 64)
		mask &= ~0ULL >> (w * 64 + 64 - to);
	return mask;
}

static void change(struct pageset_leaf *leaf, unsigned int from,
		   unsigned int to, bool set)
{
	for (unsigned int w = from / 64; w * 64 < to; w++) {
		uint64_t mask = mask_of(w, from, to), old = leaf->bits[w];

		leaf->bits[w] = set ? old | mask : old & ~mask;
		leaf->pages += (uint32_t)__builtin_popcountll(leaf->bits[w]);
		leaf->pages -= (uint32_t)__builtin_popcountll(old);
	}
}

/* the part of [@start, @end) that is in the leaf of @start, in pages of it */
static uint64_t part(uint64_t start, uint64_t end, unsigned int *ret_from,
		     unsigned int *ret_to)
{
	uint64_t base = start & ~(LEAF_BYTES - 1), next = base + LEAF_BYTES;

	if (next > end)
		next = end;
	*ret_from = (unsigned int)((start - base) >> PAGE_SHIFT);
	*ret_to = (unsigned int)((next - base) >> PAGE_SHIFT);
	return next;
}

int pageset_set(struct pageset *s, uint64_t start, uint64_t end)
{
	while (start < end) {
		struct pageset_leaf *leaf = get(s, start >> LEAF_SHIFT);
		unsigned int from, to;

		if (!leaf)
			return -ENOMEM;
		start = part(start, end, &from, &to);
		change(leaf, from, to, true);
	}
	return 0;
}

void pageset_clear(struct pageset *s, uint64_t start, uint64_t end)
{
	size_t at = find(s, start >> LEAF_SHIFT), to_at = at;

	for (; at < s->n; at++) {
		struct pageset_leaf *leaf = s->v[at];
		uint64_t base = leaf->index << LEAF_SHIFT;
		unsigned int from, to;

		if (base >= end)
			break;
		part(base > start ? base : start, end, &from, &to);
		change(leaf, from, to, false);
		if (leaf->pages)
			s->v[to_at++] = leaf;
		else
			free(leaf);
	}
	memmove(&s->v[to_at], &s->v[at], (s->n - at) * sizeof(*s->v));
	s->n -= at - to_at;
}

/* the first page in [@from, @to) of a leaf that is (@set) in it or not, or @to */
static unsigned int next(const struct pageset_leaf *leaf, unsigned int from,
			 unsigned int to, bool set)
{
	while (from < to) {
		unsigned int w = from / 64;
		uint64_t bits = set ? leaf->bits[w] : ~leaf->bits[w];

		bits &= mask_of(w, from, to);
		if (bits)
			return w * 64 + (unsigned int)__builtin_ctzll(bits);
		from = w * 64 + 64;
	}
	return to;
}

bool pageset_run(const struct pageset *s, uint64_t start, uint64_t end,
		 uint64_t *ret_start, uint64_t *ret_end)
{
	bool found = false;

	for (size_t at = find(s, start >> LEAF_SHIFT); at < s->n; at++) {
		const struct pageset_leaf *leaf = s->v[at];
		uint64_t base = leaf->index << LEAF_SHIFT;
		unsigned int from, to;

		if (base >= end || (found && base != *ret_end))
			break;
		part(base > start ? base : start, end, &from, &to);
		if (!found) {
			from = next(leaf, from, to, true);
			if (from == to)
				continue;
			*ret_start = base + ((uint64_t)from << PAGE_SHIFT);
			found = true;
		}
		from = next(leaf, from, to, false);
		*ret_end = base + ((uint64_t)from << PAGE_SHIFT);
		if (from < to)
			break;
	}
	return found;
}
