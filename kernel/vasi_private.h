/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vasi: structures, lock order and prototypes shared by the module's files
 *
 * Lock order, outermost first:
 *
 *	open->lock		mutex, attach
 *	stream->lock		mutex, state machine, suspend, seal, objects, opens
 *	mm->mmap_lock		read, by harvest, objects, pages
 *	page-table lock		spinlock, inside the walk
 *	stream->event_lock	spinlock, what poll() and netlink tell
 *
 * vasi_streams_lock (mutex: the list of streams, ID uniqueness) is innermost
 * of the mutexes and nothing below it waits for a guest.
 *
 * The mmu notifier looks up the sent set under RCU and clears bits atomically.
 * It may be called by a thread of the guest that somebody waits for with
 * stream->lock held, so its release takes event_lock alone and leaves the rest
 * to a work item. Harvests of one stream run in parallel and hold a reference
 * of the tracker.
 *
 * Lifetime: an open holds a reference of its stream. A stream holds the mm
 * (mmgrab) and the struct pid; every call that touches memory takes
 * mmget_not_zero(). A suspend, while it lasts, and a seal, while it lasts, hold
 * a reference of the stream and of the module. The notifier is registered from
 * attach until nobody can find the stream any more.
 */
#ifndef VASI_PRIVATE_H
#define VASI_PRIVATE_H

#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <linux/vasi.h>

#define VASI_MAX_STREAMS	64
#define VASI_MAX_OPENS		64
#define VASI_MAX_VEC		65536
#define VASI_MAX_BATCH		(16u << 20)
#define VASI_MAX_OBJECTS	1024
#define VASI_MAX_MAPPINGS	1048576
#define VASI_MAPPINGS_SLACK	64	/* born while we look */
#define VASI_MAX_RECORDS	(256ul << 20)	/* bytes of one VASI_STATE */

struct vasi_tracker;
struct vasi_suspension;

/**
 * struct vasi_memobj - a memory object the guest maps
 * @space: number in ranges
 * @file: own open of it, so that the guest's file position is never moved
 */
struct vasi_memobj {
	u32 space;
	struct file *file;
};

/**
 * struct vasi_stream - one operation on one guest
 * @ref: opens, a seal, running calls
 * @link: in the list of streams
 * @id: 64-bit ID given by the mover
 * @service: VASI_SERVICE_*
 * @mm: the guest's memory, grabbed
 * @pid: the guest's thread group
 * @lock: see the lock order
 * @state: VASI_STATE_*, changed by vasi_set_state() only
 * @reason: why it was aborted
 * @nr_opens: attached opens
 * @sealed: the guest stays parked without opens
 * @ended: no new user may find it
 * @destroying: VASI_DESTROY says what the guest's end means
 * @dead: the mm was released, or is not the guest's any more
 * @execed: ... by an exec
 * @notifier: from attach to the end
 * @events_running: events between their start and their end
 * @notifier_off: the release that comes is of our own doing
 * @gone_work: the part of the guest's end that needs @lock
 * @bytes_left: progress as told
 * @tracker: NULL while not tracking
 * @suspension: NULL while never suspended
 * @objects: struct vasi_memobj by space
 * @nr_objects: highest space given
 * @event_lock: guards @event_seq, @dead, writes of @state and @reason
 * @event_seq: bumped with every change that poll() shows
 * @wait: woken with every change
 * @count: counters, VASI_COUNT_*
 * @rcu: freed behind those who look without a lock
 */
struct vasi_stream {
	struct kref ref;
	struct list_head link;
	u64 id;
	u32 service;
	struct mm_struct *mm;
	struct pid *pid;
	struct mutex lock;
	u32 state;
	u32 reason;
	u32 nr_opens;
	bool sealed;
	bool ended;
	bool destroying;
	bool dead;
	bool execed;
	bool notifier_off;
	struct mmu_notifier notifier;
	atomic_t events_running;
	struct work_struct gone_work;
	u64 bytes_left;
	struct vasi_tracker __rcu *tracker;
	struct vasi_suspension *suspension;
	struct xarray objects;
	u32 nr_objects;
	spinlock_t event_lock;
	u32 event_seq;
	wait_queue_head_t wait;
	struct rcu_head rcu;
	atomic64_t count[VASI_COUNT_MAX];
};

/**
 * struct vasi_open - private data of one open file
 * @lock: guards @stream while attaching
 * @stream: NULL until attached
 * @event_seen: last event taken by VASI_INFO
 */
struct vasi_open {
	struct mutex lock;
	struct vasi_stream *stream;
	u32 event_seen;
};

/* NULL until attached; then it stays until the file is released */
static inline struct vasi_stream *vasi_open_stream(struct vasi_open *o)
{
	/* pairs with the release in vasi_attach() */
	return smp_load_acquire(&o->stream);
}

