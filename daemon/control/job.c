// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/client.h"
#include "control/job.h"
#include "control/recovery.h"
#include "control/worker.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "log.h"

static const char * const side_names[] = {
	[JOB_SOURCE] = "source",
	[JOB_TARGET] = "target",
};

static void line_ready(void *arg, uint32_t events);

unsigned int job_count(const struct server *s, enum job_side side)
{
	unsigned int n = 0;
	const struct job *j;

	for (j = s->jobs; j; j = j->next)
		n += j->side == side && j->pid && !j->stranger;
	return n;
}

unsigned int job_strangers(const struct server *s, const char *peer)
{
	unsigned int n = 0;
	const struct job *j;

	for (j = s->jobs; j; j = j->next)
		n += j->stranger && j->pid && !j->cancelled &&
		     (!peer || !strcmp(j->peer, peer));
	return n;
}

/* nothing was begun for it that would have to be undone */
static void drop(struct job *j)
{
	kill(j->pid, SIGKILL);
	j->cancelled = true;
}

void job_drop_stranger(struct server *s)
{
	struct job *j, *oldest = NULL;

	for (j = s->jobs; j; j = j->next)
		if (j->stranger && j->pid && !j->cancelled)
			oldest = j;
	if (oldest)
		drop(oldest);
}

struct job *job_find(struct server *s, unsigned int id)
{
	struct job *j;

	for (j = s->jobs; j; j = j->next)
		if (j->id == id && !j->stranger)
			return j;
	return NULL;
}

int job_watch(struct job *j, uint64_t client)
{
	if (j->nr_watchers == JOB_WATCHERS)
		return -ENOSPC;
	j->watchers[j->nr_watchers++] = client;
	return 0;
}

/* tells the watchers; takes over @event */
static void publish(struct job *j, json_t *event)
{
	json_object_set_new(event, "migration", json_integer(j->id));
	for (unsigned int i = 0; i < j->nr_watchers; i++)
		client_notify(j->server, j->watchers[i], "migration.event",
			      event);
	json_decref(event);
}

static void log_round(const struct job *j, json_t *event)
{
	json_int_t round = 0, pages = 0, bytes = 0, ns = 0;
	const char *decision = "";

	json_unpack(event, "{s?I, s?I, s?I, s?I, s?s}", "round", &round,
		    "pages", &pages, "bytes", &bytes, "ns", &ns,
		    "decision", &decision);
	log_info("guest %s: round %lld: %lld pages, %lld bytes, %lld ms, %s",
		 j->m.name, (long long)round, (long long)pages,
		 (long long)bytes, (long long)(ns / NSEC_PER_MSEC), decision);
}

/* takes over @event */
static void handle_event(struct job *j, const char *name, json_t *event)
{
	const char *phase = NULL;

	if (!strcmp(name, "result")) {
		/* kept back until the worker has ended and all is settled */
		json_decref(j->result);
		j->result = event;
		return;
	}
	if (j->stranger) {
		json_decref(event);
		return;
	}
	if (!strcmp(name, "progress")) {
		json_decref(j->progress);
		j->progress = json_incref(event);
	} else if (!strcmp(name, "phase")) {
		json_unpack(event, "{s:s}", "phase", &phase);
		snprintf(j->phase, sizeof(j->phase), "%s", phase ?: "");
	} else if (!strcmp(name, "round")) {
		log_round(j, event);
	}
	publish(j, event);
}

/* the stranger has shown that it may be here */
static int admit(struct job *j, const json_t *request)
{
	const char *host = json_string_value(json_object_get(request, "host"));
	struct server *s = j->server;
	int r = 0;

	if (!j->stranger || j->cancelled)
		return -EPROTO;
	if (s->stopping)
		r = -ESHUTDOWN;
	else if (job_count(s, JOB_TARGET) >= s->config.max_migrations)
		r = -EBUSY;
	if (r < 0) {
		log_warning("%s wants to send a guest, but %s", j->peer,
			    r == -EBUSY ? "max_migrations is reached" :
			    "this daemon is stopping");
		return r;
	}
	snprintf(j->host, sizeof(j->host), "%s", host ?: "");
	j->stranger = false;
	j->id = ++s->next_job;
	return 0;
}

