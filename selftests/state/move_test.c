// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that are moved within one host and look at themselves afterwards
 *
 * Through the module where it is loaded, else without it.
 */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "mover.h"
#include "state/procfile.h"
#include "state_guest.h"
#include "tap.h"

#define WAIT_MS 60000

static char self[PATH_MAX];
static unsigned int nr_moves;

static bool wait_for(const char *dir, const char *name, char *text, size_t len)
{
	char path[PATH_MAX];
	int64_t deadline = deadline_in(WAIT_MS);

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	while (deadline_left(deadline)) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd >= 0) {
			ssize_t n = read(fd, text, len - 1);

			text[n > 0 ? n : 0] = '\0';
			close(fd);
			return true;
		}
		sleep_ms(5);
	}
	return false;
}

static void touch(const char *dir, const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	must(fd >= 0);
	close(fd);
}

static bool start(const char *guest, char *dir, struct ns_guest *ret)
{
	char *argv[] = { self, (char *)"--guest", (char *)guest, NULL };
	char *envp[] = { NULL };
	struct ns_command cmd = { .argv = argv, .envp = envp, .cwd = dir };
	const char *what = "";
	char text[16];
	int r;

	strcpy(dir, "/var/tmp/move_test.XXXXXX");
	must(mkdtemp(dir));
	r = ns_spawn(&cmd, ret, &what);
	if (r) {
		note("cannot start %s: %s: %s", guest, what, strerror(-r));
		return false;
	}
	return wait_for(dir, "ready", text, sizeof(text));
}

static const char *next_cgroup(void)
{
	char name[64];

	snprintf(name, sizeof(name), "%d-%u", getpid(), nr_moves++);
	return move_cgroup(name);
}

static void end(const char *dir, pid_t pid, struct ns_guest *g)
{
	char cmd[PATH_MAX];

	if (pid != g->pid)
		kill(pid, SIGKILL);
	ns_kill(g);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	must(!system(cmd));
}

static bool has_vdso(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int proc = -1;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return proc < 0 || procfile_read(proc, "maps", &text, NULL) ||
	       strstr(text, "[vdso]");
}

/* guests that change once more behind the last round wait for this */
static void last_change(void *arg)
{
	char text[16];

	touch(arg, "join");
	wait_for(arg, "joined", text, sizeof(text));
}

/*
 * @fail_at 0: moved; else: given up there, and the source goes on.
 * @other_kernel: its vDSO is foreign to the target, on the first hop
 */
static void test_guest(const char *guest, int hops, int fail_at,
		       bool other_kernel)
{
	static const char *const step[] = { "moved", "given up when prepared",
					    "given up when finished",
					    "given up when parked" };
	struct move m = { .access = move_access(), .rounds = 3,
			  .fail_at = fail_at };
	struct ns_guest g = NS_GUEST_INIT;
	char dir[64], text[512] = "no verdict";
	int r = 0, i, tries;

	if (!start(guest, dir, &g)) {
		ok(false, "%s: starts", guest);
		end(dir, g.pid, &g);
		return;
	}
	m.pid = g.pid;
	m.arg = dir;
	if (!strcmp(guest, "join") || !strcmp(guest, "shorter"))
		m.before_switch = last_change;
	for (i = 0; i < hops && !r; i++) {
		m.cgroup = next_cgroup();
		m.other_kernel = other_kernel && !i;
		/*
		 * A thread may be inside of the vDSO, or about to end: it is
		 * out, or gone, the next time, as with the mover's next try.
		 */
		for (tries = 0; tries < 20; tries++) {
			r = move_guest(&m);
			if (r != -EAGAIN && r != -EBUSY)
				break;
			findings_clear(&m.findings);
		}
		if (fail_at ? r != -EINTR : r)
			move_print(&m);
		sleep_ms(30);
	}
	if (!ok(fail_at ? r == -EINTR : !r, "%s: %s%s%s%s", guest, step[fail_at],
		other_kernel ? " from another kernel" : "",
		r && r != -EINTR ? ": " : "",
		r && r != -EINTR ? strerror(-r) : ""))
		m.pid = g.pid;
	if (other_kernel)
		ok(!r && !has_vdso(m.pid), "%s: no kernel's vDSO is left",
		   guest);
	if (fail_at)
		ok(access(m.cgroup, F_OK) && m.pid == g.pid,
		   "%s: nothing is left of the target", guest);
	touch(dir, "go");
	wait_for(dir, "verdict", text, sizeof(text));
	ok(!strcmp(text, "ok"), "%s: finds itself whole%s%s", guest,
	   strcmp(text, "ok") ? ": " : "", strcmp(text, "ok") ? text : "");
	findings_clear(&m.findings);
	end(dir, m.pid, &g);
}

