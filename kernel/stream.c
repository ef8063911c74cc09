// SPDX-License-Identifier: GPL-2.0
/*
 * Streams: attach, lifetime, listing, seal, signals
 *
 * A stream is in the list from its attach until its last open is closed or,
 * when it is sealed then, until it is unsealed and closed, or destroyed. What
 * can sleep for long (suspend, destroy) holds stream->lock at most, so the
 * list can always be read.
 */
#include <linux/capability.h>
#include <linux/module.h>
#include <linux/pid_namespace.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "trace.h"
#include "vasi_private.h"

static DEFINE_MUTEX(vasi_streams_lock);
static LIST_HEAD(vasi_stream_list);
static unsigned int vasi_nr_streams;
static struct workqueue_struct *vasi_wq;

struct vasi_stream *vasi_stream_get(struct vasi_stream *s)
{
	kref_get(&s->ref);
	return s;
}

static void vasi_stream_free(struct kref *ref)
{
	struct vasi_stream *s = container_of(ref, struct vasi_stream, ref);

	vasi_suspension_free(s);
	xa_destroy(&s->objects);
	mutex_destroy(&s->lock);
	put_pid(s->pid);
	mmdrop(s->mm);
	kfree_rcu(s, rcu);
}

void vasi_stream_put(struct vasi_stream *s)
{
	kref_put(&s->ref, vasi_stream_free);
}

static void vasi_event(struct vasi_stream *s)
{
	lockdep_assert_held(&s->event_lock);
	s->event_seq++;
	wake_up_all(&s->wait);
}

int vasi_set_state(struct vasi_stream *s, u32 to, u32 reason)
{
	u32 from = s->state;
	int ret;

	lockdep_assert_held(&s->lock);
	ret = vasi_fsm_check(s->service, from, to);
	if (ret)
		return ret;
	spin_lock(&s->event_lock);
	WRITE_ONCE(s->state, to);
	if (to == VASI_STATE_ABORTED)
		WRITE_ONCE(s->reason, reason);
	vasi_event(s);
	spin_unlock(&s->event_lock);

	trace_vasi_state(s->id, s->service, from, to);
	if (to == VASI_STATE_ABORTED)
		trace_vasi_abort(s->id, s->service, reason);
	vasi_genl_notify(s);
	return 0;
}

/*
 * A thread of the guest that has a memory, whatever memory that is. The thread
 * that leads may be dead while others live. RCU held.
 */
static struct task_struct *vasi_guest_thread(struct pid *pid)
{
	struct task_struct *leader = pid_task(pid, PIDTYPE_TGID);
	struct task_struct *t;

	if (!leader)
		return NULL;
	for_each_thread(leader, t)
		if (READ_ONCE(t->mm) && !(t->flags & PF_KTHREAD))
			return t;
	return NULL;
}

static bool vasi_guest_execed(struct vasi_stream *s)
{
	struct task_struct *t;
	bool execed;

	rcu_read_lock();
	t = vasi_guest_thread(s->pid);
	execed = t && !(t->flags & PF_EXITING) && READ_ONCE(t->mm) != s->mm;
	rcu_read_unlock();
	return execed;
}

int vasi_stream_check(struct vasi_stream *s)
{
	if (READ_ONCE(s->execed))
		return -ECANCELED;
	if (READ_ONCE(s->dead))
		return -ESRCH;
	if (READ_ONCE(s->state) == VASI_STATE_ABORTED)
		return -ECANCELED;
	return 0;
}

struct mm_struct *vasi_stream_mm(struct vasi_stream *s)
{
	int ret = vasi_stream_check(s);

	if (ret)
		return ERR_PTR(ret);
	/* an exec may leave the memory to a vforked child that shares it */
	if (vasi_guest_execed(s)) {
		vasi_stream_guest_gone(s);
		return ERR_PTR(-ECANCELED);
	}
	if (!mmget_not_zero(s->mm))
		return ERR_PTR(-ESRCH);
	return s->mm;
}

