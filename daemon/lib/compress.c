// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <lz4.h>
#include <zstd.h>
#include <zstd_errors.h>
#include "lib/byteorder.h"
#include "lib/compress.h"

/* the fastest that compares whole words; more gains little on memory */
#define ZSTD_LEVEL	1

const char *const encoding_names[ENCODINGS] = {
	[ENCODING_NONE] = "none",
	[ENCODING_LZ4] = "lz4",
	[ENCODING_ZSTD] = "zstd",
};

const char *const compression_words[] = {
	"auto", "off", "lz4", "zstd", NULL
};

struct compressor {
	void *lz4;
	ZSTD_CCtx *cctx;
	ZSTD_DCtx *dctx;
};

unsigned int compression_bits(enum compression c)
{
	switch (c) {
	case COMPRESSION_AUTO:
		return ENCODING_BITS;
	case COMPRESSION_LZ4:
		return ENCODING_BIT(ENCODING_LZ4);
	case COMPRESSION_ZSTD:
		return ENCODING_BIT(ENCODING_ZSTD);
	default:
		return 0;
	}
}

struct compressor *compressor_new(unsigned int encodings)
{
	struct compressor *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	if (encodings & ENCODING_BIT(ENCODING_LZ4))
		c->lz4 = malloc(LZ4_sizeofState());
	/* these are small: the tables come with the first use */
	if (encodings & ENCODING_BIT(ENCODING_ZSTD)) {
		c->cctx = ZSTD_createCCtx();
		c->dctx = ZSTD_createDCtx();
	}
	if ((encodings & ENCODING_BIT(ENCODING_LZ4) && !c->lz4) ||
	    (encodings & ENCODING_BIT(ENCODING_ZSTD) &&
	     (!c->cctx || !c->dctx))) {
		compressor_free(c);
		return NULL;
	}
	return c;
}

void compressor_free(struct compressor *c)
{
	if (!c)
		return;
	free(c->lz4);
	ZSTD_freeCCtx(c->cctx);
	ZSTD_freeDCtx(c->dctx);
	free(c);
}

static ssize_t zstd_encode(struct compressor *c, const void *src, size_t len,
			   void *dst, size_t room)
{
	size_t n = ZSTD_compressCCtx(c->cctx, dst, room, src, len, ZSTD_LEVEL);

	if (!ZSTD_isError(n))
		return n;
	switch (ZSTD_getErrorCode(n)) {
	case ZSTD_error_dstSize_tooSmall:
		return 0;
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

/* One frame of today's format: the library takes several, and ancient ones. */
static int zstd_decode(struct compressor *c, const void *src, size_t n,
		       void *dst, size_t len)
{
	if (n < 4 || get_le32(src) != ZSTD_MAGICNUMBER ||
	    ZSTD_findFrameCompressedSize(src, n) != n)
		return -EBADMSG;
	/* an error is a number beyond any length */
	return ZSTD_decompressDCtx(c->dctx, dst, len, src, n) == len ?
	       0 : -EBADMSG;
}

ssize_t compressor_encode(struct compressor *c, enum encoding e,
			  const void *src, size_t len, void *dst, size_t room)
{
	if (len > COMPRESS_MAX_BYTES || room > COMPRESS_MAX_BYTES)
		return -EMSGSIZE;
	if (e == ENCODING_LZ4 && c->lz4)
		return LZ4_compress_fast_extState(c->lz4, src, dst, len, room,
						  1);
	if (e == ENCODING_ZSTD && c->cctx)
		return zstd_encode(c, src, len, dst, room);
	return -EOPNOTSUPP;
}

int compressor_decode(struct compressor *c, enum encoding e, const void *src,
		      size_t n, void *dst, size_t len)
{
	if (len > COMPRESS_MAX_BYTES || n > COMPRESS_MAX_BYTES)
		return -EMSGSIZE;
	if (e == ENCODING_LZ4 && c->lz4)
		return LZ4_decompress_safe(src, dst, n, len) == (int)len ?
		       0 : -EBADMSG;
	if (e == ENCODING_ZSTD && c->dctx)
		return zstd_decode(c, src, n, dst, len);
	return -EOPNOTSUPP;
}
