// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "engine/fault.h"
#include "engine/sender.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/digest.h"
#include "wire/frame.h"
#include "wire/ring.h"

#define BATCH_ITEMS	512
/* pages without content in one descriptor: spreads their digests' cost */
#define BLANK_PAGES	16384
#define HEAD_BYTES	(FRAME_HEADER_BYTES + \
			 FRAME_MAX_RANGES * FRAME_RANGE_BYTES)

/**
 * struct batch - ranges for one frame, and the frame made of them
 * @item: what to send; data ranges have FRAME_MAX_PAGES pages together
 * @n: of @item
 * @head: header and descriptors
 * @head_len: bytes of it
 * @nr_ranges: descriptors
 * @iov: the frame as it is sent
 * @nr_iov: of @iov
 * @digest: of each data page in the frame
 * @pages: data pages in the frame
 * @data: content as read, FRAME_MAX_PAGES pages
 */
struct batch {
	struct send_item item[BATCH_ITEMS];
	size_t n;
	unsigned char head[HEAD_BYTES];
	size_t head_len;
	uint32_t nr_ranges;
	struct iovec iov[FRAME_MAX_PAGES + 1];
	size_t nr_iov;
	uint64_t digest[FRAME_MAX_PAGES];
	size_t pages;
	unsigned char *data;
};

struct stream {
	struct sender *s;
	unsigned int index;
	int fd;
	struct guest *guest;
	pthread_t thread;
	bool started;
	struct ring ring;
	struct batch *batch[2];
	uint64_t seq;
	struct send_totals total;	/* only .stream[0] of the array */
};

struct sender {
	struct guest *guest;
	struct pagemap *known;
	unsigned int nr;
	int event;
	pthread_mutex_t lock;
	pthread_cond_t work;
	/* under lock */
	uint32_t round;
	const struct send_item *items;
	size_t nr_items, next;
	uint64_t next_page;		/* within items[next] */
	uint64_t batches;
	bool suspended, stop;
	unsigned int running;
	int error;
	struct send_totals total;
	/* for the owner's eyes */
	_Atomic uint64_t bytes;
	_Atomic uint64_t left;
	struct stream stream[SENDER_MAX_STREAMS];
};

static void sender_notify(struct sender *s)
{
	eventfd_write(s->event, 1);
}

/* The next part of the round's work, 0 when there is none; called locked. */
static size_t batch_fill(struct sender *s, struct batch *b)
{
	uint64_t room = FRAME_MAX_PAGES;

	b->n = 0;
	while (s->next < s->nr_items && b->n < BATCH_ITEMS) {
		struct send_item it = s->items[s->next];
		uint64_t max = it.range.kind == VASI_KIND_DATA ? room :
			       BLANK_PAGES;
		uint64_t left = it.range.pages - s->next_page;

		if (!max)
			break;
		it.range.start += s->next_page << GUEST_PAGE_SHIFT;
		it.range.pages = left < max ? left : max;
		if (it.range.kind == VASI_KIND_DATA)
			room -= it.range.pages;
		s->next_page += it.range.pages;
		if (it.range.pages == left) {
			s->next++;
			s->next_page = 0;
		}
		s->left -= it.range.pages;
		b->item[b->n++] = it;
	}
	return b->n;
}