struct changed {
	char dir[64];
	pid_t pid;
};

static void change_file(void *arg)
{
	const struct changed *c = arg;
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/kept", c->dir);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	must(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
}

/* the file of its mapping, which has no name */
static void cut_file(void *arg)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int proc = -1;
	const struct changed *c = arg;
	char path[PATH_MAX], *line, *end;

	snprintf(path, sizeof(path), "/proc/%d", c->pid);
	proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(proc >= 0 && !procfile_read(proc, "maps", &text, NULL));
	end = strstr(text, "/is (deleted)");
	must(end);
	*end = '\0';
	line = strrchr(text, '\n');
	must(line);
	line++;
	line[strcspn(line, " ")] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/map_files/%s", c->pid, line);
	must(!truncate(path, 4096));
}

/* a mapped file that is another one than was looked at before */
static void test_file_changed(const char *guest, const char *file,
			      void (*before_switch)(void *arg),
			      void (*before_final)(void *arg))
{
	struct move m = { .access = move_access(), .rounds = 1,
			  .cgroup = next_cgroup(),
			  .before_switch = before_switch,
			  .before_final = before_final };
	struct ns_guest g = NS_GUEST_INIT;
	struct changed changed;
	bool named = false;
	int r = 0;

	if (start(guest, changed.dir, &g)) {
		m.pid = changed.pid = g.pid;
		m.arg = &changed;
		r = move_guest(&m);
	}
	for (size_t i = 0; i < m.findings.n; i++)
		named |= strstr(m.findings.v[i].text, "was changed") &&
			 strstr(m.findings.v[i].object, file);
	if (!ok(r < 0 && named, "%s: a mapped file that changes is named",
		guest))
		move_print(&m);
	findings_clear(&m.findings);
	end(changed.dir, g.pid, &g);
}

/* who may not be moved is named before anything is touched */
static void test_refused(void)
{
	const struct guest_access *a = move_access();
	struct findings f = {};
	struct capture c;
	struct guest *g;
	bool named = false;
	size_t i;
	int r;

	r = a->attach(&g, getppid(), VASI_SERVICE_SOURCE, 1);
	if (r) {
		ok(r == -EINVAL || r == -EPERM, "the mover's parent is refused");
		return;
	}
	r = capture_open(&c, g, getppid(), CONNECTIONS_REFUSE, &f);
	if (!r) {
		r = capture_check(&c);
		capture_close(&c);
	}
	for (i = 0; i < f.n; i++)
		named |= f.v[i].level == FINDING_ERROR &&
			 !strcmp(f.v[i].check, "process.mover");
	ok(!r && named, "the mover's parent is refused");
	findings_clear(&f);
	a->close(g);
}

static bool usable(void)
{
	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return false;
	}
	if (!move_cgroup("x")) {
		printf("1..0 # SKIP needs a cgroup2 mount\n");
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	ssize_t n;
	size_t i;

	if (argc == 3 && !strcmp(argv[1], "--guest"))
		return state_guest(argv[2]);
	if (!usable())
		return 4;
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	must(n > 0);
	note("guests are reached by %s", move_access()->name);
	test_refused();
	for (i = 0; state_guests[i]; i++)
		if (argc < 2 || !strcmp(argv[1], state_guests[i]))
			test_guest(state_guests[i], 3, 0, false);
	if (argc < 2) {
		test_guest("identity", 1, MOVE_PREPARED, false);
		test_guest("memory", 1, MOVE_FINISHED, false);
		test_guest("births", 1, MOVE_PARKED, false);
		/* what was given up is in nobody's way */
		test_guest("trap", 1, 0, false);
		test_guest("clocks", 3, 0, true);
		test_file_changed("memory", "kept", change_file, NULL);
		test_file_changed("shorter", "/is", NULL, cut_file);
	}
	rmdir(dirname((char *)move_cgroup("x")));
	return tap_end();
}
