/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One kind of resource: how it is refused, read, prepared and put back
 */
#ifndef MSPD_STATE_RESOURCE_H
#define MSPD_STATE_RESOURCE_H

#include "state/state.h"

enum capture_when { CAPTURE_EARLY, CAPTURE_FINAL };

/**
 * struct resource - a row of the table
 * @name: for messages and timings
 * @check: adds findings; an error finding refuses the migration
 * @capture: fills its part of @img, which belongs to the arena of the image
 *	(allocated by malloc, freed by image_free())
 * @target_check: on the target, before anything is built
 * @prepare: on the target, while the source runs
 * @finish: on the target, in the pause
 * @close: on the source, when the capture is closed: takes away what it left
 *	outside of the image (capture_close() calls it, in reverse order)
 * @done: on the target, when the restore ends: @alive, the guest runs here from
 *	now on; else what was changed outside of the guest is changed back
 *	(restore_release() and restore_abort() call it, in reverse order)
 *
 * Each may be NULL. Order in the table is the order on both sides.
 */
struct resource {
	const char *name;
	int (*check)(struct capture *c);
	int (*capture)(struct capture *c, enum capture_when when,
		       Mspd__Image *img);
	int (*target_check)(const struct restore_options *opt,
			    const Mspd__Image *early, struct findings *f);
	int (*prepare)(struct restore *r, const Mspd__Image *early);
	int (*finish)(struct restore *r, const Mspd__Image *final);
	void (*close)(struct capture *c);
	void (*done)(struct restore *r, bool alive);
};

extern const struct resource *const resources[];
extern const size_t nr_resources;

/* process (D: mm, maps, threads, signals, timers) */
extern const struct resource resource_mm, resource_maps, resource_threads,
	resource_signals, resource_itimers, resource_vdso;
/* files and identity, in this order and behind all others: descriptors need
 * room below RLIMIT_NOFILE, listening sockets show the guest's credentials */
extern const struct resource resource_cpu, resource_census, resource_files,
	resource_fs, resource_limits, resource_sched, resource_creds,
	resource_listen;

#endif /* MSPD_STATE_RESOURCE_H */
