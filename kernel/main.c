// SPDX-License-Identifier: GPL-2.0
/*
 * The misc device and the command table
 *
 * Every command is a structure that starts with its size and its flags; what
 * is common to all (size, tail, flags, attachment, copy-out) is done here, from
 * one table, so that no handler can forget it.
 */
#include <linux/elf.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/regset.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/fpu/xcr.h>

#include "vasi_private.h"

union vasi_command {
	struct {
		u32 size;
		u32 flags;
	} head;
	struct vasi_query query;
	struct vasi_attach attach;
	struct vasi_track track;
	struct vasi_harvest harvest;
	struct vasi_mark mark;
	struct vasi_objects objects;
	struct vasi_pages pages;
	struct vasi_suspend suspend;
	struct vasi_resume resume;
	struct vasi_state state;
	struct vasi_seal seal;
	struct vasi_streams streams;
	struct vasi_destroy destroy;
	struct vasi_signal signal;
	struct vasi_info info;
	struct vasi_progress progress;
	struct vasi_mappings mappings;
};

/**
 * struct vasi_op - one row of the command table
 * @cmd: full number
 * @min: end of the last member of the first published version
 * @size: bytes known to this module
 * @flags: flags known to this module
 * @loose: works without a stream
 * @fn: does it; the stream of an attached open stays while it runs
 * @undo: takes @fn back when its outputs could not be copied to the caller
 */
struct vasi_op {
	unsigned int cmd;
	u32 min;
	u32 size;
	u32 flags;
	bool loose;
	int (*fn)(struct vasi_open *o, void *cmd);
	void (*undo)(struct vasi_open *o, void *cmd);
};

static u32 vasi_xstate_size(void)
{
	const struct user_regset_view *view = task_user_regset_view(current);
	unsigned int i;

	for (i = 0; i < view->n; i++)
		if (view->regsets[i].core_note_type == NT_X86_XSTATE)
			return view->regsets[i].n * view->regsets[i].size;
	return 0;
}

#ifdef VASI_TEST
static int test_abi = VASI_ABI_VERSION;
module_param(test_abi, int, 0600);
#endif

static int vasi_query(struct vasi_open *o, void *cmd)
{
	struct vasi_query *q = cmd;

	q->out_abi = VASI_ABI_VERSION;
#ifdef VASI_TEST
	q->out_abi = test_abi;
#endif
	q->out_page_size = PAGE_SIZE;
	q->out_features = VASI_FEATURE_DBIT | VASI_FEATURE_OBJECTS |
			  VASI_FEATURE_SUSPEND | VASI_FEATURE_SEAL |
			  VASI_FEATURE_URING | VASI_FEATURE_GENL |
			  VASI_FEATURE_MAPPINGS;
	q->out_max_streams = VASI_MAX_STREAMS;
	q->out_max_opens = VASI_MAX_OPENS;
	q->out_max_vec = VASI_MAX_VEC;
	q->out_max_batch = VASI_MAX_BATCH;
	q->out_xfeatures = cpu_feature_enabled(X86_FEATURE_OSXSAVE) ?
			   xgetbv(XCR_XFEATURE_ENABLED_MASK) : 0;
	q->out_xstate_size = vasi_xstate_size();
	q->__reserved = 0;
	return 0;
}

#define VASI_OP(_cmd, _fn, _struct, _last, ...)				\
	[_IOC_NR(_cmd)] = {						\
		.cmd = _cmd,						\
		.min = offsetofend(_struct, _last),			\
		.size = sizeof(_struct),				\
		.fn = _fn,						\
		__VA_ARGS__						\
	}

static const struct vasi_op vasi_ops[VASI_CMD_END] = {
	VASI_OP(VASI_QUERY, vasi_query, struct vasi_query, __reserved,
		.loose = true),
	VASI_OP(VASI_ATTACH, vasi_attach, struct vasi_attach, __reserved,
		.loose = true,
		.flags = VASI_ATTACH_JOIN | VASI_ATTACH_SEALED),
	VASI_OP(VASI_TRACK, vasi_track, struct vasi_track, tracker),
	VASI_OP(VASI_HARVEST, vasi_harvest, struct vasi_harvest, out_flushes,
		.undo = vasi_harvest_undo),
	VASI_OP(VASI_MARK, vasi_mark, struct vasi_mark, out_count),
	VASI_OP(VASI_OBJECTS, vasi_objects, struct vasi_objects, out_count),
	VASI_OP(VASI_PAGES_READ, vasi_pages_read, struct vasi_pages, out_bytes),
	VASI_OP(VASI_PAGES_WRITE, vasi_pages_write, struct vasi_pages,
		out_bytes),
	VASI_OP(VASI_SUSPEND, vasi_suspend, struct vasi_suspend, __reserved,
		.flags = VASI_SUSPEND_PARKED),
	VASI_OP(VASI_RESUME, vasi_resume, struct vasi_resume, flags,
		.flags = VASI_RESUME_UNSEAL),
	VASI_OP(VASI_STATE, vasi_state, struct vasi_state, out_len),
	VASI_OP(VASI_SEAL, vasi_seal, struct vasi_seal, flags),
	VASI_OP(VASI_STREAMS, vasi_streams, struct vasi_streams, out_count,
		.loose = true, .flags = VASI_STREAMS_SEALED),
	VASI_OP(VASI_DESTROY, vasi_destroy, struct vasi_destroy, deadline_ms,
		.loose = true),
	VASI_OP(VASI_SIGNAL, vasi_signal, struct vasi_signal, reason),
	VASI_OP(VASI_INFO, vasi_info, struct vasi_info, out_count),
	VASI_OP(VASI_PROGRESS, vasi_progress, struct vasi_progress, bytes_left),
	VASI_OP(VASI_MAPPINGS, vasi_mappings, struct vasi_mappings, out_count),
};

