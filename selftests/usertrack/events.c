// SPDX-License-Identifier: GPL-2.0
/*
 * What each thing that can happen to memory is reported as: a row per event
 */
#include <fcntl.h>
#include <linux/mman.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tap.h"
#include "usertrack.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define ANY	UINT64_MAX

enum what {
	MAP, WRITE, READ, ADVISE, UNMAP, OVER_MAP, REMAP, PROTECT, FORK_HOLD,
	FORK_END, BRK, FILE_MAP, MAP_AT, STACK, LOCK, GROW, EXEC, SPLIT,
};

static int64_t map_alone(int64_t bytes, int64_t advice)
{
	char *q = mmap(NULL, (size_t)bytes + 4 * HUGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	q = (char *)(((uintptr_t)q + 2 * HUGE - 1) & ~(HUGE - 1));
	if (mmap(q, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_FIXED, -1, 0) != q)
		return -1;
	madvise(q, (size_t)bytes, (int)advice);
	return (int64_t)q;
}

static int64_t write_pages(char *p, int64_t n, int64_t value)
{
	for (int64_t i = 0; i < n; i++)
		*(int64_t *)(p + i * (int64_t)PAGE) = value + i;
	return 0;
}

/* pages of the stack below what is in use */
static __attribute__((noinline)) int64_t use_stack(int64_t n)
{
	volatile char buf[64 * PAGE];

	for (int64_t i = 0; i < n; i++)
		buf[i * (int64_t)PAGE] = (char)i;
	return (int64_t)buf;
}

static int64_t fork_hold(pid_t *child)
{
	*child = fork();
	while (!*child)
		pause();
	return *child < 0;
}

static int64_t file_map(int64_t at)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char *q = mmap((void *)at, 8 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | (at ? MAP_FIXED : 0), fd, 0);

	close(fd);
	return (int64_t)q;
}

/* as many mappings as one may have; -1: there are not pages enough for that */
static int64_t split(char *p, int64_t pages)
{
	for (int64_t i = 1; i < pages; i += 2)
		if (mprotect(p + i * (int64_t)PAGE, PAGE, PROT_READ))
			return 0;
	return -1;
}

static int64_t act(int what, int64_t *arg)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	char *p = (char *)arg[0], *q;
	size_t len = (size_t)arg[1] * PAGE;
	static pid_t child;
	int64_t i, sum = 0;

	switch (what) {
	case MAP: /* aligned, alone in its 2 MiB slots; arg: bytes, advice */
		return map_alone(arg[0], arg[1]);
	case WRITE:
		return write_pages(p, arg[1], arg[2]);
	case READ:
		for (i = 0; i < arg[1]; i++)
			sum += *(volatile int64_t *)(p + i * (int64_t)PAGE);
		return sum;
	case ADVISE:
		return madvise(p, len, (int)arg[2]) ? -errno : 0;
	case UNMAP:
		return munmap(p, len);
	case OVER_MAP:
		return mmap(p, len, PROT_READ | PROT_WRITE, anon | MAP_FIXED,
			    -1, 0) != p;
	case REMAP:
		return mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			      arg[2]) != (void *)arg[2];
	case GROW:
		q = mremap(p, len, len + (size_t)arg[2] * PAGE, 0);
		return q == MAP_FAILED ? -errno : 0;
	case PROTECT:
		return mprotect(p, len, (int)arg[2]);
	case FORK_HOLD:
		return fork_hold(&child);
	case FORK_END:
		kill(child, SIGKILL);
		return waitpid(child, NULL, 0) != child;
	case BRK:
		q = sbrk(arg[0]);
		if (arg[0] > 0)
			for (i = 0; i < arg[0]; i += (int64_t)PAGE)
				q[i] = 1;
		return (int64_t)q;
	case FILE_MAP:
		return file_map(arg[0]);
	case MAP_AT:
		q = mmap((void *)arg[0], (size_t)arg[1], (int)arg[2],
			 anon | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		return q == MAP_FAILED ? -errno : (int64_t)q;
	case STACK:
		return use_stack(arg[0]);
	case LOCK:
		return mlock(p, len);
	case SPLIT:
		return split(p, arg[1]);
	case EXEC:
		execl("/bin/sleep", "sleep", "60", NULL);
		return -errno;
	}
	return -1;
}

