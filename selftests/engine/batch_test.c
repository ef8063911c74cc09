// SPDX-License-Identifier: GPL-2.0
/*
 * What is read into a frame: content, or nothing at all
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "engine/batch.h"
#include "lib/digest.h"
#include "tap.h"

#define BASE	0x200000ULL
#define PAGES	8
#define BAD	5

/* which page cannot be read, whatever the reason; -1: none */
static int bad;
static unsigned int marked;

static int fake_read(struct guest *g, const struct vasi_range *vec, size_t n,
		     void *data, size_t len, size_t *ret_done)
{
	unsigned char *out = data;
	size_t i;

	(void)g;
	for (i = 0; i < n; i++) {
		const uint64_t first = (vec[i].start - BASE) / GUEST_PAGE_SIZE;

		if (bad >= 0 && first <= (uint64_t)bad &&
		    (uint64_t)bad < first + vec[i].pages)
			break;
		for (uint64_t j = 0; j < vec[i].pages; j++) {
			must(len >= GUEST_PAGE_SIZE);
			memset(out, (int)(first + j + 1), GUEST_PAGE_SIZE);
			out += GUEST_PAGE_SIZE;
			len -= GUEST_PAGE_SIZE;
		}
	}
	*ret_done = i;
	return i ? 0 : -EFAULT;
}

static int fake_mark(struct guest *g, const struct vasi_range *vec, size_t n)
{
	(void)g;
	for (size_t i = 0; i < n; i++)
		marked += vec[i].pages;
	return 0;
}

static const struct guest_access fake = {
	.name = "fake", .read = fake_read, .mark = fake_mark,
};

static struct batch *b;
static struct send_totals total;
static struct pagemap *known;

/* two items: up to @first, and from there on */
static int build(unsigned int first, bool untracked, bool suspended)
{
	struct guest guest = { .access = &fake };
	const struct batch_context c = {
		.guest = &guest, .known = known, .suspended = suspended,
		.total = &total,
	};

	memset(&total, 0, sizeof(total));
	marked = 0;
	pagemap_clear(known, 0, BASE, BASE + PAGES * GUEST_PAGE_SIZE);
	b->n = 2;
	for (unsigned int i = 0; i < 2; i++)
		b->item[i] = (struct send_item){
			.range = {
				.start = BASE + i * first * GUEST_PAGE_SIZE,
				.pages = i ? PAGES - first : first,
				.kind = VASI_KIND_DATA,
			},
			.untracked = untracked,
		};
	return batch_build(b, &c);
}

static void test_unreadable(bool untracked)
{
	const char *of = untracked ? "what no tracker sees" : "the guest";

	bad = -1;
	ok(!build(4, untracked, true) && b->pages == PAGES &&
	   total.pages == PAGES && !total.unreadable, "%s: all is read", of);
	bad = BAD;
	ok(build(4, untracked, true) == -EFAULT,
	   "%s, suspended: a page that cannot be read is an error", of);
	ok(!build(4, untracked, false) && b->pages == 4 &&
	   total.pages == 4 && !total.zero && total.unreadable == PAGES - 4,
	   "%s, running: it is left out, and not made up", of);
	ok(pagemap_pages(known) == 4 &&
	   !pagemap_get(known, 0, BASE + BAD * GUEST_PAGE_SIZE),
	   "%s: the target is not thought to have it", of);
	ok(marked == (untracked ? 0 : PAGES - 4), "%s: it comes again", of);
	ok(!build(BAD + 1, untracked, false) && b->pages == PAGES - BAD - 1 &&
	   b->digest[0] == digest_page(0, BASE + (BAD + 1) * GUEST_PAGE_SIZE,
				       b->data),
	   "%s: what is behind it is read in its place", of);
}

int main(void)
{
	b = batch_new();
	known = pagemap_new();
	must(b && known);
	test_unreadable(false);
	test_unreadable(true);
	pagemap_free(known);
	batch_free(b);
	return tap_end();
}
