// SPDX-License-Identifier: GPL-2.0
/*
 * Content of a guest's pages, without the module
 *
 * process_vm_readv() and process_vm_writev() do the work, many ranges a call.
 * They know the process by its number only and go by the protection of its
 * mappings. /proc/PID/mem does not: it takes the ranges where they fail, and
 * tells whether the memory is still the one that was attached to.
 */
#include <errno.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include "guest/user_mem.h"
#include "lib/cleanup.h"

#define PAGE_SHIFT	12
#define PAGE		(1UL << PAGE_SHIFT)
#define ZERO_PAGES	64

void user_mem_init(struct user_mem *m, pid_t pid, int proc, int mem,
		   uint32_t service)
{
	*m = (struct user_mem){
		.pid = pid, .proc = proc, .mem = mem,
		.writable = service == VASI_SERVICE_TARGET, .fill = -1,
	};
	pthread_mutex_init(&m->lock, NULL);
}

void user_mem_fini(struct user_mem *m)
{
	user_mem_objects_free(m);
	user_mem_mappings_free(m);
	pthread_mutex_destroy(&m->lock);
}

static size_t bytes_of(const struct vasi_range *r)
{
	return (size_t)r->pages << PAGE_SHIFT;
}

static bool in_space(const struct vasi_range *r)
{
	return r->kind == VASI_KIND_DATA && !r->space;
}

static int check(const struct vasi_range *vec, size_t n, size_t len)
{
	uint64_t bytes = 0;

	if (!n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (vec[i].start & (PAGE - 1) || !vec[i].pages)
			return -EINVAL;
		if (vec[i].pages > (UINT64_MAX - vec[i].start) >> PAGE_SHIFT)
			return -EOVERFLOW;
		if (vec[i].member || vec[i].kind > VASI_KIND_HOLE)
			return vec[i].member ? -ENOENT : -EOPNOTSUPP;
		if (vec[i].kind != VASI_KIND_DATA)
			continue;
		if (vec[i].pages > USER_MEM_MAX_BATCH >> PAGE_SHIFT)
			return -EINVAL;
		bytes += bytes_of(&vec[i]);
	}
	if (bytes > USER_MEM_MAX_BATCH)
		return -EINVAL;
	return bytes > len ? -EMSGSIZE : 0;
}

/* reads nothing once the memory has no user any more */
static bool gone(const struct user_mem *m)
{
	char byte;

	/* at an address that may well not be mapped: any error will do */
	return pread(m->mem, &byte, 1, (off_t)PAGE) == 0;
}