static struct doer guest;
static uint64_t low, high;

static bool as_said(uint64_t is, uint64_t said)
{
	return said == ANY || is == said;
}

static void row_at(const char *name, int64_t result, uint64_t start,
		   uint64_t end, uint64_t data, uint64_t zero, uint64_t hole)
{
	struct tally t = {};
	int ret = harvest(&guest, start, end, &t, NULL, NULL);

	if (!ok(!ret && !result && as_said(t.data, data) &&
		as_said(t.zero, zero) && as_said(t.hole, hole), "%s", name))
		note("ret %d result %lld data %llu zero %llu hole %llu why %x",
		     ret, (long long)result, (unsigned long long)t.data,
		     (unsigned long long)t.zero, (unsigned long long)t.hole,
		     t.reasons);
}

static void row(const char *name, int64_t result, uint64_t data, uint64_t zero,
		uint64_t hole)
{
	row_at(name, result, low, high, data, zero, hole);
}

#define DO(what, a, b, c) doer_do(&guest, what, (int64_t)(a), \
				  (int64_t)(b), (int64_t)(c))

static uint64_t fresh(uint64_t bytes, int advice)
{
	int64_t at = DO(MAP, bytes, advice, 0);

	must(at != -1);
	DO(WRITE, at, bytes / PAGE, 1000);
	low = (uint64_t)at;
	high = low + bytes;
	return low;
}

static void other_process(uint64_t at)
{
	char data[PAGE];
	struct iovec local = { data, PAGE }, remote = { (void *)at, PAGE };

	memset(data, 7, PAGE);
	must(process_vm_writev(guest.pid, &local, 1, &remote, 1, 0) ==
	     (ssize_t)PAGE);
}

static void small_pages(void)
{
	uint64_t a = fresh(2 * HUGE, MADV_NOHUGEPAGE);
	struct tally t = {};

	must(!harvest(&guest, low, high, &t, NULL, NULL));
	ok(t.data == 1024 && t.reasons == VASI_REASON_FIRST,
	   "the first harvest reports everything");
	row("an idle guest has nothing to report", 0, 0, 0, 0);
	row("a write of 3 pages", DO(WRITE, a + 5 * PAGE, 3, 7), 3, 0, 0);
	row("MADV_DONTNEED", DO(ADVISE, a, 16, MADV_DONTNEED), 0, 0, 16);
	row("which is told once", 0, 0, 0, 0);
	row("read of a hole", DO(READ, a, 16, 0), 0, 16, 0);
	row("write to a zero page", DO(WRITE, a, 1, 1), 1, 0, 0);
	DO(WRITE, a, 16, 1);
	must(!settle(&guest, low, high));
	DO(ADVISE, a + 16 * PAGE, 16, MADV_DONTNEED);
	row("MADV_DONTNEED, then a read", DO(READ, a + 16 * PAGE, 16, 0), 0,
	    16, 0);
	DO(ADVISE, a + 16 * PAGE, 16, MADV_DONTNEED);
	row("MADV_DONTNEED, then a write", DO(WRITE, a + 16 * PAGE, 4, 0), 4,
	    0, 12);
	DO(ADVISE, a, 1024, MADV_DONTNEED);
	row("MADV_DONTNEED of everything", 0, 0, 0, 1012);
	DO(WRITE, a, 1024, 1);
	row("written again", 0, 1024, 0, 0);
	row("MADV_FREE", DO(ADVISE, a + 64 * PAGE, 16, MADV_FREE), ANY, 0, ANY);
	row("a write behind MADV_FREE", DO(WRITE, a + 64 * PAGE, 16, 3), 16, 0,
	    0);
	other_process(a + 77 * PAGE);
	row("process_vm_writev() by another process", 0, 1, 0, 0);
	must(!mark(&guest, a + 10 * PAGE, 2));
	must(!mark(&guest, a + 12 * PAGE, 1));
	row("pages that were given back", 0, 3, 0, 0);
	row("are reported once", 0, 0, 0, 0);
	must(pwrite(guest.memfd, "x", 1, (off_t)a) == 1);
	row("a write to /proc/PID/mem", 0, 1, 0, 0);
}

