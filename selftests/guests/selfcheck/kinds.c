// SPDX-License-Identifier: GPL-2.0
/*
 * One mapping of each kind that a guest may have: private of a file and of a
 * deleted file with pages of its own among the file's, memfd with and without
 * its descriptor, shared anonymous, transparent huge pages.
 */
#include <sys/mman.h>

#include "check.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define PAGES 32UL
#define HUGE (2UL << 20)
#define HUGE_PAGES (2 * HUGE / PAGE)

enum kind {
	KIND_FILE, KIND_DELETED, KIND_MEMFD, KIND_MEMFD_CLOSED, KIND_SHARED,
	KIND_HUGE, KINDS
};

static const char *const kind_names[KINDS] = {
	"file", "deleted file", "memfd", "memfd without descriptor",
	"shared anonymous", "huge"
};

static struct {
	uint64_t *base;
	size_t pages;
	/* kept apart from the counters in the pages */
	uint64_t writes;
} maps[KINDS];
static int memfd = -1;

/* word 1 never changes; word 0 counts, the last word follows from it */
static uint64_t file_word(enum kind kind, size_t page)
{
	return mix64_pair((uint64_t)kind + 77, page);
}

static uint64_t last_word(enum kind kind, size_t page, uint64_t count)
{
	return count ? mix64_pair(file_word(kind, page), count) : 0;
}

static int fill_fd(int fd, enum kind kind)
{
	uint64_t page[WORDS] = { 0 };
	size_t i;

	for (i = 0; i < PAGES; i++) {
		page[1] = file_word(kind, i);
		if (pwrite(fd, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE)
			return -EIO;
	}
	return 0;
}

static int map_one(enum kind kind, size_t pages, int flags, int fd)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	maps[kind].base = p;
	maps[kind].pages = pages;
	return 0;
}

static int map_file(enum kind kind, const char *name)
{
	char path[PATH_MAX];
	int fd, r;

	if (snprintf(path, sizeof(path), "%s/%s", options.dir, name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = fill_fd(fd, kind);
	close(fd);
	if (r < 0)
		return r;
	/* only read: a private mapping needs no more */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = map_one(kind, PAGES, MAP_PRIVATE, fd);
	close(fd);
	if (!r && kind == KIND_DELETED && unlink(path) < 0)
		r = -errno;
	return r;
}

static int map_memfd(enum kind kind, int *ret_fd)
{
	int fd, r;

	fd = memfd_create("selfcheck", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fill_fd(fd, kind);
	if (!r)
		r = map_one(kind, PAGES, MAP_SHARED, fd);
	if (r < 0 || !ret_fd)
		close(fd);
	else
		*ret_fd = fd;
	return r;
}

static int map_huge(void)
{
	unsigned char *p;
	uintptr_t at;

	p = mmap(NULL, 3 * HUGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	at = ((uintptr_t)p + HUGE - 1) & ~(HUGE - 1);
	/* a kernel without huge pages gives small ones: no difference here */
	(void)madvise((void *)at, 2 * HUGE, MADV_HUGEPAGE);
	maps[KIND_HUGE].base = (uint64_t *)at;
	maps[KIND_HUGE].pages = HUGE_PAGES;
	return 0;
}

int files_setup(void)
{
	int r;

	r = map_file(KIND_FILE, "private");
	if (!r)
		r = map_file(KIND_DELETED, "deleted");
	if (!r)
		r = map_memfd(KIND_MEMFD, &memfd);
	if (!r)
		r = keep_fd(memfd);
	if (!r)
		r = map_memfd(KIND_MEMFD_CLOSED, NULL);
	if (!r)
		r = map_one(KIND_SHARED, PAGES, MAP_SHARED | MAP_ANONYMOUS, -1);
	if (!r)
		r = map_huge();
	return r;
}

static bool has_file_word(enum kind kind)
{
	return kind != KIND_SHARED && kind != KIND_HUGE;
}

static void verify_page(struct worker *w, enum kind kind, size_t i,
			const uint64_t *p, const char *through)
{
	uint64_t fixed = has_file_word(kind) ? file_word(kind, i) : 0;

	if (p[1] != fixed || p[WORDS - 1] != last_word(kind, i, p[0]))
		fail(w, "%s page %zu at %p, %s: wrong content (count %llu)",
		     kind_names[kind], i, (void *)(maps[kind].base + i * WORDS),
		     through, (unsigned long long)p[0]);
}

/* odd pages only: the even ones of a private mapping stay the file's */
static void write_some(struct worker *w, enum kind kind)
{
	uint64_t page[WORDS];
	unsigned int n;

	for (n = 0; n < 4; n++) {
		size_t i = (prng_next(&w->prng) % maps[kind].pages) | 1;
		uint64_t *p = maps[kind].base + i * WORDS;

		verify_page(w, kind, i, p, "mapping");
		maps[kind].writes++;
		if (kind == KIND_MEMFD && n % 2) {
			memcpy(page, p, PAGE);
			page[0]++;
			page[WORDS - 1] = last_word(kind, i, page[0]);
			if (pwrite(memfd, page, PAGE, (off_t)(i * PAGE)) !=
			    (ssize_t)PAGE)
				fail_call(w, "pwrite");
			continue;
		}
		p[0]++;
		p[WORDS - 1] = last_word(kind, i, p[0]);
	}
}

static void verify_all(struct worker *w, enum kind kind)
{
	uint64_t sum = 0, page[WORDS];
	size_t i;

	for (i = 0; i < maps[kind].pages; i++) {
		const uint64_t *p = maps[kind].base + i * WORDS;

		verify_page(w, kind, i, p, "mapping");
		if (i % 2 == 0 && p[0])
			fail(w, "%s page %zu: written by nobody",
			     kind_names[kind], i);
		sum += p[0];
		if (kind != KIND_MEMFD)
			continue;
		if (pread(memfd, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE)
			fail_call(w, "pread");
		else
			verify_page(w, kind, i, page, "descriptor");
	}
	if (sum != maps[kind].writes)
		fail(w, "%s: counters sum to %llu after %llu writes",
		     kind_names[kind], (unsigned long long)sum,
		     (unsigned long long)maps[kind].writes);
}

void maps_kinds(struct worker *w)
{
	while (tick(w)) {
		enum kind kind = prng_next(&w->prng) % KINDS;

		write_some(w, kind);
		if (atomic_load(&w->loops) % 8 == 0)
			verify_all(w, kind);
		pace(w, 10 * NSEC_PER_MSEC);
	}
}
