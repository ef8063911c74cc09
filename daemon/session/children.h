/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest's child processes: it cannot be moved while it has one
 */
#ifndef MSPD_SESSION_CHILDREN_H
#define MSPD_SESSION_CHILDREN_H

#include <sys/types.h>

/**
 * struct child - one child process
 * @pid: in mspd's PID namespace
 * @comm: its name
 */
struct child {
	pid_t pid;
	char comm[17];
};

/* 1: there is one, 0: none; @proc: /proc/PID of the guest */
int children_first(int proc, struct child *ret);

#endif /* MSPD_SESSION_CHILDREN_H */
