/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One migration, one side of it, in a worker process of its own
 */
#ifndef MSPD_SESSION_SESSION_H
#define MSPD_SESSION_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>
#include "guest/choose.h"
#include "lib/compress.h"
#include "state/state.h"
#include "wire/keys.h"

/**
 * struct migration - what is to be done, as the operator said it
 * @name: guest
 * @uuid: guest, 36 characters
 * @pid: guest, in mspd's PID namespace
 * @stream_id: new for each migration
 * @host: target
 * @port: target
 * @streams: data connections, 1 to 64
 * @max_rounds: give up converging after so many
 * @pause_limit_ms: switch over when the predicted pause is below
 * @suspend_ms: deadline of a suspend
 * @pause_max_ms: roll back when the guest has stood still for so long, 0 = 20 s,
 *	ten times @pause_limit_ms or twice the prediction, the longest of them
 * @child_wait_ms: how long to wait for a guest without child processes
 * @reply_ms: how long the target may take to answer, 0 = default (10 s in the
 *	handshake, then 30 s)
 * @connections: established connections
 * @access: how the guest is to be reached, on both hosts
 * @tracker: how its writes are to be tracked
 * @compression: of its pages on the wire
 * @validate_only: stop after validation
 * @journal_dir: where it is on record what was promised
 * @keys: own key and whom to trust, NULL = without TLS
 */
struct migration {
	char name[64];
	char uuid[37];
	pid_t pid;
	uint64_t stream_id;
	char host[256];
	uint16_t port;
	unsigned int streams;
	unsigned int max_rounds;
	unsigned int pause_limit_ms;
	unsigned int suspend_ms;
	unsigned int pause_max_ms;
	unsigned int child_wait_ms;
	unsigned int reply_ms;
	enum connections connections;
	enum access_wish access;
	enum tracker_wish tracker;
	enum compression compression;
	bool validate_only;
	char journal_dir[256];
	const struct keys_place *keys;
};

/**
 * struct reporter - the worker's line to its supervisor
 * @event: takes one JSON object (stolen reference); never blocks for long
 * @admit: target: the other side has shown that it may be here (with TLS as
 *	@host, its name here) and wants a migration; 0, -EBUSY: too many,
 *	-ESHUTDOWN: no more
 * @reserve: target: asks for name and UUID, 0, -EEXIST when taken
 * @arriving: target: the guest can run here soon, and is on record from now on;
 *	a failure ends the migration before that
 * @forget: target: it will not run here, the record goes
 * @adopted: target: the guest runs here now; source: it is gone from here
 * @cancelled: the operator (or the end of the supervisor) wants a roll-back;
 *	asked between steps until the guest is sealed. The worker's SIGTERM sets
 *	it and interrupts a wait (EINTR).
 * @arg: for the functions
 *
 * Events (member "event"): "validate" {findings: [{level, check, object, text,
 * side}]}, "phase" {phase}, "progress" {round, percent, remaining_bytes,
 * dirty_pages_per_s, goodput_Bps, predicted_pause_ms}, "round" {round, pages,
 * zero, holes, equal, plain_bytes, bytes, encoding: {none, lz4, zstd}, ns,
 * dirty_pages_per_s, goodput_Bps, predicted_pause_ms, decision, why}, "result"
 * {ok, error, rounds: [...], plain_bytes, bytes_sent, encoding, guest_bytes,
 * goodput_Bps, pause_ms: {total, suspend, harvest, pages, state, restore,
 * digest, journal, resume}, predicted_pause_ms, tls, streams, stream_id}. That
 * of a target that was asked by a Query has "asked": committed, refused or
 * unknown.
 *
 * bytes and bytes_sent are on the wire, plain_bytes is the content of the pages
 * sent, as it is in the guest, and goodput_Bps is of that; a round that goes on
 * tells what the policy reckons with. encoding has the pages sent in each of
 * them. predicted_pause_ms is null until something was sent to predict it from.
 */
struct reporter {
	void (*event)(struct reporter *r, json_t *obj);
	int (*admit)(struct reporter *r, const char *host);
	int (*reserve)(struct reporter *r, const char *name, const char *uuid);
	int (*arriving)(struct reporter *r, const char *name, const char *uuid,
			pid_t pid);
	void (*forget)(struct reporter *r, const char *name);
	int (*adopted)(struct reporter *r, const char *name, const char *uuid,
		       pid_t pid);
	bool (*cancelled)(struct reporter *r);
	void *arg;
};

/**
 * struct target_config - what a target allows
 * @access: how guests are reached; NULL: as the source wishes
 * @wish: how they are when it has no wish
 * @listen_host: where data connections are taken
 * @port_low: range of ports for them, 0 = any
 * @port_high: range of ports for them
 * @handshake_ms: a peer that says nothing for so long is dropped
 * @idle_ms: likewise later on
 * @max_streams: most data connections of one migration
 * @cgroup_root: guests get a cgroup below, NULL = none
 * @journal_dir: where it is on record what was promised
 * @peer: the source's address, for that record
 * @keys: own key and whom to trust, NULL = without TLS
 */
struct target_config {
	const struct guest_access *access;
	enum access_wish wish;
	char listen_host[256];
	uint16_t port_low, port_high;
	unsigned int handshake_ms;
	unsigned int idle_ms;
	unsigned int max_streams;
	char cgroup_root[256];
	char journal_dir[256];
	char peer[300];
	const struct keys_place *keys;
};

/*
 * The whole life of a migration; 0, or -errno with a "result" event sent.
 * -EINPROGRESS: in doubt, the target was told to take over and did not answer;
 * the guest stays sealed here. @access: NULL, as @m wishes.
 */
int source_run(const struct migration *m, const struct guest_access *access,
	       struct reporter *rep);
/* Takes over the accepted control connection @fd (closes it). */
int target_run(int fd, const struct target_config *cfg, struct reporter *rep);

#endif /* MSPD_SESSION_SESSION_H */
