// SPDX-License-Identifier: GPL-2.0
/*
 * A guest held by ptrace and reached through /proc
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "ptrace_guest.h"
#include "state/maps.h"
#include "state/procfile.h"

#define PAGE 4096ULL

const char *ptrace_guest_cgroup;

static struct ptrace_guest *of(struct guest *g)
{
	return (struct ptrace_guest *)g;
}

int32_t ptrace_guest_inner_tid(pid_t pid, pid_t tid)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int dir = -1;
	const char *f, *end;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d", pid, tid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || procfile_read(dir, "status", &text, NULL))
		return 0;
	f = procfile_field(text, "NSpid");
	if (!f)
		return 0;
	end = strchr(f, '\n');
	while (end > f && end[-1] != '\t' && end[-1] != ' ')
		end--;
	return atoi(end);
}

static int attach(struct guest **ret, pid_t pid, uint32_t service,
		  uint64_t stream_id)
{
	struct ptrace_guest *p = calloc(1, sizeof(*p));
	char path[64];

	if (!p)
		return -ENOMEM;
	p->guest = (struct guest){ &guest_ptrace, stream_id, service, pid };
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	p->mem = open(path, O_RDWR | O_CLOEXEC);
	if (p->mem < 0) {
		free(p);
		return -errno;
	}
	*ret = &p->guest;
	return 0;
}

static int join(struct guest **ret, const struct guest *g)
{
	return attach(ret, g->pid, g->service, g->stream_id);
}

static int resume(struct guest *g);

static void close_guest(struct guest *g)
{
	struct ptrace_guest *p = of(g);

	if (p->stopped && g->service == VASI_SERVICE_SOURCE)
		resume(g);
	close(p->mem);
	free(p->threads);
	free(p);
}

static int maps_text(pid_t pid, struct map_text *ret)
{
	_cleanup_close_ int dir = -1;
	char path[64], *text;
	int r;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	r = procfile_read(dir, "maps", &text, NULL);
	return r ? r : map_text_parse(ret, text);
}

static bool is_object(const struct map_line *line)
{
	const char *gone = strstr(line->name, " (deleted)");

	return line->shared && gone && !gone[10];
}

/* objects are numbered by their order among the inodes in the list */
static int objects(struct guest *g, struct vasi_object *vec, size_t len,
		   size_t *ret_n)
{
	struct map_text t;
	size_t i, j, n = 0;
	int r = maps_text(g->pid, &t);

	if (r)
		return r;
	for (i = 0; i < t.n; i++) {
		struct stat st;
		char path[96];

		if (!is_object(&t.v[i]))
			continue;
		for (j = 0; j < n && j < len; j++)
			if (vec[j].ino == t.v[i].ino)
				break;
		if (j < n)
			continue;
		if (n++ >= len)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64
			 "-%" PRIx64, g->pid, t.v[i].start, t.v[i].end);
		if (stat(path, &st))
			continue;
		vec[n - 1] = (struct vasi_object){
			.space = (uint32_t)n, .bytes = (uint64_t)st.st_size,
			.ino = t.v[i].ino, .dev_major = t.v[i].dev >> 20,
			.dev_minor = t.v[i].dev & 0xfffff,
			.flags = strncmp(t.v[i].name, "/memfd:", 7) ?
				 VASI_OBJECT_ANON : VASI_OBJECT_MEMFD,
		};
	}
	map_text_free(&t);
	*ret_n = n;
	return n > len ? -EMSGSIZE : 0;
}

static int object_fd(struct guest *g, uint32_t space)
{
	struct map_text t;
	uint64_t seen[64];
	size_t i, j, n = 0;
	char path[96];
	int r = maps_text(g->pid, &t), fd = -ENOENT;

	for (i = 0; !r && i < t.n && fd == -ENOENT; i++) {
		if (!is_object(&t.v[i]))
			continue;
		for (j = 0; j < n; j++)
			if (seen[j] == t.v[i].ino)
				break;
		if (j < n)
			continue;
		seen[n++] = t.v[i].ino;
		if (n != space)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64
			 "-%" PRIx64, g->pid, t.v[i].start, t.v[i].end);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	if (!r)
		map_text_free(&t);
	return fd;
}

