// SPDX-License-Identifier: GPL-2.0
/*
 * Suspend: every thread of every process that shares the guest's memory is
 * parked in a task work, on its way from the kernel to user mode
 *
 * A thread that sleeps in a system call is woken for it as by a signal, but
 * there is none: the call restarts by itself (thread.c sees to the few that
 * would not). While it is parked only a fatal signal wakes it; other signals
 * stay pending and are delivered after the resume.
 *
 * A task work can't be taken back. A thread that is stopped, traced or deep in
 * the kernel runs it when it comes by, perhaps after the resume or in another
 * suspend; the generation tells it that it is late. Each work holds the module.
 */
#include <linux/freezer.h>
#include <linux/hash.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pid_namespace.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "compat/task.h"
#include "suspend.h"
#include "trace.h"

#define VASI_SUSPEND_MAX_MS	60000

/* works that exist, for the module's exit */
static atomic_t vasi_nr_parks = ATOMIC_INIT(0);

static void suspension_put(struct vasi_suspension *susp)
{
	if (refcount_dec_and_test(&susp->ref))
		kfree(susp);
}

static void park_put(struct vasi_park *park)
{
	if (!refcount_dec_and_test(&park->ref))
		return;
	vasi_capture_free(&park->cap);
	suspension_put(park->susp);
	put_task_struct(park->task);
	kfree(park);
	if (atomic_dec_and_test(&vasi_nr_parks))
		wake_up_var(&vasi_nr_parks);
	module_put(THIS_MODULE);
}

static bool park_wanted(struct vasi_suspension *susp, u64 gen)
{
	return READ_ONCE(susp->active) && READ_ONCE(susp->gen) == gen;
}

/*
 * On its way out by a signal, or by an exec of another thread: the SIGKILL that
 * would wake it may have been taken already, so it must not wait.
 */
static bool is_killed(void)
{
	return READ_ONCE(current->signal->flags) & SIGNAL_GROUP_EXIT ||
	       READ_ONCE(current->signal->group_exec_task);
}

/* the task work, in the thread that is to be parked */
static void park_func(struct callback_head *work)
{
	struct vasi_park *park = container_of(work, struct vasi_park, work);
	struct vasi_suspension *susp = park->susp;
	bool fixup, wait = false;

	/* even when late: it was this work that interrupted the call */
	fixup = vasi_thread_fixup();

	/*
	 * A thread that exits must not be held up, it may be in the middle of
	 * giving things back. One that has another memory has called exec.
	 */
	if (!(current->flags & PF_EXITING) && !is_killed() &&
	    current->mm == susp->mm && park_wanted(susp, park->gen)) {
		if (!(current->flags & VASI_PF_WORKER))
			vasi_thread_capture(&park->cap);
		park->cap.fixup = fixup;

		spin_lock(&susp->lock);
		wait = park_wanted(susp, park->gen);
		if (wait) {
			park->state = VASI_PARK_PARKED;
			susp->nr_parked++;
		}
		spin_unlock(&susp->lock);
	}

	if (wait) {
		wake_up(&susp->progress);
		/* a fatal signal ends it early, the thread then exits */
		wait_event_state(susp->parked, !park_wanted(susp, park->gen),
				 (TASK_KILLABLE | TASK_FREEZABLE));
	}

	spin_lock(&susp->lock);
	if (wait && park_wanted(susp, park->gen))
		susp->nr_parked--;
	park->state = VASI_PARK_LEFT;
	spin_unlock(&susp->lock);
	park_put(park);
}

struct vasi_park *vasi_park_find(struct vasi_suspension *susp,
				 struct task_struct *task)
{
	struct vasi_park *park;

	hash_for_each_possible(susp->table, park, node, (unsigned long)task)
		if (park->task == task)
			return park;
	return NULL;
}

static struct vasi_park *park_new(struct vasi_suspension *susp)
{
	struct vasi_park *park = kzalloc(sizeof(*park), GFP_KERNEL_ACCOUNT);

	if (!park)
		return NULL;
	refcount_set(&park->ref, 2);
	refcount_inc(&susp->ref);
	park->susp = susp;
	init_task_work(&park->work, park_func);
	return park;
}

/*
 * Queue a work in each thread that has none. Allocates as many at a time as
 * the last look found missing, since the walk itself must not sleep.
 *
 * Returns the number of threads found, or -ENOMEM.
 */
