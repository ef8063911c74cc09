// SPDX-License-Identifier: GPL-2.0
/*
 * A bit changes, on the way or on the target: the guest does not move
 *
 * Each migration has one changed bit. It has to be noticed, wherever the bit is, and
 * the guest has to be on the source then, running and as it was.
 */
#include <signal.h>
#include <stdlib.h>
#include "session/drive.h"
#include "session/session.h"
#include "session/world.h"
#include "tap.h"

/* bits of what one frame can have in content, and then some */
#define BITS	(9ULL << 20)
#define TRIES	10

/* the guest's memory is what it was; of one that writes nothing */
static bool unharmed(const unsigned char *before)
{
	return !memcmp(world->source, before, WORLD_BYTES);
}

static bool noticed(const char *point, unsigned int round,
		    unsigned long long bit, const char *text,
		    enum compression c)
{
	unsigned char *before = malloc(WORLD_BYTES);
	char fault[64];
	int ret, tries = 0;
	bool good;

	must(before);
	snprintf(fault, sizeof(fault), "%s=%u:%llu", point, round, bit);
	do {
		world_new();
		/* one that writes has rounds, and what is sent in them */
		world->plan.busy = round > 1;
		world->plan.pause_limit_ms = round > 1 ? 0 : 5000;
		memcpy(before, world->source, WORLD_BYTES);
		ret = drive(&(struct drive){ .fault = fault,
					     .compression = c });
		/* on a busy machine it may not write, and then no bit changed */
	} while (!ret && !world_differences() && ++tries < TRIES);
	good = rolled_back(ret, text) && *world->source_error &&
	       (round > 1 || unharmed(before));
	if (!good)
		note("%s", fault);
	free(before);
	return good;
}

static void test_header(void)
{
	int seen = 0;

	for (int i = 0; i < 64; i++) {
		/* magic, version, and bytes that are 0 */
		bool fixed = i < 6 || (i >= 48 && i < 56);

		seen += noticed("flip", 1, i * 8 + i % 8, fixed ?
				"not a frame header" : "corrupt",
				COMPRESSION_OFF);
	}
	ok(seen == 64, "a bit of each byte of a frame's header (%d)", seen);
}

static void test_bits(const char *what, const char *point, unsigned int round,
		      const char *text, enum compression c, int n)
{
	int seen = 0;

	/* odd, so all places in a byte, and spread over the frame */
	for (int i = 0; i < n; i++)
		seen += noticed(point, round, (2 * i + 1) * (BITS / n) / 2 + i,
				text, c);
	ok(seen == n, "%s, round %u, %d of %d", what, round, seen, n);
}

static void test_drop(void)
{
	world_new();
	world->plan.busy = true;
	world->plan.rewrite = true;
	world->plan.pause_limit_ms = 1;
	ok(rolled_back(drive(&(struct drive){ .fault = "nodrop" }),
		       "are still there"), "pages that were not dropped");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_header();
	for (unsigned int round = 1; round <= 3; round += 2) {
		test_bits("a frame on its way", "flip", round, "",
			  COMPRESSION_OFF, 40);
		test_bits("content in a buffer of the target", "spoil", round,
			  "is corrupt (digest)", COMPRESSION_OFF, 24);
		test_bits("the target's memory", "decay", round,
			  "as something else", COMPRESSION_OFF, 40);
	}
	test_bits("an LZ4 frame on its way", "flip", 1, "", COMPRESSION_LZ4, 24);
	test_bits("a zstd frame on its way", "flip", 1, "", COMPRESSION_ZSTD,
		  24);
	test_bits("memory behind LZ4", "decay", 1, "as something else",
		  COMPRESSION_LZ4, 8);
	test_drop();
	world_free();
	return tap_end();
}
