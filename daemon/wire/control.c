// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include "lib/byteorder.h"
#include "lib/cleanup.h"
#include "wire/control.h"
#include "wire/sock.h"

/* first byte of whoever speaks TLS: the type of its record */
#define TLS_HANDSHAKE	0x16

/**
 * struct control_kind - what is known of a type of message
 * @name: for error texts
 * @desc: how it is encoded
 * @strict: it carries state, of which nothing unknown may be dropped
 */
struct control_kind {
	const char *name;
	const ProtobufCMessageDescriptor *desc;
	bool strict;
};

static const struct control_kind kinds[CONTROL_TYPES] = {
	[CONTROL_HELLO] = { "Hello", &mspd__hello__descriptor, false },
	[CONTROL_WELCOME] = { "Welcome", &mspd__welcome__descriptor, false },
	[CONTROL_PING] = { "Ping", &mspd__ping__descriptor, false },
	[CONTROL_PONG] = { "Pong", &mspd__pong__descriptor, false },
	[CONTROL_VALIDATE] = { "Validate", &mspd__validate__descriptor, true },
	[CONTROL_FINDINGS] = { "Findings", &mspd__findings__descriptor, false },
	[CONTROL_PREPARE] = { "Prepare", &mspd__prepare__descriptor, true },
	[CONTROL_PREPARED] = { "Prepared", &mspd__prepared__descriptor, false },
	[CONTROL_ROUND_MAPS] = {
		"RoundMaps", &mspd__round_maps__descriptor, true },
	[CONTROL_MAPS_DONE] = {
		"MapsDone", &mspd__maps_done__descriptor, false },
	[CONTROL_ROUND_END] = {
		"RoundEnd", &mspd__round_end__descriptor, false },
	[CONTROL_ROUND_APPLIED] = {
		"RoundApplied", &mspd__round_applied__descriptor, false },
	[CONTROL_FINAL] = { "Final", &mspd__final__descriptor, true },
	[CONTROL_READY] = { "Ready", &mspd__ready__descriptor, false },
	[CONTROL_COMMIT] = { "Commit", &mspd__commit__descriptor, false },
	[CONTROL_RESUMED] = { "Resumed", &mspd__resumed__descriptor, false },
	[CONTROL_ABORT] = { "Abort", &mspd__abort__descriptor, false },
	[CONTROL_FAILED] = { "Failed", &mspd__failed__descriptor, false },
	[CONTROL_COMPLETED] = {
		"Completed", &mspd__completed__descriptor, false },
	[CONTROL_QUERY] = { "Query", &mspd__query__descriptor, false },
	[CONTROL_STATUS] = { "Status", &mspd__status__descriptor, false },
};

const char *control_name(enum control_type type)
{
	if (type < CONTROL_TYPES && kinds[type].name)
		return kinds[type].name;
	return "unknown";
}

static bool field_known(const ProtobufCMessage *m,
			const ProtobufCFieldDescriptor *f)
{
	const char *base = (const char *)m;
	size_t n = 1;

	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return true;
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		n = *(const size_t *)(base + f->quantifier_offset);
	for (size_t i = 0; i < n; i++) {
		const ProtobufCMessage *const *p =
			(const void *)(base + f->offset);

		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			p = *(const ProtobufCMessage *const *const *)p + i;
		if (*p && !control_all_known(*p))
			return false;
	}
	return true;
}

bool control_all_known(const ProtobufCMessage *m)
{
	if (m->n_unknown_fields)
		return false;
	for (unsigned int i = 0; i < m->descriptor->n_fields; i++)
		if (!field_known(m, &m->descriptor->fields[i]))
			return false;
	return true;
}

/* the envelope of state may grow, what it carries may not */
static bool content_known(const ProtobufCMessage *m)
{
	for (unsigned int i = 0; i < m->descriptor->n_fields; i++)
		if (!field_known(m, &m->descriptor->fields[i]))
			return false;
	return true;
}

int control_preamble_send(int fd, int64_t deadline)
{
	unsigned char buf[CONTROL_PREAMBLE_BYTES];

	put_le32(buf, CONTROL_MAGIC);
	put_le16(buf + 4, CONTROL_PROTO_MIN);
	put_le16(buf + 6, CONTROL_PROTO_MAX);
	return sock_send(fd, buf, sizeof(buf), deadline);
}

int control_preamble(int fd, int64_t deadline,
		     struct control_versions *ret_peer)
{
	unsigned char buf[CONTROL_PREAMBLE_BYTES];
	struct control_versions peer;
	int ret, version;

	ret = control_preamble_send(fd, deadline);
	if (ret)
		return ret;
	ret = sock_recv(fd, buf, sizeof(buf), deadline);
	if (ret)
		return ret;
	if (get_le32(buf) != CONTROL_MAGIC)
		return buf[0] == TLS_HANDSHAKE ? -EPROTOTYPE : -EPROTO;
	peer.min = get_le16(buf + 4);
	peer.max = get_le16(buf + 6);
	*ret_peer = peer;
	version = peer.max < CONTROL_PROTO_MAX ? peer.max : CONTROL_PROTO_MAX;
	if (version < peer.min || version < CONTROL_PROTO_MIN)
		return -EPROTONOSUPPORT;
	return version;
}

int control_send(int fd, enum control_type type, const ProtobufCMessage *m,
		 int64_t deadline)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	_cleanup_free_ unsigned char *buf = NULL;

	if (len > CONTROL_MAX_BYTES)
		return -EMSGSIZE;
	buf = malloc(CONTROL_HEADER_BYTES + len);
	if (!buf)
		return -ENOMEM;
	put_le32(buf, len);
	put_le16(buf + 4, type);
	put_le16(buf + 6, 0);
	protobuf_c_message_pack(m, buf + CONTROL_HEADER_BYTES);
	return sock_send(fd, buf, CONTROL_HEADER_BYTES + len, deadline);
}

int control_recv(int fd, int64_t deadline, struct control_message *ret)
{
	unsigned char head[CONTROL_HEADER_BYTES];
	_cleanup_free_ unsigned char *buf = NULL;
	ProtobufCMessage *m;
	uint32_t len;
	uint16_t type;
	int err;

	err = sock_recv(fd, head, sizeof(head), deadline);
	if (err)
		return err;
	len = get_le32(head);
	type = get_le16(head + 4);
	if (len > CONTROL_MAX_BYTES || get_le16(head + 6) ||
	    type >= CONTROL_TYPES || !kinds[type].desc)
		return -EPROTO;
	buf = malloc(len ? len : 1);
	if (!buf)
		return -ENOMEM;
	err = sock_recv(fd, buf, len, deadline);
	if (err)
		return err;
	m = protobuf_c_message_unpack(kinds[type].desc, NULL, len, buf);
	if (!m)
		return -EPROTO;
	if (kinds[type].strict && !content_known(m)) {
		protobuf_c_message_free_unpacked(m, NULL);
		return -EBADMSG;
	}
	ret->type = type;
	ret->m = m;
	return 0;
}

void control_free(struct control_message *msg)
{
	if (msg->m)
		protobuf_c_message_free_unpacked(msg->m, NULL);
	msg->m = NULL;
}
