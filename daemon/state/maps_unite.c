// SPDX-License-Identifier: GPL-2.0
/*
 * What the source can have as one mapping, the target can, too
 *
 * Neighbours that were filled apart from each other belong to different
 * anon_vmas and never become one, as they did on the source. The guest would
 * see that: mremap() fails across a border. Nothing tells what belongs to
 * which, so it is tried: neighbours that differ in their protection alone get
 * the same one. If they do not become one then, all pieces but the largest are
 * mapped anew, empty, which joins them to it, and get their content back.
 *
 * This is done with each list of mappings, before its data come: what is one
 * then stays one, whatever is written to its parts (see bind_spans()).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/maps.h"
#include "state/procfile.h"
#include "state/restore.h"

#define PAGEMAP_PRESENT	(3ULL << 62)	/* or swapped */
#define PAGEMAP_FILE	(1ULL << 61)

/* pages of a piece, while it is made anew */
struct saved {
	uint64_t addr;
	uint8_t page[MAPS_PAGE];
};

struct pieces {
	struct map_text text;
	int mem;
	int pagemap;
};

static int pieces_open(struct pieces *p, pid_t pid)
{
	_cleanup_close_ int dir = -1;
	char path[32], *text;
	int err;

	*p = (struct pieces){ .mem = -1, .pagemap = -1 };
	snprintf(path, sizeof(path), "/proc/%d", pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	p->mem = openat(dir, "mem", O_RDWR | O_CLOEXEC);
	p->pagemap = openat(dir, "pagemap", O_RDONLY | O_CLOEXEC);
	if (p->mem < 0 || p->pagemap < 0)
		return -errno;
	err = procfile_read(dir, "maps", &text, NULL);
	return err ? err : map_text_parse(&p->text, text);
}

static void pieces_close(struct pieces *p)
{
	map_text_free(&p->text);
	if (p->mem >= 0)
		close(p->mem);
	if (p->pagemap >= 0)
		close(p->pagemap);
}

/* private content of [@start, @end); @ret_n pages in @ret */
static int save(const struct pieces *p, uint64_t start, uint64_t end,
		struct saved **ret, size_t *ret_n)
{
	const size_t pages = (end - start) / MAPS_PAGE;
	_cleanup_free_ uint64_t *entries = NULL;
	struct saved *v = NULL;
	size_t i, n = 0;

	entries = malloc(pages * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	if (pread(p->pagemap, entries, pages * sizeof(*entries),
		  (off_t)(start / MAPS_PAGE * sizeof(*entries))) !=
	    (ssize_t)(pages * sizeof(*entries)))
		return -EIO;
	for (i = 0; i < pages; i++) {
		if (!(entries[i] & PAGEMAP_PRESENT) ||
		    (entries[i] & PAGEMAP_FILE))
			continue;
		if (!(n & (n - 1))) {
			struct saved *more;

			more = reallocarray(v, n ? 2 * n : 1, sizeof(*v));
			if (!more)
				goto fail;
			v = more;
		}
		v[n].addr = start + i * MAPS_PAGE;
		if (pread(p->mem, v[n].page, MAPS_PAGE, (off_t)v[n].addr) !=
		    (ssize_t)MAPS_PAGE)
			goto fail;
		n++;
	}
	*ret = v;
	*ret_n = n;
	return 0;
fail:
	free(v);
	return -ENOMEM;
}

/*
 * A run of neighbours of the list that may become one, as if they were
 */
struct span {
	Mspd__Vma vma;
	size_t first, n;
};

static int renew(struct map_job *job, const struct pieces *p,
		 const Mspd__Vma *vma, uint64_t start, uint64_t end)
{
	const struct map_change change = { MAP_OP_MAP, start, end, vma, 0,
					   (uint32_t)vma->advice };
	_cleanup_free_ struct saved *v = NULL;
	size_t i, n = 0;
	int err = 0;

	if (!vma->space)
		err = save(p, start, end, &v, &n);
	if (!err)
		err = map_job_open(job, vma);
	if (!err)
		err = map_job_call(job, &change, __NR_munmap,
				   (const uint64_t[6]){ start, end - start });
	if (!err)
		err = map_job_map(job, &change);
	if (!err)
		err = map_job_advise(job, &change);
	if (!err)
		err = map_job_run(job);
	for (i = 0; i < n && !err; i++)
		if (pwrite(p->mem, v[i].page, MAPS_PAGE, (off_t)v[i].addr) !=
		    (ssize_t)MAPS_PAGE)
			err = -EIO;
	return err;
}

static uint64_t overlap(const struct map_line *line, const Mspd__Vma *vma,
			uint64_t *ret_start, uint64_t *ret_end)
{
	const uint64_t start = line->start > vma->start ? line->start :
							  vma->start;
	const uint64_t end = line->end < vma->end ? line->end : vma->end;

	*ret_start = start;
	*ret_end = end;
	return end > start ? end - start : 0;
}

static int unite(struct map_job *job, const struct pieces *p, size_t first,
		 const Mspd__Vma *vma)
{
	uint64_t start, end, most = 0, best_start = 0, best_end = 0;
	size_t i;
	int err = 0;

	for (i = first; i < p->text.n && p->text.v[i].start < vma->end; i++) {
		const uint64_t len = overlap(&p->text.v[i], vma, &start, &end);

		if (len > most) {
			most = len;
			best_start = start;
			best_end = end;
		}
	}
	/*
	 * Each side in one go: a part alone would rather join the next old
	 * part behind it than the one that stays (mmap() of 6.1 does).
	 */
	if (best_start > vma->start)
		err = renew(job, p, vma, vma->start, best_start);
	if (!err && best_end < vma->end)
		err = renew(job, p, vma, best_end, vma->end);
	return err;
}

/* memory that was writable once: guard pages part what is beside them */
static bool may_join(const Mspd__Vma *a, const Mspd__Vma *b)
{
	const uint64_t advice = ~(uint64_t)ADVICE_ACCOUNTED;

	return a->end == b->start && !a->file && !a->space && !b->file &&
	       !b->space && !a->name && !b->name && !vma_is_kernels(a) &&
	       !vma_is_kernels(b) && a->flags == b->flags &&
	       (a->advice & advice) == (b->advice & advice) &&
	       ((a->prot & PROT_WRITE) || (a->advice & ADVICE_ACCOUNTED)) &&
	       ((b->prot & PROT_WRITE) || (b->advice & ADVICE_ACCOUNTED));
}

static int list_spans(const Mspd__Maps *maps, struct span **ret, size_t *ret_n)
{
	struct span *v;
	size_t i, n = 0;

	v = calloc(maps->n_vmas + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (i = 0; i < maps->n_vmas; i++) {
		const Mspd__Vma *vma = maps->vmas[i];

		if (i && may_join(maps->vmas[i - 1], vma)) {
			v[n - 1].vma.end = vma->end;
			v[n - 1].vma.prot = PROT_READ | PROT_WRITE;
			v[n - 1].n++;
			continue;
		}
		v[n++] = (struct span){ .vma = *vma, .first = i, .n = 1 };
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

/* all spans of several mappings: one protection for all, or back to their own */
static int protect_spans(struct map_job *job, const Mspd__Maps *maps,
			 const struct span *v, size_t n, bool own)
{
	size_t i, j;
	int err = 0;

	for (i = 0; i < n; i++) {
		for (j = 0; j < v[i].n && v[i].n > 1 && !err; j++) {
			const Mspd__Vma *vma = maps->vmas[v[i].first + j];
			const uint64_t arg[6] = {
				vma->start, vma->end - vma->start,
				own ? vma->prot : v[i].vma.prot,
			};

			err = map_job_call(job, NULL, __NR_mprotect, arg);
		}
	}
	return err ? err : map_job_run(job);
}

static int unite_spans(struct map_job *job, const struct span *v, size_t n)
{
	struct pieces p;
	size_t i, at = 0;
	int err;

	err = pieces_open(&p, map_job_restore(job)->ns.pid);
	for (i = 0; i < n && !err; i++) {
		const Mspd__Vma *vma = &v[i].vma;

		while (at < p.text.n && p.text.v[at].end <= vma->start)
			at++;
		if (vma_is_kernels(vma) || at == p.text.n ||
		    p.text.v[at].end >= vma->end)
			continue;
		err = unite(job, &p, at, vma);
	}
	pieces_close(&p);
	return err;
}

/*
 * Memory that has no page yet belongs to no anon_vma. Its parts, filled one by
 * one when they have their own protection again, would get one each, unless
 * what is between them is filled, too. A page beforehand gives them a common
 * one. It reads as what is there without it, so where that fails (a limit, an
 * old kernel) nothing is wrong yet.
 */
static int bind_spans(struct map_job *job, const struct span *v, size_t n)
{
	size_t i;
	int err = 0;

	for (i = 0; i < n && !err; i++) {
		const uint64_t arg[6] = {
			v[i].vma.start, MAPS_PAGE, MADV_POPULATE_WRITE,
		};

		if (v[i].n > 1)
			err = map_job_call(job, NULL, __NR_madvise, arg);
	}
	return err ? err : map_job_run(job);
}

int maps_unite(struct map_job *job, const Mspd__Maps *maps)
{
	_cleanup_free_ struct span *v = NULL;
	size_t n = 0;
	int err;

	err = list_spans(maps, &v, &n);
	if (!err)
		err = protect_spans(job, maps, v, n, false);
	if (!err)
		err = unite_spans(job, v, n);
	if (!err)
		err = bind_spans(job, v, n);
	if (!err)
		err = protect_spans(job, maps, v, n, true);
	return err;
}
