// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "engine/apply.h"
#include "engine/fault.h"
#include "lib/clock.h"
#include "lib/digest.h"

/* most bytes cleared by one call: the module has a limit, too */
#define ZERO_STEP	(4ULL << 20)
#define STEP_BYTES	(APPLY_STEP * GUEST_PAGE_SIZE)

int apply_init(struct apply *a)
{
	a->back = aligned_alloc(GUEST_PAGE_SIZE, STEP_BYTES);
	return a->back ? 0 : -ENOMEM;
}

void apply_exit(struct apply *a)
{
	free(a->back);
	a->back = NULL;
}

/* Content of a memory object goes through a descriptor of it. */
static int object_write(struct apply *a, uint32_t space, uint64_t start,
			const unsigned char *data, size_t len)
{
	int fd = a->object_fd(a->object_arg, space);

	if (fd < 0)
		return fd;
	while (len) {
		ssize_t n = pwrite(fd, data, len, start);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		start += n;
		data += n;
		len -= n;
	}
	return 0;
}

static int object_read(struct apply *a, uint32_t space, uint64_t start,
		       unsigned char *data, size_t len)
{
	int fd = a->object_fd(a->object_arg, space);

	if (fd < 0)
		return fd;
	while (len) {
		ssize_t n = pread(fd, data, len, start);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* behind its end, where nothing was written to it yet */
		if (!n) {
			memset(data, 0, len);
			break;
		}
		start += n;
		data += n;
		len -= n;
	}
	return 0;
}

static int object_zero(struct apply *a, const struct vasi_range *r)
{
	static const unsigned char zero[GUEST_PAGE_SIZE];
	int ret = 0;

	for (uint64_t i = 0; i < r->pages && !ret; i++)
		ret = object_write(a, r->space,
				   r->start + (i << GUEST_PAGE_SHIFT), zero,
				   sizeof(zero));
	return ret;
}

/* entries of kind data with their content, or of kind zero without */
static int space_write(struct apply *a, const struct vasi_range *vec, size_t n,
		       const unsigned char *data, size_t len)
{
	size_t done = 0;
	int ret;

	if (!vec->space) {
		ret = a->guest->access->write(a->guest, vec, n, data, len,
					      &done);
		if (ret < 0)
			return ret;
		return done == n ? 0 : -EFAULT;
	}
	for (size_t i = 0; i < n; i++) {
		size_t bytes = vec[i].pages << GUEST_PAGE_SHIFT;

		if (vec[i].kind == VASI_KIND_ZERO) {
			ret = object_zero(a, &vec[i]);
		} else {
			ret = object_write(a, vec[i].space, vec[i].start,
					   data, bytes);
			data += bytes;
		}
		if (ret)
			return ret;
	}
	return 0;
}

/* entries of kind data, at most APPLY_STEP pages, into @a->back */
static int space_read(struct apply *a, const struct vasi_range *vec, size_t n)
{
	unsigned char *data = a->back;
	size_t done = 0;
	int ret = 0;

	if (!vec->space) {
		ret = a->guest->access->read(a->guest, vec, n, data,
					     STEP_BYTES, &done);
		if (ret < 0)
			return ret;
		return done == n ? 0 : -EFAULT;
	}
	for (size_t i = 0; i < n && !ret; i++) {
		size_t bytes = vec[i].pages << GUEST_PAGE_SHIFT;

		ret = object_read(a, vec[i].space, vec[i].start, data, bytes);
		data += bytes;
	}
	return ret;
}

/* A test wants memory that does not keep what is written to it. */
static int decay(struct apply *a, const struct vasi_range *vec, uint64_t bit)
{
	struct vasi_range page;
	int ret;

	while (bit / 8 >= vec->pages << GUEST_PAGE_SHIFT)
		bit -= (vec++->pages << GUEST_PAGE_SHIFT) * 8;
	page = *vec;
	page.start += (bit / 8) & ~(GUEST_PAGE_SIZE - 1);
	page.pages = 1;
	ret = space_read(a, &page, 1);
	if (ret)
		return ret;
	a->back[bit / 8 % GUEST_PAGE_SIZE] ^= 1 << bit % 8;
	return space_write(a, &page, 1, a->back, GUEST_PAGE_SIZE);
}

