/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A migration without a network: source and target in one process, on one host
 */
#ifndef SELFTESTS_STATE_MOVER_H
#define SELFTESTS_STATE_MOVER_H

#include "state/ns.h"
#include "state/state.h"

/**
 * struct move - one move
 * @access: how guests are reached
 * @cgroup: of the target, new for each move
 * @rounds: rounds while the guest runs
 * @fail_at: give up behind this step, see enum move_step; 0 = do not
 * @other_kernel: let the target think that the source has another kernel
 * @before_switch: called behind the last round that the guest runs in
 * @before_final: called when the last pages were read
 * @arg: for them
 * @pid: the guest; of the target when the move succeeded
 * @pause_ns: from the begin of the suspend to the resume
 * @capture_ns: part of it
 * @restore_ns: part of it
 * @bytes: sent
 * @findings: what was found; to be cleared by the caller
 */
struct move {
	const struct guest_access *access;
	const char *cgroup;
	unsigned int rounds;
	int fail_at;
	bool other_kernel;
	void (*before_switch)(void *arg);
	void (*before_final)(void *arg);
	void *arg;
	pid_t pid;
	int64_t pause_ns, capture_ns, restore_ns;
	uint64_t bytes;
	struct findings findings;
};

enum move_step { MOVE_PREPARED = 1, MOVE_FINISHED, MOVE_PARKED };

int move_guest(struct move *m);
/* the way of access on this host: the module, or without it */
const struct guest_access *move_access(void);
/* directory below a cgroup2 mount of the name, NULL if there is none */
const char *move_cgroup(const char *name);
void move_print(const struct move *m);

#endif /* SELFTESTS_STATE_MOVER_H */
