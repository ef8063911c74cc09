/* SPDX-License-Identifier: GPL-2.0 */
/*
 * System calls performed by the threads of a guest that is being built
 *
 * The guest's threads are stopped under ptrace of the calling thread. A few
 * pages ("the blob") are shared between this process and the guest: code that
 * runs one call or a table of calls and then traps, and scratch memory for
 * arguments. One stop costs the same whether one call or a hundred are made in
 * it, so what can wait is queued and flushed once per thread.
 *
 * The blob and the socket are gone from the guest when it is let go.
 */
#ifndef MSPD_STATE_REMOTE_H
#define MSPD_STATE_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>
#include <time.h>

#define REMOTE_MAX_FDS	253	/* most descriptors of one message */

struct remote_call {
	uint64_t nr;
	uint64_t arg[6];
	int64_t ret;		/* >= 0 or -errno of the call */
};

struct remote_queued;

/**
 * struct remote - the guest's side door
 * @leader: thread group leader, in this PID namespace
 * @code: address of the code in the guest
 * @base: where the blob is in the guest, 0 = not yet
 * @local: the same pages here
 * @blob: memfd behind them
 * @used: bytes of scratch taken
 * @sock: our end of the socket that descriptors go through
 * @guest_sock: descriptor number of its end
 * @queue: calls that wait
 * @nr_queue: how many
 * @failed: what the call that failed was for, after remote_flush()
 * @stops: stops taken so far
 * @timer: ends a wait for a stop that does not come
 * @timed: there is one
 */
struct remote {
	pid_t leader;
	uint64_t code;
	uint64_t base;
	uint8_t *local;
	int blob;
	size_t used;
	int sock;
	int guest_sock;
	struct remote_queued *queue;
	size_t nr_queue;
	const char *failed;
	unsigned long stops;
	timer_t timer;
	bool timed;
};

/*
 * One call by thread @tid (in this PID namespace; 0 = the leader). Returns
 * what the call returns, -errno included; -ESRCH when the thread is gone.
 */
long remote_syscall(struct remote *r, pid_t tid, long nr, const uint64_t *arg);

#define REMOTE_ARGS(a, b, c, d, e, f, ...) \
	((const uint64_t[6]){ (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), \
			      (uint64_t)(d), (uint64_t)(e), (uint64_t)(f) })
/* remote_call(r, tid, __NR_dup3, 7, 9, 0): arguments left out are 0 */
#define remote_call(r, tid, nr, ...) \
	remote_syscall(r, tid, nr, REMOTE_ARGS(__VA_ARGS__ __VA_OPT__(,) \
					       0, 0, 0, 0, 0, 0))

/* Any number of calls in one stop; 0 if all were made, whatever they return. */
int remote_batch(struct remote *r, pid_t tid, struct remote_call *calls,
		 size_t n);

/*
 * A call that can wait until the next remote_flush(); calls of one thread keep
 * their order. @what names it in messages (not copied). If it fails the flush
 * fails, except when @may_fail.
 */
int remote_queue_call(struct remote *r, pid_t tid, const char *what,
		      bool may_fail, long nr, const uint64_t *arg);
#define remote_queue(r, tid, what, nr, ...) \
	remote_queue_call(r, tid, what, false, nr, \
			  REMOTE_ARGS(__VA_ARGS__ __VA_OPT__(,) \
				      0, 0, 0, 0, 0, 0))
/* Makes all queued calls, one stop per thread, and frees the scratch memory. */
int remote_flush(struct remote *r);

/*
 * Scratch memory: @ret_addr is its address in the guest, the return value the
 * same bytes here, zeroed; NULL when full. Lives until remote_flush() or
 * remote_reset().
 */
void *remote_alloc(struct remote *r, size_t len, uint64_t *ret_addr);
/* copies @len bytes there; their address in the guest, 0 when full */
uint64_t remote_copy(struct remote *r, const void *data, size_t len);
/* gives scratch memory back when nothing is queued */
void remote_reset(struct remote *r);

/*
 * Puts descriptors of this process into the guest in one or two stops. They
 * land at the lowest free numbers, close-on-exec, told in @ret_nrs.
 */
int remote_send_fds(struct remote *r, const int *fds, size_t n, int *ret_nrs);

struct remote_fd {
	int fd;			/* here */
	int nr;			/* number that it gets in the guest */
	bool cloexec;
};

/* Likewise, each at its number, replacing what was there. */
int remote_place_fds(struct remote *r, const struct remote_fd *v, size_t n);
/* moves the socket away if the guest wants its number */
int remote_yield_nr(struct remote *r, int nr);

#endif /* MSPD_STATE_REMOTE_H */
