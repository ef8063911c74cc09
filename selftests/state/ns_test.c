// SPDX-License-Identifier: GPL-2.0
/* Namespaces, the reaper, and remote calls in an empty shell */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/ns.h"
#include "state/procfile.h"
#include "state/remote_stop.h"
#include "state/shell.h"
#include "tap.h"

#define OFFSET_NS	(123456LL * NSEC_PER_SEC + 789)
#define PID		4321
#define SOCK_NR		70

static char dir[] = "/var/tmp/ns_test.XXXXXX";

static char *text_of(const char *name)
{
	_cleanup_close_ int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *text;

	return procfile_read(fd, name, &text, NULL) ? strdup("") : text;
}

static bool ended(pid_t pid)
{
	int i;

	for (i = 0; i < 5000; i++) {
		char path[32], state = 0, *at;
		_cleanup_free_ char *text = NULL;
		_cleanup_close_ int fd = -1;

		snprintf(path, sizeof(path), "/proc/%d", pid);
		fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || procfile_read(fd, "stat", &text, NULL))
			return true;
		at = strrchr(text, ')');
		state = at ? at[2] : 0;
		if (state == 'Z' || state == 'X')
			return true;
		sleep_ms(1);
	}
	return false;
}

static void test_spawn(void)
{
	char script[] = "echo pid $$ $PPID; id -u; id -g; id -G; pwd; umask; "
			"ls /proc/self/fd | wc -w; "
			"grep -E 'SigBlk|SigIgn' /proc/self/status; "
			"readlink /proc/self/fd/0 >&2";
	char *argv[] = { (char *)"sh", (char *)"-c", script, NULL };
	char *envp[] = { (char *)"PATH=/nowhere:/usr/bin:/bin", NULL };
	gid_t groups[] = { 4, 5 };
	char out[64];
	struct ns_command cmd = {
		.argv = argv, .envp = envp, .cwd = dir, .output = out,
		.groups = groups, .nr_groups = 2,
	};
	struct ns_guest g = NS_GUEST_INIT;
	const char *what = "";
	char *text;
	int r;

	snprintf(out, sizeof(out), "%s/out", dir);
	signal(SIGHUP, SIG_IGN);
	r = ns_spawn(&cmd, &g, &what);
	signal(SIGHUP, SIG_DFL);
	if (!ok(!r, "a command starts%s%s", r ? ": " : "", r ? what : ""))
		return;
	ok(ended(g.pid) && ended(g.reaper), "the reaper ends with its guest");
	ns_release(&g);
	text = text_of("out");
	ok(strstr(text, "pid 2 1\n"), "it is PID 2, its parent PID 1");
	ok(strstr(text, "\n0\n0\n0 4 5\n"), "user, group, groups");
	ok(strstr(text, dir) && strstr(text, "\n0022\n"),
	   "directory and file mode mask");
	ok(strstr(text, "\n4\n"),
	   "no descriptors but 0, 1 and 2, and the one that looks");
	ok(strstr(text, "SigBlk:\t0000000000000000") &&
	   strstr(text, "SigIgn:\t0000000000000000"),
	   "no signal blocked or ignored");
	ok(strstr(text, "/dev/null"), "stdin is /dev/null");
	free(text);
}

