// SPDX-License-Identifier: GPL-2.0
#include "lib/byteorder.h"
#include "lib/compress.h"
#include "lib/digest.h"
#include "tap.h"
#include "wire/frame.h"

static const struct frame_header good = {
	.type = FRAME_PAGES, .stream = 3, .round = 7, .seq = 0x123456789abcULL,
	.stream_id = 0xfedcba9876543210ULL, .nr_ranges = 2, .payload = 8192,
	.digest = 0x1111222233334444ULL,
};

static bool header_rejected(void (*spoil)(unsigned char *buf))
{
	unsigned char buf[FRAME_HEADER_BYTES];
	struct frame_header h = { .seq = 42 };

	frame_encode(buf, &good);
	spoil(buf);
	put_le32(buf + 44, frame_header_check(buf));
	return frame_decode(&h, buf) == -EPROTO && h.seq == 42;
}

static void spoil_magic(unsigned char *b) { b[0] ^= 1; }
static void spoil_version(unsigned char *b) { b[4] = 2; }
static void spoil_type(unsigned char *b) { b[6] = 9; }
static void spoil_unstored(unsigned char *b) { b[10] = 1; }
static void spoil_stored(unsigned char *b) { put_le32(b + 40, 100); }
static void spoil_encoding(unsigned char *b)
{
	put_le16(b + 10, ENCODINGS);
	put_le32(b + 40, 100);
}

static void spoil_longer(unsigned char *b)
{
	b[10] = 1;
	put_le32(b + 40, 8192);
}

static void spoil_nothing(unsigned char *b)
{
	b[10] = 1;
	put_le32(b + 36, 0);
	put_le32(b + 40, 100);
}

static void spoil_zero(unsigned char *b) { b[48] = 1; }
static void spoil_zero2(unsigned char *b) { b[55] = 1; }
static void spoil_round(unsigned char *b) { put_le32(b + 12, 0); }
static void spoil_none(unsigned char *b) { put_le32(b + 32, 0); }
static void spoil_many(unsigned char *b) { put_le32(b + 32, 1025); }
static void spoil_size(unsigned char *b) { put_le32(b + 36, 257 * 4096); }
static void spoil_part(unsigned char *b) { put_le32(b + 36, 4097); }
static void spoil_end(unsigned char *b) { b[6] = FRAME_ROUND_END; }

static void test_header(void)
{
	static const struct {
		const char *what;
		void (*spoil)(unsigned char *buf);
	} bad[] = {
		{ "another magic", spoil_magic },
		{ "another version", spoil_version },
		{ "an unknown type", spoil_type },
		{ "a reserved field", spoil_zero },
		{ "its last byte", spoil_zero2 },
		{ "an encoding without content", spoil_unstored },
		{ "encoded content without an encoding", spoil_stored },
		{ "an unknown encoding", spoil_encoding },
		{ "an encoding that makes content no shorter", spoil_longer },
		{ "an encoding of nothing", spoil_nothing },
		{ "round 0", spoil_round },
		{ "no ranges", spoil_none },
		{ "too many ranges", spoil_many },
		{ "too much content", spoil_size },
		{ "content that is no page", spoil_part },
		{ "an end of a round with content", spoil_end },
	};
	unsigned char buf[FRAME_HEADER_BYTES];
	struct frame_header h;

	frame_encode(buf, &good);
	ok(!frame_decode(&h, buf) && h.type == good.type &&
	   h.stream == good.stream && h.round == good.round &&
	   h.seq == good.seq && h.stream_id == good.stream_id &&
	   h.nr_ranges == good.nr_ranges && h.payload == good.payload &&
	   h.digest == good.digest, "a header comes back as it was");
	ok(!memcmp(buf, "VSIF\1\0\1\0\3\0\0\0\7\0\0\0", 16),
	   "and is what the documentation says");
	ok(frame_content(&h) == 8192, "its content is as in the guest");
	h.encoding = ENCODING_ZSTD;
	h.stored = 8191;
	frame_encode(buf, &h);
	memset(&h, 0, sizeof(h));
	ok(!frame_decode(&h, buf) && h.encoding == ENCODING_ZSTD &&
	   h.payload == 8192 && frame_content(&h) == 8191 &&
	   !memcmp(buf + 8, "\3\0\2\0", 4), "or encoded, and says so");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ok(header_rejected(bad[i].spoil), "refused: %s", bad[i].what);
}

/* before anybody believes a length of it */
static void test_header_bits(void)
{
	unsigned char buf[FRAME_HEADER_BYTES];
	struct frame_header h = { .seq = 42 };
	int seen = 0;

	frame_encode(buf, &good);
	for (int i = 0; i < 56 * 8; i++) {
		buf[i / 8] ^= 1 << i % 8;
		seen += frame_decode(&h, buf) < 0 && h.seq == 42;
		buf[i / 8] ^= 1 << i % 8;
	}
	ok(seen == 56 * 8, "refused: a bit that changed, any before the digest (%d)",
	   seen);
	buf[36] ^= 0x10;
	ok(frame_decode(&h, buf) == -EBADMSG, "which is told from garbage");
}

