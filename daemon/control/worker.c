// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control/worker.h"
#include "lib/cleanup.h"
#include "log.h"

/* how long the supervisor may take to answer, it is never busy for long */
#define ANSWER_S	10
/* a guest that uses all processors must not slow down its own move */
#define WORKER_NICE	(-10)

/*
 * A target that was told to end and hangs is ended by its SIGALRM: nothing of
 * the guest survives that until it is on record.
 */
#define CANCEL_S	20

struct line {
	int fd;
	const char *state_dir;
	const char *origin;
};

static volatile sig_atomic_t cancel_asked;
static volatile sig_atomic_t cancel_s;	/* 0: nothing forces it */

static void on_term(int sig)
{
	(void)sig;
	if (!cancel_asked && cancel_s)
		alarm(cancel_s);
	cancel_asked = 1;
}

static bool cancelled(struct reporter *r)
{
	(void)r;
	return cancel_asked;
}

/* takes over @obj */
static int line_send(struct line *l, json_t *obj, int flags)
{
	_cleanup_free_ char *text = NULL;
	ssize_t n;

	if (!obj)
		return -ENOMEM;
	text = json_dumps(obj, JSON_COMPACT);
	json_decref(obj);
	if (!text)
		return -ENOMEM;
	do {
		n = send(l->fd, text, strlen(text), flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* a request to the supervisor; takes over @obj; its answer's "error" */
static int line_ask(struct line *l, json_t *obj)
{
	char buf[256];
	json_t *answer;
	int error;
	ssize_t n;

	n = line_send(l, obj, 0);
	if (n < 0)
		return n;
	do {
		n = recv(l->fd, buf, sizeof(buf), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n == 0)
		return -EPIPE;
	answer = json_loadb(buf, n, 0, NULL);
	if (json_unpack(answer, "{s:i}", "error", &error) < 0)
		error = -EPROTO;
	json_decref(answer);
	return error;
}

static void report_event(struct reporter *r, json_t *obj)
{
	const char *event = json_string_value(json_object_get(obj, "event"));
	bool progress = event && !strcmp(event, "progress");
	int ret;

	/* the next progress makes up for a lost one, nothing does for others */
	ret = line_send(r->arg, obj, progress ? MSG_DONTWAIT : 0);
	if (ret < 0 && !progress)
		log_debug("event %s lost: %s", event ?: "?", strerror(-ret));
}

static int report_reserve(struct reporter *r, const char *name,
			  const char *uuid)
{
	return line_ask(r->arg, json_pack("{s:s, s:s, s:s}", "request",
					  "reserve", "name", name, "uuid",
					  uuid));
}

/* written here: the guest must be found even if the supervisor is gone */
static int report_arriving(struct reporter *r, const char *name,
			  const char *uuid, pid_t pid)
{
	struct line *l = r->arg;

	/* Commit may follow at once: from here on it ends by itself */
	signal(SIGALRM, SIG_IGN);
	return registry_file_write(l->state_dir, name, uuid, pid, l->origin);
}

static void report_forget(struct reporter *r, const char *name)
{
	struct line *l = r->arg;

	registry_file_remove(l->state_dir, name);
}

static int report_arrived(struct reporter *r, const char *name,
			  const char *uuid, pid_t pid)
{
	(void)uuid;
	(void)pid;
	return line_ask(r->arg, json_pack("{s:s, s:s}", "request", "arrived",
					  "name", name));
}

static int report_left(struct reporter *r, const char *name, const char *uuid,
		       pid_t pid)
{
	struct line *l = r->arg;

	(void)uuid;
	(void)pid;
	registry_file_remove(l->state_dir, name);
	return line_ask(l, json_pack("{s:s, s:s}", "request", "left", "name",
				     name));
}

/* closes all but 0, 1, 2 and the two (@b may be -1) */
static void keep_fds(int a, int b)
{
	int lo = a < b || b < 0 ? a : b, hi = a > b ? a : b;

	if (lo > 3)
		close_range(3, lo - 1, 0);
	if (hi > lo + 1)
		close_range(lo + 1, hi - 1, 0);
	close_range(hi + 1, ~0U, 0);
}

static void hurry(void)
{
	if (setpriority(PRIO_PROCESS, 0, WORKER_NICE) < 0)
		log_debug("no priority for the worker: %s, ignoring",
			  strerror(errno));
}

/* what strangers do is no reason to be in anybody's way */
static int report_admit(struct reporter *r, const char *host)
{
	int ret = line_ask(r->arg, json_pack("{s:s, s:s}", "request", "admit",
					     "host", host));

	if (!ret)
		hurry();
	return ret;
}

/* descriptors, signals and log of the worker */
static void become_worker(const struct server *s, const char *title, int line,
			  int peer)
{
	struct sigaction term = { .sa_handler = on_term };
	struct timeval answer = { .tv_sec = ANSWER_S };
	sigset_t none;

	keep_fds(line, peer);
	setsockopt(line, SOL_SOCKET, SO_RCVTIMEO, &answer, sizeof(answer));
	setsockopt(line, SOL_SOCKET, SO_SNDTIMEO, &answer, sizeof(answer));

	sigaction(SIGTERM, &term, NULL);
	signal(SIGINT, SIG_IGN);	/* the terminal's is for the supervisor */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	/* a supervisor that dies is a cancel: before commit this rolls back */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != s->pid)
		on_term(SIGTERM);
	prctl(PR_SET_NAME, "mspd-worker");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	log_open(title, s->config.log_level);
}

void worker_source(const struct server *s, const struct job *j, int line)
{
	struct line l = { .state_dir = s->config.state_dir, .origin = "" };
	struct migration m = j->m;
	struct reporter rep = {
		.event = report_event,
		.adopted = report_left,
		.cancelled = cancelled,
		.arg = &l,
	};
	struct keys_place place;
	char title[80];
	int r;

	m.keys = server_keys(s, &place);
	snprintf(m.journal_dir, sizeof(m.journal_dir), "%s", s->journal_dir);
	snprintf(title, sizeof(title), "mspd[%s]", m.name);
	become_worker(s, title, line, -1);
	hurry();
	l.fd = line;
	r = source_run(&m, NULL, &rep);
	_exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

void worker_target(const struct server *s, const struct job *j, int line,
		   int peer_fd)
{
	struct line l = { .state_dir = s->config.state_dir, .origin = j->peer };
	struct reporter rep = {
		.event = report_event,
		.admit = report_admit,
		.reserve = report_reserve,
		.arriving = report_arriving,
		.forget = report_forget,
		.adopted = report_arrived,
		.cancelled = cancelled,
		.arg = &l,
	};
	struct keys_place place;
	struct target_config cfg = {
		.keys = server_keys(s, &place),
		.wish = s->config.access,
		.port_low = s->config.port_low,
		.port_high = s->config.port_high,
		.handshake_ms = s->config.handshake_ms,
		.idle_ms = s->config.idle_ms,
		.max_streams = s->config.max_streams,
	};
	char title[80];
	int r;

	snprintf(cfg.listen_host, sizeof(cfg.listen_host), "%s",
		 s->config.listen);
	snprintf(cfg.journal_dir, sizeof(cfg.journal_dir), "%s",
		 s->journal_dir);
	snprintf(cfg.peer, sizeof(cfg.peer), "%s", j->peer);
	if (s->cgroups)
		snprintf(cfg.cgroup_root, sizeof(cfg.cgroup_root), "%s",
			 s->config.cgroup_root);
	snprintf(title, sizeof(title), "mspd[from %.60s]", j->peer);
	cancel_s = CANCEL_S;
	become_worker(s, title, line, peer_fd);
	l.fd = line;
	r = target_run(peer_fd, &cfg, &rep);
	_exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}
