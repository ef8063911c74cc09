// SPDX-License-Identifier: GPL-2.0
/*
 * PID and time namespaces, the reaper, the guest's first process
 *
 * caller -> helper (enters the namespaces' creation, ends) -> reaper (PID 1)
 * -> guest. Messages about each step, pidfds included, come back over one
 * SEQPACKET pair that every process loses by its exec: end of file means that
 * all execs succeeded.
 *
 * Between clone3 and exec only system calls are made: the caller may have
 * threads, and the C library does not know of these processes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/ns.h"
#include "state/shell.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#define CTL_FD		3
#define GUEST_FIRST_PID	2
#define KILL_WAIT_MS	10000
/* all steps up to the exec; a file system of a user's may never answer */
#define START_MS	10000

enum step {
	STEP_NONE, STEP_CGROUP, STEP_UNSHARE, STEP_TIMENS, STEP_REAPER,
	STEP_GUEST, STEP_STDIO, STEP_CREDS, STEP_CWD, STEP_OUTPUT, STEP_EXEC,
};

static const char *const step_text[] = {
	[STEP_NONE] = "",
	[STEP_CGROUP] = "cgroup",
	[STEP_UNSHARE] = "new PID and time namespaces",
	[STEP_TIMENS] = "clock offsets of the time namespace",
	[STEP_REAPER] = "reaper of the namespace",
	[STEP_GUEST] = "process with its PID",
	[STEP_STDIO] = "descriptors",
	[STEP_CREDS] = "user and group",
	[STEP_CWD] = "working directory",
	[STEP_OUTPUT] = "output file",
	[STEP_EXEC] = "exec",
};

enum message_type { MESSAGE_REAPER, MESSAGE_GUEST, MESSAGE_ERROR };

struct message {
	int type;
	int err;
	int step;
};

/* all that the new processes need, made before the first clone */
struct plan {
	const struct ns_command *cmd;
	const struct ns_spec *spec;
	char exe[PATH_MAX];
	char offsets[128];
	int cgroup_procs;
	int reaper_program;
	int ctl;
};

static pid_t clone_process(uint64_t flags, pid_t set_tid, int exit_signal,
			   int *ret_pidfd)
{
	struct clone_args args = {
		.flags = flags | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.exit_signal = (uint64_t)exit_signal,
		.set_tid = set_tid ? (uint64_t)(uintptr_t)&set_tid : 0,
		.set_tid_size = set_tid ? 1 : 0,
	};
	long r = syscall(__NR_clone3, &args, sizeof(args));

	return r < 0 ? -errno : (pid_t)r;
}