static int handle_request(struct job *j, const char *what, json_t *request)
{
	const char *name = NULL, *uuid = NULL;
	struct entry *e;
	int r;

	if (!strcmp(what, "admit"))
		return admit(j, request);
	if (j->stranger)
		return -EPROTO;
	json_unpack(request, "{s:s, s?s}", "name", &name, "uuid", &uuid);
	if (!name)
		return -EPROTO;

	if (!strcmp(what, "reserve") && uuid && j->side == JOB_TARGET &&
	    !j->m.name[0]) {
		r = registry_reserve(&j->server->registry, name, uuid, &e);
		if (r < 0)
			return r;
		snprintf(j->m.name, sizeof(j->m.name), "%s", name);
		snprintf(j->m.uuid, sizeof(j->m.uuid), "%s", uuid);
		snprintf(e->origin, sizeof(e->origin), "%.255s", j->peer);
		return 0;
	}

	/* the rest is about the guest of this job */
	if (strcmp(name, j->m.name))
		return -EPROTO;
	e = registry_find(&j->server->registry, name);
	if (!e)
		return -ENOENT;
	if (!strcmp(what, "arrived") && e->state == ENTRY_INCOMING)
		return registry_arrived(&j->server->registry, e);
	if (!strcmp(what, "left") && e->state == ENTRY_MIGRATING) {
		registry_remove(&j->server->registry, e);
		return 0;
	}
	return -EPROTO;
}

static void handle_datagram(struct job *j, const char *buf, size_t len)
{
	const char *name;
	json_t *obj, *answer;
	char *text;

	obj = json_loadb(buf, len, 0, NULL);
	name = json_string_value(json_object_get(obj, "event"));
	if (name) {
		handle_event(j, name, obj);
		return;
	}
	name = json_string_value(json_object_get(obj, "request"));
	if (!name) {
		log_warning("worker %d says what is neither event nor request, ignoring",
			    j->pid);
		json_decref(obj);
		return;
	}
	answer = json_pack("{s:i}", "error", handle_request(j, name, obj));
	text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	/* one answer per request: the worker waits for it, there is room */
	if (!text || send(j->fd, text, strlen(text),
			  MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_warning("worker %d does not hear its answer", j->pid);
	free(text);
	json_decref(answer);
	json_decref(obj);
}

/* 1: took one datagram, 0: nothing there now, -EPIPE: closed */
static int line_take(struct job *j)
{
	_cleanup_free_ char *buf = malloc(WORKER_MESSAGE);
	ssize_t n;

	if (!buf)
		return 0;
	n = recv(j->fd, buf, WORKER_MESSAGE, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -EPIPE;
	if (n == 0)
		return -EPIPE;
	handle_datagram(j, buf, n);
	return 1;
}

static void line_close(struct job *j)
{
	if (j->fd < 0)
		return;
	loop_remove(&j->server->loop, &j->watch);
	close(j->fd);
	j->fd = -1;
}

static void line_ready(void *arg, uint32_t events)
{
	struct job *j = arg;

	(void)events;
	if (line_take(j) < 0)
		line_close(j);
}

static void job_free(struct job *j)
{
	line_close(j);
	json_decref(j->progress);
	json_decref(j->result);
	free(j);
}

/* keeps the last ones; a target that never learned a name is no record */
static void trim_history(struct server *s)
{
	struct job **at = &s->jobs, *j;
	unsigned int kept = 0;

	while ((j = *at)) {
		if (!j->pid && (!j->m.name[0] || ++kept > JOB_HISTORY)) {
			*at = j->next;
			job_free(j);
		} else {
			at = &j->next;
		}
	}
}

/* a line between the two processes, with room for what is reported in a row */
static int line_open(int *ret_ours, int *ret_theirs)
{
	int pair[2], room = WORKER_MESSAGE;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	for (int i = 0; i < 2; i++)
		if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &room,
			       sizeof(room)) < 0)
			setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &room,
				   sizeof(room));
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	return 0;
}

