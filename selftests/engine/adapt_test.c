// SPDX-License-Identifier: GPL-2.0
/*
 * The choice of an encoding against a model of a stream: what it costs where
 * nothing is to be gained, and what it finds where something is
 */
#include <stdlib.h>
#include "engine/adapt.h"
#include "tap.h"

#define MB		1000000ULL
#define BATCH		(1ULL << 20)
/* what the socket takes before anybody waits, in batches */
#define BUFFERED	4

/**
 * struct world - a stream, its guest and its peer
 * @build: ns per byte to read and digest
 * @link: bytes per second
 * @encode: ns per byte, by encoding
 * @take: ns per byte that the peer needs, by encoding
 * @ratio: stored per byte, by encoding
 * @noise: percent that all times vary
 * @plain_calls: nothing is sent while a batch is built
 * @crowd: streams that share a processor, 0 = 1; samples do not show it
 */
struct world {
	double build, link;
	double encode[ENCODINGS], take[ENCODINGS], ratio[ENCODINGS];
	unsigned int noise;
	bool plain_calls;
	double crowd;
};

/* about what is measured on one core of a server */
#define CORE	.build = 0.35, .encode = { 0, 0.7, 1.4 }, \
		.take = { 0.3, 0.5, 0.8 }
#define RANDOM	.ratio = { 1, 1, 1 }
#define TEXT	.ratio = { 1, 0.5, 0.35 }
#define SPARSE	.ratio = { 1, 0.10, 0.05 }

/**
 * struct run - a stream at work
 * @a: what is tested
 * @now: ns
 * @done: ns when the peer has taken all that was sent
 * @used: batches, by encoding
 * @samples: taken
 * @seed: of the noise
 */
struct run {
	struct adapt a;
	double now, done;
	unsigned int used[ENCODINGS], samples, seed;
};

static double vary(struct run *r, const struct world *w, double ns)
{
	if (!w->noise)
		return ns;
	return ns * (100.0 - w->noise + rand_r(&r->seed) %
		     (2 * w->noise + 1)) / 100;
}

static double sample(struct run *r, const struct world *w, enum encoding e)
{
	double ns = vary(r, w, w->encode[e] * ADAPT_SAMPLE_BYTES);

	adapt_sample(&r->a, e, ADAPT_SAMPLE_BYTES,
		     ADAPT_SAMPLE_BYTES * w->ratio[e], ns);
	r->samples++;
	return ns;
}

/* one batch; @fixed: or -1, as the adaption says */
static void step(struct run *r, const struct world *w, int fixed)
{
	enum encoding e = fixed >= 0 ? (enum encoding)fixed :
			  adapt_encoding(&r->a, false);
	double begin = r->now, encode = 0, wait = 0, built, send, room;
	uint64_t stored = BATCH * w->ratio[e];

	if (fixed < 0 && adapt_wanted(&r->a))
		encode = sample(r, w, adapt_wanted(&r->a));
	encode += vary(r, w, w->encode[e] * BATCH) *
		  (w->crowd ? w->crowd : 1);
	r->now += vary(r, w, w->build * BATCH) + encode;
	built = r->now;
	send = stored / w->link * 1e9;
	if (send < w->take[e] * BATCH)
		send = w->take[e] * BATCH;
	/* the one before must be off our hands; without overlap this one */
	room = r->done - send / stored * BUFFERED * BATCH;
	send = vary(r, w, send);
	if (w->plain_calls)
		room = (r->done > built ? r->done : built) + send;
	if (room > built) {
		wait = room - built;
		r->now = room;
	}
	r->done = (r->done > built ? r->done : built) + send;
	r->used[e]++;
	if (fixed < 0)
		adapt_sent(&r->a, &(struct adapt_sent){
			.plain = BATCH, .stored = stored, .encode_ns = encode,
			.wait_ns = wait, .total_ns = r->now - begin });
}

static void begin(struct run *r, const struct world *w)
{
	*r = (struct run){ .seed = 3 };
	adapt_init(&r->a, ENCODING_BITS, ENCODING_NONE, !w->plain_calls,
		   w->crowd ? w->crowd : 1);
}

/* ns for @batches */
static double takes(struct run *r, const struct world *w, unsigned int batches,
		    int fixed)
{
	begin(r, w);
	for (unsigned int i = 0; i < batches; i++)
		step(r, w, fixed);
	return r->now > r->done ? r->now : r->done;
}

static const struct {
	const char *what;
	struct world w;
	enum encoding best;
} worlds[] = {
	{ "noise over 1 Gbit/s", { CORE, RANDOM, .link = 30 * MB },
	  ENCODING_NONE },
	{ "noise over 10 Gbit/s", { CORE, RANDOM, .link = 300 * MB },
	  ENCODING_NONE },
	{ "noise over loopback", { CORE, RANDOM, .link = 3000 * MB },
	  ENCODING_NONE },
	{ "noise, by plain calls", { CORE, RANDOM, .link = 300 * MB,
	  .plain_calls = true }, ENCODING_NONE },
	{ "text over loopback", { CORE, TEXT, .link = 3000 * MB },
	  ENCODING_NONE },
	{ "text over 10 Gbit/s", { CORE, TEXT, .link = 300 * MB },
	  ENCODING_LZ4 },
	{ "text over 1 Gbit/s", { CORE, TEXT, .link = 30 * MB },
	  ENCODING_ZSTD },
	{ "text over 1 Gbit/s, by plain calls", { CORE, TEXT,
	  .link = 30 * MB, .plain_calls = true }, ENCODING_ZSTD },
	{ "text over 10 Gbit/s, too many streams", { CORE, TEXT,
	  .link = 300 * MB, .crowd = 6 }, ENCODING_NONE },
	{ "sparse memory over 10 Gbit/s", { CORE, SPARSE, .link = 300 * MB },
	  ENCODING_LZ4 },
	{ "sparse memory over 1 Gbit/s", { CORE, SPARSE, .link = 30 * MB },
	  ENCODING_ZSTD },
};