static int message_send(int ctl, struct message msg, int fd)
{
	struct iovec iov = { &msg, sizeof(msg) };
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {};
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		mh.msg_control = &control;
		mh.msg_controllen = sizeof(control);
		control.hdr.cmsg_level = SOL_SOCKET;
		control.hdr.cmsg_type = SCM_RIGHTS;
		control.hdr.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.hdr), &fd, sizeof(int));
	}
	return sendmsg(ctl, &mh, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* 1 with a message, 0 at the end */
static int message_receive(int ctl, int64_t deadline, struct message *ret,
			   int *ret_fd)
{
	struct pollfd p = { .fd = ctl, .events = POLLIN };
	struct iovec iov = { ret, sizeof(*ret) };
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	const struct cmsghdr *c;
	ssize_t n;

	do
		n = poll(&p, 1, deadline_left(deadline));
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	do
		n = recvmsg(ctl, &mh, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	if (n == 0)
		return 0;
	if (n != sizeof(*ret))
		return -EPROTO;
	*ret_fd = -1;
	c = CMSG_FIRSTHDR(&mh);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return 1;
}

__attribute__((noreturn))
static void give_up(int ctl, enum step step, int err)
{
	message_send(ctl, (struct message){ MESSAGE_ERROR, err, (int)step }, -1);
	_exit(127);
}

/* leaves no descriptor open but CTL_FD and, if told, those below it */
static int keep_only_ctl(int ctl, unsigned int first)
{
	if (ctl != CTL_FD) {
		if (dup3(ctl, CTL_FD, O_CLOEXEC) < 0)
			return -errno;
	} else if (fcntl(ctl, F_SETFD, FD_CLOEXEC) < 0) {
		return -errno;
	}
	if (first < CTL_FD && syscall(__NR_close_range, first, CTL_FD - 1, 0))
		return -errno;
	return syscall(__NR_close_range, CTL_FD + 1, ~0U, 0) ? -errno : 0;
}

/*
 * By the system call: glibc keeps 32 and 33 to itself, and posix_spawn() leaves
 * them ignored, so whoever was started by make would hand that on.
 */
static void default_signals(void)
{
	const uint64_t dfl[4] = { 0 };	/* handler, flags, restorer, mask */
	uint64_t none = 0;
	int sig;

	for (sig = 1; sig < _NSIG; sig++)
		syscall(__NR_rt_sigaction, sig, dfl, NULL, sizeof(none));
	syscall(__NR_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

__attribute__((noreturn))
static void command_main(const struct plan *plan)
{
	const struct ns_command *cmd = plan->cmd;
	struct stat st;
	int in, out, r;

	setsid();
	default_signals();
	umask(022);
	r = keep_only_ctl(plan->ctl, 0);
	if (r)
		give_up(plan->ctl, STEP_STDIO, -r);
	if (syscall(__NR_setgroups, cmd->nr_groups, cmd->groups) ||
	    syscall(__NR_setresgid, cmd->gid, cmd->gid, cmd->gid) ||
	    syscall(__NR_setresuid, cmd->uid, cmd->uid, cmd->uid))
		give_up(CTL_FD, STEP_CREDS, errno);
	if (chdir(cmd->cwd ? cmd->cwd : "/"))
		give_up(CTL_FD, STEP_CWD, errno);
	in = open("/dev/null", O_RDONLY);
	if (in)
		give_up(CTL_FD, STEP_STDIO, in < 0 ? errno : EBADF);
	/* a FIFO would wait for its reader, here and later on */
	out = open(cmd->output ? cmd->output : "/dev/null",
		   O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK, 0644);
	if (out != 1)
		give_up(CTL_FD, STEP_OUTPUT, out < 0 ? errno : EBADF);
	if (fstat(out, &st))
		give_up(CTL_FD, STEP_OUTPUT, errno);
	if (S_ISFIFO(st.st_mode))
		give_up(CTL_FD, STEP_OUTPUT, ENXIO);
	if (fcntl(out, F_SETFL, O_APPEND))
		give_up(CTL_FD, STEP_OUTPUT, errno);
	if (dup2(1, 2) < 0)
		give_up(CTL_FD, STEP_STDIO, errno);
	execve(plan->exe, cmd->argv, cmd->envp);
	give_up(CTL_FD, STEP_EXEC, errno);
}

__attribute__((noreturn))
static void shell_main(const struct plan *plan)
{
	const struct ns_spec *spec = plan->spec;
	char *const argv[] = { (char *)"mspd-shell", NULL };
	char go;

	setsid();
	default_signals();
	umask(022);
	if (chdir("/"))
		give_up(plan->ctl, STEP_CWD, errno);
	/* the caller seizes this process before it lets it go on */
	if (recv(plan->ctl, &go, sizeof(go), 0) != sizeof(go))
		_exit(127);
	if (dup3(spec->sock, spec->sock_nr, 0) < 0)
		give_up(plan->ctl, STEP_STDIO, errno);
	/* all others are close-on-exec, those of libraries perhaps not */
	if (syscall(__NR_close_range, 0, (unsigned int)spec->sock_nr - 1,
		    CLOSE_RANGE_CLOEXEC) ||
	    syscall(__NR_close_range, (unsigned int)spec->sock_nr + 1, ~0U,
		    CLOSE_RANGE_CLOEXEC))
		give_up(plan->ctl, STEP_STDIO, errno);
	syscall(__NR_execveat, spec->program, "", argv, argv + 1,
		AT_EMPTY_PATH);
	give_up(plan->ctl, STEP_EXEC, errno);
}

__attribute__((noreturn))
static void reaper_main(const struct plan *plan)
{
	char *const argv[] = { (char *)"mspd-reaper", NULL };
	int pidfd = -1;
	pid_t pid;

	setsid();
	default_signals();
	if (chdir("/"))
		give_up(plan->ctl, STEP_CWD, errno);
	pid = clone_process(0, plan->spec ? plan->spec->pid : GUEST_FIRST_PID,
			    SIGCHLD, &pidfd);
	if (pid == 0) {
		if (plan->spec)
			shell_main(plan);
		command_main(plan);
	}
	if (pid < 0)
		give_up(plan->ctl, STEP_GUEST, -pid);
	if (message_send(plan->ctl, (struct message){ MESSAGE_GUEST, 0, 0 },
			 pidfd))
		_exit(127);
	if (syscall(__NR_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC))
		give_up(plan->ctl, STEP_STDIO, errno);
	syscall(__NR_execveat, plan->reaper_program, "", argv, argv + 1,
		AT_EMPTY_PATH);
	give_up(plan->ctl, STEP_REAPER, errno);
}

__attribute__((noreturn))
static void helper_main(const struct plan *plan)
{
	int pidfd = -1, fd;
	pid_t pid;

	if (plan->cgroup_procs >= 0 && write(plan->cgroup_procs, "0", 1) != 1)
		give_up(plan->ctl, STEP_CGROUP, errno);
	if (unshare(CLONE_NEWPID | CLONE_NEWTIME))
		give_up(plan->ctl, STEP_UNSHARE, errno);
	if (plan->offsets[0]) {
		size_t len = strlen(plan->offsets);

		fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, plan->offsets, len) != (ssize_t)len)
			give_up(plan->ctl, STEP_TIMENS, errno);
	}
	pid = clone_process(0, 0, SIGCHLD, &pidfd);
	if (pid == 0)
		reaper_main(plan);
	if (pid < 0)
		give_up(plan->ctl, STEP_REAPER, -pid);
	message_send(plan->ctl, (struct message){ MESSAGE_REAPER, 0, 0 },
		     pidfd);
	_exit(0);
}

/* "secs nanosecs" with 0 <= nanosecs < 1e9 */
static void split_ns(int64_t ns, long long *ret_s, long *ret_ns)
{
	*ret_s = ns / 1000000000;
	*ret_ns = (long)(ns % 1000000000);
	if (*ret_ns < 0) {
		*ret_ns += 1000000000;
		(*ret_s)--;
	}
}

static int make_dirs(const char *path)
{
	char dir[PATH_MAX];
	char *p;

	if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir))
		return -ENAMETOOLONG;
	for (p = dir + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(dir, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(dir, 0755) && errno != EEXIST ? -errno : 0;
}

static int cgroup_open(const char *path, int *ret)
{
	char procs[PATH_MAX];
	int r;

	r = make_dirs(path);
	if (r)
		return r;
	if (snprintf(procs, sizeof(procs), "%s/cgroup.procs", path) >=
	    (int)sizeof(procs))
		return -ENAMETOOLONG;
	*ret = open(procs, O_WRONLY | O_CLOEXEC);
	return *ret < 0 ? -errno : 0;
}

int ns_cgroup_remove(const char *path)
{
	return rmdir(path) && errno != ENOENT ? -errno : 0;
}

static int find_program(const struct ns_command *cmd, char *exe, size_t len)
{
	const char *path = "/usr/local/bin:/usr/bin:/bin", *p, *end;
	char *const *e;
	int err = ENOENT;

	if (!cmd->argv || !cmd->argv[0] || !*cmd->argv[0])
		return -EINVAL;
	if (strchr(cmd->argv[0], '/'))
		return snprintf(exe, len, "%s", cmd->argv[0]) >= (int)len ?
			-ENAMETOOLONG : 0;
	for (e = cmd->envp; e && *e; e++)
		if (!strncmp(*e, "PATH=", 5))
			path = *e + 5;
	for (p = path; *p; p = *end ? end + 1 : end) {
		struct stat st;

		end = strchrnul(p, ':');
		if (snprintf(exe, len, "%.*s/%s", (int)(end - p), p,
			     cmd->argv[0]) >= (int)len)
			continue;
		if (stat(exe, &st) || !S_ISREG(st.st_mode))
			continue;
		if (st.st_mode & 0111)
			return 0;
		err = EACCES;
	}
	return -err;
}

int ns_pid_of(int pidfd, pid_t *ret)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], line[128];
	int pid;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Pid: %d", &pid) == 1) {
			if (pid < 0)
				return -ESRCH;
			*ret = pid;
			return 0;
		}
	}
	return -ESRCH;
}

