/* SPDX-License-Identifier: GPL-2.0 */
/*
 * State records without the module: what the files that write them share
 *
 * All of it runs in the tracer's thread.
 */
#ifndef MSPD_GUEST_USER_RECORDS_H
#define MSPD_GUEST_USER_RECORDS_H

#include "guest/user.h"

#define NR_SIGNALS	64

/**
 * struct user_records - records being written
 * @s: the guest
 * @buf: them
 * @len: bytes of it
 * @max: room
 * @err: the first error; then nothing is written any more
 * @status: of the process, as in /proc
 * @action: what signals do
 * @shared_pending: signals that wait for the process
 * @held: VASI_HELD_* of the threads until now
 * @timens: offsets of CLOCK_MONOTONIC and CLOCK_BOOTTIME in the guest
 */
struct user_records {
	struct user_stream *s;
	uint8_t *buf;
	size_t len, max;
	int err;
	char *status;
	struct vasi_rec_sigaction action[NR_SIGNALS];
	uint64_t shared_pending;
	uint64_t held;
	int64_t timens[2];
};

void user_put(struct user_records *o, uint16_t type, int32_t tid, uint32_t note,
	      const void *payload, size_t bytes);

/* what a call of the thread returns, -errno included; fails @o if there is none */
long user_ask(struct user_records *o, struct user_thread *t, long nr,
	      uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/* likewise one that writes @len bytes to the address that is argument @at */
long user_ask_mem(struct user_records *o, struct user_thread *t, long nr,
		  const uint64_t arg[6], int at, void *ret, size_t len);

/* @ret of the two above where there is no reason to fail: fails @o if it did */
long user_answer(struct user_records *o, long ret);

#define USER_ARGS(a, b, c, d, ...) \
	((const uint64_t[6]){ (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), \
			      (uint64_t)(d) })
#define USER_CALL(...) USER_ARGS(__VA_ARGS__, 0, 0, 0, 0)

/* -- user_thread.c */

/*
 * All records of one stopped thread. @leads: it is the one that the signals
 * which wait for the process would come to. Returns its XSTATE components.
 */
uint64_t user_thread_records(struct user_records *o, struct user_thread *t,
			     bool leads);
/* what /proc tells of one that runs */
void user_thread_running(struct user_records *o, pid_t tid);
/* signals that wait for a thread, or (@shared) its process; a set of them */
uint64_t user_pending_record(struct user_records *o, pid_t tid, int32_t inner,
			     bool shared);

/* -- user_held.c: VASI_HELD_* as far as user space can see them */

/* of a thread; @t is NULL if it is not held */
uint64_t user_held_thread(struct user_records *o, pid_t tid,
			  struct user_thread *t);
/* of the process and its threads; @t is one that can make calls, or NULL */
uint64_t user_held_process(struct user_records *o, struct user_thread *t,
			   uint32_t *ret_children);

#endif /* MSPD_GUEST_USER_RECORDS_H */
