/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Another round, or switch over? A pure function of the history
 */
#ifndef MSPD_ENGINE_POLICY_H
#define MSPD_ENGINE_POLICY_H

#include <stddef.h>
#include <stdint.h>

enum policy_action { POLICY_ROUND, POLICY_SWITCH };

/**
 * struct policy_config - what the operator wants
 * @pause_limit_ns: switch over when the predicted pause is not above, and
 *	another round would not make it clearly shorter
 * @max_rounds: switch over after so many
 * @stall_rounds: switch over after so many rounds without progress
 */
struct policy_config {
	uint64_t pause_limit_ns;
	unsigned int max_rounds;
	unsigned int stall_rounds;
};

/**
 * struct policy_round - a round that was applied
 * @remaining_bytes: content that was to be sent when it began
 * @done_bytes: content that was dealt with: sent, or found to be there already;
 *	as it is in the guest, whatever there was of it on the wire
 * @ns: from its first frame until it was applied
 */
struct policy_round {
	uint64_t remaining_bytes;
	uint64_t done_bytes;
	uint64_t ns;
};

/**
 * struct policy_estimate - parts of the pause that do not depend on the pages
 * @suspend_ns: stopping the threads
 * @harvest_ns: one walk over the guest
 * @state_ns: reading the state
 * @restore_ns: putting it back
 * @round_trip_ns: one question and answer
 * @untracked_ns: reading what no tracker sees
 */
struct policy_estimate {
	uint64_t suspend_ns;
	uint64_t harvest_ns;
	uint64_t state_ns;
	uint64_t restore_ns;
	uint64_t round_trip_ns;
	uint64_t untracked_ns;
};

/* longer than anything that is predicted */
#define POLICY_UNKNOWN_NS	1000000000000000000ULL

/**
 * struct policy_decision - what to do and why
 * @action: POLICY_*
 * @why: one word or two, for people and programs: "first", "progress",
 *	"shorter", "converged", "no-progress", "round-limit"
 * @predicted_ns: pause if the switch-over began now, POLICY_UNKNOWN_NS while
 *	nothing was sent yet
 * @speed_Bps: content dealt with per second, this was computed with it
 */
struct policy_decision {
	enum policy_action action;
	const char *why;
	uint64_t predicted_ns;
	uint64_t speed_Bps;
};

/* @h: rounds so far, oldest first; @remaining: bytes to be sent now */
struct policy_decision policy_decide(const struct policy_config *cfg,
				     const struct policy_round *h, size_t n,
				     uint64_t remaining,
				     const struct policy_estimate *est);
uint64_t policy_speed(const struct policy_round *h, size_t n);

#endif /* MSPD_ENGINE_POLICY_H */
