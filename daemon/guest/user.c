// SPDX-License-Identifier: GPL-2.0
/*
 * Guest access without the module: the life of a stream
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/vfs.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/procfile.h"

#define MAX_DEADLINE_MS	60000
#define SEAL_MS		2000
#define LOCK_TRIES	20

#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC	0x50494446
#endif

int user_alive(const struct user_stream *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	char buf[8];

	if (poll(&p, 1, 0) > 0)
		return -ESRCH;
	if (s->state == VASI_STATE_ABORTED)
		return -ECANCELED;
	/* nothing is there, but memory that lives says so */
	if (pread(s->mem, buf, 1, 0))
		return 0;
	/* on its way out it has no memory, and behind an exec another one */
	return readlinkat(s->proc, "exe", buf, sizeof(buf)) < 0 ? -ESRCH :
								  -ECANCELED;
}

int user_lock(struct user_stream *s)
{
	char path[32];
	struct statfs fs;
	int fd = s->pidfd;

	/* older pidfds have one inode for all processes */
	if (fstatfs(fd, &fs) || fs.f_type != PID_FS_MAGIC) {
		snprintf(path, sizeof(path), "/proc/%d/status", s->pid);
		cleanup_close(&s->lock_fd);
		s->lock_fd = -1;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return errno == ENOENT ? -ESRCH : -errno;
		s->lock_fd = fd;
	}
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return 0;
	return errno == EWOULDBLOCK ? -EBUSY : -errno;
}

static struct user_stream *stream_new(void)
{
	struct user_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->pidfd = -1;
	s->lock_fd = -1;
	s->proc = -1;
	s->mem = -1;
	s->cgroup = -1;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void stream_free(struct user_stream *s)
{
	user_watch_free(s);
	user_track_free(s);
	/* what is sealed goes on into the freezer, all else runs */
	user_release(s);
	user_cgroup_leave(s);
	cleanup_close(&s->pidfd);
	cleanup_close(&s->lock_fd);
	cleanup_close(&s->proc);
	cleanup_close(&s->mem);
	pthread_mutex_destroy(&s->lock);
	free(s->threads);
	free(s->calls);
	free(s);
}

/* one more handle; takes a reference */
static int handle_new(struct guest **ret, struct user_stream *s)
{
	struct user_guest *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	s->refs++;
	u->s = s;
	u->guest = (struct guest){
		.access = &guest_user, .stream_id = s->id,
		.service = s->service, .pid = s->pid,
	};
	*ret = &u->guest;
	return 0;
}

/* a process with memory that is not the first one of its PID namespace */
static int check_kind(const struct user_stream *s)
{
	_cleanup_free_ char *status = NULL;
	const char *f, *end;
	int r;

	if (s->pid <= 0 || s->pid == getpid())
		return -EINVAL;
	r = procfile_read(s->proc, "status", &status, NULL);
	if (r)
		return r;
	f = procfile_field(status, "NSpid");
	end = f ? strchrnul(f, '\n') : NULL;
	if (!procfile_field(status, "VmSize"))
		return -EINVAL;
	return f && end > f && end[-1] == '1' &&
	       (end == f + 1 || end[-2] == '\t') ? -EINVAL : 0;
}

static int open_process(struct user_stream *s)
{
	unsigned int tries;
	char path[32];
	int r;

	s->pidfd = pidfd_open(s->pid, 0);
	if (s->pidfd < 0)
		return -errno;
	/* who looks whether a sealed guest is held takes the lock for that */
	for (tries = 0; (r = user_lock(s)) == -EBUSY && tries < LOCK_TRIES;
	     tries++)
		sleep_ms(1);
	if (r)
		return r;
	snprintf(path, sizeof(path), "/proc/%d", s->pid);
	s->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->proc < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	r = check_kind(s);
	if (r)
		return r;
	s->mem = openat(s->proc, "mem", O_RDWR | O_CLOEXEC);
	if (s->mem < 0)
		return errno == ENOENT ? -ESRCH :
		       errno == EACCES ? -EPERM : -errno;
	return user_alive(s);
}

static int user_attach(struct guest **ret, pid_t pid, uint32_t service,
		       uint64_t stream_id)
{
	struct user_stream *s;
	int r;

	if (service != VASI_SERVICE_SOURCE && service != VASI_SERVICE_TARGET)
		return -EOPNOTSUPP;
	if (!stream_id || pid <= 0)
		return -EINVAL;
	s = stream_new();
	if (!s)
		return -ENOMEM;
	s->id = stream_id;
	s->service = service;
	s->target = service == VASI_SERVICE_TARGET;
	s->pid = pid;
	s->state = VASI_STATE_ENABLED;
	r = open_process(s);
	if (!r && user_is_sealed(s))
		r = -EBUSY;
	if (!r)
		r = handle_new(ret, s);
	if (r)
		stream_free(s);
	return r;
}

static int user_join(struct guest **ret, const struct guest *g)
{
	return handle_new(ret, user_of(g));
}

static int user_takeover(struct guest **ret, uint32_t service,
			 uint64_t stream_id)
{
	struct user_stream *s = stream_new();
	int r;

	if (!s)
		return -ENOMEM;
	r = user_find_sealed(s, service, stream_id);
	if (!r)
		r = open_process(s);
	if (!r)
		r = handle_new(ret, s);
	if (r)
		stream_free(s);
	return r;
}

static int resume(struct user_stream *s)
{
	int r = 0;

	/* first into the freezer, then out of it, all at one time */
	user_release(s);
	if (s->frozen)
		r = user_thaw(s);
	if (!r && s->sealed)
		user_unmark_sealed(s);
	if (r)
		return r;
	s->sealed = false;
	s->suspended = false;
	s->suspended_at = 0;
	return 0;
}

static void user_close(struct guest *g)
{
	struct user_stream *s;

	if (!g)
		return;
	s = user_of(g);
	free(g);
	if (--s->refs)
		return;
	if (s->suspended && !s->sealed)
		resume(s);
	stream_free(s);
}

/* -- suspend to resume */

static int suspend_source(struct user_stream *s, int64_t deadline,
			  struct guest_holdup *holdup)
{
	int r;

