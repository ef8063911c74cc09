/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A set of address ranges, each with reasons why it is in there
 *
 * Touching ranges become one, with the reasons of both. Adding in any order is
 * cheap: ranges are put in order when they are looked at.
 */
#ifndef MSPD_GUEST_SPANS_H
#define MSPD_GUEST_SPANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct span - one range
 * @start: first address
 * @end: first address behind it
 * @reason: VASI_REASON_* bits of any part of it
 */
struct span {
	uint64_t start, end;
	uint32_t reason;
};

/**
 * struct spans - the set; all zero is the empty one
 * @v: ranges, the first @sorted of them in order and apart from each other
 * @n: how many
 * @max: room
 * @sorted: how many are in order
 */
struct spans {
	struct span *v;
	size_t n, max, sorted;
};

void spans_free(struct spans *s);
/* 0 or -ENOMEM; an empty range is nothing */
int spans_add(struct spans *s, uint64_t start, uint64_t end, uint32_t reason);
/* takes the addresses [@start, @end) out; 0 or -ENOMEM */
int spans_remove(struct spans *s, uint64_t start, uint64_t end);
/* the first range that ends behind @addr, NULL if there is none */
const struct span *spans_find(struct spans *s, uint64_t addr);

#endif /* MSPD_GUEST_SPANS_H */
