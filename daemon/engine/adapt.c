// SPDX-License-Identifier: GPL-2.0
#include "engine/adapt.h"

/* A window is long enough to be judged: by content, or on slow links by time. */
#define WINDOW_BYTES	(8ULL << 20)
#define WINDOW_NS	50000000ULL
#define WINDOW_MIN_BYTES (2ULL << 20)
/* less waiting than this part of the time leaves nothing to be gained */
#define WAIT_PART	2
/* what is tried must promise, and then deliver, this part of the time */
#define PROMISE		0.85
#define DELIVER		0.90
/* what gets no shorter than this is not worth its encoding */
#define USELESS		0.95
/* a trial that is so much worse is not waited for */
#define HOPELESS	1.25
#define HOPELESS_BYTES	(1ULL << 20)
#define DELAY_MAX	256
/* more than sockets hold on both sides */
#define SETTLE_BYTES	(12ULL << 20)

void adapt_init(struct adapt *a, unsigned int encodings, enum encoding base,
		bool overlap, double crowd)
{
	*a = (struct adapt){
		.encodings = encodings,
		.overlap = overlap,
		.crowd = crowd,
		.base = base,
		.now = base,
	};
	a->cost[ENCODING_NONE] = (struct adapt_cost){ true, 0, 1 };
	for (int e = 0; e < ENCODINGS; e++)
		a->delay[e].next = 1;
}

enum encoding adapt_encoding(const struct adapt *a, bool now_or_never)
{
	return now_or_never ? a->base : a->now;
}

enum encoding adapt_wanted(const struct adapt *a)
{
	for (int e = 1; e < ENCODINGS; e++)
		if (a->wanted & ENCODING_BIT(e))
			return e;
	return ENCODING_NONE;
}

void adapt_sample(struct adapt *a, enum encoding e, uint64_t plain,
		  uint64_t stored, uint64_t ns)
{
	a->cost[e] = (struct adapt_cost){
		.known = true,
		.ns = (double)ns / plain,
		.ratio = (double)stored / plain,
	};
	a->wanted &= ~ENCODING_BIT(e);
	a->fresh |= ENCODING_BIT(e);
}

/* It did not pay: again later, and each time much later. */
static void postpone(struct adapt *a, enum encoding e, unsigned int factor)
{
	struct adapt_delay *d = &a->delay[e];

	d->left = d->next * factor / 2;
	d->next = d->next * factor < DELAY_MAX ? d->next * factor : DELAY_MAX;
}

static bool allowed(const struct adapt *a, enum encoding e)
{
	return a->encodings & ENCODING_BIT(e);
}

/* time per byte of content */
static double predict(const struct adapt *a, enum encoding e, double build)
{
	double make = build + a->cost[e].ns * a->crowd;
	double send = a->cost[e].ratio /
		      (e == ENCODING_NONE ? a->link_plain : a->link);

	if (!a->overlap)
		return make + send;
	return make > send ? make : send;
}

/* what is most promising, or what there is */
static enum encoding promising(const struct adapt *a, double build)
{
	enum encoding best = a->base;
	double best_ns = a->base_ns * PROMISE;

	for (enum encoding e = 1; e < ENCODINGS && a->link; e++) {
		double ns = predict(a, e, build);

		if (e == a->base || !allowed(a, e) || !a->cost[e].known ||
		    a->delay[e].left || ns > best_ns)
			continue;
		best = e;
		best_ns = ns;
	}
	return best;
}

/*
 * Back to no encoding goes without a trial: what is under way in the sockets
 * would be judged with it, and there is much content in few encoded bytes.
 */
static bool useless(const struct adapt *a, double build)
{
	return a->base && a->link_plain &&
	       (a->cost[a->base].ratio > USELESS ||
		predict(a, ENCODING_NONE, build) < a->base_ns * PROMISE);
}

/* The window is over, it was a trial: has it kept its promise? */
static void judge(struct adapt *a, double ns)
{
	if (ns <= a->base_ns * DELIVER) {
		a->base = a->now;
		a->base_ns = ns;
		/* slowly, as it may turn out to be useless yet */
		a->delay[a->base].next = (a->delay[a->base].next + 1) / 2;
	} else {
		postpone(a, a->now, 4);
		a->now = a->base;
	}
}

static void measure(struct adapt *a, bool waiting)
{
	const struct adapt_sent *w = &a->sum;
	double link = (double)w->stored /
		      (a->overlap || !waiting ? w->total_ns : w->wait_ns);
	/* in the first window the sockets may have been filled */
	const bool steady = waiting && a->waited;

	/* without waiting it is a lower bound, and only of what is known */
	if (steady || (a->link && link > a->link))
		a->link = link;
	if (a->now == ENCODING_NONE && steady)
		a->link_plain = link;
	else if (link > a->link_plain)
		a->link_plain += (link - a->link_plain) / 4;
	if (a->now == ENCODING_NONE)
		return;
	a->cost[a->now] = (struct adapt_cost){
		.known = true,
		.ns = (double)w->encode_ns / w->plain / a->crowd,
		.ratio = (double)w->stored / w->plain,
	};
}

static void window_end(struct adapt *a)
{
	const struct adapt_sent *w = &a->sum;
	const bool waiting = w->wait_ns > w->total_ns / WAIT_PART;
	double ns = (double)w->total_ns / w->plain, build;
	unsigned int fresh = a->fresh;

	build = w->total_ns > w->wait_ns + w->encode_ns ?
		(double)(w->total_ns - w->wait_ns - w->encode_ns) / w->plain :
		0;
	measure(a, waiting);
	a->waited = waiting;
	if (a->now != a->base)
		judge(a, ns);
	else
		a->base_ns = ns;
	if (useless(a, build)) {
		postpone(a, a->base, 8);
		a->base = ENCODING_NONE;
		/* until it is measured again */
		a->base_ns = predict(a, ENCODING_NONE, build);
		a->settle = SETTLE_BYTES;
	}
	for (int e = 0; e < ENCODINGS; e++)
		if (a->delay[e].left)
			a->delay[e].left--;
	a->now = promising(a, build);
	a->wanted = 0;
	for (enum encoding e = 1; e < ENCODINGS; e++) {
		if (e == a->now || e == a->base || !allowed(a, e))
			continue;
		if (fresh & ENCODING_BIT(e))
			postpone(a, e, 2);
		else if (waiting && !a->delay[e].left)
			a->wanted |= ENCODING_BIT(e);
	}
	a->fresh = 0;
	a->sum = (struct adapt_sent){ 0 };
}

static bool window_over(const struct adapt *a)
{
	const struct adapt_sent *w = &a->sum;

	if (a->now != a->base && w->plain >= HOPELESS_BYTES &&
	    w->total_ns > a->base_ns * HOPELESS * w->plain)
		return true;
	return w->plain >= WINDOW_BYTES ||
	       (w->plain >= WINDOW_MIN_BYTES && w->total_ns >= WINDOW_NS);
}

void adapt_sent(struct adapt *a, const struct adapt_sent *s)
{
	if (!a->encodings)
		return;
	if (a->settle) {
		a->settle -= s->stored < a->settle ? s->stored : a->settle;
		return;
	}
	a->sum.plain += s->plain;
	a->sum.stored += s->stored;
	a->sum.encode_ns += s->encode_ns;
	a->sum.wait_ns += s->wait_ns;
	a->sum.total_ns += s->total_ns;
	if (window_over(a))
		window_end(a);
}
