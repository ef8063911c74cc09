// SPDX-License-Identifier: GPL-2.0
/*
 * The sent set and the mmu notifier that takes bits out of it
 *
 * A harvest sets a bit under the page-table lock. An event (unmap, swap-out,
 * migration, ...) clears it before and after the page tables change: before
 * alone would lose what a harvest within the window set; after alone would let
 * a harvest within the window see an entry whose dirty bit the event has
 * already taken, with the bit still set. In between no bit stays set.
 *
 * A page whose dirty bit was taken looks never written to reclaim, which drops
 * such a page without swap after MADV_FREE, and MADV_FREE may have come before
 * the write, or from a child that shares the page. The notifier is told before
 * reclaim looks and marks the page dirty; once there is no notifier, all pages
 * have to be.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "harvest.h"
#include "track.h"
#include "vasi_private.h"

static struct vasi_stream *vasi_notifier_stream(struct mmu_notifier *mn)
{
	return container_of(mn, struct vasi_stream, notifier);
}

struct vasi_tracker *vasi_tracker_get(struct vasi_stream *s)
{
	struct vasi_tracker *t;

	rcu_read_lock();
	t = rcu_dereference(s->tracker);
	if (t && !kref_get_unless_zero(&t->ref))
		t = NULL;
	rcu_read_unlock();
	return t;
}

static void vasi_tracker_free(struct kref *ref)
{
	struct vasi_tracker *t = container_of(ref, struct vasi_tracker, ref);
	struct vasi_chunk *chunk;
	unsigned long index;

	/* a notifier may still be looking */
	synchronize_rcu();
	xa_for_each(&t->chunks, index, chunk) {
		if (!xa_is_value(chunk))
			kfree(chunk);
		cond_resched();
	}
	xa_destroy(&t->chunks);
	kfree(t);
}

void vasi_tracker_put(struct vasi_tracker *t)
{
	kref_put(&t->ref, vasi_tracker_free);
}

struct vasi_chunk *vasi_chunk_get(struct vasi_tracker *t, unsigned long addr)
{
	unsigned long index = addr >> VASI_CHUNK_SHIFT;
	struct vasi_chunk *chunk, *new = NULL;
	void *entry, *found;

	entry = xa_load(&t->chunks, index);
	while (!entry || xa_is_value(entry)) {
		if (!new)
			new = kmalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
		if (!new)
			return ERR_PTR(-ENOMEM);
		memset(new, 0, sizeof(*new));
		if (entry) {
			bitmap_fill(new->sent, VASI_CHUNK_PAGES);
			bitmap_fill(new->seen, VASI_CHUNK_PAGES);
		}
		found = xa_cmpxchg(&t->chunks, index, entry, new,
				   GFP_KERNEL_ACCOUNT);
		if (xa_is_err(found)) {
			kfree(new);
			return ERR_PTR(xa_err(found));
		}
		if (found == entry) {
			if (entry)
				atomic_dec(&t->nr_told);
			return new;
		}
		entry = found;
	}
	kfree(new);
	chunk = entry;
	return chunk;
}

static void vasi_chunk_clear(struct vasi_chunk *chunk, unsigned int first,
			     unsigned int last, bool mark)
{
	unsigned int i;

	for (i = first; i <= last; i++) {
		/* a bit that is clear needs no bouncing of its cache line */
		if (!test_bit(i, chunk->sent))
			continue;
		if (mark)
			set_bit(i, chunk->marked);
		clear_bit(i, chunk->sent);
	}
}

