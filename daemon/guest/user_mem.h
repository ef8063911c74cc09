/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest's memory without the module: content, memory objects, mappings
 *
 * All functions may be called by several threads at one time.
 */
#ifndef MSPD_GUEST_USER_MEM_H
#define MSPD_GUEST_USER_MEM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/guest.h"

/* most bytes of data of one read or write */
#define USER_MEM_MAX_BATCH	(64U << 20)

struct user_object;

/**
 * struct user_mem - the memory of one guest
 * @pid: the guest
 * @proc: its folder in /proc, held open by the owner
 * @mem: /proc/PID/mem, likewise: it is bound to this memory, whatever the
 *	process becomes
 * @writable: objects are opened for writing, too
 * @fill: userfaultfd for pages that nothing has touched, -1: none
 * @lock: over what follows
 * @objects: memory objects seen until now; space n is at n - 1
 * @nr_objects: how many
 * @outside_ns: when other processes were looked at last
 * @flags: mappings with their flags, as last read
 * @nr_flags: how many
 * @flags_ns: when they were read last
 * @flags_cost_ns: and how long that took
 * @flags_text: text of maps then
 * @read_bytes: read out of the guest
 * @write_bytes: written into it
 */
struct user_mem {
	pid_t pid;
	int proc, mem;
	bool writable;
	int fill;
	pthread_mutex_t lock;
	struct user_object *objects;
	size_t nr_objects;
	int64_t outside_ns;
	struct vasi_mapping *flags;
	size_t nr_flags;
	int64_t flags_ns, flags_cost_ns;
	char *flags_text;
	uint64_t read_bytes, write_bytes;
};

/**
 * user_mem_init - begins to work on the memory of process @pid
 * @m: written
 * @pid: the process
 * @proc: its folder in /proc; it stays the caller's, and open
 * @mem: its /proc/PID/mem, likewise
 * @service: VASI_SERVICE_*; only a target's memory objects are written to
 */
void user_mem_init(struct user_mem *m, pid_t pid, int proc, int mem,
		   uint32_t service);
void user_mem_fini(struct user_mem *m);
/*
 * As in struct guest_access. -ESRCH: this memory is gone, by an exit or an
 * exec. A range is taken as a whole or not at all.
 */
int user_mem_read(struct user_mem *m, const struct vasi_range *vec, size_t n,
		  void *data, size_t len, size_t *ret_done);
int user_mem_write(struct user_mem *m, const struct vasi_range *vec, size_t n,
		   const void *data, size_t len, size_t *ret_done);

/* -- user_objects.c */

/**
 * user_mem_objects - lists shared memory that the guest maps
 * @m: the guest's memory
 * @suspended: who else maps it is not looked up anew: that costs a look at all
 *	processes
 * @vec: written
 * @len: room
 * @ret_n: how many there are, also with -EMSGSIZE
 */
int user_mem_objects(struct user_mem *m, bool suspended,
		     struct vasi_object *vec, size_t len, size_t *ret_n);
/* as in struct guest_access, for a space that is not 0 */
int user_mem_object_harvest(struct user_mem *m, uint32_t space, uint64_t start,
			    uint64_t end, uint64_t max_pages,
			    struct vasi_range *vec, size_t len, size_t *ret_n,
			    uint64_t *ret_end);
/* descriptor of an object, not to be closed; -ENOENT */
int user_mem_object_fd(struct user_mem *m, uint32_t space);
void user_mem_objects_free(struct user_mem *m);

/* -- user_mappings.c */

/**
 * user_mem_mappings - lists the flags of mappings
 * @m: the guest's memory
 * @suspended: the pages of a large guest are not gone through in the pause:
 *	a mapping has the flags that it, or what it was part of, had before
 * @tracked: protection by userfaultfd is ours, and not told
 * @vec: written
 * @len: room
 * @ret_n: how many there are, also with -EMSGSIZE
 *
 * Flags are in smaps alone, which costs 100 ms per GiB of populated memory: of a
 * guest that runs it is read at most a tenth of the time, unless the mappings
 * have changed. An madvise() or mlock() of whole mappings in the last moment
 * may so be missed, as may one in the pause.
 */
int user_mem_mappings(struct user_mem *m, bool suspended, bool tracked,
		      struct vasi_mapping *vec, size_t len, size_t *ret_n);
void user_mem_mappings_free(struct user_mem *m);

#endif /* MSPD_GUEST_USER_MEM_H */
