// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings: the flags that a mover has to give them on the other side
 */
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pkeys.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>

#include "compat/mm.h"
#include "vasi_private.h"

/* the kernel's bits move from version to version, those of the ABI do not */
static const struct {
	unsigned long vm;
	u32 flag;
} vasi_map_flags[] = {
	{ VM_READ, VASI_MAP_READ },
	{ VM_WRITE, VASI_MAP_WRITE },
	{ VM_EXEC, VASI_MAP_EXEC },
	{ VM_SHARED | VM_MAYSHARE, VASI_MAP_SHARED },
	{ VM_MAYWRITE, VASI_MAP_MAYWRITE },
	{ VM_MAYREAD | VM_MAYEXEC, 0 },
	{ VM_GROWSDOWN, VASI_MAP_GROWSDOWN },
	{ VM_ACCOUNT, VASI_MAP_ACCOUNTED },
	{ VM_NORESERVE, VASI_MAP_NORESERVE },
	{ VM_SEQ_READ, VASI_MAP_SEQUENTIAL },
	{ VM_RAND_READ, VASI_MAP_RANDOM },
	{ VM_DONTCOPY, VASI_MAP_DONTFORK },
	{ VM_DONTDUMP, VASI_MAP_DONTDUMP },
	{ VM_HUGEPAGE, VASI_MAP_HUGEPAGE },
	{ VM_NOHUGEPAGE, VASI_MAP_NOHUGEPAGE },
	{ VM_MERGEABLE, VASI_MAP_MERGEABLE },
	{ VM_WIPEONFORK, VASI_MAP_WIPEONFORK },
	{ VM_LOCKED, VASI_MAP_LOCKED },
	{ VM_LOCKONFAULT, VASI_MAP_LOCKONFAULT },
	{ VM_HUGETLB, VASI_MAP_HUGETLB },
	{ VM_IO | VM_PFNMAP | VM_MIXEDMAP, VASI_MAP_DEVICE },
	{ __VM_UFFD_FLAGS, VASI_MAP_USERFAULTFD },
	{ VASI_VM_SHADOW_STACK, VASI_MAP_SHADOW_STACK },
	{ VASI_VM_SEALED, VASI_MAP_SEALED },
	{ VASI_VM_DROPPABLE, VASI_MAP_DROPPABLE },
#ifdef VM_SOFTDIRTY
	{ VM_SOFTDIRTY, 0 },
#endif
};

static u32 vasi_map_flags_of(struct vm_area_struct *vma)
{
	unsigned long left = vma->vm_flags;
	u32 flags = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(vasi_map_flags); i++) {
		if (left & vasi_map_flags[i].vm)
			flags |= vasi_map_flags[i].flag;
		left &= ~vasi_map_flags[i].vm;
	}
	if (vma_pkey(vma)) {
		flags |= VASI_MAP_PKEY;
		left &= ~ARCH_VM_PKEY_FLAGS;
	}
	if (left)
		flags |= VASI_MAP_OTHER;
	return flags;
}

/* @ret is how many there are, also if @vec has room for @len only */
static int vasi_mappings_list(struct mm_struct *mm, struct vasi_mapping *vec,
			      u32 len, u32 *ret)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	u32 n = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma(vmi, vma) {
		if (n < len)
			vec[n] = (struct vasi_mapping) {
				.start = vma->vm_start,
				.end = vma->vm_end,
				.flags = vasi_map_flags_of(vma),
			};
		n++;
	}
	mmap_read_unlock(mm);
	*ret = n;
	return 0;
}

int vasi_mappings(struct vasi_open *o, void *cmd)
{
	struct vasi_mappings *c = cmd;
	u32 len = min(c->vec_len, VASI_MAX_MAPPINGS);
	struct vasi_mapping *vec;
	struct mm_struct *mm;
	int ret;

	mm = vasi_stream_mm(o->stream);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	/* not more than the guest has: the caller's word is not enough */
	len = min_t(u32, len, mm->map_count + VASI_MAPPINGS_SLACK);
	ret = -ENOMEM;
	vec = kvcalloc(max(len, 1u), sizeof(*vec), GFP_KERNEL_ACCOUNT);
	if (!vec)
		goto out;
	ret = vasi_mappings_list(mm, vec, len, &c->out_count);
	if (!ret && c->out_count > len)
		ret = -EMSGSIZE;
	if (!ret && copy_to_user(u64_to_user_ptr(c->vec), vec,
				 array_size(c->out_count, sizeof(*vec))))
		ret = -EFAULT;
	kvfree(vec);
out:
	mmput(mm);
	return ret;
}
