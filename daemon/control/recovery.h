/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests that a dead worker or daemon left in the middle of a switch-over
 *
 * The journals of this host are looked at when the daemon starts and when a
 * worker has ended. What has to be done is done by a process for each, since
 * it may wait for another host; what the other host has to decide is asked
 * again and again, for as long as it takes.
 */
#ifndef MSPD_CONTROL_RECOVERY_H
#define MSPD_CONTROL_RECOVERY_H

#include "control/server.h"
#include "session/journal.h"

/**
 * struct recovery - one journal that is not settled
 * @next: in the server's list
 * @role: side
 * @stream_id: the migration
 * @pid: process that works on it, 0 = none
 * @after: not before then, CLOCK_MONOTONIC ns
 * @tries: processes that came to no end
 * @force: the operator takes the guest without an answer
 * @seen: scratch: still there in this look
 * @told: a message about it was logged
 */
struct recovery {
	struct recovery *next;
	enum journal_role role;
	uint64_t stream_id;
	pid_t pid;
	int64_t after;
	unsigned int tries;
	bool force, seen, told;
};

/* makes the directory of the journals */
int recovery_open(struct server *s);
void recovery_close(struct server *s);
/* looks at all journals, starts what is due, says who is in doubt */
void recovery_look(struct server *s);
/* a guest has ended: a look is due if anything was open */
void recovery_soon(struct server *s);
/* true: @pid was of a recovery, and a look is due */
bool recovery_reaped(struct server *s, pid_t pid, int status);
/*
 * The operator asks for @e, which is in doubt, to be settled now. -ENOENT: no
 * journal tells of it; -EBUSY: it is prepared here, and only force is left.
 */
int recovery_start(struct server *s, struct entry *e, bool force);

#endif /* MSPD_CONTROL_RECOVERY_H */
