// SPDX-License-Identifier: GPL-2.0
/* Working directory, root and file mode mask */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/procfile.h"
#include "state/resource.h"
#include "state/restore.h"

static int link_of(const struct capture *c, const char *name, char *buf,
		   size_t len)
{
	ssize_t n = readlinkat(c->proc, name, buf, len - 1);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

static bool same_file(const struct capture *c, const char *name,
		      const char *path)
{
	struct stat a, b;

	return !fstatat(c->proc, name, &a, 0) && !stat(path, &b) &&
		a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int fs_check(struct capture *c)
{
	char root[PATH_MAX], cwd[PATH_MAX];
	int r;

	r = link_of(c, "root", root, sizeof(root));
	if (!r)
		r = link_of(c, "cwd", cwd, sizeof(cwd));
	if (r)
		return r;
	if (strcmp(root, "/") || !same_file(c, "root", "/"))
		finding_add(c->findings, FINDING_ERROR, "fs.root", root,
			    "the guest has another root directory than mspd; start it without chroot");
	if (!same_file(c, "cwd", cwd))
		finding_add(c->findings, FINDING_ERROR, "fs.cwd", cwd,
			    "the working directory is removed or hidden; change to another one");
	return 0;
}

static int fs_capture(struct capture *c, enum capture_when when,
		      Mspd__Image *img)
{
	_cleanup_free_ char *status = NULL;
	const char *umask;
	char cwd[PATH_MAX];
	Mspd__Fs *fs;
	int r;

	(void)when;
	r = procfile_read(c->proc, "status", &status, NULL);
	if (!r)
		r = link_of(c, "cwd", cwd, sizeof(cwd));
	if (r)
		return r;
	if (!same_file(c, "cwd", cwd)) {
		finding_add(c->findings, FINDING_ERROR, "fs.cwd", cwd,
			    "the working directory was removed");
		return -EOPNOTSUPP;
	}
	umask = procfile_field(status, "Umask");
	fs = malloc(sizeof(*fs));
	if (!umask || !fs) {
		free(fs);
		return umask ? -ENOMEM : -EIO;
	}
	*fs = (Mspd__Fs)MSPD__FS__INIT;
	img->fs = fs;
	fs->umask = (uint32_t)strtoul(umask, NULL, 8);
	fs->cwd = strdup(cwd);
	return fs->cwd ? 0 : -ENOMEM;
}

static int fs_target_check(const struct restore_options *opt,
			   const Mspd__Image *early, struct findings *f)
{
	struct stat st;

	(void)opt;
	if (!early->fs)
		return 0;
	if (stat(early->fs->cwd, &st) || !S_ISDIR(st.st_mode))
		finding_add(f, FINDING_ERROR, "fs.cwd", early->fs->cwd,
			    "the working directory is missing on the target; make it");
	return 0;
}

/* is it already so? asked of the kernel, since the early image is gone */
static bool is_there(const struct restore *r, const Mspd__Fs *fs)
{
	_cleanup_free_ char *status = NULL;
	_cleanup_close_ int proc = -1;
	char path[32], cwd[PATH_MAX];
	const char *umask;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d", r->ns.pid);
	proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0 || procfile_read(proc, "status", &status, NULL))
		return false;
	n = readlinkat(proc, "cwd", cwd, sizeof(cwd) - 1);
	umask = procfile_field(status, "Umask");
	if (n < 0 || !umask)
		return false;
	cwd[n] = '\0';
	return !strcmp(cwd, fs->cwd) && strtoul(umask, NULL, 8) == fs->umask;
}

static int put_back(struct restore *r, const Mspd__Image *img)
{
	const Mspd__Fs *fs = img->fs;
	uint64_t path;
	int err;

	if (!fs || is_there(r, fs))
		return 0;
	path = remote_copy(&r->remote, fs->cwd, strlen(fs->cwd) + 1);
	if (!path)
		return -ENOMEM;
	err = remote_queue(&r->remote, 0, "chdir", SYS_chdir, path);
	if (!err)
		err = remote_queue(&r->remote, 0, "umask", SYS_umask,
				   fs->umask);
	if (!err)
		err = remote_flush(&r->remote);
	if (err)
		return restore_fail(r, err, "fs.cwd", fs->cwd,
				    "can't be the working directory: %s",
				    strerror(-err));
	return 0;
}

const struct resource resource_fs = {
	.name = "fs",
	.check = fs_check,
	.capture = fs_capture,
	.target_check = fs_target_check,
	.prepare = put_back,
	.finish = put_back,
};
