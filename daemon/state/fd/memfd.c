// SPDX-License-Identifier: GPL-2.0
/*
 * Memory files
 *
 * One that the guest maps is a memory object: its content goes the way of the
 * pages, and the descriptor opens that object. A small one that is not mapped
 * goes with the descriptor.
 */
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/files.h"

#define MAX_OBJECTS	1024
#define MAX_CONTENT	(1U << 20)

static bool match(const struct fd_entry *e)
{
	return S_ISREG(e->st.st_mode) && !strncmp(e->link, "/memfd:", 7);
}

/* number of the memory object, 0 = not mapped */
static int space_of(struct fd_look *look, const struct fd_entry *e,
		    uint32_t *ret)
{
	_cleanup_free_ struct vasi_object *v = NULL;
	struct guest *g = look->c->guest;
	size_t i, n = 0;
	int r;

	*ret = 0;
	if (!g)
		return 0;
	v = calloc(MAX_OBJECTS, sizeof(*v));
	if (!v)
		return -ENOMEM;
	r = g->access->objects(g, v, MAX_OBJECTS, &n);
	if (r)
		return r;
	for (i = 0; i < n; i++)
		if (v[i].ino == e->st.st_ino &&
		    v[i].dev_major == major(e->st.st_dev) &&
		    v[i].dev_minor == minor(e->st.st_dev))
			*ret = v[i].space;
	return 0;
}

static int copy_content(struct fd_look *look, struct fd_entry *e, int fd,
			Mspd__OpenFile *of)
{
	size_t len = (size_t)e->st.st_size, done = 0;

	if (e->st.st_size > MAX_CONTENT)
		return fd_refuse(look, e, "fd.memfd.unmapped",
				 "a memory file of %lld bytes that is not mapped can't be moved; map it, or close it",
				 (long long)e->st.st_size);
	if (!len || look->when == CAPTURE_EARLY)
		return 0;
	of->content = calloc(1, sizeof(*of->content));
	if (!of->content)
		return -ENOMEM;
	of->content[0].data = malloc(len);
	if (!of->content[0].data)
		return -ENOMEM;
	of->n_content = 1;
	while (done < len) {
		ssize_t n = pread(fd, of->content[0].data + done, len - done,
				  (off_t)done);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	of->content[0].len = len;
	return 0;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = -1;
	uint32_t space = 0;
	char path[32], *p;
	struct statfs fs;
	int seals, r;

	snprintf(path, sizeof(path), "fd/%d", e->fd);
	fd = openat(look->c->proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstatfs(fd, &fs))
		return -errno;
	if ((unsigned long)fs.f_type == HUGETLBFS_MAGIC)
		return fd_refuse(look, e, "fd.memfd.hugetlb",
				 "huge pages are reserved on this host; use memory without MFD_HUGETLB");
	of->name = strdup(e->link + 7);
	if (!of->name)
		return -ENOMEM;
	p = strstr(of->name, " (deleted)");
	if (p)
		*p = '\0';
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return -errno;
	of->seals = (uint32_t)seals;
	of->has_seals = 1;
	of->pos = e->pos;
	of->has_pos = 1;
	r = space_of(look, e, &space);
	if (r)
		return r;
	if (space) {
		of->space = space;
		of->has_space = 1;
		return 0;
	}
	of->peer = e->st.st_ino;
	of->has_peer = 1;
	return fd_first_of_file(look, e) ? copy_content(look, e, fd, of) : 0;
}

/* The first description of it has the content. */
static int make(struct files_target *t, const Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = -1;
	int end[2], r;

	fd = memfd_create(of->name ? of->name : "", MFD_CLOEXEC |
			  MFD_ALLOW_SEALING);
	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	if (of->n_content &&
	    (pwrite(fd, of->content[0].data, of->content[0].len, 0) !=
	     (ssize_t)of->content[0].len))
		return files_fail(t, of, -EIO, "content can't be written");
	if (of->seals && fcntl(fd, F_ADD_SEALS, of->seals))
		return files_fail(t, of, -errno, "seals %x: %s", of->seals,
				  strerror(errno));
	end[0] = fd;
	end[1] = -1;
	r = files_share(t, of->peer, end);
	if (!r)
		steal_fd(&fd);
	return r;
}

static int object_of(struct files_target *t, const Mspd__OpenFile *of)
{
	int r;

	if (of->has_space) {
		r = restore_object_fd(t->r, of->space);
		return r >= 0 ? r : files_fail(t, of, r,
					       "memory object %u is missing",
					       of->space);
	}
	if (!files_shared(t, of->peer)) {
		r = make(t, of);
		if (r)
			return r;
	}
	return files_shared(t, of->peer)->end[0];
}

static int open_memfd(struct files_target *t, const Mspd__OpenFile *of,
		      int *ret_fd)
{
	int object = object_of(t, of), fd;
	char path[32];

	if (object < 0)
		return object;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", object);
	fd = open(path, ((int)of->flags & ~(O_CREAT | O_EXCL | O_TRUNC)) |
		  O_CLOEXEC);
	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

/* An unmapped one is made anew: what it holds may have changed. */
static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->has_space && b->has_space && a->space == b->space;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	if (p->file->has_pos && lseek(p->copy, p->file->pos, SEEK_SET) < 0)
		return files_fail(t, p->file, -errno, "offset %lld: %s",
				  (long long)p->file->pos, strerror(errno));
	return 0;
}

/* before the pause a mapped one only: the others are made once */
static bool late(const Mspd__OpenFile *of)
{
	return !of->has_space;
}

const struct fd_kind fd_kind_memfd = {
	.name = "memfd",
	.match = match,
	.capture = capture,
	.late = late,
	.open = open_memfd,
	.same = same,
	.settle = settle,
};