static void copy_on_write(void)
{
	uint64_t a = fresh(HUGE, MADV_NOHUGEPAGE);

	must(!settle(&guest, low, high));
	must(!DO(FORK_HOLD, 0, 0, 0));
	must(!harvest(&guest, low, high, NULL, NULL, NULL));
	row("copy on write", DO(WRITE, a + 128 * PAGE, 16, 5), 16, 0, 0);
	must(!DO(FORK_END, 0, 0, 0));
	row("the end of a child", 0, 0, 0, 0);
	row("a write where nobody shares any more",
	    DO(WRITE, a + 200 * PAGE, 16, 5), 16, 0, 0);
}

static void mappings(void)
{
	uint64_t a = fresh(2 * HUGE, MADV_NOHUGEPAGE), b;

	must(!settle(&guest, low, high));
	row("write-protecting all of a mapping", DO(PROTECT, a, 1024, PROT_READ),
	    0, 0, 0);
	row("and giving the right back", DO(PROTECT, a, 1024, PROT_READ |
	    PROT_WRITE), 0, 0, 0);
	row("mprotect that splits the mapping", DO(PROTECT, a + 16 * PAGE, 16,
	    PROT_READ), 0, 0, 0);
	row("mprotect back", DO(PROTECT, a + 16 * PAGE, 16, PROT_READ |
	    PROT_WRITE), 0, 0, 0);
	row("a write there", DO(WRITE, a + 16 * PAGE, 16, 0), 16, 0, 0);
	DO(PROTECT, a, 1024, PROT_NONE);
	row("a page of PROT_NONE keeps its content", 0, 0, 0, 0);
	must(!mark(&guest, a, 2));
	row("and can be given back", 0, 2, 0, 0);
	DO(PROTECT, a, 1024, PROT_READ | PROT_WRITE);
	row("munmap out of a mapping", DO(UNMAP, a + 32 * PAGE, 16, 0), 0, 0,
	    0);
	row("mmap over what was unmapped", DO(OVER_MAP, a + 32 * PAGE, 16, 0),
	    0, 0, 16);
	DO(WRITE, a + 32 * PAGE, 4, 0);
	row("and written", 0, 4, 0, 0);
	DO(OVER_MAP, a + 64 * PAGE, 16, 0);
	row("mmap over what is mapped", DO(WRITE, a + 70 * PAGE, 2, 0), 2, 0,
	    14);
	DO(UNMAP, a, 1024, 0);
	row("munmap of all", 0, 0, 0, 0);
	DO(OVER_MAP, a, 1024, 0);
	row("mmap at the same place, never written", 0, 0, 0, 1024);
	DO(WRITE, a, 1024, 0);
	must(!settle(&guest, low, high));
	DO(UNMAP, a, 1024, 0);
	DO(OVER_MAP, a, 1024, 0);
	row("munmap and mmap within a round", DO(WRITE, a, 10, 0), 10, 0, 1014);

	b = (uint64_t)DO(MAP, HUGE, MADV_NOHUGEPAGE, 0);
	DO(WRITE, a, 1024, 0);
	DO(WRITE, b, 512, 3);
	must(!settle(&guest, b, b + HUGE));
	must(!settle(&guest, low, high));
	row("mremap", DO(REMAP, a + HUGE, 16, b), 0, 0, 0);
	row_at("mremap, where it goes", 0, b, b + HUGE, 16, 0, 0);
	DO(WRITE, b, 2, 0);
	row_at("mremap, a write there", 0, b, b + HUGE, 2, 0, 0);
	/* a mapping that grows by what touches it is one with it in time */
	DO(UNMAP, high, 2, 0);
	must(!DO(OVER_MAP, high, 1, 0));
	must(!harvest(&guest, low, high + 2 * PAGE, NULL, NULL, NULL));
	ok(!DO(GROW, high - PAGE, 2, 1), "mremap over two that have become one");
	b = ((uint64_t)DO(BRK, 64 * PAGE, 0, 0) + PAGE - 1) & -PAGE;
	row_at("brk grows", 0, b, b + 62 * PAGE, 62, 0, 0);
	b = (uint64_t)DO(STACK, 32, 0, 0) & -PAGE;
	must(!harvest(&guest, b, b + 64 * PAGE, NULL, NULL, NULL));
	DO(STACK, 32, 0, 0);
	row_at("the stack", 0, b + PAGE, b + 31 * PAGE, 30, 0, 0);
	a = fresh(HUGE, MADV_NOHUGEPAGE);
	must(!settle(&guest, low, high));
	row("mlock, which writes", DO(LOCK, a, 512, 0), 512, 0, 0);
	row("a write to locked memory", DO(WRITE, a, 3, 0), 3, 0, 0);
}