static void test_worlds(unsigned int noise)
{
	for (size_t i = 0; i < sizeof(worlds) / sizeof(*worlds); i++) {
		struct world w = worlds[i].w;
		struct run r;
		double off, best, ns;

		w.noise = noise;
		off = takes(&r, &w, 1024, ENCODING_NONE);
		best = takes(&r, &w, 1024, worlds[i].best);
		for (int e = 0; e < ENCODINGS; e++)
			must(takes(&r, &w, 1024, e) >= best * 0.95);
		ns = takes(&r, &w, 1024, -1);
		/* some batches go by before the link is known */
		ok(ns <= off * 1.03 && ns <= best * 1.06 + off / 1024 * 16 &&
		   (worlds[i].best || r.used[ENCODING_NONE] == 1024),
		   "%s, %u %% uncertain: %.3f of off, %.3f of the best, %u samples",
		   worlds[i].what, noise, ns / off, ns / best, r.samples);
	}
}

/* a guest that is not the same all over */
static void test_change(void)
{
	static const struct world noise = { CORE, RANDOM, .link = 30 * MB };
	static const struct world text = { CORE, TEXT, .link = 30 * MB };
	unsigned int before;
	struct run r;

	begin(&r, &noise);
	for (int i = 0; i < 256; i++)
		step(&r, &noise, -1);
	ok(r.used[ENCODING_NONE] > 250, "noise goes as it is");
	before = r.used[ENCODING_NONE];
	for (int i = 0; i < 512; i++)
		step(&r, &text, -1);
	ok(r.used[ENCODING_NONE] - before < 256,
	   "text behind it is found before long (%u batches late)",
	   r.used[ENCODING_NONE] - before);
	before = r.used[ENCODING_NONE];
	for (int i = 0; i < 256; i++)
		step(&r, &noise, -1);
	ok(r.used[ENCODING_NONE] - before > 200, "noise again, as it is again");
}

/*
 * No sender can see how its peer decodes, but it must not put up with it. What
 * the sockets hold is much content then, so it is late to be seen.
 */
static void test_slow_peer(void)
{
	static const struct world w = {
		.build = 0.35, SPARSE, .link = 3000 * MB,
		.encode = { 0, 0.7, 1.4 }, .take = { 2, 4, 6 },
	};
	struct run r;
	double off = takes(&r, &w, 8192, ENCODING_NONE);
	double ns = takes(&r, &w, 8192, -1);

	ok(ns < 1.05 * off && r.used[ENCODING_NONE] > 7500,
	   "a peer that decodes slowly: %.3f of off, %u batches encoded",
	   ns / off, 8192 - r.used[ENCODING_NONE]);
}

static void test_habits(void)
{
	static const struct world w = { CORE, TEXT, .link = 30 * MB };
	struct adapt a;
	struct run r;

	adapt_init(&a, 0, ENCODING_LZ4, true, 1);
	for (int i = 0; i < 1000; i++)
		adapt_sent(&a, &(struct adapt_sent){ BATCH, BATCH, 0,
						     BATCH * 9, BATCH * 10 });
	ok(adapt_encoding(&a, false) == ENCODING_LZ4 &&
	   !adapt_wanted(&a), "what is fixed stays, and nothing is sampled");
	begin(&r, &w);
	while (adapt_encoding(&r.a, false) == ENCODING_NONE)
		step(&r, &w, -1);
	ok(adapt_encoding(&r.a, true) == ENCODING_NONE,
	   "what is on trial is not for the pause");
	ok(r.used[ENCODING_NONE] < 24, "it is begun soon (%u batches)",
	   r.used[ENCODING_NONE]);
	adapt_init(&a, ENCODING_BIT(ENCODING_LZ4), ENCODING_NONE, true, 1);
	for (int i = 0; i < 100; i++) {
		must(adapt_wanted(&a) != ENCODING_ZSTD);
		if (adapt_wanted(&a))
			adapt_sample(&a, ENCODING_LZ4, 100, 10, 10);
		adapt_sent(&a, &(struct adapt_sent){ BATCH, BATCH, 0,
						     BATCH * 9, BATCH * 10 });
	}
	ok(true, "what the peer does not know is not sampled");
	adapt_init(&a, ENCODING_BITS, ENCODING_NONE, true, 1);
	for (int i = 0; i < 1000; i++) {
		adapt_sent(&a, &(struct adapt_sent){ 0, 0, 0, 0, 0 });
		adapt_sent(&a, &(struct adapt_sent){ BATCH, BATCH, 0, 0, 0 });
	}
	ok(adapt_encoding(&a, false) == ENCODING_NONE && !adapt_wanted(&a),
	   "no time at all is no reason for anything");
}

int main(void)
{
	test_worlds(0);
	test_worlds(20);
	test_change();
	test_slow_peer();
	test_habits();
	return tap_end();
}