static int queue_pass(struct vasi_stream *s, u32 pass)
{
	struct vasi_suspension *susp = s->suspension;
	struct vasi_park *park, *spare = NULL;
	struct task_struct *p, *t;
	int found = 0, missing, i;

	do {
		missing = 0;
		rcu_read_lock();
		for_each_process_thread(p, t) {
			if (READ_ONCE(t->mm) != s->mm || (t->flags & PF_KTHREAD))
				continue;
			/* only this function adds, under stream->lock */
			if (vasi_park_find(susp, t))
				continue;
			if (!spare) {
				missing++;
				continue;
			}
			park = spare;
			spare = (struct vasi_park *)park->work.next;
			get_task_struct(t);
			__module_get(THIS_MODULE);
			atomic_inc(&vasi_nr_parks);
			park->task = t;
			park->gen = susp->gen;
			park->pass = pass;
			spin_lock(&susp->lock);
			hash_add(susp->table, &park->node, (unsigned long)t);
			susp->nr_queued++;
			spin_unlock(&susp->lock);
			found++;
			/* past its last task work: it has no memory any more */
			if (task_work_add(t, &park->work, TWA_SIGNAL)) {
				park->state = VASI_PARK_LEFT;
				park_put(park);
			}
		}
		rcu_read_unlock();

		for (i = 0; i < missing; i++) {
			park = park_new(susp);
			if (!park) {
				found = -ENOMEM;
				break;
			}
			park->work.next = (struct callback_head *)spare;
			spare = park;
		}
	} while (missing && found >= 0 && !fatal_signal_pending(current));

	while (spare) {
		park = spare;
		spare = (struct vasi_park *)park->work.next;
		suspension_put(susp);
		kfree(park);
	}
	return found;
}

bool vasi_park_in_vfork(struct vasi_suspension *susp, struct task_struct *task)
{
	struct vasi_park *park;
	int i;

	hash_for_each(susp->table, i, park, node)
		if (park->state == VASI_PARK_PARKED &&
		    READ_ONCE(park->task->vfork_done) &&
		    rcu_access_pointer(park->task->real_parent) == task)
			return true;
	return false;
}

/*
 * Does @t stay where it is stopped? A traced one may be at the entry of a system
 * call, and runs all of it before it comes to its work: on the source, where
 * what it does then would be lost. On the target the tracer is the mover.
 */
static bool is_held(struct vasi_stream *s, struct task_struct *t, u32 flags)
{
	if (flags & VASI_SUSPEND_PARKED)
		return false;
	return task_is_stopped(t) ||
	       (s->service == VASI_SERVICE_TARGET && task_is_traced(t));
}

/* Why @t does not stop. RCU held. */
static u32 holdup(struct task_struct *t, bool late)
{
	struct task_struct *p;

	if (task_is_stopped_or_traced(t))
		return VASI_HOLDUP_STOPPED;
	for_each_process(p)
		if (READ_ONCE(p->vfork_done) &&
		    rcu_access_pointer(p->real_parent) == t)
			return VASI_HOLDUP_VFORK;
	if (READ_ONCE(t->__state) & TASK_UNINTERRUPTIBLE)
		return VASI_HOLDUP_UNINTERRUPTIBLE;
	return late ? VASI_HOLDUP_STORM : VASI_HOLDUP_RUNNING;
}

/*
 * Is every thread accounted for? Returns one that is not, referenced, or NULL
 * and the number of those that are stopped.
 */
static struct vasi_park *straggler(struct vasi_stream *s, u32 flags,
				   u32 *ret_threads)
{
	struct vasi_suspension *susp = s->suspension;
	struct vasi_park *park, *found = NULL;
	u32 threads = 0;
	int i;

	rcu_read_lock();
	spin_lock(&susp->lock);
	hash_for_each(susp->table, i, park, node) {
		struct task_struct *t = park->task;

		/*
		 * Gone only without its memory: an exiting thread still writes
		 * to its robust list and its thread ID.
		 */
		if (READ_ONCE(t->mm) != s->mm)
			continue;
		if (park->state == VASI_PARK_PARKED || is_held(s, t, flags) ||
		    vasi_park_in_vfork(susp, t)) {
			threads += !(t->flags & VASI_PF_WORKER);
			continue;
		}
		found = park;
		refcount_inc(&park->ref);
		break;
	}
	spin_unlock(&susp->lock);
	rcu_read_unlock();
	if (!found)
		*ret_threads = threads;
	return found;
}

