// SPDX-License-Identifier: GPL-2.0
/*
 * What the process is, apart from its memory: identity, limits, signals that
 * wait, and the table of descriptors. Taken before the threads start, compared
 * with every status line.
 */
#include <ctype.h>
#include <dirent.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"

#define MAX_FDS 64
#define MAX_TEXT 8192
#define PENDING_SIGNAL (SIGRTMIN + 5)
#define PENDING 3

static struct {
	int fd, status_flags, fd_flags;
	mode_t type;
} fds[MAX_FDS];
static unsigned int n_fds;
static char process_text[MAX_TEXT];
static int pending_first = 1000;

int keep_fd(int fd)
{
	struct stat st;

	if (n_fds == MAX_FDS)
		return -ENFILE;
	if (fd >= 0 && fstat(fd, &st) < 0)
		return -errno;
	fds[n_fds].fd = fd;
	fds[n_fds].status_flags = fcntl(fd, F_GETFL);
	fds[n_fds].fd_flags = fcntl(fd, F_GETFD);
	fds[n_fds].type = st.st_mode & S_IFMT;
	n_fds++;
	return 0;
}

static size_t append_file(char *text, size_t len, const char *path)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		return len;
	n = fread(text + len, 1, MAX_TEXT - 1 - len, f);
	fclose(f);
	return len + n;
}

/* Lines of /proc/self/status that belong to the process and not to its day */
static size_t append_status(char *text, size_t len)
{
	static const char *const fields[] = {
		"Umask:", "Uid:", "Gid:", "Groups:",
		"SigBlk:", "SigIgn:", "SigCgt:", "CapInh:", "CapPrm:", "CapEff:",
		"CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:", "CoreDumping:",
		"THP_enabled:",
	};
	FILE *f = fopen("/proc/self/status", "re");
	char line[512];
	unsigned int i;

	if (!f)
		return len;
	while (fgets(line, sizeof(line), f))
		for (i = 0; i < ARRAY_SIZE(fields); i++)
			if (strncmp(line, fields[i], strlen(fields[i])) == 0 &&
			    len + strlen(line) < MAX_TEXT) {
				strcpy(text + len, line);
				len += strlen(line);
			}
	fclose(f);
	return len;
}

static void describe(char *text)
{
	static const char *const files[] = {
		"/proc/self/limits", "/proc/self/comm", "/proc/self/cmdline",
		"/proc/self/environ", "/proc/self/oom_score_adj",
		"/proc/self/personality",
	};
	static const char *const links[] = {
		"/proc/self/cwd", "/proc/self/root", "/proc/self/exe",
	};
	char cwd[PATH_MAX], link[PATH_MAX];
	size_t len;
	unsigned int i;
	ssize_t n;

	memset(text, 0, MAX_TEXT);
	len = (size_t)snprintf(text, MAX_TEXT,
			       "pid %d\nnice %d\ndumpable %d\nsecurebits %x\ncwd %s\n",
			       getpid(), getpriority(PRIO_PROCESS, 0),
			       prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS),
			       getcwd(cwd, sizeof(cwd)) ? cwd : "-");
	len = append_status(text, len);
	for (i = 0; i < ARRAY_SIZE(links); i++) {
		n = readlink(links[i], link, sizeof(link) - 1);
		if (n > 0 && len + (size_t)n + 1 < MAX_TEXT) {
			memcpy(text + len, link, (size_t)n);
			text[len + (size_t)n] = '\n';
			len += (size_t)n + 1;
		}
	}
	for (i = 0; i < ARRAY_SIZE(files); i++)
		len = append_file(text, len, files[i]);
	for (i = 0; i < len; i++)
		if (!text[i])
			text[i] = '\n';
}

/* Queued real-time signals keep their order and their values while they wait. */
static int queue_pending(void)
{
	int i;

	for (i = 0; i < PENDING; i++)
		if (sigqueue(getpid(), PENDING_SIGNAL,
			     (union sigval){ .sival_int = pending_first + i }) < 0)
			return -errno;
	return 0;
}

