// SPDX-License-Identifier: GPL-2.0
/*
 * Memory objects: shared shmem that the guest maps
 *
 * Each is opened anew for the mover: the guest's file position is never moved,
 * and the object is read and written while no page table is in the way.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/hugetlb.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/sched/mm.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "harvest.h"
#include "vasi_private.h"

/**
 * struct vasi_mapped - a file found in the guest's mappings
 * @link: in the list of the look-through
 * @file: referenced, the guest's own
 * @nr_vmas: mappings of it
 * @outside: another process maps it too
 */
struct vasi_mapped {
	struct list_head link;
	struct file *file;
	u32 nr_vmas;
	bool outside;
};

static bool vasi_file_is_hugetlb(struct file *file)
{
	return file_inode(file)->i_sb->s_magic == HUGETLBFS_MAGIC;
}

/* shared, or in no folder where the other side could find it */
static bool vasi_vma_is_object(struct vm_area_struct *vma)
{
	struct inode *inode;

	if (!vma->vm_file)
		return false;
	inode = file_inode(vma->vm_file);
	if (inode->i_sb->s_magic != TMPFS_MAGIC &&
	    inode->i_sb->s_magic != HUGETLBFS_MAGIC)
		return false;
	return vma->vm_flags & (VM_SHARED | VM_MAYSHARE) || !inode->i_nlink;
}

/*
 * A look at the mappings of the moment. The tree's iterators are not exported;
 * its order does not matter here.
 */
static bool vasi_mapped_outside(struct file *file, struct mm_struct *mm)
{
	struct address_space *mapping = file->f_mapping;
	struct rb_node *node;
	bool outside = false;

	i_mmap_lock_read(mapping);
	for (node = rb_first_cached(&mapping->i_mmap); node && !outside;
	     node = rb_next(node)) {
		struct vm_area_struct *vma =
			rb_entry(node, struct vm_area_struct, shared.rb);

		outside = vma->vm_mm != mm;
	}
	i_mmap_unlock_read(mapping);
	return outside;
}

static void vasi_mapped_free(struct list_head *list)
{
	struct vasi_mapped *m, *next;

	list_for_each_entry_safe(m, next, list, link) {
		fput(m->file);
		kfree(m);
	}
}

static int vasi_mapped_add(struct list_head *list, struct vm_area_struct *vma,
			   u32 *count)
{
	struct inode *inode = file_inode(vma->vm_file);
	struct vasi_mapped *m;

	list_for_each_entry(m, list, link) {
		if (file_inode(m->file) == inode) {
			m->nr_vmas++;
			return 0;
		}
	}
	if (*count >= VASI_MAX_OBJECTS)
		return -ENOSPC;
	m = kzalloc(sizeof(*m), GFP_KERNEL_ACCOUNT);
	if (!m)
		return -ENOMEM;
	m->file = get_file(vma->vm_file);
	m->nr_vmas = 1;
	list_add_tail(&m->link, list);
	++*count;
	return 0;
}

static int vasi_mapped_find(struct mm_struct *mm, struct list_head *list,
			    u32 *count)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	int ret = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma(vmi, vma) {
		if (!vasi_vma_is_object(vma))
			continue;
		ret = vasi_mapped_add(list, vma, count);
		if (ret)
			break;
	}
	mmap_read_unlock(mm);
	return ret;
}

static struct vasi_memobj *vasi_memobj_find(struct vasi_stream *s,
					    struct inode *inode)
{
	struct vasi_memobj *obj;
	unsigned long space;

	xa_for_each(&s->objects, space, obj)
		if (file_inode(obj->file) == inode)
			return obj;
	return NULL;
}

/*
 * Only a target writes. An open for writing would make an exec of the memfd
 * fail in a guest that runs; a sealed or executed one can't be opened so.
 */
static struct file *vasi_memobj_open(struct vasi_stream *s, struct file *file)
{
	struct file *own;

	if (vasi_file_is_hugetlb(file))
		return get_file(file);
	if (s->service == VASI_SERVICE_TARGET) {
		own = dentry_open(&file->f_path, O_RDWR | O_LARGEFILE,
				  current_cred());
		if (!IS_ERR(own))
			return own;
	}
	return dentry_open(&file->f_path, O_RDONLY | O_LARGEFILE,
			   current_cred());
}

static struct vasi_memobj *vasi_memobj_get(struct vasi_stream *s,
					   struct file *file)
{
	struct vasi_memobj *obj = vasi_memobj_find(s, file_inode(file));
	void *old;

	if (obj)
		return obj;
	if (s->nr_objects >= VASI_MAX_OBJECTS)
		return ERR_PTR(-ENOSPC);
	obj = kzalloc(sizeof(*obj), GFP_KERNEL_ACCOUNT);
	if (!obj)
		return ERR_PTR(-ENOMEM);
	obj->file = vasi_memobj_open(s, file);
	if (IS_ERR(obj->file)) {
		long ret = PTR_ERR(obj->file);

		kfree(obj);
		return ERR_PTR(ret);
	}
	obj->space = s->nr_objects + 1;
	old = xa_store(&s->objects, obj->space, obj, GFP_KERNEL_ACCOUNT);
	if (xa_is_err(old)) {
		fput(obj->file);
		kfree(obj);
		return ERR_PTR(xa_err(old));
	}
	s->nr_objects++;
	return obj;
}

