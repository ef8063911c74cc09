/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where an io_uring command has its payload
 */
#ifndef VASI_COMPAT_URING_H
#define VASI_COMPAT_URING_H

#include <linux/version.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

static inline const void *vasi_uring_payload(const struct io_uring_cmd *cmd)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	return io_uring_sqe_cmd(cmd->sqe);
#else
	return cmd->cmd;
#endif
}

#endif /* VASI_COMPAT_URING_H */