static void sparse(void)
{
	uint64_t at = 1ULL << 40, bytes = 1ULL << 40;
	struct tally t = {};

	must(DO(MAP_AT, at, bytes, PROT_NONE) == (int64_t)at);
	must(!harvest(&guest, at, at + bytes, &t, NULL, NULL));
	ok(t.hole == bytes / PAGE && !t.data && !t.zero && t.ranges == 1,
	   "a TiB that is only reserved is a hole");
	DO(UNMAP, at, bytes / PAGE, 0);
	must(DO(MAP_AT, at, 64 * HUGE, PROT_READ | PROT_WRITE) ==
	     (int64_t)at);
	DO(ADVISE, at, 64 * 512, MADV_NOHUGEPAGE);
	row_at("unpopulated memory is a hole", 0, at, at + 64 * HUGE, 0, 0,
	       64 * 512);
	row_at("that is told once", 0, at, at + 64 * HUGE, 0, 0, 0);
	DO(WRITE, at + HUGE + 7 * PAGE, 2, 1);
	row_at("until it is written", 0, at, at + 64 * HUGE, 2, 0, 0);
	must(!mark(&guest, at + 10 * HUGE, 1));
	row_at("a hole that was given back", 0, at, at + 64 * HUGE, 0, 0, 1);
	if (!DO(ADVISE, at + HUGE + 7 * PAGE, 1, MADV_GUARD_INSTALL))
		row_at("a guard in the place of a page", 0, at, at + 64 * HUGE,
		       0, 0, 1);
	DO(UNMAP, at, 64 * 512, 0);
}

/* registered in part it would be two mappings, and there may be no more */
static void many_mappings(void)
{
	uint64_t a = fresh(16 * PAGE, MADV_NOHUGEPAGE), at = 1ULL << 40;
	uint64_t pages = 1 << 18;

	low += PAGE;
	high -= PAGE;
	must(DO(MAP_AT, at, pages * PAGE, PROT_NONE) == (int64_t)at);
	if (DO(SPLIT, at, pages, 0) ||
	    strcmp(guest.t->ops->name, "wpasync")) {
		ok(true, "too many mappings # SKIP they are no matter here");
	} else {
		row("what cannot be protected is told", 0, 14, 0, 0);
		row("each time", 0, 14, 0, 0);
		DO(UNMAP, at, pages, 0);
		row("until it can", 0, 14, 0, 0);
		row("as it can now", DO(WRITE, a + PAGE, 1, 1), 1, 0, 0);
	}
	DO(UNMAP, at, pages, 0);
}

