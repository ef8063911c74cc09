/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest access: everything the mover does to a guest's memory and threads
 *
 * One interface and two implementations: kmod.c, through /dev/vasi, and user.c,
 * by what every kernel offers. Ranges, records and counters are those of
 * <linux/vasi.h>, whatever is behind.
 *
 * All calls return >= 0 or -errno with the meaning of the table in
 * <linux/vasi.h>; -ESRCH: the guest is gone, -ECANCELED: the stream was
 * aborted (an exec).
 */
#ifndef MSPD_GUEST_GUEST_H
#define MSPD_GUEST_GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/vasi.h>

struct guest;

/**
 * struct guest_holdup - why a suspend did not succeed
 * @tid: thread in the way, in this process's PID namespace
 * @reason: VASI_HOLDUP_*
 * @comm: its name
 */
struct guest_holdup {
	pid_t tid;
	uint32_t reason;
	char comm[17];
};

/**
 * struct guest_access - one way to reach guests
 * @name: as in the configuration and in JSON ("vasi", "user")
 * @probe: 0 if usable on this host, else -errno; @ret may be NULL
 * @sealed: lists sealed streams, held or not; -EMSGSIZE: there are more
 * @attach: opens a new stream on process @pid
 * @join: one more handle on the stream of @g, for another thread
 * @takeover: a handle on a sealed stream that nobody holds
 * @close: gives a handle back; the last one resumes a guest that is not sealed
 * @track: starts (@on) or stops tracking
 * @harvest: fills @vec from [@start, @end) of @space; @ret_end: where to go on
 * @mark: gives ranges back that did not arrive
 * @mappings: lists the mappings' flags; -EMSGSIZE with the number there was in
 *	@ret_n
 * @objects: lists memory objects; -EMSGSIZE with the number needed in @ret_n
 * @read: content of the data ranges of @vec into @data; @ret_done: entries done
 * @write: the reverse; zero ranges are cleared, holes passed over
 * @fill: pages of mappings that are registered with userfaultfd @uffd are
 *	written without being cleared first while nothing has touched them;
 *	-1: no more. Not while somebody writes. NULL: there is no such way
 * @suspend: stops all threads within @deadline_ms; @parked: also those a tracer
 *	holds must be parked
 * @resume: lets a suspended guest run; unseals it if it is sealed
 * @seal: the guest stays parked even if all handles go
 * @destroy: kills a suspended guest, waits for its end
 * @state: all records into a buffer that the caller frees
 * @signal: VASI_SIGNAL_* with a reason
 * @info: state and counters
 * @progress: bytes left, for the lists
 * @pollfd: file descriptor that polls readable (POLLPRI, POLLHUP, POLLERR)
 */
struct guest_access {
	const char *name;
	int (*probe)(struct vasi_query *ret);
	int (*sealed)(struct vasi_stream_info *vec, size_t len, size_t *ret_n);
	int (*attach)(struct guest **ret, pid_t pid, uint32_t service,
		      uint64_t stream_id);
	int (*join)(struct guest **ret, const struct guest *g);
	int (*takeover)(struct guest **ret, uint32_t service,
			uint64_t stream_id);
	void (*close)(struct guest *g);
	int (*track)(struct guest *g, int on);
	int (*harvest)(struct guest *g, uint32_t space, uint64_t start,
		       uint64_t end, uint64_t max_pages,
		       struct vasi_range *vec, size_t len, size_t *ret_n,
		       uint64_t *ret_end);
	int (*mark)(struct guest *g, const struct vasi_range *vec, size_t n);
	int (*mappings)(struct guest *g, struct vasi_mapping *vec, size_t len,
			size_t *ret_n);
	int (*objects)(struct guest *g, struct vasi_object *vec, size_t len,
		       size_t *ret_n);
	int (*read)(struct guest *g, const struct vasi_range *vec, size_t n,
		    void *data, size_t len, size_t *ret_done);
	int (*write)(struct guest *g, const struct vasi_range *vec, size_t n,
		     const void *data, size_t len, size_t *ret_done);
	void (*fill)(struct guest *g, int uffd);
	int (*suspend)(struct guest *g, unsigned int deadline_ms, int parked,
		       struct guest_holdup *ret_holdup);
	int (*resume)(struct guest *g);
	int (*seal)(struct guest *g);
	int (*destroy)(struct guest *g, unsigned int deadline_ms);
	int (*state)(struct guest *g, void **ret_buf, size_t *ret_len);
	int (*signal)(struct guest *g, uint32_t code, uint32_t reason);
	int (*info)(struct guest *g, struct vasi_info *ret);
	int (*progress)(struct guest *g, uint64_t bytes_left);
	int (*pollfd)(const struct guest *g);
};

struct guest {
	const struct guest_access *access;
	uint64_t stream_id;
	uint32_t service;
	pid_t pid;
};

extern const struct guest_access guest_kmod;
extern const struct guest_access guest_user;

#endif /* MSPD_GUEST_GUEST_H */
