// SPDX-License-Identifier: GPL-2.0
/*
 * The target's data connections among strangers' ones
 *
 * Anybody can connect to the port. Who does is kept only until it has said its
 * hello, with the token of this migration and, with TLS, as the host that the
 * control connection comes from; nobody is waited for alone, so one that says
 * nothing holds up no other. They have a few places: the oldest gives way.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <openssl/crypto.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "session/target.h"
#include "wire/frame.h"
#include "wire/sock.h"

#define CALLERS		16
#define EVENTS		(CALLERS + 1)
#define HELLO_MS	5000

/**
 * struct caller - a connection without its hello
 * @fd: socket, -1 = a free place
 * @shaking: TLS is not there yet
 * @deadline: of handshake and hello together
 * @got: bytes of @buf
 * @buf: its hello
 */
struct caller {
	int fd;
	bool shaking;
	int64_t deadline;
	size_t got;
	unsigned char buf[HELLO_BYTES];
};

/**
 * struct calls - all of them
 * @t: whose they are
 * @epoll: the listener and all callers
 * @listener: index CALLERS in @epoll
 * @token: what is to be said
 * @fd: those that said it, by their index, -1 = not yet
 * @n: how many did
 * @v: those that did not
 */
struct calls {
	struct target *t;
	int epoll;
	int listener;
	const uint8_t *token;
	int *fd;
	unsigned int n;
	struct caller v[CALLERS];
};

static struct caller *place(struct calls *c)
{
	struct caller *best = &c->v[0];

	for (unsigned int i = 0; i < CALLERS; i++) {
		if (c->v[i].fd < 0)
			return &c->v[i];
		if (c->v[i].deadline < best->deadline)
			best = &c->v[i];
	}
	sock_close(&best->fd);
	return best;
}

static int wait_caller(struct calls *c, struct caller *w, int op, short events)
{
	struct epoll_event ev = {
		/* poll() and epoll have the same bits */
		.events = events, .data.u32 = w - c->v,
	};

	return epoll_ctl(c->epoll, op, w->fd, &ev) ? -errno : 0;
}

static void take_caller(struct calls *c)
{
	struct peer *p = &c->t->peer;
	_cleanup_sock_ int s = sock_accept(c->listener, deadline_in(1));
	struct caller *w;

	/* the source comes from where its control connection does */
	if (s < 0 || !sock_same_peer(s, p->fd) ||
	    (p->tls && tls_begin(s, p->tls, TLS_ACCEPT, true)))
		return;
	w = place(c);
	*w = (struct caller){
		.fd = steal_fd(&s), .shaking = p->tls,
		.deadline = deadline_in(HELLO_MS),
	};
	if (wait_caller(c, w, EPOLL_CTL_ADD, POLLIN))
		sock_close(&w->fd);
}

static bool hello_right(struct calls *c, const struct caller *w,
			unsigned int *ret_index)
{
	const struct target *t = c->t;
	struct stream_hello hello;

	if (stream_hello_decode(&hello, w->buf) ||
	    hello.stream_id != t->stream_id ||
	    CRYPTO_memcmp(hello.token, c->token, TOKEN_BYTES) ||
	    hello.stream >= t->streams || c->fd[hello.stream] >= 0)
		return false;
	*ret_index = hello.stream;
	return true;
}

/* One step; -EAGAIN: more is to come, 0: the hello is there, else it is over. */
static int caller_step(struct calls *c, struct caller *w, short *ret_events)
{
	int ret;

	if (w->shaking) {
		ret = tls_step(w->fd, ret_events);
		if (!ret && !peer_same(&c->t->peer, w->fd))
			ret = -EKEYREJECTED;
		if (ret)
			return ret;
		w->shaking = false;
	}
	while (w->got < sizeof(w->buf)) {
		ssize_t n = sock_recv_some(w->fd, w->buf + w->got,
					   sizeof(w->buf) - w->got, ret_events);

		if (n <= 0)
			return n ? n : -ECONNRESET;
		w->got += n;
	}
	return 0;
}

static void caller_ready(struct calls *c, struct caller *w)
{
	unsigned int index;
	short events = POLLIN;
	int ret = caller_step(c, w, &events);

	if (ret == -EAGAIN && !wait_caller(c, w, EPOLL_CTL_MOD, events))
		return;
	if (!ret && hello_right(c, w, &index)) {
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, w->fd, NULL);
		c->fd[index] = steal_fd(&w->fd);
		c->n++;
		return;
	}
	/* a stranger's connection is closed and does no harm */
	sock_close(&w->fd);
}

static void callers_ready(struct calls *c, int ms)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(c->epoll, ev, EVENTS, ms);

	for (int i = 0; i < n; i++) {
		unsigned int index = ev[i].data.u32;

		if (index == CALLERS)
			take_caller(c);
		else if (c->v[index].fd >= 0)
			caller_ready(c, &c->v[index]);
	}
}

static void callers_expire(struct calls *c)
{
	for (unsigned int i = 0; i < CALLERS; i++)
		if (c->v[i].fd >= 0 && !deadline_left(c->v[i].deadline))
			sock_close(&c->v[i].fd);
}

static int calls_open(struct calls *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = CALLERS };

	for (unsigned int i = 0; i < CALLERS; i++)
		c->v[i].fd = -1;
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (c->epoll < 0 ||
	    epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->listener, &ev))
		return -errno;
	return 0;
}

static void calls_close(struct calls *c)
{
	for (unsigned int i = 0; i < CALLERS; i++)
		sock_close(&c->v[i].fd);
	cleanup_close(&c->epoll);
}

static int take_all(struct calls *c)
{
	struct target *t = c->t;
	int64_t deadline = deadline_in(target_handshake_ms(t)), said = 0;

	while (c->n < t->streams) {
		int ret = peer_wait(&t->peer, c->epoll, deadline);
		struct control_message msg;

		if (ret < 0)
			return ret;
		callers_expire(c);
		if (ret & PEER_EXTRA) {
			callers_ready(c, 0);
			continue;
		}
		if (!(ret & PEER_MESSAGE))
			continue;
		/*
		 * The source's next message can overtake its hellos, which the
		 * kernel may encrypt later on. An Abort has nothing behind it.
		 */
		if (!said)
			said = deadline_in(HELLO_MS);
		if (deadline_left(said)) {
			callers_ready(c, deadline_left(said));
			continue;
		}
		ret = peer_expect(&t->peer, CONTROL_ABORT, deadline, &msg);
		return ret ? ret : -EPROTO;
	}
	return 0;
}

int target_accept(struct target *t, int listener, const uint8_t *token, int *fd)
{
	struct calls c = {
		.t = t, .listener = listener, .token = token, .fd = fd,
	};
	int ret = calls_open(&c);

	if (ret)
		ret = target_fail(t, ret, "data connections");
	else
		ret = take_all(&c);
	calls_close(&c);
	return ret;
}