/* What the notifier could not do: it must not wait for stream->lock. */
static void vasi_gone_work(struct work_struct *work)
{
	struct vasi_stream *s = container_of(work, struct vasi_stream,
					     gone_work);

	mutex_lock(&s->lock);
	/* a destroy in progress knows better what this end means */
	if (!s->destroying)
		vasi_set_state(s, VASI_STATE_ABORTED, VASI_ENTITY_GUEST << 24);
	vasi_resume_guest(s);
	mutex_unlock(&s->lock);
	vasi_track_stop(s);
	vasi_stream_put(s);
}

void vasi_stream_guest_gone(struct vasi_stream *s)
{
	bool first;

	if (vasi_guest_execed(s))
		WRITE_ONCE(s->execed, true);
	spin_lock(&s->event_lock);
	first = !s->dead;
	WRITE_ONCE(s->dead, true);
	vasi_event(s);
	spin_unlock(&s->event_lock);
	if (first) {
		vasi_stream_get(s);
		queue_work(vasi_wq, &s->gone_work);
	}
}

static struct vasi_stream *vasi_stream_find(u64 id, u32 service)
{
	struct vasi_stream *s;

	lockdep_assert_held(&vasi_streams_lock);
	list_for_each_entry(s, &vasi_stream_list, link)
		if (s->id == id && s->service == service)
			return s;
	return NULL;
}

int vasi_visit_streams(int (*fn)(struct vasi_stream *s, void *arg), void *arg)
{
	struct vasi_stream *s;
	int ret = 0;

	mutex_lock(&vasi_streams_lock);
	list_for_each_entry(s, &vasi_stream_list, link) {
		ret = fn(s, arg);
		if (ret)
			break;
	}
	mutex_unlock(&vasi_streams_lock);
	return ret;
}

/* referenced mm and pid of the process to be attached */
static int vasi_find_guest(pid_t nr, struct mm_struct **ret_mm,
			   struct pid **ret_pid)
{
	struct pid *pid = find_get_pid(nr);
	struct task_struct *leader, *t;
	struct mm_struct *mm;
	int ret = -ESRCH;

	if (!pid)
		return -ESRCH;
	rcu_read_lock();
	leader = pid_task(pid, PIDTYPE_TGID);
	if (!leader) {
		rcu_read_unlock();
		goto out_pid;
	}
	if (leader->flags & PF_KTHREAD || same_thread_group(leader, current) ||
	    is_child_reaper(pid)) {
		rcu_read_unlock();
		ret = -EINVAL;
		goto out_pid;
	}
	t = vasi_guest_thread(pid);
	if (t)
		get_task_struct(t);
	rcu_read_unlock();
	if (!t)
		goto out_pid;
	mm = get_task_mm(t);
	put_task_struct(t);
	if (!mm)
		goto out_pid;

	ret = -EINVAL;
	if (mm == current->mm)
		goto out_mm;
	ret = -EPERM;
	if (!ns_capable(mm->user_ns, CAP_SYS_PTRACE))
		goto out_mm;
	*ret_mm = mm;
	*ret_pid = pid;
	return 0;

out_mm:
	mmput(mm);
out_pid:
	put_pid(pid);
	return ret;
}

/* takes over the reference of @pid, not the one of @mm */
static struct vasi_stream *vasi_stream_alloc(u64 id, u32 service,
					     struct mm_struct *mm,
					     struct pid *pid)
{
	struct vasi_stream *s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);

	if (!s)
		return NULL;
	kref_init(&s->ref);
	INIT_LIST_HEAD(&s->link);
	s->id = id;
	s->service = service;
	mmgrab(mm);
	s->mm = mm;
	s->pid = pid;
	mutex_init(&s->lock);
	xa_init(&s->objects);
	spin_lock_init(&s->event_lock);
	init_waitqueue_head(&s->wait);
	INIT_WORK(&s->gone_work, vasi_gone_work);
	s->nr_opens = 1;
	return s;
}