static bool range_rejected(struct vasi_range r, size_t at, unsigned char value)
{
	unsigned char buf[FRAME_RANGE_BYTES];
	struct vasi_range out = { .start = 42 };

	frame_encode_range(buf, &r);
	if (at)
		buf[at] = value;
	return frame_decode_range(&out, buf) == -EPROTO && out.start == 42;
}

static void test_range(void)
{
	struct vasi_range r = {
		.start = 0x7fff12345000, .pages = 0x12345, .space = 9,
		.kind = VASI_KIND_ZERO, .shift = 21,
	}, out;
	unsigned char buf[FRAME_RANGE_BYTES];

	frame_encode_range(buf, &r);
	ok(!frame_decode_range(&out, buf) && out.start == r.start &&
	   out.pages == r.pages && out.space == r.space &&
	   out.kind == r.kind && out.shift == r.shift && !out.member,
	   "a range comes back as it was");
	ok(range_rejected(r, 18, 3), "refused: an unknown kind");
	ok(range_rejected(r, 16, 1), "refused: another member");
	ok(range_rejected(r, 20, 1), "refused: a reserved field");
	r.pages = 0;
	ok(range_rejected(r, 0, 0), "refused: no pages");
	r.pages = 1;
	r.start++;
	ok(range_rejected(r, 0, 0), "refused: not at a page");
	r.start = 0xfffffffffffff000;
	ok(range_rejected(r, 0, 0), "refused: the last page of all");
	r.start = (1ULL << 57) - 4096;
	ok(!range_rejected(r, 0, 0), "taken: the last user page");
	r.pages = 2;
	ok(range_rejected(r, 0, 0), "refused: one more");
	r.pages = 0xffffffff;
	ok(range_rejected(r, 0, 0), "refused: as many as can be said");
}

static void test_digest(void)
{
	unsigned char head[FRAME_HEADER_BYTES + FRAME_RANGE_BYTES];
	uint64_t pages[2] = { 1, 2 }, d;
	int seen = 0;

	memset(head, 0x5a, sizeof(head));
	d = frame_digest(head, sizeof(head), pages, 2);
	put_le64(head + 56, d);
	ok(frame_digest(head, sizeof(head), pages, 2) == d,
	   "the digest does not cover itself");
	for (size_t i = 0; i < sizeof(head) * 8; i++) {
		if (i >= 56 * 8 && i < 64 * 8)
			continue;
		head[i / 8] ^= 1 << i % 8;
		seen += frame_digest(head, sizeof(head), pages, 2) != d;
		head[i / 8] ^= 1 << i % 8;
	}
	ok(seen == sizeof(head) * 8 - 64, "but every other bit (%d)", seen);
	pages[1] = 3;
	ok(frame_digest(head, sizeof(head), pages, 2) != d, "and the pages");
}

static void test_hello(void)
{
	struct stream_hello h = {
		.stream_id = 0x1234, .stream = 5, .token = "0123456789abcde",
	}, out;
	unsigned char buf[HELLO_BYTES];

	stream_hello_encode(buf, &h);
	ok(!stream_hello_decode(&out, buf) && out.stream_id == h.stream_id &&
	   out.stream == h.stream && !memcmp(out.token, h.token, TOKEN_BYTES),
	   "a hello comes back as it was");
	buf[40] = 1;
	ok(stream_hello_decode(&out, buf) == -EPROTO,
	   "refused: a reserved field in it");
	buf[40] = 0;
	buf[0] = 0;
	ok(stream_hello_decode(&out, buf) == -EPROTO,
	   "refused: another magic");
}

/* how many bits make a difference */
static int digest_bits(uint64_t digest, unsigned char *page)
{
	int seen = 0;

	for (size_t i = 0; i < GUEST_PAGE_SIZE * 8; i++) {
		page[i / 8] ^= 1 << i % 8;
		seen += digest_page(0, 4096, page) != digest;
		page[i / 8] ^= 1 << i % 8;
	}
	return seen;
}

static void test_page(void)
{
	unsigned char page[GUEST_PAGE_SIZE] = { 0 };
	uint64_t a;

	ok(page_is_zero(page), "a page of zeroes");
	ok(digest_page(0, 4096, page) == digest_zero(0, 4096),
	   "has the digest of one");
	page[4095] = 1;
	ok(!page_is_zero(page), "its last byte counts");
	a = digest_page(0, 4096, page);
	ok(digest_bits(a, page) == (int)sizeof(page) * 8, "and so does every bit");
	ok(a != digest_page(0, 8192, page), "the address counts");
	ok(a != digest_page(1, 4096, page), "the space counts");
	ok(a && digest_zero(0, 0), "none is 0");
}

int main(void)
{
	test_header();
	test_header_bits();
	test_range();
	test_digest();
	test_hello();
	test_page();
	return tap_end();
}
