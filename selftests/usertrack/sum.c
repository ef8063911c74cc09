// SPDX-License-Identifier: GPL-2.0
/*
 * The oracle that a tracker can't fool: the guest counts in two ways.
 *
 * Writers add one to random words of an arena and to a counter of their own. The
 * sum over the copy that is made of what harvests report must equal the number
 * of increments, and each page of it the guest's. A further thread does to the
 * arena what programs do to memory; where that changes the content, the copy is
 * judged by the guest's pages alone.
 *
 * The same is run with parts of the tracker left out, and must fail.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/clock.h"
#include "tap.h"
#include "usertrack.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define WRITERS	2
#define ARENA	(8UL << 20)
#define PAGES	(ARENA / PAGE)
#define ROUNDS	8

/**
 * struct world - what guest and test share, outside of the tracked memory
 * @arena: address in the guest
 * @huge: it is made of huge pages
 * @file: it is a private mapping of a file
 * @chaos: operations to choose from, a mask
 * @stop: writers are to end
 * @ended: threads that have
 * @count: increments made, by writer
 * @ops: operations done
 */
struct world {
	uint32_t *arena;
	bool huge, file;
	uint32_t chaos;
	int stop, ended;
	int64_t count[WRITERS];
	int64_t ops;
};

enum {
	C_PAGEOUT = 1, C_COLD = 2, C_COLLAPSE = 4, C_FORK = 8, C_PROTECT = 16,
	C_READ = 32,
	/* these change the content, and the sum with it */
	C_DONTNEED = 64, C_FREE = 128, C_MAP = 256, C_MOVE = 512,
};

#define C_KEEP	(C_DONTNEED - 1)
#define C_ALL	(2 * C_MOVE - 1)

static struct world *w;
static int file = -1;

static uint32_t rnd(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void *writer(void *arg)
{
	int me = (int)(intptr_t)arg;
	uint32_t seed = 12345 + (uint32_t)me;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint32_t i = rnd(&seed) % (ARENA / sizeof(uint32_t));

		__atomic_add_fetch(&w->arena[i], 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&w->count[me], 1, __ATOMIC_SEQ_CST);
		/* some pages, not all, are written in a round */
		if (!(w->count[me] & 7))
			usleep(200);
	}
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void fork_and_write(char *p, size_t len)
{
	pid_t pid = fork();

	if (!pid) {
		for (size_t i = 0; i < len; i += PAGE)
			p[i]++;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void move_there(char *p, size_t len)
{
	char *from = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(from != MAP_FAILED);
	for (size_t i = 0; i < len; i += 2 * PAGE)
		from[i] = 1;
	must(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
}

static void map_there(char *p, size_t len)
{
	void *got;

	if (w->file)
		got = mmap(p, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_FIXED, file,
			   p - (char *)w->arena);
	else
		got = mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			   MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(got == p);
}

static void chaos_once(uint32_t op, char *p, size_t len)
{
	uint32_t sum = 0;

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
		fork_and_write(p, len);
		break;
	case C_PROTECT:
		/* writers would fault on less */
		mprotect(p, len, PROT_READ | PROT_WRITE | PROT_EXEC);
		mprotect(p, len, PROT_READ | PROT_WRITE);
		break;
	case C_READ:
		for (size_t i = 0; i < len; i += PAGE)
			sum += *(volatile unsigned char *)(p + i);
		break;
	case C_DONTNEED:
		madvise(p, len, MADV_DONTNEED);
		break;
	case C_FREE:
		madvise(p, len, MADV_FREE);
		break;
	case C_MAP:
		map_there(p, len);
		break;
	case C_MOVE:
		move_there(p, len);
		break;
	}
}

static void chaos(void)
{
	uint32_t seed = 4711;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint32_t op = 1U << rnd(&seed) % 10;
		size_t page = rnd(&seed) % (PAGES - 256);

		if (w->chaos & op) {
			chaos_once(op, (char *)w->arena + page * PAGE,
				   (1 + rnd(&seed) % 255) * PAGE);
			w->ops++;
		}
		usleep(500);
	}
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_SEQ_CST);
}

/* the guest's own thread */
static void run_guest(void)
{
	pthread_t t;
	char *p;

	p = mmap(NULL, ARENA + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS, -1, 0);
	p = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	w->arena = (uint32_t *)p;
	if (w->file)
		map_there(p, ARENA);
	madvise(p, ARENA, w->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (!w->file)
		memset(p, 0, ARENA);
	for (int i = 0; i < WRITERS; i++)
		must(!pthread_create(&t, NULL, writer, (void *)(intptr_t)i));
	chaos();
	for (;;)
		pause();
}

static int64_t nothing(int what, int64_t *arg)
{
	(void)what;
	(void)arg;
	return -1;
}

static struct doer guest;
static unsigned char *copy, *base_of_copy;
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
		if (read_pages(&guest, r->start, r->pages, to))
			mark(&guest, r->start, r->pages);
	} else if (r->kind == VASI_KIND_HOLE) {
		/* what the target has without us: the file, or zeros */
		memcpy(to, base_of_copy + (r->start - base), r->pages * PAGE);
	} else {
		memset(to, 0, r->pages * PAGE);
	}
}

