// SPDX-License-Identifier: GPL-2.0
/*
 * Harvests without the module: the part that is the same for each mechanism
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "guest/track.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/procfile.h"

#define PAGE_SHIFT	12
#define PAGE		(1ULL << PAGE_SHIFT)
#define HUGE_SHIFT	21
#define TOP		0x7ffffffff000ULL
#define ENTRIES		512

static const struct track_ops *const mechanisms[] = {
	&track_wpasync, &track_softdirty,
};

static pthread_mutex_t choice_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct track_ops *choice;

int track_choose(const char *name, char *why, size_t len)
{
	const struct track_ops *found = NULL;
	int r = name ? -ENOENT : -EOPNOTSUPP;
	size_t at = 0;

	if (len)
		*why = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(mechanisms) && !found; i++) {
		const char *what = NULL;
		int err;

		if (name && strcmp(name, mechanisms[i]->name))
			continue;
		err = mechanisms[i]->probe(&what);
		r = err ? -EOPNOTSUPP : 0;
		if (!err)
			found = mechanisms[i];
		else if (at < len)
			at += snprintf(why + at, len - at, "%sno %s: %s: %s",
				       at ? ", " : "", mechanisms[i]->name,
				       what, strerror(-err));
	}
	if (!found)
		return r;
	pthread_mutex_lock(&choice_lock);
	choice = found;
	pthread_mutex_unlock(&choice_lock);
	return 0;
}

const struct track_ops *track_chosen(void)
{
	const struct track_ops *ops;

	pthread_mutex_lock(&choice_lock);
	ops = choice;
	pthread_mutex_unlock(&choice_lock);
	if (!ops && !track_choose(NULL, NULL, 0))
		return track_chosen();
	return ops;
}

int tracker_new(struct tracker **ret, const struct track_host *host)
{
	const struct track_ops *ops = track_chosen();
	struct tracker *t;
	int r;

	if (!ops)
		return -EOPNOTSUPP;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->pagemap = openat(host->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	if (t->pagemap < 0) {
		r = errno == ENOENT ? -ESRCH : -errno;
		free(t);
		return r;
	}
	t->ops = ops;
	t->host = *host;
	t->uffd = -1;
	pthread_mutex_init(&t->lock, NULL);
	*ret = t;
	return 0;
}

static void forget(struct tracker *t)
{
	t->started = false;
	t->next = UINT64_MAX;
	map_text_free(&t->maps);
	t->maps = (struct map_text){};
	spans_free(&t->owed);
	spans_free(&t->wild);
	spans_free(&t->missing);
	spans_free(&t->gone);
	spans_free(&t->doubt);
	pageset_free(&t->told);
}

void tracker_free(struct tracker *t)
{
	if (!t)
		return;
	t->ops->stop(t);
	forget(t);
	free(t->item);
	close(t->pagemap);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int tracker_track(struct tracker *t, bool on)
{
	int r = 0;

	pthread_mutex_lock(&t->lock);
	if (!on)
		t->ops->stop(t);
	forget(t);
	if (on) {
		r = t->ops->start(t);
		if (!r)
			r = track_owe(t, 0, TOP, VASI_REASON_FIRST);
		t->started = !r;
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

void tracker_count(struct tracker *t, uint64_t *count)
{
	pthread_mutex_lock(&t->lock);
	for (int i = 0; i < VASI_COUNT_MAX; i++)
		count[i] += t->count[i];
	pthread_mutex_unlock(&t->lock);
}

int tracker_mark(struct tracker *t, const struct vasi_range *vec, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		if ((vec[i].start | vec[i].pages << PAGE_SHIFT) & (PAGE - 1) ||
		    !vec[i].pages)
			return -EINVAL;
		if (vec[i].pages > (UINT64_MAX - vec[i].start) >> PAGE_SHIFT)
			return -EOVERFLOW;
	}
	pthread_mutex_lock(&t->lock);
	if (!t->started)
		r = -EBUSY;
	for (size_t i = 0; i < n && !r; i++) {
		if (vec[i].space)
			continue;
		r = track_owe(t, vec[i].start,
			      vec[i].start + (vec[i].pages << PAGE_SHIFT),
			      VASI_REASON_MARK);
		t->count[VASI_COUNT_MARKED] += vec[i].pages;
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

int track_owe(struct tracker *t, uint64_t start, uint64_t end, uint32_t reason)
{
	return spans_add(&t->owed, start, end, reason);
}

/* [vdso], [vvar] and their like are made by the kernel of the other side */
bool track_is_tracked(const struct map_line *line)
{
	return !line->shared && strncmp(line->name, "[v", 2) &&
	       strcmp(line->name, "[uprobes]");
}