static int vasi_stream_publish(struct vasi_stream *s)
{
	struct vasi_stream *other;
	int ret = 0;

	if (mutex_lock_killable(&vasi_streams_lock))
		return -EINTR;
	list_for_each_entry(other, &vasi_stream_list, link) {
		if (other->id == s->id && other->service == s->service)
			ret = -EEXIST;
		else if (!ret && other->mm == s->mm && !READ_ONCE(other->dead))
			ret = -EBUSY;
	}
	if (!ret && vasi_nr_streams >= VASI_MAX_STREAMS)
		ret = -ENOSPC;
	if (!ret) {
		list_add_tail(&s->link, &vasi_stream_list);
		vasi_nr_streams++;
	}
	mutex_unlock(&vasi_streams_lock);
	return ret;
}

static int vasi_attach_new(struct vasi_open *o, struct vasi_attach *a)
{
	struct vasi_stream *s;
	struct mm_struct *mm;
	struct pid *pid;
	int ret;

	if (a->pid <= 0)
		return -EINVAL;
	ret = vasi_find_guest(a->pid, &mm, &pid);
	if (ret)
		return ret;
	s = vasi_stream_alloc(a->stream_id, a->service, mm, pid);
	if (!s) {
		put_pid(pid);
		mmput(mm);
		return -ENOMEM;
	}
	ret = vasi_notifier_register(s);
	if (ret)
		goto out_put;
	ret = vasi_stream_publish(s);
	if (ret)
		goto out_notifier;

	mutex_lock(&s->lock);
	vasi_set_state(s, VASI_STATE_ENABLED, 0);
	mutex_unlock(&s->lock);
	o->event_seen = s->event_seq;
	a->out_pid = pid_vnr(pid);
	/* pairs with vasi_open_stream(): what is found is complete */
	smp_store_release(&o->stream, s);
	mmput(mm);
	return 0;

out_notifier:
	vasi_notifier_unregister(s);
out_put:
	mmput(mm);
	vasi_stream_put(s);
	return ret;
}

/* a referenced stream by its ID, which the caller may handle */
static struct vasi_stream *vasi_stream_lookup(u64 id, u32 service)
{
	struct vasi_stream *s;

	if (mutex_lock_killable(&vasi_streams_lock))
		return ERR_PTR(-EINTR);
	s = vasi_stream_find(id, service);
	if (!s)
		s = ERR_PTR(-ENOENT);
	else if (!ns_capable(s->mm->user_ns, CAP_SYS_PTRACE))
		s = ERR_PTR(-EPERM);
	else
		vasi_stream_get(s);
	mutex_unlock(&vasi_streams_lock);
	return s;
}

static int vasi_attach_old(struct vasi_open *o, struct vasi_attach *a)
{
	struct vasi_stream *s;
	int ret = 0;

	if (a->pid)
		return -EINVAL;
	s = vasi_stream_lookup(a->stream_id, a->service);
	if (IS_ERR(s))
		return PTR_ERR(s);
	if (mutex_lock_killable(&s->lock)) {
		vasi_stream_put(s);
		return -EINTR;
	}
	if (s->mm == current->mm || s->pid == task_tgid(current))
		ret = -EINVAL;
	else if (s->ended)
		ret = -ENOENT;
	else if (a->flags & VASI_ATTACH_SEALED && (!s->sealed || s->nr_opens))
		ret = -EBUSY;
	else if (a->flags & VASI_ATTACH_JOIN && !s->nr_opens)
		ret = -EBUSY;
	else if (a->flags & VASI_ATTACH_JOIN)
		ret = vasi_stream_check(s);
	if (!ret && s->nr_opens >= VASI_MAX_OPENS)
		ret = -ENOSPC;
	if (!ret) {
		WRITE_ONCE(s->nr_opens, s->nr_opens + 1);
		o->event_seen = READ_ONCE(s->event_seq);
		a->out_pid = pid_vnr(s->pid);
		/* pairs with vasi_open_stream() */
		smp_store_release(&o->stream, s);
	}
	mutex_unlock(&s->lock);
	if (ret)
		vasi_stream_put(s);
	return ret;
}

