// SPDX-License-Identifier: GPL-2.0
/*
 * Where a thread goes on that was stopped in or outside of a system call
 *
 * The kernel would make the same changes on the way to user mode, but not from
 * each kind of stop.
 */
#include <errno.h>
#include <sys/syscall.h>
#include "state/regs.h"

#define SYSCALL_INSN_BYTES 2

bool regs_need_restart_block(const struct user_regs_struct *regs)
{
	return (long)regs->orig_rax >= 0 &&
	       (long)regs->rax == -ERESTART_RESTARTBLOCK;
}

static void again(struct user_regs_struct *regs, unsigned long nr)
{
	regs->rax = nr;
	regs->rip -= SYSCALL_INSN_BYTES;
}

void regs_fix(struct user_regs_struct *regs, const struct rearmed *rearmed)
{
	if ((long)regs->orig_rax >= 0) {
		switch ((long)regs->rax) {
		case -ERESTARTSYS:
		case -ERESTARTNOINTR:
		case -ERESTARTNOHAND:
			again(regs, regs->orig_rax);
			break;
		case -ERESTART_RESTARTBLOCK:
			if (rearmed && rearmed->armed)
				again(regs, __NR_restart_syscall);
			else
				regs->rax = (unsigned long)(rearmed ?
					rearmed->value : -EINTR);
			break;
		}
	}
	regs->orig_rax = -1UL;
}
