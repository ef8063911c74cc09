// SPDX-License-Identifier: GPL-2.0
/*
 * Reads and writes vectors of guest pages
 *
 * Pages are taken by get_user_pages with force, so that a mapping's protection
 * does not matter, and copied with no lock held. A page that the guest gives
 * up meanwhile is reported by the next harvest, so a stale copy does no harm.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "compat/mm.h"
#include "vasi_private.h"

#define VASI_GUP_BATCH	64

/**
 * struct vasi_xfer - one call
 * @s: its stream
 * @mm: the guest's memory, referenced
 * @write: into the guest
 * @pages: batch at work
 * @bounce: a page, for memory objects
 */
struct vasi_xfer {
	struct vasi_stream *s;
	struct mm_struct *mm;
	bool write;
	struct page *pages[VASI_GUP_BATCH];
	void *bounce;
};

static long vasi_xfer_get(struct vasi_xfer *x, unsigned long addr,
			  unsigned long nr, bool write)
{
	unsigned int flags = FOLL_FORCE | (write ? FOLL_WRITE : 0);
	int locked = 1;
	long ret;

	if (mmap_read_lock_killable(x->mm))
		return -EINTR;
	ret = vasi_get_pages(x->mm, addr, min_t(unsigned long, nr,
						VASI_GUP_BATCH),
			     flags, x->pages, &locked);
	if (locked)
		mmap_read_unlock(x->mm);
	return ret ?: -EFAULT;
}

static void vasi_xfer_put(struct vasi_xfer *x, long nr, bool dirty)
{
	long i;

	for (i = 0; i < nr; i++) {
		if (dirty)
			set_page_dirty_lock(x->pages[i]);
		put_page(x->pages[i]);
	}
}

static int vasi_copy_batch(struct vasi_xfer *x, long nr, char __user *data)
{
	unsigned long left = 0;
	long i;

	for (i = 0; i < nr && !left; i++, data += PAGE_SIZE) {
		void *page = kmap_local_page(x->pages[i]);

		if (x->write)
			left = copy_from_user(page, data, PAGE_SIZE);
		else
			left = copy_to_user(data, page, PAGE_SIZE);
		kunmap_local(page);
	}
	return left ? -EFAULT : 0;
}

/* -EFAULT of the caller's memory must not look like one of the guest's */
#define VASI_CALLER_FAULT	1

