/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The sent set: which addresses of the guest the other side has
 */
#ifndef VASI_TRACK_H
#define VASI_TRACK_H

#include <linux/bitmap.h>
#include <linux/kref.h>
#include <linux/sizes.h>
#include <linux/xarray.h>

#include "vasi_private.h"

#define VASI_CHUNK_SHIFT	PMD_SHIFT
#define VASI_CHUNK_PAGES	PTRS_PER_PTE

/**
 * struct vasi_chunk - what is known of 2 MiB of address space
 * @sent: reported, and nothing says that it changed since; set under the
 *	page-table lock, cleared by anybody
 * @seen: was reported at some time; for reasons only
 * @marked: was given back; for reasons only
 * @rcu: the notifier looks without a lock
 */
struct vasi_chunk {
	DECLARE_BITMAP(sent, VASI_CHUNK_PAGES);
	DECLARE_BITMAP(seen, VASI_CHUNK_PAGES);
	DECLARE_BITMAP(marked, VASI_CHUNK_PAGES);
	struct rcu_head rcu;
};

/*
 * Instead of a chunk: all of the 2 MiB was told to be a hole, there being no
 * page table.
 */
#define VASI_TOLD	xa_mk_value(1)
/*
 * What such entries may cost (9 bytes each). Beyond it, and for runs longer
 * than VASI_TOLD_RUN (address space that is merely reserved), a hole is told
 * anew by each harvest, as one range.
 */
#define VASI_TOLD_MAX	BIT(20)
#define VASI_TOLD_RUN	SZ_1G

/**
 * struct vasi_tracker - dirty tracking of one stream from start to stop
 * @ref: the stream's and one of each running harvest
 * @chunks: struct vasi_chunk or VASI_TOLD, by address >> VASI_CHUNK_SHIFT
 * @nr_told: VASI_TOLD entries in @chunks
 */
struct vasi_tracker {
	struct kref ref;
	struct xarray chunks;
	atomic_t nr_told;
};

/* NULL while not tracking */
struct vasi_tracker *vasi_tracker_get(struct vasi_stream *s);
void vasi_tracker_put(struct vasi_tracker *t);

/* the chunk at @addr, made if there is none, or ERR_PTR(-ENOMEM) */
struct vasi_chunk *vasi_chunk_get(struct vasi_tracker *t, unsigned long addr);
/* what is known of [@addr, @end) is no longer so; @mark: because it was lost */
void vasi_tracker_clear(struct vasi_tracker *t, unsigned long start,
			unsigned long end, bool mark);
/* drops the chunks wholly inside of [@start, @end), where nothing is mapped */
void vasi_tracker_prune(struct vasi_tracker *t, unsigned long start,
			unsigned long end);

#endif /* VASI_TRACK_H */
