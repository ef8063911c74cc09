// SPDX-License-Identifier: GPL-2.0
/*
 * Memory of a guest without the module, as the handles of a stream see it
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "guest/track.h"
#include "guest/user.h"
#include "guest/user_mem.h"
#include "lib/clock.h"
#include "log.h"

#define STOP_MS		500
/* of a pass that needs all threads stopped: a try, what runs between, all */
#define HOLD_MS		50
#define HOLD_PAUSE_MS	50
#define HOLD_TRIES	50

/**
 * struct user_track - what works on a stream's memory
 * @mem: content, objects, mappings
 * @tracker: NULL = never started
 * @tracked: it is
 */
struct user_track {
	struct user_mem mem;
	struct tracker *tracker;
	bool tracked;
};

struct copy {
	pid_t tid;
	int flags;
	int fd;
};

/*
 * By the tracer. No other thread runs, so that none forks while the descriptor
 * is there.
 */
static int copy_uffd(struct user_stream *s, void *arg)
{
	struct copy *c = arg;
	const uint64_t flags[6] = { (uint64_t)c->flags };
	struct user_thread *t = NULL;
	uint64_t args[6] = {};
	long fd, closed;
	int r = 0;

	if (!s->nr_threads)
		r = user_stop(s, c->tid, deadline_in(STOP_MS), NULL);
	for (size_t i = 0; !r && i < s->nr_threads && !t; i++)
		if (!s->threads[i].stopped && !s->threads[i].mute)
			t = &s->threads[i];
	if (!t)
		return r ? r : -EBUSY;
	r = user_inject(s, t, SYS_userfaultfd, flags, &fd);
	if (!r && fd >= 0) {
		c->fd = pidfd_getfd(s->pidfd, (int)fd, 0);
		if (c->fd < 0)
			r = -errno;
		args[0] = (uint64_t)fd;
		if (user_inject(s, t, SYS_close, args, &closed) && !r)
			r = -ESRCH;
	}
	return r ? r : fd < 0 ? (int)fd : 0;
}

static int uffd(void *arg, int flags)
{
	struct user_stream *s = arg;
	struct copy c = { 0, flags, -1 };
	int r = user_trace(s, copy_uffd, &c);

	/* with a thread that waits for storage the first one has to do */
	if (r == -ETIMEDOUT) {
		c.tid = s->pid;
		r = user_trace(s, copy_uffd, &c);
	}
	if (!r)
		return c.fd;
	if (c.fd >= 0)
		close(c.fd);
	return r;
}

/* While one thread does not stop the others stand still: for a moment only. */
static int stop(void *arg)
{
	struct guest_holdup holdup = {};
	struct user_stream *s = arg;
	unsigned int tries;
	int r = 0;

	for (tries = 0; tries < HOLD_TRIES && !s->suspended; tries++) {
		if (tries)
			sleep_ms(HOLD_PAUSE_MS);
		r = user_hold(s, deadline_in(HOLD_MS), &holdup);
		if (r != -ETIMEDOUT)
			break;
	}
	if (r == -ETIMEDOUT)
		log_warning("guest %d: thread %d (%s) does not stop, so what was written is not known",
			    s->pid, holdup.tid, holdup.comm);
	return r;
}

static void go(void *arg)
{
	struct user_stream *s = arg;

	if (!s->suspended)
		user_release(s);
}

static bool still(void *arg)
{
	const struct user_stream *s = arg;

	return s->suspended;
}

static int gone(void *arg)
{
	return user_alive(arg);
}

static struct user_track *get(struct user_stream *s)
{
	struct user_track *t;

	pthread_mutex_lock(&s->lock);
	t = s->track;
	if (!t) {
		t = calloc(1, sizeof(*t));
		if (t)
			user_mem_init(&t->mem, s->pid, s->proc, s->mem,
				      s->service);
		s->track = t;
	}
	pthread_mutex_unlock(&s->lock);
	return t;
}

/*
 * It looks the same from below: an exec has ended the memory as well. What was
 * read of /proc may then be the new program's.
 */
