// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY	/* its state on the stack */
#include <xxhash.h>
#include "lib/byteorder.h"
#include "lib/compress.h"
#include "lib/digest.h"
#include "wire/frame.h"

/* highest address a range may end at: 2^57, user half of five-level tables */
#define ADDRESS_END	(1ULL << 57)

/* offsets in the header */
enum {
	H_MAGIC = 0, H_VERSION = 4, H_TYPE = 6, H_STREAM = 8, H_ENCODING = 10,
	H_ROUND = 12, H_SEQ = 16, H_STREAM_ID = 24, H_NR_RANGES = 32,
	H_PAYLOAD = 36, H_STORED = 40, H_CHECK = 44, H_ZERO64 = 48,
	H_DIGEST = 56,
};

/* offsets in a descriptor */
enum {
	R_START = 0, R_PAGES = 8, R_SPACE = 12, R_MEMBER = 16, R_KIND = 18,
	R_SHIFT = 19, R_ZERO = 20,
};

/* offsets in a hello */
enum {
	S_MAGIC = 0, S_VERSION = 4, S_STREAM = 6, S_STREAM_ID = 8,
	S_TOKEN = 16, S_ZERO = 32,
};

uint32_t frame_header_check(const unsigned char *buf)
{
	return (uint32_t)XXH64(buf, H_CHECK, 0);
}

void frame_encode(unsigned char *buf, const struct frame_header *h)
{
	memset(buf, 0, FRAME_HEADER_BYTES);
	put_le32(buf + H_MAGIC, FRAME_MAGIC);
	put_le16(buf + H_VERSION, FRAME_VERSION);
	put_le16(buf + H_TYPE, h->type);
	put_le16(buf + H_STREAM, h->stream);
	put_le16(buf + H_ENCODING, h->encoding);
	put_le32(buf + H_ROUND, h->round);
	put_le64(buf + H_SEQ, h->seq);
	put_le64(buf + H_STREAM_ID, h->stream_id);
	put_le32(buf + H_NR_RANGES, h->nr_ranges);
	put_le32(buf + H_PAYLOAD, h->payload);
	put_le32(buf + H_STORED, h->stored);
	put_le32(buf + H_CHECK, frame_header_check(buf));
	put_le64(buf + H_DIGEST, h->digest);
}

uint32_t frame_content(const struct frame_header *h)
{
	return h->encoding ? h->stored : h->payload;
}

/* an encoding is of something, and makes it shorter */
static bool encoding_possible(const struct frame_header *h)
{
	if (!h->encoding)
		return !h->stored;
	return h->encoding < ENCODINGS && h->stored && h->stored < h->payload;
}

int frame_decode(struct frame_header *ret_h, const unsigned char *buf)
{
	struct frame_header h = {
		.type = get_le16(buf + H_TYPE),
		.stream = get_le16(buf + H_STREAM),
		.round = get_le32(buf + H_ROUND),
		.seq = get_le64(buf + H_SEQ),
		.stream_id = get_le64(buf + H_STREAM_ID),
		.nr_ranges = get_le32(buf + H_NR_RANGES),
		.payload = get_le32(buf + H_PAYLOAD),
		.encoding = get_le16(buf + H_ENCODING),
		.stored = get_le32(buf + H_STORED),
		.digest = get_le64(buf + H_DIGEST),
	};

	if (get_le32(buf + H_MAGIC) != FRAME_MAGIC ||
	    get_le16(buf + H_VERSION) != FRAME_VERSION)
		return -EPROTO;
	if (get_le32(buf + H_CHECK) != frame_header_check(buf))
		return -EBADMSG;
	if (get_le64(buf + H_ZERO64))
		return -EPROTO;
	if (!h.round || h.nr_ranges > FRAME_MAX_RANGES ||
	    h.payload > FRAME_MAX_PAGES * GUEST_PAGE_SIZE ||
	    h.payload % GUEST_PAGE_SIZE || !encoding_possible(&h))
		return -EPROTO;
	switch (h.type) {
	case FRAME_PAGES:
		if (!h.nr_ranges)
			return -EPROTO;
		break;
	case FRAME_ROUND_END:
		if (h.nr_ranges || h.payload)
			return -EPROTO;
		break;
	default:
		return -EPROTO;
	}
	*ret_h = h;
	return 0;
}

void frame_encode_range(unsigned char *buf, const struct vasi_range *r)
{
	memset(buf, 0, FRAME_RANGE_BYTES);
	put_le64(buf + R_START, r->start);
	put_le32(buf + R_PAGES, r->pages);
	put_le32(buf + R_SPACE, r->space);
	put_le16(buf + R_MEMBER, r->member);
	buf[R_KIND] = r->kind;
	buf[R_SHIFT] = r->shift;
}

int frame_decode_range(struct vasi_range *ret_r, const unsigned char *buf)
{
	struct vasi_range r = {
		.start = get_le64(buf + R_START),
		.pages = get_le32(buf + R_PAGES),
		.space = get_le32(buf + R_SPACE),
		.member = get_le16(buf + R_MEMBER),
		.kind = buf[R_KIND],
		.shift = buf[R_SHIFT],
	};

	if (get_le32(buf + R_ZERO) || r.member || !r.pages ||
	    r.kind > VASI_KIND_HOLE || r.start % GUEST_PAGE_SIZE)
		return -EPROTO;
	/* pages has 32 bits: no product here can wrap */
	if (r.start >= ADDRESS_END ||
	    (r.pages << GUEST_PAGE_SHIFT) > ADDRESS_END - r.start)
		return -EPROTO;
	*ret_r = r;
	return 0;
}

uint64_t frame_digest(const unsigned char *head, size_t len,
		      const uint64_t *pages, size_t nr_pages)
{
	unsigned char first[FRAME_HEADER_BYTES];
	XXH64_state_t state;

	memcpy(first, head, sizeof(first));
	put_le64(first + H_DIGEST, 0);
	XXH64_reset(&state, 0);
	XXH64_update(&state, first, sizeof(first));
	XXH64_update(&state, head + sizeof(first), len - sizeof(first));
	for (size_t i = 0; i < nr_pages; i++) {
		unsigned char le[8];

		put_le64(le, pages[i]);
		XXH64_update(&state, le, sizeof(le));
	}
	return XXH64_digest(&state);
}

void stream_hello_encode(unsigned char *buf, const struct stream_hello *h)
{
	memset(buf, 0, HELLO_BYTES);
	put_le32(buf + S_MAGIC, HELLO_MAGIC);
	put_le16(buf + S_VERSION, FRAME_VERSION);
	put_le16(buf + S_STREAM, h->stream);
	put_le64(buf + S_STREAM_ID, h->stream_id);
	memcpy(buf + S_TOKEN, h->token, TOKEN_BYTES);
}

int stream_hello_decode(struct stream_hello *ret_h, const unsigned char *buf)
{
	if (get_le32(buf + S_MAGIC) != HELLO_MAGIC ||
	    get_le16(buf + S_VERSION) != FRAME_VERSION ||
	    get_le64(buf + S_ZERO) || get_le64(buf + S_ZERO + 8))
		return -EPROTO;
	ret_h->stream = get_le16(buf + S_STREAM);
	ret_h->stream_id = get_le64(buf + S_STREAM_ID);
	memcpy(ret_h->token, buf + S_TOKEN, TOKEN_BYTES);
	return 0;
}
