// SPDX-License-Identifier: GPL-2.0
/*
 * Held resources that make a guest unmovable and that no /proc file shows
 *
 * Most are looked at as plain fields: pointers are compared with NULL, or
 * followed where the guest's own reference or RCU keeps their target.
 */
#include <linux/cred.h>
#include <linux/fdtable.h>
#include <linux/fs_struct.h>
#include <linux/nsproxy.h>
#include <linux/ptrace.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/user_namespace.h>
#include <linux/userfaultfd_k.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/mmu_context.h>

#include "compat/task.h"
#include "suspend.h"

/* of a key pointer: has the guest one of its own */
static bool has_keyring(const struct cred *cred)
{
#ifdef CONFIG_KEYS
	return cred->thread_keyring || cred->process_keyring;
#else
	return false;
#endif
}

static bool same_groups(const struct group_info *a, const struct group_info *b)
{
	int i;

	if (a == b)
		return true;
	if (a->ngroups != b->ngroups)
		return false;
	for (i = 0; i < a->ngroups; i++)
		if (!gid_eq(a->gid[i], b->gid[i]))
			return false;
	return true;
}

/* by content: after setuid() of all threads each has a copy of its own */
static bool same_creds(const struct cred *a, const struct cred *b)
{
	if (a == b)
		return true;
	return uid_eq(a->uid, b->uid) && uid_eq(a->euid, b->euid) &&
	       uid_eq(a->suid, b->suid) && uid_eq(a->fsuid, b->fsuid) &&
	       gid_eq(a->gid, b->gid) && gid_eq(a->egid, b->egid) &&
	       gid_eq(a->sgid, b->sgid) && gid_eq(a->fsgid, b->fsgid) &&
	       a->securebits == b->securebits && a->user_ns == b->user_ns &&
	       !memcmp(&a->cap_inheritable, &b->cap_inheritable,
		       sizeof(kernel_cap_t)) &&
	       !memcmp(&a->cap_permitted, &b->cap_permitted,
		       sizeof(kernel_cap_t)) &&
	       !memcmp(&a->cap_effective, &b->cap_effective,
		       sizeof(kernel_cap_t)) &&
	       !memcmp(&a->cap_bset, &b->cap_bset, sizeof(kernel_cap_t)) &&
	       !memcmp(&a->cap_ambient, &b->cap_ambient, sizeof(kernel_cap_t)) &&
	       same_groups(a->group_info, b->group_info);
}

static bool has_debugregs(struct task_struct *t)
{
	int i;

	for (i = 0; i < HBP_NUM; i++)
		if (t->thread.ptrace_bps[i])
			return true;
	return t->thread.ptrace_dr7;
}

/* rings that are gone have left an empty table behind */
static bool has_io_uring(struct task_struct *t)
{
	struct io_uring_task *tctx = READ_ONCE(t->io_uring);

	return tctx && !xa_empty(&tctx->xa);
}

/* RCU held; @t stays because its group does */
u64 vasi_held_thread(struct task_struct *t, struct task_struct *leader)
{
	const struct cred *cred = rcu_dereference(t->real_cred);
	u64 held = 0;

	if (has_io_uring(t))
		held |= VASI_HELD_IO_URING;
	if (vasi_has_perf(t))
		held |= VASI_HELD_PERF;
	if (has_debugregs(t))
		held |= VASI_HELD_DEBUGREGS;
	if (t->seccomp.mode)
		held |= VASI_HELD_SECCOMP;
	if (t->ptrace)
		held |= VASI_HELD_TRACED;
	if (task_is_stopped(t))
		held |= VASI_HELD_STOPPED;
	if (vasi_has_sem_undo(t))
		held |= VASI_HELD_SYSV_UNDO;
	if (vasi_has_shstk(t))
		held |= VASI_HELD_SHSTK;
	if (t->thread.io_bitmap || t->thread.iopl_emul)
		held |= VASI_HELD_IOPORTS;
	if (test_task_syscall_work(t, SYSCALL_USER_DISPATCH))
		held |= VASI_HELD_SYSCALL_DISPATCH;
	if (has_keyring(cred))
		held |= VASI_HELD_KEYRING;
	/* t->cred is another one during a system call on overlayfs, say */
	if (!same_creds(cred, rcu_dereference(leader->real_cred)))
		held |= VASI_HELD_CREDS_DIFFER;
	return held;
}

/* Are the tables of all threads one, and used by nobody else? */
static u64 held_tables(struct task_struct *leader)
{
	struct files_struct *files = NULL;
	struct fs_struct *fs = NULL;
	struct task_struct *t;
	int nr_files = 0, nr_fs = 0, files_users = 0, fs_users = 0;
	u64 held = 0;

	for_each_thread(leader, t) {
		task_lock(t);
		if (t->files) {
			if (files && t->files != files)
				held |= VASI_HELD_FILES_SHARED;
			files = t->files;
			files_users = atomic_read(&files->count);
			nr_files++;
		}
		if (t->fs) {
			if (fs && t->fs != fs)
				held |= VASI_HELD_FS_SHARED;
			fs = t->fs;
			fs_users = READ_ONCE(fs->users);
			nr_fs++;
		}
		task_unlock(t);
	}
	if (files_users != nr_files)
		held |= VASI_HELD_FILES_SHARED;
	if (fs_users != nr_fs)
		held |= VASI_HELD_FS_SHARED;
	return held;
}

static u64 held_mm(struct mm_struct *mm)
{
	u64 held = 0;

#ifdef CONFIG_AIO
	if (rcu_access_pointer(mm->ioctx_table))
		held |= VASI_HELD_AIO;
#endif
#ifdef CONFIG_MODIFY_LDT_SYSCALL
	if (mm->context.ldt)
		held |= VASI_HELD_LDT;
#endif
#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
	/* key 0 is everybody's */
	if (mm->context.pkey_allocation_map & ~1)
		held |= VASI_HELD_PKEYS;
#endif
	/* stays set when the last probe has gone: refused rather than missed */
	if (test_bit(MMF_HAS_UPROBES, &mm->flags))
		held |= VASI_HELD_UPROBES;
	return held;
}

/* RCU held. What needs the mappings is added by the caller. */
u64 vasi_held_process(struct mm_struct *mm, struct task_struct *leader,
		      u32 *ret_children)
{
	struct sighand_struct *sighand;
	struct task_struct *p, *t;
	u64 held = held_mm(mm) | held_tables(leader);
	u32 children = 0;

	sighand = vasi_lock_sighand(leader);
	if (sighand) {
		if (vasi_has_posix_timers(leader->signal))
			held |= VASI_HELD_POSIX_TIMERS;
		if (leader->signal->flags & SIGNAL_STOP_STOPPED)
			held |= VASI_HELD_STOPPED;
		/* the tiles alone: everybody may have a configuration of them */
		if (leader->thread.fpu.perm.__state_perm &
		    XFEATURE_MASK_XTILE_DATA)
			held |= VASI_HELD_AMX;
		vasi_unlock_sighand(sighand);
	}
	for_each_thread(leader, t)
		held |= vasi_held_thread(t, leader);

	for_each_process(p) {
		if (p->signal == leader->signal)
			continue;
		/* also one that is dead and not waited for */
		t = rcu_dereference(p->real_parent);
		if (t->signal == leader->signal)
			children++;
		if (p->flags & PF_KTHREAD)
			continue;
		for_each_thread(p, t)
			if (READ_ONCE(t->mm) == mm)
				held |= VASI_HELD_MM_SHARED;
	}
	if (children)
		held |= VASI_HELD_CHILD;
	*ret_children = children;
	return held;
}
