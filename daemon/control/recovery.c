// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "control/job.h"
#include "control/recovery.h"
#include "guest/choose.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "log.h"
#include "session/recover.h"

/* more than the module has streams */
#define SEALED_MAX	1024
/* between two questions */
#define AGAIN_S		3
#define ASK_MS		5000
/* and as many times of that as it was asked before, but not more than */
#define AGAIN_MAX	4
/* refusals are forgotten then: they are what is told of the unknown, too */
#define REFUSED_S	(7 * 24 * 3600)

/**
 * struct look - one look at everything
 * @s: the server
 * @sealed: what is sealed on this host, whoever did it
 * @n: of @sealed
 * @wait: something is to be looked at again
 */
struct look {
	struct server *s;
	struct vasi_stream_info *sealed;
	size_t n;
	bool wait;
};

static struct recovery *find(struct server *s, enum journal_role role,
			     uint64_t stream_id)
{
	struct recovery *r;

	for (r = s->recoveries; r; r = r->next)
		if (r->role == role && r->stream_id == stream_id)
			return r;
	return NULL;
}

static struct recovery *find_or_add(struct server *s, enum journal_role role,
				    uint64_t stream_id)
{
	struct recovery *r = find(s, role, stream_id);

	if (r)
		return r;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->role = role;
	r->stream_id = stream_id;
	r->next = s->recoveries;
	s->recoveries = r;
	return r;
}

/* NULL: @r tells of a guest that is not this entry's */
static struct entry *entry_of(struct server *s, const struct journal_record *r)
{
	struct entry *e = registry_find(&s->registry, r->guest);

	return e && !strcmp(e->uuid, r->uuid) && e->pid == r->pid ? e : NULL;
}

/* -- what is sealed */

static void list_sealed(struct look *l)
{
	l->sealed = calloc(SEALED_MAX, sizeof(*l->sealed));
	for (size_t i = 0; l->sealed && guest_accesses[i]; i++) {
		size_t n = 0;

		if (guest_accesses[i]->sealed(l->sealed + l->n,
					      SEALED_MAX - l->n, &n) >= 0)
			l->n += n;
	}
}

static bool is_sealed(const struct look *l, const struct journal_record *r)
{
	uint32_t service = r->role == JOURNAL_SOURCE ? VASI_SERVICE_SOURCE :
						       VASI_SERVICE_TARGET;

	for (size_t i = 0; i < l->n; i++)
		if (l->sealed[i].stream_id == r->stream_id &&
		    l->sealed[i].service == service)
			return !journal_stale(r);
	return false;
}

/* -- the process */

static void start(struct server *s, struct recovery *r)
{
	struct keys_place place;
	struct recover job = {
		.keys = server_keys(s, &place),
		.dir = s->journal_dir, .role = r->role,
		.stream_id = r->stream_id, .force = r->force,
		.again = r->tries > 0, .ms = ASK_MS,
	};
	sigset_t none;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		log_error("no process to recover stream %016" PRIx64 ": %s",
			  r->stream_id, strerror(errno));
		return;
	}
	if (pid) {
		r->pid = pid;
		return;
	}
	close_range(3, ~0U, 0);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	log_open("mspd[recovery]", s->config.log_level);
	_exit(recover_run(&job));
}

/* -- looking */

static void mark_doubt(struct look *l, struct recovery *r,
		       const struct journal_record *j)
{
	struct entry *e;

	/* an older worker may have brought it, after this daemon started */
	registry_look(&l->s->registry, j->guest);
	e = entry_of(l->s, j);
	if (!e || (e->state != ENTRY_RUNNING && e->state != ENTRY_IN_DOUBT))
		return;
	e->state = ENTRY_IN_DOUBT;
	e->doubt.marked = true;
	e->doubt.side = j->role == JOURNAL_SOURCE ? "source" : "target";
	e->doubt.asked = r->tries;
	snprintf(e->doubt.stream, sizeof(e->doubt.stream), "%016" PRIx64,
		 j->stream_id);
	if (j->port)
		snprintf(e->doubt.remote, sizeof(e->doubt.remote),
			 strchr(j->host, ':') ? "[%s]:%u" : "%s:%u", j->host,
			 j->port);
	else
		snprintf(e->doubt.remote, sizeof(e->doubt.remote), "%s",
			 j->host);
	if (r->told)
		return;
	r->told = true;
	if (j->role == JOURNAL_SOURCE && j->type == JOURNAL_COMMIT)
		log_error("guest %s (PID %d) is stopped, in doubt: it was handed over to %s, which did not say that it runs there, and is asked",
			  e->name, e->pid, e->doubt.remote);
	else if (j->type == JOURNAL_PREPARED)
		log_error("guest %s (PID %d) is complete here, stopped, in doubt: %s has not handed it over",
			  e->name, e->pid, e->doubt.remote);
}