size_t track_find_line(const struct tracker *t, uint64_t addr)
{
	size_t low = 0, high = t->maps.n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (t->maps.v[mid].end > addr)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

bool track_next_run(const struct tracker *t, uint64_t *addr, uint64_t end,
		    uint64_t *ret_start, uint64_t *ret_end)
{
	size_t i = track_find_line(t, *addr);
	const struct map_line *v = t->maps.v;

	while (i < t->maps.n && !track_is_tracked(&v[i]))
		i++;
	if (*addr >= end || i == t->maps.n || v[i].start >= end)
		return false;
	*ret_start = v[i].start > *addr ? v[i].start : *addr;
	while (i < t->maps.n && v[i].start < end && track_is_tracked(&v[i]))
		*ret_end = v[i++].end;
	if (*ret_end > end)
		*ret_end = end;
	*addr = *ret_end;
	return true;
}

int track_pagemap(const struct tracker *t, uint64_t start, size_t n,
		  uint64_t *entry)
{
	ssize_t got = pread(t->pagemap, entry, n * sizeof(*entry),
			    (off_t)((start >> PAGE_SHIFT) * sizeof(*entry)));

	if (got < 0)
		return -errno;
	/* there is no memory any more */
	if (got != (ssize_t)(n * sizeof(*entry)))
		return -ESRCH;
	return 0;
}

/* -- what a harvest found */

static bool joins(const struct vasi_range *last, uint64_t start, uint8_t kind,
		  uint8_t shift)
{
	return last->start + (last->pages << PAGE_SHIFT) == start &&
	       last->kind == kind && last->shift == shift;
}

static int item_add(struct tracker *t, uint64_t start, uint64_t end,
		    uint8_t kind, uint8_t shift, uint32_t reason)
{
	struct vasi_range *last = t->nr_items ? &t->item[t->nr_items - 1] :
						NULL;

	if (start >= end)
		return 0;
	if (last && joins(last, start, kind, shift)) {
		last->pages += (end - start) >> PAGE_SHIFT;
		last->reason |= reason;
		return 0;
	}
	if (t->nr_items == t->max_items) {
		size_t max = t->max_items ? 2 * t->max_items : TRACK_REGIONS;
		struct vasi_range *v = reallocarray(t->item, max, sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->item = v;
		t->max_items = max;
	}
	t->item[t->nr_items++] = (struct vasi_range){
		.start = start, .pages = (end - start) >> PAGE_SHIFT,
		.kind = kind, .shift = shift, .reason = reason,
	};
	return 0;
}

/* the parts of [@start, @end) that are tracked mappings are holes */
static int item_holes(struct tracker *t, uint64_t start, uint64_t end,
		      uint32_t reason)
{
	size_t i = track_find_line(t, start);
	int r = 0;

	for (; i < t->maps.n && t->maps.v[i].start < end && !r; i++) {
		const struct map_line *line = &t->maps.v[i];

		if (track_is_tracked(line))
			r = item_add(t, line->start > start ? line->start :
							      start,
				     line->end < end ? line->end : end,
				     VASI_KIND_HOLE, PAGE_SHIFT, reason);
	}
	return r;
}

/*
 * Pages in swap, and places with a note of the kernel's that look so: guards,
 * and what is left of a page that a file had in its place.
 */
static int item_swapped(struct tracker *t, const struct scan_region *region,
			uint32_t reason, bool holes)
{
	uint64_t entry[ENTRIES], addr = region->start;
	int r = 0;

	while (addr < region->end && !r) {
		size_t n = (region->end - addr) >> PAGE_SHIFT;

		if (n > ENTRIES)
			n = ENTRIES;
		r = track_pagemap(t, addr, n, entry);
		for (size_t i = 0; i < n && !r; i++, addr += PAGE) {
			bool hole = entry[i] & PAGEMAP_SWAPPED &&
				    (entry[i] & PAGEMAP_TYPE) == PAGEMAP_MARKER;
			uint64_t a, b;

			/* a guard may have come where there was a page */
			if (!hole || holes ||
			    pageset_run(&t->told, addr, addr + PAGE, &a, &b))
				r = item_add(t, addr, addr + PAGE,
					     hole ? VASI_KIND_HOLE :
						    VASI_KIND_DATA,
					     PAGE_SHIFT, reason);
		}
	}
	return r;
}

/* @holes: what has no content of its own is to be told as well */
static int item_region(struct tracker *t, const struct scan_region *region,
		       uint32_t reason, bool holes)
{
	uint8_t shift = region->categories & SCAN_HUGE ? HUGE_SHIFT :
							 PAGE_SHIFT;

	if (region->categories & SCAN_SWAPPED)
		return item_swapped(t, region, reason, holes);
	if (!(region->categories & SCAN_FILE))
		return item_add(t, region->start, region->end,
				region->categories & SCAN_ZERO ?
				VASI_KIND_ZERO : VASI_KIND_DATA, shift, reason);
	if (holes)
		return item_add(t, region->start, region->end, VASI_KIND_HOLE,
				PAGE_SHIFT, reason);
	return 0;
}

/* -- everything in a range that is owed */

static int whole(struct tracker *t, uint64_t start, uint64_t end,
		 uint64_t max_pages, bool wild, uint32_t reason,
		 uint64_t *ret_end)
{
	uint64_t at = start;
	int i, n, r = 0;

	n = t->ops->scan(t, wild ? TRACK_LOOK : TRACK_THERE, start, end,
			 max_pages, ret_end);
	if (n < 0)
		return n;
	for (i = 0; i < n && !r; i++) {
		r = item_holes(t, at, t->region[i].start, reason);
		if (!r)
			r = item_region(t, &t->region[i], reason, true);
		at = t->region[i].end;
	}
	return r ? r : item_holes(t, at, *ret_end, reason);
}

/* -- what changed in a range where all was told */

static int told_add(struct tracker *t, struct spans *to_set, uint64_t start,
		    uint64_t end)
{
	uint64_t from, to;
	int r = 0;

	while (!r && pageset_run(&t->told, start, end, &from, &to)) {
		r = spans_add(to_set, from, to, VASI_REASON_EVENT);
		start = to;
	}
	return r;
}

/* a marker where there was a page: its content is the file's again */
static int missing_marked(struct tracker *t, uint64_t start, uint64_t end)
{
	uint64_t from, to, entry;
	int r = 0;

	while (!r && pageset_run(&t->told, start, end, &from, &to)) {
		for (; from < to && !r; from += PAGE) {
			r = track_pagemap(t, from, 1, &entry);
			if (!r && entry & PAGEMAP_SWAPPED &&
			    (entry & PAGEMAP_TYPE) == PAGEMAP_MARKER)
				r = spans_add(&t->missing, from, from + PAGE,
					      VASI_REASON_EVENT);
		}
		start = to;
	}
	return r;
}

/*
 * Of a file's private mapping a page goes without becoming nothing: the file's
 * own is at its place, or a marker that keeps it protected.
 *
 * A write to the place of a marker brings a copy of the file's page, protected
 * first; the protection goes when the instruction is tried again. A thread that
 * is stopped in between leaves a page that is another one and looks as the one
 * before. So where threads are stopped, and could write (@doubt), what is there
 * is told whatever it looks like.
 */
static int missing_file(struct tracker *t, uint64_t start, uint64_t end,
			bool doubt)
{
	uint64_t next;
	int i, n, r = 0;

	t->room = TRACK_REGIONS;
	for (; start < end && !r; start = next) {
		n = t->ops->scan(t, TRACK_ALL, start, end, 0, &next);
		if (n < 0)
			return n;
		for (i = 0; i < n && !r; i++) {
			const struct scan_region *x = &t->region[i];

			if (x->categories & SCAN_FILE ||
			    !(x->categories & (SCAN_PRESENT | SCAN_SWAPPED)))
				r = told_add(t, &t->missing, x->start, x->end);
			else if (x->categories & SCAN_SWAPPED)
				r = missing_marked(t, x->start, x->end);
			else if (doubt)
				r = told_add(t, &t->doubt, x->start, x->end);
		}
	}
	return r;
}

static int missing_anon(struct tracker *t, uint64_t start, uint64_t end)
{
	uint64_t next;
	int i, n, r = 0;

	t->room = TRACK_REGIONS;
	for (; start < end && !r; start = next) {
		n = t->ops->scan(t, TRACK_GONE, start, end, 0, &next);
		if (n < 0)
			return n;
		for (i = 0; i < n && !r; i++)
			r = told_add(t, &t->missing, t->region[i].start,
				     t->region[i].end);
	}
	return r;
}

/* pages of [@start, @end) that were told, and are not there any more */
static int find_missing(struct tracker *t, uint64_t start, uint64_t end)
{
	int r = 0;

	t->missing.n = 0;
	t->missing.sorted = 0;
	t->doubt.n = 0;
	t->doubt.sorted = 0;
	while (start < end && !r) {
		size_t i = track_find_line(t, start);
		uint64_t from, to, next = end;
		bool file = false, doubt = false;

		if (i < t->maps.n && t->maps.v[i].start < end) {
			const struct map_line *line = &t->maps.v[i];

			file = line->ino != 0;
			doubt = line->prot & PROT_WRITE && t->host.still &&
				t->host.still(t->host.arg);
			/* anonymous ones in a row are looked at together */
			do
				next = t->maps.v[i++].end;
			while (!file && i < t->maps.n && next < end &&
			       !t->maps.v[i].ino);
			if (next > end)
				next = end;
		}
		/* nothing was told before the first and behind the last */
		if (pageset_run(&t->told, start, next, &from, &to))
			r = file ? missing_file(t, from, next, doubt) :
				   missing_anon(t, from, next);
		start = next;
	}
	return r;
}

static int item_spans(struct tracker *t, struct spans *s, uint8_t kind)
{
	int r = 0;

	/* puts them in order */
	spans_find(s, 0);
	for (size_t k = 0; k < s->n && !r; k++)
		r = item_add(t, s->v[k].start, s->v[k].end, kind, PAGE_SHIFT,
			     s->v[k].reason);
	return r;
}

static int by_start(const void *a, const void *b)
{
	const struct vasi_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/*
 * The order matters: a page that is written after the first look and gone at
 * the second is told as written, and as gone by the next harvest. The other way
 * round it could be told as both at once, and whatever comes last wins.
 */
static int changes(struct tracker *t, uint64_t start, uint64_t end,
		   uint64_t max_pages, uint64_t *ret_end)
{
	size_t first = t->nr_items, written, k;
	int i, n, r = 0;

	n = t->ops->scan(t, TRACK_WRITTEN, start, end, max_pages, ret_end);
	if (n < 0)
		return n;
	for (i = 0; i < n && !r; i++)
		r = item_region(t, &t->region[i], VASI_REASON_DIRTY, false);
	if (!r)
		r = find_missing(t, start, *ret_end);
	written = t->nr_items;
	for (k = first; k < written && !r; k++) {
		const uint64_t from = t->item[k].start;
		const uint64_t to = from + (t->item[k].pages << PAGE_SHIFT);

		r = spans_remove(&t->missing, from, to);
		if (!r)
			r = spans_remove(&t->doubt, from, to);
	}
	if (!r)
		r = item_spans(t, &t->missing, VASI_KIND_HOLE);
	if (!r)
		r = item_spans(t, &t->doubt, VASI_KIND_DATA);
	if (t->nr_items > written)
		qsort(&t->item[first], t->nr_items - first, sizeof(*t->item),
		      by_start);
	return r;
}

/* -- a pass */

int track_read_maps(struct tracker *t)
{
	char *text;
	int r;

	map_text_free(&t->maps);
	t->maps = (struct map_text){};
	r = procfile_read(t->host.proc, "maps", &text, NULL);
	if (!r)
		r = map_text_parse(&t->maps, text);
	if (!r && !t->maps.n)
		r = -ESRCH;
	return r;
}

/* what was told of addresses where nothing is: what comes there is owed */
static int prune(struct tracker *t, uint64_t start, uint64_t end)
{
	uint64_t at = start, from, to;
	int r = 0;

	while (at < end && !r) {
		uint64_t gap_end = end, next = end;
		size_t i = track_find_line(t, at);

		while (i < t->maps.n && !track_is_tracked(&t->maps.v[i]))
			i++;
		if (i < t->maps.n && t->maps.v[i].start < end) {
			gap_end = t->maps.v[i].start;
			next = t->maps.v[i].end;
		}
		while (!r && pageset_run(&t->told, at, gap_end, &from, &to)) {
			r = track_owe(t, from, to, VASI_REASON_EVENT);
			pageset_clear(&t->told, from, to);
		}
		at = next;
	}
	return r;
}

static int begin(struct tracker *t, uint64_t start, uint64_t end)
{
	int r = t->host.gone ? t->host.gone(t->host.arg) : 0;

	if (!r)
		r = track_read_maps(t);
	if (!r)
		r = prune(t, start, end);
	t->room = TRACK_REGIONS;
	if (!r)
		r = t->ops->begin(t, start, end);
	return r;
}

/* one step: a range where all is owed, or where nothing is */
static int step(struct tracker *t, uint64_t start, uint64_t end,
		uint64_t max_pages, bool *ret_whole, uint64_t *ret_end)
{
	const struct span *owed = spans_find(&t->owed, start);
	const struct span *wild;
	uint32_t reason;

	*ret_whole = owed && owed->start <= start;
	if (!*ret_whole) {
		if (owed && owed->start < end)
			end = owed->start;
		return changes(t, start, end, max_pages, ret_end);
	}
	reason = owed->reason;
	if (owed->end < end)
		end = owed->end;
	wild = spans_find(&t->wild, start);
	if (wild && wild->start > start && wild->start < end)
		end = wild->start;
	if (wild && wild->start <= start) {
		if (wild->end < end)
			end = wild->end;
		return whole(t, start, end, max_pages, true, reason, ret_end);
	}
	return whole(t, start, end, max_pages, false, reason, ret_end);
}

static void count(struct tracker *t, const struct vasi_range *r)
{
	if (r->kind == VASI_KIND_HOLE)
		return;
	t->count[VASI_COUNT_REPORTED] += r->pages;
	if (r->reason & VASI_REASON_DIRTY)
		t->count[VASI_COUNT_DIRTY] += r->pages;
	if (r->reason == VASI_REASON_EVENT)
		t->count[VASI_COUNT_EVENT] += r->pages;
}

static int tell(struct tracker *t, const struct vasi_range *r)
{
	uint64_t end = r->start + (r->pages << PAGE_SHIFT);

	count(t, r);
	if (r->kind != VASI_KIND_HOLE)
		return pageset_set(&t->told, r->start, end);
	pageset_clear(&t->told, r->start, end);
	return 0;
}

/* Hands items out as far as there is room; the rest is owed. */
static int hand_out(struct tracker *t, struct vasi_range *vec, size_t len,
		    size_t *n, uint64_t *pages, uint64_t *end)
{
	size_t i;
	int r = 0;

	for (i = 0; i < t->nr_items && !r; i++) {
		struct vasi_range *item = &t->item[i];
		struct vasi_range *last = *n ? &vec[*n - 1] : NULL;

		if (last && joins(last, item->start, item->kind, item->shift)) {
			last->pages += item->pages;
			last->reason |= item->reason;
		} else if (*n < len) {
			vec[(*n)++] = *item;
		} else {
			break;
		}
		if (item->kind == VASI_KIND_DATA)
			*pages += item->pages;
		r = tell(t, item);
	}
	if (i < t->nr_items && !r)
		*end = t->item[i].start;
	for (; i < t->nr_items && !r; i++)
		r = track_owe(t, t->item[i].start, t->item[i].start +
			      (t->item[i].pages << PAGE_SHIFT),
			      t->item[i].reason);
	return r;
}

/* @ret_n tells how many entries of @vec are good, also after a failure */
static int harvest(struct tracker *t, uint64_t start, uint64_t end,
		   uint64_t max_pages, struct vasi_range *vec, size_t len,
		   size_t *ret_n, uint64_t *ret_at)
{
	uint64_t at = start, from, to, pages = 0;
	bool full = false, all;
	int r = 0;

	while (!r && !full && track_next_run(t, &at, end, &from, &to)) {
		while (!r && !full && from < to) {
			uint64_t next, seen, left = 0;

			if (max_pages)
				left = max_pages - pages;
			/* no more than can be told: the rest would be owed */
			t->room = (len - *ret_n + 1) / 2;
			if (!t->room || t->room > TRACK_REGIONS)
				t->room = t->room ? TRACK_REGIONS : 1;
			t->nr_items = 0;
			r = step(t, from, to, left, &all, &seen);
			if (r)
				break;
			next = seen;
			r = hand_out(t, vec, len, ret_n, &pages, &next);
			if (all && !r)
				r = spans_remove(&t->owed, from, next);
			full = next < seen || (max_pages && pages >= max_pages);
			from = next;
		}
		at = from;
	}
	*ret_at = full ? at : end;
	return r;
}

int tracker_harvest(struct tracker *t, uint64_t start, uint64_t end,
		    uint64_t max_pages, struct vasi_range *vec, size_t len,
		    size_t *ret_n, uint64_t *ret_end)
{
	uint64_t at = start, to = end && end < TOP ? end : TOP;
	int64_t begun = now_ns();
	size_t n = 0;
	int r = 0;

	if (!len || (start | end) & (PAGE - 1) || (end && end <= start))
		return -EINVAL;
	pthread_mutex_lock(&t->lock);
	if (!t->started)
		r = -EBUSY;
	else if (start < to && (!start || start != t->next))
		r = begin(t, start, to);
	if (!r && start < to)
		r = harvest(t, start, to, max_pages, vec, len, &n, &at);
	else
		at = to;
	if (!r) {
		*ret_n = n;
		*ret_end = at < to ? at : end ? end : TOP;
		t->next = at < to ? at : UINT64_MAX;
		t->count[VASI_COUNT_HARVESTS]++;
	} else if (t->started) {
		/* what was found and protected until then is not lost */
		t->next = UINT64_MAX;
		if (track_owe(t, start, to, VASI_REASON_MARK))
			t->started = false;
	}
	t->count[VASI_COUNT_HARVEST_NS] += (uint64_t)(now_ns() - begun);
	pthread_mutex_unlock(&t->lock);
	return r;
}
