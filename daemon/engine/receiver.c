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
#include "engine/fault.h"
#include "engine/receiver.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/compress.h"
#include "lib/digest.h"
#include "wire/frame.h"
#include "wire/ring.h"

/* most bytes cleared by one call: the module has a limit, too */
#define ZERO_STEP	(4ULL << 20)
/* holes of one round: bounded, as a peer says how many there are */
#define MAX_HOLES	(4U << 20)

struct stream {
	struct receiver *rc;
	unsigned int index;
	int fd;
	struct guest *guest;
	pthread_t thread;
	bool started;
	struct ring ring;
	unsigned char *frame;
	/* NULL: no encoding was agreed on */
	struct compressor *compressor;
	unsigned char *stored;		/* content as it comes, encoded */
	struct vasi_range range[FRAME_MAX_RANGES];
	uint64_t digest[FRAME_MAX_PAGES];
	uint64_t seq;
	/* under the receiver's lock */
	uint32_t ended;			/* round */
	struct send_stream_total total;	/* of that round */
	struct send_stream_total sum;	/* of the round that goes on */
};

struct receiver {
	struct guest *guest;
	struct pagemap *known;
	unsigned int encodings;
	int (*object_fd)(void *arg, uint32_t space);
	void *object_arg;
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

static int frame_verify(struct stream *st, const struct frame_header *h)
{
	size_t len = FRAME_HEADER_BYTES + h->nr_ranges * FRAME_RANGE_BYTES;
	const unsigned char *page = st->frame + len;
	size_t n = 0;

	for (uint32_t i = 0; i < h->nr_ranges; i++) {
		const struct vasi_range *r = &st->range[i];

		if (r->kind != VASI_KIND_DATA)
			continue;
		for (uint64_t j = 0; j < r->pages; j++) {
			st->digest[n++] = digest_page(
				r->space,
				r->start + (j << GUEST_PAGE_SHIFT), page);
			page += GUEST_PAGE_SIZE;
		}
	}
	if (frame_digest(st->frame, len, st->digest, n) != h->digest)
		return stream_fail(st, -EBADMSG,
				   "frame %llu of round %u is corrupt (digest)",
				   (unsigned long long)h->seq, h->round);
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

/* Content of a memory object goes through a descriptor of it. */
static int object_write(struct stream *st, uint32_t space, uint64_t start,
			const unsigned char *data, size_t len)
{
	int fd = st->rc->object_fd(st->rc->object_arg, space);

	if (fd < 0)
		return fd;
	while (len) {
		ssize_t n = pwrite(fd, data, len, start);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		start += n;
		data += n;
		len -= n;
	}
	return 0;
}

static int object_zero(struct stream *st, const struct vasi_range *r)
{
	static const unsigned char zero[GUEST_PAGE_SIZE];
	int ret = 0;

	for (uint64_t i = 0; i < r->pages && !ret; i++)
		ret = object_write(st, r->space,
				   r->start + (i << GUEST_PAGE_SHIFT), zero,
				   sizeof(zero));
	return ret;
}

/* entries of kind data with their content, or of kind zero without */
static int space_write(struct stream *st, const struct vasi_range *vec,
		       size_t n, const unsigned char *data, size_t len)
{
	const struct guest_access *access = st->guest->access;
	size_t done = 0;
	int ret;

	if (!vec->space) {
		ret = access->write(st->guest, vec, n, data, len, &done);
		if (ret < 0)
			return ret;
		return done == n ? 0 : -EFAULT;
	}
	for (size_t i = 0; i < n; i++) {
		size_t bytes = vec[i].pages << GUEST_PAGE_SHIFT;

		if (vec[i].kind == VASI_KIND_ZERO) {
			ret = object_zero(st, &vec[i]);
		} else {
			ret = object_write(st, vec[i].space, vec[i].start,
					   data, bytes);
			data += bytes;
		}
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * A page of a file's mapping that is the guest's own: what is there reads as
 * zero, too, where the file has zeros, but it is the file's, and would follow it.
 */
static int own_zero(struct stream *st, const struct vasi_range *r)
{
	static const unsigned char zero[16 * GUEST_PAGE_SIZE];
	struct vasi_range part = *r;
	uint64_t done;
	int ret = 0;

	part.kind = VASI_KIND_DATA;
	for (done = 0; done < r->pages && !ret; done += part.pages) {
		part.start = r->start + (done << GUEST_PAGE_SHIFT);
		part.pages = r->pages - done;
		if (part.pages > sizeof(zero) / GUEST_PAGE_SIZE)
			part.pages = sizeof(zero) / GUEST_PAGE_SIZE;
		ret = space_write(st, &part, 1, zero,
				  part.pages << GUEST_PAGE_SHIFT);
	}
	return ret;
}

/*
 * Zero pages: where nothing was ever written the target reads as zero already,
 * and touching it would only cost memory.
 */
static int zero_apply(struct stream *st, const struct vasi_range *r)
{
	struct receiver *rc = st->rc;
	uint64_t addr = r->start, end = addr + (r->pages << GUEST_PAGE_SHIFT);
	int ret;

	while (addr < end) {
		const struct extent *e = extents_find(&rc->extents, r->space,
						      addr);
		uint64_t stop = e->end < end ? e->end : end;
		struct vasi_range part = *r;
		uint64_t from, to;

		if (stop > addr + ZERO_STEP)
			stop = addr + ZERO_STEP;
		from = addr;
		to = stop;
		if (!e->blank || pagemap_run(rc->known, r->space, addr, stop,
					     true, &from, &to)) {
			part.start = from;
			part.pages = (to - from) >> GUEST_PAGE_SHIFT;
			ret = e->blank ? space_write(st, &part, 1, NULL, 0) :
					 own_zero(st, &part);
			if (ret)
				return ret;
		}
		while (addr < to) {
			uint64_t digest[FRAME_MAX_PAGES], start = addr;
			size_t n = 0;

			for (; addr < to && n < FRAME_MAX_PAGES;
			     addr += GUEST_PAGE_SIZE)
				digest[n++] = digest_zero(r->space, addr);
			ret = pagemap_set(rc->known, r->space, start, n,
					  digest, NULL);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/* data ranges, in runs of one space */
static int data_apply(struct stream *st, const struct vasi_range *vec,
		      size_t n, const unsigned char *data)
{
	size_t first = 0;

	while (first < n) {
		size_t last = first, len = 0;
		int ret;

		while (last < n && vec[last].space == vec[first].space)
			len += vec[last++].pages << GUEST_PAGE_SHIFT;
		ret = space_write(st, vec + first, last - first, data, len);
		if (ret)
			return ret;
		data += len;
		first = last;
	}
	return 0;
}

static int frame_write(struct stream *st, const struct frame_header *h)
{
	struct pagemap *known = st->rc->known;
	const unsigned char *data = st->frame + FRAME_HEADER_BYTES +
				    h->nr_ranges * FRAME_RANGE_BYTES;
	size_t n = 0, page = 0;
	int ret = 0;

	for (uint32_t i = 0; i < h->nr_ranges && !ret; i++) {
		const struct vasi_range *r = &st->range[i];

		if (r->kind == VASI_KIND_ZERO)
			ret = zero_apply(st, r);
		else if (r->kind == VASI_KIND_HOLE)
			ret = holes_add(st, r);
	}
	/* what is left are the data ranges, in the order of the content */
	for (uint32_t i = 0; i < h->nr_ranges; i++)
		if (st->range[i].kind == VASI_KIND_DATA)
			st->range[n++] = st->range[i];
	if (n && !ret)
		ret = data_apply(st, st->range, n, data);
	for (size_t i = 0; i < n && !ret; i++) {
		const struct vasi_range *r = &st->range[i];

		ret = pagemap_set(known, r->space, r->start, r->pages,
				  st->digest + page, NULL);
		page += r->pages;
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
		if (ret)
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
	pthread_mutex_unlock(&rc->lock);
	eventfd_write(rc->event, 1);
}

/* what follows a header: descriptors and content, that one where it is due */
static int frame_recv(struct stream *st, const struct frame_header *h)
{
	size_t len = h->nr_ranges * FRAME_RANGE_BYTES;
	unsigned char *content = st->frame + FRAME_HEADER_BYTES + len;
	int ret;

	if (h->encoding && !(st->rc->encodings & ENCODING_BIT(h->encoding)))
		return stream_fail(st, -EPROTO,
				   "a frame in %s, which was not agreed on",
				   encoding_names[h->encoding]);
	if (!h->encoding)
		len += h->payload;
	ret = ring_recv(&st->ring, st->frame + FRAME_HEADER_BYTES, len);
	if (!ret && h->encoding) {
		content = st->stored;
		ret = ring_recv(&st->ring, content, h->stored);
	}
	if (ret)
		return stream_fail(st, -ECONNRESET,
				   "the data connection was closed in a frame");
	st->rc->bytes += FRAME_HEADER_BYTES + frame_content(h) +
			 h->nr_ranges * FRAME_RANGE_BYTES;
	/* without content it is the last of the descriptors */
	if (h->nr_ranges && fault_flip(h->round))
		content[(ssize_t)frame_content(h) - 1] ^= 1;
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
	if (!ret)
		ret = frame_verify(st, &h);
	if (ret)
		return ret;
	if (h.type == FRAME_ROUND_END) {
		round_ended(st, h.round);
		return 0;
	}
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
	ret = rc->guest->access->join(&st->guest, rc->guest);
	if (ret < 0)
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
	rc->object_fd = cfg->object_fd;
	rc->object_arg = cfg->object_arg;
	rc->nr = cfg->nr;
	for (unsigned int i = 0; i < cfg->nr; i++)
		rc->stream[i].fd = cfg->fd[i];
	pthread_rwlock_init(&rc->maps, NULL);
	pthread_mutex_init(&rc->lock, NULL);
	rc->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = rc->event < 0 ? -errno : 0;
	for (unsigned int i = 0; i < rc->nr && !err; i++)
		err = stream_start(&rc->stream[i], rc, i);
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
		if (st->guest)
			st->guest->access->close(st->guest);
		free(st->frame);
		compressor_free(st->compressor);
		free(st->stored);
		close(st->fd);
	}
	cleanup_close(&rc->event);
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
