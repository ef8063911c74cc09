/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracking as a test sees it: a guest that does what it is told, and harvests
 * that are added up
 */
#ifndef TRACKING_TRACK_H
#define TRACKING_TRACK_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/vasi.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)

/**
 * struct tally - what harvests said of some addresses
 * @data: pages of VASI_KIND_DATA that are not there for a passing reference
 * @zero: pages of VASI_KIND_ZERO
 * @hole: pages of VASI_KIND_HOLE
 * @pinned: data pages with no reason but VASI_REASON_PINNED
 * @huge: ranges with a shift of 21
 * @reasons: all reasons
 * @flushes: TLB flushes made
 */
struct tally {
	uint64_t data;
	uint64_t zero;
	uint64_t hole;
	uint64_t pinned;
	uint64_t huge;
	uint32_t reasons;
	uint64_t flushes;
};

int track(int fd, uint32_t op);
/* adds to @tally, calls @fn for each range; -errno */
int harvest(int fd, uint64_t start, uint64_t end, struct tally *tally,
	    void (*fn)(const struct vasi_range *r, void *arg), void *arg);
/* harvests until nothing but pins is reported */
int settle(int fd, uint64_t start, uint64_t end);
int mark(int fd, uint64_t start, uint64_t pages);
/* bytes of @pages at @addr; @ret_count of 1 when all was read */
int read_pages(int fd, uint64_t addr, uint64_t pages, void *data);
int write_pages(int fd, uint64_t addr, uint64_t pages, const void *data);

/* zram as swap, once per boot; false: there is none */
bool swap_on(uint64_t bytes);
void swap_off(void);
/* a number out of /proc/vmstat */
uint64_t vmstat(const char *name);
bool write_file(const char *path, const char *text);

/*
 * The module built for tests in the place of the ordinary one, or back; its
 * knobs break the tracker on purpose. false: there is none.
 */
bool load_module(bool test);
bool set_knob(const char *name, const char *value);

/**
 * struct doer - a guest that does one thing after another
 * @pid: the guest
 * @fd: attached to it
 * @box: what it is told, shared
 */
struct doer_box {
	int64_t what;
	int64_t done;
	int64_t arg[4];
	int64_t result;
};

struct doer {
	pid_t pid;
	int fd;
	struct doer_box *box;
};

/* starts a guest; @act does a thing in it */
void doer_start(struct doer *d, int64_t (*act)(int what, int64_t *arg));
/* has it do one thing and waits until that is done */
int64_t doer_do(struct doer *d, int what, int64_t a, int64_t b, int64_t c);
void doer_end(struct doer *d);

#endif /* TRACKING_TRACK_H */
