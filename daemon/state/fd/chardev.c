// SPDX-License-Identifier: GPL-2.0
/* Devices that are the same everywhere: null, zero, full, random, urandom. */
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "lib/cleanup.h"
#include "state/files.h"

#define MEM_MAJOR 1

static bool everywhere(dev_t dev)
{
	switch (minor(dev)) {
	case 3: case 5: case 7: case 8: case 9:
		return major(dev) == MEM_MAJOR;
	}
	return false;
}

static bool match(const struct fd_entry *e)
{
	return S_ISCHR(e->st.st_mode) && everywhere(e->st.st_rdev);
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = -1;
	char path[32];
	int r;

	snprintf(path, sizeof(path), "fd/%d", e->fd);
	fd = openat(look->c->proc, path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fileid_capture(e->link, fd, FILEID_NO_CONTENT, &of->file);
	if (r)
		return r;
	of->rdev = e->st.st_rdev;
	of->has_rdev = 1;
	return 0;
}

static int open_device(struct files_target *t, const Mspd__OpenFile *of,
		       int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (!of->file || !everywhere(of->rdev))
		return files_fail(t, of, -EBADMSG, "is no device to be opened");
	fd = open(of->file->path, (int)of->flags | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return files_fail(t, of, -errno,
				  "can't be opened on the target: %s",
				  strerror(errno));
	if (fstat(fd, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != of->rdev)
		return files_fail(t, of, -ESTALE,
				  "is another device on the target");
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int check(struct files_check *t, const Mspd__OpenFile *of)
{
	char object[PATH_MAX + 64];
	struct stat st;

	if (!of->file)
		return -EBADMSG;
	if (stat(of->file->path, &st) || !S_ISCHR(st.st_mode) ||
	    st.st_rdev != of->rdev)
		finding_add(t->f, FINDING_ERROR, "fd.device",
			    file_object(t->table, of, object, sizeof(object)),
			    "device %u:%u is missing on the target",
			    major(of->rdev), minor(of->rdev));
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->rdev == b->rdev && !strcmp(a->file->path, b->file->path);
}

const struct fd_kind fd_kind_chardev = {
	.name = "chardev",
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_device,
	.same = same,
};
