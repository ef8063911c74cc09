/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The target's side of one migration, in parts: target.c (its course),
 * streams.c (its data connections), target_rounds.c (mappings, rounds),
 * target_switch.c (the pause)
 */
#ifndef MSPD_SESSION_TARGET_H
#define MSPD_SESSION_TARGET_H

#include "engine/receiver.h"
#include "lib/pagemap.h"
#include "session/journal.h"
#include "session/peer.h"

enum target_state {
	TARGET_HELLO,		/* it has said who it is */
	TARGET_COPY,		/* a shell is there, rounds come */
	TARGET_READY,		/* complete, parked and sealed */
	TARGET_RESUMED,
	TARGET_ASKED,		/* it was no migration, but a Query */
};

/**
 * struct target - everything
 * @cfg: what this host allows
 * @rep: line to the supervisor
 * @access: how the guest is reached
 * @how: which that is and why
 * @failure: why it went wrong
 * @findings: what was found about the guest
 * @peer: the source
 * @oom_kills: what the kernel had ended for memory when this began
 * @state: how far it is
 * @name: guest
 * @uuid: guest
 * @cgroup: the guest's, or empty
 * @stream_id: the migration
 * @streams: data connections
 * @encodings: of frames that may come, a bit each
 * @opt: for restore_*()
 * @restore: the guest that is being built
 * @maps: its mappings as of the last round, NULL = none yet
 * @known: what it has
 * @receiver: data connections, until Final
 * @journal: what this side has promised
 * @verdict: what a Query was answered
 * @recorded: the supervisor's registry has it
 * @applied: last round that is in the guest
 * @bytes_seen: over data connections: for supervision, at last their sum
 */
struct target {
	const struct target_config *cfg;
	struct reporter *rep;
	const struct guest_access *access;
	char how[400];
	struct failure failure;
	struct findings findings;
	struct peer peer;
	uint64_t oom_kills;
	enum target_state state;
	char name[64];
	char uuid[37];
	char cgroup[400];
	uint64_t stream_id;
	unsigned int streams;
	unsigned int encodings;
	struct restore_options opt;
	struct restore *restore;
	Mspd__Maps *maps;
	struct pagemap *known;
	struct receiver *receiver;
	struct journal journal;
	int verdict;
	bool recorded;
	uint32_t applied;
	uint64_t bytes_seen;
};

unsigned int target_handshake_ms(const struct target *t);
unsigned int target_idle_ms(const struct target *t);
int target_send(struct target *t, enum control_type type,
		const ProtobufCMessage *m);
/* @what failed with @err; what restore_*() found says more */
int target_fail(struct target *t, int err, const char *what);
int target_receiver_fail(struct target *t, int err);

/* streams.c */
/* waits until @fd[] has all data connections; what it has is the caller's */
int target_accept(struct target *t, int listener, const uint8_t *token,
		  int *fd);

/* target_rounds.c */
/* waits for all data connections, then starts their threads */
int target_streams(struct target *t, int listener, const uint8_t *token);
/* takes the list of mappings out of @m */
int target_round_maps(struct target *t, Mspd__RoundMaps *m);
int target_round_end(struct target *t, const Mspd__RoundEnd *m);

/* target_switch.c */
int target_final(struct target *t, const Mspd__Final *m);
int target_commit(struct target *t, const Mspd__Commit *m);
/*
 * Behind Ready the source may be told that there is no guest here only when
 * this is true for ever. false: that cannot be made durable; the copy stays,
 * the source hears nothing, and asks later.
 */
bool target_refuse(struct target *t);
/* waits for the source's word that it will not ask: the journal may go */
void target_completed(struct target *t);

#endif /* MSPD_SESSION_TARGET_H */