void vasi_tracker_clear(struct vasi_tracker *t, unsigned long start,
			unsigned long end, bool mark)
{
	unsigned long first = start >> VASI_CHUNK_SHIFT;
	unsigned long last = (end - 1) >> VASI_CHUNK_SHIFT;
	unsigned long index;
	void *entry;

	/* order against the caller's look at, or change of, the page table */
	smp_mb();
	rcu_read_lock();
	xa_for_each_range(&t->chunks, index, entry, first, last) {
		unsigned long base = index << VASI_CHUNK_SHIFT;
		unsigned int from = 0, to = VASI_CHUNK_PAGES - 1;

		if (xa_is_value(entry)) {
			void *old = xa_cmpxchg(&t->chunks, index, entry, NULL,
					       0);

			if (old == entry)
				atomic_dec(&t->nr_told);
			/* a harvest made a chunk of it just now */
			entry = old == entry ? NULL : old;
		}
		if (!entry || xa_is_value(entry))
			continue;
		if (base < start)
			from = (start - base) >> PAGE_SHIFT;
		if (end - base < PMD_SIZE)
			to = (end - 1 - base) >> PAGE_SHIFT;
		vasi_chunk_clear(entry, from, to, mark);
	}
	rcu_read_unlock();
	/* and against what the caller does next */
	smp_mb();
}

void vasi_tracker_prune(struct vasi_tracker *t, unsigned long start,
			unsigned long end)
{
	unsigned long first = DIV_ROUND_UP(start, PMD_SIZE);
	unsigned long last = end >> VASI_CHUNK_SHIFT;
	unsigned long index;
	void *entry;

	if (first >= last)
		return;
	xa_for_each_range(&t->chunks, index, entry, first, last - 1) {
		entry = xa_erase(&t->chunks, index);
		if (xa_is_value(entry))
			atomic_dec(&t->nr_told);
		else if (entry)
			kfree_rcu((struct vasi_chunk *)entry, rcu);
		cond_resched();
	}
}

/* content and dirty bits stay */
static bool vasi_notifier_ignores(const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_PROTECTION_VMA ||
	       range->event == MMU_NOTIFY_PROTECTION_PAGE ||
	       range->event == MMU_NOTIFY_SOFT_DIRTY;
}

static void vasi_notifier_event(struct vasi_stream *s,
				const struct mmu_notifier_range *range)
{
	struct vasi_tracker *t;

	if (range->start >= range->end)
		return;
	rcu_read_lock();
	t = rcu_dereference(s->tracker);
	if (t) {
		vasi_tracker_clear(t, range->start, range->end, false);
		vasi_count(s, VASI_COUNT_EVENTS, 1);
	}
	rcu_read_unlock();
}

static int vasi_notifier_start(struct mmu_notifier *mn,
			       const struct mmu_notifier_range *range)
{
	struct vasi_stream *s = vasi_notifier_stream(mn);

	if (vasi_notifier_ignores(range))
		return 0;
	/* pairs with vasi_bit_sent(); clearing begins with a barrier */
	atomic_inc(&s->events_running);
	vasi_notifier_event(s, range);
	/* reclaim unmaps a folio at a time; the lock it holds keeps the tables */
	if (range->event == MMU_NOTIFY_CLEAR &&
	    range->end - range->start <= PMD_SIZE)
		vasi_walk_keep(s->mm, range->start, range->end, false);
	return 0;
}

static void vasi_notifier_end(struct mmu_notifier *mn,
			      const struct mmu_notifier_range *range)
{
	struct vasi_stream *s = vasi_notifier_stream(mn);

	if (vasi_notifier_ignores(range))
		return;
	vasi_notifier_event(s, range);
	/* the bits are clear before the event counts as over */
	smp_mb__before_atomic();
	atomic_dec(&s->events_running);
}

static void vasi_notifier_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct vasi_stream *s = vasi_notifier_stream(mn);

	if (!READ_ONCE(s->notifier_off))
		vasi_stream_guest_gone(s);
}

static const struct mmu_notifier_ops vasi_notifier_ops = {
	.invalidate_range_start = vasi_notifier_start,
	.invalidate_range_end = vasi_notifier_end,
	.release = vasi_notifier_release,
};

int vasi_notifier_register(struct vasi_stream *s)
{
	s->notifier.ops = &vasi_notifier_ops;
	return mmu_notifier_register(&s->notifier, s->mm);
}