/* ranges of one space, at most APPLY_STEP pages */
static int read_back(struct apply *a, const struct vasi_range *vec, size_t n,
		     uint64_t *ret_digest)
{
	const unsigned char *page = a->back;
	int64_t begin = now_ns();
	int ret = space_read(a, vec, n);

	for (size_t i = 0; i < n && !ret; i++)
		for (uint64_t j = 0; j < vec[i].pages; j++) {
			*ret_digest++ = digest_page(
				vec[i].space,
				vec[i].start + (j << GUEST_PAGE_SHIFT), page);
			page += GUEST_PAGE_SIZE;
		}
	a->back_ns += now_ns() - begin;
	return ret;
}

/**
 * struct walk - through data ranges, in steps
 * @vec: ranges
 * @n: of them
 * @skip: pages of the first that were in the last step
 * @step: of one space, APPLY_STEP pages together or less
 * @nr: of @step
 * @pages: in @step
 */
struct walk {
	const struct vasi_range *vec;
	size_t n;
	uint64_t skip;
	struct vasi_range step[APPLY_STEP];
	size_t nr;
	uint64_t pages;
};

static bool walk_next(struct walk *w)
{
	const uint32_t space = w->n ? w->vec->space : 0;

	w->nr = 0;
	w->pages = 0;
	while (w->n && w->vec->space == space && w->pages < APPLY_STEP) {
		struct vasi_range *r = &w->step[w->nr++];

		*r = *w->vec;
		r->start += w->skip << GUEST_PAGE_SHIFT;
		r->pages -= w->skip;
		if (r->pages > APPLY_STEP - w->pages)
			r->pages = APPLY_STEP - w->pages;
		w->pages += r->pages;
		w->skip += r->pages;
		if (w->skip == w->vec->pages) {
			w->skip = 0;
			w->vec++;
			w->n--;
		}
	}
	return w->nr;
}

int apply_data(struct apply *a, uint32_t round, const struct vasi_range *vec,
	       size_t n, const unsigned char *data, uint64_t *ret_digest)
{
	struct walk w = { .vec = vec, .n = n };
	uint64_t bytes = 0, bit = 0, at = 0;
	bool fault;

	for (size_t i = 0; i < n; i++)
		bytes += vec[i].pages << GUEST_PAGE_SHIFT;
	fault = fault_bit(FAULT_DECAY, round, bytes, &bit);
	while (walk_next(&w)) {
		size_t len = w.pages << GUEST_PAGE_SHIFT;
		int ret = space_write(a, w.step, w.nr, data + at, len);

		if (!ret && fault && bit / 8 >= at && bit / 8 < at + len)
			ret = decay(a, w.step, bit - at * 8);
		if (!ret)
			ret = read_back(a, w.step, w.nr, ret_digest);
		if (ret)
			return ret;
		at += len;
		ret_digest += w.pages;
	}
	return 0;
}

/*
 * A page of a file's mapping that is the guest's own: what is there reads as
 * zero, too, where the file has zeros, but it is the file's, and would follow it.
 */
static int own_zero(struct apply *a, const struct vasi_range *r)
{
	static const unsigned char zero[16 * GUEST_PAGE_SIZE];
	struct vasi_range part = *r;
	uint64_t done;
	int ret = 0;

	part.kind = VASI_KIND_DATA;
	for (done = 0; done < r->pages && !ret; done += part.pages) {
		part.start = r->start + (done << GUEST_PAGE_SHIFT);
		part.pages = r->pages - done;
		if (part.pages > sizeof(zero) / GUEST_PAGE_SIZE)
			part.pages = sizeof(zero) / GUEST_PAGE_SIZE;
		ret = space_write(a, &part, 1, zero,
				  part.pages << GUEST_PAGE_SHIFT);
	}
	return ret;
}

