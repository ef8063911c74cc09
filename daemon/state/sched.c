// SPDX-License-Identifier: GPL-2.0
/*
 * Scheduling of each thread, and what the process tells the kernel's policies
 *
 * All of it is read and set from the outside; a thread that is already as it
 * should be costs no call. The guest under construction is the first choice of
 * the OOM killer: it can be built again, others can't.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched/types.h>
#include <string.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/procfile.h"
#include "state/resource.h"
#include "state/restore.h"

#define MAX_CPU_BYTES	1024	/* 8192 processors */
#define IOPRIO_WHO_PROCESS 1
#define OOM_FIRST	1000
#define SCHED_POLICY_DEADLINE 6
#define SCHED_FLAG_RESET 1

static int read_number(int dir, const char *name, int base, int64_t *ret)
{
	_cleanup_free_ char *text = NULL;
	char *end;
	int r = procfile_read(dir, name, &text, NULL);

	if (r)
		return r;
	*ret = strtoll(text, &end, base);
	return end == text ? -EIO : 0;
}

static int write_number(pid_t pid, const char *name, const char *fmt, int64_t v)
{
	_cleanup_close_ int fd = -1;
	char path[64], text[32];
	int n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), fmt, (long long)v);
	return write(fd, text, (size_t)n) == n ? 0 : -errno;
}

static int affinity_of(pid_t tid, uint8_t mask[MAX_CPU_BYTES])
{
	memset(mask, 0, MAX_CPU_BYTES);
	return syscall(SYS_sched_getaffinity, tid, MAX_CPU_BYTES, mask) < 0 ?
		-errno : 0;
}

static bool is_subset(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (a[i] & ~b[i])
			return false;
	return true;
}

/* of this host, as far as anybody may use them: PID 1's */
static int all_cpus(uint8_t mask[MAX_CPU_BYTES])
{
	int r = affinity_of(1, mask);

	return r ? affinity_of(0, mask) : 0;
}

static int set_affinity(Mspd__Sched *s, pid_t tid)
{
	uint8_t mask[MAX_CPU_BYTES], all[MAX_CPU_BYTES];
	int r = affinity_of(tid, mask);
	size_t len = MAX_CPU_BYTES;

	if (!r)
		r = all_cpus(all);
	if (r || is_subset(all, mask, MAX_CPU_BYTES))
		return r;
	while (len && !mask[len - 1])
		len--;
	s->affinity.data = malloc(len + 1);
	if (!s->affinity.data)
		return -ENOMEM;
	memcpy(s->affinity.data, mask, len);
	s->affinity.len = len;
	s->has_affinity = 1;
	return 0;
}

/* the thread's number where it lives: the last one of NSpid */
static int inner_tid(int task, const char *name, int32_t *ret)
{
	_cleanup_free_ char *status = NULL;
	char path[32];
	const char *p;
	char *end;
	int r;

	snprintf(path, sizeof(path), "%.12s/status", name);
	r = procfile_read(task, path, &status, NULL);
	if (r)
		return r;
	p = procfile_field(status, "NSpid");
	if (!p)
		return -EIO;
	for (;; p = end) {
		p += strspn(p, " \t");
		if (*p == '\n' || !*p)
			return 0;
		*ret = (int32_t)strtol(p, &end, 10);
		if (end == p)
			return -EIO;
	}
}

static int capture_thread(struct capture *c, int task, const char *name,
			  Mspd__Sched *s)
{
	pid_t tid = (pid_t)strtol(name, NULL, 10);
	struct sched_attr attr = { .size = sizeof(attr) };
	char object[64];
	long prio;
	int r;

	r = inner_tid(task, name, &s->tid);
	if (r)
		return r;
	if (syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0))
		return -errno;
	if (attr.sched_policy == SCHED_POLICY_DEADLINE) {
		snprintf(object, sizeof(object), "thread %d", s->tid);
		finding_add(c->findings, FINDING_ERROR, "sched.deadline",
			    object,
			    "the deadline policy reserves time of this host; change to another one");
		return -EOPNOTSUPP;
	}
	s->policy = attr.sched_policy;
	s->nice = attr.sched_nice;
	s->priority = attr.sched_priority;
	s->reset_on_fork = attr.sched_flags & SCHED_FLAG_RESET;
	s->has_reset_on_fork = 1;
	prio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	if (prio < 0)
		return -errno;
	s->ioprio = (uint32_t)prio;
	s->has_ioprio = 1;
	return set_affinity(s, tid);
}

