/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracking without the module: which pages of a guest are to be sent again
 *
 * A mechanism answers what is at some addresses, and what was written there
 * since it was asked last. All that is the same whatever the mechanism is here:
 * mappings that are new, pages that were given back, and pages that were
 * reported and have gone.
 *
 * What is remembered is bounded by the guest's own memory: a bit for each page
 * that was reported, and ranges of pages that are to be reported whatever they
 * are.
 *
 * Not seen: what a device writes to a page between the begin and the end of a
 * read with O_DIRECT, when a harvest is between the two. Pins are nowhere to be
 * seen from user space: who validates refuses descriptors with O_DIRECT.
 *
 * A mapping that is registered for write protection does not become one with
 * a new neighbour. A guest that makes a mapping touch another and then calls
 * mremap() over both at once gets EFAULT, unless a harvest was between the two,
 * which registers the new one and so makes them one.
 */
#ifndef MSPD_GUEST_TRACK_H
#define MSPD_GUEST_TRACK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/guest.h"
#include "guest/pagescan.h"
#include "guest/pageset.h"
#include "guest/spans.h"
#include "state/maps.h"

/**
 * struct track_host - what trackers need of the access to a guest
 * @pid: the guest
 * @proc: its folder in /proc, held open
 * @uffd: makes a userfaultfd in the guest, with these flags, and gives a copy
 *	of it: its number here, or -errno; the guest does not keep it
 * @stop: stops all threads for a moment, unless they are stopped; 0 or -errno
 * @go: ends what @stop began
 * @still: all threads are stopped, and stay so
 * @gone: -ESRCH or -ECANCELED when the guest is not what it was, else 0
 * @arg: of these
 */
struct track_host {
	pid_t pid;
	int proc;
	int (*uffd)(void *arg, int flags);
	int (*stop)(void *arg);
	void (*go)(void *arg);
	bool (*still)(void *arg);
	int (*gone)(void *arg);
	void *arg;
};

/* what a scan is to find */
enum track_scan {
	TRACK_WRITTEN,	/* pages written since they were protected; protects */
	TRACK_THERE,	/* pages that are present or swapped; protects */
	TRACK_LOOK,	/* the same, of mappings that cannot be protected */
	TRACK_GONE,	/* pages that are neither */
	TRACK_ALL,	/* all of these, as they are */
};

#define TRACK_REGIONS	4096

struct tracker;

/**
 * struct track_ops - one mechanism
 * @name: as in the configuration
 * @probe: 0 when it works on this host, by doing it; -errno and in @ret_what what
 *	does not
 * @start: begins; called again it begins anew
 * @stop: leaves nothing behind in the guest
 * @begin: begins a pass over [@start, @end) of the mappings in t->maps: what is
 *	to be reported whatever it is goes to track_owe()
 * @scan: fills t->region from [@start, @end), at most t->room of them and
 *	@max_pages if not 0; the number of regions, @ret_end where to go on
 */
struct track_ops {
	const char *name;
	int (*probe)(const char **ret_what);
	int (*start)(struct tracker *t);
	void (*stop)(struct tracker *t);
	int (*begin)(struct tracker *t, uint64_t start, uint64_t end);
	int (*scan)(struct tracker *t, enum track_scan what, uint64_t start,
		    uint64_t end, uint64_t max_pages, uint64_t *ret_end);
};

/**
 * struct tracker - one guest's
 * @ops: mechanism
 * @host: the guest
 * @lock: over everything here
 * @started: harvests are possible
 * @pagemap: /proc/PID/pagemap
 * @uffd: of write protection, -1 = none
 * @maps: mappings, as of the begin of this pass
 * @next: where this pass goes on, UINT64_MAX = it has ended
 * @owed: to be reported whatever is there
 * @wild: of these what cannot be protected
 * @told: pages that were reported as there
 * @missing: scratch: pages of @told that have gone
 * @doubt: scratch: pages of @told that may have changed unseen
 * @gone: of a mechanism that sees it there: where no page was at the last look at
 *	what is written
 * @looked_from: that look began here
 * @looked_to: and ended here
 * @room: regions that the next scan may find, at most TRACK_REGIONS
 * @region: output of a scan
 * @nr_items: entries of @item
 * @max_items: room
 * @item: what a harvest found, before it is cut to the caller's room
 * @count: VASI_COUNT_*
 */
struct tracker {
	const struct track_ops *ops;
	struct track_host host;
	pthread_mutex_t lock;
	bool started;
	int pagemap, uffd;
	struct map_text maps;
	uint64_t next;
	struct spans owed, wild;
	struct pageset told;
	struct spans missing, doubt;
	struct spans gone;
	uint64_t looked_from, looked_to;
	size_t room;
	struct scan_region region[TRACK_REGIONS];
	size_t nr_items, max_items;
	struct vasi_range *item;
	uint64_t count[VASI_COUNT_MAX];
};

extern const struct track_ops track_wpasync, track_softdirty;

/**
 * track_choose - sets the mechanism of all guests from now on
 * @name: "wpasync", "softdirty", or NULL: the first one that works
 * @why: what stands against those that do not work, "" if nothing does; may be
 *	NULL
 * @len: bytes of @why
 *
 * -ENOENT: no such mechanism; -EOPNOTSUPP: this host does not have it.
 */
int track_choose(const char *name, char *why, size_t len);
/* the mechanism that guests will be tracked with, NULL: none works here */
const struct track_ops *track_chosen(void);

/* -EOPNOTSUPP: no mechanism works on this host */
int tracker_new(struct tracker **ret, const struct track_host *host);
void tracker_free(struct tracker *t);
/* starts or stops; everything is reported after a start */
int tracker_track(struct tracker *t, bool on);
/* of space 0, as in struct guest_access; -EBUSY: not started */
int tracker_harvest(struct tracker *t, uint64_t start, uint64_t end,
		    uint64_t max_pages, struct vasi_range *vec, size_t len,
		    size_t *ret_n, uint64_t *ret_end);
/* ranges of other spaces are passed over */
int tracker_mark(struct tracker *t, const struct vasi_range *vec, size_t n);
/* adds to @count, an array of VASI_COUNT_MAX */
void tracker_count(struct tracker *t, uint64_t *count);

/* -- for the mechanisms */

/* private memory that is the guest's own, not the kernel's */
bool track_is_tracked(const struct map_line *line);
/* is to be reported in this pass or the next; 0 or -ENOMEM */
int track_owe(struct tracker *t, uint64_t start, uint64_t end, uint32_t reason);
/*
 * Goes through runs of tracked mappings in [*addr, @end) with no other mapping
 * between; false: there are no more.
 */
bool track_next_run(const struct tracker *t, uint64_t *addr, uint64_t end,
		    uint64_t *ret_start, uint64_t *ret_end);
/* reads the mappings anew */
int track_read_maps(struct tracker *t);
/* the first mapping that ends behind @addr */
size_t track_find_line(const struct tracker *t, uint64_t addr);
/* reads entries of pagemap for [@start, ...); 0 or -errno */
int track_pagemap(const struct tracker *t, uint64_t start, size_t n,
		  uint64_t *entry);

/* -- pure: track_softdirty.c */

/**
 * softdirty_categories - SCAN_* bits of an entry of pagemap
 * @entry: the entry
 * @zero: page frame of the zero page, 0 = not known
 *
 * SCAN_WRITTEN stands for the soft-dirty bit, also of a place with no page.
 */
uint64_t softdirty_categories(uint64_t entry, uint64_t zero);

#endif /* MSPD_GUEST_TRACK_H */
