/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory management that differs between the supported kernels
 */
#ifndef VASI_COMPAT_MM_H
#define VASI_COMPAT_MM_H

#include <linux/mm.h>
#include <linux/version.h>

/* get_user_pages_remote() without the array of VMAs that it lost in 6.5 */
static inline long vasi_get_pages(struct mm_struct *mm, unsigned long start,
				  unsigned long nr, unsigned int flags,
				  struct page **pages, int *locked)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	return get_user_pages_remote(mm, start, nr, flags, pages, locked);
#else
	return get_user_pages_remote(mm, start, nr, flags, pages, NULL, locked);
#endif
}

/* VM flags of later kernels, which no mapping of an earlier one has */
#ifdef VM_SHADOW_STACK
#define VASI_VM_SHADOW_STACK	VM_SHADOW_STACK
#else
#define VASI_VM_SHADOW_STACK	VM_NONE
#endif
#ifdef VM_SEALED
#define VASI_VM_SEALED		VM_SEALED
#else
#define VASI_VM_SEALED		VM_NONE
#endif
#ifdef VM_DROPPABLE
#define VASI_VM_DROPPABLE	VM_DROPPABLE
#else
#define VASI_VM_DROPPABLE	VM_NONE
#endif

static inline bool vasi_vma_is_shadow_stack(struct vm_area_struct *vma)
{
	return vma->vm_flags & VASI_VM_SHADOW_STACK;
}

/*
 * All mappings of an anonymous folio, by whatever size. Before 6.12 the
 * function is not exported, and a folio mapped by both sizes counts its small
 * mappings once too often.
 */
static inline int vasi_anon_mapcount(struct folio *folio)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return folio_mapcount(folio);
#else
	struct page *head = &folio->page;
	long i, nr = folio_nr_pages(folio);
	int count;

	if (nr == 1)
		return atomic_read(&head->_mapcount) + 1;
	count = folio_entire_mapcount(folio);
	for (i = 0; i < nr; i++)
		count += atomic_read(&folio_page(folio, i)->_mapcount) + 1;
	if (PageDoubleMap(head))
		count -= nr;
	return count;
#endif
}

/*
 * Takes the dirty bit out of a page-table entry without anything else, most of
 * all not the write permission: the guest must not fault. From 6.6 a
 * write-protected entry may keep it in a second bit (shadow stacks).
 */
static inline void vasi_clear_dirty(unsigned long *entry)
{
	clear_bit(_PAGE_BIT_DIRTY, entry);
#ifdef _PAGE_SAVED_DIRTY
	if (_PAGE_SAVED_DIRTY && (*entry & _PAGE_SAVED_DIRTY))
		clear_bit(_PAGE_BIT_SAVED_DIRTY, entry);
#endif
}

#endif /* VASI_COMPAT_MM_H */
