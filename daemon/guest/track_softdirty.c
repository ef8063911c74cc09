// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking by soft-dirty bits, for kernels that have nothing better
 *
 * The bits are read and cleared by two calls. What is written between the two
 * would be lost: the guest is stopped for both, for about 10 ms per GiB, once
 * for a whole pass.
 *
 * No bit tells of a page that was given back, and of which the guest then reads
 * zeroes: the zero page is at its place, and has to be known by its number.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "guest/track.h"
#include "lib/cleanup.h"

#define PAGE		4096ULL
#define ENTRIES		8192	/* of one read */

#define HUGE_PAGES	512ULL
#define KPF_ZERO_PAGE	(1ULL << 24)

/* page frame of the zero page */
static uint64_t zero_frame;
/* first one of the huge zero page, as last seen: it comes and goes */
static _Atomic uint64_t huge_zero_frame;

static int clear_bits(int proc)
{
	_cleanup_close_ int fd = openat(proc, "clear_refs",
					O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return write(fd, "4", 1) == 1 ? 0 : -errno;
}

static int entry_of(int pagemap, const volatile char *at, uint64_t *ret)
{
	off_t pos = (off_t)((uintptr_t)at / PAGE * sizeof(*ret));

	return pread(pagemap, ret, sizeof(*ret), pos) == sizeof(*ret) ? 0 : -EIO;
}

/* a page of our own is written, cleared, and written again */
static int try_it(int proc, int pagemap, volatile char *at)
{
	uint64_t written, cleared, again, zero;

	at[0] = 1;
	if (entry_of(pagemap, at, &written) || clear_bits(proc) ||
	    entry_of(pagemap, at, &cleared))
		return -EOPNOTSUPP;
	at[0] = 2;
	if (entry_of(pagemap, at, &again))
		return -EOPNOTSUPP;
	/* a read of what was never written maps the zero page */
	if (at[PAGE] || entry_of(pagemap, at + PAGE, &zero) ||
	    !(zero & PAGEMAP_PRESENT))
		return -EOPNOTSUPP;
	zero_frame = zero & PAGEMAP_PFN;
	if (!zero_frame)
		return -EPERM;
	return written & PAGEMAP_SOFT_DIRTY && again & PAGEMAP_SOFT_DIRTY &&
	       !(cleared & PAGEMAP_SOFT_DIRTY) ? 0 : -EOPNOTSUPP;
}

static int softdirty_probe(const char **ret_what)
{
	_cleanup_close_ int proc = open("/proc/self",
					O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int pagemap = open("/proc/self/pagemap",
					   O_RDONLY | O_CLOEXEC);
	void *at;
	int r;

	*ret_what = "soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)";
	if (proc < 0 || pagemap < 0)
		return -errno;
	at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	r = try_it(proc, pagemap, at);
	munmap(at, 2 * PAGE);
	return r;
}

static int softdirty_start(struct tracker *t)
{
	return clear_bits(t->host.proc);
}

/* bits that nobody looks at do no harm */
static void softdirty_stop(struct tracker *t)
{
	(void)t;
}

uint64_t softdirty_categories(uint64_t entry, uint64_t zero)
{
	uint64_t c = 0;

	if (entry & PAGEMAP_PRESENT) {
		c = SCAN_PRESENT;
		if (zero && (entry & PAGEMAP_PFN) == zero)
			c |= SCAN_ZERO;
		else if (entry & PAGEMAP_FILE)
			c |= SCAN_FILE;
	} else if (entry & PAGEMAP_SWAPPED) {
		c = SCAN_SWAPPED;
	}
	if (entry & PAGEMAP_SOFT_DIRTY)
		c |= SCAN_WRITTEN;
	return c;
}

static bool wanted(enum track_scan what, uint64_t categories)
{
	bool there = categories & (SCAN_PRESENT | SCAN_SWAPPED);

	switch (what) {
	case TRACK_WRITTEN:
		return categories & SCAN_WRITTEN;
	case TRACK_THERE:
	case TRACK_LOOK:
		return there;
	case TRACK_GONE:
		/* given back, then read */
		return !there || categories & SCAN_ZERO;
	case TRACK_ALL:
		break;
	}
	return true;
}

/* is the huge page that @entry, of @addr, seems to be in the one of zeroes? */
static void look_for_huge_zero(uint64_t addr, uint64_t entry)
{
	const uint64_t frame = entry & PAGEMAP_PFN;
	const uint64_t first = frame - addr / PAGE % HUGE_PAGES;
	_cleanup_close_ int fd = -1;
	uint64_t flags;

	if (!(entry & PAGEMAP_PRESENT) || first % HUGE_PAGES || !first)
		return;
	fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (pread(fd, &flags, sizeof(flags),
		  (off_t)(frame * sizeof(flags))) != sizeof(flags))
		return;
	if (flags & KPF_ZERO_PAGE)
		huge_zero_frame = first;
	else if (huge_zero_frame == first)
		huge_zero_frame = 0;
}

static uint64_t categories_of(uint64_t addr, uint64_t entry, bool first)
{
	uint64_t c;

	/* a mapping of a huge page begins at such an address */
	if (first || !(addr / PAGE % HUGE_PAGES))
		look_for_huge_zero(addr, entry);
	c = softdirty_categories(entry, zero_frame);
	if (entry & PAGEMAP_PRESENT && huge_zero_frame &&
	    (entry & PAGEMAP_PFN) / HUGE_PAGES == huge_zero_frame / HUGE_PAGES)
		c = (c & ~(uint64_t)SCAN_FILE) | SCAN_ZERO;
	return c;
}

/* Runs of what is wanted; *@addr is where the entries are read from. */
static int classify(struct tracker *t, enum track_scan what, uint64_t *addr,
		    uint64_t end, uint64_t max_pages)
{
	uint64_t entry[ENTRIES], pages = 0;
	int n = 0;

	while (*addr < end) {
		size_t i, len = (end - *addr) / PAGE;
		int r;

		if (len > ENTRIES)
			len = ENTRIES;
		r = track_pagemap(t, *addr, len, entry);
		if (r)
			return r;
		for (i = 0; i < len; i++, *addr += PAGE) {
			uint64_t c = categories_of(*addr, entry[i], !i);
			struct scan_region *last = n ? &t->region[n - 1] : NULL;

			if (!wanted(what, c))
				continue;
			if (what != TRACK_WRITTEN)
				c &= ~(uint64_t)SCAN_WRITTEN;
			if (max_pages && pages == max_pages)
				return n;
			if (last && last->end == *addr &&
			    last->categories == c) {
				last->end += PAGE;
			} else if (n == (int)t->room) {
				return n;
			} else {
				t->region[n++] = (struct scan_region){
					*addr, *addr + PAGE, c,
				};
			}
			pages++;
		}
	}
	return n;
}

/* what was written is owed since the begin of the pass */
static int softdirty_scan(struct tracker *t, enum track_scan what,
			  uint64_t start, uint64_t end, uint64_t max_pages,
			  uint64_t *ret_end)
{
	size_t i = track_find_line(t, start);
	uint64_t at = start;
	int n = 0;

	*ret_end = end;
	if (what == TRACK_WRITTEN)
		return 0;
	/* places without a mapping have no entries worth reading */
	while (i < t->maps.n && t->maps.v[i].end <= start)
		i++;
	if (i < t->maps.n && t->maps.v[i].start > at)
		at = t->maps.v[i].start;
	if (i == t->maps.n || at >= end)
		return 0;
	if (t->maps.v[i].end < end)
		end = t->maps.v[i].end;
	n = classify(t, what, &at, end, max_pages);
	*ret_end = at;
	return n;
}

static int collect(struct tracker *t)
{
	int r = 0;

	for (size_t i = 0; i < t->maps.n && !r; i++) {
		const struct map_line *line = &t->maps.v[i];
		uint64_t at = line->start;

		while (track_is_tracked(line) && at < line->end && !r) {
			int n = classify(t, TRACK_WRITTEN, &at, line->end, 0);

			if (n < 0)
				return n;
			for (int k = 0; k < n && !r; k++)
				r = track_owe(t, t->region[k].start,
					      t->region[k].end,
					      VASI_REASON_DIRTY);
		}
	}
	return r;
}

static int softdirty_begin(struct tracker *t, uint64_t start, uint64_t end)
{
	int r = t->host.stop(t->host.arg);

	(void)start;
	(void)end;
	if (r)
		return r;
	/* the mappings were listed while the guest ran */
	r = track_read_maps(t);
	if (!r)
		r = collect(t);
	if (!r)
		r = clear_bits(t->host.proc);
	t->host.go(t->host.arg);
	return r;
}

const struct track_ops track_softdirty = {
	.name = "softdirty",
	.probe = softdirty_probe,
	.start = softdirty_start,
	.stop = softdirty_stop,
	.begin = softdirty_begin,
	.scan = softdirty_scan,
};