/* forks the worker of @j, which is in no list yet; frees it on failure */
static int start(struct job *j, int peer_fd)
{
	struct server *s = j->server;
	_cleanup_close_ int theirs = -1;
	int r;

	r = line_open(&j->fd, &theirs);
	if (r < 0)
		goto fail;
	r = loop_add(&s->loop, &j->watch, j->fd, EPOLLIN, line_ready, j);
	if (r < 0)
		goto fail;
	if (!j->stranger)
		j->id = ++s->next_job;
	j->started = now_ns();

	fflush(NULL);
	j->pid = fork();
	if (j->pid < 0) {
		r = -errno;
		goto fail;
	}
	if (j->pid == 0) {
		if (j->side == JOB_SOURCE)
			worker_source(s, j, theirs);
		else
			worker_target(s, j, theirs, peer_fd);
	}
	j->next = s->jobs;
	s->jobs = j;
	return 0;
fail:
	job_free(j);
	return r;
}

int job_start_source(struct server *s, const struct migration *m,
		     struct entry *e, struct job **ret)
{
	struct job *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return -ENOMEM;
	j->server = s;
	j->side = JOB_SOURCE;
	j->fd = -1;
	j->m = *m;
	snprintf(j->peer, sizeof(j->peer),
		 strchr(m->host, ':') ? "[%s]:%u" : "%s:%u", m->host, m->port);
	r = start(j, -1);
	if (r < 0)
		return r;
	e->state = ENTRY_MIGRATING;
	log_notice("guest %s: %s to %s starts, stream %016llx", m->name,
		   m->validate_only ? "validation of a move" : "move", j->peer,
		   (unsigned long long)m->stream_id);
	*ret = j;
	return 0;
}

int job_start_target(struct server *s, int fd, const char *peer)
{
	_cleanup_close_ int owned = fd;
	struct job *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->server = s;
	j->side = JOB_TARGET;
	j->stranger = true;
	j->fd = -1;
	snprintf(j->peer, sizeof(j->peer), "%s", peer);
	return start(j, owned);
}

int job_cancel(struct job *j)
{
	if (!j->pid)
		return -ESRCH;
	if (kill(j->pid, SIGTERM) < 0)
		return -errno;
	j->cancelled = true;
	return 0;
}

void job_cancel_all(struct server *s)
{
	struct job *j;

	for (j = s->jobs; j; j = j->next) {
		if (j->stranger && j->pid)
			drop(j);
		else
			job_cancel(j);
	}
}

/* a result in the place of one that never came */
static json_t *missing_result(const struct job *j, int status)
{
	char how[128], text[400];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(how, sizeof(how), "ended with code %d",
			 WEXITSTATUS(status));
	snprintf(text, sizeof(text),
		 "the mover process %s%s%s without a result; the daemon's log may say why",
		 how, j->phase[0] ? " in phase " : "", j->phase);
	return json_pack("{s:s, s:b, s:s}", "event", "result", "ok", 0,
			 "error", text);
}

/* makes the registry agree with what became of the guest */
static void settle(struct job *j)
{
	bool ok = json_is_true(json_object_get(j->result, "ok"));
	struct registry *r = &j->server->registry;
	struct entry *e = j->m.name[0] ? registry_find(r, j->m.name) : NULL;

	if (!e)
		return;
	if (j->side == JOB_TARGET && e->state == ENTRY_INCOMING) {
		/*
		 * Killed between the file and the word that it is there? If it
		 * was before the commit the sweep takes both away.
		 */
		if (registry_arrived(r, e) < 0)
			registry_remove(r, e);
	} else if (j->side == JOB_SOURCE && e->state == ENTRY_MIGRATING) {
		if (!registry_alive(e)) {
			log_notice("guest %s (PID %d) ended", e->name, e->pid);
			registry_remove(r, e);
		} else if ((ok && !j->m.validate_only) ||
			   json_is_true(json_object_get(j->result,
							"in_doubt"))) {
			/* moved, but the stopped copy would not go? */
			e->state = ENTRY_IN_DOUBT;
		} else {
			e->state = ENTRY_RUNNING;
		}
	}
}

