// SPDX-License-Identifier: GPL-2.0
#include <stdbool.h>
#include "engine/policy.h"

#define NS			1000000000ULL
/* a round of less tells more of latency than of the link */
#define SPEED_MIN_BYTES		(1ULL << 20)
/* progress: this part of the best so far is gone, in percent */
#define PROGRESS_PERCENT	4
/* below this part of the pause its pages are not worth a round */
#define PAGES_PART		8

static uint64_t rate(uint64_t bytes, uint64_t ns)
{
	double r = ns ? (double)bytes * NS / ns : 0;

	return r < 1e18 ? (uint64_t)r : (uint64_t)1e18;
}

uint64_t policy_speed(const struct policy_round *h, size_t n)
{
	const struct policy_round *largest = NULL;

	for (size_t i = n; i-- > 0; ) {
		if (h[i].done_bytes >= SPEED_MIN_BYTES)
			return rate(h[i].done_bytes, h[i].ns);
		if (!largest || h[i].done_bytes > largest->done_bytes)
			largest = &h[i];
	}
	return largest ? rate(largest->done_bytes, largest->ns) : 0;
}

static double pages_ns(uint64_t speed, uint64_t remaining)
{
	if (!remaining)
		return 0;
	return speed ? (double)remaining / speed * NS : POLICY_UNKNOWN_NS;
}

static uint64_t predict(uint64_t speed, uint64_t remaining,
			const struct policy_estimate *est)
{
	double pages = pages_ns(speed, remaining);

	pages += est->suspend_ns + est->harvest_ns + est->state_ns +
		 est->restore_ns + 2 * est->round_trip_ns + est->untracked_ns;
	return pages < POLICY_UNKNOWN_NS ? (uint64_t)pages : POLICY_UNKNOWN_NS;
}

/* rounds since what remained was last clearly below the best before it */
static unsigned int stalled(const struct policy_round *h, size_t n,
			    uint64_t remaining)
{
	uint64_t best = n ? h[0].remaining_bytes : 0;
	unsigned int count = 0;

	for (size_t i = 1; i <= n; i++) {
		uint64_t r = i < n ? h[i].remaining_bytes : remaining;

		if (r < best - best / 100 * PROGRESS_PERCENT) {
			best = r;
			count = 0;
		} else {
			count++;
		}
	}
	return count;
}

/*
 * Within the limit, but pages are a good part of the pause, and the last round
 * left less than half of what it found: so will the next one, in less time than
 * the limit is long. Halving ends soon.
 */
static bool is_worth_more(const struct policy_decision *d,
			  const struct policy_round *h, size_t n,
			  uint64_t remaining)
{
	return remaining < h[n - 1].remaining_bytes / 2 &&
	       pages_ns(d->speed_Bps, remaining) >
	       (double)d->predicted_ns / PAGES_PART;
}

struct policy_decision policy_decide(const struct policy_config *cfg,
				     const struct policy_round *h, size_t n,
				     uint64_t remaining,
				     const struct policy_estimate *est)
{
	struct policy_decision d = {
		.action = POLICY_ROUND,
		.why = "first",
		.speed_Bps = policy_speed(h, n),
	};

	d.predicted_ns = predict(d.speed_Bps, remaining, est);
	if (!n)
		return d;
	d.action = POLICY_SWITCH;
	if (d.predicted_ns <= cfg->pause_limit_ns && n < cfg->max_rounds &&
	    is_worth_more(&d, h, n, remaining)) {
		d.action = POLICY_ROUND;
		d.why = "shorter";
	} else if (d.predicted_ns <= cfg->pause_limit_ns) {
		d.why = "converged";
	} else if (n >= cfg->max_rounds) {
		d.why = "round-limit";
	} else if (stalled(h, n, remaining) >= cfg->stall_rounds) {
		d.why = "no-progress";
	} else {
		d.action = POLICY_ROUND;
		d.why = "progress";
	}
	return d;
}