static void put(struct vasi_range *vec, size_t *n, uint32_t space,
		uint64_t start, uint8_t kind)
{
	struct vasi_range *last = *n ? &vec[*n - 1] : NULL;

	if (last && last->kind == kind && last->space == space &&
	    last->start + last->pages * PAGE == start) {
		last->pages++;
		return;
	}
	vec[(*n)++] = (struct vasi_range){ .start = start, .pages = 1,
					   .space = space, .kind = kind };
}

static int harvest_object(struct guest *g, uint32_t space,
			  struct vasi_range *vec, size_t len, size_t *ret_n,
			  uint64_t *ret_end)
{
	_cleanup_close_ int fd = object_fd(g, space);
	uint64_t at;
	off_t data = 0, hole;
	size_t n = 0;

	if (fd < 0)
		return fd;
	while (n < len && (data = lseek(fd, data, SEEK_DATA)) >= 0) {
		hole = lseek(fd, data, SEEK_HOLE);
		for (at = (uint64_t)data & ~(PAGE - 1); at < (uint64_t)hole;
		     at += PAGE)
			put(vec, &n, space, at, VASI_KIND_DATA);
		data = hole;
	}
	*ret_n = n;
	*ret_end = UINT64_MAX;
	return 0;
}

static int harvest(struct guest *g, uint32_t space, uint64_t start,
		   uint64_t end, uint64_t max_pages, struct vasi_range *vec,
		   size_t len, size_t *ret_n, uint64_t *ret_end)
{
	_cleanup_close_ int pagemap = -1;
	struct map_text t;
	char path[64];
	size_t i, n = 0;
	uint64_t at = start;
	int r;

	(void)max_pages;
	if (space)
		return harvest_object(g, space, vec, len, ret_n, ret_end);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	r = pagemap < 0 ? -errno : maps_text(g->pid, &t);
	if (r)
		return r;
	for (i = 0; i < t.n && n < len; i++) {
		const struct map_line *line = &t.v[i];
		bool gone = strstr(line->name, " (deleted)");

		if (line->shared || line->end <= start ||
		    !strncmp(line->name, "[v", 2))
			continue;
		for (at = line->start; at < line->end && n < len; at += PAGE) {
			uint64_t e;

			if (at < start || (end && at >= end))
				continue;
			if (pread(pagemap, &e, 8, (off_t)(at / PAGE * 8)) != 8)
				continue;
			if ((e >> 62 & 3) && (!(e >> 61 & 1) || gone))
				put(vec, &n, 0, at, VASI_KIND_DATA);
		}
	}
	*ret_end = n < len ? UINT64_MAX : at;
	*ret_n = n;
	map_text_free(&t);
	return 0;
}

static int read_pages(struct guest *g, const struct vasi_range *vec, size_t n,
		      void *data, size_t len, size_t *ret_done)
{
	uint8_t *to = data;
	size_t i;

	for (i = 0; i < n; i++) {
		size_t bytes = vec[i].pages * PAGE;
		_cleanup_close_ int fd = -1;
		ssize_t got;

		if (vec[i].kind != VASI_KIND_DATA)
			continue;
		if (bytes > len)
			break;
		if (vec[i].space) {
			fd = object_fd(g, vec[i].space);
			if (fd < 0)
				return fd;
		}
		got = pread(fd >= 0 ? fd : of(g)->mem, to, bytes,
			    (off_t)vec[i].start);
		if (got != (ssize_t)bytes)
			break;
		to += bytes;
		len -= bytes;
	}
	*ret_done = i;
	return i || !n ? 0 : -EFAULT;
}

static int write_pages(struct guest *g, const struct vasi_range *vec, size_t n,
		       const void *data, size_t len, size_t *ret_done)
{
	const uint8_t *from = data;
	size_t i;

	for (i = 0; i < n; i++) {
		size_t bytes = vec[i].pages * PAGE;

		if (vec[i].kind != VASI_KIND_DATA)
			continue;
		if (bytes > len || vec[i].space ||
		    pwrite(of(g)->mem, from, bytes, (off_t)vec[i].start) !=
		    (ssize_t)bytes)
			break;
		from += bytes;
		len -= bytes;
	}
	*ret_done = i;
	return i || !n ? 0 : -EFAULT;
}

