// SPDX-License-Identifier: GPL-2.0
/*
 * Harvest: goes through the guest's mappings and tells what changed
 *
 * Memory that has no page table is told once as a hole; walk.c looks at what
 * has one.
 */
#include <linux/hugetlb.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "harvest.h"
#include "trace.h"

/* somebody waits for the mmap lock or the processor */
#define VASI_WALK_YIELD	1

static bool vasi_walk_joins(struct vasi_walk *w, unsigned long addr, u8 kind,
			    u8 shift)
{
	struct vasi_range *last = &w->vec[w->count - 1];

	return w->count && last->start + (last->pages << PAGE_SHIFT) == addr &&
	       last->kind == kind && last->shift == shift;
}

bool vasi_walk_room(struct vasi_walk *w, unsigned long addr, u8 kind, u8 shift)
{
	if (kind == VASI_KIND_DATA && w->max_pages && w->pages >= w->max_pages)
		return false;
	return w->count < w->len || vasi_walk_joins(w, addr, kind, shift);
}

void vasi_walk_emit(struct vasi_walk *w, unsigned long addr,
		    unsigned long pages, u8 kind, u8 shift, u32 reason)
{
	if (vasi_walk_joins(w, addr, kind, shift)) {
		struct vasi_range *last = &w->vec[w->count - 1];

		last->pages += pages;
		last->reason |= reason;
	} else {
		w->vec[w->count++] = (struct vasi_range) {
			.start = addr,
			.pages = pages,
			.kind = kind,
			.shift = shift,
			.reason = reason,
		};
	}
	if (kind == VASI_KIND_HOLE)
		return;
	if (kind == VASI_KIND_DATA)
		w->pages += pages;
	w->n[VASI_COUNT_REPORTED] += pages;
	if (reason == VASI_REASON_EVENT)
		w->n[VASI_COUNT_EVENT] += pages;
	if (reason & VASI_REASON_DIRTY)
		w->n[VASI_COUNT_DIRTY] += pages;
	if (reason & VASI_REASON_FOLIO)
		w->n[VASI_COUNT_FOLIO] += pages;
	if (reason & VASI_REASON_PINNED)
		w->n[VASI_COUNT_PINNED] += pages;
}

static void vasi_walk_count(struct vasi_walk *w)
{
	int i;

	for (i = 0; i < VASI_COUNT_MAX; i++)
		if (w->n[i])
			vasi_count(w->s, i, w->n[i]);
}

unsigned long vasi_next_table(struct mm_struct *mm, unsigned long addr,
			      unsigned long end, pmd_t **ret_pmd)
{
	while (addr < end) {
		pgd_t *pgd = pgd_offset(mm, addr);
		p4d_t *p4d;
		pud_t *pud;
		pmd_t *pmd;

		if (pgd_none(READ_ONCE(*pgd))) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(READ_ONCE(*p4d))) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		/* a huge entry here is a device's */
		if (pud_none(READ_ONCE(*pud)) || pud_leaf(READ_ONCE(*pud))) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		pmd = pmd_offset(pud, addr);
		if (!pmd_none(READ_ONCE(*pmd))) {
			*ret_pmd = pmd;
			return addr;
		}
		addr = pmd_addr_end(addr, end);
	}
	return end;
}

/* nothing but pages of the file can be there */
static bool vasi_vma_is_file_only(struct vm_area_struct *vma)
{
	return !vma_is_anonymous(vma) && !READ_ONCE(vma->anon_vma);
}

static unsigned long vasi_hole_end(struct vasi_walk *w,
				   struct vm_area_struct *vma,
				   unsigned long addr, unsigned long end,
				   pmd_t **ret_pmd)
{
	if (vasi_vma_is_file_only(vma))
		return end;
	return vasi_next_table(w->mm, addr, end, ret_pmd);
}

/*
 * Remembers that [@addr, @end), part of one slot, is told as a hole. Returns 0
 * when it was told before, else 1 and why it is to be told.
 */
