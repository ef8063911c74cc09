// SPDX-License-Identifier: GPL-2.0
/* Checks of attributes that are verified or refused, and of room */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include "lib/cleanup.h"
#include "state/attrs.h"
#include "state/procfile.h"

/* of what is resident: tables, buffers, and what is written meanwhile */
#define ROOM_PERCENT 110

__attribute__((format(printf, 4, 5)))
static void refuse(struct capture *c, const char *check, const char *object,
		   const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	finding_add(c->findings, FINDING_ERROR, check, object, "%s", text);
}

/* text without the newline; -ESRCH also when the kernel has no such file */
static int read_line(int dir, const char *name, char *buf, size_t len)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, buf, len - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return 0;
}

static int status_number(struct capture *c, const char *field, long *ret)
{
	_cleanup_free_ char *status = NULL;
	const char *p;
	int r = procfile_read(c->proc, "status", &status, NULL);

	if (r)
		return r;
	p = procfile_field(status, field);
	*ret = p ? strtol(p, NULL, 10) : 0;
	return 0;
}

int attrs_seccomp(struct capture *c)
{
	long mode;
	int r = status_number(c, "Seccomp", &mode);

	if (!r && mode)
		refuse(c, "census.seccomp", "process",
		       "has a seccomp %s, which can't be read; start it without",
		       mode == 1 ? "mode" : "filter");
	return r;
}

int attrs_label(struct capture *c)
{
	char label[512], own[512];

	/* no security module that labels, or none at all */
	if (read_line(c->proc, "attr/current", label, sizeof(label)) ||
	    read_line(AT_FDCWD, "/proc/self/attr/current", own, sizeof(own)))
		return 0;
	if (strcmp(label, own) && strncmp(label, "unconfined", 10))
		refuse(c, "census.label", label,
		       "has another security label than mspd (%s); run both alike",
		       own);
	return 0;
}

int attrs_loginuid(struct capture *c)
{
	char uid[32];

	if (read_line(c->proc, "loginuid", uid, sizeof(uid)) ||
	    !strcmp(uid, "4294967295"))
		return 0;
	finding_add(c->findings, FINDING_WARNING, "census.loginuid", "process",
		    "the audit login user %s is not carried", uid);
	return 0;
}

int attrs_namespaces(struct capture *c)
{
	static const char *const names[] = {
		"mnt", "net", "uts", "ipc", "user", "cgroup"
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		char path[32], own[64];
		struct stat a, b;

		snprintf(path, sizeof(path), "ns/%s", names[i]);
		snprintf(own, sizeof(own), "/proc/self/ns/%s", names[i]);
		/* the kernel may not have this kind */
		if (stat(own, &b))
			continue;
		if (fstatat(c->proc, path, &a, 0))
			return -errno;
		if (a.st_ino != b.st_ino || a.st_dev != b.st_dev)
			refuse(c, "census.namespace", names[i],
			       "is in a %s namespace of its own; start it in that of mspd",
			       names[i]);
	}
	return 0;
}

/* fields of /proc/PID/stat behind the name, from 3 on */
static int stat_fields(struct capture *c, int *pgrp, int *session, int *tty)
{
	_cleanup_free_ char *text = NULL;
	int r = procfile_read(c->proc, "stat", &text, NULL);
	char *p;

	if (r)
		return r;
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %*c %*d %d %d %d", pgrp, session, tty) != 3)
		return -EIO;
	return 0;
}

int attrs_session(struct capture *c)
{
	int pgrp, session, tty, r = stat_fields(c, &pgrp, &session, &tty);

	if (!r && (pgrp != c->pid || session != c->pid))
		finding_add(c->findings, FINDING_WARNING, "census.session",
			    "process",
			    "belongs to session %d and process group %d; on the target it will lead its own",
			    session, pgrp);
	return r;
}

int attrs_terminal(struct capture *c)
{
	int pgrp, session, tty, r = stat_fields(c, &pgrp, &session, &tty);

	if (!r && tty)
		refuse(c, "census.terminal", "process",
		       "has a controlling terminal; start it with setsid, or by run");
	return r;
}

