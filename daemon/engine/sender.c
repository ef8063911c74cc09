// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "engine/adapt.h"
#include "engine/batch.h"
#include "engine/fault.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/digest.h"
#include "wire/ring.h"
#include "wire/sock.h"

/* pages without content in one descriptor: spreads their digests' cost */
#define BLANK_PAGES	16384

struct stream {
	struct sender *s;
	unsigned int index;
	int fd;
	struct guest *guest;
	pthread_t thread;
	bool started;
	struct ring ring;
	struct batch *batch[2];
	/* NULL: nothing is encoded */
	struct compressor *compressor;
	unsigned char *spare;		/* changes places with a batch's buffer */
	struct adapt adapt;
	struct adapt_sent sent;		/* since @mark, not told to it yet */
	int64_t mark;
	uint64_t seq;
	struct send_totals total;	/* only .stream[0] of the array */
};

struct sender {
	struct guest *guest;
	struct pagemap *known;
	unsigned int encodings;
	enum encoding encoding;
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

/* what an encoding would do to the batch, learned from a part of it */
static int stream_sample(struct stream *st, struct batch *b, enum encoding e)
{
	bool first = !st->adapt.cost[e].known;
	int64_t begin;
	int ret;

	/* the first use pays for the tables */
	if (first) {
		ret = batch_sample(b, st->compressor, e, st->spare);
		if (ret < 0)
			return ret;
	}
	begin = now_ns();
	ret = batch_sample(b, st->compressor, e, st->spare);
	if (ret < 0)
		return ret;
	adapt_sample(&st->adapt, e, ADAPT_SAMPLE_BYTES, ret, now_ns() - begin);
	return 0;
}

static int stream_encode(struct stream *st, struct batch *b)
{
	const bool suspended = st->s->suspended;
	enum encoding e = adapt_encoding(&st->adapt, suspended);
	enum encoding wanted = adapt_wanted(&st->adapt);
	int64_t begin = now_ns();
	int ret = 0;

	if (wanted && !suspended && b->pages << GUEST_PAGE_SHIFT >=
	    2 * ADAPT_SAMPLE_BYTES)
		ret = stream_sample(st, b, wanted);
	if (!ret && e)
		ret = batch_encode(b, st->compressor, e, &st->spare);
	st->sent.encode_ns += now_ns() - begin;
	return ret < 0 ? ret : 0;
}

/* one more batch is handed over, or the last of a round is sent */
static void stream_account(struct stream *st, const struct batch *b)
{
	int64_t now = now_ns();

	if (b) {
		st->sent.plain = b->pages << GUEST_PAGE_SHIFT;
		st->sent.stored = batch_bytes(b);
	}
	st->sent.total_ns = now - st->mark;
	st->mark = now;
	st->total.encode_ns += st->sent.encode_ns;
	if (!st->s->suspended)
		adapt_sent(&st->adapt, &st->sent);
	st->sent = (struct adapt_sent){ 0 };
}

static int batch_frame(struct stream *st, struct batch *b)
{
	const struct batch_context c = {
		.guest = st->guest,
		.known = st->s->known,
		.suspended = st->s->suspended,
		.total = &st->total,
	};
	struct frame_header h = {
		.type = FRAME_PAGES,
		.stream = st->index,
		.round = st->s->round,
		.stream_id = st->guest->stream_id,
	};
	int ret = batch_build(b, &c);

	if (!ret && b->pages && st->compressor)
		ret = stream_encode(st, b);
	if (ret || !b->nr_ranges)
		return ret;
	h.seq = st->seq++;
	batch_seal(b, &h);
	st->total.stream[0].frames++;
	st->total.stream[0].pages += b->pages;
	st->total.encoded[b->encoding] += b->pages;
	st->total.bytes += batch_bytes(b);
	return 0;
}

static int stream_send_wait(struct stream *st)
{
	int64_t begin = now_ns();
	int ret = ring_send_wait(&st->ring);
	int64_t ns = now_ns() - begin;

	st->total.send_ns += ns;
	st->sent.wait_ns += ns;
	return ret;
}

static int stream_send(struct stream *st, struct batch *b)
{
	int64_t begin = now_ns();
	size_t bytes = batch_bytes(b);	/* the ring takes the vector apart */
	uint64_t bit;
	int64_t ns;
	int ret;

	if (fault_bit(FAULT_FLIP, st->s->round, bytes, &bit))
		batch_flip(b, bit);
	ret = ring_send_start(&st->ring, b->iov, b->nr_iov);
	ns = now_ns() - begin;
	st->total.send_ns += ns;
	if (!st->ring.use_uring)	/* all of it was sent meanwhile */
		st->sent.wait_ns += ns;
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

	batch_empty(b);
	batch_seal(b, &h);
	st->total.bytes += batch_bytes(b);
	ret = stream_send(st, b);
	return ret ? ret : stream_send_wait(st);
}

/* Reads one batch while the one before is on its way. */
static int stream_round(struct stream *st)
{
	unsigned int turn = 0;
	int ret = 0, err;

	st->mark = now_ns();
	while (!ret && batch_take(st, st->batch[turn])) {
		struct batch *b = st->batch[turn];

		ret = batch_frame(st, b);
		if (ret || !b->nr_ranges)
			continue;
		ret = stream_send_wait(st);
		if (!ret)
			ret = stream_send(st, b);
		stream_account(st, b);
		turn ^= 1;
	}
	err = stream_send_wait(st);
	stream_account(st, NULL);
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
	t->read += a->read;
	t->untracked += a->untracked;
	t->untracked_equal += a->untracked_equal;
	for (int i = 0; i < ENCODINGS; i++)
		t->encoded[i] += a->encoded[i];
	t->bytes += a->bytes;
	t->read_ns += a->read_ns;
	t->encode_ns += a->encode_ns;
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

/* streams that share a processor */
static double crowd(unsigned int streams)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) ||
	    CPU_COUNT(&set) > (int)streams)
		return 1;
	return (double)streams / CPU_COUNT(&set);
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
		st->batch[i] = batch_new();
		if (!st->batch[i])
			return -ENOMEM;
	}
	if (s->encodings || s->encoding) {
		st->compressor = compressor_new(s->encodings |
						ENCODING_BIT(s->encoding));
		st->spare = batch_buffer();
		if (!st->compressor || !st->spare)
			return -ENOMEM;
	}
	ret = ring_init(&st->ring, st->fd, true);
	if (ret)
		return ret;
	adapt_init(&st->adapt, s->encodings, s->encoding, st->ring.use_uring,
		   crowd(s->nr));
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
	s->encodings = cfg->encodings;
	s->encoding = cfg->encoding;
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
		for (int j = 0; j < 2; j++)
			batch_free(st->batch[j]);
		compressor_free(st->compressor);
		free(st->spare);
		sock_close(&st->fd);
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
