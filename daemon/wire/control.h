/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The control connection: a preamble, then protobuf messages in frames
 *
 * Every wait has a deadline (absolute, lib/clock.h). -EPROTO: the peer does
 * not keep to the protocol, -ECONNRESET: it closed, -ETIMEDOUT: it is silent.
 */
#ifndef MSPD_WIRE_CONTROL_H
#define MSPD_WIRE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>
#include "wire/control.pb-c.h"

#define CONTROL_MAGIC		0x43495356	/* "VSIC" */
#define CONTROL_PROTO_MIN	1
#define CONTROL_PROTO_MAX	1
#define CONTROL_PREAMBLE_BYTES	8
#define CONTROL_HEADER_BYTES	8
#define CONTROL_MAX_BYTES	(32U << 20)

enum control_type {
	CONTROL_HELLO = 1,
	CONTROL_WELCOME,
	CONTROL_PING,
	CONTROL_PONG,
	CONTROL_VALIDATE,
	CONTROL_FINDINGS,
	CONTROL_PREPARE,
	CONTROL_PREPARED,
	CONTROL_ROUND_MAPS,
	CONTROL_MAPS_DONE,
	CONTROL_ROUND_END,
	CONTROL_ROUND_APPLIED,
	CONTROL_FINAL,
	CONTROL_READY,
	CONTROL_COMMIT,
	CONTROL_RESUMED,
	CONTROL_ABORT,
	CONTROL_FAILED,
	CONTROL_COMPLETED,
	CONTROL_QUERY,
	CONTROL_STATUS,
	CONTROL_TYPES,
};

/**
 * struct control_message - a message received
 * @type: CONTROL_*
 * @m: its content, of the type's descriptor
 */
struct control_message {
	enum control_type type;
	union {
		ProtobufCMessage *m;
		Mspd__Hello *hello;
		Mspd__Welcome *welcome;
		Mspd__Ping *ping;
		Mspd__Pong *pong;
		Mspd__Validate *validate;
		Mspd__Findings *findings;
		Mspd__Prepare *prepare;
		Mspd__Prepared *prepared;
		Mspd__RoundMaps *round_maps;
		Mspd__MapsDone *maps_done;
		Mspd__RoundEnd *round_end;
		Mspd__RoundApplied *round_applied;
		Mspd__Final *final;
		Mspd__Ready *ready;
		Mspd__Commit *commit;
		Mspd__Resumed *resumed;
		Mspd__Abort *abort;
		Mspd__Failed *failed;
		Mspd__Completed *completed;
		Mspd__Query *query;
		Mspd__Status *status;
	};
};

/**
 * struct control_versions - what a peer said in its preamble
 * @min: lowest protocol version
 * @max: highest protocol version
 */
struct control_versions {
	uint16_t min, max;
};

const char *control_name(enum control_type type);

/* 0 or more: the version to speak; -EPROTO: it does not speak this protocol
 * at all; -EPROTOTYPE: it speaks TLS; -EPROTONOSUPPORT: other versions,
 * @ret_peer is set */
int control_preamble(int fd, int64_t deadline,
		     struct control_versions *ret_peer);
/* half of it, for who does not listen */
int control_preamble_send(int fd, int64_t deadline);
int control_send(int fd, enum control_type type, const ProtobufCMessage *m,
		 int64_t deadline);
int control_recv(int fd, int64_t deadline, struct control_message *ret);
void control_free(struct control_message *msg);

/* false: a field somewhere in @m that this version does not know */
bool control_all_known(const ProtobufCMessage *m);

#endif /* MSPD_WIRE_CONTROL_H */
