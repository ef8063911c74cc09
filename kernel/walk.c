// SPDX-License-Identifier: GPL-2.0
/*
 * Takes the dirty bits out of one page table, or one huge page
 *
 * No entry is write-protected, so the guest never faults. In return the
 * processors' TLBs must be flushed before the page-table lock is dropped:
 * reclaim unmaps a page whose entry is clean without a flush, because a clean
 * entry means to it that no TLB can let a write through. With the lock held
 * over the flush that stays true for everybody else.
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>

#include "compat/mm.h"
#include "harvest.h"

#ifdef VASI_TEST
/* 0: as it must be, 1: never flush, 2: flush once, at the end of the walk */
static int test_flush;
module_param(test_flush, int, 0600);
static int test_flush_delay_ms;
module_param(test_flush_delay_ms, int, 0600);
#endif

static void vasi_flush_cpu(void *unused)
{
	__flush_tlb_all();
}

static void vasi_flush(struct vasi_walk *w)
{
	/*
	 * A processor that switched away from the guest keeps its entries under
	 * an address-space number; it compares generations when it comes back.
	 */
	atomic64_inc_return(&w->mm->context.tlb_gen);
	/* mm_cpumask() is not the truth for a globally numbered address space */
	on_each_cpu(vasi_flush_cpu, NULL, 1);
	w->n[VASI_COUNT_FLUSHES]++;
}

/* what is due before the page-table lock is dropped */
static void vasi_walk_settle(struct vasi_walk *w)
{
	if (!w->cleared)
		return;
	w->cleared = false;
#ifdef VASI_TEST
	if (test_flush) {
		w->late_flush = test_flush == 2;
		return;
	}
#endif
	vasi_flush(w);
}

#ifdef VASI_TEST
void vasi_walk_late_flush(struct vasi_walk *w)
{
	if (!w->late_flush)
		return;
	if (test_flush_delay_ms)
		msleep(test_flush_delay_ms);
	vasi_flush(w);
}
#endif

/*
 * Somebody holds the pages beyond their mappings and may write to them at any
 * time without a trace in a page table. References that are taken for a moment
 * look the same and cost a page sent in vain.
 */
static bool vasi_folio_pinned(struct folio *folio)
{
	int refs;

	if (folio_maybe_dma_pinned(folio))
		return true;
	refs = folio_ref_count(folio);
	if (refs == 1)
		return false;
	if (folio_test_swapcache(folio))
		refs -= folio_nr_pages(folio);
	return refs > vasi_anon_mapcount(folio);
}

/*
 * A write through get_user_pages() leaves its trace in the folio. A folio of
 * KSM is never written in place, and keeps the flag for its own reasons.
 * Asked after vasi_folio_pinned(), so that no writer is between the two.
 */
static bool vasi_folio_written(struct folio *folio)
{
	/* who writes sets the flag before the reference is dropped */
	smp_rmb();
	return folio_test_dirty(folio) && !PageKsm(&folio->page);
}

/*
 * Takes the folio's dirty flag, or passes the entry's dirty bit on to it.
 *
 * The flag of an anonymous folio says something to swapping alone, and only
 * while the folio is in the swap cache (add_to_swap() sets it anew) or may be
 * dropped without (MADV_FREE). Outside of both it can be taken; the folio lock
 * keeps it outside meanwhile. Else it must stay, and must be set for the dirty
 * bit that goes.
 *
 * @alone: no page is mapped that is not being looked at, so the one flag of all
 * pages may go. Returns whether the flag was set and is taken.
 */
static bool vasi_take_flag(struct folio *folio, bool dirty, bool alone)
{
	if (alone && !PageKsm(&folio->page) && folio_trylock(folio)) {
		if (!folio_test_swapcache(folio) &&
		    folio_test_swapbacked(folio)) {
			bool flag = folio_test_clear_dirty(folio);

			folio_unlock(folio);
			return flag;
		}
		folio_unlock(folio);
	}
	if (dirty)
		folio_mark_dirty(folio);
	return false;
}

static u32 vasi_bit_reason(struct vasi_chunk *chunk, unsigned int i)
{
	if (test_bit(i, chunk->sent))
		return 0;
	if (test_bit(i, chunk->marked))
		return VASI_REASON_MARK;
	return test_bit(i, chunk->seen) ? VASI_REASON_EVENT :
					  VASI_REASON_FIRST;
}