static int vasi_hole_tell(struct vasi_walk *w, unsigned long addr,
			  unsigned long end, u32 *ret_reason)
{
	unsigned long index = addr >> VASI_CHUNK_SHIFT;
	unsigned int i, first = pte_index(addr), last = pte_index(end - 1);
	void *entry = xa_load(&w->t->chunks, index);
	struct vasi_chunk *chunk;

	if (entry == VASI_TOLD)
		return 0;
	*ret_reason = VASI_REASON_FIRST;
	if (!entry && end - addr == PMD_SIZE) {
		if ((unsigned int)atomic_read(&w->t->nr_told) >= VASI_TOLD_MAX)
			return 1;
		entry = xa_cmpxchg(&w->t->chunks, index, NULL, VASI_TOLD,
				   GFP_KERNEL_ACCOUNT);
		if (xa_is_err(entry))
			return xa_err(entry);
		if (!entry) {
			atomic_inc(&w->t->nr_told);
			return 1;
		}
	}
	chunk = vasi_chunk_get(w->t, addr);
	if (IS_ERR(chunk))
		return PTR_ERR(chunk);
	if (find_next_zero_bit(chunk->sent, last + 1, first) > last)
		return 0;
	for (i = first; i <= last; i++) {
		if (test_bit(i, chunk->marked))
			*ret_reason = VASI_REASON_MARK;
		else if (test_bit(i, chunk->seen))
			*ret_reason = VASI_REASON_EVENT;
		set_bit(i, chunk->seen);
		clear_bit(i, chunk->marked);
		set_bit(i, chunk->sent);
	}
	return 1;
}

static int vasi_walk_hole(struct vasi_walk *w, struct vm_area_struct *vma,
			  unsigned long *addr, unsigned long end)
{
	if (end - *addr > VASI_TOLD_RUN) {
		if (!vasi_walk_room(w, *addr, VASI_KIND_HOLE, PAGE_SHIFT))
			return -ENOSPC;
		vasi_walk_emit(w, *addr, (end - *addr) >> PAGE_SHIFT,
			       VASI_KIND_HOLE, PAGE_SHIFT, VASI_REASON_FIRST);
		*addr = end;
		return 0;
	}
	while (*addr < end) {
		unsigned long next = pmd_addr_end(*addr, end);
		u32 reason;
		pmd_t *pmd;
		int ret;

		if (!vasi_walk_room(w, *addr, VASI_KIND_HOLE, PAGE_SHIFT))
			return -ENOSPC;
		ret = vasi_hole_tell(w, *addr, next, &reason);
		if (ret < 0)
			return ret;
		if (ret) {
			/*
			 * No page-table lock stands between this and a page
			 * that came and was swapped out: then its event may be
			 * over before the hole was remembered.
			 */
			smp_mb();
			if (vasi_hole_end(w, vma, *addr, next, &pmd) != next) {
				vasi_tracker_clear(w->t, *addr, next, false);
				return -EAGAIN;
			}
			vasi_walk_emit(w, *addr, (next - *addr) >> PAGE_SHIFT,
				       VASI_KIND_HOLE, PAGE_SHIFT, reason);
		}
		*addr = next;
	}
	return 0;
}

static int vasi_walk_vma(struct vasi_walk *w, struct vm_area_struct *vma,
			 unsigned long *addr, unsigned long end)
{
	while (*addr < end) {
		unsigned long next, from = *addr;
		struct vasi_chunk *chunk;
		pmd_t *pmd = NULL;
		int ret;

		next = vasi_hole_end(w, vma, from, end, &pmd);
		if (next > from) {
			ret = vasi_walk_hole(w, vma, addr, next);
		} else {
			chunk = vasi_chunk_get(w->t, from);
			if (IS_ERR(chunk))
				return PTR_ERR(chunk);
			ret = vasi_walk_slot(w, vma, pmd, chunk, addr,
					     pmd_addr_end(from, end));
		}
		if (ret && ret != -EAGAIN)
			return ret;
		if (need_resched() || mmap_lock_is_contended(w->mm) ||
		    fatal_signal_pending(current))
			return VASI_WALK_YIELD;
	}
	return 0;
}

/*
 * Not looked at here: what user space refuses to move (devices, hugetlb), and
 * shared mappings, whose content belongs to a memory object or a file.
 */
static bool vasi_vma_is_foreign(struct vm_area_struct *vma)
{
	return vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_SHARED |
				VM_MAYSHARE) ||
	       is_vm_hugetlb_page(vma);
}

/* mmap lock held */
static int vasi_walk_vmas(struct vasi_walk *w, unsigned long *addr,
			  unsigned long end)
{
	VMA_ITERATOR(vmi, w->mm, *addr);
	struct vm_area_struct *vma;
	int ret;

	for_each_vma_range(vmi, vma, end) {
		unsigned long vma_end = min(end, vma->vm_end);

		if (vma->vm_start > *addr) {
			vasi_tracker_prune(w->t, *addr, vma->vm_start);
			*addr = vma->vm_start;
		}
		if (vasi_vma_is_foreign(vma)) {
			*addr = vma_end;
			continue;
		}
		ret = vasi_walk_vma(w, vma, addr, vma_end);
		if (ret)
			return ret;
	}
	vasi_tracker_prune(w->t, *addr, end);
	*addr = end;
	return 0;
}

