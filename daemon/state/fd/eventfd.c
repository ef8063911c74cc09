// SPDX-License-Identifier: GPL-2.0
/* Event counters. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/files.h"

static bool match(const struct fd_entry *e)
{
	return !strcmp(e->link, "anon_inode:[eventfd]");
}

/*
 * Kernels before 6.5 do not tell whether it is a semaphore. A read does: it
 * takes one from a semaphore, all from a counter. The guest is stopped and
 * finds the count as it was.
 */
static int probe_semaphore(struct fd_look *look, struct fd_entry *e,
			   uint64_t count, bool *ret)
{
	_cleanup_close_ int fd = fd_copy(look, e);
	uint64_t add = count < 2 ? 2 - count : 0, got;

	if (fd < 0)
		return fd;
	if (add && write(fd, &add, sizeof(add)) != sizeof(add))
		return -EIO;
	if (read(fd, &got, sizeof(got)) != sizeof(got))
		return -EIO;
	*ret = got == 1;
	if (!*ret) {
		if (!count)
			return 0;
		return write(fd, &count, sizeof(count)) == sizeof(count) ?
			0 : -EIO;
	}
	/* one less than what it was made: 1 if something was added */
	if (!add) {
		got = 1;
		return write(fd, &got, sizeof(got)) == sizeof(got) ? 0 : -EIO;
	}
	if (!count && read(fd, &got, sizeof(got)) != sizeof(got))
		return -EIO;
	return 0;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	uint64_t count, semaphore = 0;
	bool yes = false;
	int r;

	if (!fd_info_u64(e, "eventfd-count", 16, &count))
		return -EIO;
	if (!fd_info_u64(e, "eventfd-semaphore", 10, &semaphore) &&
	    look->when == CAPTURE_FINAL) {
		r = probe_semaphore(look, e, count, &yes);
		if (r)
			return r;
		semaphore = yes;
	}
	of->count = count;
	of->has_count = 1;
	of->semaphore = semaphore;
	of->has_semaphore = 1;
	return 0;
}

static int open_eventfd(struct files_target *t, const Mspd__OpenFile *of,
			int *ret_fd)
{
	int fd = eventfd(0, EFD_CLOEXEC | (of->semaphore ? EFD_SEMAPHORE : 0));

	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->semaphore == b->semaphore;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	uint64_t count = p->file->count;

	if (count && write(p->copy, &count, sizeof(count)) != sizeof(count))
		return files_fail(t, p->file, -EIO, "count %llu can't be set",
				  (unsigned long long)count);
	return 0;
}

const struct fd_kind fd_kind_eventfd = {
	.name = "eventfd",
	.match = match,
	.capture = capture,
	.open = open_eventfd,
	.same = same,
	.settle = settle,
};
