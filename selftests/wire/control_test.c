// SPDX-License-Identifier: GPL-2.0
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/byteorder.h"
#include "lib/clock.h"
#include "tap.h"
#include "wire/control.h"
#include "wire/sock.h"

static int pair[2];

static void pair_new(void)
{
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
}

static void pair_free(void)
{
	close(pair[0]);
	close(pair[1]);
}

/* @len bytes of body as a message of @type, received */
static int receive_raw(unsigned int type, const void *body, size_t len,
		       struct control_message *ret)
{
	unsigned char head[8];
	int err;

	pair_new();
	put_le32(head, len);
	put_le16(head + 4, type);
	put_le16(head + 6, 0);
	must(!sock_send(pair[0], head, sizeof(head), deadline_in(1000)));
	if (body)
		must(!sock_send(pair[0], body, len, deadline_in(1000)));
	else
		shutdown(pair[0], SHUT_WR);
	err = control_recv(pair[1], deadline_in(200), ret);
	pair_free();
	return err;
}

/* @m with field 999 = 1 behind it, as a later version would have */
static size_t pack_newer(const ProtobufCMessage *m, unsigned char *buf)
{
	static const unsigned char field[] = { 0xb8, 0x3e, 0x01 };
	size_t len = protobuf_c_message_pack(m, buf);

	memcpy(buf + len, field, sizeof(field));
	return len + sizeof(field);
}

static void test_messages(void)
{
	Mspd__Hello hello = MSPD__HELLO__INIT;
	struct control_message msg;
	unsigned char buf[1024];
	size_t len;

	hello.name = "redis";
	hello.uuid = "u";
	hello.stream_id = 7;
	hello.streams = 4;
	hello.abi = 1;
	hello.page_size = 4096;
	pair_new();
	must(!control_send(pair[0], CONTROL_HELLO, &hello.base,
			   deadline_in(1000)));
	ok(!control_recv(pair[1], deadline_in(1000), &msg) &&
	   msg.type == CONTROL_HELLO && !strcmp(msg.hello->name, "redis") &&
	   msg.hello->stream_id == 7, "a message comes back as it was");
	control_free(&msg);
	ok(control_recv(pair[1], deadline_in(50), &msg) == -ETIMEDOUT,
	   "silence ends at the deadline");
	close(pair[0]);
	ok(control_recv(pair[1], deadline_in(1000), &msg) == -ECONNRESET,
	   "a close is seen");
	close(pair[1]);

	len = pack_newer(&hello.base, buf);
	ok(!receive_raw(CONTROL_HELLO, buf, len, &msg),
	   "an unknown field in a control message is tolerated");
	control_free(&msg);
	ok(receive_raw(CONTROL_HELLO, "\xff\xff\xff", 3, &msg) == -EPROTO,
	   "garbage is not");
	ok(receive_raw(CONTROL_HELLO, "", 0, &msg) == -EPROTO,
	   "nor is a required field that is missing");
	ok(receive_raw(0, "", 0, &msg) == -EPROTO, "nor type 0");
	ok(receive_raw(CONTROL_TYPES, "", 0, &msg) == -EPROTO,
	   "nor a type that is not known");
	ok(receive_raw(CONTROL_HELLO, NULL, 0x7fffffff, &msg) == -EPROTO,
	   "nor a length that is out of bounds");
	ok(receive_raw(CONTROL_HELLO, NULL, 100, &msg) == -ECONNRESET,
	   "half a message is the end");
}

static void test_strict(void)
{
	Mspd__RoundMaps round = MSPD__ROUND_MAPS__INIT;
	Mspd__Maps maps = MSPD__MAPS__INIT;
	Mspd__Vma vma = MSPD__VMA__INIT, *list[] = { &vma };
	ProtobufCMessageUnknownField unknown = {
		.tag = 999, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT,
		.len = 1, .data = (uint8_t *)"\1",
	};
	struct control_message msg;
	unsigned char buf[256];
	size_t len;

	round.maps = &maps;
	maps.n_vmas = 1;
	maps.vmas = list;
	len = pack_newer(&round.base, buf);
	ok(!receive_raw(CONTROL_ROUND_MAPS, buf, len, &msg),
	   "the envelope of state may grow");
	control_free(&msg);
	vma.base.n_unknown_fields = 1;
	vma.base.unknown_fields = &unknown;
	len = protobuf_c_message_pack(&round.base, buf);
	ok(receive_raw(CONTROL_ROUND_MAPS, buf, len, &msg) == -EBADMSG,
	   "an unknown field deep in state is refused");
	ok(!control_all_known(&maps.base), "as it is seen before it is sent");
	vma.base.n_unknown_fields = 0;
	ok(control_all_known(&maps.base), "and without it is not");
}

static int preamble(uint32_t magic, uint16_t min, uint16_t max,
		    struct control_versions *ret)
{
	unsigned char buf[8];
	int err;

	pair_new();
	put_le32(buf, magic);
	put_le16(buf + 4, min);
	put_le16(buf + 6, max);
	must(!sock_send(pair[0], buf, sizeof(buf), deadline_in(1000)));
	err = control_preamble(pair[1], deadline_in(1000), ret);
	pair_free();
	return err;
}

static void test_preamble(void)
{
	const uint16_t max = CONTROL_PROTO_MAX;
	struct control_versions v;

	ok(preamble(CONTROL_MAGIC, CONTROL_PROTO_MIN, max, &v) == max,
	   "the same version");
	ok(preamble(CONTROL_MAGIC, CONTROL_PROTO_MIN, max + 5, &v) == max,
	   "a newer peer that speaks ours");
	ok(preamble(CONTROL_MAGIC, max + 1, max + 5, &v) == -EPROTONOSUPPORT &&
	   v.min == max + 1 && v.max == max + 5, "a newer one that does not");
	ok(preamble(CONTROL_MAGIC, 0, CONTROL_PROTO_MIN - 1, &v) ==
	   -EPROTONOSUPPORT, "an older one");
	ok(preamble(0x20544547, 1, 1, &v) == -EPROTO, "no mspd at all");
}

int main(void)
{
	test_messages();
	test_strict();
	test_preamble();
	return tap_end();
}
