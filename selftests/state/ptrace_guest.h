/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Access to a guest without the module, for tests of capture and restore on any
 * kernel: the source is stopped by ptrace, the target parks in the cgroup v2
 * freezer. It tracks nothing: each harvest reports all that is there.
 */
#ifndef SELFTESTS_STATE_PTRACE_GUEST_H
#define SELFTESTS_STATE_PTRACE_GUEST_H

#include <stdbool.h>
#include "guest/guest.h"

extern const struct guest_access guest_ptrace;

/* cgroup that targets are frozen in */
extern const char *ptrace_guest_cgroup;

/* -- ptrace_state.c */

struct ptrace_thread {
	pid_t host_tid;
	int32_t tid;
};

struct ptrace_guest {
	struct guest guest;
	int mem;
	bool stopped;
	struct ptrace_thread *threads;
	size_t nr_threads;
	uint64_t call_at;	/* a syscall instruction of the guest */
};

int ptrace_guest_state(struct guest *g, void **ret_buf, size_t *ret_len);
/* calls that ptrace makes fail with EINTR though nothing has happened */
void ptrace_guest_restart_eintr(pid_t tid);
int32_t ptrace_guest_inner_tid(pid_t pid, pid_t tid);

#endif /* SELFTESTS_STATE_PTRACE_GUEST_H */
