// SPDX-License-Identifier: GPL-2.0
/*
 * Seal: the guest's own cgroup is frozen, and an attribute of its directory
 * says by which stream
 *
 * Both stay when all of us have died. On the source the mark is written before
 * the freeze and removed after the thaw: what is frozen has a mark, always. A
 * mark on what is not frozen is one that nobody had the time to remove, and
 * means nothing. A target is frozen first, by its suspend: until it has a mark
 * its builder traces it, and it dies with that.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/procfile.h"

#define MARK		"trusted.vasi"
#define MARK_VERSION	2
#define OWN_PREFIX	"vasi-"
#define DEPTH_MAX	16
#define MOVE_TRIES	20

/*
 * The attribute's value; of this host alone, and of this boot. Version 1 ends
 * before @born: when the process started, as its number may be another's later.
 */
struct mark {
	uint32_t version, service;
	uint64_t stream_id;
	uint32_t state, reason;
	int32_t pid;
	uint32_t threads;
	int64_t suspended_at;
	char home[1024];
	uint64_t born;
};

const char *user_cgroup_root(void)
{
	static _Thread_local char root[512];
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2048];

	*root = '\0';
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " - cgroup2 ") &&
		    sscanf(line, "%*s %*s %*s %*s %511s", root) == 1)
			break;
	return root;
}

static int write_file(int dir, const char *name, const char *text)
{
	_cleanup_close_ int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return -errno;
	return 0;
}

static int move_to(const char *path, pid_t pid)
{
	_cleanup_close_ int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char text[16];

	if (dir < 0)
		return -errno;
	snprintf(text, sizeof(text), "%d", pid);
	return write_file(dir, "cgroup.procs", text);
}

/* name of the cgroup that it is in */
static int cgroup_of(const struct user_stream *s, char *buf, size_t len)
{
	_cleanup_free_ char *text = NULL;
	const char *root = user_cgroup_root(), *line;
	int r;

	if (!*root)
		return -EOPNOTSUPP;
	r = procfile_read(s->proc, "cgroup", &text, NULL);
	if (r)
		return r;
	line = strncmp(text, "0::", 3) ? strstr(text, "\n0::") : text;
	if (!line)
		return -EOPNOTSUPP;
	line = strchr(line, '/');
	if (!line || snprintf(buf, len, "%s%.*s", root,
			      (int)strcspn(line, "\n"), line) >= (int)len)
		return -EOPNOTSUPP;
	len = strlen(buf);
	if (len && buf[len - 1] == '/')
		buf[len - 1] = '\0';
	return 0;
}

/* its parent, if that is the first process of its PID namespace; else 0 */
static pid_t reaper_of(pid_t pid)
{
	_cleanup_free_ char *child = NULL, *parent = NULL;
	const char *f, *end;
	char path[32];
	pid_t ppid;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (procfile_read(AT_FDCWD, path, &child, NULL))
		return 0;
	f = procfile_field(child, "PPid");
	ppid = f ? atoi(f) : 0;
	if (ppid <= 1)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/status", ppid);
	if (procfile_read(AT_FDCWD, path, &parent, NULL))
		return 0;
	f = procfile_field(parent, "NSpid");
	end = f ? strchrnul(f, '\n') : NULL;
	return f && end - f > 2 && end[-1] == '1' && end[-2] == '\t' ? ppid : 0;
}

