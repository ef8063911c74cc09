/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One harvest: what it looks at and what it has found so far
 */
#ifndef VASI_HARVEST_H
#define VASI_HARVEST_H

#include "track.h"
#include "vasi_private.h"

/**
 * struct vasi_walk - one harvest of the address space
 * @s: its stream
 * @t: sent set, referenced
 * @mm: the guest's memory, referenced
 * @vec: ranges found, kernel memory
 * @len: entries that fit
 * @count: entries used
 * @max_pages: data pages wanted, 0 = any number
 * @pages: data pages found
 * @n: what to add to the stream's counters
 * @shadow: the mapping at hand is a shadow stack
 * @cleared: a dirty bit was taken under the lock that is held, so that a flush
 *	is due before it is dropped
 * @large: folio of several pages that the table at hand maps by pages
 * @large_here: no other table maps it
 * @late_flush: test builds: the flush is due at the end of the walk
 */
struct vasi_walk {
	struct vasi_stream *s;
	struct vasi_tracker *t;
	struct mm_struct *mm;
	struct vasi_range *vec;
	u32 len;
	u32 count;
	u64 max_pages;
	u64 pages;
	u64 n[VASI_COUNT_MAX];
	bool shadow;
	bool cleared;
	struct folio *large;
	bool large_here;
#ifdef VASI_TEST
	bool late_flush;
#endif
};

/* harvest.c: would a page of this kind fit, alone or behind the last one? */
bool vasi_walk_room(struct vasi_walk *w, unsigned long addr, u8 kind, u8 shift);
/* adds @pages of it; there must be room */
void vasi_walk_emit(struct vasi_walk *w, unsigned long addr,
		    unsigned long pages, u8 kind, u8 shift, u32 reason);

/* harvest.c: the first address from @addr that has a page table, or @end */
unsigned long vasi_next_table(struct mm_struct *mm, unsigned long addr,
			      unsigned long end, pmd_t **ret_pmd);
/*
 * walk.c: marks the anonymous folios of [@addr, @end) dirty, or only (@all
 * false) those that reclaim would drop if nothing were dirty. The caller keeps
 * the page tables from being freed.
 */
void vasi_walk_keep(struct mm_struct *mm, unsigned long addr, unsigned long end,
		    bool all);

/*
 * walk.c: looks at [*@addr, @end), all in what @pmd maps, and moves *@addr on.
 * 0; -ENOSPC: no room for what is at *@addr; -EAGAIN: @pmd maps nothing.
 */
int vasi_walk_slot(struct vasi_walk *w, struct vm_area_struct *vma, pmd_t *pmd,
		   struct vasi_chunk *chunk, unsigned long *addr,
		   unsigned long end);
#ifdef VASI_TEST
void vasi_walk_late_flush(struct vasi_walk *w);
#endif

/* object.c: the extents of a memory object */
int vasi_object_harvest(struct vasi_stream *s, struct vasi_harvest *h,
			struct vasi_range *vec);

#endif /* VASI_HARVEST_H */