static inline void vasi_count(struct vasi_stream *s, enum vasi_counter c, u64 n)
{
	atomic64_add(n, &s->count[c]);
}

/*
 * main.c: the misc device and the command table. It has checked size, tail,
 * flags (against the table) and attachment before a handler is called, and
 * copies the structure out when the handler returns >= 0, -EMSGSIZE or
 * -ETIMEDOUT.
 */
/* any command, @arg as in ioctl() */
int vasi_command(struct vasi_open *o, unsigned int cmd, void __user *arg);

/* stream.c: attach, lifetime, list, seal, info, poll */
struct vasi_stream *vasi_stream_get(struct vasi_stream *s);
void vasi_stream_put(struct vasi_stream *s);
/* 0, -ESRCH when the guest is gone, -ECANCELED after exec or abort */
int vasi_stream_check(struct vasi_stream *s);
/* the same check, then the guest's memory (mmput() it), or ERR_PTR */
struct mm_struct *vasi_stream_mm(struct vasi_stream *s);
/* clears the seal and its references; stream->lock held */
void vasi_unseal(struct vasi_stream *s);
int vasi_stream_init(void);
void vasi_stream_exit(void);
int vasi_attach(struct vasi_open *o, void *cmd);
void vasi_detach(struct vasi_open *o);
int vasi_seal(struct vasi_open *o, void *cmd);
int vasi_streams(struct vasi_open *o, void *cmd);
int vasi_destroy(struct vasi_open *o, void *cmd);
int vasi_signal(struct vasi_open *o, void *cmd);
int vasi_info(struct vasi_open *o, void *cmd);
int vasi_progress(struct vasi_open *o, void *cmd);
void vasi_fill_info(struct vasi_stream *s, struct vasi_stream_info *info);
/* calls @fn for every stream, with vasi_streams_lock held */
int vasi_visit_streams(int (*fn)(struct vasi_stream *s, void *arg), void *arg);
/* the guest's memory is going (exit or exec); from the notifier's release */
void vasi_stream_guest_gone(struct vasi_stream *s);

/* fsm.c: pure */
/* 0, or -EBUSY when the table does not allow @from -> @to on this side */
int vasi_fsm_check(u32 service, u32 from, u32 to);
/* changes state under stream->lock, wakes poll, tells netlink, traces */
int vasi_set_state(struct vasi_stream *s, u32 to, u32 reason);

/* track.c: sent set and mmu notifier; harvest.c: the walk */
int vasi_track(struct vasi_open *o, void *cmd);
int vasi_harvest(struct vasi_open *o, void *cmd);
void vasi_harvest_undo(struct vasi_open *o, void *cmd);
int vasi_mark(struct vasi_open *o, void *cmd);
/* checks what is common to all uses of a range, and gives its end */
int vasi_range_check(const struct vasi_range *r, u64 *ret_end);
int vasi_notifier_register(struct vasi_stream *s);
void vasi_notifier_unregister(struct vasi_stream *s);
void vasi_track_stop(struct vasi_stream *s);
/* The body of VASI_HARVEST: @vec is kernel memory */
int vasi_harvest_vec(struct vasi_stream *s, struct vasi_harvest *h,
		     struct vasi_range *vec);
/* its ranges did not reach the caller: what it looked at is told again */
void vasi_harvest_lost(struct vasi_stream *s, const struct vasi_harvest *h);

/* object.c */
int vasi_objects(struct vasi_open *o, void *cmd);
int vasi_mappings(struct vasi_open *o, void *cmd);
void vasi_objects_drop(struct vasi_stream *s);
/* stays while the stream does; NULL: no such object, or not readable */
struct file *vasi_object_file(struct vasi_stream *s, u32 space);

/* pages.c */
int vasi_pages_read(struct vasi_open *o, void *cmd);
int vasi_pages_write(struct vasi_open *o, void *cmd);

/* suspend.c */
int vasi_suspend(struct vasi_open *o, void *cmd);
int vasi_resume(struct vasi_open *o, void *cmd);
/* stream->lock held */
bool vasi_is_suspended(struct vasi_stream *s);
void vasi_resume_guest(struct vasi_stream *s);	/* cannot fail, idempotent */
void vasi_suspension_free(struct vasi_stream *s);	/* last stream ref */
u64 vasi_suspended_ns(struct vasi_stream *s);
u32 vasi_suspended_threads(struct vasi_stream *s);
int vasi_suspend_init(void);
void vasi_suspend_exit(void);	/* waits for queued task work */

/* state.c: records; thread.c: what a thread captures of itself */
int vasi_state(struct vasi_open *o, void *cmd);

/* genl.c */
int vasi_genl_init(void);
void vasi_genl_exit(void);
void vasi_genl_notify(struct vasi_stream *s);	/* a state change */

/* uring.c */
struct io_uring_cmd;
int vasi_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags);

#endif /* VASI_PRIVATE_H */
