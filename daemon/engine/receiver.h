/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Target side of the data connections: a thread per stream checks frames,
 * writes their pages into the guest, and checks what it reads back
 *
 * Whatever a frame says is held against the mappings that were announced for
 * its round; nothing is written outside. Holes are collected for the owner, as
 * only the tracer drops pages.
 */
#ifndef MSPD_ENGINE_RECEIVER_H
#define MSPD_ENGINE_RECEIVER_H

#include <stddef.h>
#include <stdint.h>
#include "engine/extents.h"
#include "engine/sender.h"
#include "guest/guest.h"
#include "lib/pagemap.h"

struct receiver;

/**
 * struct receiver_config - what the threads need
 * @guest: of the target, each thread joins its stream
 * @known: digests of what was applied, kept up to date by the threads
 * @encodings: what was agreed on, a bit each
 * @object_fd: a descriptor of a memory object, -errno; called by the threads
 * @object_arg: for it
 * @fd: data connections after their hello, owned by the receiver from here on
 * @nr: of them
 */
struct receiver_config {
	struct guest *guest;
	struct pagemap *known;
	unsigned int encodings;
	int (*object_fd)(void *arg, uint32_t space);
	void *object_arg;
	const int *fd;
	unsigned int nr;
};

int receiver_new(struct receiver **ret, const struct receiver_config *cfg);
/* ends all connections and threads; NULL is fine */
void receiver_free(struct receiver *rc);
/*
 * No page is written between these two. @x (taken over) are the mappings from
 * here on, NULL if they did not change after all.
 */
void receiver_maps_begin(struct receiver *rc);
void receiver_maps_end(struct receiver *rc, struct extents *x);
/* readable when a thread ended a round or failed */
int receiver_eventfd(const struct receiver *rc);
/* 1: every thread ended @round with these totals; 0 not yet; -errno failed */
int receiver_round_done(struct receiver *rc, uint32_t round,
			const struct send_stream_total *want, size_t n);
/* 0, or -errno when a thread failed; takes the event */
int receiver_status(struct receiver *rc);
/* why it failed, one line */
const char *receiver_error(struct receiver *rc);
/* the holes collected so far, now the caller's to free */
size_t receiver_holes(struct receiver *rc, struct vasi_range **ret);
/* what the owner has dropped is gone, or -EILSEQ; after all of the round */
int receiver_dropped(struct receiver *rc, const struct vasi_range *vec,
		     size_t n);
/* time for reading back in the round that ended: the slowest thread's, and of
 * receiver_dropped()
 */
uint64_t receiver_back_ns(struct receiver *rc);
/* @round is in the guest, the next one may be applied */
void receiver_applied(struct receiver *rc, uint32_t round);
/* for supervision, monotonic */
uint64_t receiver_bytes(const struct receiver *rc);

#endif /* MSPD_ENGINE_RECEIVER_H */