static void name_culprit(struct vasi_park *park, struct vasi_suspend *cmd,
			 u32 pass, struct pid_namespace *ns)
{
	struct task_struct *t = park->task;
	/* found by this look or the one before: it had no time to stop */
	bool late = park->pass > 2 && park->pass + 1 >= pass;

	BUILD_BUG_ON(sizeof(cmd->out_comm) < TASK_COMM_LEN);
	rcu_read_lock();
	cmd->out_tid = task_pid_nr_ns(t, ns);
	cmd->out_reason = holdup(t, late);
	rcu_read_unlock();
	strscpy_pad((char *)cmd->out_comm, t->comm, sizeof(cmd->out_comm));
}

static bool all_parked(struct vasi_suspension *susp)
{
	return READ_ONCE(susp->nr_parked) >= READ_ONCE(susp->nr_queued);
}

/*
 * The threads are looked at before the processes are walked: a thread that
 * makes another and parks then is either seen before it has parked, or the walk
 * comes after and finds what it made. So all is quiet when first no thread is
 * missing and then none is found.
 */
static int park_all(struct vasi_stream *s, struct vasi_suspend *cmd,
		    struct pid_namespace *ns, u32 *ret_passes)
{
	struct vasi_suspension *susp = s->suspension;
	ktime_t end = ktime_add_ms(ktime_get(), cmd->deadline_ms);
	struct vasi_park *late;
	u32 pass, threads;
	int found;

	for (pass = 1;; pass++) {
		*ret_passes = pass;
		late = straggler(s, cmd->flags, &threads);
		found = queue_pass(s, pass);
		/* the walk is cut short by it, and may have missed threads */
		if (found >= 0 && fatal_signal_pending(current))
			found = -EINTR;
		if (found < 0) {
			if (late)
				park_put(late);
			return found;
		}
		if (!late && !found) {
			cmd->out_threads = threads;
			return threads ? 0 : -ESRCH;
		}
		if (ktime_after(ktime_get(), end)) {
			if (!late)
				late = straggler(s, cmd->flags, &threads);
			if (late) {
				name_culprit(late, cmd, pass, ns);
				park_put(late);
			} else {
				cmd->out_reason = VASI_HOLDUP_STORM;
			}
			return -ETIMEDOUT;
		}
		if (late)
			park_put(late);
		/* who stops otherwise than by parking does not tell: look */
		wait_event_killable_timeout(susp->progress, all_parked(susp), 1);
	}
}

static struct vasi_suspension *suspension_new(struct mm_struct *mm)
{
	struct vasi_suspension *susp = kzalloc(sizeof(*susp),
					       GFP_KERNEL_ACCOUNT);

	if (!susp)
		return NULL;
	refcount_set(&susp->ref, 1);
	susp->mm = mm;
	spin_lock_init(&susp->lock);
	init_waitqueue_head(&susp->progress);
	init_waitqueue_head(&susp->parked);
	hash_init(susp->table);
	return susp;
}

bool vasi_is_suspended(struct vasi_stream *s)
{
	lockdep_assert_held(&s->lock);
	return s->suspension && s->suspension->active;
}

u64 vasi_suspended_ns(struct vasi_stream *s)
{
	/* of one that is published, the lock is initialised */
	struct vasi_suspension *susp = smp_load_acquire(&s->suspension);
	u64 ns = 0;

	if (!susp)
		return 0;
	spin_lock(&susp->lock);
	if (susp->active)
		ns = ktime_to_ns(ktime_sub(ktime_get(), susp->since)) ?: 1;
	spin_unlock(&susp->lock);
	return ns;
}

u32 vasi_suspended_threads(struct vasi_stream *s)
{
	/* as above */
	struct vasi_suspension *susp = smp_load_acquire(&s->suspension);

	return susp ? READ_ONCE(susp->threads) : 0;
}

void vasi_resume_guest(struct vasi_stream *s)
{
	struct vasi_suspension *susp = s->suspension;
	struct vasi_park *park;
	struct hlist_node *tmp;
	HLIST_HEAD(done);
	u64 ns;
	int i;

	if (!vasi_is_suspended(s))
		return;
	ns = vasi_suspended_ns(s);
	spin_lock(&susp->lock);
	WRITE_ONCE(susp->active, false);
	susp->nr_queued = 0;
	susp->nr_parked = 0;
	hash_for_each_safe(susp->table, i, tmp, park, node) {
		hash_del(&park->node);
		hlist_add_head(&park->node, &done);
	}
	spin_unlock(&susp->lock);
	wake_up_all(&susp->parked);

	hlist_for_each_entry_safe(park, tmp, &done, node)
		park_put(park);
	trace_vasi_resume(s->id, ns);
}

