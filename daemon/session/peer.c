// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "lib/clock.h"
#include "session/peer.h"

#define TICK_MS		250
#define LAST_WORDS_MS	1000

int peer_lost(struct peer *p, int err)
{
	const char *why = tls_why(p->fd);

	if (why && err != -ECONNRESET)
		return failure_set(p->failure, err, "%s: %s", p->name, why);
	switch (err) {
	case -ECONNRESET:
		return failure_set(p->failure, err,
				   "%s closed the connection (did its mspd end?)",
				   p->name);
	case -ETIMEDOUT:
		return failure_set(p->failure, err,
				   "%s does not answer in time", p->name);
	case -EPROTO:
		return failure_set(p->failure, err,
				   "%s does not speak this protocol: what it sent is no message of it",
				   p->name);
	case -EBADMSG:
		return failure_set(p->failure, err,
				   "%s sent state with fields this version does not know: use the same version of mspd on both hosts",
				   p->name);
	default:
		return failure_set(p->failure, err, "%s: %s", p->name,
				   strerror(-err));
	}
}

int peer_secure(struct peer *p, const struct keys_place *place,
		enum tls_side side, int64_t deadline)
{
	char text[500];
	const char *why;
	int ret;

	if (!place)
		return 0;
	ret = tls_context_new(&p->tls, place, text, sizeof(text));
	if (ret) {
		/* nothing is said without it, not even why */
		shutdown(p->fd, SHUT_RDWR);
		return failure_set(p->failure, ret,
				   "no TLS, which this host requires: %s",
				   text);
	}
	ret = sock_secure(p->fd, p->tls, side, false, deadline);
	why = tls_why(p->fd);
	if (!ret)
		return 0;
	if (ret == -EPROTOTYPE)
		why = "its mspd does without TLS (tls = off), and that of this host requires it: set the same on both";
	/* nor is anything said without it to a host that was to have it */
	if (ret == -EPROTOTYPE && side == TLS_CONNECT)
		shutdown(p->fd, SHUT_RDWR);
	if (ret == -ETIMEDOUT)
		why = "does not answer in time";
	return failure_set(p->failure, ret, "%s: %s", p->name,
			   why ?: strerror(-ret));
}

bool peer_same(const struct peer *p, int fd)
{
	const struct keys_cert *control = tls_peer(p->fd);
	const struct keys_cert *data = tls_peer(fd);

	if (!p->tls)
		return true;
	return control && data && !memcmp(control->fingerprint,
					  data->fingerprint, KEYS_FINGERPRINT);
}

void peer_release(struct peer *p)
{
	sock_close(&p->fd);
	tls_context_free(p->tls);
	p->tls = NULL;
}

static int guest_lost(struct peer *p, short revents)
{
	const struct guest_access *a = p->guest->access;
	size_t n;

	/* its memory is gone after an exec too, but a call tells which it was */
	if ((revents & POLLHUP) && a->objects(p->guest, NULL, 0, &n) != -ECANCELED)
		return failure_set(p->failure, -ESRCH,
				   "the guest exited or was killed");
	return failure_set(p->failure, -ECANCELED,
			   "the guest called exec, its stream was aborted");
}

static int peer_poll(struct peer *p, int extra_fd, int ms)
{
	struct pollfd fds[3] = {
		{ .fd = p->fd, .events = POLLIN },
		{ .fd = extra_fd, .events = POLLIN },
		{ .fd = p->guest_fd },	/* POLLHUP, POLLERR come unasked */
	};
	int ret = 0;

	if (p->rep && p->rep->cancelled && p->rep->cancelled(p->rep))
		return failure_set(p->failure, -ECANCELED,
				   "cancelled by the operator");
	/* a part of it may have been read with what was before it */
	if (tls_pending(p->fd))
		return PEER_MESSAGE;
	if (poll(fds, 3, ms < TICK_MS ? ms : TICK_MS) < 0) {
		if (errno == EINTR)
			return 0;
		return failure_set(p->failure, -errno, "poll: %m");
	}
	if (fds[0].revents)
		ret |= PEER_MESSAGE;
	if (fds[1].revents)
		ret |= PEER_EXTRA;
	if (!(ret & PEER_MESSAGE) && fds[2].revents)
		return guest_lost(p, fds[2].revents);
	return ret;
}

int peer_wait(struct peer *p, int extra_fd, int64_t deadline)
{
	int left = deadline_left(deadline);
	int ret = peer_poll(p, extra_fd, left);

	return !ret && !left ? peer_lost(p, -ETIMEDOUT) : ret;
}

