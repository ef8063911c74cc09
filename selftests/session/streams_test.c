// SPDX-License-Identifier: GPL-2.0
/*
 * Data connections are those of the host that the control connection comes
 * from: nobody else gets in, with whatever token, and nobody is in the way.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "session/target.h"
#include "tap.h"
#include "wire/frame.h"
#include "wire/sock.h"

#define PATIENCE_MS	10000
#define STREAMS		2
#define SILENT		40

static char top[] = "/tmp/streams-test.XXXXXX";
static char why[500];
static uint8_t token[TOKEN_BYTES] = { 1, 2, 3 };

static struct keys_place place(const char *name)
{
	struct keys_place p = { 0 };

	snprintf(p.dir, sizeof(p.dir), "%s/%s", top, name);
	return p;
}

static void trust(const char *name, const char *whom)
{
	struct keys_cert c;
	FILE *f = tmpfile();

	must(f && !keys_export(place(whom).dir, f, why, sizeof(why)));
	rewind(f);
	must(!keys_trust(place(name).dir, whom, f, &c, why, sizeof(why)));
	fclose(f);
}

/**
 * struct world - a target that waits for its streams, and its source's end
 * @t: the target
 * @cfg: of it
 * @rep: of it
 * @place: its keys
 * @control: the source's end of the control connection
 * @listener: for data
 * @port: of @listener
 * @fd: what it took
 * @ret: how it ended
 */
struct world {
	struct target t;
	struct target_config cfg;
	struct reporter rep;
	struct keys_place place;
	int control, listener;
	uint16_t port;
	int fd[STREAMS];
	int ret;
	pthread_t thread;
};

static void *shake(void *arg)
{
	struct world *w = arg;

	w->ret = peer_secure(&w->t.peer, w->cfg.keys, TLS_ACCEPT,
			     deadline_in(PATIENCE_MS));
	return NULL;
}

static void *wait_streams(void *arg)
{
	struct world *w = arg;

	w->ret = target_accept(&w->t, w->listener, token, w->fd);
	return NULL;
}

static struct tls_context *context(const char *name)
{
	struct keys_place p = place(name);
	struct tls_context *c;

	must(!tls_context_new(&c, &p, why, sizeof(why)));
	return c;
}

static void world_open(struct world *w, struct tls_context *source)
{
	uint16_t port;
	int l = sock_listen("127.0.0.1", 0, 0, &port);

	*w = (struct world){ .cfg.handshake_ms = PATIENCE_MS };
	must(l >= 0);
	w->control = sock_connect("127.0.0.1", port, deadline_in(PATIENCE_MS));
	w->t = (struct target){
		.cfg = &w->cfg, .rep = &w->rep, .stream_id = 7,
		.streams = STREAMS,
		.peer = { .fd = sock_accept(l, deadline_in(PATIENCE_MS)),
			  .name = "the source", .guest_fd = -1 },
	};
	w->t.peer.failure = &w->t.failure;
	must(w->control >= 0 && w->t.peer.fd >= 0);
	close(l);
	if (source) {
		w->place = place("target");
		w->cfg.keys = &w->place;
		must(!pthread_create(&w->thread, NULL, shake, w));
		must(!sock_secure(w->control, source, TLS_CONNECT, false,
				  deadline_in(PATIENCE_MS)));
		pthread_join(w->thread, NULL);
		must(!w->ret);
	}
	w->listener = sock_listen("127.0.0.1", 0, 0, &w->port);
	must(w->listener >= 0);
	for (int i = 0; i < STREAMS; i++)
		w->fd[i] = -1;
	must(!pthread_create(&w->thread, NULL, wait_streams, w));
}

static void world_close(struct world *w)
{
	for (int i = 0; i < STREAMS; i++)
		sock_close(&w->fd[i]);
	close(w->listener);
	sock_close(&w->control);
	peer_release(&w->t.peer);
}

/* a connection that says the hello of stream @index; with TLS as @c */
static int call(struct world *w, struct tls_context *c, unsigned int index,
		const uint8_t *said)
{
	struct stream_hello hello = { .stream_id = 7, .stream = index };
	unsigned char buf[HELLO_BYTES];
	int fd = sock_connect_peer(w->control, w->port,
				   deadline_in(PATIENCE_MS));

	must(fd >= 0);
	memcpy(hello.token, said, TOKEN_BYTES);
	stream_hello_encode(buf, &hello);
	if (!c || !sock_secure(fd, c, TLS_CONNECT, true,
			       deadline_in(PATIENCE_MS)))
		sock_send(fd, buf, sizeof(buf), deadline_in(PATIENCE_MS));
	return fd;
}

