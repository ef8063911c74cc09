/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Events of a migration as JSON, as session.h lists them
 */
#ifndef MSPD_SESSION_REPORT_H
#define MSPD_SESSION_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include "engine/policy.h"
#include "engine/sender.h"
#include "session/session.h"

/**
 * enum pause_part - what the guest waited for
 */
enum pause_part {
	PAUSE_SUSPEND,
	PAUSE_HARVEST,
	PAUSE_PAGES,
	PAUSE_STATE,
	PAUSE_RESTORE,
	PAUSE_DIGEST,
	PAUSE_JOURNAL,
	PAUSE_RESUME,
	PAUSE_PARTS,
};

/**
 * struct round_report - one round
 * @round: from 1
 * @totals: what was sent
 * @remaining_bytes: what there was to send when it began
 * @harvest_ns: finding that out
 * @ns: from its first frame until it was applied
 * @digest_ns: of it, the target's time for reading back what it wrote, as it says
 * @since_ns: since the harvest before, 0 in round 1
 * @dirty_pages: harvested with content
 * @decision: that led to it
 */
struct round_report {
	uint32_t round;
	struct send_totals totals;
	uint64_t remaining_bytes;
	uint64_t harvest_ns;
	uint64_t ns;
	uint64_t digest_ns;
	uint64_t since_ns;
	uint64_t dirty_pages;
	struct policy_decision decision;
};

/**
 * struct summary - the whole migration
 * @ok: it did what was asked
 * @in_doubt: the target was told to take over and did not answer
 * @validate_only: nothing was to be moved
 * @error: why not, if not @ok
 * @rounds: array as made by report_round()
 * @pages: with content, that were sent
 * @encoded: of @pages, in each encoding
 * @bytes_sent: wire bytes of the data connections
 * @guest_bytes: pages with content that the target has
 * @copy_ns: time of all rounds
 * @pause_ns: parts
 * @predicted_ns: pause as predicted before it
 * @why: reason of the switch-over
 * @how: by what access, tracker and calls the guest was reached and sent
 * @streams: data connections
 * @stream_id: the migration
 * @asked: what a Query was answered, NULL = it was none
 * @tls: who encrypts what the source sends: "off", "process" or "kernel"; NULL =
 *	it came to no data connections
 * @kernel: releases, source and target
 */
struct summary {
	bool ok, in_doubt, validate_only;
	const char *error;
	json_t *rounds;
	uint64_t pages, encoded[ENCODINGS];
	uint64_t bytes_sent, guest_bytes, copy_ns;
	uint64_t pause_ns[PAUSE_PARTS];
	uint64_t predicted_ns;
	const char *why, *how, *tls;
	unsigned int streams;
	uint64_t stream_id;
	const char *asked;
	const char *kernel[2];
};

void report_phase(struct reporter *rep, const char *phase);
void report_findings(struct reporter *rep, const struct findings *f,
		     const char *side);
void report_progress(struct reporter *rep, uint32_t round, uint64_t total,
		     uint64_t left, const struct round_report *last,
		     uint64_t goodput, uint64_t predicted_ns);
/* sends the event and appends it to @rounds */
void report_round(struct reporter *rep, const struct round_report *r,
		  json_t *rounds);
void report_summary(struct reporter *rep, const struct summary *s);

#endif /* MSPD_SESSION_REPORT_H */
