/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ioctl(PAGEMAP_SCAN), asynchronous write protection and the entries of
 * /proc/PID/pagemap: what the headers of older systems do not have
 */
#ifndef MSPD_GUEST_PAGESCAN_H
#define MSPD_GUEST_PAGESCAN_H

#include <stdint.h>
#include <sys/ioctl.h>

/* categories of a page */
#define SCAN_WPALLOWED	(1U << 0)	/* its mapping is registered */
#define SCAN_WRITTEN	(1U << 1)	/* since it was protected */
#define SCAN_FILE	(1U << 2)	/* a page of the page cache */
#define SCAN_PRESENT	(1U << 3)
#define SCAN_SWAPPED	(1U << 4)	/* or a marker, see PAGEMAP_MARKER */
#define SCAN_ZERO	(1U << 5)	/* the zero page */
#define SCAN_HUGE	(1U << 6)

/* flags of a scan */
#define SCAN_PROTECT	(1U << 0)	/* what matches, in registered mappings */

/**
 * struct scan_region - a run of pages of the same categories
 * @start: first address
 * @end: first address behind it
 * @categories: SCAN_* bits
 */
struct scan_region {
	uint64_t start, end, categories;
};

/* the kernel's struct pm_scan_arg */
struct scan_arg {
	uint64_t size, flags;
	uint64_t start, end, walk_end;
	uint64_t vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof, ret;
};

#define SCAN_IOCTL	_IOWR('f', 16, struct scan_arg)

#define SCAN_FEATURE_WP_UNPOPULATED	(1U << 13)
#define SCAN_FEATURE_WP_ASYNC		(1U << 15)

/* an entry of pagemap */
#define PAGEMAP_PRESENT		(1ULL << 63)
#define PAGEMAP_SWAPPED		(1ULL << 62)
#define PAGEMAP_FILE		(1ULL << 61)	/* or shared anonymous */
#define PAGEMAP_SOFT_DIRTY	(1ULL << 55)
#define PAGEMAP_PFN		((1ULL << 55) - 1)
#define PAGEMAP_TYPE		0x1fU		/* of swap */
/* no swap but a note of the kernel's: nothing is there */
#define PAGEMAP_MARKER		0x1fU

#endif /* MSPD_GUEST_PAGESCAN_H */