/* is there anything to do, and is it this host's to do it? */
static bool is_due(const struct look *l, const struct recovery *r,
		   const struct journal_record *j)
{
	bool sealed = is_sealed(l, j);

	if (j->type == JOURNAL_FORCED)
		return sealed;
	if (j->role == JOURNAL_SOURCE || j->type == JOURNAL_BEGIN)
		return true;
	if (j->type == JOURNAL_PREPARED)
		return !sealed || r->force;
	return sealed;
}

static bool is_settled(const struct look *l, const struct journal_record *j)
{
	return (j->type == JOURNAL_COMMIT || j->type == JOURNAL_FORCED ||
		j->type == JOURNAL_REFUSED) && !is_sealed(l, j) &&
	       (j->role == JOURNAL_TARGET || j->type == JOURNAL_FORCED);
}

static void forget_refusal(struct look *l, const struct journal_record *j)
{
	struct journal open;

	if (j->type != JOURNAL_REFUSED || time(NULL) - j->time < REFUSED_S ||
	    journal_open(&open, l->s->journal_dir, j->role, j->stream_id, 0))
		return;
	journal_remove(&open);
}

static bool has_job(const struct server *s, const struct journal_record *r)
{
	const struct job *j;

	for (j = s->jobs; j; j = j->next)
		if (j->pid && !strcmp(j->m.name, r->guest) &&
		    (j->side == JOB_SOURCE) == (r->role == JOURNAL_SOURCE))
			return true;
	return false;
}

static void found(void *arg, enum journal_role role, uint64_t stream_id)
{
	struct journal_record j;
	struct look *l = arg;
	struct recovery *r;
	bool held = false;
	int err = journal_peek(l->s->journal_dir, role, stream_id, &j, &held);

	if (err == -ENOENT)
		return;
	r = find_or_add(l->s, role, stream_id);
	if (!r)
		return;
	r->seen = true;
	if (err) {
		if (!r->told)
			log_error("%s/%016" PRIx64 ": what this journal says cannot be told (%s), so what it is about stays as it is",
				  l->s->journal_dir, stream_id, strerror(-err));
		r->told = true;
		return;
	}
	if (is_settled(l, &j) && !r->pid) {
		/* an older worker may have brought it, likewise */
		if (j.type == JOURNAL_COMMIT && !journal_stale(&j))
			registry_look(&l->s->registry, j.guest);
		forget_refusal(l, &j);
		r->seen = false;
		return;
	}
	/* whose end leads here again */
	if (held && !r->pid && has_job(l->s, &j)) {
		r->seen = false;
		return;
	}
	if (is_sealed(l, &j))
		mark_doubt(l, r, &j);
	if (!r->pid && !held && is_due(l, r, &j)) {
		if (now_ns() >= r->after)
			start(l->s, r);
		l->wait = true;
	}
	l->wait |= held;
}

static bool known(struct server *s, const struct vasi_stream_info *v)
{
	return find(s, v->service == VASI_SERVICE_SOURCE ? JOURNAL_SOURCE :
							   JOURNAL_TARGET,
		    v->stream_id);
}