	/* one that was taken over: nobody holds it but the freezer */
	if (s->frozen && !s->tracer)
		return user_frozen(s, deadline, true, holdup);
	/* it may have children by now: they are in the way of a seal only */
	if (s->cgroup < 0) {
		r = user_cgroup_own(s);
		if (r)
			return r;
	}
	r = user_hold(s, deadline, holdup);
	if (!r)
		s->stood = (uint32_t)s->nr_threads;
	/* another one traces it */
	return r == -EPERM && holdup->reason == VASI_HOLDUP_STOPPED ?
	       -ETIMEDOUT : r;
}

static uint32_t count_threads(const struct user_stream *s)
{
	_cleanup_free_ char *status = NULL;
	const char *f = NULL;

	if (!procfile_read(s->proc, "status", &status, NULL))
		f = procfile_field(status, "Threads");
	return f ? (uint32_t)strtoul(f, NULL, 10) : 0;
}

static int suspend_target(struct user_stream *s, int64_t deadline, int parked,
			  struct guest_holdup *holdup)
{
	int r = user_cgroup_own(s);

	if (!r && !s->frozen)
		r = user_freeze(s);
	if (!r)
		r = user_frozen(s, deadline, parked, holdup);
	if (!r)
		s->stood = count_threads(s);
	return r;
}

static int user_suspend(struct guest *g, unsigned int deadline_ms, int parked,
			struct guest_holdup *ret_holdup)
{
	struct user_stream *s = user_of(g);
	const int64_t begin = now_ns(), deadline = deadline_in(deadline_ms);
	struct guest_holdup holdup = {};
	int r = user_alive(s);