int vasi_attach(struct vasi_open *o, void *cmd)
{
	struct vasi_attach *a = cmd;
	int ret;

	if (a->__reserved)
		return -EOPNOTSUPP;
	if (a->flags == (VASI_ATTACH_JOIN | VASI_ATTACH_SEALED))
		return -EINVAL;
	if (a->service != VASI_SERVICE_SOURCE &&
	    a->service != VASI_SERVICE_TARGET)
		return -EOPNOTSUPP;
	if (!a->stream_id)
		return -EINVAL;
	if (mutex_lock_killable(&o->lock))
		return -EINTR;
	if (o->stream)
		ret = -EISCONN;
	else if (a->flags)
		ret = vasi_attach_old(o, a);
	else
		ret = vasi_attach_new(o, a);
	mutex_unlock(&o->lock);
	return ret;
}

/* The last user that can find the stream has gone: @s->ended is set. */
static void vasi_stream_end(struct vasi_stream *s)
{
	vasi_track_stop(s);
	vasi_objects_drop(s);
	vasi_notifier_unregister(s);
	mutex_lock(&vasi_streams_lock);
	list_del_init(&s->link);
	vasi_nr_streams--;
	mutex_unlock(&vasi_streams_lock);
}

void vasi_detach(struct vasi_open *o)
{
	struct vasi_stream *s = o->stream;
	bool last;

	if (!s)
		return;
	mutex_lock(&s->lock);
	WRITE_ONCE(s->nr_opens, s->nr_opens - 1);
	last = !s->nr_opens && !s->sealed;
	if (last) {
		u32 entity = s->service == VASI_SERVICE_SOURCE ?
			     VASI_ENTITY_SOURCE_MOVER :
			     VASI_ENTITY_TARGET_MOVER;

		s->ended = true;
		vasi_resume_guest(s);
		/* refused by the states that are final already */
		vasi_set_state(s, VASI_STATE_ABORTED, entity << 24);
	}
	mutex_unlock(&s->lock);
	if (last)
		vasi_stream_end(s);
	vasi_stream_put(s);
}

int vasi_seal(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	int ret;

	if (mutex_lock_killable(&s->lock))
		return -EINTR;
	ret = vasi_stream_check(s);
	if (!ret && !vasi_is_suspended(s))
		ret = -EBUSY;
	if (!ret && !s->sealed) {
		vasi_stream_get(s);
		__module_get(THIS_MODULE);
		WRITE_ONCE(s->sealed, true);
	}
	mutex_unlock(&s->lock);
	return ret;
}

void vasi_unseal(struct vasi_stream *s)
{
	lockdep_assert_held(&s->lock);
	if (!s->sealed)
		return;
	WRITE_ONCE(s->sealed, false);
	/* the caller has one more of each */
	vasi_stream_put(s);
	module_put(THIS_MODULE);
}

/* stream->lock is not needed: what is read is told, not acted upon */
void vasi_fill_info(struct vasi_stream *s, struct vasi_stream_info *info)
{
	memset(info, 0, sizeof(*info));
	info->stream_id = s->id;
	info->service = s->service;
	spin_lock(&s->event_lock);
	info->state = s->state;
	info->reason = s->reason;
	spin_unlock(&s->event_lock);
	info->suspended_ns = vasi_suspended_ns(s);
	if (READ_ONCE(s->sealed))
		info->flags |= VASI_STREAM_SEALED;
	if (info->suspended_ns)
		info->flags |= VASI_STREAM_SUSPENDED;
	if (rcu_access_pointer(s->tracker))
		info->flags |= VASI_STREAM_TRACKED;
	if (READ_ONCE(s->dead))
		info->flags |= VASI_STREAM_DEAD;
	info->pid = pid_vnr(s->pid);
	info->opens = READ_ONCE(s->nr_opens);
	info->threads = vasi_suspended_threads(s);
	info->bytes_left = READ_ONCE(s->bytes_left);
}

struct vasi_listing {
	struct vasi_stream_info *vec;
	u32 len;
	u32 count;
	bool sealed;
};

