// SPDX-License-Identifier: GPL-2.0
/*
 * Lists of mappings: text, flags, the way from one to another
 *
 * The oracle of the difference is an array of pages: the steps are applied to
 * it and it must then be what the new list says, with the content of every page
 * that both lists have with the same backing.
 */
#include <sys/mman.h>
#include "state/maps.h"
#include "tap.h"

#define PAGES	64
#define LISTS	4000
#define BASE	0x100000ULL

struct cell {
	bool mapped;
	uint32_t prot, flags, advice;
	uint64_t offset, space;
	bool whole, readable;
	unsigned int content;
};

static unsigned int seed = 1;

static unsigned int rnd(unsigned int n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 8) % n;
}

/* a list with neighbours, holes, and both kinds of backing */
static Mspd__Maps *random_list(void)
{
	Mspd__Maps *maps = malloc(sizeof(*maps));
	unsigned int at = 0;

	mspd__maps__init(maps);
	maps->vmas = calloc(PAGES, sizeof(*maps->vmas));
	while (at < PAGES) {
		unsigned int len = 1 + rnd(8);
		Mspd__Vma *vma;

		if (at + len > PAGES)
			len = PAGES - at;
		if (rnd(3)) {
			vma = malloc(sizeof(*vma));
			mspd__vma__init(vma);
			vma->start = BASE + at * MAPS_PAGE;
			vma->end = vma->start + len * MAPS_PAGE;
			vma->prot = rnd(2) ? PROT_READ : PROT_READ | PROT_WRITE;
			vma->flags = MAP_PRIVATE;
			vma->advice = rnd(4) ? 0 :
				      rnd(2) ? ADVICE_DONTFORK :
					       ADVICE_NORESERVE;
			if (!rnd(4)) {
				vma->flags = MAP_SHARED;
				vma->space = 1 + rnd(2);
				vma->offset = rnd(3) ? at * MAPS_PAGE : 0;
			} else if (!rnd(3)) {
				vma->whole = 1;
				vma->readable = rnd(len + 1) * MAPS_PAGE;
			}
			maps->vmas[maps->n_vmas++] = vma;
		}
		at += len;
	}
	return maps;
}

static void paint(struct cell *cells, const Mspd__Vma *vma, uint64_t start,
		  uint64_t end, unsigned int content)
{
	for (; start < end; start += MAPS_PAGE)
		cells[(start - BASE) / MAPS_PAGE] = (struct cell){
			true, vma->prot, vma->flags, (uint32_t)vma->advice,
			vma->space ? vma->offset + start - vma->start : 0,
			vma->space, vma->whole,
			start < vma->start + vma->readable, content,
		};
}

static bool apply(struct cell *cells, const struct map_change *c)
{
	uint64_t at;

	for (at = c->start; at < c->end; at += MAPS_PAGE) {
		struct cell *cell = &cells[(at - BASE) / MAPS_PAGE];

		switch (c->op) {
		case MAP_OP_UNMAP:
			*cell = (struct cell){};
			break;
		case MAP_OP_MAP:
			if (cell->mapped)
				return false;
			paint(cells, c->vma, at, at + MAPS_PAGE, 0);
			cell->readable = at < c->vma->start + c->vma->readable;
			cell->advice = c->vma->advice & ADVICE_NORESERVE;
			break;
		case MAP_OP_PROTECT:
			if (!cell->mapped)
				return false;
			cell->prot = c->vma->prot;
			break;
		case MAP_OP_ADVISE:
			if (!cell->mapped)
				return false;
			cell->advice &= ~c->advice_off;
			cell->advice |= c->advice_on;
			break;
		}
	}
	return true;
}

/* 0, or what is wrong */
static const char *compare(const struct cell *is, const struct cell *old,
			   const struct cell *want)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		const bool same = old[i].mapped && want[i].mapped &&
				  old[i].flags == want[i].flags &&
				  old[i].space == want[i].space &&
				  old[i].offset == want[i].offset &&
				  old[i].whole == want[i].whole &&
				  (!old[i].readable || want[i].readable) &&
				  !((old[i].advice ^ want[i].advice) &
				    ADVICE_NORESERVE);

		if (is[i].mapped != want[i].mapped)
			return "mapped";
		if (!is[i].mapped)
			continue;
		if (is[i].prot != want[i].prot)
			return "protection";
		if (is[i].flags != want[i].flags ||
		    is[i].space != want[i].space ||
		    is[i].offset != want[i].offset)
			return "backing";
		if (is[i].advice != want[i].advice)
			return "advice";
		if (same && is[i].content != old[i].content)
			return "content that should have stayed";
		if (!same && is[i].content)
			return "content that should have gone";
	}
	return NULL;
}

