// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "engine/apply.h"
#include "engine/fault.h"
#include "engine/receiver.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/compress.h"
#include "lib/digest.h"
#include "wire/frame.h"
#include "wire/ring.h"
#include "wire/sock.h"

/* holes of one round: bounded, as a peer says how many there are */
#define MAX_HOLES	(4U << 20)

struct stream {
	struct receiver *rc;
	unsigned int index;
	int fd;
	struct apply apply;		/* with a handle of its own */
	pthread_t thread;
	bool started;
	struct ring ring;
	unsigned char *frame;
	/* NULL: no encoding was agreed on */
	struct compressor *compressor;
	unsigned char *stored;		/* content as it comes, encoded */
	/* of the frame at work: all of them, and those with content */
	struct vasi_range range[FRAME_MAX_RANGES];
	struct vasi_range data[FRAME_MAX_PAGES];
	size_t nr_data;
	uint64_t digest[FRAME_MAX_PAGES];
	uint64_t seq;
	/* under the receiver's lock */
	uint32_t ended;			/* round */
	struct send_stream_total total;	/* of that round */
	uint64_t back_ns;		/* of that round, too */
	struct send_stream_total sum;	/* of the round that goes on */
};

struct receiver {
	struct guest *guest;
	struct pagemap *known;
	unsigned int encodings;
	struct apply apply;		/* of the owner */
	unsigned int nr;
	int event;
	/* read side: pages are written; write side: mappings change */
	pthread_rwlock_t maps;
	struct extents extents;
	pthread_mutex_t lock;
	uint32_t applied;
	int error;
	char text[160];
	struct vasi_range *holes;
	size_t nr_holes, max_holes;
	bool stop;
	_Atomic uint64_t bytes;
	struct stream stream[SENDER_MAX_STREAMS];
};

