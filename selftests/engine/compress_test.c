// SPDX-License-Identifier: GPL-2.0
/*
 * Encodings: content comes back, and what is no content does no harm
 */
#include <errno.h>
#include <stdlib.h>
#include <zstd.h>
#include "lib/byteorder.h"
#include "lib/compress.h"
#include "tap.h"

#define PAGE	4096
#define MANY	COMPRESS_MAX_BYTES
#define ROUNDS	3000

static struct compressor *both;
static unsigned char *plain, *coded, *back;

/* the kinds of content that memory has, all deterministic */
static void fill(const char *kind, size_t len)
{
	unsigned int seed = 1;

	for (size_t i = 0; i < len; i++) {
		if (!strcmp(kind, "same bytes"))
			plain[i] = 0x77;
		else if (!strcmp(kind, "words"))
			plain[i] = i % 8 < 3 ? rand_r(&seed) : 0;
		else if (!strcmp(kind, "text"))
			plain[i] = "the quick brown fox "[rand_r(&seed) % 20];
		else
			plain[i] = rand_r(&seed) >> 7;
	}
}

/* @n bytes of coded[] decode to exactly @len, and no byte behind is touched */
static int decode(enum encoding e, size_t n, size_t len)
{
	int ret;

	memset(back + len, 0xa5, 64);
	ret = compressor_decode(both, e, coded, n, back, len);
	for (int i = 0; i < 64; i++)
		if (back[len + i] != 0xa5)
			return -EFAULT;
	return ret;
}

static void test_round_trip(enum encoding e)
{
	static const char *const kinds[] = { "same bytes", "words", "text" };
	static const size_t sizes[] = { PAGE, 3 * PAGE, 100 * PAGE, MANY };
	const char *name = encoding_names[e];
	size_t sum = 0, all = 0;
	bool good = true;
	ssize_t n;

	for (size_t k = 0; k < 3; k++)
		for (size_t s = 0; s < 4; s++) {
			fill(kinds[k], sizes[s]);
			n = compressor_encode(both, e, plain, sizes[s], coded,
					      sizes[s]);
			memset(back, 0, sizes[s]);
			good &= n > 0 && (size_t)n < sizes[s] &&
				!decode(e, n, sizes[s]) &&
				!memcmp(plain, back, sizes[s]);
			sum += n;
			all += sizes[s];
		}
	ok(good, "%s: what goes in comes out (%.0f %% of it on the way)", name,
	   100.0 * sum / all);
	fill("random", MANY);
	ok(compressor_encode(both, e, plain, MANY, coded, MANY - MANY / 16) ==
	   0, "%s: what does not get shorter is not encoded", name);
	ok(compressor_encode(both, e, plain, MANY + 1, coded, MANY) ==
	   -EMSGSIZE && decode(e, 10, MANY + 1) == -EMSGSIZE,
	   "%s: too much is refused", name);
}

static void test_lengths(enum encoding e)
{
	const char *name = encoding_names[e];
	ssize_t n;

	fill("words", 4 * PAGE);
	n = compressor_encode(both, e, plain, 4 * PAGE, coded, 4 * PAGE);
	must(n > 0);
	ok(decode(e, n, 4 * PAGE - 1) == -EBADMSG, "%s: more than was told",
	   name);
	ok(decode(e, n, 5 * PAGE) == -EBADMSG, "%s: less than was told", name);
	ok(decode(e, n - 1, 4 * PAGE) == -EBADMSG, "%s: cut short", name);
	coded[n] = 0;
	ok(decode(e, n + 1, 4 * PAGE) == -EBADMSG, "%s: a byte behind it",
	   name);
	ok(decode(e, 0, 4 * PAGE) == -EBADMSG, "%s: nothing", name);
}

/* bits change, parts are cut out and doubled: an answer, and no other harm */
static void test_spoiled(enum encoding e)
{
	unsigned char *good = malloc(MANY);
	int refused = 0, wild = 0;
	unsigned int seed = 7;
	ssize_t n;

	must(good);
	fill("words", 16 * PAGE);
	n = compressor_encode(both, e, plain, 16 * PAGE, good, MANY);
	must(n > 0);
	for (int i = 0; i < ROUNDS; i++) {
		size_t at = rand_r(&seed) % n, to = rand_r(&seed) % n;
		size_t len = rand_r(&seed) % (n - (at > to ? at : to));
		int ret;

		memcpy(coded, good, n);
		if (i % 3 == 0)
			coded[at] ^= 1 << i % 8;
		else if (i % 3 == 1)
			memmove(coded + to, coded + at, len);
		else
			for (size_t j = 0; j < len; j++)
				coded[at + j] = rand_r(&seed);
		ret = decode(e, n, 16 * PAGE);
		refused += ret == -EBADMSG;
		wild += ret && ret != -EBADMSG;
	}
	ok(refused > ROUNDS / 4 && !wild,
	   "%s: %d of %d spoiled ones are noticed here, none does harm",
	   encoding_names[e], refused, ROUNDS);
	free(good);
}

static void test_foreign(void)
{
	size_t n = ZSTD_compress(coded, MANY, plain, PAGE, 1), m;
	struct compressor *lz4;

	must(!ZSTD_isError(n));
	m = ZSTD_compress(coded + n, MANY - n, plain, PAGE, 1);
	must(!ZSTD_isError(m));
	ok(!decode(ENCODING_ZSTD, n, PAGE) &&
	   decode(ENCODING_ZSTD, n + m, 2 * PAGE) == -EBADMSG,
	   "zstd: one frame, not two");
	put_le32(coded, 0x184d2a50);
	put_le32(coded + 4, 8);
	ok(decode(ENCODING_ZSTD, 16, 0) == -EBADMSG, "zstd: none to skip");
	put_le32(coded, 0xfd2fb525);
	ok(decode(ENCODING_ZSTD, n, PAGE) == -EBADMSG,
	   "zstd: none of an old format");
	lz4 = compressor_new(ENCODING_BIT(ENCODING_LZ4));
	must(lz4);
	ok(compressor_decode(lz4, ENCODING_ZSTD, coded, n, back, PAGE) ==
	   -EOPNOTSUPP &&
	   compressor_encode(lz4, ENCODING_ZSTD, plain, PAGE, coded, PAGE) ==
	   -EOPNOTSUPP, "an encoding that was not asked for is not there");
	compressor_free(lz4);
}

int main(void)
{
	both = compressor_new(ENCODING_BITS);
	plain = malloc(MANY + 128);
	coded = malloc(MANY + 128);
	back = malloc(MANY + 128);
	must(both && plain && coded && back);
	for (enum encoding e = ENCODING_LZ4; e < ENCODINGS; e++) {
		test_round_trip(e);
		test_lengths(e);
		test_spoiled(e);
	}
	test_foreign();
	compressor_free(both);
	free(plain);
	free(coded);
	free(back);
	return tap_end();
}