static size_t batch_take(struct stream *st, struct batch *b)
{
	struct sender *s = st->s;
	size_t n;

	pthread_mutex_lock(&s->lock);
	/* a test can want to know which batch goes where */
	while (fault_rotate() && !s->error && !s->stop &&
	       s->next < s->nr_items &&
	       (s->batches + s->round) % s->nr != st->index)
		pthread_cond_wait(&s->work, &s->lock);
	n = s->error || s->stop ? 0 : batch_fill(s, b);
	if (n)
		s->batches++;
	if (fault_rotate())
		pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void batch_range(struct batch *b, const struct vasi_range *r)
{
	frame_encode_range(b->head + b->head_len, r);
	b->head_len += FRAME_RANGE_BYTES;
	b->nr_ranges++;
}

/* one more data page at @page; adjacent ones share an iovec */
static void batch_page(struct batch *b, unsigned char *page, uint64_t digest)
{
	struct iovec *last = &b->iov[b->nr_iov - 1];

	if (b->nr_iov > 1 &&
	    (unsigned char *)last->iov_base + last->iov_len == page)
		last->iov_len += GUEST_PAGE_SIZE;
	else
		b->iov[b->nr_iov++] = (struct iovec){ page, GUEST_PAGE_SIZE };
	b->digest[b->pages++] = digest;
}

/* 1: all of it was known as zero, 0: not all */
static int zero_known(struct pagemap *known, const struct vasi_range *r)
{
	uint64_t digest[FRAME_MAX_PAGES], old[FRAME_MAX_PAGES], done = 0;
	int ret = 0, equal = 1;

	while (done < r->pages && !ret) {
		uint64_t start = r->start + (done << GUEST_PAGE_SHIFT);
		size_t n = 0;

		for (; n < FRAME_MAX_PAGES && done < r->pages; n++, done++)
			digest[n] = digest_zero(r->space, start +
						(n << GUEST_PAGE_SHIFT));
		ret = pagemap_set(known, r->space, start, n, digest, old);
		if (!ret && memcmp(digest, old, n * sizeof(old[0])))
			equal = 0;
	}
	return ret ? ret : equal;
}

static int item_blank(struct stream *st, struct batch *b,
		      const struct vasi_range *r)
{
	struct pagemap *known = st->s->known;
	int ret;

	if (r->kind == VASI_KIND_HOLE) {
		batch_range(b, r);
		pagemap_clear(known, r->space, r->start,
			      r->start + (r->pages << GUEST_PAGE_SHIFT));
		st->total.holes += r->pages;
		return 0;
	}
	/* all or nothing: its parts could be more than fit a frame */
	ret = zero_known(known, r);
	if (ret > 0) {
		st->total.equal += r->pages;
		return 0;
	}
	batch_range(b, r);
	st->total.zero += r->pages;
	return ret;
}

/*
 * Content of one data range to descriptors: runs of data, of zero, of what the
 * target has. The map knows a page from here on, though its frame may never
 * arrive: then the migration has failed, and nothing is sent by that map again.
 */
static int item_data(struct stream *st, struct batch *b,
		     const struct send_item *it, unsigned char *data)
{
	uint64_t digest[FRAME_MAX_PAGES], old[FRAME_MAX_PAGES];
	struct vasi_range run = { .pages = 0 };
	const uint32_t space = it->range.space;
	int ret;

	for (uint64_t i = 0; i < it->range.pages; i++)
		digest[i] = digest_page(space, it->range.start +
					(i << GUEST_PAGE_SHIFT),
					data + (i << GUEST_PAGE_SHIFT));
	ret = pagemap_set(st->s->known, space, it->range.start,
			  it->range.pages, digest, old);
	if (ret)
		return ret;
	if (it->untracked)
		st->total.untracked += it->range.pages;
	for (uint64_t i = 0; i < it->range.pages; i++) {
		unsigned char *page = data + (i << GUEST_PAGE_SHIFT);
		uint64_t addr = it->range.start + (i << GUEST_PAGE_SHIFT);
		bool equal = digest[i] == old[i];
		uint8_t kind = digest[i] == digest_zero(space, addr) ?
			       VASI_KIND_ZERO : VASI_KIND_DATA;

		if (run.pages && (equal || run.kind != kind)) {
			batch_range(b, &run);
			run.pages = 0;
		}
		if (equal) {
			st->total.equal++;
			st->total.untracked_equal += it->untracked;
			continue;
		}
		if (!run.pages) {
			run = it->range;
			run.start = addr;
			run.kind = kind;
			run.pages = 0;
		}
		run.pages++;
		if (kind == VASI_KIND_DATA) {
			batch_page(b, page, digest[i]);
			st->total.pages++;
		} else {
			st->total.zero++;
		}
	}
	if (run.pages)
		batch_range(b, &run);
	return 0;
}

/*
 * Page by page what cannot be read as a whole: behind the end of a file there
 * is nothing, which is what the target has there, too.
 */
static int read_sparse(struct stream *st, const struct vasi_range *r,
		       unsigned char *data)
{
	for (uint64_t i = 0; i < r->pages; i++) {
		unsigned char *page = data + (i << GUEST_PAGE_SHIFT);
		struct vasi_range one = *r;
		size_t done = 0;
		int ret;

		one.start += i << GUEST_PAGE_SHIFT;
		one.pages = 1;
		ret = st->guest->access->read(st->guest, &one, 1, page,
					      GUEST_PAGE_SIZE, &done);
		if (ret < 0 && ret != -EFAULT)
			return ret;
		if (ret < 0 || !done)
			memset(page, 0, GUEST_PAGE_SIZE);
	}
	return 0;
}

/*
 * A range that was not read. A guest that runs may have unmapped it: it is
 * given back, as the tracker may report pages of it that are left, and passed
 * over by making it empty. 1: it was read after all.
 */
static int read_failed(struct stream *st, struct send_item *it,
		       unsigned char *data)
{
	int ret;

	if (it->sparse) {
		ret = read_sparse(st, &it->range, data);
		return ret ? ret : 1;
	}
	if (st->s->suspended)
		return -EFAULT;
	if (!it->untracked) {
		ret = st->guest->access->mark(st->guest, &it->range, 1);
		if (ret < 0)
			return ret;
	}
	st->total.unreadable += it->range.pages;
	it->range.pages = 0;
	return 0;
}

/* Reads all data ranges, one after another, into the batch's buffer. */
static int batch_read(struct stream *st, struct batch *b)
{
	const struct guest_access *access = st->guest->access;
	struct vasi_range vec[BATCH_ITEMS];
	size_t map[BATCH_ITEMS], n = 0, done = 0, used = 0;
	int64_t begin = now_ns();
	int ret;

	for (size_t i = 0; i < b->n; i++)
		if (b->item[i].range.kind == VASI_KIND_DATA) {
			map[n] = i;
			vec[n++] = b->item[i].range;
		}
	while (done < n) {
		size_t step = 0;

		ret = access->read(st->guest, vec + done, n - done,
				   b->data + used,
				   FRAME_MAX_PAGES * GUEST_PAGE_SIZE - used,
				   &step);
		if (ret < 0 && ret != -EFAULT)
			return ret;
		if (ret < 0)
			step = 0;
		for (size_t i = done; i < done + step; i++)
			used += vec[i].pages << GUEST_PAGE_SHIFT;
		done += step;
		if (done == n)
			break;
		ret = read_failed(st, &b->item[map[done]], b->data + used);
		if (ret < 0)
			return ret;
		if (ret)
			used += vec[done].pages << GUEST_PAGE_SHIFT;
		done++;
	}
	st->total.read_ns += now_ns() - begin;
	return 0;
}

static int batch_build(struct stream *st, struct batch *b)
{
	struct frame_header h = {
		.type = FRAME_PAGES,
		.stream = st->index,
		.round = st->s->round,
		.stream_id = st->guest->stream_id,
	};
	unsigned char *data = b->data;
	int ret;

	b->head_len = FRAME_HEADER_BYTES;
	b->nr_ranges = 0;
	b->nr_iov = 1;
	b->pages = 0;
	ret = batch_read(st, b);
	for (size_t i = 0; i < b->n && !ret; i++) {
		const struct send_item *it = &b->item[i];

		if (it->range.kind != VASI_KIND_DATA) {
			ret = item_blank(st, b, &it->range);
			continue;
		}
		ret = item_data(st, b, it, data);
		data += it->range.pages << GUEST_PAGE_SHIFT;
	}
	if (ret || !b->nr_ranges)
		return ret;
	h.seq = st->seq++;
	h.nr_ranges = b->nr_ranges;
	h.payload = b->pages << GUEST_PAGE_SHIFT;
	frame_encode(b->head, &h);
	h.digest = frame_digest(b->head, b->head_len, b->digest, b->pages);
	frame_encode(b->head, &h);
	b->iov[0] = (struct iovec){ b->head, b->head_len };
	st->total.stream[0].frames++;
	st->total.stream[0].pages += b->pages;
	st->total.bytes += b->head_len + h.payload;
	return 0;
}

static int stream_send_wait(struct stream *st)
{
	int64_t begin = now_ns();
	int ret = ring_send_wait(&st->ring);

	st->total.send_ns += now_ns() - begin;
	return ret;
}

static int stream_send(struct stream *st, struct batch *b)
{
	int64_t begin = now_ns();
	size_t bytes = 0;
	int ret;

	for (size_t i = 0; i < b->nr_iov; i++)
		bytes += b->iov[i].iov_len;
	ret = ring_send_start(&st->ring, b->iov, b->nr_iov);
	st->total.send_ns += now_ns() - begin;
	if (!ret)
		st->s->bytes += bytes;
	return ret;
}

static int stream_end_round(struct stream *st, struct batch *b)
{
	struct frame_header h = {
		.type = FRAME_ROUND_END,
		.stream = st->index,
		.round = st->s->round,
		.stream_id = st->guest->stream_id,
		.seq = st->seq++,
	};
	int ret;

	frame_encode(b->head, &h);
	h.digest = frame_digest(b->head, FRAME_HEADER_BYTES, NULL, 0);
	frame_encode(b->head, &h);
	b->iov[0] = (struct iovec){ b->head, FRAME_HEADER_BYTES };
	b->nr_iov = 1;
	st->total.bytes += FRAME_HEADER_BYTES;
	ret = stream_send(st, b);
	return ret ? ret : stream_send_wait(st);
}

/* Reads one batch while the one before is on its way. */
static int stream_round(struct stream *st)
{
	unsigned int turn = 0;
	int ret = 0, err;

	while (!ret && batch_take(st, st->batch[turn])) {
		struct batch *b = st->batch[turn];

		ret = batch_build(st, b);
		if (ret || !b->nr_ranges)
			continue;
		ret = stream_send_wait(st);
		if (!ret)
			ret = stream_send(st, b);
		turn ^= 1;
	}
	err = stream_send_wait(st);
	if (!ret)
		ret = err;
	return ret ? ret : stream_end_round(st, st->batch[turn]);
}

static void totals_add(struct send_totals *t, const struct stream *st)
{
	const struct send_totals *a = &st->total;

	t->pages += a->pages;
	t->zero += a->zero;
	t->holes += a->holes;
	t->equal += a->equal;
	t->unreadable += a->unreadable;
	t->untracked += a->untracked;
	t->untracked_equal += a->untracked_equal;
	t->bytes += a->bytes;
	t->read_ns += a->read_ns;
	t->send_ns += a->send_ns;
	t->stream[st->index] = a->stream[0];
}

static void *stream_main(void *arg)
{
	struct stream *st = arg;
	struct sender *s = st->s;
	uint32_t round = 0;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		int ret;

		while (!s->stop && s->round == round)
			pthread_cond_wait(&s->work, &s->lock);
		if (s->stop)
			break;
		round = s->round;
		pthread_mutex_unlock(&s->lock);

		st->total = (struct send_totals){ 0 };
		ret = stream_round(st);

		pthread_mutex_lock(&s->lock);
		totals_add(&s->total, st);
		if (ret && !s->error) {
			s->error = ret;
			pthread_cond_broadcast(&s->work);
		}
		if (--s->running == 0 || ret)
			sender_notify(s);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int stream_start(struct stream *st, struct sender *s,
			unsigned int index)
{
	int ret;

	st->s = s;
	st->index = index;
	ret = s->guest->access->join(&st->guest, s->guest);
	if (ret < 0)
		return ret;
	for (int i = 0; i < 2; i++) {
		st->batch[i] = calloc(1, sizeof(*st->batch[i]));
		if (!st->batch[i])
			return -ENOMEM;
		st->batch[i]->data = aligned_alloc(GUEST_PAGE_SIZE,
						   FRAME_MAX_PAGES *
						   GUEST_PAGE_SIZE);
		if (!st->batch[i]->data)
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

int sender_new(struct sender **ret, const struct sender_config *cfg)
{
	struct sender *s = calloc(1, sizeof(*s));
	int err;

	if (!s) {
		for (unsigned int i = 0; i < cfg->nr; i++)
			close(cfg->fd[i]);
		return -ENOMEM;
	}
	s->guest = cfg->guest;
	s->known = cfg->known;
	s->nr = cfg->nr;
	for (unsigned int i = 0; i < cfg->nr; i++)
		s->stream[i].fd = cfg->fd[i];
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	s->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = s->event < 0 ? -errno : 0;
	for (unsigned int i = 0; i < s->nr && !err; i++)
		err = stream_start(&s->stream[i], s, i);
	if (err) {
		sender_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void sender_free(struct sender *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	for (unsigned int i = 0; i < s->nr; i++)
		shutdown(s->stream[i].fd, SHUT_RDWR);
	for (unsigned int i = 0; i < s->nr; i++) {
		struct stream *st = &s->stream[i];

		if (st->started) {
			pthread_join(st->thread, NULL);
			ring_exit(&st->ring);
		}
		if (st->guest)
			st->guest->access->close(st->guest);
		for (int j = 0; j < 2; j++) {
			if (st->batch[j])
				free(st->batch[j]->data);
			free(st->batch[j]);
		}
		close(st->fd);
	}
	cleanup_close(&s->event);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int sender_round(struct sender *s, uint32_t round,
		 const struct send_item *items, size_t n, bool suspended)
{
	uint64_t left = 0;
	int ret;

	for (size_t i = 0; i < n; i++)
		left += items[i].range.pages;
	pthread_mutex_lock(&s->lock);
	ret = s->running ? -EBUSY : s->error;
	if (!ret) {
		s->items = items;
		s->nr_items = n;
		s->next = 0;
		s->next_page = 0;
		s->batches = 0;
		s->left = left;
		s->suspended = suspended;
		s->running = s->nr;
		s->total = (struct send_totals){ 0 };
		s->round = round;
		pthread_cond_broadcast(&s->work);
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}

int sender_eventfd(const struct sender *s)
{
	return s->event;
}

int sender_done(struct sender *s, struct send_totals *ret)
{
	eventfd_t unused;
	int done;

	eventfd_read(s->event, &unused);
	pthread_mutex_lock(&s->lock);
	done = s->error ? s->error : !s->running;
	if (done == 1)
		*ret = s->total;
	pthread_mutex_unlock(&s->lock);
	return done;
}

uint64_t sender_bytes(const struct sender *s)
{
	return s->bytes;
}

uint64_t sender_left(const struct sender *s)
{
	return s->left;
}