static u32 vasi_object_flags(struct file *file)
{
	struct inode *inode = file_inode(file);
	const unsigned char *name = file->f_path.dentry->d_name.name;

	if (vasi_file_is_hugetlb(file))
		return VASI_OBJECT_HUGETLB;
	/* made by the kernel for a mapping, not for a name or a descriptor */
	if (IS_PRIVATE(inode))
		return strncmp(name, "SYSV", 4) ? VASI_OBJECT_ANON :
						  VASI_OBJECT_SYSV;
	return inode->i_nlink ? 0 : VASI_OBJECT_MEMFD;
}

static void vasi_object_fill(struct vasi_object *out, u32 space,
			     struct vasi_mapped *m)
{
	struct inode *inode = file_inode(m->file);

	*out = (struct vasi_object) {
		.space = space,
		.flags = vasi_object_flags(m->file),
		.bytes = i_size_read(inode),
		.ino = inode->i_ino,
		.dev_major = MAJOR(inode->i_sb->s_dev),
		.dev_minor = MINOR(inode->i_sb->s_dev),
		.populated = (u64)inode->i_blocks << 9,
		.nr_vmas = m->nr_vmas,
	};
	if (m->outside)
		out->flags |= VASI_OBJECT_OUTSIDE;
	if (inode->i_sb->s_magic == TMPFS_MAGIC)
		out->seals = SHMEM_I(inode)->seals;
}

static int vasi_objects_list(struct vasi_stream *s, struct mm_struct *mm,
			     struct list_head *list, struct vasi_object *vec)
{
	struct vasi_mapped *m;
	u32 i = 0;

	list_for_each_entry(m, list, link) {
		struct vasi_memobj *obj = vasi_memobj_get(s, m->file);

		if (IS_ERR(obj))
			return PTR_ERR(obj);
		m->outside = vasi_mapped_outside(m->file, mm);
		vasi_object_fill(&vec[i++], obj->space, m);
		cond_resched();
	}
	return 0;
}

int vasi_objects(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	struct vasi_objects *c = cmd;
	struct vasi_object *vec = NULL;
	struct mm_struct *mm;
	LIST_HEAD(list);
	u32 count = 0;
	int ret;

	mm = vasi_stream_mm(s);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	ret = vasi_mapped_find(mm, &list, &count);
	if (ret)
		goto out;
	c->out_count = count;
	ret = -EMSGSIZE;
	if (count > c->vec_len)
		goto out;
	ret = -ENOMEM;
	vec = kvcalloc(max(count, 1u), sizeof(*vec), GFP_KERNEL_ACCOUNT);
	if (!vec)
		goto out;
	ret = -EINTR;
	if (mutex_lock_killable(&s->lock))
		goto out;
	ret = s->ended ? -ENODEV : vasi_objects_list(s, mm, &list, vec);
	mutex_unlock(&s->lock);
	if (!ret && copy_to_user(u64_to_user_ptr(c->vec), vec,
				 array_size(count, sizeof(*vec))))
		ret = -EFAULT;
out:
	kvfree(vec);
	vasi_mapped_free(&list);
	mmput(mm);
	return ret;
}

void vasi_objects_drop(struct vasi_stream *s)
{
	struct vasi_memobj *obj;
	unsigned long space;

	xa_for_each(&s->objects, space, obj) {
		xa_erase(&s->objects, space);
		fput(obj->file);
		kfree(obj);
	}
}

struct file *vasi_object_file(struct vasi_stream *s, u32 space)
{
	struct vasi_memobj *obj = xa_load(&s->objects, space);

	return obj && !vasi_file_is_hugetlb(obj->file) ? obj->file : NULL;
}

int vasi_object_harvest(struct vasi_stream *s, struct vasi_harvest *h,
			struct vasi_range *vec)
{
	struct file *file = vasi_object_file(s, h->space);
	u64 pages = 0, pos = h->start, end, size;
	u32 n = 0;

	if (!file)
		return -ENOENT;
	size = PAGE_ALIGN(i_size_read(file_inode(file)));
	end = min(h->end ?: size, size);
	while (pos < end && n < h->vec_len) {
		loff_t data = vfs_llseek(file, pos, SEEK_DATA), next;
		u8 kind = VASI_KIND_HOLE;

		if (data == -ENXIO || data >= (loff_t)end)
			data = end;
		if (data < 0)
			return data;
		next = data;
		if (data == pos) {
			next = vfs_llseek(file, pos, SEEK_HOLE);
			if (next < 0 && next != -ENXIO)
				return next;
			kind = VASI_KIND_DATA;
			/* it may have shrunk meanwhile */
			next = next < 0 ? (loff_t)end :
					  min_t(loff_t, PAGE_ALIGN(next), end);
		}
		if (kind == VASI_KIND_DATA && h->max_pages) {
			if (pages >= h->max_pages)
				break;
			next = min_t(u64, next, pos + ((h->max_pages - pages)
						       << PAGE_SHIFT));
		}
		if (next <= (loff_t)pos)
			next = pos + PAGE_SIZE;
		vec[n++] = (struct vasi_range) {
			.start = pos,
			.pages = (next - pos) >> PAGE_SHIFT,
			.space = h->space,
			.kind = kind,
			.shift = PAGE_SHIFT,
			.reason = VASI_REASON_FIRST,
		};
		if (kind == VASI_KIND_DATA)
			pages += (next - pos) >> PAGE_SHIFT;
		pos = next;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	vasi_count(s, VASI_COUNT_REPORTED, pages);
	h->out_count = n;
	h->out_pages = pages;
	h->out_flushes = 0;
	/* behind the end of the object there is nothing to look at */
	h->out_walk_end = pos < end ? pos : h->end ?: end;
	return 0;
}
