// SPDX-License-Identifier: GPL-2.0
/*
 * State: what belongs to the process, as typed records
 */
#include <linux/cred.h>
#include <linux/elf.h>
#include <linux/hrtimer.h>
#include <linux/nsproxy.h>
#include <linux/pid_namespace.h>
#include <linux/sched/coredump.h>
#include <linux/sched/cputime.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/time_namespace.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>

#include "compat/task.h"
#include "suspend.h"

/* enough for most guests, so that they are looked at only once */
#define VASI_STATE_FIRST	(256u << 10)
/* a running guest changes between counting and writing: leave it room */
#define VASI_STATE_SLACK	(64u << 10)

void vasi_out_bytes(struct vasi_out *out, const void *payload, u32 bytes)
{
	if (out->buf && out->len + bytes <= out->cap)
		memcpy(out->buf + out->len, payload, bytes);
	out->len += bytes;
}

size_t vasi_out_begin(struct vasi_out *out)
{
	size_t begin = out->len;

	out->len += sizeof(struct vasi_record);
	return begin;
}

void vasi_out_end(struct vasi_out *out, size_t begin, u16 type, s32 tid)
{
	struct vasi_record rec = {
		.type = type,
		.tid = tid,
		.payload = out->len - begin - sizeof(rec),
	};
	static const u8 zero[8];

	vasi_out_bytes(out, zero, -out->len & 7);
	rec.bytes = out->len - begin;
	if (out->buf && begin + sizeof(rec) <= out->cap)
		memcpy(out->buf + begin, &rec, sizeof(rec));
	out->records++;
}

void vasi_out_record(struct vasi_out *out, u16 type, s32 tid, u32 note,
		     const void *payload, u32 bytes)
{
	size_t begin = vasi_out_begin(out);

	vasi_out_bytes(out, payload, bytes);
	vasi_out_end(out, begin, type, tid);
	if (out->buf && begin + sizeof(struct vasi_record) <= out->cap)
		((struct vasi_record *)(out->buf + begin))->note = note;
}

static void mm_fields(struct vasi_rec_process *rec, struct mm_struct *mm)
{
	spin_lock(&mm->arg_lock);
	rec->start_code = mm->start_code;
	rec->end_code = mm->end_code;
	rec->start_data = mm->start_data;
	rec->end_data = mm->end_data;
	rec->start_brk = mm->start_brk;
	rec->brk = mm->brk;
	rec->start_stack = mm->start_stack;
	rec->arg_start = mm->arg_start;
	rec->arg_end = mm->arg_end;
	rec->env_start = mm->env_start;
	rec->env_end = mm->env_end;
	spin_unlock(&mm->arg_lock);
	rec->vdso = (unsigned long)mm->context.vdso;
	rec->mmap_base = mm->mmap_base;
	rec->def_flags = mm->def_flags;
	rec->dumpable = get_dumpable(mm);
	rec->thp_disable = test_bit(MMF_DISABLE_THP, &mm->flags);
#ifdef CONFIG_MEMBARRIER
	rec->membarrier = atomic_read(&mm->membarrier_state);
#endif
}

static void clocks(struct vasi_rec_process *rec, struct task_struct *leader)
{
	struct nsproxy *nsproxy;

	rec->clock_monotonic = ktime_get_ns();
	rec->clock_boottime = ktime_get_boottime_ns();
	task_lock(leader);
	nsproxy = leader->nsproxy;
	if (nsproxy) {
		struct timens_offsets *off = &nsproxy->time_ns->offsets;

		rec->timens_monotonic = timespec64_to_ns(&off->monotonic);
		rec->timens_boottime = timespec64_to_ns(&off->boottime);
	}
	task_unlock(leader);
}

/* siglock held */
static void sigaction_record(struct vasi_out *out,
			     struct sighand_struct *sighand)
{
	struct vasi_rec_sigaction rec = {};
	size_t begin = vasi_out_begin(out);
	int i;

	for (i = 0; i < _NSIG; i++) {
		const struct sigaction *sa = &sighand->action[i].sa;

		rec.handler = (unsigned long)sa->sa_handler;
		rec.flags = sa->sa_flags;
		rec.restorer = (unsigned long)sa->sa_restorer;
		memcpy(&rec.mask, &sa->sa_mask, sizeof(rec.mask));
		vasi_out_bytes(out, &rec, sizeof(rec));
	}
	vasi_out_end(out, begin, VASI_REC_SIGACTION, 0);
}

/*
 * To the expiry of a CPU-time timer. The clock runs in signal->cputimer while
 * any such timer is armed.
 */
static void cpu_itimer(struct vasi_rec_itimer *rec, const struct cpu_itimer *it,
		       u64 now)
{
	rec->interval_ns = it->incr;
	if (it->expires)
		rec->value_ns = it->expires > now ? it->expires - now :
						    TICK_NSEC;
}

