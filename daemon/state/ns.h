/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A PID and time namespace with one guest in it
 *
 * PID 1 is the reaper: a one-page program without descriptors that waits for
 * children and exits when the last one is gone. Nothing of the daemon stays in
 * it, so that a guest outlives the daemon. Killing the reaper ends the
 * namespace with everything in it.
 */
#ifndef MSPD_STATE_NS_H
#define MSPD_STATE_NS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * struct ns_guest - a namespace and the process started in it
 * @pid: the process, in the caller's PID namespace
 * @pidfd: of @pid
 * @reaper: PID 1 of the namespace, in the caller's PID namespace
 * @reaper_pidfd: of @reaper
 */
struct ns_guest {
	pid_t pid;
	int pidfd;
	pid_t reaper;
	int reaper_pidfd;
};

#define NS_GUEST_INIT { .pidfd = -1, .reaper_pidfd = -1 }

/**
 * struct ns_command - what `run` starts, as PID 2 of its namespace
 * @argv: command and arguments, NULL at the end; found through PATH of @envp
 * @envp: environment, NULL at the end
 * @cwd: directory to start in
 * @output: file that gets stdout and stderr (made, appended to); NULL = none
 * @cgroup: directory below a cgroup2 mount, made if needed; NULL = stay
 * @uid: user to be
 * @gid: group to be
 * @groups: supplementary groups
 * @nr_groups: how many
 *
 * The command leads a session of its own, has all signals at their defaults
 * and unblocked, stdin from /dev/null and no other descriptor but 0, 1 and 2.
 */
struct ns_command {
	char *const *argv;
	char *const *envp;
	const char *cwd;
	const char *output;
	const char *cgroup;
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t nr_groups;
};

/**
 * struct ns_spec - namespace for a guest that is built from the outside
 * @pid: process ID that it has inside
 * @monotonic_ns: offset of the time namespace
 * @boottime_ns: offset of the time namespace
 * @cgroup: as above
 * @program: memfd of the program
 * @sock: socket that stays open in it
 * @sock_nr: as this descriptor
 */
struct ns_spec {
	pid_t pid;
	int64_t monotonic_ns;
	int64_t boottime_ns;
	const char *cgroup;
	int program;
	int sock;
	int sock_nr;
};

/*
 * Starts a command in new namespaces. -errno of whatever failed; @ret_what (may
 * be NULL) then points to a constant text that says what it was ("exec",
 * "cwd", "cgroup"...). A process that failed is gone on return.
 */
int ns_spawn(const struct ns_command *cmd, struct ns_guest *ret,
	     const char **ret_what);

/*
 * Likewise for a guest to be built: on return the process exists and is
 * traced by the calling thread (seized, killed with it), stopped behind its
 * exec.
 */
int ns_build(const struct ns_spec *spec, struct ns_guest *ret,
	     const char **ret_what);

/* kills the namespace, waits until it is empty, closes the descriptors */
void ns_kill(struct ns_guest *g);
/* closes the descriptors; the guest lives on */
void ns_release(struct ns_guest *g);

/* removes an empty cgroup; -EBUSY when it is not */
int ns_cgroup_remove(const char *path);
/* tells the PID that the process of a pidfd has here, 0 = not visible */
int ns_pid_of(int pidfd, pid_t *ret);

#endif /* MSPD_STATE_NS_H */
