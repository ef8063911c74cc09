/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages of a guest the target has, and with what content
 *
 * A map from (space, address) to the page's digest, with the sum of all. Both
 * sides keep one: the source for what it sent, the target for what it applied.
 * All functions may be called by several threads at one time.
 */
#ifndef MSPD_LIB_PAGEMAP_H
#define MSPD_LIB_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pagemap;

struct pagemap *pagemap_new(void);
void pagemap_free(struct pagemap *pm);

/*
 * @digests: one per page, nonzero; @ret_old: those they take the place of, may
 * be NULL. 0 or -ENOMEM, then some may be set
 */
int pagemap_set(struct pagemap *pm, uint32_t space, uint64_t start,
		size_t pages, const uint64_t *digests, uint64_t *ret_old);
/* 0: not there */
uint64_t pagemap_get(struct pagemap *pm, uint32_t space, uint64_t addr);
void pagemap_clear(struct pagemap *pm, uint32_t space, uint64_t start,
		   uint64_t end);
/* the first run of pages in [start, end) that are there (@present) or not */
bool pagemap_run(struct pagemap *pm, uint32_t space, uint64_t start,
		 uint64_t end, bool present, uint64_t *ret_start,
		 uint64_t *ret_end);
uint64_t pagemap_sum(struct pagemap *pm);
uint64_t pagemap_pages(struct pagemap *pm);

#endif /* MSPD_LIB_PAGEMAP_H */
