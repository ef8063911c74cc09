// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "engine/batch.h"
#include "lib/clock.h"
#include "lib/digest.h"

/* what saves less is not worth decoding: one part of so many */
#define GAIN_PART	16

unsigned char *batch_buffer(void)
{
	return aligned_alloc(GUEST_PAGE_SIZE, FRAME_MAX_PAGES *
			     GUEST_PAGE_SIZE);
}

struct batch *batch_new(void)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->data = batch_buffer();
	if (!b->data) {
		free(b);
		return NULL;
	}
	return b;
}

void batch_free(struct batch *b)
{
	if (b)
		free(b->data);
	free(b);
}

static void batch_range(struct batch *b, const struct vasi_range *r)
{
	frame_encode_range(b->head + b->head_len, r);
	b->head_len += FRAME_RANGE_BYTES;
	b->nr_ranges++;
}

/* one more data page at @page; adjacent ones share an iovec */
static void batch_page(struct batch *b, unsigned char *page, uint64_t digest)
{
	struct iovec *last = &b->iov[b->nr_iov - 1];

	if (b->nr_iov > 1 &&
	    (unsigned char *)last->iov_base + last->iov_len == page)
		last->iov_len += GUEST_PAGE_SIZE;
	else
		b->iov[b->nr_iov++] = (struct iovec){ page, GUEST_PAGE_SIZE };
	b->digest[b->pages++] = digest;
}

/* 1: all of it was known as zero, 0: not all */
static int zero_known(struct pagemap *known, const struct vasi_range *r)
{
	uint64_t digest[FRAME_MAX_PAGES], old[FRAME_MAX_PAGES], done = 0;
	int ret = 0, equal = 1;

	while (done < r->pages && !ret) {
		uint64_t start = r->start + (done << GUEST_PAGE_SHIFT);
		size_t n = 0;

		for (; n < FRAME_MAX_PAGES && done < r->pages; n++, done++)
			digest[n] = digest_zero(r->space, start +
						(n << GUEST_PAGE_SHIFT));
		ret = pagemap_set(known, r->space, start, n, digest, old);
		if (!ret && memcmp(digest, old, n * sizeof(old[0])))
			equal = 0;
	}
	return ret ? ret : equal;
}

static int item_blank(struct batch *b, const struct batch_context *c,
		      const struct vasi_range *r)
{
	int ret;

	if (r->kind == VASI_KIND_HOLE) {
		batch_range(b, r);
		pagemap_clear(c->known, r->space, r->start,
			      r->start + (r->pages << GUEST_PAGE_SHIFT));
		c->total->holes += r->pages;
		return 0;
	}
	/* all or nothing: its parts could be more than fit a frame */
	ret = zero_known(c->known, r);
	if (ret > 0) {
		c->total->equal += r->pages;
		return 0;
	}
	batch_range(b, r);
	c->total->zero += r->pages;
	return ret;
}

/*
 * Content of one data range to descriptors: runs of data, of zero, of what the
 * target has. The map knows a page from here on, though its frame may never
 * arrive: then the migration has failed, and nothing is sent by that map again.
 */
static int item_data(struct batch *b, const struct batch_context *c,
		     const struct send_item *it, unsigned char *data)
{
	uint64_t digest[FRAME_MAX_PAGES], old[FRAME_MAX_PAGES];
	struct vasi_range run = { .pages = 0 };
	const uint32_t space = it->range.space;
	int ret;

	for (uint64_t i = 0; i < it->range.pages; i++)
		digest[i] = digest_page(space, it->range.start +
					(i << GUEST_PAGE_SHIFT),
					data + (i << GUEST_PAGE_SHIFT));
	ret = pagemap_set(c->known, space, it->range.start,
			  it->range.pages, digest, old);
	if (ret)
		return ret;
	c->total->read += it->range.pages;
	if (it->untracked)
		c->total->untracked += it->range.pages;
	for (uint64_t i = 0; i < it->range.pages; i++) {
		unsigned char *page = data + (i << GUEST_PAGE_SHIFT);
		uint64_t addr = it->range.start + (i << GUEST_PAGE_SHIFT);
		bool equal = digest[i] == old[i];
		uint8_t kind = digest[i] == digest_zero(space, addr) ?
			       VASI_KIND_ZERO : VASI_KIND_DATA;

		if (run.pages && (equal || run.kind != kind)) {
			batch_range(b, &run);
			run.pages = 0;
		}
		if (equal) {
			c->total->equal++;
			c->total->untracked_equal += it->untracked;
			continue;
		}
		if (!run.pages) {
			run = it->range;
			run.start = addr;
			run.kind = kind;
			run.pages = 0;
		}
		run.pages++;
		if (kind == VASI_KIND_DATA) {
			batch_page(b, page, digest[i]);
			c->total->pages++;
		} else {
			c->total->zero++;
		}
	}
	if (run.pages)
		batch_range(b, &run);
	return 0;
}

/*
 * A range that was not read. A guest that runs may have unmapped it: it is
 * given back, as the tracker may report pages of it that are left, and passed
 * over by making it empty. A medium that fails looks the same: nothing tells
 * which, so nothing is made up in its place.
 */
