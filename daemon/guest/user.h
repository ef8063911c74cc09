/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest access without the module: ptrace, /proc, process_vm_*, cgroup v2
 *
 * The objects behind ``guest_user``. Handles of a stream share one struct
 * user_stream within the worker process. Any thread may read, write, harvest
 * and mark; all else (attach, track, suspend, resume, seal, state, destroy and
 * the close of the last handle) is for one thread at a time.
 *
 * ptrace knows threads, not processes: what it does here is done by a thread of
 * the stream's own, the *tracer*, which lives as long as the guest is stopped.
 * Its end, like that of the whole process, lets the guest run on from wherever
 * it was stopped, also threads that had not come to their stop yet.
 *
 * On the source the guest is seized for a suspend, and one thread of a running
 * guest for a moment when it is asked what only itself can tell: by state()
 * for 1 to 3 ms, by the start of tracking for less than 1 ms. A target is
 * traced by the thread that builds it already and is never seized: there a
 * suspend is the freeze of its cgroup.
 */
#ifndef MSPD_GUEST_USER_H
#define MSPD_GUEST_USER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>
#include "guest/guest.h"

struct user_track;
struct user_tracer;
struct user_watch;

/**
 * struct user_thread - a thread that the tracer holds
 * @tid: in this process's PID namespace
 * @inner: in the guest's innermost PID namespace
 * @mask: its blocked signals
 * @regs: its registers at the stop, with the kernel's restart codes
 * @held: it has come to its stop
 * @stopped: by job control, not by us alone: makes no calls
 * @restarted: the call that it was in when restart_syscall() goes on with it,
 *	0 = none, -1 = not known; __NR_nanosleep stands for clock_nanosleep, too
 * @mute: makes no calls: they would meet a filter or a dispatcher of the guest's,
 *	or have the numbers of 64-bit code in 32-bit code
 * @fixup: an interrupted call was turned into one that restarts
 * @rseq_abort: it was in a critical section, which is given up
 */
struct user_thread {
	pid_t tid;
	int32_t inner;
	uint64_t mask;
	struct user_regs_struct regs;
	int restarted;
	bool held, stopped, mute;
	bool fixup, rseq_abort;
};

/**
 * struct user_call - a call that was found interrupted, and may be again
 * @tid: who made it
 * @nr: number of the call
 * @rip: where
 */
struct user_call {
	pid_t tid;
	int nr;
	uint64_t rip;
};

/**
 * struct user_stream - what the handles of a stream share
 * @id: stream ID
 * @service: VASI_SERVICE_*
 * @pid: the guest, in this process's PID namespace
 * @refs: handles
 * @target: the guest is built, and traced, by this process: it is not seized
 *	and makes no calls
 * @suspended: it stands still
 * @sealed: so it does without this process
 * @pidfd: of the guest; holds the lock that keeps other streams away
 * @lock_fd: what is locked, if that is not @pidfd; else -1
 * @proc: its directory in /proc
 * @mem: /proc/PID/mem; reads nothing any more once the memory is gone
 * @cgroup: directory of the cgroup that has it alone, -1 = not looked for
 * @cgroup_path: name of that
 * @home: name of the cgroup it was in before it got @cgroup, NULL = the same
 * @frozen: by us
 * @tracer: who holds @threads, NULL = nobody
 * @threads: threads held; of a guest that runs none
 * @nr_threads: how many
 * @max_threads: room
 * @stood: threads at the last suspend
 * @calls: interrupted calls of threads that were stopped once
 * @nr_calls: how many
 * @call_at: address of a syscall instruction of it, 0 = not looked for
 * @page: address of a page that it has mapped for calls, 0 = none
 * @page_place: where there was room for that, 0 = not looked for
 * @dispatched: calls of it were dispatched, which was not known before: it
 *	makes no more of them
 * @state: VASI_STATE_*
 * @reason: of an abort
 * @suspended_at: CLOCK_MONOTONIC, 0 = is not
 * @bytes_left: progress
 * @count: VASI_COUNT_*
 * @watch: watches for its end, NULL = nobody has asked
 * @lock: serializes what the tracker does in several threads (not used by
 *	anything above it)
 * @track: the tracker's, NULL = off; see user_track_free()
 */
