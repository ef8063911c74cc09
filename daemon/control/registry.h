/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guests of this host, by name
 *
 * Each has a file STATE_DIR/guests/NAME.json, so that a restarted daemon finds
 * them again. A process is known by PID, start time and boot: a recycled PID
 * is never taken for a guest. The files are written by whoever has the guest
 * at that time: the supervisor, or the worker that moves it.
 */
#ifndef MSPD_CONTROL_REGISTRY_H
#define MSPD_CONTROL_REGISTRY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "control/loop.h"

enum entry_state {
	ENTRY_RUNNING,
	ENTRY_MIGRATING,	/* a worker moves it away */
	ENTRY_INCOMING,		/* a worker builds it; no process yet */
	ENTRY_IN_DOUBT,		/* sealed, its owner is not known */
};

/**
 * struct entry_doubt - what is known of a guest in doubt
 * @side: "source": the other side may run it; "target": it waits for the other
 *	side's word; NULL: no journal tells
 * @stream: ID of the migration
 * @remote: the other side
 * @asked: how often that was asked, without an answer
 * @marked: scratch: still so in this look
 */
struct entry_doubt {
	const char *side;
	char stream[17];
	char remote[310];
	unsigned int asked;
	bool marked;
};

/**
 * struct entry - one guest
 * @next: in the registry
 * @registry: it belongs to
 * @name: unique on this host
 * @uuid: unique everywhere
 * @pid: in the daemon's PID namespace, 0 while incoming
 * @start_ticks: of @pid, field 22 of /proc/PID/stat
 * @since: seconds of the epoch, when it came to this host
 * @origin: host it came from, "" = started or adopted here
 * @state: what happens to it
 * @doubt: if that is in doubt
 * @pidfd: of @pid, -1 while incoming
 * @watch: of @pidfd
 */
struct entry {
	struct entry *next;
	struct registry *registry;
	char name[64];
	char uuid[37];
	pid_t pid;
	uint64_t start_ticks;
	int64_t since;
	char origin[256];
	enum entry_state state;
	struct entry_doubt doubt;
	int pidfd;
	struct watch watch;
};

/**
 * struct registry - all of them
 * @dir: STATE_DIR/guests
 * @loop: where the ends of guests are noticed
 * @entries: list
 * @gone: called after the end of a running guest, before its entry goes
 * @arg: for @gone
 */
struct registry {
	char dir[256];
	struct loop *loop;
	struct entry *entries;
	void (*gone)(void *arg, struct entry *e);
	void *arg;
};

/* makes the directory, takes in the guests that still live */
int registry_open(struct registry *r, const char *state_dir, struct loop *loop);
void registry_close(struct registry *r);

bool registry_name_valid(const char *name);
struct entry *registry_find(struct registry *r, const char *name);
struct entry *registry_find_uuid(struct registry *r, const char *uuid);
struct entry *registry_find_pid(struct registry *r, pid_t pid);

/* -EEXIST, -ESRCH; the file is written */
int registry_add(struct registry *r, const char *name, const char *uuid,
		 pid_t pid, struct entry **ret);
/* takes name and UUID for a guest that is being built */
int registry_reserve(struct registry *r, const char *name, const char *uuid,
		     struct entry **ret);
/* the reserved guest runs: takes over what the worker wrote */
int registry_arrived(struct registry *r, struct entry *e);
/* takes in @name if there is a file, and nothing else of that name */
void registry_look(struct registry *r, const char *name);
/* forgets the guest, its file too */
void registry_remove(struct registry *r, struct entry *e);
/* looks whether the guest has ended while it was not RUNNING */
bool registry_alive(const struct entry *e);

json_t *entry_to_json(const struct entry *e);

/* for workers, which have no registry: the file alone */
int registry_file_write(const char *state_dir, const char *name,
			const char *uuid, pid_t pid, const char *origin);
void registry_file_remove(const char *state_dir, const char *name);

void uuid_random(char ret[37]);

#endif /* MSPD_CONTROL_REGISTRY_H */