void ns_release(struct ns_guest *g)
{
	if (g->pidfd >= 0)
		close(g->pidfd);
	if (g->reaper_pidfd >= 0)
		close(g->reaper_pidfd);
	g->pidfd = -1;
	g->reaper_pidfd = -1;
}

void ns_kill(struct ns_guest *g)
{
	struct pollfd p = { .fd = g->reaper_pidfd, .events = POLLIN };

	/* without a reaper nothing was started inside */
	if (g->reaper_pidfd >= 0) {
		syscall(__NR_pidfd_send_signal, g->reaper_pidfd, SIGKILL, NULL,
			0);
		while (poll(&p, 1, KILL_WAIT_MS) < 0 && errno == EINTR)
			;
	}
	ns_release(g);
}

/*
 * Seizes the process, lets it go on to its exec and stops it behind it: the
 * registers of the exec event stop would be overwritten by the return value of
 * execve, those of the exit stop are final.
 */
static int seize_behind_exec(pid_t pid, int ctl)
{
	const long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD |
			     PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE;
	int status;

	if (ptrace(PTRACE_SEIZE, pid, 0, options))
		return -errno;
	if (send(ctl, "g", 1, MSG_NOSIGNAL) != 1)
		return -errno;
	if (waitpid(pid, &status, __WALL | __WNOTHREAD) != pid)
		return -errno;
	if (!WIFSTOPPED(status) ||
	    status >> 8 != (SIGTRAP | PTRACE_EVENT_EXEC << 8))
		return -ECHILD;
	if (ptrace(PTRACE_SYSCALL, pid, 0, 0))
		return -errno;
	if (waitpid(pid, &status, __WALL | __WNOTHREAD) != pid)
		return -errno;
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
		return -ECHILD;
	return 0;
}