static const char *diff_once(void)
{
	struct cell is[PAGES] = {}, old[PAGES], want[PAGES] = {};
	Mspd__Maps *from = random_list(), *to = random_list();
	struct map_change *changes;
	const char *wrong = NULL;
	size_t i, n;

	for (i = 0; i < from->n_vmas; i++)
		paint(is, from->vmas[i], from->vmas[i]->start,
		      from->vmas[i]->end, (unsigned int)i + 1);
	memcpy(old, is, sizeof(old));
	for (i = 0; i < to->n_vmas; i++)
		paint(want, to->vmas[i], to->vmas[i]->start, to->vmas[i]->end,
		      0);
	if (maps_valid(from, USER_TOP) || maps_diff(from, to, &changes, &n))
		return "no difference made";
	for (i = 0; i < n && !wrong; i++)
		if (!apply(is, &changes[i]))
			wrong = "a step that cannot be taken";
	if (!wrong)
		wrong = compare(is, old, want);
	free(changes);
	mspd__maps__free_unpacked(from, NULL);
	mspd__maps__free_unpacked(to, NULL);
	return wrong;
}

static void test_diff(void)
{
	struct map_change *changes;
	const char *wrong = NULL;
	Mspd__Maps *list;
	size_t n = 1;
	int i;

	for (i = 0; i < LISTS && !wrong; i++)
		wrong = diff_once();
	ok(!wrong, "%d differences of random lists%s%s", LISTS,
	   wrong ? ": " : "", wrong ? wrong : "");
	list = random_list();
	maps_diff(list, list, &changes, &n);
	ok(n == 0, "nothing to do between equal lists");
	free(changes);
	mspd__maps__free_unpacked(list, NULL);
}

static void test_valid(void)
{
	Mspd__Vma a = MSPD__VMA__INIT, b = MSPD__VMA__INIT;
	Mspd__Vma *v[] = { &a, &b };
	Mspd__Maps maps = MSPD__MAPS__INIT;

	a.start = 0x1000;
	a.end = 0x3000;
	b.start = 0x3000;
	b.end = 0x4000;
	maps.vmas = v;
	maps.n_vmas = 2;
	ok(!maps_valid(&maps, USER_TOP), "a list in order is taken");
	b.start = 0x2000;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO, "overlap is refused");
	b.start = 0x3001;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO, "no page border is refused");
	b.start = 0x3000;
	b.end = USER_TOP + 0x1000;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO,
	   "an address of the kernel is refused");
	b.end = 0x4000;
	b.prot = 8;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO,
	   "an unknown protection is refused");
	b.prot = 0;
	b.readable = MAPS_PAGE;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO,
	   "a length of a file that has a name is refused");
	b.whole = 1;
	ok(!maps_valid(&maps, USER_TOP), "of one without a name it is taken");
	b.readable = MAPS_PAGE / 2;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO,
	   "if it is of whole pages");
	b.readable = 2 * MAPS_PAGE;
	ok(maps_valid(&maps, USER_TOP) == -EPROTO,
	   "and not longer than the mapping");
}

static const char lines[] =
"00400000-00402000 r-xp 00001000 08:01 123                    /bin/a b\\012c\n"
"00800000-00900000 rw-s 00000000 00:01 77                     /memfd:x (deleted)\n"
"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0      [vsyscall]\n";