/* siglock held */
static void itimer_record(struct vasi_out *out, struct signal_struct *sig)
{
	struct task_cputime_atomic *now = &sig->cputimer.cputime_atomic;
	struct vasi_rec_itimer rec[3] = {};
	u64 utime = atomic64_read(&now->utime);
	u64 stime = atomic64_read(&now->stime);
	s64 left;

	rec[0].interval_ns = ktime_to_ns(sig->it_real_incr);
	left = ktime_to_ns(__hrtimer_get_remaining(&sig->real_timer, true));
	if (hrtimer_active(&sig->real_timer))
		rec[0].value_ns = max_t(s64, left, NSEC_PER_USEC);
	else if (rec[0].interval_ns &&
		 sigismember(&sig->shared_pending.signal, SIGALRM))
		/* it starts again only when its signal is taken */
		rec[0].value_ns = rec[0].interval_ns;
	cpu_itimer(&rec[1], &sig->it[CPUCLOCK_VIRT], utime);
	cpu_itimer(&rec[2], &sig->it[CPUCLOCK_PROF], utime + stime);
	vasi_out_record(out, VASI_REC_ITIMER, 0, 0, rec, sizeof(rec));
}

static void auxv_record(struct vasi_out *out, struct mm_struct *mm)
{
	unsigned int n = 0;

	while (n + 2 < AT_VECTOR_SIZE && mm->saved_auxv[n] != AT_NULL)
		n += 2;
	vasi_out_record(out, VASI_REC_AUXV, 0, 0, mm->saved_auxv,
			(n + 2) * sizeof(mm->saved_auxv[0]));
}

/* what a look at the mappings shows; sleeps */
static int held_mappings(struct mm_struct *mm, u64 *ret_held)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	u64 held = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma(vmi, vma)
		if (userfaultfd_armed(vma))
			held |= VASI_HELD_USERFAULTFD;
	mmap_read_unlock(mm);
	*ret_held = held;
	return 0;
}

static int all_records(struct vasi_out *out, struct vasi_stream *s, u64 held)
{
	struct vasi_suspension *susp = vasi_is_suspended(s) ? s->suspension :
							      NULL;
	struct vasi_rec_process rec = { .unmovable = held };
	struct task_struct *leader, *t;
	struct sighand_struct *sighand;
	struct pid_namespace *ns;
	size_t begin;
	int ret = 0;

	rcu_read_lock();
	leader = pid_task(s->pid, PIDTYPE_TGID);
	sighand = leader ? vasi_lock_sighand(leader) : NULL;
	if (!sighand) {
		rcu_read_unlock();
		return -ESRCH;
	}
	sigaction_record(out, sighand);
	itimer_record(out, leader->signal);
	vasi_pending_record(out, &leader->signal->shared_pending, 0);
	rec.oom_score_adj = leader->signal->oom_score_adj;
	rec.child_subreaper = leader->signal->is_child_subreaper;
	vasi_unlock_sighand(sighand);
	auxv_record(out, s->mm);

	/* reserved here, filled in when the threads have been looked at */
	ns = task_active_pid_ns(leader);
	begin = out->len;
	vasi_out_record(out, VASI_REC_PROCESS, 0, 0, &rec, sizeof(rec));
	for_each_thread(leader, t) {
		if (READ_ONCE(t->mm) != s->mm || (t->flags & VASI_PF_WORKER))
			continue;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		rec.xfeatures |= vasi_thread_records(out, susp, t, ns);
		rec.nr_threads++;
	}

	mm_fields(&rec, s->mm);
	clocks(&rec, leader);
	rec.pid = task_tgid_nr_ns(leader, ns);
	rec.exit_signal = leader->exit_signal;
	rec.securebits = __task_cred(leader)->securebits;
	rec.unmovable |= vasi_held_process(s->mm, leader, &rec.nr_children);
	rcu_read_unlock();

	begin += sizeof(struct vasi_record);
	if (out->buf && begin + sizeof(rec) <= out->cap)
		memcpy(out->buf + begin, &rec, sizeof(rec));
	return ret;
}

static int state_locked(struct vasi_stream *s, struct vasi_state *cmd)
{
	u64 cap = min_t(u64, cmd->buf_len, VASI_STATE_FIRST);
	struct vasi_out out;
	u64 held;
	int ret;

	ret = held_mappings(s->mm, &held);
	if (ret)
		return ret;
	for (;;) {
		out = (struct vasi_out){ .cap = cap };
		if (cap) {
			out.buf = kvmalloc(cap, GFP_KERNEL_ACCOUNT);
			if (!out.buf)
				return -ENOMEM;
		}
		ret = all_records(&out, s, held);
		if (ret || out.len <= cap)
			break;
		kvfree(out.buf);
		cmd->out_len = out.len;
		if (out.len > cmd->buf_len)
			return -EMSGSIZE;
		if (out.len > VASI_MAX_RECORDS)
			return -ENOSPC;
		cap = min_t(u64, cmd->buf_len, out.len + VASI_STATE_SLACK);
	}
	if (!ret) {
		cmd->out_len = out.len;
		cmd->out_records = out.records;
		if (copy_to_user(u64_to_user_ptr(cmd->buf), out.buf, out.len))
			ret = -EFAULT;
	}
	kvfree(out.buf);
	return ret;
}

int vasi_state(struct vasi_open *o, void *arg)
{
	struct vasi_state *cmd = arg;
	struct vasi_stream *s = vasi_open_stream(o);
	struct mm_struct *mm;
	int ret;

	if (cmd->member)
		return -ENOENT;
	if (cmd->buf & 7)
		return -EINVAL;
	mm = vasi_stream_mm(s);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	ret = mutex_lock_killable(&s->lock);
	if (!ret) {
		ret = state_locked(s, cmd);
		mutex_unlock(&s->lock);
	}
	mmput(mm);
	return ret;
}
