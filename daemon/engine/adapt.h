/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which encoding pays on a stream now: by what is the bottleneck, and by what
 * was measured. Pure: it is told what happened, and asked what to do next
 *
 * A stream builds one batch while the last one is on its way, so that a batch
 * takes the longer of build + encode and stored bytes / link. How fast the link
 * is shows only when the stream waits for it. Where it does not wait, the
 * processor is the bottleneck and nothing is to be gained.
 */
#ifndef MSPD_ENGINE_ADAPT_H
#define MSPD_ENGINE_ADAPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lib/compress.h"

/* content from which costs of an encoding are learned */
#define ADAPT_SAMPLE_BYTES	(64U << 10)

/**
 * struct adapt_sent - what happened since the last batch was handed over
 * @plain: content as it is in the guest
 * @stored: content as it was sent
 * @encode_ns: compressing, samples included
 * @wait_ns: waiting until the batch before was sent
 * @total_ns: all of it
 */
struct adapt_sent {
	uint64_t plain, stored;
	uint64_t encode_ns, wait_ns, total_ns;
};

/**
 * struct adapt_cost - what is known of an encoding
 * @known: something is
 * @ns: per byte of content, of a processor of its own
 * @ratio: bytes stored per byte of content
 */
struct adapt_cost {
	bool known;
	double ns, ratio;
};

/**
 * struct adapt_delay - when an encoding may be tried again
 * @left: windows until then
 * @next: windows after the next failure
 */
struct adapt_delay {
	unsigned int left, next;
};

/**
 * struct adapt - state of one stream
 * @encodings: to choose from, a bit each; none: @base it is
 * @overlap: a batch is built while the last one is sent
 * @crowd: streams that share a processor, 1 or more
 * @base: encoding that has proved itself
 * @now: encoding in use; another one than @base is on trial
 * @base_ns: time per byte of content with @base
 * @waited: in the last window, for most of the time
 * @link: bytes per ns that are taken off our hands, 0 = not known
 * @link_plain: likewise of content that is not encoded. Encoded content that is
 *	taken so much more slowly tells of a peer that decodes slowly
 * @cost: of each encoding
 * @delay: of each encoding
 * @wanted: samples are to be taken, a bit each
 * @fresh: samples were taken in this window, a bit each
 * @settle: bytes that are not judged: they wait behind others of an encoding
 * @sum: of this window
 */
struct adapt {
	unsigned int encodings;
	bool overlap;
	double crowd;
	enum encoding base, now;
	bool waited;
	double base_ns, link, link_plain;
	struct adapt_cost cost[ENCODINGS];
	struct adapt_delay delay[ENCODINGS];
	unsigned int wanted, fresh;
	uint64_t settle;
	struct adapt_sent sum;
};

/* @encodings: a bit each, 0: always @base */
void adapt_init(struct adapt *a, unsigned int encodings, enum encoding base,
		bool overlap, double crowd);
/* for the next batch; @now_or_never: no time for trials */
enum encoding adapt_encoding(const struct adapt *a, bool now_or_never);
/* an encoding of which a sample is to be taken, or ENCODING_NONE */
enum encoding adapt_wanted(const struct adapt *a);
/* @stored: as long as @plain if it did not get shorter */
void adapt_sample(struct adapt *a, enum encoding e, uint64_t plain,
		  uint64_t stored, uint64_t ns);
void adapt_sent(struct adapt *a, const struct adapt_sent *s);

#endif /* MSPD_ENGINE_ADAPT_H */
