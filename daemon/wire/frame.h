/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Data frames: the encoding of pages on a data connection
 *
 * A frame is a header of 64 bytes, range descriptors of 24 bytes and the pages
 * of the data ranges one after another, compressed or not;
 * Documentation/protocol/wire.rst has the layout. Pure: no I/O here.
 *
 * The digest covers the header, the descriptors and the digest of every page,
 * so that content is hashed once per side: for the frame and for the guest. The
 * header has a check of its own, as its lengths are believed before the digest
 * can be computed: who believes a wrong one waits for what nobody sends.
 */
#ifndef MSPD_WIRE_FRAME_H
#define MSPD_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <linux/vasi.h>

#define FRAME_MAGIC		0x46495356	/* "VSIF" */
#define FRAME_VERSION		1
#define FRAME_HEADER_BYTES	64
#define FRAME_RANGE_BYTES	24
#define FRAME_MAX_RANGES	1024
#define FRAME_MAX_PAGES		256		/* with content: 1 MiB */
#define FRAME_MAX_BYTES		(FRAME_HEADER_BYTES + \
				 FRAME_MAX_RANGES * FRAME_RANGE_BYTES + \
				 FRAME_MAX_PAGES * 4096)

#define FRAME_PAGES		1	/* ranges with their content */
#define FRAME_ROUND_END		2	/* nothing more of this round here */

#define HELLO_MAGIC		0x48495356	/* "VSIH" */
#define HELLO_BYTES		48
#define TOKEN_BYTES		16

/**
 * struct frame_header - the fixed part
 * @type: FRAME_PAGES or FRAME_ROUND_END
 * @stream: index of the data connection
 * @round: round of the migration, from 1
 * @seq: number of the frame on this connection, from 0
 * @stream_id: the migration
 * @nr_ranges: descriptors that follow
 * @payload: bytes of content, as it is in the guest
 * @encoding: enum encoding of it on the wire
 * @stored: bytes of it there, fewer than @payload; 0 without an encoding
 * @digest: of everything, see frame_digest()
 */
struct frame_header {
	uint16_t type;
	uint16_t stream;
	uint32_t round;
	uint64_t seq;
	uint64_t stream_id;
	uint32_t nr_ranges;
	uint32_t payload;
	uint16_t encoding;
	uint32_t stored;
	uint64_t digest;
};

/**
 * struct stream_hello - first bytes of a data connection
 * @stream_id: the migration
 * @token: as the target gave it over the control connection
 * @stream: index of this connection
 */
struct stream_hello {
	uint64_t stream_id;
	uint8_t token[TOKEN_BYTES];
	uint16_t stream;
};

void frame_encode(unsigned char *buf, const struct frame_header *h);
/* of the fields before it, as encoded */
uint32_t frame_header_check(const unsigned char *buf);
/*
 * -EPROTO: not a header of this protocol, or a length out of bounds; -EBADMSG:
 * one that changed on its way
 */
int frame_decode(struct frame_header *ret_h, const unsigned char *buf);
/* bytes that follow the descriptors on the wire */
uint32_t frame_content(const struct frame_header *h);
void frame_encode_range(unsigned char *buf, const struct vasi_range *r);
/* -EPROTO: a field that cannot be */
int frame_decode_range(struct vasi_range *ret_r, const unsigned char *buf);
/* @head: header and descriptors as encoded; its digest field is ignored */
uint64_t frame_digest(const unsigned char *head, size_t len,
		      const uint64_t *pages, size_t nr_pages);

void stream_hello_encode(unsigned char *buf, const struct stream_hello *h);
int stream_hello_decode(struct stream_hello *ret_h, const unsigned char *buf);

#endif /* MSPD_WIRE_FRAME_H */