static void files(void)
{
	uint64_t f = (uint64_t)DO(FILE_MAP, 0, 0, 0);

	row_at("a private file mapping is a hole", 0, f, f + 8 * PAGE, 0, 0, 8);
	DO(READ, f, 8, 0);
	row_at("also when it is read", 0, f, f + 8 * PAGE, 0, 0, 0);
	DO(WRITE, f + PAGE, 2, 0);
	row_at("but not where it is written", 0, f, f + 8 * PAGE, 2, 0, 0);
	DO(ADVISE, f, 4, MADV_DONTNEED);
	row_at("and the file comes back", 0, f, f + 8 * PAGE, 0, 0, 2);
	row_at("once", 0, f, f + 8 * PAGE, 0, 0, 0);
	DO(WRITE, f + PAGE, 2, 0);
	row_at("written again", 0, f, f + 8 * PAGE, 2, 0, 0);
	DO(ADVISE, f, 4, MADV_DONTNEED);
	row_at("the file comes back, and is read", DO(READ, f, 8, 0) == -1, f,
	       f + 8 * PAGE, 0, 0, 2);
	DO(WRITE, f + PAGE, 2, 0);
	must(!settle(&guest, f, f + 8 * PAGE));
	DO(FILE_MAP, f, 0, 0);
	row_at("mapped anew at its place", DO(WRITE, f, 1, 0), f, f + 8 * PAGE,
	       1, 0, 7);
}

static void huge_pages(void)
{
	uint64_t a = fresh(4 * HUGE, MADV_HUGEPAGE), b;
	struct tally t = {};

	must(!harvest(&guest, low, high, &t, NULL, NULL));
	if (!t.huge) {
		ok(true, "huge pages # SKIP none to be had");
		return;
	}
	ok(t.data == 2048, "huge pages are reported whole");
	row("idle huge pages have nothing to report", 0, 0, 0, 0);
	row("a write to one", DO(WRITE, a + HUGE + PAGE, 1, 9), 1, 0, 0);
	row("and another", DO(WRITE, a + HUGE + 9 * PAGE, 1, 9), 1, 0, 0);
	row("split by MADV_DONTNEED of a part", DO(ADVISE, a, 16,
	    MADV_DONTNEED), 0, 0, 16);
	row("a whole one goes", DO(ADVISE, a + 2 * HUGE, 512, MADV_DONTNEED),
	    0, 0, 512);
	b = (uint64_t)DO(MAP, HUGE, MADV_HUGEPAGE, 0);
	must(!settle(&guest, b, b + HUGE));
	DO(REMAP, a + 3 * HUGE, 512, b);
	memset(&t, 0, sizeof(t));
	must(!harvest(&guest, b, b + HUGE, &t, NULL, NULL));
	ok(t.data == 512, "mremap of a huge page");
	b = (uint64_t)DO(MAP, HUGE, MADV_HUGEPAGE, 0);
	DO(READ, b, 1, 0);
	memset(&t, 0, sizeof(t));
	must(!harvest(&guest, b, b + HUGE, &t, NULL, NULL));
	ok(t.data + t.zero == 512, "the huge zero page is told");
}

/* more ranges than there is room: nothing is told twice, nothing is lost */
static void many_ranges(void)
{
	uint64_t a = fresh(16 * HUGE, MADV_NOHUGEPAGE), n = 16 * 512, i;
	struct tally t = {};

	must(!settle(&guest, low, high));
	for (i = 0; i < n; i += 4) {
		DO(WRITE, a + i * PAGE, 1, 1);
		if (i % 64 == 0)
			DO(ADVISE, a + (i + 2) * PAGE, 1, MADV_DONTNEED);
	}
	must(!harvest(&guest, low, high, &t, NULL, NULL));
	ok(t.data == n / 4 && t.hole == n / 64 && !t.zero,
	   "thousands of ranges in pieces");
	row("of which none is told twice", 0, 0, 0, 0);
}

static const struct track_ops *ops;
static uint64_t dropped;

/* the guest drops a page between the look for written and that for gone ones */
static int scan_and_drop(struct tracker *t, enum track_scan what,
			 uint64_t start, uint64_t end, uint64_t max_pages,
			 uint64_t *ret_end)
{
	if (what == TRACK_GONE && dropped) {
		DO(ADVISE, dropped, 1, MADV_DONTNEED);
		dropped = 0;
	}
	return ops->scan(t, what, start, end, max_pages, ret_end);
}