static int vasi_list_one(struct vasi_stream *s, void *arg)
{
	struct vasi_listing *l = arg;

	if (l->sealed && !READ_ONCE(s->sealed))
		return 0;
	if (!ns_capable(s->mm->user_ns, CAP_SYS_PTRACE))
		return 0;
	if (l->count < l->len)
		vasi_fill_info(s, &l->vec[l->count]);
	l->count++;
	return 0;
}

int vasi_streams(struct vasi_open *o, void *cmd)
{
	struct vasi_streams *c = cmd;
	struct vasi_listing l = {
		.len = min_t(u32, c->vec_len, VASI_MAX_STREAMS),
		.sealed = c->flags & VASI_STREAMS_SEALED,
	};
	int ret = 0;

	if (!capable(CAP_SYS_PTRACE) &&
	    !ns_capable(current_user_ns(), CAP_SYS_PTRACE))
		return -EPERM;
	if (l.len) {
		l.vec = kcalloc(l.len, sizeof(*l.vec), GFP_KERNEL_ACCOUNT);
		if (!l.vec)
			return -ENOMEM;
	}
	vasi_visit_streams(vasi_list_one, &l);
	c->out_count = l.count;
	if (l.count > l.len)
		ret = -EMSGSIZE;
	else if (copy_to_user(u64_to_user_ptr(c->vec), l.vec,
			      array_size(l.count, sizeof(*l.vec))))
		ret = -EFAULT;
	kfree(l.vec);
	return ret;
}

static int vasi_stream_signal(struct vasi_stream *s, struct vasi_signal *c)
{
	int ret;

	switch (c->code) {
	case VASI_SIGNAL_CANCEL:
		if (s->state != VASI_STATE_ENABLED)
			return -EBUSY;
		return vasi_set_state(s, VASI_STATE_ABORTED, c->reason);
	case VASI_SIGNAL_ABORT:
		/* a sealed guest is ended by unseal or destroy alone */
		if (s->sealed)
			return -EBUSY;
		ret = vasi_set_state(s, VASI_STATE_ABORTED, c->reason);
		if (!ret)
			vasi_resume_guest(s);
		return ret;
	case VASI_SIGNAL_FAILOVER:
		ret = vasi_stream_check(s);
		if (ret || s->state == VASI_STATE_COMPLETED)
			return ret ?: -EBUSY;
		spin_lock(&s->event_lock);
		vasi_event(s);
		spin_unlock(&s->event_lock);
		vasi_genl_notify(s);
		return 0;
	case VASI_SIGNAL_RESUMED:
		/* unsealed, a close would make this copy run too */
		if (s->service != VASI_SERVICE_SOURCE || !s->sealed)
			return -EBUSY;
		return vasi_set_state(s, VASI_STATE_RESUMED, 0);
	case VASI_SIGNAL_COMPLETE:
		if (s->service != VASI_SERVICE_TARGET)
			return -EBUSY;
		return vasi_set_state(s, VASI_STATE_COMPLETED, 0);
	default:
		return -EOPNOTSUPP;
	}
}

int vasi_signal(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	struct vasi_signal *c = cmd;
	int ret;

	if (c->reason >> 24 > VASI_ENTITY_GUEST)
		return -EOPNOTSUPP;
	if (mutex_lock_killable(&s->lock))
		return -EINTR;
	ret = vasi_stream_signal(s, c);
	mutex_unlock(&s->lock);
	if (!ret && READ_ONCE(s->state) == VASI_STATE_ABORTED)
		vasi_track_stop(s);
	return ret;
}

int vasi_info(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *s = o->stream;
	struct vasi_info *c = cmd;
	int i;

	spin_lock(&s->event_lock);
	o->event_seen = s->event_seq;
	spin_unlock(&s->event_lock);
	vasi_fill_info(s, &c->out_stream);
	for (i = 0; i < VASI_COUNT_MAX; i++)
		c->out_count[i] = atomic64_read(&s->count[i]);
	return 0;
}

int vasi_progress(struct vasi_open *o, void *cmd)
{
	struct vasi_progress *c = cmd;

	WRITE_ONCE(o->stream->bytes_left, c->bytes_left);
	return 0;
}

