// SPDX-License-Identifier: GPL-2.0
/*
 * What is written is read back: of ranges of all shapes, and with any bit changed
 * in between
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "engine/apply.h"
#include "lib/digest.h"
#include "tap.h"

#define BASE	0x200000ULL
#define PAGES	300
#define OBJECT	7
#define PAGE	GUEST_PAGE_SIZE

static unsigned char memory[PAGES * PAGE];
static long flip = -1;		/* a bit that does not keep what is written */
static int object = -1;

static int fake_write(struct guest *g, const struct vasi_range *vec, size_t n,
		      const void *data, size_t len, size_t *ret_done)
{
	const unsigned char *in = data;

	(void)g;
	for (size_t i = 0; i < n; i++) {
		unsigned char *at = memory + (vec[i].start - BASE);
		size_t bytes = vec[i].pages * PAGE;

		must(!vec[i].space && vec[i].start >= BASE &&
		     at + bytes <= memory + sizeof(memory));
		if (vec[i].kind == VASI_KIND_ZERO) {
			memset(at, 0, bytes);
			continue;
		}
		must(bytes <= len);
		memcpy(at, in, bytes);
		in += bytes;
		len -= bytes;
	}
	if (flip >= 0)
		memory[flip / 8] ^= 1 << flip % 8;
	*ret_done = n;
	return 0;
}

static int fake_read(struct guest *g, const struct vasi_range *vec, size_t n,
		     void *data, size_t len, size_t *ret_done)
{
	unsigned char *out = data;

	(void)g;
	for (size_t i = 0; i < n; i++) {
		size_t bytes = vec[i].pages * PAGE;

		must(vec[i].kind == VASI_KIND_DATA && bytes <= len);
		memcpy(out, memory + (vec[i].start - BASE), bytes);
		out += bytes;
		len -= bytes;
	}
	*ret_done = n;
	return 0;
}

static const struct guest_access fake = {
	.name = "fake", .read = fake_read, .write = fake_write,
};

static int object_fd(void *arg, uint32_t space)
{
	return arg == memory && space == OBJECT ? object : -ENOENT;
}

static struct guest guest = { .access = &fake };
static struct apply a = {
	.guest = &guest, .object_fd = object_fd, .object_arg = memory,
};

/* anonymous memory, the last page of a file, an object */
static struct extent extent[] = {
	{ .start = BASE, .end = BASE + (PAGES - 1) * PAGE, .blank = true },
	{ .start = BASE + (PAGES - 1) * PAGE, .end = BASE + PAGES * PAGE },
	{ .end = PAGES * PAGE, .space = OBJECT, .blank = true },
};

static const struct extents extents = { extent, 3 };

static struct vasi_range range(uint32_t space, uint64_t page, uint64_t pages,
			       uint8_t kind)
{
	return (struct vasi_range){
		.start = (space ? 0 : BASE) + page * PAGE, .pages = pages,
		.space = space, .kind = kind,
	};
}

static unsigned char *noise(size_t len)
{
	unsigned char *p = malloc(len);
	unsigned int seed = 7;

	must(p);
	for (size_t i = 0; i < len; i++)
		p[i] = rand_r(&seed);
	return p;
}

/* single pages, runs over the end of a step, two spaces taking turns */
static void test_shapes(void)
{
	struct vasi_range vec[PAGES];
	uint64_t digest[PAGES];
	unsigned char *data = noise(PAGES * PAGE);
	size_t n = 0, page = 0;
	bool good = true;

	while (page < 256) {
		size_t pages = n % 5 == 4 ? 70 : n % 3 + 1;

		if (pages > 256 - page)
			pages = 256 - page;
		vec[n] = range(n % 4 == 3 ? OBJECT : 0, page, pages,
			       VASI_KIND_DATA);
		page += pages;
		n++;
	}
	memset(memory, 0, sizeof(memory));
	ok(!apply_data(&a, 1, vec, n, data, digest), "%zu ranges", n);
	page = 0;
	for (size_t i = 0; i < n; i++)
		for (uint64_t j = 0; j < vec[i].pages; j++, page++) {
			const unsigned char *have = memory + page * PAGE;
			unsigned char copy[PAGE];

			if (vec[i].space) {
				must(pread(object, copy, PAGE, page * PAGE) ==
				     PAGE);
				have = copy;
			}
			good &= !memcmp(have, data + page * PAGE, PAGE) &&
				digest[page] == digest_page(
					vec[i].space, vec[i].start + j * PAGE,
					data + page * PAGE);
		}
	ok(good && page == 256, "are where they belong, with their digests");
	free(data);
}

