/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sleeps that go on for what is left of them
 */
#ifndef MSPD_STATE_REARM_H
#define MSPD_STATE_REARM_H

#include "state/regs.h"
#include "state/restore.h"

/*
 * Gives the threads of @final that sleep by a restart block a new one, all at
 * the same time. @ret has an entry for each thread of @final. The last remote
 * calls that may sleep.
 */
int rearm_threads(struct restore *r, const Mspd__Image *final,
		  struct rearmed *ret);

#endif /* MSPD_STATE_REARM_H */