/* all of it reads as zero, or -EILSEQ */
static int zero_look(struct apply *a, const struct vasi_range *r)
{
	struct walk w = { .vec = r, .n = 1 };

	while (walk_next(&w)) {
		uint64_t digest[APPLY_STEP], addr = w.step->start;
		int ret;

		w.step->kind = VASI_KIND_DATA;
		ret = read_back(a, w.step, 1, digest);
		if (ret)
			return ret;
		for (size_t i = 0; i < w.pages; i++, addr += GUEST_PAGE_SIZE)
			if (digest[i] != digest_zero(r->space, addr))
				return -EILSEQ;
	}
	return 0;
}

static int zero_known(struct apply *a, const struct vasi_range *r)
{
	struct walk w = { .vec = r, .n = 1 };
	int ret = 0;

	while (!ret && walk_next(&w)) {
		uint64_t digest[APPLY_STEP], addr = w.step->start;

		for (size_t i = 0; i < w.pages; i++, addr += GUEST_PAGE_SIZE)
			digest[i] = digest_zero(r->space, addr);
		ret = pagemap_set(a->known, r->space, w.step->start, w.pages,
				  digest, NULL);
	}
	return ret;
}

/*
 * A part within one extent. Where nothing was ever written the target reads as
 * zero already: there is no memory yet that could be wrong, and touching it
 * would only cost some, and keep huge pages away.
 */
static int zero_part(struct apply *a, const struct extent *e,
		     const struct vasi_range *r)
{
	uint64_t at = r->start, end = at + (r->pages << GUEST_PAGE_SHIFT);
	struct vasi_range dirty = *r;
	uint64_t from, to;
	int ret = 0;

	if (!e->blank) {
		ret = own_zero(a, r);
		return ret ? ret : zero_look(a, r);
	}
	while (!ret && at < end &&
	       pagemap_run(a->known, r->space, at, end, true, &from, &to)) {
		dirty.start = from;
		dirty.pages = (to - from) >> GUEST_PAGE_SHIFT;
		ret = space_write(a, &dirty, 1, NULL, 0);
		if (!ret)
			ret = zero_look(a, &dirty);
		at = to;
	}
	return ret;
}

int apply_zero(struct apply *a, const struct extents *x,
	       const struct vasi_range *r)
{
	uint64_t addr = r->start, end = addr + (r->pages << GUEST_PAGE_SHIFT);
	int ret = 0;

	while (addr < end && !ret) {
		const struct extent *e = extents_find(x, r->space, addr);
		uint64_t stop = e->end < end ? e->end : end;
		struct vasi_range part = *r;

		if (stop > addr + ZERO_STEP)
			stop = addr + ZERO_STEP;
		part.start = addr;
		part.pages = (stop - addr) >> GUEST_PAGE_SHIFT;
		ret = zero_part(a, e, &part);
		if (!ret)
			ret = zero_known(a, &part);
		addr = stop;
	}
	return ret;
}

int apply_dropped(struct apply *a, const struct extents *x,
		  const struct vasi_range *r)
{
	uint64_t addr = r->start, end = addr + (r->pages << GUEST_PAGE_SHIFT);
	int ret = 0;

	while (addr < end && !ret) {
		const struct extent *e = extents_find(x, r->space, addr);
		struct vasi_range part = *r;
		uint64_t stop;

		if (!e)
			return -EFAULT;
		stop = e->end < end ? e->end : end;
		part.start = addr;
		part.pages = (stop - addr) >> GUEST_PAGE_SHIFT;
		if (e->blank)
			ret = zero_look(a, &part);
		addr = stop;
	}
	return ret;
}
