// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "engine/fault.h"
#include "lib/clock.h"
#include "lib/cleanup.h"
#include "lib/digest.h"
#include "session/known.h"
#include "session/source.h"

#define HARVEST_CHUNK	2048
#define STALL_ROUNDS	3
#define MAX_OBJECTS	4096
/* a target that gets no data for so long is told that somebody is there */
#define QUIET_MS	5000

static int harvest_add(struct harvest *h, struct send_item it)
{
	if (h->n == h->max) {
		size_t max = h->max ? h->max * 2 : 1024;
		struct send_item *v = reallocarray(h->items, max, sizeof(*v));

		if (!v)
			return -ENOMEM;
		h->items = v;
		h->max = max;
	}
	if (it.range.kind == VASI_KIND_DATA && it.untracked)
		h->untracked_bytes += it.range.pages << GUEST_PAGE_SHIFT;
	else if (it.range.kind == VASI_KIND_DATA)
		h->data_bytes += it.range.pages << GUEST_PAGE_SHIFT;
	h->items[h->n++] = it;
	return 0;
}

static void harvest_reset(struct harvest *h)
{
	h->n = 0;
	pageset_free(&h->again);
	h->again = (struct pageset){};
	h->data_bytes = 0;
	h->untracked_bytes = 0;
}

/* a hole matters only where the target has something */
static int harvest_hole(struct source *s, const struct vasi_range *r)
{
	uint64_t start = r->start, from, to;
	uint64_t end = start + (r->pages << GUEST_PAGE_SHIFT);
	int ret = 0;

	while (!ret && start < end &&
	       pagemap_run(s->known, r->space, start, end, true, &from, &to)) {
		struct vasi_range hole = *r;

		hole.start = from;
		hole.pages = (to - from) >> GUEST_PAGE_SHIFT;
		ret = harvest_add(&s->harvest,
				  (struct send_item){ .range = hole });
		start = to;
	}
	return ret;
}

/*
 * A page is in a round once: of two copies that were read one after the other,
 * nobody knows which the target has in the end.
 */
static int harvest_part(struct source *s, const struct vasi_range *r)
{
	uint64_t at = r->start, end = at + (r->pages << GUEST_PAGE_SHIFT);
	int ret = 0;

	while (!ret && at < end) {
		uint64_t from = end, to = end;
		struct send_item it = {
			.range = *r, .untracked = r->space != 0,
		};

		if (!r->space)
			pageset_run(&s->harvest.again, at, end, &from, &to);
		it.range.start = at;
		it.range.pages = (from - at) >> GUEST_PAGE_SHIFT;
		if (from > at)
			ret = harvest_add(&s->harvest, it);
		at = to;
	}
	return ret;
}

/* What is outside the announced mappings was mapped or unmapped meanwhile. */
static int harvest_range(struct source *s, struct vasi_range r)
{
	uint64_t end = r.start + (r.pages << GUEST_PAGE_SHIFT), addr = r.start;
	struct vasi_range part;
	int ret = 0;

	while (!ret && addr < end) {
		r.start = addr;
		r.pages = (end - addr) >> GUEST_PAGE_SHIFT;
		if (!extents_clip(&s->extents, &r, &part))
			part = (struct vasi_range){ .start = end };
		if (part.start > addr && !r.space) {
			r.pages = (part.start - addr) >> GUEST_PAGE_SHIFT;
			ret = s->access->mark(s->guest, &r, 1);
			if (ret < 0)
				return ret;
		}
		addr = part.start + (part.pages << GUEST_PAGE_SHIFT);
		if (!part.pages)
			break;
		if (extents_find(&s->extents, part.space, part.start)->whole)
			continue;	/* harvest_whole() */
		if (part.kind == VASI_KIND_HOLE)
			ret = harvest_hole(s, &part);
		else
			ret = harvest_part(s, &part);
	}
	return ret;
}

/*
 * Pages of a file are changed by whoever writes the file, which no tracker of
 * this guest sees: they are read each round.
 */
static int harvest_whole(struct source *s)
{
	int ret = 0;

	for (size_t i = 0; i < s->extents.n && !ret; i++) {
		const struct extent *e = &s->extents.v[i];
		struct vasi_range r = {
			.start = e->start, .space = e->space,
			.pages = (e->end - e->start) >> GUEST_PAGE_SHIFT,
			.kind = VASI_KIND_DATA, .shift = GUEST_PAGE_SHIFT,
		};

		if (e->whole)
			ret = harvest_add(&s->harvest, (struct send_item){
				.range = r, .untracked = true });
	}
	return ret;
}

