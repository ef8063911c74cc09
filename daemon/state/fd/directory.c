// SPDX-License-Identifier: GPL-2.0
/*
 * Directories
 *
 * The offset is a cookie of the file system: it is carried when it is 0.
 */
#include <errno.h>
#include <string.h>
#include "lib/cleanup.h"
#include "state/files.h"

static bool match(const struct fd_entry *e)
{
	return S_ISDIR(e->st.st_mode);
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	const char *fs = fd_host_file_system(look, e);
	_cleanup_close_ int fd = -1;
	char path[32];
	int r;

	if (fs)
		return fd_refuse(look, e, "fd.directory.host",
				 "directories of %s belong to this host; close it first",
				 fs);
	snprintf(path, sizeof(path), "fd/%d", e->fd);
	fd = openat(look->c->proc, path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fileid_capture(e->link, fd, FILEID_NO_CONTENT, &of->file);
	if (r)
		return r;
	if (of->file->deleted)
		return fd_refuse(look, e, "fd.directory.deleted",
				 "the directory is removed; close it first");
	if (e->pos)
		return fd_refuse(look, e, "fd.directory.offset",
				 "the directory is being read; its offset has no meaning elsewhere");
	return 0;
}

static int check(struct files_check *t, const Mspd__OpenFile *of)
{
	char object[PATH_MAX + 64], why[512];

	if (!of->file)
		return -EBADMSG;
	if (fileid_check(of->file, why, sizeof(why)))
		finding_add(t->f, FINDING_ERROR, "fd.directory",
			    file_object(t->table, of, object, sizeof(object)),
			    "%s", why);
	return 0;
}

static int open_directory(struct files_target *t, const Mspd__OpenFile *of,
			  int *ret_fd)
{
	char why[512];
	int r;

	if (!of->file)
		return files_fail(t, of, -EBADMSG, "has no path");
	r = fileid_open(of->file, (int)of->flags, ret_fd, why, sizeof(why));
	return r ? files_fail(t, of, r, "%s", why) : 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return !strcmp(a->file->path, b->file->path);
}

const struct fd_kind fd_kind_directory = {
	.name = "directory",
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_directory,
	.same = same,
};
