// SPDX-License-Identifier: GPL-2.0
/*
 * Regular files
 *
 * One that the guest writes, or that is on a file system where it writes
 * another one, must be on shared storage. The target opens it in the pause
 * only, after the source has given its data to the storage: network file
 * systems make a file coherent when it is opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/files.h"
#include "state/procfile.h"

static bool match(const struct fd_entry *e)
{
	return S_ISREG(e->st.st_mode) && e->link[0] == '/';
}

static bool writable(const struct fd_entry *e)
{
	return (e->flags & O_ACCMODE) != O_RDONLY && !(e->flags & O_PATH);
}

static bool written_device(const struct fd_look *look, dev_t dev)
{
	size_t i;

	for (i = 0; i < look->n; i++)
		if (look->v[i].kind == &fd_kind_file &&
		    look->v[i].st.st_dev == dev && writable(&look->v[i]))
			return true;
	return false;
}

/* statfs() shows the type of the server's file system */
static bool type_of(const struct fd_look *look, const struct fd_entry *e,
		    char buf[32])
{
	_cleanup_free_ char *text = NULL;
	const char *line, *type;
	uint64_t id;

	if (!fd_info_u64(e, "mnt_id", 10, &id) ||
	    procfile_read(look->c->proc, "mountinfo", &text, NULL))
		return false;
	for (line = text; *line; line += *line == '\n') {
		if (strtoull(line, NULL, 10) == id) {
			type = strstr(line, " - ");
			return type && sscanf(type, " - %31s", buf) == 1;
		}
		line = strchrnul(line, '\n');
	}
	return false;
}

/*
 * 9p over virtio reads more than 1024 bytes by DMA into the guest's pages and
 * marks them nowhere, so neither a dirty bit nor the folio tells of it. Servers
 * of others may fill pages that they have pinned, which the module sees.
 */
static bool fills_unseen(const struct fd_look *look, const char *type)
{
	static const char *const pinning[] = {
		"fuse", "fuseblk", "virtiofs", "cifs", "smb3",
	};

	if (!strcmp(type, "9p"))
		return true;
	/* who looks at descriptors alone has no guest */
	if (!look->c->guest || look->c->guest->access != &guest_user)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(pinning); i++)
		if (!strcmp(type, pinning[i]))
			return true;
	return !strncmp(type, "fuse.", 5);
}

static void warn_unseen_reads(struct fd_look *look, const struct fd_entry *e)
{
	char object[PATH_MAX + 64], type[32];

	if (!look->checking || (e->flags & O_ACCMODE) == O_WRONLY ||
	    (e->flags & O_PATH) || !type_of(look, e, type) ||
	    !fills_unseen(look, type))
		return;
	finding_add(look->c->findings, FINDING_WARNING, "fd.file.unseen",
		    fd_object(e, object, sizeof(object)),
		    "is on %s, whose large reads %s: do not move the guest while it reads, or use another file system",
		    type, strcmp(type, "9p") ? "only the module may see" :
					       "no tracker sees");
}

/*
 * A device writes to the reader's pages after it has found them: what comes
 * behind the next look at them is seen by the module alone.
 */
