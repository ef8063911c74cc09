// SPDX-License-Identifier: GPL-2.0
/*
 * Peers that do not keep to the protocol: neither side may lose its guest, hang
 * or write where it was not told to
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/byteorder.h"
#include "lib/clock.h"
#include "lib/compress.h"
#include "lib/digest.h"
#include "session/drive.h"
#include "session/journal.h"
#include "session/peer.h"
#include "session/world.h"
#include "tap.h"
#include "wire/control.h"
#include "wire/frame.h"
#include "wire/sock.h"

#define STREAM_ID	77

static int64_t soon(void)
{
	/* longer than whatever the target waits for */
	return deadline_in(15000);
}

/* -- targets that a source meets */

static void peer_garbage(int fd)
{
	char junk[4096];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = rand();
	sock_send(fd, junk, sizeof(junk), soon());
	sleep_ms(200);
}

static void peer_web(int fd)
{
	static const char text[] = "HTTP/1.1 400 Bad Request\r\n\r\n";

	sock_send(fd, text, sizeof(text) - 1, soon());
}

static void peer_close(int fd)
{
	close(fd);
}

static void peer_silent(int fd)
{
	char c;

	sock_recv(fd, &c, 1, soon());
	while (sock_recv(fd, &c, 1, soon()) != -ECONNRESET)
		;
}

static void preamble(int fd, unsigned int min, unsigned int max)
{
	unsigned char buf[8];

	put_le32(buf, CONTROL_MAGIC);
	put_le16(buf + 4, min);
	put_le16(buf + 6, max);
	sock_send(fd, buf, sizeof(buf), soon());
	sock_recv(fd, buf, sizeof(buf), soon());
}

static void peer_newer(int fd)
{
	preamble(fd, 7, 9);
	sleep_ms(200);
}

/* a good preamble, then garbage where the first message is due */
static void peer_half(int fd)
{
	preamble(fd, 1, 1);
	peer_garbage(fd);
}

static void peer_order(int fd)
{
	Mspd__RoundApplied m = MSPD__ROUND_APPLIED__INIT;

	preamble(fd, 1, 1);
	m.round = 3;
	control_send(fd, CONTROL_ROUND_APPLIED, &m.base, soon());
	peer_silent(fd);
}

/* it grants more than it was asked for */
static void peer_generous(int fd)
{
	Mspd__Welcome m = MSPD__WELCOME__INIT;
	struct control_message msg;

	preamble(fd, 1, 1);
	must(!control_recv(fd, soon(), &msg));
	control_free(&msg);
	m.streams = 1;
	m.abi = VASI_ABI_VERSION;
	m.has_encodings = 1;
	m.encodings = ENCODING_BITS | ENCODING_BIT(7);
	control_send(fd, CONTROL_WELCOME, &m.base, soon());
	peer_silent(fd);
}

static void test_bad_targets(void)
{
	static const struct {
		const char *what, *text;
		void (*peer)(int fd);
	} peers[] = {
		{ "speaks garbage", "is not mspd", peer_garbage },
		{ "is a web server", "is not mspd", peer_web },
		{ "closes at once", "closed the connection", peer_close },
		{ "says nothing", "does not answer in time", peer_silent },
		{ "is of a later version",
		  "speaks protocol 7 to 9, this mspd 1 to 1", peer_newer },
		{ "goes over to garbage", "no message of it", peer_half },
		{ "sends what nobody asked for", "where it does not belong",
		  peer_order },
		{ "grants what nobody asked for", "that nobody asked for",
		  peer_generous },
	};

	for (size_t i = 0; i < sizeof(peers) / sizeof(*peers); i++) {
		int ret;

		world_new();
		ret = drive(&(struct drive){ .peer = peers[i].peer,
					     .reply_ms = 500 });
		ok(rolled_back(ret, peers[i].text) && !world->suspends,
		   "a target that %s", peers[i].what);
	}
}

/* -- sources that a target meets */

static int target_pid;
static int control;
static uint8_t token[TOKEN_BYTES];
static uint16_t data_port;
static unsigned int offered;	/* encodings, 0: as an old source does */

/* one more, that finds what others have promised */
static void target_again(void)
{
	uint16_t port;

	world_new();
	target_pid = target_worker(&port, NULL, NULL);
	control = sock_connect("127.0.0.1", port, soon());
	must(control >= 0);
}

static void target_new(void)
{
	drive_journals();
	target_again();
}