int peer_pause(struct peer *p, unsigned int ms)
{
	int64_t deadline = deadline_in(ms);
	int left, ret;

	while ((left = deadline_left(deadline))) {
		struct control_message msg;

		ret = peer_poll(p, -1, left);
		if (ret & PEER_MESSAGE && ret > 0) {
			ret = peer_expect(p, CONTROL_FAILED, deadline, &msg);
			if (!ret)
				control_free(&msg);
			return ret ? ret : -EPROTO;
		}
		if (ret < 0)
			return ret;
	}
	return 0;
}

int peer_send(struct peer *p, enum control_type type,
	      const ProtobufCMessage *m, unsigned int ms)
{
	int ret = control_send(p->fd, type, m, deadline_in(ms));

	if (ret == -ECONNRESET)
		peer_last_words(p);
	return ret ? peer_lost(p, ret) : 0;
}

static int peer_failed(struct peer *p, const struct control_message *msg)
{
	const Mspd__Failed *f = msg->failed;
	int err = -ECANCELED;

	if (msg->type == CONTROL_ABORT)
		return failure_set(p->failure, err, "%s: %s", p->name,
				   msg->abort->reason);
	p->refused = true;
	if (f->error > 0 && f->error < 4096)
		err = -f->error;
	if (p->findings)
		findings_from_wire(p->findings, f->findings, f->n_findings);
	return failure_set(p->failure, err, "%s: %s", p->name, f->text);
}

int peer_recv(struct peer *p, int64_t deadline, struct control_message *ret)
{
	struct control_message msg = { 0 };
	int err;

	do {
		err = peer_wait(p, -1, deadline);
		if (err < 0)
			return err;
	} while (!err);
	err = control_recv(p->fd, deadline, &msg);
	if (err)
		return peer_lost(p, err);
	if (msg.type == CONTROL_FAILED || msg.type == CONTROL_ABORT) {
		err = peer_failed(p, &msg);
		control_free(&msg);
		return err;
	}
	*ret = msg;
	return 0;
}

int peer_expect(struct peer *p, enum control_type type, int64_t deadline,
		struct control_message *ret)
{
	struct control_message msg;
	int err = peer_recv(p, deadline, &msg);

	if (err)
		return err;
	if (msg.type != type) {
		err = failure_set(p->failure, -EPROTO,
				  "%s sent %s where %s was due", p->name,
				  control_name(msg.type), control_name(type));
		control_free(&msg);
		return err;
	}
	*ret = msg;
	return 0;
}

void peer_last_words(struct peer *p)
{
	int64_t deadline = deadline_in(LAST_WORDS_MS);
	struct control_message msg;

	while (deadline_left(deadline) &&
	       !control_recv(p->fd, deadline, &msg)) {
		bool last = msg.type == CONTROL_FAILED ||
			    msg.type == CONTROL_ABORT;

		if (last)
			peer_failed(p, &msg);
		control_free(&msg);
		if (last)
			break;
	}
}

void findings_to_wire(const struct findings *f, Mspd__Finding ***ret_v,
		      size_t *ret_n)
{
	Mspd__Finding **v = calloc(f->n + 1, sizeof(*v));
	size_t n = 0;

	for (size_t i = 0; v && i < f->n; i++) {
		v[n] = malloc(sizeof(**v));
		if (!v[n])
			break;
		mspd__finding__init(v[n]);
		v[n]->level = f->v[i].level;
		v[n]->check = f->v[i].check;
		v[n]->object = f->v[i].object;
		v[n]->text = f->v[i].text;
		n++;
	}
	*ret_v = v;
	*ret_n = n;
}

void findings_wire_free(Mspd__Finding **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i]);
	free(v);
}

void findings_from_wire(struct findings *f, Mspd__Finding *const *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		enum finding_level level = FINDING_ERROR;

		if (v[i]->level < FINDING_ERROR)
			level = v[i]->level;
		finding_add(f, level, v[i]->check, v[i]->object, "%s",
			    v[i]->text);
	}
}

const char *findings_first_error(const struct findings *f, char *buf,
				 size_t len)
{
	snprintf(buf, len, "no reason given");
	for (size_t i = 0; i < f->n; i++) {
		const struct finding *v = &f->v[i];

		if (v->level != FINDING_ERROR)
			continue;
		snprintf(buf, len, "%s%s%s", v->object, *v->object ? ": " : "",
			 v->text);
		break;
	}
	return buf;
}
