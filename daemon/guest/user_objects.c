// SPDX-License-Identifier: GPL-2.0
/*
 * Memory objects without the module: shared shmem that the guest maps
 *
 * Each is opened by the mapping's name in /proc/PID/map_files and stays open,
 * so that its number holds while the stream lives.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include "guest/user_mem.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/maps.h"
#include "state/procfile.h"

#define PAGE		4096ULL
#define MAX_OBJECTS	4096
#define OUTSIDE_EVERY	(2 * NSEC_PER_SEC)

/**
 * struct user_object - one memory object
 * @fd: open
 * @flags: VASI_OBJECT_*, but for VASI_OBJECT_OUTSIDE
 * @outside: mapped by another process, when that was looked at last
 * @looked: it was
 * @nr_vmas: mappings, in the look that is being taken
 * @dev: major << 20 | minor
 * @ino: inode
 */
struct user_object {
	int fd;
	uint32_t flags;
	bool outside, looked;
	uint32_t nr_vmas;
	uint64_t dev, ino;
};

void user_mem_objects_free(struct user_mem *m)
{
	for (size_t i = 0; i < m->nr_objects; i++)
		close(m->objects[i].fd);
	free(m->objects);
	m->objects = NULL;
	m->nr_objects = 0;
}

static struct user_object *find(struct user_mem *m, uint64_t dev, uint64_t ino)
{
	for (size_t i = 0; i < m->nr_objects; i++)
		if (m->objects[i].ino == ino && m->objects[i].dev == dev)
			return &m->objects[i];
	return NULL;
}

/*
 * Only a target writes. An open for writing would make an exec of the memfd
 * fail in a guest that runs; a sealed one can't be opened so.
 */