/* it ended by itself, says @text, and nothing of a guest is left */
static bool target_gave_up(const char *text)
{
	int status;
	bool good;

	close(control);
	status = target_wait(target_pid);
	good = WIFEXITED(status) && !WEXITSTATUS(status) &&
	       strstr(world->target_error, text) && !world->running &&
	       world->opens == 0 &&
	       (!world->prepared || world->aborted);
	if (!good)
		note("status %d, \"%s\", opens %d, prepared %d, aborted %d",
		     status, world->target_error, world->opens,
		     world->prepared, world->aborted);
	return good;
}

/* what the target says last */
static bool told(const char *text)
{
	struct control_message msg;
	bool good = false;

	while (!good && !control_recv(control, soon(), &msg)) {
		if (msg.type == CONTROL_FAILED)
			good = strstr(msg.failed->text, text);
		if (msg.type == CONTROL_FAILED && !good)
			note("told \"%s\"", msg.failed->text);
		control_free(&msg);
	}
	return good;
}

static void hello(const char *name, uint32_t abi)
{
	Mspd__Hello m = MSPD__HELLO__INIT;
	struct control_versions v;

	must(control_preamble(control, soon(), &v) == 1);
	m.name = (char *)name;
	m.uuid = "01234567-89ab-cdef-0123-456789abcdef";
	m.stream_id = STREAM_ID;
	m.streams = 1;
	m.abi = abi;
	m.page_size = 4096;
	m.has_encodings = offered;
	m.encodings = offered;
	must(!control_send(control, CONTROL_HELLO, &m.base, soon()));
}

static void expect(enum control_type type)
{
	struct control_message msg = { 0 };
	int ret = control_recv(control, soon(), &msg);

	if (ret || msg.type != type)
		note("%d, %s: %s", ret, control_name(msg.type),
		     msg.type == CONTROL_FAILED ? msg.failed->text : "");
	must(!ret && msg.type == type);
	if (type == CONTROL_PREPARED) {
		memcpy(token, msg.prepared->token.data, TOKEN_BYTES);
		data_port = msg.prepared->data_port;
	}
	control_free(&msg);
}

static int data_connect(const uint8_t *with)
{
	struct stream_hello h = { .stream_id = STREAM_ID };
	unsigned char buf[HELLO_BYTES];
	int fd = sock_connect("127.0.0.1", data_port, soon());

	must(fd >= 0);
	memcpy(h.token, with, TOKEN_BYTES);
	stream_hello_encode(buf, &h);
	must(!sock_send(fd, buf, sizeof(buf), soon()));
	return fd;
}

static void ask_prepare(void)
{
	Mspd__Prepare m = MSPD__PREPARE__INIT;
	Mspd__Image img = MSPD__IMAGE__INIT;

	hello("redis", VASI_ABI_VERSION);
	expect(CONTROL_WELCOME);
	img.version = 1;
	m.image = &img;
	must(!control_send(control, CONTROL_PREPARE, &m.base, soon()));
}

static void prepare(void)
{
	target_new();
	ask_prepare();
	expect(CONTROL_PREPARED);
}

static void announce(uint32_t round)
{
	Mspd__RoundMaps m = MSPD__ROUND_MAPS__INIT;
	Mspd__Maps maps = MSPD__MAPS__INIT;
	Mspd__Vma vma = MSPD__VMA__INIT, *list[] = { &vma };

	vma.start = WORLD_BASE;
	vma.end = WORLD_BASE + 16 * WORLD_PAGE;
	maps.n_vmas = 1;
	maps.vmas = list;
	maps.round = round;
	m.round = round;
	m.maps = &maps;
	must(!control_send(control, CONTROL_ROUND_MAPS, &m.base, soon()));
}

/* a frame with one range, right but for what the caller makes wrong */
static void frame(int fd, struct frame_header h, struct vasi_range r)
{
	unsigned char buf[FRAME_HEADER_BYTES + FRAME_RANGE_BYTES + 4096];
	const size_t head = FRAME_HEADER_BYTES + FRAME_RANGE_BYTES;
	uint64_t d;

	memset(buf, 0x77, sizeof(buf));
	if (!h.stream_id)
		h.stream_id = STREAM_ID;
	h.type = FRAME_PAGES;
	h.nr_ranges = 1;
	h.payload = 4096;
	d = digest_page(r.space, r.start, buf + head);
	frame_encode_range(buf + FRAME_HEADER_BYTES, &r);
	frame_encode(buf, &h);
	h.digest ^= frame_digest(buf, head, &d, 1);
	frame_encode(buf, &h);
	sock_send(fd, buf, sizeof(buf), soon());
}