static int result(const struct user_stream *s, int r)
{
	int why = user_alive(s);

	return why ? why : r;
}

int user_read(struct guest *g, const struct vasi_range *vec, size_t n,
	      void *data, size_t len, size_t *ret_done)
{
	struct user_stream *s = user_of(g);
	struct user_track *t = get(s);

	if (!t)
		return -ENOMEM;
	return result(s, user_mem_read(&t->mem, vec, n, data, len, ret_done));
}

int user_write(struct guest *g, const struct vasi_range *vec, size_t n,
	       const void *data, size_t len, size_t *ret_done)
{
	struct user_stream *s = user_of(g);
	struct user_track *t = get(s);

	if (!t)
		return -ENOMEM;
	return result(s, user_mem_write(&t->mem, vec, n, data, len, ret_done));
}

void user_fill(struct guest *g, int uffd)
{
	struct user_track *t = get(user_of(g));

	if (t)
		t->mem.fill = uffd;
}

int user_track(struct guest *g, int on)
{
	struct user_stream *s = user_of(g);
	const struct track_host host = {
		.pid = s->pid, .proc = s->proc, .uffd = uffd, .stop = stop,
		.go = go, .still = still, .gone = gone, .arg = s,
	};
	struct user_track *t = get(s);
	int r = 0;

	if (!t)
		return -ENOMEM;
	if (on && !t->tracker)
		r = tracker_new(&t->tracker, &host);
	if (!r && t->tracker)
		r = tracker_track(t->tracker, on);
	t->tracked = on && !r;
	return result(s, r);
}

int user_harvest(struct guest *g, uint32_t space, uint64_t start, uint64_t end,
		 uint64_t max_pages, struct vasi_range *vec, size_t len,
		 size_t *ret_n, uint64_t *ret_end)
{
	struct user_stream *s = user_of(g);
	struct user_track *t = get(s);
	int r;

	if (!t)
		return -ENOMEM;
	if (space)
		r = user_mem_object_harvest(&t->mem, space, start, end,
					    max_pages, vec, len, ret_n,
					    ret_end);
	else if (!t->tracker)
		r = -EBUSY;
	else
		r = tracker_harvest(t->tracker, start, end, max_pages, vec,
				    len, ret_n, ret_end);
	return result(s, r);
}

int user_mark(struct guest *g, const struct vasi_range *vec, size_t n)
{
	struct user_stream *s = user_of(g);
	struct user_track *t = get(s);

	if (!t)
		return -ENOMEM;
	return t->tracker ? tracker_mark(t->tracker, vec, n) : -EBUSY;
}

int user_objects(struct guest *g, struct vasi_object *vec, size_t len,
		 size_t *ret_n)
{
	struct user_stream *s = user_of(g);
	struct user_track *t = get(s);

	if (!t)
		return -ENOMEM;
	return result(s, user_mem_objects(&t->mem, s->suspended, vec, len,
					  ret_n));
}

int user_mappings(struct guest *g, struct vasi_mapping *vec, size_t len,
		  size_t *ret_n)
{
	struct user_stream *s = user_of(g);
	struct user_track *t = get(s);

	if (!t)
		return -ENOMEM;
	return result(s, user_mem_mappings(&t->mem, s->suspended, t->tracked,
					   vec, len, ret_n));
}

void user_track_count(struct user_stream *s, uint64_t *count)
{
	struct user_track *t = get(s);

	if (!t)
		return;
	if (t->tracker)
		tracker_count(t->tracker, count);
	pthread_mutex_lock(&t->mem.lock);
	count[VASI_COUNT_READ_BYTES] += t->mem.read_bytes;
	count[VASI_COUNT_WRITE_BYTES] += t->mem.write_bytes;
	pthread_mutex_unlock(&t->mem.lock);
}

void user_track_free(struct user_stream *s)
{
	struct user_track *t = s->track;

	s->track = NULL;
	if (!t)
		return;
	tracker_free(t->tracker);
	user_mem_fini(&t->mem);
	free(t);
}