/*
 * While an event is under way the page stays to be told again: the event may
 * take the dirty bit of a later write with it, and end after the last harvest.
 */
static void vasi_bit_sent(struct vasi_walk *w, struct vasi_chunk *chunk,
			  unsigned int i)
{
	set_bit(i, chunk->sent);
	/* pairs with vasi_notifier_start(): counted first, cleared then */
	smp_mb__after_atomic();
	if (atomic_read(&w->s->events_running))
		clear_bit(i, chunk->sent);
	if (!test_bit(i, chunk->seen))
		set_bit(i, chunk->seen);
	if (test_bit(i, chunk->marked))
		clear_bit(i, chunk->marked);
}

static bool vasi_pte_maps(pte_t pte, struct folio *folio)
{
	return pte_present(pte) && !is_zero_pfn(pte_pfn(pte)) &&
	       pte_pfn(pte) - folio_pfn(folio) < folio_nr_pages(folio);
}

/* are all mappings of the large folio in this table? */
static bool vasi_large_here(struct vasi_walk *w, pte_t *table,
			    struct folio *folio)
{
	int i, n = 0;

	if (w->large == folio)
		return w->large_here;
	for (i = 0; i < PTRS_PER_PTE; i++)
		n += vasi_pte_maps(ptep_get(table + i), folio);
	w->large = folio;
	w->large_here = n == vasi_anon_mapcount(folio);
	return w->large_here;
}

static void vasi_take_pte(struct vasi_walk *w, struct vasi_chunk *chunk,
			  pte_t *table, unsigned int i, struct folio *folio,
			  bool dirty)
{
	bool large = folio_test_large(folio);
	unsigned int j;
	bool flag;

	flag = vasi_take_flag(folio, dirty,
			      !large || vasi_large_here(w, table, folio));
	/* it stood for all pages of the folio */
	if (flag && large)
		for (j = 0; j < PTRS_PER_PTE; j++)
			if (vasi_pte_maps(ptep_get(table + j), folio))
				clear_bit(j, chunk->sent);
	if (dirty) {
		vasi_clear_dirty((unsigned long *)&table[i].pte);
		w->cleared = true;
	}
}

/**
 * struct vasi_look - what an entry maps
 * @kind: VASI_KIND_*
 * @folio: anonymous and present, else NULL
 * @moving: will be another entry soon, by an event that is under way
 */
struct vasi_look {
	u8 kind;
	struct folio *folio;
	bool moving;
};

static struct vasi_look vasi_look_pte(pte_t pte)
{
	struct vasi_look look = { .kind = VASI_KIND_HOLE };
	struct page *page;

	if (pte_none(pte))
		return look;
	if (!pte_present(pte)) {
		swp_entry_t entry = pte_to_swp_entry(pte);

		if (non_swap_entry(entry) && is_pte_marker_entry(entry))
			return look;
		look.kind = VASI_KIND_DATA;
		look.moving = non_swap_entry(entry);
		return look;
	}
	if (is_zero_pfn(pte_pfn(pte))) {
		look.kind = VASI_KIND_ZERO;
		return look;
	}
	if (pte_special(pte) || pte_devmap(pte))
		return look;
	page = pfn_to_page(pte_pfn(pte));
	/* a page of the file: the other side has the file */
	if (!PageAnon(page))
		return look;
	look.kind = VASI_KIND_DATA;
	look.folio = page_folio(page);
	return look;
}

/* false: no room for it; nothing was taken */
static bool vasi_walk_pte(struct vasi_walk *w, struct vasi_chunk *chunk,
			  pte_t *table, unsigned int i, unsigned long addr)
{
	pte_t pte = ptep_get(table + i);
	struct vasi_look look = vasi_look_pte(pte);
	u32 reason = vasi_bit_reason(chunk, i);
	bool dirty = false, written = false;

	if (look.folio && w->shadow) {
		reason |= VASI_REASON_SHADOW;
	} else if (look.folio) {
		dirty = pte_dirty(pte);
		if (dirty)
			reason |= VASI_REASON_DIRTY;
		if (vasi_folio_pinned(look.folio))
			reason |= VASI_REASON_PINNED;
		written = vasi_folio_written(look.folio);
		if (written)
			reason |= VASI_REASON_FOLIO;
	}
	if (!reason)
		return true;
	if (!vasi_walk_room(w, addr, look.kind, PAGE_SHIFT))
		return false;
	if (dirty || written)
		vasi_take_pte(w, chunk, table, i, look.folio, dirty);
	if (!look.moving)
		vasi_bit_sent(w, chunk, i);
	vasi_walk_emit(w, addr, 1, look.kind, PAGE_SHIFT, reason);
	return true;
}