static void test_bad_handshakes(void)
{
	Mspd__Ping ping = MSPD__PING__INIT;
	Mspd__Commit commit = MSPD__COMMIT__INIT;

	target_new();
	peer_garbage(control);
	ok(target_gave_up("is not mspd"), "a source that speaks garbage");
	target_new();
	ok(target_gave_up("did not introduce itself"),
	   "one that closes at once");
	target_new();
	must(sock_recv(control, &(char[8]){ 0 }, 8, soon()) == 0);
	ok(sock_recv(control, &(char){ 0 }, 1, soon()) != -ETIMEDOUT &&
	   target_gave_up("did not introduce itself"),
	   "one that says nothing is dropped");
	target_new();
	preamble(control, 2, 3);
	ok(target_gave_up("protocol 2 to 3"), "one of another version");
	target_new();
	hello("../etc", VASI_ABI_VERSION);
	ok(told("malformed name") && target_gave_up("malformed"),
	   "a name that is a path");
	target_new();
	hello("redis", VASI_ABI_VERSION + 1);
	ok(told("ABI version") && target_gave_up("ABI version"),
	   "a module of another ABI");
	target_new();
	world->plan.no_module = true;
	hello("redis", VASI_ABI_VERSION);
	ok(told("cannot be reached here") && target_gave_up("No such file"),
	   "a target that cannot reach guests");
	target_new();
	must(control_preamble(control, soon(),
			      &(struct control_versions){ 0 }) == 1);
	must(!control_send(control, CONTROL_PING, &ping.base, soon()));
	ok(told("Ping where Hello was due") && target_gave_up("Ping"),
	   "another message than Hello");
	target_new();
	hello("redis", VASI_ABI_VERSION);
	expect(CONTROL_WELCOME);
	commit.stream_id = STREAM_ID;
	must(!control_send(control, CONTROL_COMMIT, &commit.base, soon()));
	ok(told("does not belong here") && target_gave_up("Commit"),
	   "Commit before there is anything");
}

static void test_bad_streams(void)
{
	uint8_t wrong[TOKEN_BYTES] = { 1 };
	int a, b;

	prepare();
	a = data_connect(wrong);
	ok(sock_recv(a, &(char){ 0 }, 1, soon()) == -ECONNRESET,
	   "a wrong token is not let in");
	b = data_connect(token);
	announce(1);
	expect(CONTROL_MAPS_DONE);
	ok(true, "and does not keep the right one out");
	close(a);
	close(b);
	ok(target_gave_up("closed"), "a data connection that closes");

	prepare();
	announce(1);
	ok(told("RoundMaps where Abort was due") && target_gave_up("RoundMaps"),
	   "going on without the data connections");
}

static void test_bad_frames(void)
{
	static const struct {
		const char *what, *text;
		struct frame_header h;
		struct vasi_range r;
	} bad[] = {
		{ "outside the mappings", "outside the mappings",
		  { .round = 1 },
		  { .start = WORLD_BASE + 16 * WORLD_PAGE, .pages = 1 } },
		{ "in an object that is not there", "outside the mappings",
		  { .round = 1 }, { .space = 1, .pages = 1 } },
		{ "with more pages than content", "do not match",
		  { .round = 1 }, { .start = WORLD_BASE, .pages = 2 } },
		{ "with more pages than fit", "more pages than fit",
		  { .round = 1 }, { .start = WORLD_BASE, .pages = 300 } },
		{ "at no page", "a malformed range", { .round = 1 },
		  { .start = WORLD_BASE + 1, .pages = 1 } },
		{ "of the next round", "a frame of round 2", { .round = 2 },
		  { .start = WORLD_BASE, .pages = 1 } },
		{ "that is not the next", "frame 5 where 0", { .round = 1,
		  .seq = 5 }, { .start = WORLD_BASE, .pages = 1 } },
		{ "of another stream", "another stream", { .round = 1,
		  .stream = 1 }, { .start = WORLD_BASE, .pages = 1 } },
		{ "of another migration", "another stream", { .round = 1,
		  .stream_id = 1 }, { .start = WORLD_BASE, .pages = 1 } },
		{ "with a wrong digest", "is corrupt", { .round = 1,
		  .digest = 1 }, { .start = WORLD_BASE, .pages = 1 } },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		int fd;

		prepare();
		fd = data_connect(token);
		announce(1);
		expect(CONTROL_MAPS_DONE);
		frame(fd, bad[i].h, bad[i].r);
		/* the digest is of what was written, the rest comes before */
		ok(told(bad[i].text) && target_gave_up(bad[i].text) &&
		   !world->frames_outside &&
		   world->target[0] == (bad[i].h.digest ? 0x77 : 0),
		   "a frame %s", bad[i].what);
		close(fd);
	}
}