void vasi_suspension_free(struct vasi_stream *s)
{
	if (s->suspension)
		suspension_put(s->suspension);
	s->suspension = NULL;
}

int vasi_suspend_stream(struct vasi_stream *s, struct vasi_suspend *cmd,
			struct pid_namespace *ns)
{
	struct vasi_suspension *susp;
	ktime_t start = ktime_get();
	bool again = vasi_is_suspended(s);
	u32 passes = 0;
	int ret;

	if (cmd->flags & ~VASI_SUSPEND_PARKED || cmd->__reserved)
		return -EOPNOTSUPP;
	if (!cmd->deadline_ms || cmd->deadline_ms > VASI_SUSPEND_MAX_MS)
		return -EINVAL;
	if (!again) {
		ret = vasi_fsm_check(s->service, s->state,
				     VASI_STATE_SUSPENDING);
		if (ret)
			return ret;
	}
	susp = s->suspension;
	if (!susp) {
		susp = suspension_new(s->mm);
		if (!susp)
			return -ENOMEM;
		/* for those who look without stream->lock */
		smp_store_release(&s->suspension, susp);
	}

	cmd->out_tid = 0;
	cmd->out_reason = VASI_HOLDUP_NONE;
	memset(cmd->out_comm, 0, sizeof(cmd->out_comm));
	if (!again) {
		vasi_set_state(s, VASI_STATE_SUSPENDING, 0);
		spin_lock(&susp->lock);
		susp->gen++;
		susp->since = start;
		WRITE_ONCE(susp->active, true);
		spin_unlock(&susp->lock);
	}

	ret = park_all(s, cmd, ns, &passes);
	cmd->out_ns = ktime_to_ns(ktime_sub(ktime_get(), start));
	trace_vasi_suspend(s->id, ret ? 0 : cmd->out_threads, passes,
			   cmd->out_ns, ret, cmd->out_tid);
	if (ret == -ETIMEDOUT)
		vasi_count(s, VASI_COUNT_SUSPEND_FAILS, 1);
	if (ret) {
		/* one that was suspended before stays so: it may be sealed */
		if (!again) {
			vasi_resume_guest(s);
			vasi_set_state(s, VASI_STATE_ENABLED, 0);
		}
		return ret;
	}

	WRITE_ONCE(susp->threads, cmd->out_threads);
	if (!again) {
		vasi_set_state(s, VASI_STATE_SUSPENDED, 0);
		vasi_count(s, VASI_COUNT_SUSPENDS, 1);
		vasi_count(s, VASI_COUNT_SUSPEND_NS, cmd->out_ns);
	}
	return 0;
}

int vasi_suspend(struct vasi_open *o, void *arg)
{
	struct vasi_suspend *cmd = arg;
	struct vasi_stream *s = vasi_open_stream(o);
	struct mm_struct *mm = vasi_stream_mm(s);
	int ret;

	if (IS_ERR(mm))
		return PTR_ERR(mm);
	ret = mutex_lock_killable(&s->lock);
	if (!ret) {
		ret = vasi_suspend_stream(s, cmd, task_active_pid_ns(current));
		mutex_unlock(&s->lock);
	}
	mmput(mm);
	return ret;
}

int vasi_resume(struct vasi_open *o, void *arg)
{
	struct vasi_resume *cmd = arg;
	struct vasi_stream *s = vasi_open_stream(o);
	u32 to = s->service == VASI_SERVICE_SOURCE ? VASI_STATE_ENABLED :
						     VASI_STATE_RESUMED;
	int ret;

	ret = mutex_lock_killable(&s->lock);
	if (ret)
		return ret;
	/* a source whose target runs must not run as well */
	if (!vasi_is_suspended(s) ||
	    (s->sealed && !(cmd->flags & VASI_RESUME_UNSEAL)) ||
	    (s->state != VASI_STATE_ABORTED &&
	     vasi_fsm_check(s->service, s->state, to))) {
		mutex_unlock(&s->lock);
		return -EBUSY;
	}
	vasi_resume_guest(s);
	vasi_unseal(s);
	if (s->state != VASI_STATE_ABORTED)
		vasi_set_state(s, to, 0);
	mutex_unlock(&s->lock);
	return 0;
}

int vasi_suspend_init(void)
{
	return 0;
}

void vasi_suspend_exit(void)
{
	/*
	 * Each work holds the module, so what may be left is the tail of the
	 * last one behind its module_put(): main.c waits for RCU tasks.
	 */
	wait_var_event(&vasi_nr_parks, !atomic_read(&vasi_nr_parks));
}