static int start(struct plan *plan, struct ns_guest *ret, const char **ret_what)
{
	struct ns_guest g = NS_GUEST_INIT;
	_cleanup_close_ int ours = -1, program = -1, procs = -1;
	int pair[2], helper_pidfd = -1, fd = -1, r, err = 0;
	const char *cgroup = plan->spec ? plan->spec->cgroup :
					  plan->cmd->cgroup;
	int64_t deadline = deadline_in(START_MS);
	enum step step = STEP_NONE;
	struct message msg;
	pid_t helper;

	plan->cgroup_procs = -1;
	if (cgroup) {
		step = STEP_CGROUP;
		r = cgroup_open(cgroup, &procs);
		if (r)
			goto out;
		plan->cgroup_procs = procs;
	}
	step = STEP_REAPER;
	program = shell_memfd(SHELL_REAPER);
	r = program;
	if (r < 0)
		goto out;
	plan->reaper_program = program;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		r = -errno;
		goto out;
	}
	ours = pair[0];
	plan->ctl = pair[1];

	helper = clone_process(0, 0, 0, &helper_pidfd);
	if (helper == 0) {
		close(ours);
		helper_main(plan);
	}
	close(pair[1]);
	if (helper < 0) {
		r = helper;
		goto out;
	}
	close(helper_pidfd);

	step = STEP_NONE;
	while ((r = message_receive(ours, deadline, &msg, &fd)) > 0) {
		if (msg.type == MESSAGE_ERROR && step == STEP_NONE) {
			/* says more than what was seen from here */
			err = -msg.err;
			step = (enum step)msg.step;
		} else if (msg.type == MESSAGE_REAPER) {
			g.reaper_pidfd = fd;
			r = ns_pid_of(fd, &g.reaper);
		} else if (msg.type == MESSAGE_GUEST) {
			g.pidfd = fd;
			r = ns_pid_of(fd, &g.pid);
			if (r >= 0 && plan->spec)
				r = seize_behind_exec(g.pid, ours);
		}
		if (r < 0) {
			/* an exec that failed tells why in its own message */
			if (r != -ECHILD && !err)
				err = r;
			if (g.pidfd >= 0)
				syscall(__NR_pidfd_send_signal, g.pidfd,
					SIGKILL, NULL, 0);
		}
	}
	if (r == -ETIMEDOUT) {
		if (!err)
			step = g.pidfd < 0 ? STEP_REAPER : STEP_EXEC;
		/* the others end with their namespace */
		kill(helper, SIGKILL);
	}
	if (!err)
		err = r;
	waitpid(helper, NULL, __WALL);
	if (!err && (g.pidfd < 0 || g.reaper_pidfd < 0))
		err = -ECHILD;
	r = err;
	if (!r) {
		*ret = g;
		return 0;
	}
	if (g.pid > 0 && plan->spec) {
		/* a dead tracee must be taken, or the namespace never empties */
		syscall(__NR_pidfd_send_signal, g.pidfd, SIGKILL, NULL, 0);
		waitpid(g.pid, NULL, __WALL | __WNOTHREAD);
	}
	ns_kill(&g);
out:
	if (ret_what)
		*ret_what = step_text[step];
	return r;
}

int ns_spawn(const struct ns_command *cmd, struct ns_guest *ret,
	     const char **ret_what)
{
	struct plan plan = { .cmd = cmd };
	int r;

	r = find_program(cmd, plan.exe, sizeof(plan.exe));
	if (r) {
		if (ret_what)
			*ret_what = step_text[STEP_EXEC];
		return r;
	}
	return start(&plan, ret, ret_what);
}

int ns_build(const struct ns_spec *spec, struct ns_guest *ret,
	     const char **ret_what)
{
	struct plan plan = { .spec = spec };
	long long mono_s, boot_s;
	long mono_ns, boot_ns;

	if (spec->monotonic_ns || spec->boottime_ns) {
		split_ns(spec->monotonic_ns, &mono_s, &mono_ns);
		split_ns(spec->boottime_ns, &boot_s, &boot_ns);
		snprintf(plan.offsets, sizeof(plan.offsets),
			 "monotonic %lld %ld\nboottime %lld %ld\n",
			 mono_s, mono_ns, boot_s, boot_ns);
	}
	return start(&plan, ret, ret_what);
}
