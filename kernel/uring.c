// SPDX-License-Identifier: GPL-2.0
/*
 * Harvest and suspend as io_uring commands
 *
 * They sleep, so they are left to a worker of the ring. It belongs to the
 * submitter's process: user memory, credentials and PID namespace are those of
 * an ioctl(), and the completion needs no detour.
 */
#include <linux/errno.h>
#include <linux/kernel.h>

#include "compat/uring.h"
#include "vasi_private.h"

int vasi_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	const struct vasi_uring *payload = vasi_uring_payload(cmd);
	u64 arg = READ_ONCE(payload->arg);

	if (cmd->cmd_op != VASI_HARVEST && cmd->cmd_op != VASI_SUSPEND)
		return -EOPNOTSUPP;
	if (READ_ONCE(payload->__reserved))
		return -EOPNOTSUPP;
	if (issue_flags & IO_URING_F_NONBLOCK)
		return -EAGAIN;
	return vasi_command(cmd->file->private_data, cmd->cmd_op,
			    u64_to_user_ptr(arg));
}