static int vasi_copy_mm(struct vasi_xfer *x, unsigned long addr,
			unsigned long nr, char __user *data)
{
	while (nr) {
		long n = vasi_xfer_get(x, addr, nr, x->write);
		int ret;

		if (n < 0)
			return n;
		ret = vasi_copy_batch(x, n, data);
		vasi_xfer_put(x, n, x->write);
		if (ret)
			return VASI_CALLER_FAULT;
		addr += n << PAGE_SHIFT;
		data += n << PAGE_SHIFT;
		nr -= n;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* a page that reads as zero already is left alone: it may not be populated */
static int vasi_clear_mm(struct vasi_xfer *x, unsigned long addr,
			 unsigned long nr)
{
	while (nr) {
		struct page *found[VASI_GUP_BATCH];
		long i, n = vasi_xfer_get(x, addr, nr, false);
		bool dirty[VASI_GUP_BATCH];

		if (n < 0)
			return n;
		for (i = 0; i < n; i++) {
			void *page = kmap_local_page(x->pages[i]);

			dirty[i] = memchr_inv(page, 0, PAGE_SIZE);
			kunmap_local(page);
			found[i] = x->pages[i];
		}
		for (i = 0; i < n; i++)
			put_page(found[i]);
		for (i = 0; i < n; i++) {
			long ret;

			if (!dirty[i])
				continue;
			ret = vasi_xfer_get(x, addr + (i << PAGE_SHIFT), 1,
					    true);
			if (ret < 0)
				return ret;
			clear_highpage(x->pages[0]);
			vasi_xfer_put(x, 1, true);
		}
		addr += n << PAGE_SHIFT;
		nr -= n;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* @data NULL: zeros */
static int vasi_copy_object(struct vasi_xfer *x, u32 space, loff_t pos,
			    unsigned long nr, char __user *data)
{
	struct file *file = vasi_object_file(x->s, space);

	if (!file)
		return -ENOENT;
	if (!x->bounce)
		x->bounce = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!x->bounce)
		return -ENOMEM;
	if (x->write && !(file->f_mode & FMODE_WRITE))
		return -EPERM;
	while (nr--) {
		ssize_t done;

		if (x->write) {
			/* the last page may be part of a page only */
			size_t len = PAGE_SIZE;
			loff_t size = i_size_read(file_inode(file));

			if (pos >= size)
				return -EFAULT;
			len = min_t(loff_t, len, size - pos);
			if (!data)
				memset(x->bounce, 0, PAGE_SIZE);
			else if (copy_from_user(x->bounce, data, PAGE_SIZE))
				return VASI_CALLER_FAULT;
			done = kernel_write(file, x->bounce, len, &pos);
			if (done >= 0 && done != len)
				return -EFAULT;
		} else {
			done = kernel_read(file, x->bounce, PAGE_SIZE, &pos);
			if (done >= 0) {
				if (!done)
					return -EFAULT;
				memset(x->bounce + done, 0, PAGE_SIZE - done);
				if (copy_to_user(data, x->bounce, PAGE_SIZE))
					return VASI_CALLER_FAULT;
			}
		}
		if (done < 0)
			return done;
		pos = PAGE_ALIGN(pos);
		if (data)
			data += PAGE_SIZE;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static int vasi_xfer_entry(struct vasi_xfer *x, const struct vasi_range *r,
			   char __user *data)
{
	switch (r->kind) {
	case VASI_KIND_DATA:
		if (r->space)
			return vasi_copy_object(x, r->space, r->start, r->pages,
						data);
		return vasi_copy_mm(x, r->start, r->pages, data);
	case VASI_KIND_ZERO:
		if (!x->write)
			return 0;
		if (r->space)
			return vasi_copy_object(x, r->space, r->start, r->pages,
						NULL);
		return vasi_clear_mm(x, r->start, r->pages);
	default:
		return 0;
	}
}

/* checks the vector; the bytes of its data entries */
static int vasi_xfer_check(const struct vasi_range *vec, u32 len, u64 *ret_bytes)
{
	u64 bytes = 0;
	u32 i;

	for (i = 0; i < len; i++) {
		u64 end;
		int ret = vasi_range_check(&vec[i], &end);

		if (ret)
			return ret;
		if (vec[i].kind > VASI_KIND_HOLE)
			return -EOPNOTSUPP;
		if (vec[i].kind != VASI_KIND_DATA)
			continue;
		bytes += end - vec[i].start;
		if (end - vec[i].start > VASI_MAX_BATCH ||
		    bytes > VASI_MAX_BATCH)
			return -EINVAL;
	}
	*ret_bytes = bytes;
	return 0;
}

static int vasi_xfer_run(struct vasi_xfer *x, struct vasi_pages *c,
			 const struct vasi_range *vec)
{
	char __user *data = u64_to_user_ptr(c->data);
	u32 i;

	c->out_count = 0;
	c->out_bytes = 0;
	for (i = 0; i < c->vec_len; i++) {
		int ret = vasi_xfer_entry(x, &vec[i], data + c->out_bytes);

		if (ret == VASI_CALLER_FAULT)
			return -EFAULT;
		if (ret == -EINTR || ret == -ENOENT)
			return ret;
		/* -EFAULT: the guest unmapped it, or has it nowhere readable */
		if (ret)
			return i ? 0 : ret;
		if (vec[i].kind == VASI_KIND_DATA)
			c->out_bytes += vec[i].pages << PAGE_SHIFT;
		c->out_count++;
	}
	return 0;
}

static int vasi_xfer(struct vasi_stream *s, struct vasi_pages *c, bool write)
{
	struct vasi_range *vec = NULL;
	struct vasi_xfer *x;
	u64 bytes;
	int ret;

	if (!c->vec_len || c->vec_len > VASI_MAX_VEC)
		return -EINVAL;
	x = kzalloc(sizeof(*x), GFP_KERNEL_ACCOUNT);
	if (!x)
		return -ENOMEM;
	x->s = s;
	x->write = write;
	x->mm = vasi_stream_mm(s);
	if (IS_ERR(x->mm)) {
		ret = PTR_ERR(x->mm);
		kfree(x);
		return ret;
	}
	ret = -ENOMEM;
	vec = kvmalloc_array(c->vec_len, sizeof(*vec), GFP_KERNEL_ACCOUNT);
	if (!vec)
		goto out;
	ret = -EFAULT;
	if (copy_from_user(vec, u64_to_user_ptr(c->vec),
			   array_size(c->vec_len, sizeof(*vec))))
		goto out;
	ret = vasi_xfer_check(vec, c->vec_len, &bytes);
	if (ret)
		goto out;
	if (bytes > c->data_len) {
		c->out_count = 0;
		c->out_bytes = bytes;
		ret = -EMSGSIZE;
		goto out;
	}
	ret = vasi_xfer_run(x, c, vec);
	if (!ret)
		vasi_count(s, write ? VASI_COUNT_WRITE_BYTES :
				      VASI_COUNT_READ_BYTES, c->out_bytes);
out:
	free_page((unsigned long)x->bounce);
	kvfree(vec);
	mmput(x->mm);
	kfree(x);
	return ret;
}

int vasi_pages_read(struct vasi_open *o, void *cmd)
{
	return vasi_xfer(o->stream, cmd, false);
}

int vasi_pages_write(struct vasi_open *o, void *cmd)
{
	return vasi_xfer(o->stream, cmd, true);
}
