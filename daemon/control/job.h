/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One migration, one side of it, as the supervisor sees it: a worker process
 * and the line to it
 */
#ifndef MSPD_CONTROL_JOB_H
#define MSPD_CONTROL_JOB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "control/server.h"
#include "session/session.h"

enum job_side { JOB_SOURCE, JOB_TARGET };

#define JOB_WATCHERS	16
#define JOB_HISTORY	32

/**
 * struct job - one migration
 * @next: older one
 * @server: it belongs to
 * @id: number on this host, 0 = a stranger has none
 * @side: source or target
 * @pid: worker, 0 = has ended
 * @fd: line to the worker, SOCK_SEQPACKET, one JSON object per datagram
 * @watch: of @fd
 * @m: source: what was asked for; target: name and UUID once reserved
 * @stranger: target: the other side has not shown that it may be here
 * @peer: address of the other side
 * @host: name of its certificate here, "" = without TLS, by a CA, or not known
 * @phase: last one reported
 * @progress: last "progress" event, NULL = none
 * @result: the "result" event, NULL = runs
 * @started: CLOCK_MONOTONIC ns
 * @ended: likewise, 0 = runs
 * @cancelled: its worker was told to stop
 * @watchers: numbers of the clients that get its events
 * @nr_watchers: how many
 */
struct job {
	struct job *next;
	struct server *server;
	unsigned int id;
	enum job_side side;
	pid_t pid;
	int fd;
	struct watch watch;
	struct migration m;
	bool stranger;
	char peer[300];
	char host[KEYS_NAME];
	char phase[32];
	json_t *progress;
	json_t *result;
	int64_t started, ended;
	bool cancelled;
	uint64_t watchers[JOB_WATCHERS];
	unsigned int nr_watchers;
};

/* starts to move @e; its state is changed */
int job_start_source(struct server *s, const struct migration *m,
		     struct entry *e, struct job **ret);
/* takes an accepted connection, closes it */
int job_start_target(struct server *s, int fd, const char *peer);
struct job *job_find(struct server *s, unsigned int id);
int job_watch(struct job *j, uint64_t client);
/* before commit this rolls back; later it has no effect */
int job_cancel(struct job *j);
void job_cancel_all(struct server *s);
/* SIGCHLD: ends the jobs whose workers have ended */
void job_reap(struct server *s);
/* migrations that run, strangers are none */
unsigned int job_count(const struct server *s, enum job_side side);
/* those of an address, NULL = all */
unsigned int job_strangers(const struct server *s, const char *peer);
/* makes room: the one that was the longest there goes */
void job_drop_stranger(struct server *s);
void job_free_all(struct server *s);
json_t *job_to_json(const struct job *j);

#endif /* MSPD_CONTROL_JOB_H */