/* the end of round 1 on its connection, behind one frame */
static void end_frame(int fd)
{
	struct frame_header end = {
		.type = FRAME_ROUND_END, .round = 1, .seq = 1,
		.stream_id = STREAM_ID,
	};
	unsigned char buf[FRAME_HEADER_BYTES];

	frame_encode(buf, &end);
	end.digest = frame_digest(buf, sizeof(buf), NULL, 0);
	frame_encode(buf, &end);
	must(!sock_send(fd, buf, sizeof(buf), soon()));
}

static void test_good_frame(void)
{
	Mspd__StreamTotal total = MSPD__STREAM_TOTAL__INIT, *list[] = { &total };
	Mspd__RoundEnd m = MSPD__ROUND_END__INIT;
	int fd;

	for (int wrong = 0; wrong < 2; wrong++) {
		prepare();
		fd = data_connect(token);
		announce(1);
		expect(CONTROL_MAPS_DONE);
		frame(fd, (struct frame_header){ .round = 1 },
		      (struct vasi_range){ .start = WORLD_BASE, .pages = 1 });
		end_frame(fd);
		m.round = 1;
		m.n_streams = 1;
		m.streams = list;
		total.frames = 1;
		total.pages = 1 + wrong;
		must(!control_send(control, CONTROL_ROUND_END, &m.base,
				   soon()));
		if (wrong) {
			ok(told("totals of the streams") &&
			   target_gave_up("totals"),
			   "totals that do not match");
		} else {
			expect(CONTROL_ROUND_APPLIED);
			ok(world->target[0] == 0x77, "a frame that is right");
			ok(target_gave_up("closed the connection"),
			   "then the source dies");
		}
		close(fd);
	}
}

/* a page of 0x77, as @coded says if it is encoded at all */
static void encoded_frame(int fd, enum encoding e, const void *coded, size_t n)
{
	struct frame_header h = {
		.type = FRAME_PAGES, .round = 1, .stream_id = STREAM_ID,
		.nr_ranges = 1, .payload = WORLD_PAGE, .encoding = e,
		.stored = n,
	};
	const struct vasi_range r = { .start = WORLD_BASE, .pages = 1 };
	unsigned char head[FRAME_HEADER_BYTES + FRAME_RANGE_BYTES];
	unsigned char page[WORLD_PAGE];
	uint64_t d;

	memset(page, 0x77, sizeof(page));
	d = digest_page(0, WORLD_BASE, page);
	frame_encode_range(head + FRAME_HEADER_BYTES, &r);
	frame_encode(head, &h);
	h.digest = frame_digest(head, sizeof(head), &d, 1);
	frame_encode(head, &h);
	sock_send(fd, head, sizeof(head), soon());
	sock_send(fd, coded, n, soon());
}

/* @n pages of @byte */
static size_t encode(enum encoding e, unsigned char byte, size_t n,
		     void *coded, size_t room)
{
	struct compressor *c = compressor_new(ENCODING_BITS);
	unsigned char page[2 * WORLD_PAGE];
	ssize_t len;

	must(c);
	memset(page, byte, n);
	len = compressor_encode(c, e, page, n, coded, room);
	must(len > 0);
	compressor_free(c);
	return len;
}