static void test_failures(void)
{
	char *argv[] = { (char *)"true", NULL }, *envp[] = { NULL };
	char *none[] = { (char *)"/no/such/program", NULL };
	char *file[] = { (char *)"/etc/passwd", NULL };
	struct ns_command cmd = { .argv = argv, .envp = envp, .cwd = "/" };
	struct ns_guest g = NS_GUEST_INIT;
	const char *what = "";

	cmd.argv = none;
	ok(ns_spawn(&cmd, &g, &what) == -ENOENT && !strcmp(what, "exec"),
	   "a program that is not there");
	cmd.argv = file;
	ok(ns_spawn(&cmd, &g, &what) == -EACCES && !strcmp(what, "exec"),
	   "a file that is no program");
	cmd.argv = argv;
	cmd.cwd = "/no/such/directory";
	ok(ns_spawn(&cmd, &g, &what) == -ENOENT &&
	   !strcmp(what, "working directory"), "a directory that is not there");
	cmd.cwd = "/";
	cmd.output = "/no/such/directory/out";
	ok(ns_spawn(&cmd, &g, &what) == -ENOENT &&
	   !strcmp(what, "output file"), "an output that cannot be made");
	cmd.output = NULL;
	cmd.cgroup = "/proc/no/cgroup";
	ok(ns_spawn(&cmd, &g, &what) < 0 && !strcmp(what, "cgroup"),
	   "a cgroup that cannot be made");
	ok(g.pid == 0 && g.pidfd == -1, "nothing is told of what failed");
}

static bool fd_is(pid_t pid, int nr, const char *path)
{
	char link[64], to[256];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/fd/%d", pid, nr);
	n = readlink(link, to, sizeof(to) - 1);
	if (n < 0)
		return !path;
	to[n] = '\0';
	return path && !strcmp(to, path);
}

static void test_fds(struct remote *r)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	const int full = open("/dev/full", O_RDWR | O_CLOEXEC);
	/* they land on 0, 1, 2: each where another shall be */
	const struct remote_fd turned[] = {
		{ null, 1, false }, { zero, 2, true }, { full, 0, false },
	};
	const struct remote_fd same[] = { { full, 3, false },
					  { null, SOCK_NR, true } };

	ok(!remote_place_fds(r, turned, 3) &&
	   fd_is(r->leader, 1, "/dev/null") &&
	   fd_is(r->leader, 2, "/dev/zero") &&
	   fd_is(r->leader, 0, "/dev/full") && fd_is(r->leader, 3, NULL),
	   "descriptors that land on each other's numbers");
	ok(remote_call(r, 0, __NR_fcntl, 1, F_GETFD) == 0 &&
	   remote_call(r, 0, __NR_fcntl, 2, F_GETFD) == FD_CLOEXEC,
	   "close-on-exec as told");
	ok(!remote_place_fds(r, same, 2) && r->guest_sock != SOCK_NR &&
	   fd_is(r->leader, 3, "/dev/full") &&
	   fd_is(r->leader, SOCK_NR, "/dev/null"),
	   "the socket makes room for the guest's number");
	ok(!remote_place_fds(r, turned, 3) &&
	   fd_is(r->leader, 1, "/dev/null"), "what is there is replaced");
	close(null);
	close(zero);
	close(full);
}

