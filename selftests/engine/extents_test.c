// SPDX-License-Identifier: GPL-2.0
#include "engine/extents.h"
#include "tap.h"

#define PAGE 4096ULL

static Mspd__Vma vma[4];
static Mspd__Vma *vmas[4] = { &vma[0], &vma[1], &vma[2], &vma[3] };
static Mspd__Object object;
static Mspd__Object *objects[] = { &object };
static Mspd__FileId file;
static Mspd__Maps maps;

static void maps_new(void)
{
	mspd__maps__init(&maps);
	for (int i = 0; i < 4; i++)
		mspd__vma__init(&vma[i]);
	mspd__object__init(&object);
	mspd__file_id__init(&file);
	/* not in order, and two that touch */
	vma[0].start = 100 * PAGE;
	vma[0].end = 110 * PAGE;
	vma[1].start = 20 * PAGE;
	vma[1].end = 30 * PAGE;
	vma[1].file = &file;
	vma[2].start = 110 * PAGE;
	vma[2].end = 120 * PAGE;
	vma[3].start = 200 * PAGE;
	vma[3].end = 210 * PAGE;
	vma[3].has_special = 1;
	vma[3].special = VMA_SPECIAL_VDSO;
	object.space = 1;
	object.bytes = 5 * PAGE + 1;
	maps.n_vmas = 4;
	maps.vmas = vmas;
	maps.n_objects = 1;
	maps.objects = objects;
}

static bool covers(const struct extents *x, uint32_t space, uint64_t from,
		   uint64_t pages)
{
	return extents_cover(x, &(struct vasi_range){
		.start = from * PAGE, .pages = pages, .space = space });
}

static void test_build(void)
{
	struct extents x;

	maps_new();
	ok(!extents_build(&x, &maps) && x.n == 4, "mappings and the object");
	ok(covers(&x, 0, 100, 20), "a range over two that touch is inside");
	ok(!covers(&x, 0, 100, 21), "one page more is not");
	ok(!covers(&x, 0, 99, 2), "nor one page before");
	ok(covers(&x, 0, 20, 10) && !covers(&x, 0, 30, 1), "ends are exact");
	ok(!covers(&x, 0, 200, 1), "the vDSO is the kernel's");
	ok(covers(&x, 1, 0, 6) && !covers(&x, 1, 0, 7),
	   "an object ends with its last page");
	ok(!covers(&x, 2, 0, 1), "there is no other object");
	ok(!extents_find(&x, 0, 20 * PAGE)->blank &&
	   extents_find(&x, 0, 100 * PAGE)->blank,
	   "a file's mapping does not read as zero");
	ok(!covers(&x, 0, 0, 0xffffffff), "nothing covers everything");
	extents_free(&x);
	ok(!covers(&x, 0, 100, 1), "nothing is in nothing");
}

static void test_clip(void)
{
	struct vasi_range r = { .start = 10 * PAGE, .pages = 100 }, out;
	struct extents x;

	maps_new();
	must(!extents_build(&x, &maps));
	ok(extents_clip(&x, &r, &out) && out.start == 20 * PAGE &&
	   out.pages == 10, "the first part inside");
	r.start = 30 * PAGE;
	r.pages = 80;
	ok(extents_clip(&x, &r, &out) && out.start == 100 * PAGE &&
	   out.pages == 10, "the next one");
	r.pages = 70;
	ok(!extents_clip(&x, &r, &out), "none");
	r.start = 105 * PAGE;
	r.pages = 2;
	ok(extents_clip(&x, &r, &out) && out.start == r.start &&
	   out.pages == 2, "all of it");
	extents_free(&x);
}

/* a file without a name that ends within its mapping */
static void test_whole(void)
{
	const struct extent *in;
	struct extents x;

	maps_new();
	vma[0].whole = 1;
	vma[0].readable = 3 * PAGE;
	must(!extents_build(&x, &maps));
	in = extents_find(&x, 0, 102 * PAGE);
	ok(x.n == 4 && in && in->whole && in->start == 100 * PAGE &&
	   in->end == 103 * PAGE, "all pages of a file without a name");
	ok(!covers(&x, 0, 103, 1) && !covers(&x, 0, 109, 1) &&
	   covers(&x, 0, 110, 10), "but those behind its end");
	extents_free(&x);
	vma[0].readable = 10 * PAGE;
	must(!extents_build(&x, &maps));
	ok(x.n == 4 && extents_find(&x, 0, 109 * PAGE)->whole,
	   "a file as long as its mapping");
	extents_free(&x);
	vma[0].readable = 0;
	must(!extents_build(&x, &maps));
	ok(x.n == 3 && !extents_find(&x, 0, 100 * PAGE),
	   "a file that is empty");
	extents_free(&x);
}

static void test_refused(void)
{
	struct extents x = { .n = 42 };

	maps_new();
	vma[0].start++;
	ok(extents_build(&x, &maps) == -EBADMSG && x.n == 42,
	   "refused: not at a page");
	maps_new();
	vma[0].start = vma[0].end;
	ok(extents_build(&x, &maps) == -EBADMSG, "refused: empty");
	maps_new();
	vma[2].start -= PAGE;
	ok(extents_build(&x, &maps) == -EBADMSG, "refused: overlapping");
	maps_new();
	object.space = 0;
	ok(extents_build(&x, &maps) == -EBADMSG, "refused: object 0");
	maps_new();
	object.bytes = ~0ULL;
	ok(extents_build(&x, &maps) == -EBADMSG, "refused: a size that wraps");
	maps_new();
	vma[2].whole = 1;
	vma[2].readable = 11 * PAGE;
	ok(extents_build(&x, &maps) == -EBADMSG,
	   "refused: a file that is read behind its mapping");
	vma[2].readable = -vma[2].start;
	ok(extents_build(&x, &maps) == -EBADMSG,
	   "refused: a file that is read to the end of all addresses");
	vma[2].readable = 1;
	ok(extents_build(&x, &maps) == -EBADMSG,
	   "refused: a file that ends within a page");
}

int main(void)
{
	test_build();
	test_clip();
	test_whole();
	test_refused();
	return tap_end();
}
