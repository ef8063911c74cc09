/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Source side of the data connections: a thread per stream reads pages of the
 * guest, finds zero pages, and sends frames
 *
 * One round at a time: the owner hands over what is to be sent, the threads
 * take batches from it until it is empty, then each ends the round on its
 * connection. The owner waits on an eventfd and supervises progress.
 */
#ifndef MSPD_ENGINE_SENDER_H
#define MSPD_ENGINE_SENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "guest/guest.h"
#include "lib/compress.h"
#include "lib/pagemap.h"

#define SENDER_MAX_STREAMS	64

/**
 * struct send_item - something to be sent in a round
 * @range: as harvested, within the announced mappings
 * @untracked: no tracker sees writes to it: all of it is an item of every
 *	round, so there is nothing to be marked
 *
 * Of either kind a page is sent only if its digest is not the one sent last.
 */
struct send_item {
	struct vasi_range range;
	bool untracked;
};

/**
 * struct send_stream_total - of one connection in one round
 * @frames: frames with pages
 * @pages: data pages in them
 */
struct send_stream_total {
	uint64_t frames;
	uint64_t pages;
};

/**
 * struct send_totals - what a round did
 * @pages: data pages sent
 * @zero: pages sent as zero, without content
 * @holes: pages dropped
 * @equal: pages that are what was sent last, so that they were not sent again
 * @unreadable: pages that were gone when they were to be read, marked
 * @read: pages whose content was read: sent, found to be zero, or equal
 * @untracked: those of @read that no tracker sees
 * @untracked_equal: those of @equal that no tracker sees
 * @encoded: of @pages, in each encoding
 * @bytes: on the wire, headers included
 * @read_ns: time spent reading the guest, all threads
 * @encode_ns: time spent compressing, all threads
 * @send_ns: time spent waiting for the network, all threads
 * @stream: each connection
 */
struct send_totals {
	uint64_t pages, zero, holes, equal, unreadable;
	uint64_t read, untracked, untracked_equal;
	uint64_t encoded[ENCODINGS];
	uint64_t bytes;
	uint64_t read_ns, encode_ns, send_ns;
	struct send_stream_total stream[SENDER_MAX_STREAMS];
};

struct sender;

/**
 * struct sender_config - what the threads need
 * @guest: attached, each thread joins its stream
 * @known: digests of what was sent, kept up to date by the threads
 * @encodings: to choose from as it pays, a bit each; 0: @encoding it is
 * @encoding: of content that gets shorter by it, to begin with
 * @fd: data connections after their hello, owned by the sender from here on
 * @nr: of them
 */
struct sender_config {
	struct guest *guest;
	struct pagemap *known;
	unsigned int encodings;
	enum encoding encoding;
	const int *fd;
	unsigned int nr;
};

int sender_new(struct sender **ret, const struct sender_config *cfg);
/* ends all connections and threads; NULL is fine */
void sender_free(struct sender *s);
/* @items stay the caller's and must live until the round is done;
 * @suspended: the guest cannot change, so a page that is gone is an error
 */
int sender_round(struct sender *s, uint32_t round,
		 const struct send_item *items, size_t n, bool suspended);
/* readable when the round is done or failed */
int sender_eventfd(const struct sender *s);
/* 1 done, 0 not yet, -errno failed (a connection or the guest) */
int sender_done(struct sender *s, struct send_totals *ret);
/* for supervision and display, monotonic over the migration */
uint64_t sender_bytes(const struct sender *s);
/* pages of the current round that are still to be read */
uint64_t sender_left(const struct sender *s);

#endif /* MSPD_ENGINE_SENDER_H */