static int vasi_walk_mm(struct vasi_walk *w, unsigned long *addr,
			unsigned long end)
{
	int ret;

	do {
		if (mmap_read_lock_killable(w->mm))
			return -EINTR;
		ret = vasi_walk_vmas(w, addr, end);
		mmap_read_unlock(w->mm);
		cond_resched();
		if (ret == VASI_WALK_YIELD && fatal_signal_pending(current))
			ret = -EINTR;
	} while (ret == VASI_WALK_YIELD);
#ifdef VASI_TEST
	vasi_walk_late_flush(w);
#endif
	return ret;
}

static int vasi_harvest_mm(struct vasi_stream *s, struct vasi_harvest *h,
			   struct vasi_range *vec)
{
	struct vasi_walk w = {
		.s = s,
		.vec = vec,
		.len = h->vec_len,
		.max_pages = h->max_pages,
	};
	unsigned long addr = h->start, end;
	u64 top;
	int ret;

	w.mm = vasi_stream_mm(s);
	if (IS_ERR(w.mm))
		return PTR_ERR(w.mm);
	ret = -EBUSY;
	w.t = vasi_tracker_get(s);
	if (!w.t)
		goto out_mm;
	ret = 0;
	top = h->end ?: w.mm->task_size;
	end = min_t(u64, top, w.mm->task_size);
	if (addr < end)
		ret = vasi_walk_mm(&w, &addr, end);
	if (ret && ret != -ENOSPC) {
		/* what was taken until then would be lost */
		vasi_tracker_clear(w.t, h->start, max_t(u64, addr, h->start + 1),
				   true);
		goto out_tracker;
	}
	h->out_walk_end = ret ? addr : top;
	h->out_count = w.count;
	h->out_pages = w.pages;
	h->out_flushes = w.n[VASI_COUNT_FLUSHES];
	vasi_walk_count(&w);
	ret = 0;
out_tracker:
	vasi_tracker_put(w.t);
out_mm:
	mmput(w.mm);
	return ret;
}

static int vasi_harvest_check(struct vasi_stream *s, struct vasi_harvest *h)
{
	if (h->__reserved)
		return -EOPNOTSUPP;
	if (h->member)
		return -ENOENT;
	if (!h->vec_len || h->vec_len > VASI_MAX_VEC)
		return -EINVAL;
	if (!PAGE_ALIGNED(h->start) || !PAGE_ALIGNED(h->end) ||
	    (h->end && h->end <= h->start))
		return -EINVAL;
	return vasi_stream_check(s);
}

int vasi_harvest_vec(struct vasi_stream *s, struct vasi_harvest *h,
		     struct vasi_range *vec)
{
	ktime_t begin = ktime_get();
	int ret;
	u64 ns;

	ret = vasi_harvest_check(s, h);
	if (ret)
		return ret;
	if (h->space)
		ret = vasi_object_harvest(s, h, vec);
	else
		ret = vasi_harvest_mm(s, h, vec);
	if (ret)
		return ret;
	ns = ktime_to_ns(ktime_sub(ktime_get(), begin));
	vasi_count(s, VASI_COUNT_HARVESTS, 1);
	vasi_count(s, VASI_COUNT_HARVEST_NS, ns);
	trace_vasi_harvest(s->id, h->start, h->out_walk_end, h->out_pages,
			   h->out_flushes, ns);
	return 0;
}

void vasi_harvest_lost(struct vasi_stream *s, const struct vasi_harvest *h)
{
	struct vasi_tracker *t;

	if (h->space || h->out_walk_end <= h->start)
		return;
	t = vasi_tracker_get(s);
	if (!t)
		return;
	vasi_tracker_clear(t, h->start, h->out_walk_end, true);
	vasi_tracker_put(t);
}

void vasi_harvest_undo(struct vasi_open *o, void *cmd)
{
	vasi_harvest_lost(o->stream, cmd);
}

int vasi_harvest(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	struct vasi_harvest *h = cmd;
	struct vasi_range *vec;
	int ret;

	ret = vasi_harvest_check(s, h);
	if (ret)
		return ret;
	vec = kvmalloc_array(h->vec_len, sizeof(*vec), GFP_KERNEL_ACCOUNT);
	if (!vec)
		return -ENOMEM;
	ret = vasi_harvest_vec(s, h, vec);
	if (!ret && copy_to_user(u64_to_user_ptr(h->vec), vec,
				 array_size(h->out_count, sizeof(*vec)))) {
		vasi_harvest_lost(s, h);
		ret = -EFAULT;
	}
	kvfree(vec);
	return ret;
}
