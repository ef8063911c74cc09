// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "lib/cleanup.h"
#include "session/children.h"

static void child_comm(struct child *c)
{
	char path[40];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", c->pid);
	snprintf(c->comm, sizeof(c->comm), "?");
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(c->comm, sizeof(c->comm), f))
		c->comm[strcspn(c->comm, "\n")] = '\0';
	fclose(f);
}

int children_first(int proc, struct child *ret)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *d;
	int fd;

	fd = openat(proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((d = readdir(dir))) {
		_cleanup_fclose_ FILE *f = NULL;
		char name[sizeof(d->d_name) + 16];

		if (*d->d_name == '.')
			continue;
		snprintf(name, sizeof(name), "%s/children", d->d_name);
		fd = openat(dirfd(dir), name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;	/* a thread that has ended */
		f = fdopen(fd, "r");
		if (!f) {
			close(fd);
			return -ENOMEM;
		}
		if (fscanf(f, "%d", &ret->pid) == 1) {
			child_comm(ret);
			return 1;
		}
	}
	return 0;
}
