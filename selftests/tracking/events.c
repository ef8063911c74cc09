// SPDX-License-Identifier: GPL-2.0
/*
 * What each thing that can happen to memory is reported as: a row per event.
 *
 * "481 + 15" and the like come from the kernel, which announces a change of the
 * whole 2 MiB around a split mapping.
 */
#include <linux/mman.h>

#include "../vasi_test.h"
#include "track.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define ANY UINT64_MAX

enum what {
	MAP, WRITE, READ, ADVISE, UNMAP, OVER_MAP, REMAP, PROTECT, FORK,
	FORK_HOLD, FORK_END, SOFT_DIRTY, BRK, VALUE, FILE_MAP, MAP_AT,
};

static int64_t act(int what, int64_t *arg)
{
	static pid_t child;
	char *p = (char *)arg[0], *q;
	int64_t i, sum = 0;

	switch (what) {
	case MAP: /* aligned, alone in its 2 MiB slots; arg: bytes, advice */
		q = mmap(NULL, arg[0] + 4 * HUGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		q = (char *)(((uintptr_t)q + 2 * HUGE - 1) & ~(HUGE - 1));
		if (mmap(q, arg[0], PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_FIXED, -1, 0) != q)
			return -1;
		madvise(q, arg[0], arg[1]);
		return (int64_t)q;
	case WRITE:
		for (i = 0; i < arg[1]; i++)
			*(int64_t *)(p + i * PAGE) = arg[2] + i;
		return 0;
	case READ:
		for (i = 0; i < arg[1]; i++)
			sum += *(volatile int64_t *)(p + i * PAGE);
		return sum;
	case ADVISE:
		return madvise(p, arg[1] * PAGE, arg[2]) ? -errno : 0;
	case UNMAP:
		return munmap(p, arg[1] * PAGE);
	case OVER_MAP:
		return mmap(p, arg[1] * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		       p;
	case REMAP:
		return mremap(p, arg[1] * PAGE, arg[1] * PAGE,
			      MREMAP_MAYMOVE | MREMAP_FIXED, arg[2]) !=
		       (void *)arg[2];
	case PROTECT:
		return mprotect(p, arg[1] * PAGE, arg[2]);
	case FORK:
		child = fork();
		if (!child)
			_exit(0);
		return waitpid(child, NULL, 0) != child;
	case FORK_HOLD:
		child = fork();
		while (!child)
			pause();
		return child < 0;
	case FORK_END:
		kill(child, SIGKILL);
		return waitpid(child, NULL, 0) != child;
	case SOFT_DIRTY:
		return !write_file("/proc/self/clear_refs", "4");
	case BRK:
		q = sbrk(arg[0]);
		if (arg[0] > 0)
			for (i = 0; i < arg[0]; i += PAGE)
				q[i] = 1;
		return (int64_t)q;
	case FILE_MAP:
		q = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			 open("/proc/self/exe", O_RDONLY), 0);
		return (int64_t)q;
	case MAP_AT:
		q = mmap((void *)arg[0], arg[1], arg[2], MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
			 -1, 0);
		return q == MAP_FAILED ? -errno : (int64_t)q;
	}
	return -1;
}

static struct doer guest;
static uint64_t low, high;

static void row_at(const char *name, int64_t result, uint64_t start,
		   uint64_t end, uint64_t data, uint64_t zero, uint64_t hole)
{
	struct tally t = {0};
	int ret = harvest(guest.fd, start, end, &t, NULL, NULL);
	bool good = !ret && !result && (data == ANY || t.data == data) &&
		    (zero == ANY || t.zero == zero) &&
		    (hole == ANY || t.hole == hole);

	ok(good, "%s", name);
	if (!good)
		note("ret %d result %lld data %llu zero %llu hole %llu reasons %x",
		     ret, (long long)result, (unsigned long long)t.data,
		     (unsigned long long)t.zero, (unsigned long long)t.hole,
		     t.reasons);
}

static void row(const char *name, int64_t result, uint64_t data, uint64_t zero,
		uint64_t hole)
{
	row_at(name, result, low, high, data, zero, hole);
}

static uint64_t fresh(uint64_t bytes, int advice)
{
	uint64_t at = doer_do(&guest, MAP, bytes, advice, 0);

	must(at != (uint64_t)-1);
	doer_do(&guest, WRITE, at, bytes / PAGE, 1000);
	low = at;
	high = at + bytes;
	return at;
}

#define DO(...) doer_do(&guest, __VA_ARGS__)

static void small_pages(void)
{
	uint64_t a = fresh(2 * HUGE, MADV_NOHUGEPAGE), b;
	struct tally t = {0};

	must(!harvest(guest.fd, low, high, &t, NULL, NULL));
	ok(t.data == 1024 && (t.reasons & VASI_REASON_FIRST),
	   "the first harvest reports everything");
	must(!settle(guest.fd, low, high));
	row("an idle guest has nothing to report", 0, 0, 0, 0);
	row("a write of 3 pages", DO(WRITE, a + 5 * PAGE, 3, 7), 3, 0, 0);
	row("MADV_DONTNEED", DO(ADVISE, a, 16, MADV_DONTNEED), 0, 0, 16);
	row("read of a hole that was told", DO(READ, a, 16, 0), 0, 0, 0);
	row("write to a zero page", DO(WRITE, a, 1, 1), 1, 0, 0);
	DO(WRITE, a, 16, 1);
	must(!settle(guest.fd, low, high));
	DO(ADVISE, a + 16 * PAGE, 16, MADV_DONTNEED);
	row("MADV_DONTNEED, then a read", DO(READ, a + 16 * PAGE, 16, 0), 0,
	    16, 0);

	row("MADV_FREE", DO(ADVISE, a + 64 * PAGE, 16, MADV_FREE), 16, 0, 0);
	DO(WRITE, a + 64 * PAGE, 16, 3);
	must(!harvest(guest.fd, low, high, NULL, NULL, NULL));
	row("fork", DO(FORK, 0, 0, 0), ANY, 0, 0);
	DO(FORK_HOLD, 0, 0, 0);
	must(!harvest(guest.fd, low, high, NULL, NULL, NULL));
	row_at("copy on write", DO(WRITE, a + 128 * PAGE, 16, 5),
	       a + 128 * PAGE, a + 144 * PAGE, 16, 0, 0);
	DO(FORK_END, 0, 0, 0);

	a = fresh(2 * HUGE, MADV_NOHUGEPAGE);
	must(!settle(guest.fd, low, high));
	row("write-protecting all of a mapping", DO(PROTECT, a, 1024, PROT_READ),
	    0, 0, 0);
	row("and giving the right back", DO(PROTECT, a, 1024, PROT_READ |
	    PROT_WRITE), 0, 0, 0);
	row("mprotect that splits the mapping", DO(PROTECT, a + 16 * PAGE, 16,
	    PROT_READ), 512, 0, 0);
	row("mprotect back", DO(PROTECT, a + 16 * PAGE, 16, PROT_READ |
	    PROT_WRITE), 0, 0, 0);
	row("a page of PROT_NONE keeps its content", DO(PROTECT, a, 1024,
	    PROT_NONE), 0, 0, 0);
	must(!mark(guest.fd, a, 2));
	row("given back pages", 0, 2, 0, 0);
	DO(PROTECT, a, 1024, PROT_READ | PROT_WRITE);
	row("clear_refs", DO(SOFT_DIRTY, 0, 0, 0), 0, 0, 0);
	row("munmap out of a mapping", DO(UNMAP, a + 32 * PAGE, 16, 0), 496, 0,
	    0);
	row("mmap over what was unmapped", DO(OVER_MAP, a + 32 * PAGE, 16, 0),
	    ANY, 0, 16);
	must(!settle(guest.fd, low, high));

	/* the other end of an mremap has no event of its own */
	b = DO(MAP, HUGE, MADV_NOHUGEPAGE, 0);
	DO(UNMAP, b, 512, 0);
	must(!settle(guest.fd, b, b + HUGE));
	must(!settle(guest.fd, low, high));
	DO(REMAP, a + HUGE, 16, b);
	row_at("mremap, where it goes", 0, b, b + 16 * PAGE, 16, 0, 0);
	row_at("mremap, what is left", 0, a + HUGE, a + 2 * HUGE, 496, 0, 0);
	ok(DO(READ, b, 1, 0) == 1000 + 512, "mremap moved the content");

	a = fresh(2 * HUGE, MADV_NOHUGEPAGE);
	must(!settle(guest.fd, low, high));
	row("mmap over what is mapped", DO(OVER_MAP, a + 64 * PAGE, 16, 0),
	    496, 0, 16);

	b = DO(BRK, 64 * PAGE, 0, 0);
	row_at("brk grows", 0, (b + PAGE - 1) & -PAGE, b + 63 * PAGE, ANY, 0,
	       0);
	DO(BRK, -64 * (int64_t)PAGE, 0, 0);
	row_at("brk shrinks", 0, (b + PAGE - 1) & -PAGE, b + 63 * PAGE, 0, 0,
	       0);
}

static void sparse(void)
{
	uint64_t at = 1ull << 40, bytes = 1ull << 40;
	struct tally t = {0};
	uint64_t file;

	must(DO(MAP_AT, at, bytes, PROT_NONE) == (int64_t)at);
	must(!harvest(guest.fd, at, at + bytes, &t, NULL, NULL));
	ok(t.hole == bytes / PAGE && !t.data && !t.zero,
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
	must(!mark(guest.fd, at + 10 * HUGE, 1));
	row_at("a hole that was given back", 0, at, at + 64 * HUGE, 0, 0, 512);
	DO(UNMAP, at, 64 * 512, 0);

	file = DO(FILE_MAP, 0, 0, 0);
	row_at("a private file mapping is a hole", 0, file, file + 8 * PAGE,
	       0, 0, 8);
	DO(READ, file, 8, 0);
	row_at("also when it is read", 0, file, file + 8 * PAGE, 0, 0, 0);
	DO(WRITE, file + PAGE, 2, 0);
	row_at("but not where it is written", 0, file, file + 8 * PAGE, 2, 0,
	       0);
	DO(ADVISE, file, 4, MADV_DONTNEED);
	row_at("and the file comes back", 0, file, file + 8 * PAGE, 0, 0, 4);
}

static void swapping(void)
{
	uint64_t a;

	if (!swap_on(64 << 20)) {
		ok(true, "swapping # SKIP no zram");
		return;
	}
	a = fresh(HUGE, MADV_NOHUGEPAGE);
	must(!settle(guest.fd, low, high));
	row("MADV_PAGEOUT", DO(ADVISE, a, 16, MADV_PAGEOUT), 16, 0, 0);
	row("again", DO(ADVISE, a, 16, MADV_PAGEOUT), 0, 0, 0);
	row("swapped in by a write", DO(WRITE, a, 16, 100), 16, 0, 0);
	DO(ADVISE, a, 16, MADV_PAGEOUT);
	must(!harvest(guest.fd, low, high, NULL, NULL, NULL));
	ok(DO(READ, a, 1, 0) == 100, "swapped in by a read");

	/*
	 * The kernel makes pages lazily free in batches of 15: these are when
	 * they have been written and reported, and nothing else tells the write.
	 */
	a = fresh(HUGE, MADV_NOHUGEPAGE);
	must(!settle(guest.fd, low, high));
	DO(ADVISE, a, 8, MADV_FREE);
	DO(WRITE, a, 8, 100);
	must(!harvest(guest.fd, low, high, NULL, NULL, NULL));
	DO(ADVISE, a + 64 * PAGE, 64, MADV_FREE);
	DO(ADVISE, a, 8, MADV_PAGEOUT);
	ok(DO(READ, a, 8, 0) == 8 * 100 + 28,
	   "MADV_FREE, a write and a harvest keep the content");
	swap_off();
}

static void huge_pages(void)
{
	uint64_t a, b;
	struct tally t = {0};

	write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	write_file("/sys/kernel/mm/transparent_hugepage/defrag", "madvise");
	a = fresh(4 * HUGE, MADV_HUGEPAGE);
	must(!harvest(guest.fd, low, high, &t, NULL, NULL));
	if (!t.huge) {
		ok(true, "huge pages # SKIP none to be had");
		return;
	}
	ok(t.data == 2048, "huge pages are reported whole");
	must(!settle(guest.fd, low, high));
	row("idle huge pages have nothing to report", 0, 0, 0, 0);
	row("a write to one", DO(WRITE, a + HUGE + PAGE, 1, 9), 512, 0, 0);
	row_at("a write, seen from a part of it", DO(WRITE, a + PAGE, 1, 9),
	       a, a + 16 * PAGE, 16, 0, 0);
	row_at("and the rest", 0, a, a + HUGE, 496, 0, 0);
	row("split by MADV_DONTNEED of a part", DO(ADVISE, a, 16,
	    MADV_DONTNEED), 496, 0, 16);
	must(!settle(guest.fd, low, high));
	row("a split one that is idle", 0, 0, 0, 0);
	row_at("a write to a split one", DO(WRITE, a + 100 * PAGE, 2, 9),
	       a + 100 * PAGE, a + 102 * PAGE, 2, 0, 0);
	must(!settle(guest.fd, low, high));
	row("split by mprotect of a part", DO(PROTECT, a + HUGE + 16 * PAGE,
	    16, PROT_READ), 512, 0, 0);
	must(!settle(guest.fd, low, high));
	row("MADV_COLLAPSE", DO(ADVISE, a, 512, MADV_COLLAPSE), 512, 0, 0);

	b = DO(MAP, HUGE, MADV_HUGEPAGE, 0);
	DO(UNMAP, b, 512, 0);
	must(!settle(guest.fd, low, high));
	DO(REMAP, a + 3 * HUGE, 512, b);
	memset(&t, 0, sizeof(t));
	must(!harvest(guest.fd, b, b + HUGE, &t, NULL, NULL));
	ok(t.data == 512 && t.huge == 1, "mremap of a huge page");

	DO(READ, DO(MAP, HUGE, MADV_HUGEPAGE, 0), 1, 0);
	if (swap_on(64 << 20)) {
		must(!settle(guest.fd, low, high - HUGE));
		row_at("huge page, MADV_PAGEOUT", DO(ADVISE, a + 2 * HUGE, 512,
		       MADV_PAGEOUT), a + 2 * HUGE, a + 3 * HUGE, 512, 0, 0);
		swap_off();
	}
	b = DO(MAP, HUGE, MADV_HUGEPAGE, 0);
	DO(READ, b, 1, 0);
	memset(&t, 0, sizeof(t));
	must(!harvest(guest.fd, b, b + HUGE, &t, NULL, NULL));
	ok(!t.data && t.zero == 512, "the huge zero page is zero");
}

static void the_end(void)
{
	struct pollfd p = { .fd = guest.fd };
	int ret;

	end_guest(guest.pid);
	must(wait_until(poll(&p, 1, 0) == 1 && p.revents & POLLHUP));
	ret = harvest(guest.fd, low, high, NULL, NULL, NULL);
	ok(ret == -ESRCH, "after the guest's end");
	close(guest.fd);
}

int main(void)
{
	doer_start(&guest, act);
	must(!track(guest.fd, VASI_TRACK_START));
	small_pages();
	sparse();
	swapping();
	huge_pages();
	the_end();
	return tap_end();
}
