/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The supervisor: who listens, who is connected, what runs
 *
 * Single-threaded. Whatever can block or fail badly (a migration) happens in a
 * worker process; the supervisor only starts workers and believes what they
 * report.
 */
#ifndef MSPD_CONTROL_SERVER_H
#define MSPD_CONTROL_SERVER_H

#include <stdbool.h>
#include <sys/types.h>
#include "config.h"
#include "control/door.h"
#include "control/loop.h"
#include "control/registry.h"
#include "guest/guest.h"
#include "wire/keys.h"

struct client;
struct job;
struct recovery;

/**
 * struct server - everything
 * @config: settings
 * @pid: of the supervisor itself
 * @loop: events
 * @registry: guests
 * @journal_dir: STATE_DIR/journal
 * @recoveries: migrations without an end, whose journals are to be settled
 * @jobs: migrations that run, and the last ones that ended, newest first
 * @next_job: number of the next migration
 * @clients: connections on the control socket
 * @next_client: number of the next one
 * @gid: group that may use the control socket, -1 = only root
 * @cgroups: guests get cgroups
 * @control_fd: listens for tools
 * @control: watch of it
 * @peers_fd: listens for other hosts
 * @peers: watch of it
 * @door: who came to them, and how often
 * @signal_fd: SIGTERM, SIGINT, SIGCHLD
 * @signals: watch of it
 * @timer_fd: looks again at cgroups that were busy
 * @timer: watch of it
 * @recovery_fd: looks again at what is in doubt
 * @recovery: watch of it
 * @stopping: no new work, ends when the last worker has
 */
struct server {
	struct config config;
	pid_t pid;
	struct loop loop;
	struct registry registry;
	char journal_dir[256];
	struct recovery *recoveries;
	struct job *jobs;
	unsigned int next_job;
	struct client *clients;
	uint64_t next_client;
	gid_t gid;
	bool cgroups;
	int control_fd;
	struct watch control;
	int peers_fd;
	struct watch peers;
	struct door door;
	int signal_fd;
	struct watch signals;
	int timer_fd;
	struct watch timer;
	int recovery_fd;
	struct watch recovery;
	bool stopping;
};

/* takes both sockets; errors are logged */
int server_open(struct server *s, const struct config *c);
int server_run(struct server *s);
void server_close(struct server *s);
/* cgroup of a guest, NULL if there is none */
const char *server_cgroup(const struct server *s, const char *name, char *buf,
			  size_t len);
/* own key and whom to trust, in @at; NULL: without TLS */
const struct keys_place *server_keys(const struct server *s,
				     struct keys_place *at);
/* removes the cgroups that lost their guest */
void server_sweep_cgroups(struct server *s);
/* to be called when a worker ended: the last one lets a stopping server go */
void server_check_stop(struct server *s);

#endif /* MSPD_CONTROL_SERVER_H */
