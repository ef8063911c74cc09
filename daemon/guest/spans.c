// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "guest/spans.h"

#define FIRST_ROOM	64

void spans_free(struct spans *s)
{
	free(s->v);
	*s = (struct spans){};
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static void tidy(struct spans *s)
{
	size_t i, n = 0;

	if (s->sorted == s->n)
		return;
	qsort(s->v, s->n, sizeof(*s->v), by_start);
	for (i = 0; i < s->n; i++) {
		struct span *last = n ? &s->v[n - 1] : NULL;

		if (last && s->v[i].start <= last->end) {
			if (s->v[i].end > last->end)
				last->end = s->v[i].end;
			last->reason |= s->v[i].reason;
		} else {
			s->v[n++] = s->v[i];
		}
	}
	s->n = n;
	s->sorted = n;
}

static int grow(struct spans *s)
{
	struct span *v;
	size_t max;

	if (s->n < s->max)
		return 0;
	/* the same pages may have been added many times */
	tidy(s);
	if (s->n < s->max / 2)
		return 0;
	max = s->max ? 2 * s->max : FIRST_ROOM;
	v = reallocarray(s->v, max, sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->v = v;
	s->max = max;
	return 0;
}

int spans_add(struct spans *s, uint64_t start, uint64_t end, uint32_t reason)
{
	struct span *last = s->n ? &s->v[s->n - 1] : NULL;

	if (start >= end)
		return 0;
	if (last && start >= last->start && start <= last->end) {
		if (end > last->end)
			last->end = end;
		last->reason |= reason;
		return 0;
	}
	if (grow(s))
		return -ENOMEM;
	/* grow() may have put another one at the end */
	if (s->n == s->sorted && (!s->n || s->v[s->n - 1].end < start))
		s->sorted++;
	s->v[s->n++] = (struct span){ start, end, reason };
	return 0;
}

/* of an ordered set: the first that ends behind @addr */
static size_t find(const struct spans *s, uint64_t addr)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->v[mid].end > addr)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

const struct span *spans_find(struct spans *s, uint64_t addr)
{
	size_t i;

	tidy(s);
	i = find(s, addr);
	return i < s->n ? &s->v[i] : NULL;
}

int spans_remove(struct spans *s, uint64_t start, uint64_t end)
{
	size_t first, behind;

	if (start >= end)
		return 0;
	tidy(s);
	first = find(s, start);
	if (first == s->n || s->v[first].start >= end)
		return 0;
	if (s->v[first].start < start && s->v[first].end > end) {
		struct span rest = s->v[first];

		rest.start = end;
		if (grow(s))
			return -ENOMEM;
		s->v[first].end = start;
		memmove(&s->v[first + 2], &s->v[first + 1],
			(s->n - first - 1) * sizeof(*s->v));
		s->v[first + 1] = rest;
		s->sorted = ++s->n;
		return 0;
	}
	if (s->v[first].start < start)
		s->v[first++].end = start;
	behind = first;
	while (behind < s->n && s->v[behind].end <= end)
		behind++;
	if (behind < s->n && s->v[behind].start < end)
		s->v[behind].start = end;
	memmove(&s->v[first], &s->v[behind], (s->n - behind) * sizeof(*s->v));
	s->n -= behind - first;
	s->sorted = s->n;
	return 0;
}