static int vasi_walk_table(struct vasi_walk *w, pmd_t *pmd,
			   struct vasi_chunk *chunk, unsigned long *addr,
			   unsigned long end)
{
	unsigned long a = *addr;
	spinlock_t *ptl;	/* of the page table, held over the walk */
	pte_t *table;
	pmd_t val;

	/* the table may go while its lock is being found; RCU keeps the page */
	rcu_read_lock();
	val = READ_ONCE(*pmd);
	if (pmd_none(val) || !pmd_present(val) || pmd_trans_huge(val) ||
	    pmd_devmap(val)) {
		rcu_read_unlock();
		return -EAGAIN;
	}
	ptl = pte_lockptr(w->mm, &val);
	spin_lock(ptl);
	if (pmd_val(READ_ONCE(*pmd)) != pmd_val(val)) {
		spin_unlock(ptl);
		rcu_read_unlock();
		return -EAGAIN;
	}
	rcu_read_unlock();

	table = pte_offset_kernel(&val, a & PMD_MASK);
	w->large = NULL;
	for (; a < end; a += PAGE_SIZE)
		if (!vasi_walk_pte(w, chunk, table, pte_index(a), a))
			break;
	vasi_walk_settle(w);
	spin_unlock(ptl);
	*addr = a;
	return a < end ? -ENOSPC : 0;
}

static struct vasi_look vasi_look_huge(struct vm_area_struct *vma, pmd_t val)
{
	struct vasi_look look = { .kind = VASI_KIND_HOLE };
	struct page *page;

	if (!pmd_present(val)) {
		look.kind = VASI_KIND_DATA;
		look.moving = true;
		return look;
	}
	if (pmd_devmap(val))
		return look;
	page = pmd_page(val);
	if (PageAnon(page)) {
		look.kind = VASI_KIND_DATA;
		look.folio = page_folio(page);
	} else if (vma_is_anonymous(vma)) {
		/* nothing but the huge zero page is not anonymous there */
		look.kind = VASI_KIND_ZERO;
	}
	return look;
}

/* the pages that were not sent, when nothing concerns the huge page as one */
static int vasi_walk_bits(struct vasi_walk *w, struct vasi_chunk *chunk,
			  const struct vasi_look *look, unsigned long *addr,
			  unsigned long end)
{
	for (; *addr < end; *addr += PAGE_SIZE) {
		unsigned int i = pte_index(*addr);
		u32 reason = vasi_bit_reason(chunk, i);

		if (!reason)
			continue;
		if (!vasi_walk_room(w, *addr, look->kind, PMD_SHIFT))
			return -ENOSPC;
		if (!look->moving)
			vasi_bit_sent(w, chunk, i);
		vasi_walk_emit(w, *addr, 1, look->kind, PMD_SHIFT, reason);
	}
	return 0;
}

/* one dirty bit and one flag for all: what is not looked at is told later */
static void vasi_walk_whole(struct vasi_walk *w, struct vasi_chunk *chunk,
			    pmd_t *pmd, struct folio *folio, unsigned long addr,
			    unsigned long end, u32 reason, bool take)
{
	bool dirty = reason & VASI_REASON_DIRTY;
	unsigned int i, first = pte_index(addr), last = pte_index(end - 1);

	for (i = first; i <= last; i++)
		reason |= vasi_bit_reason(chunk, i);
	if (take)
		vasi_take_flag(folio, dirty, vasi_anon_mapcount(folio) == 1);
	if (dirty) {
		vasi_clear_dirty((unsigned long *)&pmd->pmd);
		w->cleared = true;
	}
	for (i = 0; i < VASI_CHUNK_PAGES; i++) {
		if (i >= first && i <= last)
			vasi_bit_sent(w, chunk, i);
		else if (take)
			clear_bit(i, chunk->sent);
	}
	vasi_walk_emit(w, addr, last - first + 1, VASI_KIND_DATA, PMD_SHIFT,
		       reason);
}