static int64_t sum_of(const unsigned char *p)
{
	const uint32_t *word = (const uint32_t *)p;
	int64_t sum = 0;

	for (size_t i = 0; i < ARENA / sizeof(*word); i++)
		sum += word[i];
	return sum;
}

/**
 * struct verdict - one run
 * @stale: pages of the copy that differ from the guest's
 * @lost: increments missing in the copy
 * @ops: operations of chaos
 * @count: increments
 * @told: pages reported
 */
struct verdict {
	uint64_t stale;
	int64_t lost, ops, count;
	uint64_t told;
};

static struct verdict run(bool huge, bool of_file, uint32_t ops,
			  const struct track_ops *mechanism)
{
	unsigned char *now = calloc(1, ARENA);
	struct verdict v = {};
	struct tally t = {};

	memset(w, 0, sizeof(*w));
	*w = (struct world){ .huge = huge, .file = of_file, .chaos = ops };
	copy = calloc(1, ARENA);
	base_of_copy = calloc(1, ARENA);
	must(copy && now && base_of_copy);
	if (of_file)
		must(pread(file, base_of_copy, ARENA, 0) == (ssize_t)ARENA);
	doer_start(&guest, nothing, run_guest);
	while (!__atomic_load_n(&w->count[0], __ATOMIC_RELAXED))
		sleep_ms(1);
	base = (uintptr_t)w->arena;
	if (mechanism)
		guest.t->ops = mechanism;
	must(!tracker_track(guest.t, true));
	for (int round = 0; round < ROUNDS; round++) {
		must(!harvest(&guest, base, base + ARENA, &t, copy_range,
			      NULL));
		sleep_ms(30);
	}
	/* between a count and its increment nobody may be */
	w->stop = 1;
	while (__atomic_load_n(&w->ended, __ATOMIC_SEQ_CST) != WRITERS + 1)
		sleep_ms(1);
	doer_stop(&guest);
	must(!harvest(&guest, base, base + ARENA, &t, copy_range, NULL));
	/* what is read now is the truth */
	must(!read_pages(&guest, base, PAGES, now));
	for (size_t i = 0; i < PAGES; i++)
		v.stale += !!memcmp(now + i * PAGE, copy + i * PAGE, PAGE);
	for (int i = 0; i < WRITERS; i++)
		v.count += w->count[i];
	v.lost = v.count - (sum_of(copy) - sum_of(base_of_copy));
	v.ops = w->ops;
	v.told = t.data + t.zero;
	doer_end(&guest);
	free(copy);
	free(base_of_copy);
	free(now);
	return v;
}

static void tell(const struct verdict *v, const char *word)
{
	note("%lld increments, %lld operations, %llu pages told, %llu stale, %lld %s",
	     (long long)v->count, (long long)v->ops,
	     (unsigned long long)v->told, (unsigned long long)v->stale,
	     (long long)v->lost, word);
}