	if (!deadline_ms || deadline_ms > MAX_DEADLINE_MS)
		return -EINVAL;
	if (r)
		return r;
	if (s->state != VASI_STATE_ENABLED && s->state != VASI_STATE_SUSPENDED)
		return -EBUSY;
	r = s->target ? suspend_target(s, deadline, parked, &holdup) :
			suspend_source(s, deadline, &holdup);
	/* whatever failed, its end is the better reason */
	if (r && user_alive(s))
		r = user_alive(s);
	if (r == -ETIMEDOUT && ret_holdup)
		*ret_holdup = holdup;
	if (s->suspended)
		return r;
	if (r) {
		s->count[VASI_COUNT_SUSPEND_FAILS] += r == -ETIMEDOUT;
		if (s->frozen)
			user_thaw(s);
		return r;
	}
	s->suspended = true;
	s->suspended_at = begin;
	s->state = VASI_STATE_SUSPENDED;
	s->count[VASI_COUNT_SUSPENDS]++;
	s->count[VASI_COUNT_SUSPEND_NS] += (uint64_t)(now_ns() - begin);
	return 0;
}

static int user_resume(struct guest *g)
{
	struct user_stream *s = user_of(g);
	int r;

	if (!s->suspended || (s->state != VASI_STATE_SUSPENDED &&
			      s->state != VASI_STATE_ABORTED))
		return -EBUSY;
	r = resume(s);
	if (!r && s->state != VASI_STATE_ABORTED)
		s->state = s->target ? VASI_STATE_RESUMED : VASI_STATE_ENABLED;
	return r;
}

static int user_seal(struct guest *g)
{
	struct user_stream *s = user_of(g);
	int r = user_alive(s);

	if (r)
		return r;
	if (!s->suspended)
		return -EBUSY;
	if (s->sealed)
		return 0;
	/* a child that it made since would stand still as well */
	r = user_cgroup_own(s);
	if (!r)
		r = user_mark_sealed(s);
	if (!r && !s->frozen)
		r = user_freeze(s);
	if (!r)
		r = user_frozen(s, deadline_in(SEAL_MS), false, NULL);
	s->sealed = !r;
	if (r && s->cgroup >= 0) {
		if (!s->target)
			user_thaw(s);
		user_unmark_sealed(s);
	}
	return r;
}

/* Threads that their tracer has not waited for are still there, but have ended. */
static bool all_ended(const struct user_stream *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	_cleanup_closedir_ DIR *dir = NULL;
	const struct dirent *e;
	int fd;

	if (poll(&p, 1, 0) > 0)
		return true;
	fd = openat(s->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (e = readdir(dir))) {
		_cleanup_free_ char *status = NULL;
		char path[300];
		const char *f;

		snprintf(path, sizeof(path), "%s/status", e->d_name);
		if (*e->d_name == '.' ||
		    procfile_read(dirfd(dir), path, &status, NULL))
			continue;
		f = procfile_field(status, "State");
		if (f && *f != 'Z' && *f != 'X')
			return false;
	}
	return true;
}

static int user_destroy(struct guest *g, unsigned int deadline_ms)
{
	const int64_t deadline = deadline_in(deadline_ms);
	struct user_stream *s = user_of(g);

	if (!deadline_ms || deadline_ms > MAX_DEADLINE_MS)
		return -EINVAL;
	if (!s->suspended)
		return -EBUSY;
	pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
	user_release(s);
	while (!all_ended(s)) {
		if (!deadline_left(deadline))
			return -ETIMEDOUT;
		sleep_ms(1);
	}
	if (s->frozen)
		user_thaw(s);
	if (s->sealed)
		user_unmark_sealed(s);
	s->sealed = false;
	s->suspended = false;
	s->suspended_at = 0;
	s->state = s->state == VASI_STATE_RESUMED ? VASI_STATE_COMPLETED :
						    VASI_STATE_ABORTED;
	return 0;
}

/* -- what is told */

static int user_signal(struct guest *g, uint32_t code, uint32_t reason)
{
	struct user_stream *s = user_of(g);

	if (reason >> 24 > VASI_ENTITY_GUEST)
		return -EOPNOTSUPP;
	switch (code) {
	case VASI_SIGNAL_CANCEL:
		if (s->state != VASI_STATE_ENABLED)
			return -EBUSY;
		break;
	case VASI_SIGNAL_ABORT:
		if (s->sealed || (s->state != VASI_STATE_ENABLED &&
				  s->state != VASI_STATE_SUSPENDED))
			return -EBUSY;
		break;
	case VASI_SIGNAL_FAILOVER:
		return s->state == VASI_STATE_COMPLETED ? -EBUSY :
							  user_alive(s);
	case VASI_SIGNAL_RESUMED:
		/* unsealed, a close would make this copy run too */
		if (s->target || !s->sealed || s->state != VASI_STATE_SUSPENDED)
			return -EBUSY;
		s->state = VASI_STATE_RESUMED;
		return user_mark_sealed(s);
	case VASI_SIGNAL_COMPLETE:
		if (!s->target || s->state != VASI_STATE_RESUMED)
			return -EBUSY;
		s->state = VASI_STATE_COMPLETED;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
	s->state = VASI_STATE_ABORTED;
	s->reason = reason;
	return s->suspended ? resume(s) : 0;
}

static int user_info(struct guest *g, struct vasi_info *ret)
{
	struct user_stream *s = user_of(g);
	struct vasi_stream_info *i = &ret->out_stream;
	uint64_t count[VASI_COUNT_MAX];

	for (size_t n = 0; n < VASI_COUNT_MAX; n++)
		count[n] = s->count[n];
	user_track_count(s, count);
	*ret = (struct vasi_info){ .size = sizeof(*ret) };
	memcpy(ret->out_count, count, sizeof(count));
	*i = (struct vasi_stream_info){
		.stream_id = s->id, .service = s->service, .state = s->state,
		.reason = s->reason, .pid = s->pid, .opens = s->refs,
		.threads = s->stood, .bytes_left = s->bytes_left,
		.flags = (s->sealed ? VASI_STREAM_SEALED : 0) |
			 (s->suspended ? VASI_STREAM_SUSPENDED : 0) |
			 (user_alive(s) == -ESRCH ? VASI_STREAM_DEAD : 0),
	};
	if (s->suspended)
		i->suspended_ns = (uint64_t)(now_ns() - s->suspended_at);
	return 0;
}

static int user_progress(struct guest *g, uint64_t bytes_left)
{
	user_of(g)->bytes_left = bytes_left;
	return 0;
}

static int user_pollfd(const struct guest *g)
{
	return user_watch_fd(user_of(g));
}

const struct guest_access guest_user = {
	.name = "user",
	.probe = user_probe,
	.sealed = user_sealed,
	.attach = user_attach,
	.join = user_join,
	.takeover = user_takeover,
	.close = user_close,
	.track = user_track,
	.harvest = user_harvest,
	.mark = user_mark,
	.mappings = user_mappings,
	.objects = user_objects,
	.read = user_read,
	.write = user_write,
	.fill = user_fill,
	.suspend = user_suspend,
	.resume = user_resume,
	.seal = user_seal,
	.destroy = user_destroy,
	.state = user_state,
	.signal = user_signal,
	.info = user_info,
	.progress = user_progress,
	.pollfd = user_pollfd,
};
