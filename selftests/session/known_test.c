// SPDX-License-Identifier: GPL-2.0
/*
 * What is forgotten when mappings change: what the target loses, nothing else
 */
#include <sys/mman.h>
#include "lib/digest.h"
#include "session/known.h"
#include "tap.h"

#define BASE	0x200000ULL
#define PAGE	GUEST_PAGE_SIZE

static struct pagemap *known;

static void fill(uint32_t space, uint64_t start, unsigned int pages)
{
	for (uint64_t d = 1; d <= pages; d++, start += PAGE)
		must(!pagemap_set(known, space, start, 1, &d, NULL));
}

static void test_vmas(void)
{
	Mspd__Vma a = MSPD__VMA__INIT, b = MSPD__VMA__INIT, *va[] = { &a, &b };
	Mspd__Vma c = MSPD__VMA__INIT, d = MSPD__VMA__INIT, *vc[] = { &c, &d };
	Mspd__Maps from = MSPD__MAPS__INIT, to = MSPD__MAPS__INIT;

	a.start = BASE;
	a.end = BASE + 8 * PAGE;
	a.flags = MAP_PRIVATE;
	b = a;
	b.start = BASE + 8 * PAGE;
	b.end = BASE + 16 * PAGE;
	b.has_whole = b.whole = 1;
	b.readable = 6 * PAGE;
	from.n_vmas = 2;
	from.vmas = va;
	fill(0, BASE, 16);
	must(!known_follow(known, NULL, &from, NULL, NULL));
	ok(pagemap_pages(known) == 16, "the first list takes nothing away");
	c = a;
	d = b;
	to.n_vmas = 2;
	to.vmas = vc;
	c.prot = PROT_READ;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 16, "nor does a protection");
	c.end -= PAGE;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 15 &&
	   !pagemap_get(known, 0, BASE + 7 * PAGE), "an unmapped page goes");
	c = a;
	d.readable = 8 * PAGE;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 15, "a file that grows takes nothing away");
	d.readable = 4 * PAGE;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 13 &&
	   pagemap_get(known, 0, BASE + 11 * PAGE) &&
	   !pagemap_get(known, 0, BASE + 12 * PAGE) &&
	   pagemap_get(known, 0, BASE + 14 * PAGE),
	   "of one that becomes shorter, what was cut off goes");
	d.whole = 0;
	d.readable = 0;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 7 && pagemap_get(known, 0, BASE) &&
	   !pagemap_get(known, 0, BASE + 8 * PAGE),
	   "what is of another kind now is mapped anew, without content");
	pagemap_clear(known, 0, 0, BASE + 16 * PAGE);
}

static void test_objects(void)
{
	Mspd__Object a = MSPD__OBJECT__INIT, b = MSPD__OBJECT__INIT;
	Mspd__Object *oa[] = { &a }, *ob[] = { &b };
	Mspd__Maps from = MSPD__MAPS__INIT, to = MSPD__MAPS__INIT;

	a.space = 1;
	a.bytes = 4 * PAGE;
	b = a;
	from.n_objects = to.n_objects = 1;
	from.objects = oa;
	to.objects = ob;
	fill(1, 0, 4);
	fill(2, 0, 1);
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 5, "an object that stays");
	b.bytes = 2 * PAGE + 1;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 4 && pagemap_get(known, 1, 2 * PAGE),
	   "one that shrinks loses its end");
	to.n_objects = 0;
	must(!known_follow(known, &from, &to, NULL, NULL));
	ok(pagemap_pages(known) == 1 && pagemap_get(known, 2, 0),
	   "one that is mapped no more loses all");
}

int main(void)
{
	known = pagemap_new();
	must(known);
	test_vmas();
	test_objects();
	pagemap_free(known);
	return tap_end();
}
