// SPDX-License-Identifier: GPL-2.0
/*
 * The target's data connections, and what comes over them round by round
 */
#include <errno.h>
#include <string.h>
#include "engine/fault.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/digest.h"
#include "session/known.h"
#include "session/target.h"
#include "wire/frame.h"
#include "wire/sock.h"

#define DROP_PARTS	1024

static int object_fd(void *arg, uint32_t space)
{
	return restore_object_fd(arg, space);
}

int target_streams(struct target *t, int listener, const uint8_t *token)
{
	int fd[SENDER_MAX_STREAMS], ret;
	struct receiver_config cfg = {
		.guest = restore_guest(t->restore),
		.known = t->known,
		.encodings = t->encodings,
		.object_fd = object_fd,
		.object_arg = t->restore,
		.fd = fd,
		.nr = t->streams,
	};

	for (unsigned int i = 0; i < t->streams; i++)
		fd[i] = -1;
	ret = target_accept(t, listener, token, fd);
	if (ret) {
		for (unsigned int i = 0; i < t->streams; i++)
			sock_close(&fd[i]);
		return ret;
	}
	ret = receiver_new(&t->receiver, &cfg);
	return ret ? target_fail(t, ret, "data connections") : 0;
}

int target_round_maps(struct target *t, Mspd__RoundMaps *m)
{
	Mspd__MapsDone answer = MSPD__MAPS_DONE__INIT;
	struct extents x = { 0 };
	int ret;

	if (m->round != t->applied + 1 && !fault_nobarrier())
		return failure_set(&t->failure, -EPROTO,
				   "mappings of round %u when %u is applied",
				   m->round, t->applied);
	ret = extents_build(&x, m->maps);
	if (ret)
		return target_fail(t, ret, "the mappings make no sense");
	receiver_maps_begin(t->receiver);
	restore_fill_end(t->restore);
	ret = restore_maps(t->restore, m->maps);
	if (!ret && !t->applied)
		restore_fill_begin(t->restore);
	if (!ret)
		ret = known_follow(t->known, t->maps, m->maps, NULL, NULL);
	receiver_maps_end(t->receiver, ret < 0 ? NULL : &x);
	extents_free(&x);
	if (ret < 0)
		return target_fail(t, ret, "cannot make the guest's mappings");
	maps_free(t->maps);
	t->maps = m->maps;
	m->maps = NULL;
	answer.round = m->round;
	return target_send(t, CONTROL_MAPS_DONE, &answer.base);
}

static int wait_round(struct target *t, uint32_t round,
		      const struct send_stream_total *want, size_t n)
{
	int64_t deadline = deadline_in(target_idle_ms(t));
	uint64_t seen = receiver_bytes(t->receiver);
	struct peer quiet = t->peer;
	struct control_message msg;
	int done, ret;

	/* without the barrier the next round's messages are there already */
	if (fault_nobarrier())
		quiet.fd = -1;
	while (!(done = receiver_round_done(t->receiver, round, want, n))) {
		uint64_t bytes = receiver_bytes(t->receiver);

		if (bytes != seen)
			deadline = deadline_in(target_idle_ms(t));
		seen = bytes;
		ret = peer_wait(&quiet, receiver_eventfd(t->receiver),
				deadline);
		if (ret < 0)
			return ret;
		if (ret & PEER_MESSAGE) {
			ret = peer_expect(&t->peer, CONTROL_ABORT, deadline,
					  &msg);
			return ret ? ret : -EPROTO;
		}
	}
	return done < 0 ? target_receiver_fail(t, done) : 0;
}

/* many by one stop of the guest's process */
static int drop(struct target *t, const struct vasi_range *part, size_t n)
{
	int ret = fault_nodrop() ? 0 : restore_drop(t->restore, part, n);

	if (ret < 0)
		return target_fail(t, ret, "cannot drop pages");
	ret = receiver_dropped(t->receiver, part, n);
	if (ret == -EILSEQ)
		return failure_set(&t->failure, ret,
				   "pages that were dropped are still there");
	if (ret)
		return target_fail(t, ret, "cannot read what was dropped");
	for (size_t i = 0; i < n; i++)
		pagemap_clear(t->known, part[i].space, part[i].start,
			      part[i].start +
			      (part[i].pages << GUEST_PAGE_SHIFT));
	return 0;
}

/* after the round's data, by the tracer, where there is something to drop */
static int apply_holes(struct target *t)
{
	_cleanup_free_ struct vasi_range *holes = NULL;
	size_t n = receiver_holes(t->receiver, &holes), parts = 0;
	struct vasi_range part[DROP_PARTS];
	int ret = 0;

	for (size_t i = 0; i < n && !ret; i++) {
		uint64_t start = holes[i].start, from, to;
		uint64_t end = start + (holes[i].pages << GUEST_PAGE_SHIFT);

		while (!ret && start < end &&
		       pagemap_run(t->known, holes[i].space, start, end, true,
				   &from, &to)) {
			part[parts] = holes[i];
			part[parts].start = from;
			part[parts++].pages = (to - from) >> GUEST_PAGE_SHIFT;
			start = to;
			if (parts == DROP_PARTS) {
				ret = drop(t, part, parts);
				parts = 0;
			}
		}
	}
	return ret || !parts ? ret : drop(t, part, parts);
}

int target_round_end(struct target *t, const Mspd__RoundEnd *m)
{
	struct send_stream_total want[SENDER_MAX_STREAMS];
	Mspd__RoundApplied answer = MSPD__ROUND_APPLIED__INIT;
	int ret;

	if ((m->round != t->applied + 1 && !fault_nobarrier()) ||
	    m->n_streams != t->streams)
		return failure_set(&t->failure, -EPROTO,
				   "the end of round %u with %zu streams when %u is applied",
				   m->round, m->n_streams, t->applied);
	for (size_t i = 0; i < m->n_streams; i++) {
		want[i].frames = m->streams[i]->frames;
		want[i].pages = m->streams[i]->pages;
	}
	ret = wait_round(t, m->round, want, m->n_streams);
	receiver_maps_begin(t->receiver);
	restore_fill_end(t->restore);
	receiver_maps_end(t->receiver, NULL);
	if (!ret)
		ret = apply_holes(t);
	if (ret)
		return ret;
	t->applied = m->round;
	receiver_applied(t->receiver, m->round);
	answer.round = m->round;
	answer.has_digest_ns = 1;
	answer.digest_ns = receiver_back_ns(t->receiver);
	return target_send(t, CONTROL_ROUND_APPLIED, &answer.base);
}