static bool read_by_device(const struct fd_look *look, const struct fd_entry *e)
{
	return e->flags & O_DIRECT && (e->flags & O_ACCMODE) != O_WRONLY &&
	       look->c->guest->access == &guest_user;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	bool shared = written_device(look, e->st.st_dev);
	_cleanup_close_ int fd = -1;
	const char *fs;
	char path[32];
	int r;

	fs = fd_host_file_system(look, e);
	if (fs)
		return fd_refuse(look, e, "fd.file.host",
				 "files of %s belong to this host; close it first",
				 fs);
	warn_unseen_reads(look, e);
	if (read_by_device(look, e))
		return fd_refuse(look, e, "fd.file.direct",
				 "is read with O_DIRECT, which only the module sees all of; load vasi.ko, or open it without");
	if (!e->st.st_nlink)
		return fd_refuse(look, e, "fd.file.deleted",
				 "the file is deleted, so the target can't open it; close it first");
	snprintf(path, sizeof(path), "fd/%d", e->fd);
	fd = openat(look->c->proc, path,
		    (shared ? O_PATH : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fileid_capture(e->link, fd,
			   shared ? FILEID_NO_CONTENT : FILEID_CONTENT,
			   &of->file);
	if (r == -EFBIG)
		return fd_refuse(look, e, "fd.file.big",
				 "the file is too big to be compared; put it on shared storage and open it for writing, or close it");
	if (r)
		return r;
	if (of->file->deleted)
		return fd_refuse(look, e, "fd.file.deleted",
				 "the path leads to another file now, so the target can't open it; close it first");
	of->pos = e->pos;
	of->has_pos = 1;
	if (!shared)
		return 0;
	r = files_token(look->c, e->link, e->st.st_dev);
	if (r < 0)
		return fd_refuse(look, e, "fd.file.token",
				 "no token can be written beside it to prove that its storage is shared: %s",
				 strerror(-r));
	of->token = (uint32_t)r;
	of->has_token = 1;
	/* it grows until the guest stops */
	if (look->when == CAPTURE_EARLY)
		of->file->has_size = 0;
	return 0;
}

static bool late(const Mspd__OpenFile *of)
{
	return of->has_token;
}

static int check(struct files_check *t, const Mspd__OpenFile *of)
{
	char object[PATH_MAX + 64], why[512];
	struct stat st;

	file_object(t->table, of, object, sizeof(object));
	if (!of->file)
		return -EBADMSG;
	if (of->has_token &&
	    (of->token < 1 || of->token > t->table->n_tokens ||
	     !t->token_dev[of->token - 1])) {
		finding_add(t->f, FINDING_ERROR, "fd.file.shared", object,
			    "is written by the guest and not on storage that the target shares; move it there");
		return 0;
	}
	if (fileid_check(of->file, why, sizeof(why)))
		finding_add(t->f, FINDING_ERROR, "fd.file.same", object, "%s",
			    why);
	else if (of->has_token && (stat(of->file->path, &st) ||
				   st.st_dev != t->token_dev[of->token - 1]))
		finding_add(t->f, FINDING_ERROR, "fd.file.shared", object,
			    "is on another file system than its neighbours on the target; mount the shared storage there");
	return 0;
}

static int open_file(struct files_target *t, const Mspd__OpenFile *of,
		     int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	char why[512];
	int r;

	if (!of->file)
		return files_fail(t, of, -EBADMSG, "has no path");
	if (of->has_token &&
	    (of->token < 1 || of->token > t->nr_tokens ||
	     !t->token_dev[of->token - 1]))
		return files_fail(t, of, -EXDEV,
				  "is not on storage that the target shares");
	r = fileid_open(of->file, (int)of->flags, &fd, why, sizeof(why));
	if (r)
		return files_fail(t, of, r, "%s", why);
	if (of->has_token && (fstat(fd, &st) ||
			      st.st_dev != t->token_dev[of->token - 1]))
		return files_fail(t, of, -EXDEV,
				  "is on another file system than its neighbours on the target");
	*ret_fd = steal_fd(&fd);
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return !strcmp(a->file->path, b->file->path) &&
		a->has_token == b->has_token &&
		a->file->size == b->file->size &&
		a->file->mtime_ns == b->file->mtime_ns;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	if ((p->file->flags & O_PATH) || !p->file->has_pos)
		return 0;
	if (lseek(p->copy, p->file->pos, SEEK_SET) < 0)
		return files_fail(t, p->file, -errno, "offset %lld: %s",
				  (long long)p->file->pos, strerror(errno));
	return 0;
}

const struct fd_kind fd_kind_file = {
	.name = "file",
	.match = match,
	.capture = capture,
	.late = late,
	.check = check,
	.open = open_file,
	.same = same,
	.settle = settle,
};
