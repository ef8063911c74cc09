/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Encodings of the content of a frame, and what translates into and out of them
 *
 * Up to COMPRESS_MAX_BYTES at once, without state from one call to the next.
 * What is decoded comes from a peer: nothing of it is trusted, nothing beyond
 * the given buffers is touched.
 */
#ifndef MSPD_LIB_COMPRESS_H
#define MSPD_LIB_COMPRESS_H

#include <stddef.h>
#include <sys/types.h>

#define COMPRESS_MAX_BYTES	(1U << 20)

/* the numbers are those on the wire */
enum encoding { ENCODING_NONE, ENCODING_LZ4, ENCODING_ZSTD, ENCODINGS };

/* a bit each, but for ENCODING_NONE, which everybody knows */
#define ENCODING_BIT(e)	(1U << (e))
#define ENCODING_BITS	(ENCODING_BIT(ENCODING_LZ4) | \
			 ENCODING_BIT(ENCODING_ZSTD))

extern const char *const encoding_names[ENCODINGS];

/* indices of compression_words[] */
enum compression {
	COMPRESSION_AUTO, COMPRESSION_OFF, COMPRESSION_LZ4, COMPRESSION_ZSTD,
};

/* as in settings and attributes; ends with NULL */
extern const char *const compression_words[];
/* the encodings that may be used with it, a bit each */
unsigned int compression_bits(enum compression c);

/* working memory of one thread: about 1.5 MiB for zstd, 16 KiB for LZ4 */
struct compressor;

/* @encodings: a bit each; others fail with -EOPNOTSUPP */
struct compressor *compressor_new(unsigned int encodings);
/* NULL is fine */
void compressor_free(struct compressor *c);
/* bytes of @dst that were used; 0: @room is too small for it; -errno */
ssize_t compressor_encode(struct compressor *c, enum encoding e,
			  const void *src, size_t len, void *dst, size_t room);
/* 0: exactly @len bytes came out of exactly @n; -EBADMSG: they do not */
int compressor_decode(struct compressor *c, enum encoding e, const void *src,
		      size_t n, void *dst, size_t len);

#endif /* MSPD_LIB_COMPRESS_H */
