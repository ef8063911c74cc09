// SPDX-License-Identifier: GPL-2.0
/*
 * The map of pages against a plain array, and by several threads
 */
#include <pthread.h>
#include "lib/digest.h"
#include "lib/pagemap.h"
#include "tap.h"

#define PAGES	5000
#define STEPS	20000
#define THREADS	4

static uint64_t model[2][PAGES];

static uint64_t model_sum(uint64_t *ret_pages)
{
	uint64_t sum = 0;

	*ret_pages = 0;
	for (int s = 0; s < 2; s++)
		for (int i = 0; i < PAGES; i++) {
			sum += model[s][i];
			*ret_pages += !!model[s][i];
		}
	return sum;
}

static bool same(struct pagemap *pm)
{
	uint64_t pages, sum = model_sum(&pages);

	for (int s = 0; s < 2; s++)
		for (int i = 0; i < PAGES; i++)
			if (pagemap_get(pm, s, i * GUEST_PAGE_SIZE) !=
			    model[s][i])
				return false;
	return sum == pagemap_sum(pm) && pages == pagemap_pages(pm);
}

static bool same_run(struct pagemap *pm, int s, int from, int to, bool present)
{
	uint64_t start, end;
	int a = from, b;
	bool found;

	found = pagemap_run(pm, s, from * GUEST_PAGE_SIZE,
			    to * GUEST_PAGE_SIZE, present, &start, &end);
	while (a < to && !!model[s][a] != present)
		a++;
	for (b = a; b < to && !!model[s][b] == present; b++)
		;
	if (!found)
		return a == to;
	return start == a * GUEST_PAGE_SIZE && end == b * GUEST_PAGE_SIZE;
}

static void test_model(void)
{
	struct pagemap *pm = pagemap_new();
	uint64_t v[600], old[8], before[8];
	unsigned int seed = 1;
	bool runs = true, olds = true;

	must(pm);
	for (int i = 0; i < STEPS; i++) {
		int s = rand_r(&seed) % 2, at = rand_r(&seed) % PAGES;
		int n = 1 + rand_r(&seed) % 600;

		if (n > PAGES - at)
			n = PAGES - at;
		runs &= same_run(pm, s, at, at + n, rand_r(&seed) % 2);
		if (rand_r(&seed) % 3) {
			n = n % 8 + 1 < PAGES - at ? n % 8 + 1 : 1;
			memcpy(before, &model[s][at], n * sizeof(v[0]));
			for (int j = 0; j < n; j++)
				model[s][at + j] = v[j] =
					rand_r(&seed) * 77777777777ULL + 1;
			must(!pagemap_set(pm, s, at * GUEST_PAGE_SIZE, n, v,
					  old));
			olds &= !memcmp(old, before, n * sizeof(v[0]));
		} else {
			memset(&model[s][at], 0, n * sizeof(v[0]));
			pagemap_clear(pm, s, at * GUEST_PAGE_SIZE,
				      (at + n) * GUEST_PAGE_SIZE);
		}
	}
	ok(same(pm), "values, sum and number are those of the model");
	ok(runs, "and so are the runs");
	ok(olds, "and what a value takes the place of");
	pagemap_free(pm);
}

static void *fill(void *arg)
{
	struct pagemap *pm = arg;

	for (uint64_t i = 0; i < 200000; i++) {
		uint64_t d = i + 1;

		must(!pagemap_set(pm, 0, (i * 7919 % 200000) *
				  GUEST_PAGE_SIZE, 1, &d, NULL));
	}
	return NULL;
}

static void test_threads(void)
{
	struct pagemap *pm = pagemap_new();
	pthread_t t[THREADS];
	uint64_t n = 200000;

	must(pm);
	for (int i = 0; i < THREADS; i++)
		must(!pthread_create(&t[i], NULL, fill, pm));
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	ok(pagemap_pages(pm) == n && pagemap_sum(pm) == n * (n + 1) / 2,
	   "several threads do not lose a page");
	pagemap_free(pm);
}

static void test_ends(void)
{
	struct pagemap *pm = pagemap_new();
	uint64_t top = ~0ULL << GUEST_PAGE_SHIFT, d = 5, a, b;

	must(pm);
	ok(!pagemap_run(pm, 0, 0, 1ULL << 47, true, &a, &b),
	   "nothing in all of the address space");
	must(!pagemap_set(pm, 0, top - GUEST_PAGE_SIZE, 1, &d, NULL));
	ok(pagemap_run(pm, 0, top - 512 * GUEST_PAGE_SIZE, top, true, &a, &b) &&
	   a == top - GUEST_PAGE_SIZE && b == top, "a page at its top");
	ok(!pagemap_get(pm, 0, 0) && !pagemap_get(pm, 7, top),
	   "and none elsewhere");
	pagemap_free(pm);
}

int main(void)
{
	test_model();
	test_threads();
	test_ends();
	return tap_end();
}
