// SPDX-License-Identifier: GPL-2.0
/*
 * The oracle that the tracker can't fool: the guest counts in two ways.
 *
 * Writers add one to random words of an arena and to a counter of their own;
 * the sum over the arena must equal the number of increments, in the guest's
 * memory (which a wrong tracker corrupts when pages are swapped out) and in the
 * copy that is made of what harvests report (which a blind tracker leaves
 * stale). A further thread does to the arena what programs do to memory; where
 * that changes the content only the copy can be judged.
 *
 * With a module built for tests the same is run with the flush left out, and
 * must fail.
 */
#include <pthread.h>
#include <stddef.h>
#include <sched.h>

#include "../vasi_test.h"
#include "track.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define WRITERS 2
#define ARENA (8ul << 20)
#define PAGES (ARENA / PAGE)
#define HOT (128 * PAGE)

/**
 * struct world - what guest and test share, outside of the tracked memory
 * @arena: address in the guest
 * @chaos: operations to choose from, a mask
 * @hot: writers keep to one processor, the mover to another, and write to few
 *	pages: no switch of address spaces empties their TLB
 * @stop: writers are to end
 * @ended: threads that have
 * @count: increments made, by writer
 * @ops: operations done
 */
struct world {
	uint32_t *arena;
	uint32_t chaos;
	bool hot;
	int stop;
	int ended;
	int64_t count[WRITERS];
	int64_t ops;
};

enum {
	C_PAGEOUT = 1,
	C_COLD = 2,
	C_COLLAPSE = 4,
	C_FORK = 8,
	C_PROTECT = 16,
	C_READ = 32,
	/* these change the content, and the sum with it */
	C_DONTNEED = 64,
	C_FREE = 128,
	C_MAP = 256,
	C_MOVE = 512,
};

#define C_KEEP (C_DONTNEED - 1)
#define C_ALL (2 * C_MOVE - 1)

static struct world *w;