static int freezer(const char *value)
{
	_cleanup_close_ int fd = -1;
	char path[512];

	snprintf(path, sizeof(path), "%s/cgroup.freeze", ptrace_guest_cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, value, 1) != 1 ? -errno : 0;
}

static bool frozen(void)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int dir = open(ptrace_guest_cgroup,
				       O_PATH | O_DIRECTORY | O_CLOEXEC);

	return !procfile_read(dir, "cgroup.events", &text, NULL) &&
	       strstr(text, "frozen 1");
}

static int stop_thread(struct ptrace_guest *p, pid_t tid)
{
	struct ptrace_thread *v;
	size_t i;
	int status;

	for (i = 0; i < p->nr_threads; i++)
		if (p->threads[i].host_tid == tid)
			return 0;
	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) ||
	    ptrace(PTRACE_INTERRUPT, tid, 0, 0))
		return errno == ESRCH ? 0 : -errno;
	do {
		if (waitpid(tid, &status, __WALL | __WNOTHREAD) != tid ||
		    !WIFSTOPPED(status))
			return 0;
		/* a signal on its way goes on, the stop comes behind it */
		if (status >> 16 != PTRACE_EVENT_STOP)
			ptrace(PTRACE_CONT, tid, 0, WSTOPSIG(status));
	} while (status >> 16 != PTRACE_EVENT_STOP);
	ptrace_guest_restart_eintr(tid);
	v = reallocarray(p->threads, p->nr_threads + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	p->threads = v;
	v[p->nr_threads++] = (struct ptrace_thread){
		tid, ptrace_guest_inner_tid(p->guest.pid, tid),
	};
	return 1;
}

static int suspend(struct guest *g, unsigned int deadline_ms, int parked,
		   struct guest_holdup *ret_holdup)
{
	const int64_t deadline = deadline_in(deadline_ms);
	struct ptrace_guest *p = of(g);
	char path[64];
	int news, r;

	(void)ret_holdup;
	if (g->service == VASI_SERVICE_TARGET) {
		if (!parked)
			return freezer("1");
		while (!frozen()) {
			if (!deadline_left(deadline))
				return -ETIMEDOUT;
			sleep_ms(1);
		}
		return 0;
	}
	snprintf(path, sizeof(path), "/proc/%d/task", g->pid);
	do {
		_cleanup_closedir_ DIR *dir = opendir(path);
		const struct dirent *e;

		if (!dir)
			return -ESRCH;
		news = 0;
		while ((e = readdir(dir))) {
			if (*e->d_name == '.')
				continue;
			r = stop_thread(p, atoi(e->d_name));
			if (r < 0)
				return r;
			news += r;
		}
	} while (news);
	p->stopped = true;
	return 0;
}

static int resume(struct guest *g)
{
	struct ptrace_guest *p = of(g);
	size_t i;

	if (g->service == VASI_SERVICE_TARGET)
		return freezer("0");
	for (i = 0; i < p->nr_threads; i++)
		ptrace(PTRACE_DETACH, p->threads[i].host_tid, 0, 0);
	p->nr_threads = 0;
	p->stopped = false;
	return 0;
}

static int destroy(struct guest *g, unsigned int deadline_ms)
{
	struct ptrace_guest *p = of(g);
	const int64_t deadline = deadline_in(deadline_ms);
	size_t i;

	kill(g->pid, SIGKILL);
	/* threads are to be seen before the leader */
	for (i = p->nr_threads; i-- > 0;) {
		while (!waitpid(p->threads[i].host_tid, NULL,
				__WALL | __WNOTHREAD | WNOHANG)) {
			if (!deadline_left(deadline))
				return -ETIMEDOUT;
			sleep_ms(1);
		}
	}
	p->nr_threads = 0;
	p->stopped = false;
	return 0;
}

static int nothing(struct guest *g)
{
	(void)g;
	return 0;
}

static int track(struct guest *g, int on)
{
	(void)g;
	(void)on;
	return 0;
}

const struct guest_access guest_ptrace = {
	.name = "ptrace",
	.attach = attach,
	.join = join,
	.close = close_guest,
	.track = track,
	.harvest = harvest,
	.objects = objects,
	.read = read_pages,
	.write = write_pages,
	.suspend = suspend,
	.resume = resume,
	.seal = nothing,
	.destroy = destroy,
	.state = ptrace_guest_state,
};
