/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Content of frames, written to the guest and read back
 *
 * A digest that says what the guest is must be one of the guest's memory. What
 * was written is read back into a buffer of its own while it is still in the
 * processor's cache, and the digest is computed from that, once: it judges the
 * frame as well, so that the way over the network, the buffer, the write and the
 * page it went to are all judged by one look.
 */
#ifndef MSPD_ENGINE_APPLY_H
#define MSPD_ENGINE_APPLY_H

#include <stddef.h>
#include <stdint.h>
#include "engine/extents.h"
#include "guest/guest.h"
#include "lib/pagemap.h"

/* pages that are written, then read back: a part of a cache of the second level */
#define APPLY_STEP	64

/**
 * struct apply - of one thread
 * @guest: of the target, a handle of this thread
 * @known: gets the digests of zero pages
 * @object_fd: a descriptor of a memory object, -errno
 * @object_arg: for it
 * @back: what was read back, APPLY_STEP pages
 * @back_ns: time spent reading back and computing digests; the owner's to reset
 */
struct apply {
	struct guest *guest;
	struct pagemap *known;
	int (*object_fd)(void *arg, uint32_t space);
	void *object_arg;
	unsigned char *back;
	uint64_t back_ns;
};

/* the other members are the owner's to set; 0 or -ENOMEM */
int apply_init(struct apply *a);
void apply_exit(struct apply *a);
/*
 * Data ranges with their content, and the digest of each page as it is in the
 * guest then. @round is for fault points.
 */
int apply_data(struct apply *a, uint32_t round, const struct vasi_range *vec,
	       size_t n, const unsigned char *data, uint64_t *ret_digest);
/*
 * A range of zero pages within @x, known from then on. -EILSEQ: what had to be
 * cleared has something else.
 */
int apply_zero(struct apply *a, const struct extents *x,
	       const struct vasi_range *r);
/*
 * A range of which the pages were dropped; -EILSEQ: not all. Where a file is
 * mapped its own content is there now, which nobody here knows.
 */
int apply_dropped(struct apply *a, const struct extents *x,
		  const struct vasi_range *r);

#endif /* MSPD_ENGINE_APPLY_H */
