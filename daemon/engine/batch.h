/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A part of a round's work, and the frame made of it: what is left of pages
 * when those are taken out that are zero, gone, or on the target already
 */
#ifndef MSPD_ENGINE_BATCH_H
#define MSPD_ENGINE_BATCH_H

#include <sys/uio.h>
#include "engine/adapt.h"
#include "engine/sender.h"
#include "lib/compress.h"
#include "wire/frame.h"

#define BATCH_ITEMS	512
#define BATCH_HEAD_BYTES (FRAME_HEADER_BYTES + \
			 FRAME_MAX_RANGES * FRAME_RANGE_BYTES)

/**
 * struct batch - ranges for one frame, and the frame made of them
 * @item: what to send; data ranges have FRAME_MAX_PAGES pages together
 * @n: of @item
 * @head: header and descriptors
 * @head_len: bytes of it
 * @nr_ranges: descriptors
 * @iov: the frame as it is sent
 * @nr_iov: of @iov
 * @digest: of each data page in the frame
 * @pages: data pages in the frame
 * @encoding: of the content as it is sent
 * @data: content as read, or encoded, FRAME_MAX_PAGES pages
 */
struct batch {
	struct send_item item[BATCH_ITEMS];
	size_t n;
	unsigned char head[BATCH_HEAD_BYTES];
	size_t head_len;
	uint32_t nr_ranges;
	struct iovec iov[FRAME_MAX_PAGES + 1];
	size_t nr_iov;
	uint64_t digest[FRAME_MAX_PAGES];
	size_t pages;
	enum encoding encoding;
	unsigned char *data;
};

/**
 * struct batch_context - what a batch is built with
 * @guest: the handle of this thread
 * @known: what the target has, as soon as the frame is there
 * @suspended: the guest cannot change, so a page that is gone is an error
 * @total: of the thread's round, gets what the batch did
 */
struct batch_context {
	struct guest *guest;
	struct pagemap *known;
	bool suspended;
	struct send_totals *total;
};

/* as large as the content of a frame can be */
unsigned char *batch_buffer(void);
struct batch *batch_new(void);
/* NULL is fine */
void batch_free(struct batch *b);
/* reads the items; if no ranges come of it there is nothing to be sent */
int batch_build(struct batch *b, const struct batch_context *c);
/*
 * The content in another encoding, if that makes it clearly shorter: it is put
 * into *@spare, which takes the place of @b's buffer. 1: it did; 0: it is sent
 * as it is; -errno.
 */
int batch_encode(struct batch *b, struct compressor *c, enum encoding e,
		 unsigned char **spare);
/*
 * How long ADAPT_SAMPLE_BYTES of the content would be, of which there must be as
 * many; @spare is written. -errno
 */
int batch_sample(struct batch *b, struct compressor *c, enum encoding e,
		 unsigned char *spare);
/* an empty frame, for the end of a round */
void batch_empty(struct batch *b);
/* the header in front: lengths, encoding and digest are filled in */
void batch_seal(struct batch *b, struct frame_header *h);
/* a test wants a bit of the frame changed that was sealed */
void batch_flip(struct batch *b, uint64_t bit);
/* of the frame, on the wire */
size_t batch_bytes(const struct batch *b);

#endif /* MSPD_ENGINE_BATCH_H */
