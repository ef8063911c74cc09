/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where in a guest content may be: the mappings and memory objects of a round
 *
 * Both sides build it from the same Maps message: the source sends nothing
 * outside, the target accepts nothing outside. Pure.
 */
#ifndef MSPD_ENGINE_EXTENTS_H
#define MSPD_ENGINE_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vasi.h>
#include "state/process.pb-c.h"

/* Vma.special */
#define VMA_SPECIAL_VDSO	3

/**
 * struct extent - a run of addresses of one space
 * @start: first byte
 * @end: behind the last byte
 * @space: 0 or the memory object
 * @blank: never written to, it reads as zero on the target
 * @whole: each page of it is content, whether the guest has touched it or not (a
 *	file without a name, as far as it reaches)
 */
struct extent {
	uint64_t start;
	uint64_t end;
	uint32_t space;
	bool blank;
	bool whole;
};

struct extents {
	struct extent *v;
	size_t n;
};

/* -EBADMSG: not page aligned, overlapping, a wrong object */
int extents_build(struct extents *ret, const Mspd__Maps *maps);
void extents_free(struct extents *x);
/* extent with @addr in it, or NULL */
const struct extent *extents_find(const struct extents *x, uint32_t space,
				  uint64_t addr);
/* all of [start, start + pages) is inside */
bool extents_cover(const struct extents *x, const struct vasi_range *r);
/* the first part of @r that is inside; false: none */
bool extents_clip(const struct extents *x, const struct vasi_range *r,
		  struct vasi_range *ret);

#endif /* MSPD_ENGINE_EXTENTS_H */