static void test_encoded_frames(void)
{
	static const struct {
		const char *what, *text;
		unsigned int offered;
		enum encoding e;
		unsigned char byte;
		size_t bytes;
	} bad[] = {
		{ "from a source that offered none", "not agreed on", 0,
		  ENCODING_LZ4, 0x77, WORLD_PAGE },
		{ "from one that offered another", "in zstd, which was not",
		  ENCODING_BIT(ENCODING_LZ4), ENCODING_ZSTD, 0x77, WORLD_PAGE },
		{ "in zstd that is too short", "is corrupt (zstd)",
		  ENCODING_BITS, ENCODING_ZSTD, 0x77, WORLD_PAGE - 1 },
		{ "in LZ4 that is too short", "is corrupt (lz4)",
		  ENCODING_BITS, ENCODING_LZ4, 0x77, WORLD_PAGE - 1 },
		{ "in zstd that is too long", "is corrupt (zstd)",
		  ENCODING_BITS, ENCODING_ZSTD, 0x77, WORLD_PAGE + 1 },
		{ "in LZ4 that is too long", "is corrupt (lz4)",
		  ENCODING_BITS, ENCODING_LZ4, 0x77, WORLD_PAGE + 1 },
		{ "of something else", "is corrupt (digest)", ENCODING_BITS,
		  ENCODING_LZ4, 0x78, WORLD_PAGE },
	};
	unsigned char coded[WORLD_PAGE];
	char c;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		size_t n = encode(bad[i].e, bad[i].byte, bad[i].bytes, coded,
				  sizeof(coded));
		int fd;

		offered = bad[i].offered;
		prepare();
		fd = data_connect(token);
		announce(1);
		expect(CONTROL_MAPS_DONE);
		encoded_frame(fd, bad[i].e, coded, n);
		ok(told(bad[i].text) && target_gave_up(bad[i].text) &&
		   world->target[0] == (bad[i].byte == 0x77 ? 0 : 0x78),
		   "an encoded frame %s", bad[i].what);
		close(fd);
	}
	for (enum encoding e = ENCODING_LZ4; e < ENCODINGS; e++) {
		size_t n = encode(e, 0x77, WORLD_PAGE, coded, sizeof(coded));
		int fd;

		offered = ENCODING_BITS | 1U << 31;
		prepare();
		fd = data_connect(token);
		announce(1);
		expect(CONTROL_MAPS_DONE);
		encoded_frame(fd, e, coded, n);
		end_frame(fd);
		while (world->target[0] != 0x77 &&
		       sock_recv(control, &c, 1, deadline_in(20)) == -ETIMEDOUT)
			;
		ok(world->target[0] == 0x77, "one in %s that is right",
		   encoding_names[e]);
		ok(target_gave_up("closed"), "then the source dies");
		close(fd);
	}
	offered = 0;
}

static void query(uint64_t stream_id)
{
	Mspd__Query m = MSPD__QUERY__INIT;
	struct control_versions v;

	must(control_preamble(control, soon(), &v) == 1);
	m.stream_id = stream_id;
	must(!control_send(control, CONTROL_QUERY, &m.base, soon()));
}

/* the verdict; 0: none */
static unsigned int status(void)
{
	struct control_message msg = { 0 };
	unsigned int verdict = 0;

	if (!control_recv(control, soon(), &msg) &&
	    msg.type == CONTROL_STATUS && msg.status->stream_id == STREAM_ID)
		verdict = msg.status->verdict;
	control_free(&msg);
	close(control);
	target_wait(target_pid);
	return verdict;
}

static void test_query(void)
{
	target_new();
	query(STREAM_ID);
	ok(status() == 2, "what a target never heard of it refuses");
	target_again();
	query(STREAM_ID);
	ok(status() == 2, "and so again");
	target_again();
	ask_prepare();
	ok(told("this migration is over") && target_gave_up("is over") &&
	   !world->prepared, "and does not take it any more");
	target_again();
	query(STREAM_ID);
	ok(status() == 2, "whatever was tried");
	ok(drive_journals() == 1 << (JOURNAL_REFUSED + 8),
	   "as it has on record");
	target_new();
	query(0);
	ok(told("no stream ID") && target_gave_up("no stream ID"),
	   "a question about no stream");
	ok(!drive_journals(), "leaves nothing");
}

static void test_late_frame(void)
{
	int fd;

	prepare();
	fd = data_connect(token);
	announce(1);
	expect(CONTROL_MAPS_DONE);
	frame(fd, (struct frame_header){ .round = 1 },
	      (struct vasi_range){ .start = WORLD_BASE, .pages = 1 });
	end_frame(fd);
	frame(fd, (struct frame_header){ .round = 1, .seq = 2 },
	      (struct vasi_range){ .start = WORLD_BASE + WORLD_PAGE,
				   .pages = 1 });
	ok(told("behind the end of it") && target_gave_up("behind the end") &&
	   world->target[0] == 0x77 && world->target[WORLD_PAGE] == 0,
	   "a frame behind the end of its round");
	close(fd);
}

/* good messages without an end where the last one is due */
static void test_flood(void)
{
	Mspd__Pong pong = MSPD__PONG__INIT;
	struct failure failure = { 0 };
	struct peer p = { .failure = &failure };
	int fd[2], status;
	pid_t pid;

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		alarm(60);
		close(fd[0]);
		while (!control_send(fd[1], CONTROL_PONG, &pong.base,
				     deadline_in(60000)))
			;
		_exit(0);
	}
	close(fd[1]);
	p.fd = fd[0];
	peer_last_words(&p);
	close(fd[0]);
	must(waitpid(pid, &status, 0) == pid);
	ok(WIFEXITED(status), "a flood of messages does not keep us");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_bad_targets();
	test_bad_handshakes();
	test_bad_streams();
	test_bad_frames();
	test_good_frame();
	test_encoded_frames();
	test_late_frame();
	test_query();
	test_flood();
	drive_end();
	world_free();
	return tap_end();
}
