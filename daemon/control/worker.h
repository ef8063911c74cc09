/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What runs in the process of its own that each migration gets
 */
#ifndef MSPD_CONTROL_WORKER_H
#define MSPD_CONTROL_WORKER_H

#include "control/job.h"

/* largest datagram between a worker and the supervisor */
#define WORKER_MESSAGE	(1U << 20)

/*
 * Both never return. @line: to the supervisor; @peer_fd: the control
 * connection of the peer. Every other descriptor above 2 is closed.
 */
void worker_source(const struct server *s, const struct job *j, int line)
	__attribute__((noreturn));
void worker_target(const struct server *s, const struct job *j, int line,
		   int peer_fd) __attribute__((noreturn));

#endif /* MSPD_CONTROL_WORKER_H */