/* it was closed, and not taken */
static bool turned_away(struct world *w, int fd, unsigned int index)
{
	char c;
	int ret = sock_recv(fd, &c, 1, deadline_in(PATIENCE_MS));
	bool away = ret && ret != -ETIMEDOUT && w->fd[index] < 0;

	if (!away)
		note("stream %u: %d, %d", index, ret, w->fd[index]);
	sock_close(&fd);
	return away;
}

static void all_taken(struct world *w, struct tls_context *c, const char *what)
{
	int64_t begin = now_ns(), ms;
	int fd[STREAMS];
	bool right = true;

	for (int i = 0; i < STREAMS; i++)
		fd[i] = call(w, c, i, token);
	pthread_join(w->thread, NULL);
	ms = (now_ns() - begin) / NSEC_PER_MSEC;
	for (int i = 0; i < STREAMS; i++) {
		char byte = 'a' + i, got = 0;

		right &= w->fd[i] >= 0 &&
			 !sock_send(fd[i], &byte, 1, deadline_in(PATIENCE_MS)) &&
			 !sock_recv(w->fd[i], &got, 1, deadline_in(PATIENCE_MS)) &&
			 got == byte;
		sock_close(&fd[i]);
	}
	ok(!w->ret && right, "%s (%d ms)", what, (int)ms);
}

static void test_plain(void)
{
	const uint8_t other[TOKEN_BYTES] = { 1, 2, 4 };
	struct world w;

	world_open(&w, NULL);
	ok(turned_away(&w, call(&w, NULL, 0, other), 0), "another token");
	ok(turned_away(&w, call(&w, NULL, 63, token), 1),
	   "a stream that was not agreed on");
	all_taken(&w, NULL, "the right ones are taken");
	world_close(&w);
}

static void test_foreign(void)
{
	const uint8_t other[TOKEN_BYTES] = { 0 };
	struct tls_context *source = context("source");
	struct tls_context *third = context("third");
	struct tls_context *stranger = context("stranger");
	struct world w;

	world_open(&w, source);
	ok(turned_away(&w, call(&w, third, 0, token), 0),
	   "a trusted host, which is not the source, with the token");
	ok(turned_away(&w, call(&w, stranger, 0, token), 0),
	   "a stranger with the token");
	ok(turned_away(&w, call(&w, NULL, 0, token), 0),
	   "the token without TLS");
	ok(turned_away(&w, call(&w, source, 0, other), 0),
	   "the source without the token");
	all_taken(&w, source, "the source with the token");
	world_close(&w);
	tls_context_free(source);
	tls_context_free(third);
	tls_context_free(stranger);
}

/* more than there are places for, who say nothing or half of something */
static void test_silent(void)
{
	struct tls_context *source = context("source");
	int fd[SILENT], closed = 0;
	struct world w;

	world_open(&w, source);
	for (int i = 0; i < SILENT; i++) {
		fd[i] = sock_connect_peer(w.control, w.port,
					  deadline_in(PATIENCE_MS));
		must(fd[i] >= 0);
		if (i % 2)
			send(fd[i], "\x16\x03", 2, MSG_NOSIGNAL);
	}
	all_taken(&w, source, "those who say nothing are in nobody's way");
	for (int i = 0; i < SILENT; i++) {
		char c;

		closed += recv(fd[i], &c, 1, MSG_DONTWAIT) == 0 ||
			  errno == ECONNRESET;
		close(fd[i]);
	}
	ok(closed == SILENT, "and are gone with the last that was awaited (%d)",
	   closed);
	world_close(&w);
	tls_context_free(source);
}

int main(void)
{
	static const char * const names[] = {
		"source", "target", "third", "stranger" };
	char command[100];

	signal(SIGPIPE, SIG_IGN);
	must(mkdtemp(top));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		must(!keys_make(place(names[i]).dir, -3600, KEYS_LIFE, false,
				why, sizeof(why)));
	trust("target", "source");
	trust("target", "third");
	trust("source", "target");
	trust("third", "target");
	trust("stranger", "target");
	test_plain();
	test_foreign();
	test_silent();
	snprintf(command, sizeof(command), "rm -rf %s", top);
	must(!system(command));
	return tap_end();
}
