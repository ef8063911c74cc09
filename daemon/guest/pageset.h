/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A set of pages: a bit for each, in leaves of 64 MiB of addresses
 *
 * A leaf exists where the set has, or had, a page: the set takes no more than a
 * fraction of what the pages themselves and their page tables take.
 */
#ifndef MSPD_GUEST_PAGESET_H
#define MSPD_GUEST_PAGESET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pageset_leaf;

/**
 * struct pageset - the set; all zero is the empty one
 * @v: leaves in order
 * @n: how many
 * @max: room
 */
struct pageset {
	struct pageset_leaf **v;
	size_t n, max;
};

void pageset_free(struct pageset *s);
/* addresses are multiples of the page size; 0 or -ENOMEM, then some are set */
int pageset_set(struct pageset *s, uint64_t start, uint64_t end);
/* cannot fail; gives leaves back that have become empty */
void pageset_clear(struct pageset *s, uint64_t start, uint64_t end);
/* the first run of pages of the set in [start, end) */
bool pageset_run(const struct pageset *s, uint64_t start, uint64_t end,
		 uint64_t *ret_start, uint64_t *ret_end);

#endif /* MSPD_GUEST_PAGESET_H */