static int capture_attributes(struct capture *c, Mspd__Image *img)
{
	Mspd__Attributes *a = malloc(sizeof(*a));
	int64_t oom, filter;
	int r;

	if (!a)
		return -ENOMEM;
	*a = (Mspd__Attributes)MSPD__ATTRIBUTES__INIT;
	img->attributes = a;
	r = read_number(c->proc, "oom_score_adj", 10, &oom);
	if (!r)
		r = read_number(c->proc, "coredump_filter", 16, &filter);
	if (r)
		return r;
	a->oom_score_adj = (int32_t)oom;
	a->coredump_filter = (uint32_t)filter;
	return 0;
}

static int sched_capture(struct capture *c, enum capture_when when,
			 Mspd__Image *img)
{
	_cleanup_closedir_ DIR *dir = NULL;
	size_t room = 0;
	struct dirent *de;
	int fd, r;

	fd = openat(c->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((de = readdir(dir))) {
		Mspd__Sched *s, **v;

		if (de->d_name[0] < '0' || de->d_name[0] > '9')
			continue;
		if (img->n_sched == room) {
			room = room ? 2 * room : 16;
			v = reallocarray(img->sched, room, sizeof(*v));
			if (!v)
				return -ENOMEM;
			img->sched = v;
		}
		s = malloc(sizeof(*s));
		if (!s)
			return -ENOMEM;
		*s = (Mspd__Sched)MSPD__SCHED__INIT;
		img->sched[img->n_sched++] = s;
		r = capture_thread(c, fd, de->d_name, s);
		/* a thread that ends while the guest runs */
		if (r == -ESRCH && when == CAPTURE_EARLY) {
			mspd__sched__free_unpacked(s, NULL);
			img->n_sched--;
			continue;
		}
		if (r)
			return r;
	}
	return capture_attributes(c, img);
}

static int sched_check(struct capture *c)
{
	Mspd__Image img = MSPD__IMAGE__INIT;
	size_t i;
	int r = sched_capture(c, CAPTURE_EARLY, &img);

	for (i = 0; i < img.n_sched; i++)
		mspd__sched__free_unpacked(img.sched[i], NULL);
	free(img.sched);
	mspd__attributes__free_unpacked(img.attributes, NULL);
	return r == -EOPNOTSUPP ? 0 : r;
}

/* what of @s's processors this host has; false if it is none of them */
static bool clamp(const Mspd__Sched *s, const uint8_t *all,
		  uint8_t mask[MAX_CPU_BYTES], bool *ret_clamped)
{
	bool any = false;
	size_t i;

	memset(mask, 0, MAX_CPU_BYTES);
	*ret_clamped = s->affinity.len > MAX_CPU_BYTES;
	for (i = 0; i < s->affinity.len && i < MAX_CPU_BYTES; i++) {
		mask[i] = s->affinity.data[i] & all[i];
		if (mask[i] != s->affinity.data[i])
			*ret_clamped = true;
		any |= mask[i];
	}
	return any;
}

static int sched_target_check(const struct restore_options *opt,
			      const Mspd__Image *early, struct findings *f)
{
	uint8_t all[MAX_CPU_BYTES], mask[MAX_CPU_BYTES];
	size_t i;
	int r = all_cpus(all);

	(void)opt;
	for (i = 0; !r && i < early->n_sched; i++) {
		const Mspd__Sched *s = early->sched[i];
		char object[64];
		bool any, clamped;

		if (!s->has_affinity)
			continue;
		any = clamp(s, all, mask, &clamped);
		snprintf(object, sizeof(object), "thread %d", s->tid);
		if (clamped)
			finding_add(f, FINDING_WARNING, "sched.affinity",
				    object, any ?
				    "is bound to processors some of which the target has not; it will use the others" :
				    "is bound to processors that the target has not; it will use all");
	}
	return r;
}

/* or the score that is raised could not be lowered again */
static bool may_lower_score(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	return !syscall(SYS_capget, &header, data) &&
		data[0].effective & 1U << CAP_SYS_RESOURCE;
}

static int sched_prepare(struct restore *r, const Mspd__Image *early)
{
	int err;

	(void)early;
	if (!may_lower_score())
		return 0;
	err = write_number(r->ns.pid, "oom_score_adj", "%lld", OOM_FIRST);
	return err ? restore_fail(r, err, "sched.oom", "process",
				  "oom_score_adj: %s", strerror(-err)) : 0;
}

static int set_policy(pid_t tid, const Mspd__Sched *s)
{
	struct sched_attr attr = { .size = sizeof(attr) };
	uint32_t reset = s->has_reset_on_fork && s->reset_on_fork ?
		SCHED_FLAG_RESET : 0;

	if (syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0))
		return -errno;
	if (attr.sched_policy == s->policy && attr.sched_nice == s->nice &&
	    attr.sched_priority == s->priority &&
	    (attr.sched_flags & SCHED_FLAG_RESET) == reset)
		return 0;
	attr = (struct sched_attr){
		.size = sizeof(attr), .sched_policy = s->policy,
		.sched_flags = reset, .sched_nice = s->nice,
		.sched_priority = s->priority,
	};
	return syscall(SYS_sched_setattr, tid, &attr, 0) ? -errno : 0;
}