static void test_data_bits(void)
{
	const struct vasi_range vec[2] = {
		range(0, 0, 60, VASI_KIND_DATA),
		range(0, 60, 40, VASI_KIND_DATA),
	};
	unsigned char *data = noise(100 * PAGE);
	uint64_t right[100], digest[100];
	int seen = 0, n = 0;

	must(!apply_data(&a, 1, vec, 2, data, right));
	/* each bit of a byte, each byte of a page, all pages */
	for (flip = 0; flip < (long)(100 * PAGE * 8); flip += 8 * 997 + 1, n++) {
		must(!apply_data(&a, 1, vec, 2, data, digest));
		/* a step is written once, the bit in it changes once */
		for (int i = 0; i < 100; i++)
			seen += digest[i] != right[i];
	}
	flip = -1;
	ok(n > 400 && seen == n, "a bit of %d changes in memory: %d times seen",
	   n, seen);
	free(data);
}

static void test_zero_bits(void)
{
	const struct vasi_range r = range(0, 10, 1, VASI_KIND_ZERO);
	const uint64_t d = 1;
	int seen = 0;

	must(!pagemap_set(a.known, 0, r.start, 1, &d, NULL));
	for (long i = 0; i < (long)PAGE * 8; i++) {
		flip = 10 * PAGE * 8 + i;
		seen += apply_zero(&a, &extents, &r) == -EILSEQ;
		seen += apply_dropped(&a, &extents, &r) == -EILSEQ;
	}
	flip = -1;
	ok(seen == (int)PAGE * 16 && pagemap_sum(a.known) == d,
	   "each bit in a page that is to be zero is seen (%d)", seen);
	ok(!apply_zero(&a, &extents, &r) && !apply_dropped(&a, &extents, &r) &&
	   pagemap_sum(a.known) == digest_zero(0, r.start),
	   "one that keeps its zeros is good");
	pagemap_clear(a.known, 0, r.start, r.start + PAGE);
}

/* known, unknown, known: over several steps */
static void test_zero_runs(void)
{
	const struct vasi_range all = range(0, 0, PAGES, VASI_KIND_ZERO);
	const uint64_t d = 1;

	memset(memory, 0, sizeof(memory));
	for (int i = 3; i < PAGES - 1; i += 50) {
		memory[i * PAGE] = 1;
		must(!pagemap_set(a.known, 0, BASE + i * PAGE, 1, &d, NULL));
	}
	memset(memory + (PAGES - 1) * PAGE, 9, PAGE);
	ok(!apply_zero(&a, &extents, &all) && !memory[3 * PAGE] &&
	   !memory[253 * PAGE] && !memory[(PAGES - 1) * PAGE] &&
	   pagemap_pages(a.known) == PAGES, "zero over holes and a file's end");
	memory[(PAGES - 1) * PAGE] = 1;
	ok(!apply_dropped(&a, &extents, &all),
	   "dropped, and the file has content of its own");
	memory[200 * PAGE + 5] = 1;
	ok(apply_dropped(&a, &extents, &all) == -EILSEQ,
	   "one page was not dropped");
	pagemap_clear(a.known, 0, BASE, BASE + PAGES * PAGE);
}

static void test_object(void)
{
	const struct vasi_range all = range(OBJECT, 0, PAGES, VASI_KIND_ZERO);
	const uint64_t d = 1;

	must(!ftruncate(object, 0));
	ok(!apply_dropped(&a, &extents, &all), "an object behind its end is zero");
	must(pwrite(object, "x", 1, 299 * PAGE) == 1);
	ok(apply_dropped(&a, &extents, &all) == -EILSEQ,
	   "and something in it is seen");
	must(!pagemap_set(a.known, OBJECT, 299 * PAGE, 1, &d, NULL));
	ok(!apply_zero(&a, &extents, &all) &&
	   !apply_dropped(&a, &extents, &all) &&
	   pagemap_pages(a.known) == PAGES, "until it is cleared");
}

int main(void)
{
	a.known = pagemap_new();
	object = memfd_create("apply", MFD_CLOEXEC);
	must(a.known && object >= 0 && !apply_init(&a));
	test_shapes();
	test_data_bits();
	test_zero_bits();
	test_zero_runs();
	test_object();
	ok(a.back_ns > 0, "it takes some time");
	apply_exit(&a);
	pagemap_free(a.known);
	close(object);
	return tap_end();
}
