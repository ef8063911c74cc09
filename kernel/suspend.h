/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A suspension: the threads of a guest, each parked in a task work of its own
 */
#ifndef VASI_SUSPEND_H
#define VASI_SUSPEND_H

#include <linux/hashtable.h>
#include <linux/refcount.h>
#include <linux/task_work.h>
#include <linux/user.h>

#include "vasi_private.h"

/**
 * struct vasi_capture - what a thread told of itself when it parked
 * @regs: NT_PRSTATUS register set, valid when @valid
 * @xstate: NT_X86_XSTATE register set, from the heap
 * @xstate_len: its bytes
 * @where: VASI_WHERE_*
 * @syscall: call that is being left, -1 = none
 * @rseq_abort: @regs go on at the abort handler of a critical section
 * @fixup: an interrupted call was made one that restarts
 * @valid: all of it was captured
 */
struct vasi_capture {
	struct user_regs_struct regs;
	void *xstate;
	u32 xstate_len;
	u32 where;
	s32 syscall;
	bool rseq_abort;
	bool fixup;
	bool valid;
};

enum vasi_park_state {
	VASI_PARK_QUEUED,	/* the thread did not come yet */
	VASI_PARK_PARKED,	/* it waits in its work */
	VASI_PARK_LEFT,		/* it went on: resumed, or dying */
};

/**
 * struct vasi_park - the work that parks one thread
 * @work: queued once. It can't be taken back, so it may run long after the
 *	suspension that queued it, and must then free itself and do nothing
 * @ref: one of the table while in it, one of the queued work
 * @node: in vasi_suspension.table, keyed by @task
 * @susp: referenced
 * @task: referenced, so that the key stays unique
 * @gen: suspension that it belongs to
 * @pass: look through the processes that found the thread
 * @state: guarded by vasi_suspension.lock
 * @cap: written by the thread before it is parked, stable while it is
 */
struct vasi_park {
	struct callback_head work;
	refcount_t ref;
	struct hlist_node node;
	struct vasi_suspension *susp;
	struct task_struct *task;
	u64 gen;
	u32 pass;
	enum vasi_park_state state;
	struct vasi_capture cap;
};

/**
 * struct vasi_suspension - all that a stream's suspends share
 * @ref: the stream's and one of each struct vasi_park
 * @mm: whose users are parked; compared, never followed
 * @lock: guards what is below; inside stream->lock
 * @gen: bumped by each suspend of a running guest
 * @active: threads of generation @gen stay parked
 * @nr_queued: works in the table
 * @nr_parked: threads that wait
 * @threads: threads counted by the last suspend that succeeded
 * @since: when it succeeded
 * @progress: woken when a thread has parked
 * @parked: where the threads wait
 * @table: struct vasi_park of generation @gen by task
 */
struct vasi_suspension {
	refcount_t ref;
	struct mm_struct *mm;
	spinlock_t lock;
	u64 gen;
	bool active;
	u32 nr_queued;
	u32 nr_parked;
	u32 threads;
	ktime_t since;
	wait_queue_head_t progress;
	wait_queue_head_t parked;
	DECLARE_HASHTABLE(table, 8);
};

/* with @susp->lock, or with stream->lock and the guest suspended */
struct vasi_park *vasi_park_find(struct vasi_suspension *susp,
				 struct task_struct *task);
/* waits for a vforked child that is parked; @susp->lock and RCU held */
bool vasi_park_in_vfork(struct vasi_suspension *susp, struct task_struct *task);

/*
 * suspend.c: the body of VASI_SUSPEND, for uring.c too. @ns is the caller's
 * PID namespace. stream->lock held.
 */
int vasi_suspend_stream(struct vasi_stream *s, struct vasi_suspend *cmd,
			struct pid_namespace *ns);

/* thread.c, of current and in its task work */
bool vasi_thread_fixup(void);
void vasi_thread_capture(struct vasi_capture *cap);
void vasi_capture_free(struct vasi_capture *cap);

/**
 * struct vasi_out - records as they are put together
 * @buf: kernel memory, NULL while only counting
 * @cap: bytes of it
 * @len: bytes so far, beyond @cap when it is too small
 * @records: records so far
 */
struct vasi_out {
	void *buf;
	size_t cap;
	size_t len;
	u32 records;
};

/* state.c */
void vasi_out_record(struct vasi_out *out, u16 type, s32 tid, u32 note,
		     const void *payload, u32 bytes);
/* header first, payload by pieces, then the end */
size_t vasi_out_begin(struct vasi_out *out);
void vasi_out_bytes(struct vasi_out *out, const void *payload, u32 bytes);
void vasi_out_end(struct vasi_out *out, size_t begin, u16 type, s32 tid);

/* thread.c: the records of one thread; RCU held */
u64 vasi_thread_records(struct vasi_out *out, struct vasi_suspension *susp,
			struct task_struct *t, struct pid_namespace *ns);
void vasi_pending_record(struct vasi_out *out, struct sigpending *pending,
			 s32 tid);
/* held.c: VASI_HELD_* bits */
u64 vasi_held_thread(struct task_struct *t, struct task_struct *leader);
u64 vasi_held_process(struct mm_struct *mm, struct task_struct *leader,
		      u32 *ret_children);

/*
 * The lock of a task's signals. Not lock_task_sighand(), whose body is not
 * exported: the table of actions can be swapped by exec and go at exit.
 */
struct sighand_struct *vasi_lock_sighand(struct task_struct *t);
void vasi_unlock_sighand(struct sighand_struct *sighand);

#endif /* VASI_SUSPEND_H */