struct user_stream {
	uint64_t id;
	uint32_t service;
	pid_t pid;
	atomic_uint refs;
	bool target;
	atomic_bool suspended, sealed;
	bool frozen;
	int pidfd, lock_fd, proc, mem, cgroup;
	char *cgroup_path, *home;
	struct user_tracer *tracer;
	struct user_thread *threads;
	size_t nr_threads, max_threads;
	uint32_t stood;
	struct user_call *calls;
	size_t nr_calls;
	uint64_t call_at, page, page_place;
	bool dispatched;
	uint32_t state, reason;
	int64_t suspended_at;
	_Atomic uint64_t bytes_left;
	_Atomic uint64_t count[VASI_COUNT_MAX];
	struct user_watch *watch;
	pthread_mutex_t lock;
	struct user_track *track;
};

struct user_guest {
	struct guest guest;
	struct user_stream *s;
};

static inline struct user_stream *user_of(const struct guest *g)
{
	return ((const struct user_guest *)g)->s;
}

/*
 * 0, -ESRCH: the guest is gone, -ECANCELED: it has called exec or the stream
 * was aborted. One system call; from any thread. What happens behind the call
 * is not known, so ask it again when a result looks like either.
 */
int user_alive(const struct user_stream *s);

/*
 * Takes the lock that keeps other streams away, which ends with its holder;
 * -EBUSY. It is on the process, so needs no directory that all movers share.
 */
int user_lock(struct user_stream *s);

/* -- user_probe.c */

/* as in struct guest_access */
int user_probe(struct vasi_query *ret);
/* what @err of user_probe() is due to; asked at once */
const char *user_probe_why(int err);

/* -- user_tracer.c, user_stop.c: the tracer, and threads that it stops */

/*
 * Calls @fn in the tracer's thread, which is made if there is none; then the
 * guest's threads that @fn has stopped are let go when it returns, and the
 * tracer ends. Returns what @fn returns, -EBUSY on a target.
 */
int user_trace(struct user_stream *s, int (*fn)(struct user_stream *s,
						void *arg), void *arg);
/*
 * For @fn of user_trace(): stops thread @tid, 0 = all of them and whatever they
 * make meanwhile. -ETIMEDOUT: it did not stop by @deadline, @ret_holdup (may be
 * NULL) says why; -EPERM: another process traces it; -ESRCH.
 */
int user_stop(struct user_stream *s, pid_t tid, int64_t deadline,
	      struct guest_holdup *ret_holdup);
/* waits for the next stop of a thread; -ESRCH when it ended, -ETIMEDOUT */
int user_wait(pid_t tid, int64_t deadline, int *ret_status);
/* stops all for good (until user_release()); as user_stop() */
int user_hold(struct user_stream *s, int64_t deadline,
	      struct guest_holdup *ret_holdup);
/* lets all threads go that user_hold() has stopped */
void user_release(struct user_stream *s);

/* -- inject.c: calls that the guest makes */

/**
 * user_syscall() - lets a thread of the source make one system call
 * @s: stream; not of a target (-EBUSY)
 * @tid: which thread, of @s->threads; 0 = any. Of a guest that is not
 *	suspended any thread is stopped for the call and let go again
 * @nr: number of the call
 * @arg: its six arguments
 * @ret: what the call returned, -errno included
 *
 * All signals are blocked meanwhile. Returns 0, -ESRCH,
 * -ECANCELED, -EBUSY (another traces it, or it is stopped), -EOPNOTSUPP (no
 * thread may make calls), -ENOENT (it has no syscall instruction), -EAGAIN (a
 * signal came instead of the call, and was acted upon), -ETIMEDOUT (the thread
 * waits in the kernel; then nothing is known of the call but that it is over).
 */
int user_syscall(struct user_stream *s, pid_t tid, long nr,
		 const uint64_t arg[6], long *ret);
/*
 * Likewise a call with memory: @arg[@at] becomes the address of a copy of @buf,
 * which is what the call made of it afterwards. @len is at most
 * USER_SCRATCH_BYTES. The memory is a page that it maps for that: -ENOMEM when
 * its limits have no room for one.
 */
int user_syscall_mem(struct user_stream *s, pid_t tid, long nr,
		     const uint64_t arg[6], int at, void *buf, size_t len,
		     long *ret);