/* when it was started, in ticks since the boot; 0 = it cannot be told */
static uint64_t born_at(pid_t pid)
{
	_cleanup_free_ char *stat = NULL;
	const char *at;
	char path[32];
	int field;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (procfile_read(AT_FDCWD, path, &stat, NULL))
		return 0;
	/* field 2 is in brackets and may have anything in it; this is field 22 */
	at = strrchr(stat, ')');
	for (field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

/*
 * Has the process this cgroup for itself, or with the reaper of its namespace,
 * which has nothing to do while its only child stands still?
 */
static bool has_alone(int dir, pid_t pid)
{
	_cleanup_free_ char *procs = NULL, *stat = NULL;
	const char *below, *at;
	bool found = false;
	char *end;

	if (procfile_read(dir, "cgroup.procs", &procs, NULL) ||
	    procfile_read(dir, "cgroup.stat", &stat, NULL))
		return false;
	below = strstr(stat, "nr_descendants ");
	if (!below || atoi(below + 15))
		return false;
	for (at = procs; *at; at = end + (*end == '\n')) {
		const pid_t p = (pid_t)strtol(at, &end, 10);

		if (end == at)
			return false;
		if (p == pid)
			found = true;
		else if (p != reaper_of(pid))
			return false;
	}
	return found;
}

static int open_own(struct user_stream *s, const char *path, bool made)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if ((!made && !has_alone(fd, s->pid)) ||
	    faccessat(fd, "cgroup.freeze", W_OK, 0)) {
		close(fd);
		return -EBUSY;
	}
	s->cgroup_path = strdup(path);
	if (!s->cgroup_path) {
		close(fd);
		return -ENOMEM;
	}
	s->cgroup = fd;
	return 0;
}

/* who exits is in no cgroup any more */
static bool is_empty(const char *path)
{
	_cleanup_close_ int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ char *procs = NULL;

	return dir >= 0 && !procfile_read(dir, "cgroup.procs", &procs, NULL) &&
	       !*procs;
}

/* Its children came along: they go back with it, and the cgroup goes. */
static void move_back(const char *own, const char *home)
{
	_cleanup_close_ int dir = open(own, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int tries;

	for (tries = 0; dir >= 0 && tries < MOVE_TRIES; tries++) {
		_cleanup_free_ char *procs = NULL;
		char *at, *end;

		if (procfile_read(dir, "cgroup.procs", &procs, NULL))
			break;
		for (at = procs; *at; at = end + (*end == '\n')) {
			const pid_t p = (pid_t)strtol(at, &end, 10);

			if (end == at)
				break;
			move_to(home, p);
		}
		/* who has just ended is counted for a moment */
		if (!rmdir(own) || errno != EBUSY)
			break;
		sleep_ms(1);
	}
}

static bool mark_read(int dir, struct mark *ret);

/*
 * One of that name was left by a mover that died, perhaps frozen or with a mark,
 * and there may be somebody in it: nothing of it may befall the guest.
 */
static int make_own(const char *own)
{
	_cleanup_close_ int dir = -1;
	struct mark m;

	if (!mkdir(own, 0755))
		return 0;
	if (errno != EEXIST)
		return -EOPNOTSUPP;
	if (!rmdir(own))
		return mkdir(own, 0755) ? -EOPNOTSUPP : 0;
	dir = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -EOPNOTSUPP;
	if (mark_read(dir, &m))
		return -EBUSY;
	if (write_file(dir, "cgroup.freeze", "0") ||
	    (fremovexattr(dir, MARK) && errno != ENODATA))
		return -EOPNOTSUPP;
	return 0;
}

int user_cgroup_own(struct user_stream *s)
{
	char path[1100], own[1200];
	int r;

	if (s->cgroup >= 0)
		return has_alone(s->cgroup, s->pid) ? 0 : -EBUSY;
	r = cgroup_of(s, path, sizeof(path));
	if (r)
		return r;
	r = open_own(s, path, false);
	if (r != -EBUSY)
		return r;
	snprintf(own, sizeof(own), "%s/" OWN_PREFIX "%d", path, s->pid);
	r = make_own(own);
	if (r)
		return r;
	r = move_to(own, s->pid);
	if (!r) {
		/* its children of from now on are there, too, until they end */
		r = is_empty(own) ? -ESRCH : open_own(s, own, true);
	}
	if (!r) {
		s->home = strdup(path);
		if (s->home)
			return 0;
		r = -ENOMEM;
		close(steal_fd(&s->cgroup));
	}
	move_back(own, path);
	/* a child that it has just now: there may be none the next time */
	return r == -ESRCH || r == -EBUSY ? r : -EOPNOTSUPP;
}

void user_cgroup_leave(struct user_stream *s)
{
	if (s->cgroup < 0)
		return;
	close(steal_fd(&s->cgroup));
	if (s->home && !s->sealed) {
		/* nothing is left to be moved if it is dead */
		move_back(s->cgroup_path, s->home);
	}
	free(s->home);
	free(s->cgroup_path);
	s->home = NULL;
	s->cgroup_path = NULL;
}

static bool events_frozen(int dir)
{
	_cleanup_free_ char *text = NULL;

	return !procfile_read(dir, "cgroup.events", &text, NULL) &&
	       strstr(text, "frozen 1");
}

bool user_is_frozen(const struct user_stream *s)
{
	_cleanup_close_ int dir = -1;
	char path[1100];

	if (s->frozen)
		return false;
	if (s->cgroup >= 0)
		return events_frozen(s->cgroup);
	if (cgroup_of(s, path, sizeof(path)))
		return false;
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir >= 0 && events_frozen(dir);
}

int user_freeze(struct user_stream *s)
{
	int r = write_file(s->cgroup, "cgroup.freeze", "1");

	if (!r)
		s->frozen = true;
	return r;
}

int user_thaw(struct user_stream *s)
{
	int r = write_file(s->cgroup, "cgroup.freeze", "0");

	if (!r)
		s->frozen = false;
	return r;
}

/*
 * A thread that has just been let go by its tracer counts as frozen until it
 * runs, which it does in the kernel only: it goes on to the freezer. It is
 * waited for even so, that nobody finds it on its way.
 */
static pid_t not_parked(const struct user_stream *s, uint32_t *ret_reason,
			char comm[17])
{
	_cleanup_closedir_ DIR *dir = NULL;
	const struct dirent *e;
	int fd;

	fd = openat(s->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (e = readdir(dir))) {
		_cleanup_free_ char *status = NULL;
		const char *state, *tracer, *name;
		char path[300];

		if (*e->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "%s/status", e->d_name);
		if (procfile_read(dirfd(dir), path, &status, NULL))
			continue;
		state = procfile_field(status, "State");
		tracer = procfile_field(status, "TracerPid");
		name = procfile_field(status, "Name");
		if (!state || *state == 'Z' || *state == 'X' ||
		    (tracer && !atoi(tracer) &&
		     (*state == 'S' || *state == 'D')))
			continue;
		*ret_reason = *state == 't' || *state == 'T' ?
			      VASI_HOLDUP_STOPPED : VASI_HOLDUP_RUNNING;
		if (name)
			snprintf(comm, 17, "%.*s", (int)strcspn(name, "\n"),
				 name);
		return atoi(e->d_name);
	}
	return 0;
}

int user_frozen(struct user_stream *s, int64_t deadline, bool parked,
		struct guest_holdup *ret_holdup)
{
	struct guest_holdup h = {};

	for (;;) {
		int r = user_alive(s);

		if (r)
			return r;
		h = (struct guest_holdup){ .reason = VASI_HOLDUP_RUNNING };
		if (events_frozen(s->cgroup)) {
			if (!parked)
				return 0;
			h.tid = not_parked(s, &h.reason, h.comm);
			if (!h.tid)
				return 0;
		}
		if (!deadline_left(deadline))
			break;
		sleep_ms(1);
	}
	if (ret_holdup)
		*ret_holdup = h;
	return -ETIMEDOUT;
}

/* -- the mark */

int user_mark_sealed(struct user_stream *s)
{
	struct mark m = {
		.version = MARK_VERSION, .service = s->service,
		.stream_id = s->id, .state = s->state, .reason = s->reason,
		.pid = s->pid, .threads = s->stood,
		.suspended_at = s->suspended_at, .born = born_at(s->pid),
	};

	if (snprintf(m.home, sizeof(m.home), "%s", s->home ? s->home : "") >=
	    (int)sizeof(m.home))
		return -ENAMETOOLONG;
	return fsetxattr(s->cgroup, MARK, &m, sizeof(m), 0) ? -errno : 0;
}

int user_unmark_sealed(struct user_stream *s)
{
	return fremovexattr(s->cgroup, MARK) && errno != ENODATA ? -errno : 0;
}

/* Does another open, in any process, have the guest? */
static bool is_held(pid_t pid)
{
	struct user_stream s = { .pid = pid, .lock_fd = -1, .proc = -1 };
	bool held;

	s.pidfd = pidfd_open(pid, 0);
	if (s.pidfd < 0)
		return false;
	held = user_lock(&s) == -EBUSY;
	close(s.pidfd);
	cleanup_close(&s.lock_fd);
	return held;
}

/* cgroup.events says less: one that is slow to freeze is enough against it */
static bool told_to_freeze(int dir)
{
	_cleanup_free_ char *text = NULL;

	return !procfile_read(dir, "cgroup.freeze", &text, NULL) &&
	       *text == '1';
}

/* Is the process in this cgroup, whoever else is? In doubt it is. */
static bool is_in(int dir, pid_t pid)
{
	_cleanup_free_ char *procs = NULL;
	const char *at;
	char *end;

	if (procfile_read(dir, "cgroup.procs", &procs, NULL))
		return true;
	for (at = procs; *at; at = end + (*end == '\n')) {
		const pid_t p = (pid_t)strtol(at, &end, 10);

		if (p == pid)
			return true;
		if (end == at)
			break;
	}
	return false;
}

/*
 * A mark that means something. Others may have come into the cgroup since, and
 * stand still as well: the guest is sealed all the same.
 */
static bool mark_read(int dir, struct mark *ret)
{
	const ssize_t n = fgetxattr(dir, MARK, ret, sizeof(*ret));
	uint64_t born;

	if (n == (ssize_t)offsetof(struct mark, born) && ret->version == 1)
		ret->born = 0;
	else if (n != sizeof(*ret) || ret->version != MARK_VERSION)
		return false;
	ret->home[sizeof(ret->home) - 1] = '\0';
	if (!told_to_freeze(dir) || !is_in(dir, ret->pid))
		return false;
	born = born_at(ret->pid);
	return !born || !ret->born || born == ret->born;
}

bool user_is_sealed(const struct user_stream *s)
{
	_cleanup_close_ int dir = -1;
	char path[1100];
	struct mark m;

	if (cgroup_of(s, path, sizeof(path)))
		return false;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir >= 0 && mark_read(dir, &m);
}

struct search {
	bool (*found)(struct search *search, int dir, const char *path,
		      const struct mark *m);
	struct vasi_stream_info *vec;
	size_t len, n;
	struct user_stream *s;
	uint32_t service;
	uint64_t stream_id;
};

/* true: the search is over */
static bool search(struct search *what, const char *path, unsigned int depth)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	const struct dirent *e;
	struct mark m;

	if (!dir)
		return false;
	if (mark_read(dirfd(dir), &m) && what->found(what, dirfd(dir), path,
						     &m))
		return true;
	while (depth < DEPTH_MAX && (e = readdir(dir))) {
		char below[1200];

		if (e->d_type != DT_DIR || *e->d_name == '.' ||
		    snprintf(below, sizeof(below), "%s/%s", path, e->d_name) >=
		    (int)sizeof(below))
			continue;
		if (search(what, below, depth + 1))
			return true;
	}
	return false;
}

/* of a cgroup that user_cgroup_own() has made: whose it was; 0 = it has not */
static pid_t owner_of(const char *name)
{
	const size_t len = strlen(OWN_PREFIX);
	char *end;
	long pid;

	if (strncmp(name, OWN_PREFIX, len))
		return 0;
	pid = strtol(name + len, &end, 10);
	return *end || pid <= 0 ? 0 : (pid_t)pid;
}

/*
 * A sealed guest that was killed is not waited for while its reaper stands in
 * the freezer beside it.
 */
static void thaw_dead(int dir)
{
	struct mark m;

	if (fgetxattr(dir, MARK, &m, sizeof(m)) <
	    (ssize_t)offsetof(struct mark, born) ||
	    !told_to_freeze(dir) || is_in(dir, m.pid))
		return;
	write_file(dir, "cgroup.freeze", "0");
	fremovexattr(dir, MARK);
}

static void sweep(const char *path, unsigned int depth)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	const struct dirent *e;

	if (dir)
		thaw_dead(dirfd(dir));
	while (dir && depth < DEPTH_MAX && (e = readdir(dir))) {
		const pid_t pid = owner_of(e->d_name);
		char below[1200];

		if (e->d_type != DT_DIR || *e->d_name == '.' ||
		    snprintf(below, sizeof(below), "%s/%s", path, e->d_name) >=
		    (int)sizeof(below))
			continue;
		sweep(below, depth + 1);
		/* not between mkdir and move; one with processes stays anyway */
		if (pid && kill(pid, 0) && errno == ESRCH)
			rmdir(below);
	}
}