/* A sealed guest of which no journal tells: nobody but the operator knows. */
static void mark_unknown(struct look *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct vasi_stream_info *v = &l->sealed[i];
		struct entry *e = registry_find_pid(&l->s->registry, v->pid);

		if (v->opens || !e || e->doubt.marked || known(l->s, v) ||
		    (e->state != ENTRY_RUNNING && e->state != ENTRY_IN_DOUBT))
			continue;
		if (e->state == ENTRY_RUNNING)
			log_error("guest %s (PID %d) is stopped, in doubt: stream %016" PRIx64 " is in no journal here",
				  e->name, e->pid, (uint64_t)v->stream_id);
		e->state = ENTRY_IN_DOUBT;
		e->doubt = (struct entry_doubt){ .marked = true };
	}
}

static void drop_unseen(struct server *s)
{
	struct recovery **at = &s->recoveries, *r;

	while ((r = *at)) {
		if (r->seen || r->pid) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		free(r);
	}
}

void recovery_look(struct server *s)
{
	struct itimerspec again = { 0 };
	struct look l = { .s = s };
	struct recovery *r;
	struct entry *e;

	for (r = s->recoveries; r; r = r->next)
		r->seen = false;
	for (e = s->registry.entries; e; e = e->next)
		e->doubt.marked = false;
	list_sealed(&l);
	journal_scan(s->journal_dir, found, &l);
	mark_unknown(&l);
	for (e = s->registry.entries; e; e = e->next) {
		if (e->state != ENTRY_IN_DOUBT || e->doubt.marked)
			continue;
		e->state = ENTRY_RUNNING;
		e->doubt = (struct entry_doubt){ 0 };
	}
	drop_unseen(s);
	free(l.sealed);
	again.it_value.tv_sec = l.wait ? AGAIN_S : 0;
	timerfd_settime(s->recovery_fd, 0, &again, NULL);
}

bool recovery_reaped(struct server *s, pid_t pid, int status)
{
	struct recovery *r;

	for (r = s->recoveries; r && r->pid != pid; r = r->next)
		;
	if (!r)
		return false;
	r->pid = 0;
	r->force = false;
	if (!WIFEXITED(status) || WEXITSTATUS(status) == RECOVERED_LATER ||
	    WEXITSTATUS(status) == RECOVERED_LOST) {
		r->tries++;
		r->after = now_ns() + AGAIN_S * NSEC_PER_SEC / 2 *
			   (r->tries < AGAIN_MAX ? r->tries : AGAIN_MAX);
	}
	return true;
}

int recovery_start(struct server *s, struct entry *e, bool force)
{
	struct recovery *r;

	if (!e->doubt.side)
		return -ENOENT;
	r = find(s, !strcmp(e->doubt.side, "source") ? JOURNAL_SOURCE :
						       JOURNAL_TARGET,
		 strtoull(e->doubt.stream, NULL, 16));
	if (!r)
		return -ENOENT;
	if (r->role == JOURNAL_TARGET && !force)
		return -EBUSY;
	if (r->pid)
		return -EAGAIN;
	r->force = force;
	r->after = 0;
	recovery_look(s);
	return 0;
}

void recovery_soon(struct server *s)
{
	struct itimerspec soon = { .it_value.tv_sec = 1 };

	if (s->recovery_fd >= 0 && s->recoveries)
		timerfd_settime(s->recovery_fd, 0, &soon, NULL);
}

static void timer_ready(void *arg, uint32_t events)
{
	struct server *s = arg;
	uint64_t count;

	(void)events;
	if (read(s->recovery_fd, &count, sizeof(count)) == sizeof(count))
		recovery_look(s);
}

int recovery_open(struct server *s)
{
	int r = journal_setup(s->config.state_dir, s->journal_dir,
			      sizeof(s->journal_dir));

	if (r < 0) {
		log_error("%s/journal: %s", s->config.state_dir, strerror(-r));
		return r;
	}
	s->recovery_fd = timerfd_create(CLOCK_MONOTONIC,
					TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->recovery_fd < 0)
		return -errno;
	return loop_add(&s->loop, &s->recovery, s->recovery_fd, EPOLLIN,
			timer_ready, s);
}

void recovery_close(struct server *s)
{
	struct recovery *r;

	/* their processes come to their end by themselves */
	while ((r = s->recoveries)) {
		s->recoveries = r->next;
		free(r);
	}
	loop_remove(&s->loop, &s->recovery);
	if (s->recovery_fd >= 0)
		close(s->recovery_fd);
}