static void vasi_kill_sharers(struct mm_struct *mm)
{
	struct task_struct *p, *t;

	rcu_read_lock();
	for_each_process(p) {
		if (p->flags & PF_KTHREAD)
			continue;
		for_each_thread(p, t) {
			if (READ_ONCE(t->mm) == mm) {
				kill_pid(task_tgid(p), SIGKILL, 1);
				break;
			}
			if (READ_ONCE(t->mm))
				break;
		}
	}
	rcu_read_unlock();
}

/*
 * All of it: the release of the memory starts before its pages are freed.
 * Threads that a tracer has not waited for stay in the group, but have ended.
 */
static bool vasi_guest_ended(struct vasi_stream *s)
{
	struct task_struct *leader, *t;
	bool ended = true;

	if (!READ_ONCE(s->dead))
		return false;
	if (READ_ONCE(s->execed))
		return true;
	rcu_read_lock();
	leader = pid_task(s->pid, PIDTYPE_TGID);
	if (leader)
		for_each_thread(leader, t)
			ended &= !!READ_ONCE(t->exit_state);
	rcu_read_unlock();
	return ended;
}

static int vasi_wait_ended(struct vasi_stream *s, u32 deadline_ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(deadline_ms);

	/* after an exec others may have the memory still */
	vasi_kill_sharers(s->mm);
	while (!vasi_guest_ended(s)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, end))
			return -ETIMEDOUT;
		/* nothing tells when a process has become a zombie */
		schedule_timeout_killable(1);
		vasi_kill_sharers(s->mm);
	}
	return 0;
}

/* @mine: an open of the caller is attached, so the stream stays */
static int vasi_stream_destroy(struct vasi_stream *s, u32 deadline_ms, bool mine)
{
	bool last;
	int ret = 0;

	if (mutex_lock_killable(&s->lock))
		return -EINTR;
	if (s->ended)
		ret = -ENOENT;
	else if (!mine && !s->sealed)
		ret = -EBUSY;
	else if (!s->dead && !vasi_is_suspended(s))
		ret = -EBUSY;
	if (!ret)
		s->destroying = true;
	mutex_unlock(&s->lock);
	if (ret)
		return ret;

	ret = vasi_wait_ended(s, deadline_ms);
	mutex_lock(&s->lock);
	if (ret) {
		/* an end that comes now is the guest's own */
		s->destroying = false;
		mutex_unlock(&s->lock);
		return ret;
	}
	if (s->ended) {
		/* another destroy or the last close was faster */
		mutex_unlock(&s->lock);
		return 0;
	}
	if (s->state == VASI_STATE_RESUMED && s->service == VASI_SERVICE_SOURCE)
		vasi_set_state(s, VASI_STATE_COMPLETED, 0);
	else
		vasi_set_state(s, VASI_STATE_ABORTED,
			       VASI_ENTITY_ORCHESTRATOR << 24);
	vasi_resume_guest(s);
	vasi_unseal(s);
	last = !s->nr_opens;
	s->ended = last;
	mutex_unlock(&s->lock);
	if (last)
		vasi_stream_end(s);
	else
		vasi_track_stop(s);
	return 0;
}

int vasi_destroy(struct vasi_open *o, void *cmd)
{
	struct vasi_stream *mine = vasi_open_stream(o), *s;
	struct vasi_destroy *c = cmd;
	int ret;

	if (c->service != VASI_SERVICE_SOURCE &&
	    c->service != VASI_SERVICE_TARGET)
		return -EOPNOTSUPP;
	if (c->deadline_ms < 1 || c->deadline_ms > 60000)
		return -EINVAL;
	s = vasi_stream_lookup(c->stream_id, c->service);
	if (IS_ERR(s))
		return PTR_ERR(s);
	ret = vasi_stream_destroy(s, c->deadline_ms, s == mine);
	vasi_stream_put(s);
	return ret;
}

int vasi_stream_init(void)
{
	vasi_wq = alloc_workqueue("vasi", WQ_UNBOUND, 0);
	return vasi_wq ? 0 : -ENOMEM;
}

void vasi_stream_exit(void)
{
	destroy_workqueue(vasi_wq);
}
