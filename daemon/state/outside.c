// SPDX-License-Identifier: GPL-2.0
/*
 * Descriptions that other processes have as well
 *
 * Whatever is moved while another process still holds it would be two things
 * afterwards. Descendants of the guest are left out: what they hold goes with
 * them, and the guest is not suspended while it has any.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/files.h"

static int status_value(pid_t pid, const char *name)
{
	_cleanup_fclose_ FILE *f = NULL;
	size_t len = strlen(name);
	char line[256];

	snprintf(line, sizeof(line), "/proc/%d/status", pid);
	f = fopen(line, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && line[len] == ':')
			return (int)strtol(line + len + 1, NULL, 10);
	return -1;
}

static bool descends_from(pid_t pid, pid_t guest)
{
	while (pid > 1) {
		if (pid == guest)
			return true;
		pid = status_value(pid, "PPid");
	}
	return false;
}

/* A device without an offset of its own may be shared by anybody. */
static bool may_be_shared(const struct fd_entry *e)
{
	return e->kind == &fd_kind_chardev;
}

static bool is_pipe(const struct fd_entry *e)
{
	return e->kind == &fd_kind_pipe;
}

static void found(struct fd_look *look, struct fd_entry *e, pid_t pid)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], comm[64] = "?";

	if (descends_from(pid, look->c->pid))
		return;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f && fgets(comm, sizeof(comm), f))
		comm[strcspn(comm, "\n")] = '\0';
	fd_refuse(look, e, "fd.shared",
		  "%s process %d (%s) too; end that process, or start the guest with descriptors of its own",
		  is_pipe(e) ? "the pipe is open in" : "is shared with",
		  pid, comm);
	/* one culprit is enough */
	e->outside = true;
}

static void look_into(struct fd_look *look, pid_t pid)
{
	_cleanup_closedir_ DIR *dir = NULL;
	char path[64], link[PATH_MAX];
	struct dirent *de;
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return;
	while ((de = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), de->d_name, link,
				       sizeof(link) - 1);

		if (n < 0)
			continue;
		link[n] = '\0';
		for (i = 0; i < look->n; i++) {
			struct fd_entry *e = &look->v[i];

			if (e->first != e || e->outside || may_be_shared(e) ||
			    strcmp(e->link, link))
				continue;
			if (is_pipe(e) ||
			    syscall(SYS_kcmp, look->c->pid, pid, KCMP_FILE,
				    e->fd, strtol(de->d_name, NULL, 10)) == 0)
				found(look, e, pid);
		}
	}
}

int outside_check(struct fd_look *look)
{
	_cleanup_closedir_ DIR *proc = opendir("/proc");
	struct dirent *de;

	if (!proc)
		return -errno;
	while ((de = readdir(proc))) {
		pid_t pid = (pid_t)strtol(de->d_name, NULL, 10);

		/* our own copies are short-lived */
		if (pid > 0 && pid != look->c->pid && pid != getpid())
			look_into(look, pid);
	}
	return 0;
}
