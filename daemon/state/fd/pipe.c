// SPDX-License-Identifier: GPL-2.0
/*
 * Pipes, with what is in them
 *
 * All ends are in the guest or closed everywhere. The content is copied by
 * tee(2), which leaves it where it is. In packet mode (O_DIRECT) a read of the
 * copy ends where a packet does, so each stays one.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/files.h"

#define READ_BYTES (64U << 10)

static bool match(const struct fd_entry *e)
{
	return !strncmp(e->link, "pipe:[", 6);
}

static int add_content(Mspd__OpenFile *of, const void *data, size_t len)
{
	ProtobufCBinaryData *v;

	v = reallocarray(of->content, of->n_content + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	of->content = v;
	v[of->n_content].data = malloc(len);
	if (!v[of->n_content].data)
		return -ENOMEM;
	memcpy(v[of->n_content].data, data, len);
	v[of->n_content++].len = len;
	return 0;
}

static int copy_content(int fd, Mspd__OpenFile *of)
{
	_cleanup_close_ int rd = -1, wr = -1;
	_cleanup_free_ char *buf = NULL;
	int inside, ends[2], r;
	ssize_t n;

	if (ioctl(fd, FIONREAD, &inside))
		return -errno;
	if (!inside)
		return 0;
	buf = malloc(READ_BYTES);
	if (!buf)
		return -ENOMEM;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	rd = ends[0];
	wr = ends[1];
	if (fcntl(wr, F_SETPIPE_SZ, (int)of->pipe_size) < 0)
		return -errno;
	n = tee(fd, wr, (size_t)inside, SPLICE_F_NONBLOCK);
	if (n != inside)
		return n < 0 ? -errno : -EIO;
	while ((n = read(rd, buf, READ_BYTES)) > 0) {
		r = add_content(of, buf, (size_t)n);
		if (r)
			return r;
		inside -= (int)n;
		if (!inside)
			return 0;
	}
	return n < 0 ? -errno : -EIO;
}

static bool readable(uint32_t flags)
{
	return (flags & O_ACCMODE) != O_WRONLY;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = -1;
	struct fd_entry *reader = NULL, *o;
	int size;

	if (e->flags & O_EXCL)
		return fd_refuse(look, e, "fd.pipe.watch",
				 "a notification pipe can't be moved; close it first");
	for (o = look->v; o < look->v + look->n && !reader; o++)
		if (match(o) && o->st.st_ino == e->st.st_ino &&
		    readable(o->flags))
			reader = o;
	of->peer = e->st.st_ino;
	of->has_peer = 1;
	fd = fd_copy(look, e);
	if (fd < 0)
		return fd;
	size = fcntl(fd, F_GETPIPE_SZ);
	if (size < 0)
		return -errno;
	of->pipe_size = (uint32_t)size;
	of->has_pipe_size = 1;
	if (look->when == CAPTURE_FINAL && reader && reader->id == e->id)
		return copy_content(fd, of);
	return 0;
}

static int get(struct files_target *t, uint64_t peer, struct placed_shared **ret)
{
	int end[2], r;

	*ret = files_shared(t, peer);
	if (*ret)
		return 0;
	if (pipe2(end, O_CLOEXEC))
		return -errno;
	r = files_share(t, peer, end);
	if (r) {
		close(end[0]);
		close(end[1]);
		return r;
	}
	*ret = files_shared(t, peer);
	return 0;
}

/*
 * The ends that pipe2() gives are used first: one that is opened by name shows
 * O_LARGEFILE in its flags, as some of the guest's may.
 */
static int open_pipe(struct files_target *t, const Mspd__OpenFile *of,
		     int *ret_fd)
{
	int mode = (int)of->flags & O_ACCMODE, end = mode == O_WRONLY, fd, r;
	struct placed_shared *p;
	char path[32];

	r = get(t, of->peer, &p);
	if (r)
		return files_fail(t, of, r, "%s", strerror(-r));
	if (mode != O_RDWR && !(of->flags & 0100000) && !p->taken[end]) {
		fd = fcntl(p->end[end], F_DUPFD_CLOEXEC, 0);
		p->taken[end] = fd >= 0;
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", p->end[end]);
		fd = open(path, mode | O_CLOEXEC);
	}
	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->peer == b->peer;
}

static int fill(struct files_target *t, struct placed_file *p, int wr)
{
	const Mspd__OpenFile *of = p->file;
	int flags = fcntl(wr, F_GETFL);
	size_t i;
	int r = 0;

	/* it fits; if it did not, waiting for the guest would be for ever */
	if (flags < 0 || fcntl(wr, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	for (i = 0; !r && i < of->n_content; i++)
		if (write(wr, of->content[i].data, of->content[i].len) !=
		    (ssize_t)of->content[i].len)
			r = files_fail(t, of, -EIO,
				       "its content does not fit in again");
	if (fcntl(wr, F_SETFL, flags))
		return -errno;
	return r;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	struct placed_shared *pipe = files_shared(t, p->file->peer);

	if (!pipe)
		return -EBADMSG;
	if (fcntl(p->copy, F_GETPIPE_SZ) != (int)p->file->pipe_size &&
	    fcntl(p->copy, F_SETPIPE_SZ, (int)p->file->pipe_size) < 0)
		return files_fail(t, p->file, -errno, "size %u: %s",
				  p->file->pipe_size, strerror(errno));
	return p->file->n_content ? fill(t, p, pipe->end[1]) : 0;
}

const struct fd_kind fd_kind_pipe = {
	.name = "pipe",
	.match = match,
	.capture = capture,
	.open = open_pipe,
	.same = same,
	.settle = settle,
};
