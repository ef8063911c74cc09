// SPDX-License-Identifier: GPL-2.0
/*
 * The oracle that a tracker can't fool: the guest counts in two ways.
 *
 * The sum over the copy that is made of what harvests report must equal the
 * number of increments, and each page of it the guest's. Where the guest itself
 * drops content the copy is judged by the guest's pages alone.
 *
 * The same is run with parts of the tracker left out, and must fail.
 */
#include "lib/clock.h"
#include "tap.h"
#include "world.h"

#define ROUNDS	8

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

	*w = (struct world){ .huge = huge, .file = of_file, .chaos = ops };
	copy = calloc(1, ARENA);
	base_of_copy = calloc(1, ARENA);
	must(copy && now && base_of_copy);
	world_base(base_of_copy);
	doer_start(&guest, nothing, world_run);
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
	world_still();
	doer_stop(&guest);
	must(!harvest(&guest, base, base + ARENA, &t, copy_range, NULL));
	/* what is read now is the truth */
	must(!read_pages(&guest, base, PAGES, now));
	for (size_t i = 0; i < PAGES; i++)
		v.stale += !!memcmp(now + i * PAGE, copy + i * PAGE, PAGE);
	for (int i = 0; i < WRITERS; i++)
		v.count += w->count[i];
	v.lost = v.count - (world_sum(copy) - world_sum(base_of_copy));
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

int main(void)
{
	if (!track_chosen()) {
		printf("1..0 # SKIP no tracker works on this host\n");
		return 4;
	}
	note("tracker: %s", track_chosen()->name);
	world_init();
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