static void log_result(const struct job *j)
{
	const char *guest = j->m.name[0] ? j->m.name : "?";
	const char *error = json_string_value(json_object_get(j->result,
							      "error"));
	bool ok = json_is_true(json_object_get(j->result, "ok"));
	long long ms = (j->ended - j->started) / NSEC_PER_MSEC;

	const char *asked = json_string_value(json_object_get(j->result,
							      "asked"));

	if (asked)
		log_notice("%s asked about stream %s: %s%s%s", j->peer,
			   json_string_value(json_object_get(j->result,
							     "stream_id")),
			   asked, error ? ": " : "", error ?: "");
	else if (j->m.validate_only)
		log_notice("guest %s: validation of a move %s %s: %s", guest,
			   j->side == JOB_SOURCE ? "to" : "from", j->peer,
			   ok ? "it can be moved" : error ?: "refused");
	else if (ok && j->side == JOB_SOURCE)
		log_notice("guest %s: moved to %s in %lld ms", guest, j->peer,
			   ms);
	else if (ok)
		log_notice("guest %s: arrived from %s in %lld ms", guest,
			   j->peer, ms);
	else
		log_error("guest %s: %s %s: %s", guest,
			  j->side == JOB_SOURCE ? "move to" : "arrival from",
			  j->peer, error ?: "failed without a reason");
}

static void finish(struct job *j, int status)
{
	j->pid = 0;
	j->ended = now_ns();
	/* what it said before it ended is still in the line */
	while (j->fd >= 0 && line_take(j) > 0)
		;
	line_close(j);
	if (!j->result)
		j->result = missing_result(j, status);
	if (!j->result)
		j->result = json_object();
	if (j->stranger) {
		log_info("%s was turned away: %s", j->peer, j->cancelled ?
			 "it was slow, and others came" :
			 json_string_value(json_object_get(j->result,
							   "error")) ?: "?");
		return;
	}
	/* a target learns only now what it was for */
	if (json_is_true(json_object_get(j->result, "validate_only")))
		j->m.validate_only = true;
	json_object_set_new(j->result, "elapsed_ms",
			    json_integer((j->ended - j->started) /
					 NSEC_PER_MSEC));
	json_object_set_new(j->result, "guest", json_string(j->m.name));
	json_object_set_new(j->result, "peer", json_string(j->peer));
	settle(j);
	log_result(j);
	publish(j, json_incref(j->result));
}

void job_reap(struct server *s)
{
	bool ended = false, other = false;
	struct job *j;
	int status;
	pid_t pid;

	/* others than workers: the reapers of guests started here */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (j = s->jobs; j && j->pid != pid; j = j->next)
			;
		if (j)
			finish(j, status);
		if (j && !j->stranger)
			ended = true;
		else if (!j && recovery_reaped(s, pid, status))
			ended = true;
		other |= !j;
	}
	if (ended)
		recovery_look(s);
	trim_history(s);
	/* strangers leave nothing, and may be many */
	if (ended || other)
		server_sweep_cgroups(s);
	server_check_stop(s);
}

void job_free_all(struct server *s)
{
	struct job *j;

	while ((j = s->jobs)) {
		s->jobs = j->next;
		job_free(j);
	}
}

json_t *job_to_json(const struct job *j)
{
	int64_t end = j->ended ?: now_ns();
	char stream[17];
	json_t *obj;

	snprintf(stream, sizeof(stream), "%016llx",
		 (unsigned long long)j->m.stream_id);
	obj = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:s, s:I}",
			"id", (int)j->id, "side", side_names[j->side],
			"guest", j->m.name, "peer", j->peer, "host", j->host,
			"stream_id", stream, "running", j->pid != 0,
			"validate_only", j->m.validate_only,
			"cancelled", j->cancelled, "phase", j->phase,
			"elapsed_ms",
			(json_int_t)((end - j->started) / NSEC_PER_MSEC));
	if (obj && j->progress)
		json_object_set(obj, "progress", j->progress);
	if (obj && j->result)
		json_object_set(obj, "result", j->result);
	return obj;
}
