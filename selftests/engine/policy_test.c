// SPDX-License-Identifier: GPL-2.0
/*
 * The policy against histories of guests of different habits
 */
#include "engine/policy.h"
#include "tap.h"

#define MB	1000000ULL
#define MS	1000000ULL
#define ROUNDS	50

static const struct policy_config cfg = {
	.pause_limit_ns = 300 * MS, .max_rounds = 30, .stall_rounds = 3,
};
static const struct policy_estimate est = {
	.suspend_ns = 2 * MS, .harvest_ns = 8 * MS, .state_ns = 20 * MS,
	.restore_ns = 25 * MS, .round_trip_ns = 1 * MS,
};

/**
 * struct guest_model - a guest that writes its working set at a rate
 * @size: resident
 * @set: bytes that it writes to
 * @rate: bytes per second that become dirty
 * @link: bytes per second
 */
struct guest_model {
	uint64_t size, set, rate, link;
};

/* rounds until the switch-over, and why */
static struct policy_decision run(const struct guest_model *g,
				  const struct policy_config *c,
				  unsigned int *ret_rounds)
{
	struct policy_round h[ROUNDS];
	uint64_t remaining = g->size;
	size_t n = 0;

	for (;;) {
		struct policy_decision d = policy_decide(c, h, n, remaining,
							 &est);

		*ret_rounds = n;
		if (d.action == POLICY_SWITCH || n == ROUNDS)
			return d;
		h[n] = (struct policy_round){
			.remaining_bytes = remaining,
			.done_bytes = remaining,
			.ns = remaining * 1000 / (g->link / MB) + MS,
		};
		remaining = (double)g->rate * h[n].ns / 1e9;
		if (remaining > g->set)
			remaining = g->set;
		n++;
	}
}

static void test_habits(void)
{
	struct policy_decision d;
	unsigned int n;

	d = policy_decide(&cfg, NULL, 0, 256 * MB, &est);
	ok(d.action == POLICY_ROUND && d.predicted_ns == POLICY_UNKNOWN_NS,
	   "no prediction before anything was sent");
	d = run(&(struct guest_model){ 256 * MB, 0, 0, 100 * MB }, &cfg, &n);
	ok(n == 1 && !strcmp(d.why, "converged"), "idle: one round");
	ok(d.predicted_ns == (2 + 8 + 20 + 25 + 2) * MS,
	   "and a pause of its fixed parts");
	d = run(&(struct guest_model){ 256 * MB, 64 * MB, 16 * MB, 100 * MB },
		&cfg, &n);
	/* 41 MB left by the first, which would do, then 7, 1, and little */
	ok(n == 4 && !strcmp(d.why, "converged") &&
	   d.predicted_ns < 60 * MS, "a slow writer: four rounds (%u)", n);
	d = run(&(struct guest_model){ 1024 * MB, 512 * MB, 60 * MB,
				       100 * MB }, &cfg, &n);
	ok(n > 2 && n < 12 && !strcmp(d.why, "converged"),
	   "a faster one: more rounds, and it converges (%u)", n);
	d = run(&(struct guest_model){ 256 * MB, 128 * MB, 500 * MB,
				       100 * MB }, &cfg, &n);
	ok(n >= 3 && n <= 5 && !strcmp(d.why, "no-progress") &&
	   d.predicted_ns > cfg.pause_limit_ns,
	   "faster than the link: no progress, and it says so (%u)", n);
	d = run(&(struct guest_model){ 256 * MB, 128 * MB, 95 * MB,
				       100 * MB },
		&(struct policy_config){ 60 * MS, 5, 100 }, &n);
	ok(n == 5 && !strcmp(d.why, "round-limit"), "a round limit (%u)", n);
	d = run(&(struct guest_model){ 4 * MB, 0, 0, 1000 * MB }, &cfg, &n);
	ok(n == 1, "the first round is always made");
}

static void test_recorded(void)
{
	/* 64 MiB written at 2000 pages/s over 80 MB/s, as seen in a VM */
	const struct policy_round h[] = {
		{ 268000000, 268500000, 3350000000 },
		{ 27400000, 27500000, 350000000 },
		{ 2900000, 2950000, 40000000 },
	};
	struct policy_decision d;

	d = policy_decide(&cfg, h, 1, 27400000, &est);
	ok(d.action == POLICY_ROUND && !strcmp(d.why, "progress"),
	   "27 MB at 80 MB/s: another round");
	ok(d.speed_Bps > 79 * MB && d.speed_Bps < 81 * MB,
	   "with the speed of the first");
	d = policy_decide(&cfg, h, 2, 2900000, &est);
	ok(d.action == POLICY_ROUND && !strcmp(d.why, "shorter") &&
	   d.predicted_ns > 90 * MS && d.predicted_ns < 96 * MS,
	   "3 MB, a tenth of the last: 96 ms can be less");
	d = policy_decide(&cfg, h, 3, 1500000, &est);
	ok(d.action == POLICY_SWITCH && !strcmp(d.why, "converged"),
	   "more than half of that: it is the rate now, switch");
	d = policy_decide(&cfg, h, 2, 500000, &est);
	ok(d.action == POLICY_SWITCH, "little: what is left is not pages");
	d = policy_decide(&(struct policy_config){ 300 * MS, 2, 3 }, h, 2,
			  2900000, &est);
	ok(d.action == POLICY_SWITCH, "no round more than allowed");
	d = policy_decide(&cfg, h, 3, 10000000, &est);
	ok(d.action == POLICY_SWITCH, "a burst that still fits the limit");
	d = policy_decide(&cfg, h, 3, 50000000, &est);
	ok(d.action == POLICY_ROUND, "one that does not, once");
}

static void test_speed(void)
{
	struct policy_round h[] = {
		{ 100 * MB, 100 * MB, 1000 * MS },
		{ 50000, 50000, 10 * MS },
	};

	ok(policy_speed(h, 2) == 100 * MB,
	   "a small round says nothing of the link");
	h[0].done_bytes = 20000;
	ok(policy_speed(h, 2) == 5 * MB, "if all are small, the largest does");
	ok(policy_speed(h, 0) == 0, "and no round nothing");
	h[0].ns = h[1].ns = 0;
	ok(policy_speed(h, 2) == 0, "no time is no rate");
}

/* 100 MB, of which 2 went over a slow link and the rest was there already */
static void test_equal(void)
{
	const struct policy_round h[] = {
		{ 300 * MB, 300 * MB, 3000 * MS },
		{ 100 * MB, 100 * MB, 40 * MS },
	};

	ok(policy_decide(&cfg, h, 2, 100 * MB, &est).predicted_ns < 100 * MS,
	   "what need not be sent is not predicted to be");
}

static void test_untracked(void)
{
	struct policy_estimate e = est;
	const struct policy_round h = { 100 * MB, 100 * MB, 1000 * MS };

	e.untracked_ns = 400 * MS;
	ok(policy_decide(&cfg, &h, 1, 0, &e).action == POLICY_ROUND,
	   "content that no tracker sees counts");
}

int main(void)
{
	test_habits();
	test_recorded();
	test_speed();
	test_equal();
	test_untracked();
	return tap_end();
}