static void between_looks(void)
{
	uint64_t a = fresh(HUGE, MADV_NOHUGEPAGE);
	struct track_ops slow = *guest.t->ops;

	must(!settle(&guest, low, high));
	ops = guest.t->ops;
	slow.scan = scan_and_drop;
	guest.t->ops = &slow;
	DO(WRITE, a, 3, 1);
	dropped = a + PAGE;
	row("written, and dropped while it is told", 0, 3, 0, 0);
	ok(!dropped, "it was dropped in time");
	row("is told as gone by the next", 0, 0, 0, 1);
	guest.t->ops = ops;
}

/* protects what was written, and tells nobody */
static int scan_blind(struct tracker *t, enum track_scan what, uint64_t start,
		      uint64_t end, uint64_t max_pages, uint64_t *ret_end)
{
	int n = ops->scan(t, what, start, end, max_pages, ret_end);

	return what == TRACK_WRITTEN && n > 0 ? 0 : n;
}

/* as the place of a page looks when a write to it was begun, and no more */
static void begun_writes(void)
{
	uint64_t f = (uint64_t)DO(FILE_MAP, 0, 0, 0);
	struct track_ops blind = *guest.t->ops;

	DO(WRITE, f, 2, 0);
	DO(WRITE, f + 3 * PAGE, 1, 0);
	must(!settle(&guest, f, f + 8 * PAGE));
	ops = guest.t->ops;
	blind.scan = scan_blind;
	guest.t->ops = &blind;
	DO(ADVISE, f, 1, MADV_DONTNEED);
	DO(WRITE, f, 1, 0);
	row_at("a write that was begun only", 0, f, f + 8 * PAGE, 0, 0, 0);
	doer_stop(&guest);
	row_at("is told when all threads are stopped", 0, f, f + 8 * PAGE, 3,
	       0, 0);
	guest.t->ops = ops;
	doer_go(&guest);
	DO(PROTECT, f, 8, PROT_READ);
	must(!settle(&guest, f, f + 8 * PAGE));
	doer_stop(&guest);
	row_at("but not where nobody can write", 0, f, f + 8 * PAGE, 0, 0, 0);
	doer_go(&guest);
}

static void again(void)
{
	struct tally t = {};
	uint64_t a = fresh(HUGE, MADV_NOHUGEPAGE);

	must(!settle(&guest, low, high));
	must(!tracker_track(guest.t, true));
	must(!harvest(&guest, low, high, &t, NULL, NULL));
	ok(t.data == 512, "a second start begins anew");
	must(!tracker_track(guest.t, false));
	ok(harvest(&guest, low, high, NULL, NULL, NULL) == -EBUSY &&
	   mark(&guest, a, 1) == -EBUSY, "no harvest behind a stop");
	must(!tracker_track(guest.t, true));
	must(!harvest(&guest, 0, 0x7ffffffff000, &t, NULL, NULL));
	row("all of the guest was harvested", DO(WRITE, a, 2, 1), 2, 0, 0);
}

static void the_end(void)
{
	doer_stop(&guest);
	ok(!harvest(&guest, low, high, NULL, NULL, NULL),
	   "harvest of a stopped guest");
	doer_kill(&guest);
	ok(harvest(&guest, low, high, NULL, NULL, NULL) == -ESRCH,
	   "after the guest's end");
}

int main(void)
{
	if (!track_chosen()) {
		printf("1..0 # SKIP no tracker works on this host\n");
		return 4;
	}
	note("tracker: %s", track_chosen()->name);
	ok(track_choose("no such", NULL, 0) == -ENOENT,
	   "a tracker that there is not");
	doer_start(&guest, act, NULL);
	must(!tracker_track(guest.t, true));
	small_pages();
	copy_on_write();
	mappings();
	sparse();
	many_mappings();
	files();
	huge_pages();
	many_ranges();
	between_looks();
	begun_writes();
	again();
	the_end();
	doer_end(&guest);
	return tap_end();
}