/**
 * struct ranges - raw output of a harvest
 * @v: ranges
 * @n: how many
 * @max: room
 */
struct ranges {
	struct vasi_range *v;
	size_t n, max;
};

static void ranges_free(struct ranges *r)
{
	free(r->v);
}

static int harvest_space(struct source *s, uint32_t space, struct ranges *out)
{
	uint64_t start = 0, before;
	size_t n;
	int ret;

	do {
		if (out->max - out->n < HARVEST_CHUNK) {
			size_t max = out->max + out->max / 2 + HARVEST_CHUNK;
			struct vasi_range *v = reallocarray(out->v, max,
							    sizeof(*v));

			if (!v)
				return -ENOMEM;
			out->v = v;
			out->max = max;
		}
		before = start;
		n = 0;
		ret = s->access->harvest(s->guest, space, start, 0, 0,
					 out->v + out->n, HARVEST_CHUNK, &n,
					 &start);
		if (ret < 0)
			return ret;
		out->n += n;
	} while (n && start > before);
	return 0;
}

static int harvest_objects(struct source *s, struct ranges *out)
{
	_cleanup_free_ struct vasi_object *obj = NULL;
	size_t len = 16, n = 0;
	int ret;

	do {
		free(obj);
		obj = calloc(len, sizeof(*obj));
		if (!obj)
			return -ENOMEM;
		ret = s->access->objects(s->guest, obj, len, &n);
		if (ret == -EMSGSIZE)
			len = n + 16;
	} while (ret == -EMSGSIZE && len < MAX_OBJECTS);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < n; i++) {
		ret = harvest_space(s, obj[i].space, out);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int send_maps(struct source *s, Mspd__Maps *maps, uint32_t round)
{
	Mspd__RoundMaps msg = MSPD__ROUND_MAPS__INIT;
	struct control_message answer;
	int ret;

	maps->round = round;
	msg.round = round;
	msg.maps = maps;
	ret = peer_send(&s->peer, CONTROL_ROUND_MAPS, &msg.base,
			source_reply_ms(s));
	if (ret)
		return ret;
	ret = source_expect(s, CONTROL_MAPS_DONE, &answer);
	if (!ret)
		control_free(&answer);
	return ret;
}

/*
 * The target maps something anew that the guest may not have: flags that the
 * guest access tells late look as a new mapping does. Where there was content
 * there is some now, which the tracker has told before, or what is there reads
 * as zero.
 */
static int send_again(void *arg, uint64_t start, uint64_t end)
{
	struct source *s = arg;
	int ret = 0;

	while (!ret && start < end) {
		struct vasi_range part, r = {
			.start = start, .kind = VASI_KIND_DATA,
			.pages = (end - start) >> GUEST_PAGE_SHIFT,
			.shift = GUEST_PAGE_SHIFT,
		};

		if (!extents_clip(&s->extents, &r, &part))
			break;
		start = part.start + (part.pages << GUEST_PAGE_SHIFT);
		/* all of such a mapping is in every round */
		if (!extents_find(&s->extents, 0, part.start)->whole)
			ret = harvest_add(&s->harvest,
					  (struct send_item){ .range = part });
		if (!ret)
			ret = pageset_set(&s->harvest.again, part.start, start);
	}
	return ret;
}

/*
 * The harvest comes first: a mapping that is made between the two is then
 * known but not harvested, and comes with the next round. The other way round
 * its pages would be harvested and have no place on the target.
 */
static int harvest_maps(struct source *s)
{
	struct extents x = { 0 };
	Mspd__Maps *maps = NULL;
	unsigned char *packed;
	size_t len;
	int ret;

	ret = capture_maps(&s->capture, &maps);
	if (ret < 0)
		return source_guest_fail(s, ret, "reading its mappings");
	maps->round = 0;
	len = mspd__maps__get_packed_size(maps);
	packed = malloc(len + 1);
	if (!packed) {
		maps_free(maps);
		return failure_set(&s->failure, -ENOMEM, "out of memory");
	}
	mspd__maps__pack(maps, packed);
	if (s->maps_sent && len == s->maps_sent_len &&
	    !memcmp(packed, s->maps_sent, len)) {
		free(packed);
		maps_free(maps);
		return 0;
	}
	ret = extents_build(&x, maps);
	if (ret) {
		free(packed);
		maps_free(maps);
		return failure_set(&s->failure, ret,
				   "the guest's mappings make no sense");
	}
	extents_free(&s->extents);
	s->extents = x;
	ret = known_follow(s->known, s->maps, maps, send_again, s);
	maps_free(s->maps);
	s->maps = maps;
	free(s->maps_sent);
	s->maps_sent = packed;
	s->maps_sent_len = len;
	if (ret)
		return failure_set(&s->failure, ret, "out of memory");
	return send_maps(s, maps, s->round + 1);
}

int rounds_harvest(struct source *s, struct round_report *r)
{
	_cleanup_(ranges_free) struct ranges raw = { 0 };
	int64_t begin = now_ns();
	int ret;

	harvest_reset(&s->harvest);
	r->since_ns = s->harvested_ns ? begin - s->harvested_ns : 0;
	s->harvested_ns = begin;
	ret = harvest_space(s, 0, &raw);
	if (ret >= 0)
		ret = harvest_objects(s, &raw);
	if (ret < 0)
		return source_guest_fail(s, ret, "harvest");
	ret = harvest_maps(s);
	if (ret)
		return ret;
	for (size_t i = 0; i < raw.n && ret >= 0; i++)
		ret = harvest_range(s, raw.v[i]);
	if (ret >= 0)
		ret = harvest_whole(s);
	if (ret < 0)
		return source_guest_fail(s, ret, "harvest");
	r->harvest_ns = now_ns() - begin;
	r->remaining_bytes = s->harvest.data_bytes;
	r->dirty_pages = s->harvest.data_bytes >> GUEST_PAGE_SHIFT;
	s->est.harvest_ns = r->harvest_ns;
	return 0;
}

int rounds_mark(struct source *s)
{
	struct vasi_range vec[256];
	size_t n = 0;
	int ret = 0;

	for (size_t i = 0; i < s->harvest.n && ret >= 0; i++) {
		if (s->harvest.items[i].untracked)
			continue;	/* again in any case */
		vec[n++] = s->harvest.items[i].range;
		if (n == ARRAY_SIZE(vec)) {
			ret = s->access->mark(s->guest, vec, n);
			n = 0;
		}
	}
	if (n && ret >= 0)
		ret = s->access->mark(s->guest, vec, n);
	harvest_reset(&s->harvest);
	return ret < 0 ? ret : 0;
}

int rounds_begin(struct source *s, struct round_report *r)
{
	int ret;

	r->round = ++s->round;
	r->ns = now_ns();	/* its begin, until it is applied */
	ret = sender_round(s->sender, r->round, s->harvest.items,
			   s->harvest.n, s->suspended);
	if (ret)
		return failure_set(&s->failure, ret, "round %u: %s", r->round,
				   strerror(-ret));
	return 0;
}

static int sender_failed(struct source *s, int err)
{
	/* the target knows better why it closed a connection */
	if (err != -ESRCH && err != -ECANCELED && err != -ENOMEM)
		peer_last_words(&s->peer);
	if (err == -ESRCH || err == -ECANCELED || err == -EFAULT)
		return source_guest_fail(s, err, "reading its pages");
	return failure_set(&s->failure, err, "data connection to %s: %s",
			   s->peer.name, strerror(-err));
}

static int round_end(struct source *s, const struct round_report *r)
{
	Mspd__StreamTotal total[SENDER_MAX_STREAMS];
	Mspd__StreamTotal *list[SENDER_MAX_STREAMS];
	Mspd__RoundEnd msg = MSPD__ROUND_END__INIT;

	for (unsigned int i = 0; i < s->summary.streams; i++) {
		mspd__stream_total__init(&total[i]);
		total[i].frames = r->totals.stream[i].frames;
		total[i].pages = r->totals.stream[i].pages;
		list[i] = &total[i];
	}
	msg.round = r->round;
	msg.n_streams = s->summary.streams;
	msg.streams = list;
	return peer_send(&s->peer, CONTROL_ROUND_END, &msg.base,
			 source_reply_ms(s));
}

int rounds_sent(struct source *s, struct round_report *r)
{
	uint64_t total = sender_left(s->sender), seen = 0, left_seen = total;
	int64_t stalled = deadline_in(source_reply_ms(s));
	int64_t quiet = deadline_in(QUIET_MS);
	int done;

	while (!(done = sender_done(s->sender, &r->totals))) {
		uint64_t moved = sender_bytes(s->sender);
		uint64_t left = sender_left(s->sender);
		struct control_message msg;
		int ret;

		/* what is compared and found equal makes progress, too */
		if (moved != seen || left != left_seen)
			stalled = deadline_in(source_reply_ms(s));
		if (moved != seen)
			quiet = deadline_in(QUIET_MS);
		seen = moved;
		left_seen = left;
		/* of which the target sees nothing */
		if (!deadline_left(quiet)) {
			ret = source_ping(s, NULL);
			if (ret)
				return ret;
			quiet = deadline_in(QUIET_MS);
		}
		ret = peer_wait(&s->peer, sender_eventfd(s->sender), stalled);
		if (ret < 0)
			return ret;
		if (ret & PEER_MESSAGE) {
			/* nothing but bad news is due here */
			ret = peer_recv(&s->peer, stalled, &msg);
			if (!ret)
				ret = source_stray(s, &msg);
			if (ret)
				return ret;
			continue;
		}
		if (!ret)
			report_progress(s->rep, r->round, total, left, r,
					policy_speed(s->history, s->rounds),
					r->decision.predicted_ns);
	}
	if (done < 0)
		return sender_failed(s, done);
	return round_end(s, r);
}

static int await_applied(struct source *s, uint32_t round,
			 uint64_t *ret_digest_ns)
{
	struct control_message msg;
	uint32_t applied;
	int ret;

	do {
		ret = source_expect(s, CONTROL_ROUND_APPLIED, &msg);
		if (ret)
			return ret;
		applied = msg.round_applied->round;
		*ret_digest_ns = msg.round_applied->digest_ns;
		control_free(&msg);
	} while (applied != round && s->unapplied-- > 0);
	if (applied != round)
		return failure_set(&s->failure, -EPROTO,
				   "%s acknowledged a wrong round",
				   s->peer.name);
	return 0;
}

int rounds_applied(struct source *s, struct round_report *r)
{
	const struct send_totals *t = &r->totals;
	int ret = 0;

	if (fault_nobarrier() && !s->suspended)
		s->unapplied++;
	else
		ret = await_applied(s, r->round, &r->digest_ns);
	if (ret)
		return ret;
	r->ns = now_ns() - r->ns;
	harvest_reset(&s->harvest);
	s->history[s->rounds++] = (struct policy_round){
		.remaining_bytes = r->remaining_bytes,
		.done_bytes = (t->read - t->untracked_equal) * GUEST_PAGE_SIZE,
		.ns = r->ns,
	};
	s->summary.pages += t->pages;
	for (int i = 0; i < ENCODINGS; i++)
		s->summary.encoded[i] += t->encoded[i];
	s->summary.bytes_sent += t->bytes;
	s->summary.copy_ns += r->ns;
	/* its share of the reading; of this round, it may be gone since */
	s->est.untracked_ns = 0;
	if (t->untracked)
		s->est.untracked_ns = (double)t->read_ns * t->untracked /
				      t->read / s->summary.streams;
	s->last = *r;
	return 0;
}

void rounds_report(struct source *s)
{
	report_round(s->rep, &s->last, s->summary.rounds);
}

int rounds_run(struct source *s, bool catch_up)
{
	const struct policy_config cfg = {
		.pause_limit_ns = s->m->pause_limit_ms * NSEC_PER_MSEC,
		.max_rounds = s->m->max_rounds < SOURCE_MAX_ROUNDS - 10 ?
			      s->m->max_rounds : SOURCE_MAX_ROUNDS - 10,
		.stall_rounds = STALL_ROUNDS,
	};
	int ret;

	for (;;) {
		struct round_report r = { 0 };

		ret = files_sync(&s->capture);
		if (ret < 0)
			return source_guest_fail(s, ret, "syncing its files");
		ret = rounds_harvest(s, &r);
		if (ret)
			return ret;
		r.decision = policy_decide(&cfg, s->history, s->rounds,
					   r.remaining_bytes, &s->est);
		s->access->progress(s->guest, r.remaining_bytes);
		if (r.decision.action == POLICY_SWITCH && catch_up) {
			r.decision.action = POLICY_ROUND;
			r.decision.why = "catch-up";
		}
		catch_up = false;
		if (r.decision.action == POLICY_SWITCH) {
			s->summary.predicted_ns = r.decision.predicted_ns;
			s->summary.why = r.decision.why;
			s->last.decision = r.decision;
			ret = rounds_mark(s);
			return ret ? source_guest_fail(s, ret, "mark") : 0;
		}
		ret = rounds_begin(s, &r);
		if (!ret)
			ret = rounds_sent(s, &r);
		if (!ret)
			ret = rounds_applied(s, &r);
		if (ret)
			return ret;
		rounds_report(s);
	}
}
