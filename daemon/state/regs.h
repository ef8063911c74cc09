/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a thread goes on that was stopped in or outside of a system call. Pure.
 */
#ifndef MSPD_STATE_REGS_H
#define MSPD_STATE_REGS_H

#include <stdbool.h>
#include <sys/user.h>

/* what an interrupted call returns inside the kernel */
#define ERESTARTSYS		512
#define ERESTARTNOINTR		513
#define ERESTARTNOHAND		514
#define ERESTART_RESTARTBLOCK	516

/**
 * struct rearmed - what became of an interrupted call that knows its time
 * @armed: the thread has a restart block again; restart_syscall goes on
 * @value: else: what the call returned, when it was made again
 */
struct rearmed {
	bool armed;
	long value;
};

/* Does a thread with these registers go on by its restart block? */
bool regs_need_restart_block(const struct user_regs_struct *regs);
/*
 * Makes the registers such that the kernel has nothing to decide any more.
 * @rearmed: of a call with a restart block, NULL: there is none.
 */
void regs_fix(struct user_regs_struct *regs, const struct rearmed *rearmed);

#endif /* MSPD_STATE_REGS_H */