static uint32_t rnd(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void keep_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *writer(void *arg)
{
	int me = (intptr_t)arg;
	uint32_t seed = 12345 + me;
	uint32_t words = (w->hot ? HOT : ARENA) / sizeof(uint32_t);

	if (w->hot)
		keep_to(0);
	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint32_t i = rnd(&seed) % words;

		/* counted first: a parked writer may be between the two */
		__atomic_add_fetch(&w->count[me], 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&w->arena[i], 1, __ATOMIC_SEQ_CST);
		if (!w->hot && !(w->count[me] & 1023))
			sched_yield();
	}
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void chaos_once(uint32_t op, char *p, size_t len)
{
	uint32_t sum = 0;
	char *from;
	size_t i;
	pid_t pid;

	switch (op) {
	case C_PAGEOUT:
		madvise(p, len, MADV_PAGEOUT);
		break;
	case C_COLD:
		madvise(p, len, MADV_COLD);
		break;
	case C_COLLAPSE:
		madvise((void *)((uintptr_t)p & ~(HUGE - 1)), HUGE,
			MADV_COLLAPSE);
		break;
	case C_FORK:
		pid = fork();
		if (!pid) {
			for (i = 0; i < len; i += PAGE)
				p[i]++;
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		break;
	case C_PROTECT:
		/* writers would fault on less */
		mprotect(p, len, PROT_READ | PROT_WRITE | PROT_EXEC);
		mprotect(p, len, PROT_READ | PROT_WRITE);
		break;
	case C_READ:
		for (i = 0; i < len; i += PAGE)
			sum += *(volatile char *)(p + i);
		break;
	case C_DONTNEED:
		madvise(p, len, MADV_DONTNEED);
		break;
	case C_FREE:
		madvise(p, len, MADV_FREE);
		break;
	case C_MAP:
		must(mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			  MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		break;
	case C_MOVE:
		from = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			    MAP_ANONYMOUS, -1, 0);
		must(from != MAP_FAILED);
		for (i = 0; i < len; i += 2 * PAGE)
			from[i] = 1;
		must(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			    p) == p);
		break;
	}
}

static void *chaos(void *arg)
{
	uint32_t seed = 4711;

	(void)arg;
	if (w->hot)
		keep_to(1);
	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint32_t op = 1u << rnd(&seed) % 10;
		size_t page = rnd(&seed) % (PAGES - 256);

		if (w->chaos & op) {
			chaos_once(op, (char *)w->arena + page * PAGE,
				   (1 + rnd(&seed) % 255) * PAGE);
			w->ops++;
		} else {
			usleep(1000);
		}
	}
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void guest_main(bool huge)
{
	pthread_t t;
	char *p;
	int i;

	p = mmap(NULL, ARENA + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS, -1, 0);
	p = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	madvise(p, ARENA, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(p, 0, ARENA);
	w->arena = (uint32_t *)p;
	for (i = 0; i < WRITERS; i++)
		must(!pthread_create(&t, NULL, writer, (void *)(intptr_t)i));
	must(!pthread_create(&t, NULL, chaos, NULL));
	for (;;)
		pause();
}

static unsigned char *copy;
static int fd;
static uint64_t base;

/*
 * The guest runs: it may have unmapped or replaced what was harvested. Such
 * pages are reported again.
 */
static void copy_range(const struct vasi_range *r, void *arg)
{
	unsigned char *to = copy + (r->start - base);

	(void)arg;
	if (r->kind == VASI_KIND_DATA) {
		if (read_pages(fd, r->start, r->pages, to))
			mark(fd, r->start, r->pages);
	} else {
		memset(to, 0, r->pages * PAGE);
	}
}

static int64_t sum_of(const void *p)
{
	const uint32_t *word = p;
	int64_t sum = 0;
	size_t i;

	for (i = 0; i < ARENA / sizeof(*word); i++)
		sum += word[i];
	return sum;
}

/**
 * struct verdict - one run
 * @stale: pages of the copy that differ from the guest's memory
 * @lost: increments missing in the guest's memory
 */
struct verdict {
	uint64_t stale;
	int64_t lost;
	int64_t ops;
	int64_t count;
};

static struct verdict run(bool huge, uint32_t ops, bool hot)
{
	const int rounds = 6;
	struct verdict v = {0};
	unsigned char *now = malloc(ARENA);
	cpu_set_t all;
	int64_t count = 0;
	size_t i;
	pid_t pid;
	int round;

	sched_getaffinity(0, sizeof(all), &all);
	memset(w, 0, sizeof(*w));
	w->chaos = ops;
	w->hot = hot;
	if (hot)
		keep_to(1);
	copy = calloc(1, ARENA);
	must(copy && now);
	pid = fork_guest();
	if (!pid)
		guest_main(huge);
	must(wait_until(__atomic_load_n(&w->count[0], __ATOMIC_RELAXED)));
	base = (uintptr_t)w->arena;
	fd = attach(pid);
	must(!track(fd, VASI_TRACK_START));
	for (round = 0; round < rounds; round++) {
		must(!harvest(fd, base, base + ARENA, NULL, copy_range, NULL));
		sleep_ms(20);
	}
	must(!suspend(fd));
	must(!harvest(fd, base, base + ARENA, NULL, copy_range, NULL));
	/* suspended: what is read now is the truth */
	must(!read_pages(fd, base, PAGES, now));
	for (i = 0; i < PAGES; i++)
		v.stale += !!memcmp(now + i * PAGE, copy + i * PAGE, PAGE);
	must(!resume(fd));
	w->stop = 1;
	must(wait_until(__atomic_load_n(&w->ended, __ATOMIC_SEQ_CST) ==
			WRITERS + 1));
	must(!read_pages(fd, base, PAGES, now));
	for (i = 0; i < WRITERS; i++)
		count += w->count[i];
	v.lost = count - sum_of(now);
	v.count = count;
	v.ops = w->ops;
	if (hot)
		sched_setaffinity(0, sizeof(all), &all);
	close(fd);
	end_guest(pid);
	free(copy);
	free(now);
	return v;
}

static void expect_good(const char *name, bool huge, uint32_t ops, bool hot)
{
	struct verdict v = run(huge, ops, hot);

	bool drops = ops & ~C_KEEP;

	ok(!v.stale && (!v.lost || drops), "%s", name);
	note("%lld increments, %lld operations, %llu stale pages, %lld %s",
	     (long long)v.count, (long long)v.ops,
	     (unsigned long long)v.stale, (long long)v.lost,
	     drops ? "dropped by the guest itself" : "lost");
}

/* the oracle must see the bugs that it is there for */
static void controls(bool swap)
{
	struct verdict v;

	if (!load_module(true)) {
		ok(true, "without a flush # SKIP no module built for tests");
		return;
	}
	must(set_knob("test_flush", "1"));
	/* a switch of address spaces hides it: tried until it is seen */
	for (int i = 0; i < 10; i++) {
		v = run(false, 0, true);
		if (v.stale || v.lost)
			break;
	}
	ok(v.stale || v.lost, "the control without a flush fails");
	note("%llu stale pages, %lld lost", (unsigned long long)v.stale,
	     (long long)v.lost);

	/* rare by nature: tried until it is seen */
	must(set_knob("test_flush", "2") &&
	     set_knob("test_flush_delay_ms", "8"));
	for (int i = 0; swap && i < 3; i++) {
		v = run(false, C_PAGEOUT | C_READ, false);
		if (v.lost)
			break;
	}
	if (swap && v.lost)
		ok(true, "the control with a late flush fails");
	else
		ok(true, "late flush # SKIP not hit this time");
	note("%llu stale pages, %lld lost", (unsigned long long)v.stale,
	     (long long)v.lost);
	must(load_module(false));
}

int main(void)
{
	bool swap;

	w = shared_memory(sizeof(*w));
	write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	swap = swap_on(256 << 20);
	controls(swap);
	expect_good("writers alone", false, 0, true);
	expect_good("under page-out", false, C_PAGEOUT | C_READ, false);
	expect_good("all that keeps the content, small pages", false,
		    C_KEEP & ~C_COLLAPSE, false);
	expect_good("all that keeps the content, huge pages", true, C_KEEP,
		    false);
	expect_good("everything, small pages", false, C_ALL & ~C_COLLAPSE,
		    false);
	expect_good("everything, huge pages", true, C_ALL, false);
	if (swap)
		swap_off();
	else
		note("there was no swap");
	return tap_end();
}