static void test_flags(void)
{
	static const struct vasi_mapping v[] = {
		{ .start = 0x400000, .end = 0x401000, .flags = VASI_MAP_READ },
		{ .start = 0x401000, .end = 0x404000, .flags = VASI_MAP_WRITE |
		  VASI_MAP_MAYWRITE | VASI_MAP_WIPEONFORK },
		{ .start = 0x600000, .end = 0x601000, .flags = VASI_MAP_LOCKED |
		  VASI_MAP_OTHER | VASI_MAP_HUGETLB },
	};
	static const char same[] =
"00400000-00401000 r--p 00000000 00:00 0 \n"
"00402000-00404000 rw-p 00000000 00:00 0 \n"
"00600000-00601000 rw-s 00000000 00:00 0 \n"
"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0      [vsyscall]\n";
	static const char changed[] =
"00400000-00405000 r--p 00001000 08:01 9 /f\n"
"00500000-00501000 rw-p 00000000 00:00 0 \n"
"00600000-00602000 rw-p 00000000 00:00 0 \n";
	struct map_text t;

	must(!map_text_parse(&t, strdup(same)));
	ok(!map_text_flags(&t, v, 3) && t.n == 4,
	   "a list that has grown has all lines");
	ok(!t.v[0].flags && t.v[1].flags == (VMFLAG_MAYWRITE |
					     ADVICE_WIPEONFORK) &&
	   !t.v[1].refused[0], "flags of the list, also of a part");
	ok(t.v[2].flags == ADVICE_LOCKED && !strcmp(t.v[2].refused, "ht"),
	   "huge pages are named first");
	map_text_free(&t);

	must(!map_text_parse(&t, strdup(changed)));
	ok(map_text_flags(&t, v, 3) == 1, "a list that lacks some is noticed");
	ok(t.n == 3 && t.v[0].end == 0x401000 && t.v[1].start == 0x401000 &&
	   t.v[1].end == 0x404000 && t.v[1].offset == 0x2000 &&
	   !t.v[0].flags && t.v[1].flags & VMFLAG_MAYWRITE,
	   "what was taken apart and shrank keeps what is left of it");
	ok(t.v[2].start == 0x600000 && t.v[2].end == 0x601000,
	   "what is gone is left out");
	map_text_free(&t);
}

static bool names(const struct map_line *line, const char *link)
{
	char text[64];

	strcpy(text, link);
	return map_line_names(line, text);
}

static void test_text(void)
{
	struct map_text t, later;

	if (!ok(!map_text_parse(&t, strdup(lines)) && t.n == 3,
		"the lines are read"))
		return;
	ok(!strcmp(t.v[0].name, "/bin/a b\nc") && t.v[0].ino == 123 &&
	   t.v[0].offset == 0x1000 && t.v[0].prot == (PROT_READ | PROT_EXEC),
	   "path with space and newline, offset, protection");
	ok(t.v[1].shared && !t.v[0].shared, "shared and private");
	ok(names(&t.v[0], "/bin/a b\nc") && names(&t.v[0], "/bin/a b\\012c") &&
	   names(&t.v[1], "/memfd:x (deleted)"),
	   "a file is known by what a link to it says");
	ok(!names(&t.v[0], "/bin/a b\nc (deleted)") &&
	   !names(&t.v[0], "/bin/a") && !names(&t.v[1], "/memfd:x"),
	   "another file is not");
	test_flags();
	ok(map_text_parse(&later, strdup("00400000-00402000 r-xp\n")) ==
	   -EPROTO, "half a line is refused");
	must(!map_text_parse(&later, strdup(
"00400000-00402000 r-xp 00000000 00:05 7 /f\n"
"00401000-00403000 r-xp 00001000 00:05 7 /f\n")));
	ok(later.n == 2 && later.v[1].start == 0x402000 &&
	   later.v[1].end == 0x403000 && later.v[1].offset == 0x2000,
	   "mappings that changed while they were read do not overlap");
	map_text_free(&later);
	ok(map_text_parse(&later, strdup(
"00400000-00402000 r-xp 00000000 00:00 0 \n"
"00401000-00402000 r-xp 00000000 00:00 0 \n")) == -EPROTO,
	   "mappings are listed in order");
	map_text_free(&t);
}

static void test_hole(void)
{
	Mspd__Vma a = MSPD__VMA__INIT, b = MSPD__VMA__INIT;
	Mspd__Vma *va[] = { &a }, *vb[] = { &b };
	Mspd__Maps ma = MSPD__MAPS__INIT, mb = MSPD__MAPS__INIT;
	const Mspd__Maps *lists[] = { &ma, NULL, &mb };

	ma.vmas = va;
	ma.n_vmas = 1;
	mb.vmas = vb;
	mb.n_vmas = 1;
	a.start = 0x30000;
	a.end = 0x40000;
	b.start = 0x48000;
	b.end = 0x50000;
	ok(maps_hole(lists, 3, 0x20000, 0x10000) == 0x20000 &&
	   maps_hole(lists, 3, 0x20000, 0x11000) == 0x50000 &&
	   maps_hole(lists, 3, 0x38000, 0x8000) == 0x40000,
	   "holes of all lists");
	a.end = USER_TOP;
	ok(maps_hole(lists, 3, 0x30000, 0x1000) == 0, "no hole is told");
	ok(maps_find(&ma, 0x30000) == &a && !maps_find(&mb, 0x50000),
	   "look-up by address");
}

int main(void)
{
	test_text();
	test_valid();
	test_hole();
	test_diff();
	return tap_end();
}