/* outputs are written on success and with the errors that are said to */
static bool vasi_copies_out(int ret)
{
	return ret >= 0 || ret == -EMSGSIZE || ret == -ETIMEDOUT;
}

static int vasi_run(struct vasi_open *o, const struct vasi_op *op,
		    void __user *arg)
{
	union vasi_command buf;
	u32 size;
	int ret;

	if (get_user(size, (u32 __user *)arg))
		return -EFAULT;
	if (size < op->min)
		return -EINVAL;
	ret = copy_struct_from_user(&buf, op->size, arg, size);
	if (ret)
		return ret;
	/* another thread may have changed it between the two reads */
	buf.head.size = size;
	if (buf.head.flags & ~op->flags)
		return -EOPNOTSUPP;
	if (!op->loose && !vasi_open_stream(o))
		return -ENODEV;

	ret = op->fn(o, &buf);
	if (!vasi_copies_out(ret))
		return ret;
	if (copy_to_user(arg, &buf, min(size, op->size))) {
		if (op->undo && ret >= 0)
			op->undo(o, &buf);
		return -EFAULT;
	}
	return ret;
}

int vasi_command(struct vasi_open *o, unsigned int cmd, void __user *arg)
{
	unsigned int nr = _IOC_NR(cmd);
	struct vasi_stream *s;
	int ret;

	if (nr >= ARRAY_SIZE(vasi_ops) || vasi_ops[nr].cmd != cmd)
		return -ENOTTY;
	ret = vasi_run(o, &vasi_ops[nr], arg);
	s = vasi_open_stream(o);
	if (ret < 0 && s)
		vasi_count(s, VASI_COUNT_ERRORS, 1);
	return ret;
}

static long vasi_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return vasi_command(file->private_data, cmd, (void __user *)arg);
}

static __poll_t vasi_poll(struct file *file, struct poll_table_struct *pt)
{
	struct vasi_open *o = file->private_data;
	struct vasi_stream *s = vasi_open_stream(o);
	__poll_t mask = 0;

	if (!s)
		return EPOLLERR;
	poll_wait(file, &s->wait, pt);
	spin_lock(&s->event_lock);
	if (o->event_seen != s->event_seq)
		mask |= EPOLLPRI;
	if (s->dead)
		mask |= EPOLLHUP;
	if (s->state == VASI_STATE_ABORTED)
		mask |= EPOLLERR;
	spin_unlock(&s->event_lock);
	return mask;
}

static int vasi_open(struct inode *inode, struct file *file)
{
	struct vasi_open *o = kzalloc(sizeof(*o), GFP_KERNEL_ACCOUNT);

	if (!o)
		return -ENOMEM;
	mutex_init(&o->lock);
	/* the misc core left the device here */
	file->private_data = o;
	return nonseekable_open(inode, file);
}

static int vasi_release(struct inode *inode, struct file *file)
{
	struct vasi_open *o = file->private_data;

	vasi_detach(o);
	mutex_destroy(&o->lock);
	kfree(o);
	return 0;
}

static const struct file_operations vasi_fops = {
	.owner = THIS_MODULE,
	.open = vasi_open,
	.release = vasi_release,
	.poll = vasi_poll,
	.unlocked_ioctl = vasi_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.uring_cmd = vasi_uring_cmd,
};

static struct miscdevice vasi_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vasi",
	.fops = &vasi_fops,
	.mode = 0660,
};

static int __init vasi_init(void)
{
	int ret;

	ret = vasi_stream_init();
	if (ret)
		return ret;
	ret = vasi_suspend_init();
	if (ret)
		goto out_stream;
	ret = vasi_genl_init();
	if (ret)
		goto out_suspend;
	ret = misc_register(&vasi_misc);
	if (ret)
		goto out_genl;
	return 0;

out_genl:
	vasi_genl_exit();
out_suspend:
	vasi_suspend_exit();
out_stream:
	vasi_stream_exit();
	return ret;
}

static void __exit vasi_exit(void)
{
	misc_deregister(&vasi_misc);
	vasi_genl_exit();
	vasi_suspend_exit();
	vasi_stream_exit();
	/* nobody is in our callbacks, frees by RCU are done, nor preempted there */
	mmu_notifier_synchronize();
	rcu_barrier();
#ifdef CONFIG_TASKS_RCU
	synchronize_rcu_tasks();
#endif
}

module_init(vasi_init);
module_exit(vasi_exit);

MODULE_DESCRIPTION("Virtual Asynchronous Services Interface: moves running processes");
MODULE_AUTHOR("The vasi developers");
MODULE_LICENSE("GPL");
