/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fields of a task that moved between the supported kernels
 */
#ifndef VASI_COMPAT_TASK_H
#define VASI_COMPAT_TASK_H

#include <linux/io_uring_types.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <asm/prctl.h>

/* threads that a process has in the kernel only, without user registers */
#ifdef PF_USER_WORKER
#define VASI_PF_WORKER	(PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER)
#else
#define VASI_PF_WORKER	(PF_KTHREAD | PF_IO_WORKER)
#endif

static inline u32 vasi_task_rseq_len(struct task_struct *t)
{
	if (!t->rseq)
		return 0;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	return t->rseq_len;
#else
	return sizeof(*t->rseq);
#endif
}

/* siglock held */
static inline bool vasi_has_posix_timers(struct signal_struct *sig)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return !hlist_empty(&sig->posix_timers);
#else
	return !list_empty(&sig->posix_timers);
#endif
}

/*
 * Somebody counts events of this task. The context outlives its events, so
 * its presence says nothing; it is freed by RCU.
 */
static inline bool vasi_has_perf(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	struct perf_event_context *ctx = READ_ONCE(t->perf_event_ctxp);

	return ctx && READ_ONCE(ctx->nr_events);
#else
	int i;

	for (i = 0; i < perf_nr_task_contexts; i++) {
		struct perf_event_context *ctx = READ_ONCE(t->perf_event_ctxp[i]);

		if (ctx && READ_ONCE(ctx->nr_events))
			return true;
	}
	return false;
#endif
}

static inline bool vasi_has_shstk(struct task_struct *t)
{
#ifdef CONFIG_X86_USER_SHADOW_STACK
	return t->thread.features & ARCH_SHSTK_SHSTK;
#else
	return false;
#endif
}

/*
 * Every process with threads has a list of semaphore operations to undo, and
 * what matters is whether anything is in it. The type is private to ipc/sem.c
 * and has been this since it was made.
 */
struct vasi_sem_undo_list {
	refcount_t refcnt;
	spinlock_t lock;	/* theirs, guards the list */
	struct list_head list_proc;
};

/* A thread that exits frees it: then the answer is stale, but must not fault */
static inline bool vasi_has_sem_undo(struct task_struct *t)
{
	struct vasi_sem_undo_list *list;
	struct list_head *first;

	list = (struct vasi_sem_undo_list *)READ_ONCE(t->sysvsem.undo_list);
	return list &&
	       !copy_from_kernel_nofault(&first, &list->list_proc.next,
					 sizeof(first)) &&
	       first != &list->list_proc;
}

/* restart_block.futex.flags, private to kernel/futex, renumbered in 6.7 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define VASI_FUTEX_SHARED	0x10
#define VASI_FUTEX_CLOCKRT	0x20
#define VASI_FUTEX_TIMEOUT	0x40
#else
#define VASI_FUTEX_SHARED	0x01
#define VASI_FUTEX_CLOCKRT	0x02
#define VASI_FUTEX_TIMEOUT	0x04
#endif

#endif /* VASI_COMPAT_TASK_H */
