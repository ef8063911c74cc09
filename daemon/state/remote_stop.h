/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Below remote.h: the blob's life, and stops one by one, for the kinds that
 * make threads and set registers
 */
#ifndef MSPD_STATE_REMOTE_STOP_H
#define MSPD_STATE_REMOTE_STOP_H

#include "state/remote.h"

#define REMOTE_BLOB_BYTES	(32 * 4096UL)

/* takes @sock over; the guest has just executed the shell program */
int remote_open(struct remote *r, pid_t leader, int sock, int guest_sock);
void remote_close(struct remote *r);
/* maps the blob at @addr, away from where it was; -EEXIST if not free */
int remote_map_blob(struct remote *r, uint64_t addr);

/*
 * Waits for a stop of @tid; -ESRCH when it ended, -ETIMEDOUT when it does not
 * come, -EINTR when a signal came first. After the latter two the guest can
 * only be given up.
 */
int remote_wait(struct remote *r, pid_t tid, int *ret_status);
int remote_get_regs(pid_t tid, struct user_regs_struct *ret);
int remote_set_regs(pid_t tid, const struct user_regs_struct *regs);
/* puts a call into @regs, to be made by the code in the blob */
void remote_call_regs(const struct remote *r, struct user_regs_struct *regs,
		      long nr, const uint64_t *arg);
/* blocks all signals that do not carry remote calls */
int remote_block_signals(pid_t tid);

/*
 * One call between two system call stops, without a trap: possible with
 * SIGTRAP blocked or ignored, and for the call that unmaps the blob. The
 * registers are to be set afterwards.
 */
long remote_last(struct remote *r, pid_t tid, long nr, const uint64_t *arg);
#define remote_last_call(r, tid, nr, ...) \
	remote_last(r, tid, nr, REMOTE_ARGS(__VA_ARGS__ __VA_OPT__(,) \
					    0, 0, 0, 0, 0, 0))

#endif /* MSPD_STATE_REMOTE_STOP_H */