#define USER_SCRATCH_BYTES	1024
/* the same within user_trace(), by a thread that is stopped */
int user_inject(struct user_stream *s, struct user_thread *t, long nr,
		const uint64_t arg[6], long *ret);
int user_inject_mem(struct user_stream *s, struct user_thread *t, long nr,
		    const uint64_t arg[6], int at, void *buf, size_t len,
		    long *ret);
/* maps the page of user_inject_mem(), which does it by itself */
int user_inject_begin(struct user_stream *s, struct user_thread *t);
/*
 * The last call for now has been made: the page of user_inject_mem() is unmapped
 * by a thread that is stopped. To be called before anybody looks at mappings.
 */
int user_inject_end(struct user_stream *s);
/* whether a stopped thread, of that status in /proc, is mute (see there) */
bool user_is_mute(const struct user_stream *s, const struct user_thread *t,
		  const char *status);
/* are the calls of a stopped thread dispatched? Told since Linux 6.4; before: no */
bool user_dispatched(pid_t tid);

/* -- user_seal.c: the cgroup v2 freezer, and the mark of a sealed guest */

/* where cgroup2 is mounted, "" if it is not */
const char *user_cgroup_root(void);
/*
 * Gives the guest a cgroup of its own if it has none: a child of the one that
 * it is in, so that limits and accounting stay. Called again: is it there alone
 * still? -EBUSY: others are, too; -EOPNOTSUPP: that cannot be.
 */
int user_cgroup_own(struct user_stream *s);
/* removes those of guests that have ended after their mover had */
void user_cgroup_sweep(void);
/* puts it back where it was, if it is not sealed, and closes the directory */
void user_cgroup_leave(struct user_stream *s);
int user_freeze(struct user_stream *s);
int user_thaw(struct user_stream *s);
/*
 * Waits until all threads are frozen or in a tracer's hand; with @parked none
 * of them in one. -ETIMEDOUT, -ESRCH, -ECANCELED.
 */
int user_frozen(struct user_stream *s, int64_t deadline, bool parked,
		struct guest_holdup *ret_holdup);
/* writes the mark, or renews it */
int user_mark_sealed(struct user_stream *s);
int user_unmark_sealed(struct user_stream *s);
/* as in struct guest_access */
int user_sealed(struct vasi_stream_info *vec, size_t len, size_t *ret_n);
/* Is it frozen, and not by us? What is seen with the cgroup holds for its parents. */
bool user_is_frozen(const struct user_stream *s);
/* Is the process of @s->proc sealed by any stream? */
bool user_is_sealed(const struct user_stream *s);
/* fills the stream's description in from the mark; -ENOENT */
int user_find_sealed(struct user_stream *s, uint32_t service,
		     uint64_t stream_id);

/* -- user_watch.c: tells of the guest's end */

/* a descriptor that shows POLLHUP when user_alive() would fail; or -errno */
int user_watch_fd(struct user_stream *s);
void user_watch_free(struct user_stream *s);

/* -- user_state.c */

int user_state(struct guest *g, void **ret_buf, size_t *ret_len);

/* -- user_track.c: all that is done to memory */

int user_read(struct guest *g, const struct vasi_range *vec, size_t n,
	      void *data, size_t len, size_t *ret_done);
int user_write(struct guest *g, const struct vasi_range *vec, size_t n,
	       const void *data, size_t len, size_t *ret_done);
void user_fill(struct guest *g, int uffd);

int user_track(struct guest *g, int on);
int user_harvest(struct guest *g, uint32_t space, uint64_t start, uint64_t end,
		 uint64_t max_pages, struct vasi_range *vec, size_t len,
		 size_t *ret_n, uint64_t *ret_end);
int user_mark(struct guest *g, const struct vasi_range *vec, size_t n);
int user_objects(struct guest *g, struct vasi_object *vec, size_t len,
		 size_t *ret_n);
/* flags of mappings; see user_mem_mappings() for how fresh they are */
int user_mappings(struct guest *g, struct vasi_mapping *vec, size_t len,
		  size_t *ret_n);
/* adds its counters to @count, an array of VASI_COUNT_MAX */
void user_track_count(struct user_stream *s, uint64_t *count);
/* stops tracking; the guest may be dead. Called once, with the last handle */
void user_track_free(struct user_stream *s);

#endif /* MSPD_GUEST_USER_H */