int attrs_cgroup(struct capture *c)
{
	static const char *const limits[] = {
		"memory.max", "memory.high", "memory.swap.max", "cpu.max",
		"pids.max"
	};
	_cleanup_free_ char *text = NULL;
	char path[4200], value[64];
	const char *p;
	size_t i;
	int r = procfile_read(c->proc, "cgroup", &text, NULL);

	if (r)
		return r == -ESRCH ? 0 : r;
	p = strstr(text, "0::");
	if (!p)
		return 0;
	p += 3;
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%.*s/%s",
			 (int)strcspn(p, "\n"), p, limits[i]);
		if (!read_line(AT_FDCWD, path, value, sizeof(value)) &&
		    strncmp(value, "max", 3))
			finding_add(c->findings, FINDING_WARNING,
				    "census.cgroup", limits[i],
				    "the limit %s of its cgroup stays behind",
				    value);
	}
	return 0;
}

int attrs_mempolicy(struct capture *c)
{
	_cleanup_free_ char *text = NULL;
	char *line, *save = NULL;

	/* a kernel without NUMA */
	if (procfile_read(c->proc, "numa_maps", &text, NULL))
		return 0;
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		const char *policy = strchr(line, ' ');

		if (!policy || !strncmp(policy, " default", 8))
			continue;
		refuse(c, "census.mempolicy", line,
		       "has a memory policy that names nodes of this host; start it without numactl");
		return 0;
	}
	return 0;
}

int attrs_personality(struct capture *c)
{
	char value[32];
	int r = read_line(c->proc, "personality", value, sizeof(value));

	if (!r && strtoul(value, NULL, 16))
		refuse(c, "census.personality", value,
		       "has an execution domain of its own; start it without setarch");
	return r;
}

/* "thread vulnerable" and the like say how, after "thread" or "globally" */
int attrs_speculation(struct capture *c)
{
	static const char *const fields[] = {
		"Speculation_Store_Bypass", "SpeculationIndirectBranch"
	};
	_cleanup_free_ char *status = NULL, *own = NULL;
	size_t i;
	int r = procfile_read(c->proc, "status", &status, NULL);

	if (!r)
		r = procfile_read(AT_FDCWD, "/proc/self/status", &own, NULL);
	for (i = 0; !r && i < ARRAY_SIZE(fields); i++) {
		const char *a = procfile_field(status, fields[i]);
		const char *b = procfile_field(own, fields[i]);
		size_t len = a ? strcspn(a, "\n") : 0;

		if (a && b && (len != strcspn(b, "\n") || strncmp(a, b, len)))
			refuse(c, "census.speculation", fields[i],
			       "has changed how the processor speculates for it (%.*s); start it without",
			       (int)len, a);
	}
	return r;
}

static bool own_filter(void)
{
	_cleanup_free_ char *status = NULL;
	const char *p = NULL;

	if (!procfile_read(AT_FDCWD, "/proc/self/status", &status, NULL))
		p = procfile_field(status, "Seccomp");
	return p && atoi(p);
}

int attrs_target_check(const struct restore_options *opt,
		       const Mspd__Image *early, struct findings *f)
{
	_cleanup_free_ char *text = NULL;
	uint64_t need, have;
	const char *p;
	int r;

	(void)opt;
	if (own_filter())
		finding_add(f, FINDING_ERROR, "target.seccomp", "mspd",
			    "runs under a seccomp filter on the target, which the guest would get; start it without");
	if (!early->process || !early->process->has_resident_bytes)
		return 0;
	r = procfile_read(AT_FDCWD, "/proc/meminfo", &text, NULL);
	if (r)
		return r;
	p = procfile_field(text, "MemAvailable");
	if (!p)
		return -EIO;
	have = strtoull(p, NULL, 10) << 10;
	need = early->process->resident_bytes / 100 * ROOM_PERCENT;
	if (need > have)
		finding_add(f, FINDING_ERROR, "target.memory", "memory",
			    "the guest needs %llu MiB and the target has %llu MiB left; make room",
			    (unsigned long long)need >> 20,
			    (unsigned long long)have >> 20);
	return 0;
}