__attribute__((format(printf, 3, 4)))
static int stream_fail(struct stream *st, int err, const char *fmt, ...)
{
	struct receiver *rc = st->rc;
	va_list ap;
	int n;

	pthread_mutex_lock(&rc->lock);
	if (!rc->error && !rc->stop) {
		rc->error = err;
		n = snprintf(rc->text, sizeof(rc->text), "stream %u: ",
			     st->index);
		va_start(ap, fmt);
		vsnprintf(rc->text + n, sizeof(rc->text) - n, fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&rc->lock);
	eventfd_write(rc->event, 1);
	return err;
}

/* Header is decoded: is it the next one of this connection? */
static int frame_check(struct stream *st, const struct frame_header *h)
{
	struct receiver *rc = st->rc;
	uint32_t applied;

	if (h->stream != st->index || h->stream_id != rc->guest->stream_id)
		return stream_fail(st, -EPROTO,
				   "a frame of another stream or migration");
	if (h->seq != st->seq)
		return stream_fail(st, -EPROTO,
				   "frame %llu where %llu was next",
				   (unsigned long long)h->seq,
				   (unsigned long long)st->seq);
	st->seq++;
	pthread_mutex_lock(&rc->lock);
	applied = rc->applied;
	pthread_mutex_unlock(&rc->lock);
	if (h->round != applied + 1 && !fault_nobarrier())
		return stream_fail(st, -EPROTO,
				   "a frame of round %u when %u is applied",
				   h->round, applied);
	/* written by this thread alone */
	if (h->round <= st->ended && !fault_nobarrier())
		return stream_fail(st, -EPROTO,
				   "a frame of round %u behind the end of it",
				   h->round);
	return 0;
}

static int frame_ranges(struct stream *st, const struct frame_header *h)
{
	uint64_t pages = 0;

	st->nr_data = 0;
	for (uint32_t i = 0; i < h->nr_ranges; i++) {
		struct vasi_range *r = &st->range[i];

		if (frame_decode_range(r, st->frame + FRAME_HEADER_BYTES +
					  i * FRAME_RANGE_BYTES))
			return stream_fail(st, -EPROTO, "a malformed range");
		if (r->kind != VASI_KIND_DATA)
			continue;
		if (r->pages > FRAME_MAX_PAGES - pages)
			return stream_fail(st, -EPROTO,
					   "more pages than fit a frame");
		pages += r->pages;
		st->data[st->nr_data++] = *r;
	}
	if (pages << GUEST_PAGE_SHIFT != h->payload)
		return stream_fail(st, -EPROTO,
				   "ranges and content do not match");
	return 0;
}

/* as it is in the guest, behind the descriptors */
static int frame_expand(struct stream *st, const struct frame_header *h)
{
	unsigned char *content = st->frame + FRAME_HEADER_BYTES +
				 h->nr_ranges * FRAME_RANGE_BYTES;

	if (!h->encoding)
		return 0;
	if (compressor_decode(st->compressor, h->encoding, st->stored,
			      h->stored, content, h->payload))
		return stream_fail(st, -EBADMSG,
				   "frame %llu of round %u is corrupt (%s)",
				   (unsigned long long)h->seq, h->round,
				   encoding_names[h->encoding]);
	return 0;
}

static int holes_add(struct stream *st, const struct vasi_range *r)
{
	struct receiver *rc = st->rc;
	int ret = 0;

	pthread_mutex_lock(&rc->lock);
	if (rc->nr_holes == rc->max_holes) {
		size_t max = rc->max_holes ? rc->max_holes * 2 : 256;
		struct vasi_range *v = NULL;

		if (max <= MAX_HOLES)
			v = realloc(rc->holes, max * sizeof(*v));
		if (v) {
			rc->holes = v;
			rc->max_holes = max;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret)
		rc->holes[rc->nr_holes++] = *r;
	pthread_mutex_unlock(&rc->lock);
	return ret;
}

/*
 * Does the frame say what was read back, st->digest? If not, a look at what came
 * tells which of the two it was.
 */
static int frame_judge(struct stream *st, const struct frame_header *h)
{
	size_t len = FRAME_HEADER_BYTES + h->nr_ranges * FRAME_RANGE_BYTES;
	size_t pages = h->payload >> GUEST_PAGE_SHIFT, n = 0;
	const unsigned char *page = st->frame + len;

	if (frame_digest(st->frame, len, st->digest, pages) == h->digest)
		return 0;
	for (size_t i = 0; i < st->nr_data; i++)
		for (uint64_t j = 0; j < st->data[i].pages; j++) {
			st->digest[n++] = digest_page(
				st->data[i].space, st->data[i].start +
				(j << GUEST_PAGE_SHIFT), page);
			page += GUEST_PAGE_SIZE;
		}
	if (frame_digest(st->frame, len, st->digest, pages) == h->digest)
		return -EILSEQ;
	return stream_fail(st, -EBADMSG,
			   "frame %llu of round %u is corrupt (digest)",
			   (unsigned long long)h->seq, h->round);
}

/* A test wants a buffer that does not keep what is in it. */
static void spoil(unsigned char *data, const struct frame_header *h)
{
	uint64_t bit;

	if (fault_bit(FAULT_SPOIL, h->round, h->payload, &bit))
		data[bit / 8] ^= 1 << bit % 8;
}

/* Content first: the rest is believed when the digest is right. */
static int frame_write(struct stream *st, const struct frame_header *h)
{
	struct receiver *rc = st->rc;
	unsigned char *data = st->frame + FRAME_HEADER_BYTES +
			      h->nr_ranges * FRAME_RANGE_BYTES;
	size_t page = 0;
	int ret;

	spoil(data, h);
	ret = apply_data(&st->apply, h->round, st->data, st->nr_data, data,
			 st->digest);
	if (!ret)
		ret = frame_judge(st, h);
	for (size_t i = 0; i < st->nr_data && !ret; i++) {
		const struct vasi_range *r = &st->data[i];

		ret = pagemap_set(rc->known, r->space, r->start, r->pages,
				  st->digest + page, NULL);
		page += r->pages;
	}
	for (uint32_t i = 0; i < h->nr_ranges && !ret; i++) {
		const struct vasi_range *r = &st->range[i];

		if (r->kind == VASI_KIND_ZERO)
			ret = apply_zero(&st->apply, &rc->extents, r);
		else if (r->kind == VASI_KIND_HOLE)
			ret = holes_add(st, r);
	}
	return ret;
}

static int frame_apply(struct stream *st, const struct frame_header *h)
{
	struct receiver *rc = st->rc;
	int ret = 0;

	pthread_rwlock_rdlock(&rc->maps);
	for (uint32_t i = 0; i < h->nr_ranges && !ret; i++)
		if (!extents_cover(&rc->extents, &st->range[i]))
			ret = stream_fail(st, -EPROTO,
					  "pages at %#llx, outside the mappings",
					  (unsigned long long)
					  st->range[i].start);
	if (!ret) {
		ret = frame_write(st, h);
		if (ret == -EILSEQ)
			stream_fail(st, ret,
				    "frame %llu of round %u reads back from the guest as something else",
				    (unsigned long long)h->seq, h->round);
		else if (ret)	/* unless it was told already */
			stream_fail(st, ret, "cannot write the guest: %s",
				    strerror(-ret));
	}
	pthread_rwlock_unlock(&rc->maps);
	return ret;
}

static void round_ended(struct stream *st, uint32_t round)
{
	struct receiver *rc = st->rc;

	pthread_mutex_lock(&rc->lock);
	st->ended = round;
	st->total = st->sum;
	st->sum = (struct send_stream_total){ 0 };
	st->back_ns = st->apply.back_ns;
	st->apply.back_ns = 0;
	pthread_mutex_unlock(&rc->lock);
	eventfd_write(rc->event, 1);
}

/* what follows a header: descriptors and content, that one where it is due */
static int frame_recv(struct stream *st, const struct frame_header *h)
{
	size_t len = h->nr_ranges * FRAME_RANGE_BYTES;
	int ret;

	if (h->encoding && !(st->rc->encodings & ENCODING_BIT(h->encoding)))
		return stream_fail(st, -EPROTO,
				   "a frame in %s, which was not agreed on",
				   encoding_names[h->encoding]);
	if (!h->encoding)
		len += h->payload;
	ret = ring_recv(&st->ring, st->frame + FRAME_HEADER_BYTES, len);
	if (!ret && h->encoding)
		ret = ring_recv(&st->ring, st->stored, h->stored);
	if (ret)
		return stream_fail(st, -ECONNRESET,
				   "the data connection was closed in a frame");
	st->rc->bytes += FRAME_HEADER_BYTES + frame_content(h) +
			 h->nr_ranges * FRAME_RANGE_BYTES;
	return 0;
}

static int stream_frame(struct stream *st)
{
	struct frame_header h;
	int ret;

	ret = ring_recv(&st->ring, st->frame, FRAME_HEADER_BYTES);
	if (ret)
		return stream_fail(st, ret == -ENODATA ? -ECONNRESET : ret,
				   "the data connection was closed");
	ret = frame_decode(&h, st->frame);
	if (ret)
		return stream_fail(st, ret, ret == -EBADMSG ?
				   "a frame header is corrupt" :
				   "not a frame header");
	ret = frame_recv(st, &h);
	if (!ret)
		ret = frame_check(st, &h);
	if (!ret)
		ret = frame_ranges(st, &h);
	if (!ret)
		ret = frame_expand(st, &h);
	if (!ret && h.type == FRAME_ROUND_END) {
		ret = frame_judge(st, &h);
		if (!ret)
			round_ended(st, h.round);
		return ret;
	}
	if (ret)
		return ret;
	if (st->index == h.round % st->rc->nr)
		sleep_ms(fault_delay(h.round));
	st->sum.frames++;
	st->sum.pages += h.payload >> GUEST_PAGE_SHIFT;
	return frame_apply(st, &h);
}

static void *stream_main(void *arg)
{
	struct stream *st = arg;

	while (!stream_frame(st))
		;
	return NULL;
}

static int stream_start(struct stream *st, struct receiver *rc,
			unsigned int index)
{
	int ret;

	st->rc = rc;
	st->index = index;
	st->apply = rc->apply;
	st->apply.guest = NULL;
	st->apply.back = NULL;
	ret = rc->guest->access->join(&st->apply.guest, rc->guest);
	if (ret < 0)
		return ret;
	ret = apply_init(&st->apply);
	if (ret)
		return ret;
	st->frame = aligned_alloc(GUEST_PAGE_SIZE, FRAME_MAX_BYTES +
				  GUEST_PAGE_SIZE - FRAME_MAX_BYTES %
				  GUEST_PAGE_SIZE);
	if (!st->frame)
		return -ENOMEM;
	if (rc->encodings) {
		st->compressor = compressor_new(rc->encodings);
		st->stored = malloc(FRAME_MAX_PAGES * GUEST_PAGE_SIZE);
		if (!st->compressor || !st->stored)
			return -ENOMEM;
	}
	ret = ring_init(&st->ring, st->fd, true);
	if (ret)
		return ret;
	ret = -pthread_create(&st->thread, NULL, stream_main, st);
	if (ret) {
		ring_exit(&st->ring);
		return ret;
	}
	st->started = true;
	return 0;
}

int receiver_new(struct receiver **ret, const struct receiver_config *cfg)
{
	struct receiver *rc = calloc(1, sizeof(*rc));
	int err;

	if (!rc) {
		for (unsigned int i = 0; i < cfg->nr; i++)
			close(cfg->fd[i]);
		return -ENOMEM;
	}
	rc->guest = cfg->guest;
	rc->known = cfg->known;
	rc->encodings = cfg->encodings;
	rc->apply = (struct apply){
		.guest = cfg->guest, .known = cfg->known,
		.object_fd = cfg->object_fd, .object_arg = cfg->object_arg,
	};
	rc->nr = cfg->nr;
	for (unsigned int i = 0; i < cfg->nr; i++)
		rc->stream[i].fd = cfg->fd[i];
	pthread_rwlock_init(&rc->maps, NULL);
	pthread_mutex_init(&rc->lock, NULL);
	rc->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = rc->event < 0 ? -errno : 0;
	for (unsigned int i = 0; i < rc->nr && !err; i++)
		err = stream_start(&rc->stream[i], rc, i);
	if (!err)
		err = apply_init(&rc->apply);
	if (err) {
		receiver_free(rc);
		return err;
	}
	*ret = rc;
	return 0;
}

void receiver_free(struct receiver *rc)
{
	if (!rc)
		return;
	pthread_mutex_lock(&rc->lock);
	rc->stop = true;
	pthread_mutex_unlock(&rc->lock);
	for (unsigned int i = 0; i < rc->nr; i++)
		shutdown(rc->stream[i].fd, SHUT_RDWR);
	for (unsigned int i = 0; i < rc->nr; i++) {
		struct stream *st = &rc->stream[i];

		if (st->started) {
			pthread_join(st->thread, NULL);
			ring_exit(&st->ring);
		}
		if (st->apply.guest)
			st->apply.guest->access->close(st->apply.guest);
		apply_exit(&st->apply);
		free(st->frame);
		compressor_free(st->compressor);
		free(st->stored);
		sock_close(&st->fd);
	}
	cleanup_close(&rc->event);
	apply_exit(&rc->apply);
	extents_free(&rc->extents);
	free(rc->holes);
	pthread_rwlock_destroy(&rc->maps);
	pthread_mutex_destroy(&rc->lock);
	free(rc);
}

void receiver_maps_begin(struct receiver *rc)
{
	pthread_rwlock_wrlock(&rc->maps);
}

void receiver_maps_end(struct receiver *rc, struct extents *x)
{
	if (x) {
		extents_free(&rc->extents);
		rc->extents = *x;
		*x = (struct extents){ 0 };
	}
	pthread_rwlock_unlock(&rc->maps);
}

int receiver_eventfd(const struct receiver *rc)
{
	return rc->event;
}

int receiver_round_done(struct receiver *rc, uint32_t round,
			const struct send_stream_total *want, size_t n)
{
	eventfd_t unused;
	int ret = 1;

	eventfd_read(rc->event, &unused);
	pthread_mutex_lock(&rc->lock);
	if (n != rc->nr)
		ret = -EPROTO;
	for (unsigned int i = 0; i < rc->nr && ret == 1; i++) {
		const struct stream *st = &rc->stream[i];

		if (st->ended < round)
			ret = 0;
		else if (fault_nobarrier())
			continue;
		else if (st->total.frames != want[i].frames ||
			 st->total.pages != want[i].pages)
			ret = -EPROTO;
	}
	if (rc->error) {
		ret = rc->error;
	} else if (ret < 0) {
		rc->error = ret;
		snprintf(rc->text, sizeof(rc->text),
			 "round %u: the totals of the streams do not match",
			 round);
	}
	pthread_mutex_unlock(&rc->lock);
	return ret;
}

int receiver_status(struct receiver *rc)
{
	eventfd_t unused;
	int ret;

	eventfd_read(rc->event, &unused);
	pthread_mutex_lock(&rc->lock);
	ret = rc->error;
	pthread_mutex_unlock(&rc->lock);
	return ret;
}

const char *receiver_error(struct receiver *rc)
{
	/* written once, before the error that the caller saw */
	return rc->text;
}

size_t receiver_holes(struct receiver *rc, struct vasi_range **ret)
{
	size_t n;

	pthread_mutex_lock(&rc->lock);
	n = rc->nr_holes;
	*ret = rc->holes;
	rc->holes = NULL;
	rc->nr_holes = 0;
	rc->max_holes = 0;
	pthread_mutex_unlock(&rc->lock);
	return n;
}

int receiver_dropped(struct receiver *rc, const struct vasi_range *vec,
		     size_t n)
{
	int ret = 0;

	/* nobody else changes the extents */
	for (size_t i = 0; i < n && !ret; i++)
		ret = apply_dropped(&rc->apply, &rc->extents, &vec[i]);
	return ret;
}

uint64_t receiver_back_ns(struct receiver *rc)
{
	uint64_t ns = 0, own = rc->apply.back_ns;

	rc->apply.back_ns = 0;
	pthread_mutex_lock(&rc->lock);
	for (unsigned int i = 0; i < rc->nr; i++)
		if (rc->stream[i].back_ns > ns)
			ns = rc->stream[i].back_ns;
	pthread_mutex_unlock(&rc->lock);
	return ns + own;
}

void receiver_applied(struct receiver *rc, uint32_t round)
{
	pthread_mutex_lock(&rc->lock);
	rc->applied = round;
	pthread_mutex_unlock(&rc->lock);
}

uint64_t receiver_bytes(const struct receiver *rc)
{
	return rc->bytes;
}