static int read_failed(const struct batch_context *c, struct send_item *it)
{
	int ret;

	if (c->suspended)
		return -EFAULT;
	if (!it->untracked) {
		ret = c->guest->access->mark(c->guest, &it->range, 1);
		if (ret < 0)
			return ret;
	}
	c->total->unreadable += it->range.pages;
	it->range.pages = 0;
	return 0;
}

/* Reads all data ranges, one after another, into the batch's buffer. */
static int batch_read(struct batch *b, const struct batch_context *c)
{
	const struct guest_access *access = c->guest->access;
	struct vasi_range vec[BATCH_ITEMS];
	size_t map[BATCH_ITEMS], n = 0, done = 0, used = 0;
	int64_t begin = now_ns();
	int ret;

	for (size_t i = 0; i < b->n; i++)
		if (b->item[i].range.kind == VASI_KIND_DATA) {
			map[n] = i;
			vec[n++] = b->item[i].range;
		}
	while (done < n) {
		size_t step = 0;

		ret = access->read(c->guest, vec + done, n - done,
				   b->data + used,
				   FRAME_MAX_PAGES * GUEST_PAGE_SIZE - used,
				   &step);
		if (ret < 0 && ret != -EFAULT)
			return ret;
		if (ret < 0)
			step = 0;
		for (size_t i = done; i < done + step; i++)
			used += vec[i].pages << GUEST_PAGE_SHIFT;
		done += step;
		if (done == n)
			break;
		ret = read_failed(c, &b->item[map[done++]]);
		if (ret < 0)
			return ret;
	}
	c->total->read_ns += now_ns() - begin;
	return 0;
}

void batch_empty(struct batch *b)
{
	b->head_len = FRAME_HEADER_BYTES;
	b->nr_ranges = 0;
	b->nr_iov = 1;
	b->pages = 0;
	b->encoding = ENCODING_NONE;
}

int batch_build(struct batch *b, const struct batch_context *c)
{
	unsigned char *data = b->data;
	int ret;

	batch_empty(b);
	ret = batch_read(b, c);
	for (size_t i = 0; i < b->n && !ret; i++) {
		const struct send_item *it = &b->item[i];

		if (it->range.kind != VASI_KIND_DATA) {
			ret = item_blank(b, c, &it->range);
			continue;
		}
		ret = item_data(b, c, it, data);
		data += it->range.pages << GUEST_PAGE_SHIFT;
	}
	return ret;
}

/* closes the gaps that pages have left which are not sent */
static void batch_gather(struct batch *b)
{
	size_t used = 0;

	for (size_t i = 1; i < b->nr_iov; i++) {
		memmove(b->data + used, b->iov[i].iov_base, b->iov[i].iov_len);
		used += b->iov[i].iov_len;
	}
	b->iov[1] = (struct iovec){ b->data, used };
	b->nr_iov = 2;
}

int batch_encode(struct batch *b, struct compressor *c, enum encoding e,
		 unsigned char **spare)
{
	size_t len = b->pages << GUEST_PAGE_SHIFT;
	unsigned char *plain = b->data;
	ssize_t n;

	if (!len)
		return 0;
	batch_gather(b);
	n = compressor_encode(c, e, plain, len, *spare, len - len / GAIN_PART);
	if (n <= 0)
		return n;
	b->data = *spare;
	*spare = plain;
	b->iov[1] = (struct iovec){ b->data, n };
	b->encoding = e;
	return 1;
}

int batch_sample(struct batch *b, struct compressor *c, enum encoding e,
		 unsigned char *spare)
{
	size_t len = b->pages << GUEST_PAGE_SHIFT, at;
	ssize_t n;

	batch_gather(b);
	at = (len - ADAPT_SAMPLE_BYTES) / 2;
	n = compressor_encode(c, e, b->data + at, ADAPT_SAMPLE_BYTES, spare,
			      ADAPT_SAMPLE_BYTES);
	return n ? n : ADAPT_SAMPLE_BYTES;
}

void batch_seal(struct batch *b, struct frame_header *h)
{
	h->nr_ranges = b->nr_ranges;
	h->payload = b->pages << GUEST_PAGE_SHIFT;
	h->encoding = b->encoding;
	h->stored = b->encoding ? b->iov[1].iov_len : 0;
	frame_encode(b->head, h);
	h->digest = frame_digest(b->head, b->head_len, b->digest, b->pages);
	frame_encode(b->head, h);
	b->iov[0] = (struct iovec){ b->head, b->head_len };
}

void batch_flip(struct batch *b, uint64_t bit)
{
	const struct iovec *v = b->iov;

	for (; bit / 8 >= v->iov_len; v++)
		bit -= v->iov_len * 8;
	((unsigned char *)v->iov_base)[bit / 8] ^= 1 << bit % 8;
}

size_t batch_bytes(const struct batch *b)
{
	size_t bytes = 0;

	for (size_t i = 0; i < b->nr_iov; i++)
		bytes += b->iov[i].iov_len;
	return bytes;
}