static void expect_good(const char *name, bool huge, bool of_file,
			uint32_t ops)
{
	struct verdict v = run(huge, of_file, ops, NULL);
	bool drops = ops & ~C_KEEP;

	ok(!v.stale && (!v.lost || drops) && v.count, "%s", name);
	tell(&v, drops ? "dropped by the guest itself" : "lost");
}

/* -- parts of the tracker left out */

static const struct track_ops *whole;

/* what was written is told once, and not protected again */
static int scan_unprotected(struct tracker *t, enum track_scan what,
			    uint64_t start, uint64_t end, uint64_t max_pages,
			    uint64_t *ret_end)
{
	if (what == TRACK_THERE)
		what = TRACK_LOOK;
	if (what == TRACK_WRITTEN) {
		*ret_end = end;
		return 0;
	}
	return whole->scan(t, what, start, end, max_pages, ret_end);
}

/* what was written until now is protected, and only then looked for */
static int scan_late(struct tracker *t, enum track_scan what, uint64_t start,
		     uint64_t end, uint64_t max_pages, uint64_t *ret_end)
{
	uint64_t at = start;

	while (what == TRACK_WRITTEN && at < end)
		must(whole->scan(t, what, at, end, 0, &at) >= 0);
	return whole->scan(t, what, start, end, max_pages, ret_end);
}

static int scan_no_holes(struct tracker *t, enum track_scan what,
			 uint64_t start, uint64_t end, uint64_t max_pages,
			 uint64_t *ret_end)
{
	if (what == TRACK_GONE) {
		*ret_end = end;
		return 0;
	}
	return whole->scan(t, what, start, end, max_pages, ret_end);
}

/* mappings that are new are looked for by the first pass only */
static int begin_once(struct tracker *t, uint64_t start, uint64_t end)
{
	return t->count[VASI_COUNT_HARVESTS] ? 0 : whole->begin(t, start, end);
}

static void expect_bad(const char *name, const struct track_ops *broken,
		       uint32_t ops)
{
	struct verdict v = run(false, false, ops, broken);

	ok(v.stale, "fails: %s", name);
	tell(&v, "lost");
}

static void controls(void)
{
	struct track_ops broken;

	whole = track_chosen();
	broken = *whole;
	broken.scan = scan_unprotected;
	expect_bad("without protection", &broken, 0);
	broken = *whole;
	broken.scan = scan_no_holes;
	expect_bad("without a look at what is gone", &broken, C_DONTNEED);
	if (strcmp(whole->name, "wpasync"))
		return;
	broken.scan = scan_late;
	expect_bad("with protection before the look", &broken, 0);
	broken = *whole;
	broken.begin = begin_once;
	expect_bad("without a look for new mappings", &broken, C_MAP);
}

static void make_file(void)
{
	char page[PAGE];

	file = memfd_create("arena", MFD_CLOEXEC);
	must(file >= 0);
	for (size_t i = 0; i < PAGES; i++) {
		memset(page, (int)i & 0x7f, PAGE);
		must(write(file, page, PAGE) == (ssize_t)PAGE);
	}
}

int main(void)
{
	if (!track_chosen()) {
		printf("1..0 # SKIP no tracker works on this host\n");
		return 4;
	}
	note("tracker: %s", track_chosen()->name);
	w = shared_memory(sizeof(*w));
	make_file();
	controls();
	expect_good("writers alone", false, false, 0);
	expect_good("writers alone, huge pages", true, false, 0);
	expect_good("all that keeps the content, small pages", false, false,
		    C_KEEP & ~C_COLLAPSE);
	expect_good("all that keeps the content, huge pages", true, false,
		    C_KEEP);
	expect_good("everything, small pages", false, false,
		    C_ALL & ~C_COLLAPSE);
	expect_good("everything, huge pages", true, false, C_ALL);
	expect_good("a file's private mapping", false, true,
		    C_READ | C_FORK | C_PROTECT | C_COLD);
	expect_good("one that is dropped and mapped anew", false, true,
		    C_DONTNEED | C_MAP | C_READ);
	return tap_end();
}
