// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking by asynchronous write protection (Linux 6.7)
 *
 * The guest makes a userfaultfd, by one system call, and gives it up again; a
 * copy is kept here, and its life is that of the tracker: when the mover dies
 * the kernel takes all protection away. Every private mapping is registered.
 * The first write to a protected page takes the protection off, without
 * anybody being asked; one call finds such pages and protects them again.
 *
 * What is not populated is not protected, so that a large reservation costs no
 * page tables: a page that comes there counts as written.
 *
 * Protection ends when a mapping does. One that is not registered is new, also
 * when it looks as the one before: all of it is reported.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "guest/track.h"
#include "lib/cleanup.h"

#define SELF_PAGES	4
/* regions of the first look at what is written */
#define TRACK_ROUGH	512
#define TRACK_NEAR	(128 * PAGE)
#define PAGE		4096ULL
#define FEATURES	(SCAN_FEATURE_WP_ASYNC | SCAN_FEATURE_WP_UNPOPULATED)

static int handshake(int uffd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };

	if (ioctl(uffd, UFFDIO_API, &api))
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	return 0;
}

static int protect(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = { start, end - start },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static int scan_pages(int pagemap, struct scan_arg *arg)
{
	int n;

	do
		n = ioctl(pagemap, SCAN_IOCTL, arg);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* those of @at that are written, and now protected: their number, *@ret_first */
static int find_written(int pagemap, const volatile char *at, uint64_t *ret_first)
{
	struct scan_region region = {};
	struct scan_arg arg = {
		.size = sizeof(arg), .flags = SCAN_PROTECT,
		.start = (uintptr_t)at, .end = (uintptr_t)at + SELF_PAGES * PAGE,
		.vec = (uintptr_t)&region, .vec_len = 1,
		.mask = SCAN_WRITTEN, .anyof = SCAN_PRESENT | SCAN_SWAPPED,
		.ret = SCAN_WRITTEN,
	};
	int r = scan_pages(pagemap, &arg);

	*ret_first = (region.start - arg.start) / PAGE;
	return r < 0 ? r : (int)((region.end - region.start) / PAGE);
}

/* a page of our own is protected, written, and found */
static int try_it(int uffd, int pagemap, volatile char *at)
{
	const uint64_t start = (uintptr_t)at;
	uint64_t first;
	int r;

	at[0] = 1;
	at[PAGE] = 1;
	r = protect(uffd, start, start + SELF_PAGES * PAGE);
	if (!r)
		r = find_written(pagemap, at, &first);
	if (r < 0)
		return r;
	at[PAGE] = 2;
	r = find_written(pagemap, at, &first);
	if (r < 0)
		return r;
	return r == 1 && first == 1 ? 0 : -EOPNOTSUPP;
}

/*
 * The two pages of try_it(), which are protected, go to another place. Older
 * kernels end the registration there but leave the bit of each page, with which
 * it is taken for one that nobody writes to when it is registered again.
 */
static int try_move(int uffd, int pagemap, void *at, void *to)
{
	const size_t len = SELF_PAGES * PAGE;
	uint64_t first;
	int r;

	if (mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return -errno;
	r = protect(uffd, (uintptr_t)to, (uintptr_t)to + len);
	if (!r)
		r = find_written(pagemap, to, &first);
	if (r < 0)
		return r;
	return r >= 2 && !first ? 0 : -EOPNOTSUPP;
}

/* likewise, of the tracker of a mover that died */
static int try_close(int *uffd, int pagemap, void *at)
{
	uint64_t first;
	int r;

	close(*uffd);
	*uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (*uffd < 0)
		return -errno;
	r = handshake(*uffd);
	if (!r)
		r = protect(*uffd, (uintptr_t)at,
			    (uintptr_t)at + SELF_PAGES * PAGE);
	if (!r)
		r = find_written(pagemap, at, &first);
	if (r < 0)
		return r;
	return r >= 2 && !first ? 0 : -EOPNOTSUPP;
}

static int wpasync_probe(const char **ret_what)
{
	_cleanup_close_ int uffd = -1, pagemap = -1;
	const size_t len = SELF_PAGES * PAGE;
	char *at;
	int r;

	*ret_what = "userfaultfd()";
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0)
		return -errno;
	*ret_what = "UFFD_FEATURE_WP_ASYNC (Linux 6.7)";
	r = handshake(uffd);
	if (r)
		return r;
	*ret_what = "ioctl PAGEMAP_SCAN (Linux 6.7)";
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return -errno;
	at = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	r = try_it(uffd, pagemap, at);
	if (!r) {
		*ret_what = "protection that ends with mremap() (Linux 6.12.10)";
		r = try_move(uffd, pagemap, at, at + len);
	}
	if (!r) {
		*ret_what = "protection that ends with close() (Linux 6.9)";
		r = try_close(&uffd, pagemap, at + len);
	}
	munmap(at, 2 * len);
	return r;
}

static int wpasync_start(struct tracker *t)
{
	int r;

	if (t->uffd >= 0)
		return 0;
	/* nothing ever waits for an answer: no privilege is needed */
	t->uffd = t->host.uffd(t->host.arg, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (t->uffd < 0) {
		r = t->uffd;
		t->uffd = -1;
		return r;
	}
	r = handshake(t->uffd);
	if (r) {
		close(t->uffd);
		t->uffd = -1;
	}
	return r;
}

/* The close would do, unless a fork has made another copy in a bad moment. */
static void wpasync_stop(struct tracker *t)
{
	uint64_t at = 0, from, to;

	if (t->uffd < 0)
		return;
	if (!track_read_maps(t)) {
		while (track_next_run(t, &at, UINT64_MAX, &from, &to)) {
			struct uffdio_range range = { from, to - from };

			ioctl(t->uffd, UFFDIO_UNREGISTER, &range);
		}
	}
	close(t->uffd);
	t->uffd = -1;
}

/*
 * The kernel collects 512 regions at a time. Where it went on after that and
 * came to the end, it tells the last place where it had stopped instead: what
 * is behind that would be told twice.
 */
static int scan_into(struct tracker *t, struct scan_arg *arg,
		     struct scan_region *region, size_t room)
{
	uint64_t pages = 0;
	int i, n;

	arg->size = sizeof(*arg);
	arg->vec = (uintptr_t)region;
	arg->vec_len = room;
	n = scan_pages(t->pagemap, arg);
	if (n < 0)
		return n;
	for (i = 0; i < n; i++)
		pages += (region[i].end - region[i].start) / PAGE;
	if ((size_t)n < room && (!arg->max_pages || pages < arg->max_pages))
		arg->walk_end = arg->end;
	else if (arg->walk_end < region[n - 1].end)
		arg->walk_end = region[n - 1].end;
	return arg->walk_end <= arg->start ? -EPROTO : n;
}

static int scan(struct tracker *t, struct scan_arg *arg)
{
	return scan_into(t, arg, t->region, t->room);
}

/*
 * What is written is asked for first, and of what kind it is only there: that
 * takes a look at each page itself, and ten times as long (10 ms for 1 GiB).
 * What is written between the two looks is in the next harvest. The first look
 * tells as well where no page is, so that there is no third one for that.
 *
 * Scans of a few pages cost more than pages that lie between them.
 */
static int scan_written(struct tracker *t, struct scan_arg *arg)
{
	const uint64_t there = SCAN_PRESENT | SCAN_SWAPPED;
	const uint64_t max_pages = arg->max_pages;
	struct scan_region rough[TRACK_ROUGH];
	struct scan_arg look = {
		.start = arg->start, .end = arg->end,
		/* written, or not present */
		.inverted = SCAN_PRESENT, .anyof = SCAN_WRITTEN | SCAN_PRESENT,
		.ret = SCAN_WRITTEN | there,
	};
	uint64_t pages = 0;
	size_t found = 0;
	int i, k, n, wanted = 0, r = 0;

	n = scan_into(t, &look, rough, TRACK_ROUGH);
	if (n < 0)
		return n;
	t->gone.n = 0;
	t->gone.sorted = 0;
	t->looked_from = arg->start;
	t->looked_to = look.walk_end;
	for (i = 0; i < n && !r; i++) {
		if (!(rough[i].categories & there))
			r = spans_add(&t->gone, rough[i].start, rough[i].end, 0);
		else if (rough[i].categories & SCAN_WRITTEN)
			rough[wanted++] = rough[i];
	}
	if (r)
		return r;
	arg->walk_end = look.walk_end;
	for (i = 0; i < wanted && found < t->room; ) {
		arg->start = rough[i].start;
		do
			arg->end = rough[i++].end;
		while (i < wanted && rough[i].start - arg->end <= TRACK_NEAR);
		arg->max_pages = max_pages ? max_pages - pages : 0;
		k = scan_into(t, arg, t->region + found, t->room - found);
		if (k < 0)
			return k;
		for (; k; k--, found++)
			pages += (t->region[found].end -
				  t->region[found].start) / PAGE;
		/* no room for more, or as many as were wanted */
		if (arg->walk_end < arg->end || (max_pages && pages >= max_pages))
			return (int)found;
		arg->walk_end = i < wanted ? arg->end : look.walk_end;
	}
	return (int)found;
}

/* where no page was at the last look */
static int scan_gone(struct tracker *t, uint64_t start, uint64_t end,
		     uint64_t *ret_end)
{
	const struct span *gone = spans_find(&t->gone, start);
	size_t n = 0;

	*ret_end = end;
	for (; gone && gone < t->gone.v + t->gone.n && gone->start < end; gone++) {
		if (n == t->room) {
			*ret_end = gone->start;
			break;
		}
		t->region[n++] = (struct scan_region){
			.start = gone->start > start ? gone->start : start,
			.end = gone->end < end ? gone->end : end,
		};
	}
	return (int)n;
}

static int wpasync_scan(struct tracker *t, enum track_scan what,
			uint64_t start, uint64_t end, uint64_t max_pages,
			uint64_t *ret_end)
{
	const uint64_t there = SCAN_PRESENT | SCAN_SWAPPED;
	struct scan_arg arg = {
		.start = start, .end = end, .max_pages = max_pages,
		.ret = there | SCAN_FILE | SCAN_ZERO | SCAN_HUGE,
	};
	int n;

	switch (what) {
	case TRACK_WRITTEN:
		arg.mask = SCAN_WRITTEN;
		/* fall through */
	case TRACK_THERE:
		arg.flags = SCAN_PROTECT;
		/* fall through */
	case TRACK_LOOK:
		arg.anyof = there;
		break;
	case TRACK_GONE:
		if (start >= t->looked_from && end <= t->looked_to)
			return scan_gone(t, start, end, ret_end);
		arg.inverted = there;
		arg.mask = there;
		arg.ret = there;
		break;
	case TRACK_ALL:
		break;
	}
	n = what == TRACK_WRITTEN ? scan_written(t, &arg) : scan(t, &arg);
	if (n >= 0)
		*ret_end = arg.walk_end;
	return n;
}

/*
 * Registers one by one what could not be at once. What cannot be registered is
 * reported each time, be it for want of memory, or of mappings: a part of one
 * that is registered becomes a mapping of its own.
 */
static int protect_lines(struct tracker *t, uint64_t start, uint64_t end)
{
	size_t i = track_find_line(t, start);
	int r = 0;

	for (; i < t->maps.n && t->maps.v[i].start < end && !r; i++) {
		const struct map_line *line = &t->maps.v[i];
		uint64_t from = line->start > start ? line->start : start;
		uint64_t to = line->end < end ? line->end : end;

		if (track_is_tracked(line) && protect(t->uffd, from, to))
			r = spans_add(&t->wild, from, to, 0);
	}
	return r;
}

/* finds mappings in [@start, @end) that are not registered */
static int protect_new(struct tracker *t, uint64_t start, uint64_t end)
{
	int i, n, r = 0;

	while (start < end && !r) {
		struct scan_arg arg = {
			.start = start, .end = end, .ret = SCAN_WPALLOWED,
			.inverted = SCAN_WPALLOWED, .mask = SCAN_WPALLOWED,
		};

		n = scan(t, &arg);
		if (n < 0)
			return n;
		for (i = 0; i < n && !r; i++) {
			const struct scan_region *x = &t->region[i];
			uint64_t a, b;

			r = track_owe(t, x->start, x->end,
				      pageset_run(&t->told, x->start, x->end,
						  &a, &b) ? VASI_REASON_EVENT :
							    VASI_REASON_FIRST);
			if (r)
				return r;
			if (protect(t->uffd, x->start, x->end))
				r = protect_lines(t, x->start, x->end);
		}
		start = arg.walk_end;
	}
	return r;
}

/* an exec or an exit leaves an address space behind that has nothing in it */
static int still_there(struct tracker *t)
{
	struct uffdio_writeprotect none = {
		.range = { 0x7fffffffe000, PAGE },
	};

	if (!ioctl(t->uffd, UFFDIO_WRITEPROTECT, &none) || errno != ESRCH)
		return 0;
	return -ESRCH;
}

static int wpasync_begin(struct tracker *t, uint64_t start, uint64_t end)
{
	uint64_t from, to;
	int r = spans_remove(&t->wild, start, end);

	while (!r && track_next_run(t, &start, end, &from, &to))
		r = protect_new(t, from, to);
	return r ? r : still_there(t);
}

const struct track_ops track_wpasync = {
	.name = "wpasync",
	.probe = wpasync_probe,
	.start = wpasync_start,
	.stop = wpasync_stop,
	.begin = wpasync_begin,
	.scan = wpasync_scan,
};