static void verify_pending(struct worker *w)
{
	struct timespec now = { 0 };
	siginfo_t info;
	sigset_t set;
	int i;

	if (sigpending(&set) < 0 || sigismember(&set, SIGUSR2) != 1)
		fail(w, "the pending SIGUSR2 is gone");
	sigemptyset(&set);
	sigaddset(&set, PENDING_SIGNAL);
	for (i = 0; i < PENDING; i++) {
		if (sigtimedwait(&set, &info, &now) < 0) {
			fail(w, "queued signal %d is gone", pending_first + i);
			continue;
		}
		if (info.si_value.sival_int != pending_first + i ||
		    info.si_code != SI_QUEUE || info.si_pid != getpid() ||
		    info.si_uid != getuid())
			fail(w, "queued signal has value %d, expected %d",
			     info.si_value.sival_int, pending_first + i);
	}
	if (sigtimedwait(&set, &info, &now) >= 0)
		fail(w, "one queued signal too many, value %d",
		     info.si_value.sival_int);
	pending_first += PENDING;
	if (queue_pending() < 0)
		fail_call(w, "sigqueue");
}

int attrs_setup(void)
{
	struct rlimit limit;
	int i, r;

	r = timeouts_setup();
	if (!r)
		r = itimer_setup();
	if (r < 0)
		return r;
	/* descriptors 0, 1, 2 belong to whoever started the guest */
	for (i = 0; i < 3; i++)
		if (fcntl(i, F_GETFD) >= 0 && (r = keep_fd(i)) < 0)
			return r;

	/* values that nobody inherits by chance */
	umask(0117);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	limit.rlim_cur = 777;
	if (limit.rlim_max >= 777 && setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	kill(getpid(), SIGUSR2);
	return queue_pending();
}

/* with all threads there: the C library adds a signal handler for them */
int attrs_snapshot(void)
{
	describe(process_text);
	return 0;
}

static void verify_process(struct worker *w)
{
	static char text[MAX_TEXT];
	size_t at, line;

	describe(text);
	if (memcmp(text, process_text, MAX_TEXT) == 0)
		return;
	for (at = 0; text[at] == process_text[at]; at++)
		;
	for (line = at; line && text[line - 1] != '\n'; line--)
		;
	fail(w, "process changed: now \"%.*s\", was \"%.*s\"",
	     (int)strcspn(text + line, "\n"), text + line,
	     (int)strcspn(process_text + line, "\n"), process_text + line);
	memcpy(process_text, text, MAX_TEXT);
}

static bool kept(int fd)
{
	unsigned int i;

	for (i = 0; i < n_fds; i++)
		if (fds[i].fd == fd)
			return true;
	return false;
}

static void verify_fds(struct worker *w)
{
	struct dirent *de;
	struct stat st;
	unsigned int i;
	DIR *dir;

	for (i = 0; i < n_fds; i++) {
		int fd = fds[i].fd;

		if (fstat(fd, &st) < 0) {
			fail(w, "descriptor %d is gone", fd);
			continue;
		}
		if ((st.st_mode & S_IFMT) != fds[i].type)
			fail(w, "descriptor %d is of another kind", fd);
		if (fcntl(fd, F_GETFL) != fds[i].status_flags)
			fail(w, "descriptor %d: flags %o, were %o", fd,
			     fcntl(fd, F_GETFL), fds[i].status_flags);
		if (fcntl(fd, F_GETFD) != fds[i].fd_flags)
			fail(w, "descriptor %d: close-on-exec changed", fd);
	}

	dir = opendir("/proc/self/fd");
	if (!dir)
		return;
	while ((de = readdir(dir))) {
		int fd = atoi(de->d_name);

		if (isdigit((unsigned char)de->d_name[0]) && fd != dirfd(dir) &&
		    !kept(fd))
			fail(w, "descriptor %d was not opened here", fd);
	}
	closedir(dir);
}

void attrs_verify(struct worker *w)
{
	verify_process(w);
	verify_pending(w);
	pthread_rwlock_wrlock(&fd_table_lock);
	verify_fds(w);
	pthread_rwlock_unlock(&fd_table_lock);
}