static int set_ioprio(pid_t tid, const Mspd__Sched *s)
{
	long now = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);

	if (!s->has_ioprio || now == (long)s->ioprio)
		return 0;
	return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, s->ioprio) ?
		-errno : 0;
}

static int put_affinity(pid_t tid, const Mspd__Sched *s, const uint8_t *all)
{
	uint8_t mask[MAX_CPU_BYTES], now[MAX_CPU_BYTES];
	bool clamped;
	int r;

	if (!s->has_affinity || !clamp(s, all, mask, &clamped))
		memcpy(mask, all, MAX_CPU_BYTES);
	r = affinity_of(tid, now);
	if (r || !memcmp(mask, now, MAX_CPU_BYTES))
		return r;
	if (!syscall(SYS_sched_setaffinity, tid, MAX_CPU_BYTES, mask))
		return 0;
	/* none of them is in the guest's cgroup: then that decides */
	return errno == EINVAL ? 0 : -errno;
}

static int sched_finish(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Attributes *a = final->attributes;
	uint8_t all[MAX_CPU_BYTES];
	const char *what = "";
	size_t i;
	int err = all_cpus(all);

	for (i = 0; !err && i < final->n_sched; i++) {
		const Mspd__Sched *s = final->sched[i];
		pid_t tid = restore_host_tid(r, s->tid);
		char object[64];

		snprintf(object, sizeof(object), "thread %d", s->tid);
		if (!tid)
			return restore_fail(r, -EBADMSG, "sched", object,
					    "is scheduled but not there");
		what = "policy";
		err = set_policy(tid, s);
		if (!err) {
			what = "I/O priority";
			err = set_ioprio(tid, s);
		}
		if (!err) {
			what = "affinity";
			err = put_affinity(tid, s, all);
		}
		if (err)
			return restore_fail(r, err, "sched", object, "%s: %s",
					    what, strerror(-err));
	}
	if (err || !a)
		return err ? err : -EBADMSG;
	what = "coredump_filter";
	err = write_number(r->ns.pid, what, "0x%llx", a->coredump_filter);
	if (!err) {
		what = "oom_score_adj";
		err = write_number(r->ns.pid, what, "%lld", a->oom_score_adj);
	}
	return err ? restore_fail(r, err, "sched", "process", "%s: %s", what,
				  strerror(-err)) : 0;
}

const struct resource resource_sched = {
	.name = "sched",
	.check = sched_check,
	.capture = sched_capture,
	.target_check = sched_target_check,
	.prepare = sched_prepare,
	.finish = sched_finish,
};
