/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The source's side of one migration, in parts: source.c (its course),
 * rounds.c (what to send, and sending it), switch.c (the pause)
 */
#ifndef MSPD_SESSION_SOURCE_H
#define MSPD_SESSION_SOURCE_H

#include "engine/extents.h"
#include "engine/sender.h"
#include "guest/pageset.h"
#include "lib/pagemap.h"
#include "session/journal.h"
#include "session/peer.h"
#include "session/report.h"
#include "session/timens.h"

#define SOURCE_MAX_ROUNDS	1000

/**
 * struct harvest - what a harvest found, ready to be sent
 * @items: within the mappings, holes only where something was sent
 * @n: of @items
 * @max: room in @items
 * @again: pages that are in it whatever the tracker tells of them
 * @data_bytes: content that was written
 * @untracked_bytes: content of which nobody knows whether it was
 */
struct harvest {
	struct send_item *items;
	size_t n, max;
	struct pageset again;
	uint64_t data_bytes;
	uint64_t untracked_bytes;
};

/**
 * struct source - everything
 * @m: what the operator wants
 * @access: how the guest is reached
 * @how: which that is and why
 * @rep: line to the supervisor
 * @failure: why it went wrong
 * @peer: the target
 * @pidfd: the guest
 * @guest: attached, NULL = not yet
 * @capture: state of the guest
 * @capture_open: @capture is valid
 * @findings: of this side
 * @early: image captured while it runs
 * @known: what the target has
 * @extents: mappings of the last round
 * @maps: those the target knows, NULL = none yet
 * @maps_sent: the same as encoded without a round
 * @maps_sent_len: bytes of it
 * @harvest: of the current round, given back if it does not arrive
 * @harvested_ns: when it was made
 * @encodings: what the target takes of those that may be used, a bit each
 * @sender: data connections
 * @round: last round begun
 * @history: for the policy
 * @rounds: how many in @history
 * @last: report of the last round
 * @summary: for the result
 * @est: for the policy
 * @suspended: the guest is stopped
 * @committed: the target was told to take over: no way back but its word
 * @unapplied: rounds whose acknowledgement was not awaited (fault point)
 * @catch_ups: how often the switch-over went back to rounds
 * @pause_end: when it is rolled back at the latest, 0 = not suspended, or sealed
 * @journal: what this side has promised
 * @final: the target may have a guest that is complete
 * @pause_mark: end of the part of the pause that was measured last
 */
struct source {
	const struct migration *m;
	const struct guest_access *access;
	char how[600];
	struct reporter *rep;
	struct failure failure;
	struct peer peer;
	int pidfd;
	struct guest *guest;
	struct capture capture;
	bool capture_open;
	struct findings findings;
	Mspd__Image *early;
	struct pagemap *known;
	struct extents extents;
	Mspd__Maps *maps;
	unsigned char *maps_sent;
	size_t maps_sent_len;
	struct harvest harvest;
	int64_t harvested_ns;
	unsigned int encodings;
	struct sender *sender;
	uint32_t round;
	struct policy_round history[SOURCE_MAX_ROUNDS];
	size_t rounds;
	struct round_report last;
	struct summary summary;
	struct policy_estimate est;
	bool suspended;
	bool committed;
	unsigned int unapplied;
	unsigned int catch_ups;
	int64_t pause_end;
	struct journal journal;
	bool final;
	int64_t pause_mark;
};

/* less while the guest is suspended: it does not wait for ever */
unsigned int source_reply_ms(const struct source *s);
/* gives the reason for a failed call of guest access */
int source_guest_fail(struct source *s, int err, const char *what);
int source_expect(struct source *s, enum control_type type,
		  struct control_message *ret);

/* a message that nobody waits for; takes it */
int source_stray(struct source *s, struct control_message *msg);
/* asks the target whether it is there, and for its clocks; @ret may be NULL */
int source_ping(struct source *s, struct clock_sample *ret);

/* rounds.c */
int rounds_harvest(struct source *s, struct round_report *r);
/* gives back what was harvested and has not arrived */
int rounds_mark(struct source *s);
/* mappings, if they changed, and all frames are on their way */
int rounds_begin(struct source *s, struct round_report *r);
/* waits until all frames are sent and says so to the target */
int rounds_sent(struct source *s, struct round_report *r);
/* the barrier: the target has all of it in the guest */
int rounds_applied(struct source *s, struct round_report *r);
/* tells the supervisor of the last round; not while the guest waits */
void rounds_report(struct source *s);
/* until the policy says switch; @catch_up: not before another round */
int rounds_run(struct source *s, bool catch_up);

/* switch.c */
int switch_over(struct source *s);

#endif /* MSPD_SESSION_SOURCE_H */