static int vasi_walk_huge(struct vasi_walk *w, struct vm_area_struct *vma,
			  pmd_t *pmd, struct vasi_chunk *chunk,
			  unsigned long *addr, unsigned long end)
{
	spinlock_t *ptl = pmd_lockptr(w->mm, pmd);
	struct vasi_look look;
	u32 reason = 0;
	int ret = 0;
	pmd_t val;

	spin_lock(ptl);
	val = READ_ONCE(*pmd);
	if (pmd_none(val) || (pmd_present(val) && !pmd_trans_huge(val) &&
			      !pmd_devmap(val))) {
		spin_unlock(ptl);
		return -EAGAIN;
	}
	look = vasi_look_huge(vma, val);
	if (look.folio) {
		if (pmd_dirty(val))
			reason |= VASI_REASON_DIRTY;
		if (vasi_folio_pinned(look.folio))
			reason |= VASI_REASON_PINNED;
		if (vasi_folio_written(look.folio))
			reason |= VASI_REASON_FOLIO;
	}
	if (!reason) {
		ret = vasi_walk_bits(w, chunk, &look, addr, end);
	} else if (!vasi_walk_room(w, *addr, VASI_KIND_DATA, PMD_SHIFT)) {
		ret = -ENOSPC;
	} else {
		vasi_walk_whole(w, chunk, pmd, look.folio, *addr, end, reason,
				reason & (VASI_REASON_DIRTY |
					  VASI_REASON_FOLIO));
		*addr = end;
	}
	vasi_walk_settle(w);
	spin_unlock(ptl);
	return ret;
}

int vasi_walk_slot(struct vasi_walk *w, struct vm_area_struct *vma, pmd_t *pmd,
		   struct vasi_chunk *chunk, unsigned long *addr,
		   unsigned long end)
{
	pmd_t val = READ_ONCE(*pmd);

	if (pmd_none(val))
		return -EAGAIN;
	w->shadow = vasi_vma_is_shadow_stack(vma);
	if (!pmd_present(val) || pmd_trans_huge(val) || pmd_devmap(val))
		return vasi_walk_huge(w, vma, pmd, chunk, addr, end);
	return vasi_walk_table(w, pmd, chunk, addr, end);
}

static void vasi_keep_folio(struct folio *folio, bool all)
{
	if (folio && (all || !folio_test_swapbacked(folio)) &&
	    !folio_test_dirty(folio))
		folio_mark_dirty(folio);
}

/* false: something else is mapped by now */
static bool vasi_keep_huge(struct mm_struct *mm, pmd_t *pmd, bool all)
{
	spinlock_t *ptl = pmd_lock(mm, pmd);
	pmd_t val = READ_ONCE(*pmd);
	bool huge = pmd_present(val) && pmd_trans_huge(val);

	if (huge && PageAnon(pmd_page(val)))
		vasi_keep_folio(page_folio(pmd_page(val)), all);
	spin_unlock(ptl);
	return huge;
}

/* false: something else is mapped by now */
static bool vasi_keep_table(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
			    unsigned long end, bool all)
{
	spinlock_t *ptl;	/* of the page table, held over the walk */
	pte_t *table;
	pmd_t val;

	rcu_read_lock();
	val = READ_ONCE(*pmd);
	if (!pmd_present(val) || pmd_trans_huge(val) || pmd_devmap(val)) {
		rcu_read_unlock();
		return false;
	}
	ptl = pte_lockptr(mm, &val);
	spin_lock(ptl);
	if (pmd_val(READ_ONCE(*pmd)) != pmd_val(val)) {
		spin_unlock(ptl);
		rcu_read_unlock();
		return false;
	}
	rcu_read_unlock();
	table = pte_offset_kernel(&val, addr & PMD_MASK);
	for (; addr < end; addr += PAGE_SIZE)
		vasi_keep_folio(vasi_look_pte(ptep_get(table +
						       pte_index(addr))).folio,
				all);
	spin_unlock(ptl);
	return true;
}

void vasi_walk_keep(struct mm_struct *mm, unsigned long addr, unsigned long end,
		    bool all)
{
	while (addr < end) {
		unsigned long next;
		pmd_t *pmd = NULL;
		pmd_t val;

		addr = vasi_next_table(mm, addr, end, &pmd);
		if (addr >= end)
			return;
		next = pmd_addr_end(addr, end);
		val = READ_ONCE(*pmd);
		if (pmd_none(val) || !pmd_present(val) || pmd_devmap(val) ||
		    (pmd_trans_huge(val) ? vasi_keep_huge(mm, pmd, all) :
		     vasi_keep_table(mm, pmd, addr, next, all)))
			addr = next;
	}
}