static void test_calls(struct remote *r)
{
	struct remote_call calls[600] = {};
	unsigned long stops;
	uint64_t addr;
	size_t i;
	bool good = true;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		calls[i].nr = i % 2 ? __NR_getpid : __NR_close;
	for (i = 0; i < ARRAY_SIZE(calls); i += 2)
		calls[i].arg[0] = 999;
	stops = r->stops;
	ok(!remote_batch(r, 0, calls, ARRAY_SIZE(calls)) &&
	   r->stops - stops == 3, "600 calls in 3 stops");
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		good &= calls[i].ret == (i % 2 ? PID : -EBADF);
	ok(good, "each with its own result");

	remote_queue(r, 0, "one", __NR_getpid);
	remote_queue_call(r, 0, "two", true, __NR_close,
			  REMOTE_ARGS(999, 0, 0, 0, 0, 0, 0));
	ok(!remote_flush(r), "a queued call that may fail");
	remote_queue(r, 0, "three", __NR_close, 999);
	ok(remote_flush(r) == -EBADF && !strcmp(r->failed, "three"),
	   "a queued call that may not is named");
	ok(remote_alloc(r, 1 << 30, &addr) == NULL &&
	   remote_alloc(r, 100, &addr) != NULL, "scratch memory has an end");
	remote_reset(r);
	ok(!remote_map_blob(r, r->base + (1 << 24)) &&
	   remote_call(r, 0, __NR_getpid) == PID, "the blob moves");
	ok(remote_last_call(r, 0, __NR_getpid) == PID,
	   "a call without a trap");
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* the guest does not come back from it, and is lost for remote calls */
static void test_hang(struct remote *r)
{
	struct sigaction act = { .sa_handler = on_alarm };
	struct itimerval soon = { { 0, 100000 }, { 0, 100000 } }, none = {};

	must(!sigaction(SIGALRM, &act, NULL));
	must(!setitimer(ITIMER_REAL, &soon, NULL));
	ok(remote_call(r, 0, __NR_pause) == -EINTR,
	   "a signal ends the wait for a call that hangs");
	must(!setitimer(ITIMER_REAL, &none, NULL));
}

static void test_build(void)
{
	struct ns_guest g = NS_GUEST_INIT;
	struct ns_spec spec = { .pid = PID, .monotonic_ns = OFFSET_NS,
				.sock_nr = SOCK_NR };
	struct timespec *ts;
	const char *what = "";
	struct remote r;
	uint64_t addr;
	int pair[2];
	int64_t inside, now;

	spec.program = shell_memfd(SHELL_GUEST);
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
	spec.sock = pair[1];
	if (!ok(!ns_build(&spec, &g, &what), "a shell is built%s%s",
		*what ? ": " : "", what))
		return;
	close(pair[1]);
	close(spec.program);
	must(!remote_open(&r, g.pid, pair[0], SOCK_NR));
	must(!remote_block_signals(g.pid));
	ok(!remote_map_blob(&r, 0x200000), "it gets the blob");
	ok(remote_call(&r, 0, __NR_getpid) == PID &&
	   remote_call(&r, 0, __NR_getppid) == 1, "it has the PID asked for");
	ts = remote_alloc(&r, sizeof(*ts), &addr);
	must(ts);
	now = now_ns();
	remote_call(&r, 0, __NR_clock_gettime, CLOCK_MONOTONIC, addr);
	inside = ts->tv_sec * NSEC_PER_SEC + ts->tv_nsec;
	ok(inside >= now + OFFSET_NS && inside <= now_ns() + OFFSET_NS,
	   "its clock has the offset");
	remote_reset(&r);
	test_fds(&r);
	test_calls(&r);
	test_hang(&r);
	kill(g.pid, SIGKILL);
	waitpid(g.pid, NULL, __WALL | __WNOTHREAD);
	ok(remote_call(&r, 0, __NR_getpid) == -ESRCH, "a dead guest is told");
	ns_kill(&g);
	ok(ended(g.reaper), "and its namespace is empty");
	remote_close(&r);
}

/* its tracer dies: nothing of it may run on */
static void test_orphan(void)
{
	int pipes[2];
	pid_t child, pids[2];

	must(!pipe2(pipes, O_CLOEXEC));
	child = fork();
	if (!child) {
		struct ns_guest g = NS_GUEST_INIT;
		struct ns_spec spec = { .pid = PID, .sock_nr = SOCK_NR };
		int pair[2];

		spec.program = shell_memfd(SHELL_GUEST);
		must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
		spec.sock = pair[1];
		must(!ns_build(&spec, &g, NULL));
		pids[0] = g.pid;
		pids[1] = g.reaper;
		must(write(pipes[1], pids, sizeof(pids)) == sizeof(pids));
		_exit(0);
	}
	must(read(pipes[0], pids, sizeof(pids)) == sizeof(pids));
	waitpid(child, NULL, 0);
	ok(ended(pids[0]) && ended(pids[1]),
	   "a guest that is being built dies with its builder");
}

int main(void)
{
	char cmd[64];

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 4;
	}
	must(mkdtemp(dir));
	test_spawn();
	test_failures();
	test_build();
	test_orphan();
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	must(!system(cmd));
	return tap_end();
}