/* the guest lives on without the notifier */
static void vasi_keep_all(struct vasi_stream *s)
{
	struct vm_area_struct *vma;

	if (!atomic64_read(&s->count[VASI_COUNT_HARVESTS]) ||
	    !mmget_not_zero(s->mm))
		return;
	mmap_read_lock(s->mm);
	{
		VMA_ITERATOR(vmi, s->mm, 0);

		for_each_vma(vmi, vma) {
			if (!vma->anon_vma || is_vm_hugetlb_page(vma))
				continue;
			vasi_walk_keep(s->mm, vma->vm_start, vma->vm_end, true);
			cond_resched();
		}
	}
	mmap_read_unlock(s->mm);
	mmput(s->mm);
}

void vasi_notifier_unregister(struct vasi_stream *s)
{
	vasi_keep_all(s);
	WRITE_ONCE(s->notifier_off, true);
	mmu_notifier_unregister(&s->notifier, s->mm);
}

static void vasi_tracker_replace(struct vasi_stream *s,
				 struct vasi_tracker *new)
{
	struct vasi_tracker *old;

	old = unrcu_pointer(xchg(&s->tracker, RCU_INITIALIZER(new)));
	if (old)
		vasi_tracker_put(old);
}

void vasi_track_stop(struct vasi_stream *s)
{
	vasi_tracker_replace(s, NULL);
}

static int vasi_track_start(struct vasi_stream *s)
{
	struct vasi_tracker *t;
	int ret;

	t = kzalloc(sizeof(*t), GFP_KERNEL_ACCOUNT);
	if (!t)
		return -ENOMEM;
	kref_init(&t->ref);
	xa_init_flags(&t->chunks, XA_FLAGS_ACCOUNT);
	/* with the lock: an abort stops what was started before it */
	if (mutex_lock_killable(&s->lock)) {
		kfree(t);
		return -EINTR;
	}
	ret = vasi_stream_check(s);
	if (!ret)
		vasi_tracker_replace(s, t);
	mutex_unlock(&s->lock);
	if (ret)
		kfree(t);
	return ret;
}

int vasi_track(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	struct vasi_track *c = cmd;

	if (c->tracker != VASI_TRACKER_DBIT)
		return -EOPNOTSUPP;
	switch (c->op) {
	case VASI_TRACK_START:
		return vasi_track_start(s);
	case VASI_TRACK_STOP:
		vasi_track_stop(s);
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

int vasi_range_check(const struct vasi_range *r, u64 *ret_end)
{
	u64 bytes;

	if (r->__reserved)
		return -EOPNOTSUPP;
	if (r->member)
		return -ENOENT;
	if (!r->pages || !PAGE_ALIGNED(r->start))
		return -EINVAL;
	if (check_shl_overflow(r->pages, PAGE_SHIFT, &bytes) ||
	    check_add_overflow(r->start, bytes, ret_end))
		return -EOVERFLOW;
	return 0;
}

int vasi_mark(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	struct vasi_mark *c = cmd;
	struct vasi_range __user *vec = u64_to_user_ptr(c->vec);
	struct vasi_tracker *t;
	u32 i, count = 0;
	int ret;

	if (!c->vec_len || c->vec_len > VASI_MAX_VEC)
		return -EINVAL;
	ret = vasi_stream_check(s);
	if (ret)
		return ret;
	t = vasi_tracker_get(s);
	if (!t)
		return -EBUSY;
	for (i = 0; i < c->vec_len; i++) {
		struct vasi_range r;
		u64 end;

		if (copy_from_user(&r, &vec[i], sizeof(r))) {
			ret = -EFAULT;
			break;
		}
		ret = vasi_range_check(&r, &end);
		if (ret)
			break;
		/* an object is reported whole every time */
		if (r.space && !xa_load(&s->objects, r.space)) {
			ret = -ENOENT;
			break;
		}
		if (!r.space && r.start < TASK_SIZE_MAX)
			vasi_tracker_clear(t, r.start,
					   min_t(u64, end, TASK_SIZE_MAX),
					   true);
		vasi_count(s, VASI_COUNT_MARKED, r.pages);
		count++;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	vasi_tracker_put(t);
	c->out_count = count;
	return ret;
}