/* all or nothing, whatever the protection */
static int by_file(int fd, char *data, size_t len, uint64_t at, bool write)
{
	while (len) {
		ssize_t done = write ? pwrite(fd, data, len, (off_t)at) :
				       pread(fd, data, len, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done && errno != EIO ? -errno : -EFAULT;
		data += done;
		at += (uint64_t)done;
		len -= (size_t)done;
	}
	return 0;
}

static int object_copy(struct user_mem *m, const struct vasi_range *r,
		       char *data, bool write)
{
	int fd = user_mem_object_fd(m, r->space);
	uint64_t at = r->start, end = at + bytes_of(r);
	char none[PAGE] = {};

	if (fd < 0)
		return fd;
	while (at < end) {
		size_t len = data ? end - at : PAGE;
		ssize_t done;

		if (write)
			done = pwrite(fd, data ? data : none, len, (off_t)at);
		else
			done = pread(fd, data, len, (off_t)at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EFAULT;
		/* the last page may be part of a page only */
		if (done & (ssize_t)(PAGE - 1)) {
			size_t rest = PAGE - ((size_t)done & (PAGE - 1));

			if (!write)
				memset(data + done, 0, rest);
			done += (ssize_t)rest;
		}
		data = data ? data + done : NULL;
		at += (uint64_t)done;
	}
	return 0;
}

/*
 * Copies the ranges of space 0 at the begin of the vector, as many as go by one
 * call. Returns how many were copied whole, @ret_bytes their bytes.
 */
static size_t by_process(struct user_mem *m, const struct vasi_range *vec,
			 size_t n, char *data, bool write, size_t *ret_bytes)
{
	struct iovec remote[IOV_MAX], local = { .iov_base = data };
	size_t i, k = 0, copied = 0;
	ssize_t done;

	for (i = 0; i < n && k < IOV_MAX; i++) {
		if (vec[i].kind == VASI_KIND_DATA && vec[i].space)
			break;
		if (!in_space(&vec[i])) {
			/* a zero range is cleared in its turn */
			if (write && vec[i].kind == VASI_KIND_ZERO)
				break;
			continue;
		}
		remote[k++] = (struct iovec){
			(void *)(uintptr_t)vec[i].start, bytes_of(&vec[i]),
		};
		local.iov_len += bytes_of(&vec[i]);
	}
	*ret_bytes = 0;
	if (!k)
		return i;
	n = i;
	if (write)
		done = process_vm_writev(m->pid, &local, 1, remote, k, 0);
	else
		done = process_vm_readv(m->pid, &local, 1, remote, k, 0);
	if (done <= 0)
		return 0;
	for (i = 0; i < n; i++) {
		size_t len = in_space(&vec[i]) ? bytes_of(&vec[i]) : 0;

		if (copied + len > (size_t)done)
			break;
		copied += len;
	}
	*ret_bytes = copied;
	return i;
}

/*
 * A range that nothing has touched: its pages come into being with their
 * content, and need neither be cleared nor looked up. False: one is there, or
 * is none of the kind; then all of it is written in the other way.
 */
static bool by_fill(struct user_mem *m, const struct vasi_range *r,
		    const char *data)
{
	struct uffdio_copy arg = {
		.dst = r->start, .src = (uintptr_t)data, .len = bytes_of(r),
	};

	while (ioctl(m->fill, UFFDIO_COPY, &arg)) {
		/* a part was copied: the next call says why not all */
		if (errno != EAGAIN || arg.copy <= 0)
			return false;
		arg.dst += (uint64_t)arg.copy;
		arg.src += (uint64_t)arg.copy;
		arg.len -= (uint64_t)arg.copy;
		arg.copy = 0;
	}
	return true;
}

static bool is_zero(const char *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static int clear_pages(struct user_mem *m, uint64_t at, size_t pages)
{
	static const char none[PAGE];
	char have[ZERO_PAGES * PAGE];
	size_t i, n, len;
	int r = 0;

	for (; pages && !r; pages -= n, at += len) {
		struct iovec local = { have, 0 }, remote;

		n = pages < ZERO_PAGES ? pages : ZERO_PAGES;
		len = n << PAGE_SHIFT;
		local.iov_len = len;
		remote = (struct iovec){ (void *)(uintptr_t)at, len };
		if (process_vm_readv(m->pid, &local, 1, &remote, 1, 0) !=
		    (ssize_t)len)
			r = by_file(m->mem, have, len, at, false);
		/* what reads as zero may not be populated: leave it so */
		for (i = 0; i < n && !r; i++)
			if (!is_zero(have + (i << PAGE_SHIFT), PAGE))
				r = by_file(m->mem, (char *)none, PAGE,
					    at + (i << PAGE_SHIFT), true);
	}
	return r;
}

/* one range, by the way that takes all */
static int one_range(struct user_mem *m, const struct vasi_range *r, char *data,
		     bool write)
{
	switch (r->kind) {
	case VASI_KIND_DATA:
		if (r->space)
			return object_copy(m, r, data, write);
		return by_file(m->mem, data, bytes_of(r), r->start, write);
	case VASI_KIND_ZERO:
		if (!write)
			return 0;
		if (r->space)
			return object_copy(m, r, NULL, true);
		return clear_pages(m, r->start, r->pages);
	default:
		return 0;
	}
}

static int copy(struct user_mem *m, const struct vasi_range *vec, size_t n,
		char *data, bool write, size_t *ret_done, size_t *ret_bytes)
{
	size_t done = 0, bytes = 0, part, k;
	int r = 0;

	while (done < n) {
		bool fill = write && m->fill >= 0 && in_space(&vec[done]);

		if (fill && by_fill(m, &vec[done], data + bytes)) {
			bytes += bytes_of(&vec[done++]);
			continue;
		}
		k = by_process(m, vec + done, fill ? 1 : n - done,
			       data + bytes, write, &part);
		done += k;
		bytes += part;
		if (done == n)
			break;
		if (k && fill)
			continue;
		r = one_range(m, &vec[done], data + bytes, write);
		if (r)
			break;
		if (vec[done].kind == VASI_KIND_DATA)
			bytes += bytes_of(&vec[done]);
		done++;
	}
	*ret_done = done;
	*ret_bytes = bytes;
	return r;
}

static int transfer(struct user_mem *m, const struct vasi_range *vec, size_t n,
		    char *data, size_t len, bool write, size_t *ret_done)
{
	size_t done, bytes;
	int r = check(vec, n, len);

	if (r)
		return r;
	r = copy(m, vec, n, data, write, &done, &bytes);
	/* what was read may be another process's, or an exec's */
	if (gone(m))
		return -ESRCH;
	if (r == -ENOENT || (r && !done))
		return r;
	pthread_mutex_lock(&m->lock);
	*(write ? &m->write_bytes : &m->read_bytes) += bytes;
	pthread_mutex_unlock(&m->lock);
	*ret_done = done;
	return 0;
}

int user_mem_read(struct user_mem *m, const struct vasi_range *vec, size_t n,
		  void *data, size_t len, size_t *ret_done)
{
	return transfer(m, vec, n, data, len, false, ret_done);
}

int user_mem_write(struct user_mem *m, const struct vasi_range *vec, size_t n,
		   const void *data, size_t len, size_t *ret_done)
{
	return transfer(m, vec, n, (char *)data, len, true, ret_done);
}