static int open_object(struct user_mem *m, const struct map_line *line)
{
	char name[64];
	int fd = -1;

	snprintf(name, sizeof(name), "map_files/%" PRIx64 "-%" PRIx64,
		 line->start, line->end);
	if (m->writable)
		fd = openat(m->proc, name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = openat(m->proc, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static uint32_t flags_of(const struct map_line *line, const struct statfs *fs,
			 const struct stat *st)
{
	if (fs->f_type == HUGETLBFS_MAGIC)
		return VASI_OBJECT_HUGETLB;
	/* made by the kernel for a mapping, not for a name or a descriptor */
	if (!strncmp(line->name, "/SYSV", 5))
		return VASI_OBJECT_SYSV;
	if (!strncmp(line->name, "/dev/zero", 9))
		return VASI_OBJECT_ANON;
	return st->st_nlink ? 0 : VASI_OBJECT_MEMFD;
}

/* shared, or in no folder where the other side could find it */
static bool may_be_object(const struct map_line *line)
{
	const char *gone = strstr(line->name, " (deleted)");

	return line->ino && (line->shared || (gone && !gone[10]));
}

/* 0: it is none, or the mapping has just gone */
static int add(struct user_mem *m, const struct map_line *line)
{
	_cleanup_close_ int fd = -1;
	struct user_object *v;
	struct statfs fs;
	struct stat st;

	fd = open_object(m, line);
	if (fd < 0)
		return fd == -ENOMEM || fd == -EMFILE ? fd : 0;
	if (fstatfs(fd, &fs) || fstat(fd, &st))
		return -errno;
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)
		return 0;
	if (st.st_ino != line->ino || (!line->shared && st.st_nlink))
		return 0;
	if (m->nr_objects == MAX_OBJECTS)
		return -ENOSPC;
	v = reallocarray(m->objects, m->nr_objects + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	m->objects = v;
	v[m->nr_objects++] = (struct user_object){
		.fd = steal_fd(&fd), .flags = flags_of(line, &fs, &st),
		.nr_vmas = 1, .dev = line->dev, .ino = line->ino,
	};
	return 0;
}

static int look(struct user_mem *m)
{
	struct map_text t;
	char *text;
	int r;

	r = procfile_read(m->proc, "maps", &text, NULL);
	if (!r)
		r = map_text_parse(&t, text);
	if (r)
		return r;
	for (size_t i = 0; i < m->nr_objects; i++)
		m->objects[i].nr_vmas = 0;
	if (!t.n)
		r = -ESRCH;
	for (size_t i = 0; i < t.n && !r; i++) {
		struct user_object *o;

		if (!may_be_object(&t.v[i]))
			continue;
		o = find(m, t.v[i].dev, t.v[i].ino);
		if (o)
			o->nr_vmas++;
		else
			r = add(m, &t.v[i]);
	}
	map_text_free(&t);
	return r;
}

/* a process that goes meanwhile, or whose text is odd, maps nothing */
static void look_at_other(struct user_mem *m, int dir)
{
	struct map_text t;
	char *text;

	if (procfile_read(dir, "maps", &text, NULL) ||
	    map_text_parse(&t, text))
		return;
	for (size_t i = 0; i < t.n; i++) {
		struct user_object *o = NULL;

		if (t.v[i].ino)
			o = find(m, t.v[i].dev, t.v[i].ino);
		if (o)
			o->outside = true;
	}
	map_text_free(&t);
}

static int look_outside(struct user_mem *m)
{
	_cleanup_closedir_ DIR *proc = opendir("/proc");
	const struct dirent *e;

	if (!proc)
		return -errno;
	for (size_t i = 0; i < m->nr_objects; i++) {
		m->objects[i].outside = false;
		m->objects[i].looked = true;
	}
	while ((e = readdir(proc))) {
		_cleanup_close_ int dir = -1;

		if (!isdigit((unsigned char)*e->d_name) ||
		    atoi(e->d_name) == m->pid)
			continue;
		dir = openat(dirfd(proc), e->d_name,
			     O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir >= 0)
			look_at_other(m, dir);
	}
	m->outside_ns = now_ns();
	return 0;
}

static bool outside_is_due(const struct user_mem *m, bool suspended)
{
	bool any = false, unknown = false;

	for (size_t i = 0; i < m->nr_objects; i++) {
		any |= m->objects[i].nr_vmas != 0;
		unknown |= !m->objects[i].looked;
	}
	return unknown || (any && !suspended &&
			   now_ns() - m->outside_ns >= OUTSIDE_EVERY);
}

static int fill(const struct user_object *o, uint32_t space,
		struct vasi_object *ret)
{
	struct stat st;
	int seals;

	if (fstat(o->fd, &st))
		return -errno;
	seals = fcntl(o->fd, F_GET_SEALS);
	*ret = (struct vasi_object){
		.space = space, .bytes = (uint64_t)st.st_size,
		.flags = o->flags | (o->outside ? VASI_OBJECT_OUTSIDE : 0),
		.ino = o->ino, .dev_major = (uint32_t)(o->dev >> 20),
		.dev_minor = (uint32_t)(o->dev & 0xfffff),
		.populated = (uint64_t)st.st_blocks << 9,
		.seals = seals < 0 ? 0 : (uint32_t)seals,
		.nr_vmas = o->nr_vmas,
	};
	return 0;
}

int user_mem_objects(struct user_mem *m, bool suspended,
		     struct vasi_object *vec, size_t len, size_t *ret_n)
{
	size_t i, n = 0;
	int r;

	pthread_mutex_lock(&m->lock);
	r = look(m);
	if (!r && outside_is_due(m, suspended))
		r = look_outside(m);
	for (i = 0; i < m->nr_objects && !r; i++) {
		if (!m->objects[i].nr_vmas)
			continue;
		if (n < len)
			r = fill(&m->objects[i], (uint32_t)i + 1, &vec[n]);
		n++;
	}
	pthread_mutex_unlock(&m->lock);
	if (r)
		return r;
	*ret_n = n;
	return n > len ? -EMSGSIZE : 0;
}

int user_mem_object_fd(struct user_mem *m, uint32_t space)
{
	int fd = -ENOENT;

	pthread_mutex_lock(&m->lock);
	if (space && space <= m->nr_objects &&
	    !(m->objects[space - 1].flags & VASI_OBJECT_HUGETLB))
		fd = m->objects[space - 1].fd;
	pthread_mutex_unlock(&m->lock);
	return fd;
}

/* the first run of data or hole at @pos; it may have shrunk meanwhile */
static int next_run(int fd, uint64_t pos, uint64_t end, uint8_t *ret_kind,
		    uint64_t *ret_next)
{
	off_t data = lseek(fd, (off_t)pos, SEEK_DATA), next;

	if (data < 0 && errno != ENXIO)
		return -errno;
	if (data < 0 || (uint64_t)data > end)
		data = (off_t)end;
	*ret_kind = VASI_KIND_HOLE;
	next = data;
	if ((uint64_t)data == pos) {
		*ret_kind = VASI_KIND_DATA;
		next = lseek(fd, (off_t)pos, SEEK_HOLE);
		if (next < 0 && errno != ENXIO)
			return -errno;
		if (next < 0 || (uint64_t)next > end)
			next = (off_t)end;
	}
	*ret_next = ((uint64_t)next + PAGE - 1) & ~(PAGE - 1);
	if (*ret_next <= pos)
		*ret_next = pos + PAGE;
	return 0;
}

int user_mem_object_harvest(struct user_mem *m, uint32_t space, uint64_t start,
			    uint64_t end, uint64_t max_pages,
			    struct vasi_range *vec, size_t len, size_t *ret_n,
			    uint64_t *ret_end)
{
	uint64_t pages = 0, pos = start, top, next = 0;
	int fd = user_mem_object_fd(m, space), r = 0;
	uint8_t kind = VASI_KIND_HOLE;
	struct stat st;
	size_t n = 0;

	if (fd < 0)
		return fd;
	if (!len || (start | end) & (PAGE - 1) || (end && end <= start))
		return -EINVAL;
	if (fstat(fd, &st))
		return -errno;
	top = ((uint64_t)st.st_size + PAGE - 1) & ~(PAGE - 1);
	if (end && end < top)
		top = end;
	while (pos < top && n < len && !r) {
		r = next_run(fd, pos, top, &kind, &next);
		if (r)
			return r;
		if (kind == VASI_KIND_DATA && max_pages) {
			uint64_t most = pos + (max_pages - pages) * PAGE;

			if (pages >= max_pages)
				break;
			next = next < most ? next : most;
		}
		vec[n++] = (struct vasi_range){
			.start = pos, .pages = (next - pos) / PAGE,
			.space = space, .kind = kind, .shift = 12,
			.reason = VASI_REASON_FIRST,
		};
		if (kind == VASI_KIND_DATA)
			pages += (next - pos) / PAGE;
		pos = next;
	}
	*ret_n = n;
	/* behind the end of the object there is nothing to look at */
	*ret_end = pos < top ? pos : end ? end : top;
	return 0;
}