void user_cgroup_sweep(void)
{
	const char *root = user_cgroup_root();
	char path[512];

	snprintf(path, sizeof(path), "%s", root);
	if (*path)
		sweep(path, 0);
}

static bool list_one(struct search *what, int dir, const char *path,
		     const struct mark *m)
{
	(void)dir;
	(void)path;
	if (what->n++ < what->len)
		what->vec[what->n - 1] = (struct vasi_stream_info){
			.stream_id = m->stream_id, .service = m->service,
			.state = m->state, .reason = m->reason,
			.flags = VASI_STREAM_SEALED | VASI_STREAM_SUSPENDED,
			.pid = m->pid, .opens = is_held(m->pid),
			.threads = m->threads,
			.suspended_ns = (uint64_t)(now_ns() - m->suspended_at),
		};
	return false;
}

int user_sealed(struct vasi_stream_info *vec, size_t len, size_t *ret_n)
{
	struct search what = { .found = list_one, .vec = vec, .len = len };
	const char *root = user_cgroup_root();
	char path[512];

	if (!*root)
		return -EOPNOTSUPP;
	snprintf(path, sizeof(path), "%s", root);
	search(&what, path, 0);
	*ret_n = what.n;
	return what.n > len ? -EMSGSIZE : 0;
}

static bool take_one(struct search *what, int dir, const char *path,
		     const struct mark *m)
{
	struct user_stream *s = what->s;

	if (m->service != what->service || m->stream_id != what->stream_id)
		return false;
	s->cgroup_path = strdup(path);
	s->home = *m->home ? strdup(m->home) : NULL;
	s->cgroup = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	s->id = m->stream_id;
	s->service = m->service;
	s->pid = m->pid;
	s->state = m->state;
	s->reason = m->reason;
	s->suspended_at = m->suspended_at;
	s->frozen = true;
	s->suspended = true;
	s->sealed = true;
	return true;
}

int user_find_sealed(struct user_stream *s, uint32_t service,
		     uint64_t stream_id)
{
	struct search what = {
		.found = take_one, .s = s, .service = service,
		.stream_id = stream_id,
	};
	const char *root = user_cgroup_root();
	char path[512];

	snprintf(path, sizeof(path), "%s", root);
	return *path && search(&what, path, 0) ? 0 : -ENOENT;
}
