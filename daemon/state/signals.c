// SPDX-License-Identifier: GPL-2.0
/*
 * Signal actions and signals that wait
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/process.h"
#include "state/remote_stop.h"
#include "state/threads.h"

#define NR_SIGNALS 64

/* as rt_sigaction takes it */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

static int add_action(Mspd__Process *p, uint32_t signo,
		      const struct vasi_rec_sigaction *from)
{
	Mspd__Sigaction *sa = malloc(sizeof(*sa));

	if (!sa)
		return -ENOMEM;
	mspd__sigaction__init(sa);
	p->sigactions[p->n_sigactions++] = sa;
	sa->signo = signo;
	sa->handler = from->handler;
	sa->flags = from->flags;
	sa->restorer = from->restorer;
	sa->mask = from->mask;
	return 0;
}

static int signals_capture(struct capture *c, enum capture_when when,
			   Mspd__Image *img)
{
	const struct vasi_rec_sigaction *v, none = {};
	const struct vasi_record *pending;
	Mspd__Process *p = img->process;
	uint32_t i;
	int r = 0;

	v = record_get(c->records, c->records_len, VASI_REC_SIGACTION, 0,
		       NR_SIGNALS * sizeof(*v));
	if (!v)
		return -EPROTO;
	p->sigactions = calloc(NR_SIGNALS, sizeof(*p->sigactions));
	if (!p->sigactions)
		return -ENOMEM;
	for (i = 0; i < NR_SIGNALS && !r; i++)
		if (memcmp(&v[i], &none, sizeof(none)))
			r = add_action(p, i + 1, &v[i]);
	if (r || when != CAPTURE_FINAL)
		return r;
	pending = record_find(c->records, c->records_len, VASI_REC_SIGPENDING,
			      0);
	return pending ? siginfos_set(&p->pending, &p->n_pending, pending) : 0;
}

static int check_siginfo(const ProtobufCBinaryData *info, siginfo_t *ret)
{
	if (info->len != SIGINFO_BYTES)
		return -EPROTO;
	memcpy(ret, info->data, sizeof(*ret));
	return ret->si_signo < 1 || ret->si_signo > NR_SIGNALS ? -EPROTO : 0;
}

/*
 * Only a thread itself may send a siginfo that looks like the kernel's. SIGTRAP
 * is not blocked yet, and waits for signals_last().
 */
int signals_queue(struct restore *r, int32_t tid,
		  const ProtobufCBinaryData *info, size_t n)
{
	const pid_t host = restore_host_tid(r, tid ? tid : r->threads[0].tid);
	const int32_t pid = r->threads[0].tid;
	siginfo_t si;
	size_t i;
	int err = 0;

	for (i = 0; i < n && !err; i++) {
		uint64_t addr;

		err = check_siginfo(&info[i], &si);
		if (err || si.si_signo == SIGTRAP)
			continue;
		addr = remote_copy(&r->remote, &si, sizeof(si));
		if (!addr)
			return -ENOBUFS;
		if (tid)
			err = remote_queue(&r->remote, host, "pending signal",
					   __NR_rt_tgsigqueueinfo, pid, tid,
					   si.si_signo, addr);
		else
			err = remote_queue(&r->remote, host, "pending signal",
					   __NR_rt_sigqueueinfo, pid,
					   si.si_signo, addr);
	}
	return err;
}

static int set_action(struct restore *r, const Mspd__Sigaction *sa, bool last)
{
	const struct kernel_sigaction ksa = {
		.handler = sa->handler, .flags = sa->flags,
		.restorer = sa->restorer, .mask = sa->mask,
	};
	uint64_t addr = remote_copy(&r->remote, &ksa, sizeof(ksa));

	if (!addr)
		return -ENOBUFS;
	if (last)
		return (int)remote_last_call(&r->remote, 0, __NR_rt_sigaction,
					     sa->signo, addr, 0, sizeof(uint64_t));
	return remote_queue(&r->remote, 0, "signal action", __NR_rt_sigaction,
			    sa->signo, addr, 0, sizeof(uint64_t));
}

static int signals_finish(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Process *p = final->process;
	size_t i;
	int err = 0;

	for (i = 0; i < p->n_sigactions && !err; i++) {
		if (p->sigactions[i]->signo < 1 ||
		    p->sigactions[i]->signo > NR_SIGNALS)
			return -EPROTO;
		if (p->sigactions[i]->signo != SIGTRAP)
			err = set_action(r, p->sigactions[i], false);
	}
	if (!err)
		err = signals_queue(r, 0, p->pending, p->n_pending);
	return err;
}

static int last_siginfos(struct restore *r, pid_t host, int32_t tid,
			 const ProtobufCBinaryData *info, size_t n)
{
	siginfo_t si;
	size_t i;
	long got = 0;

	for (i = 0; i < n && got >= 0; i++) {
		uint64_t addr;

		got = check_siginfo(&info[i], &si);
		if (got < 0 || si.si_signo != SIGTRAP)
			continue;
		addr = remote_copy(&r->remote, &si, sizeof(si));
		if (!addr)
			return -ENOBUFS;
		got = tid ? remote_last_call(&r->remote, host,
					     __NR_rt_tgsigqueueinfo,
					     r->threads[0].tid, tid, SIGTRAP,
					     addr) :
			    remote_last_call(&r->remote, host,
					     __NR_rt_sigqueueinfo,
					     r->threads[0].tid, SIGTRAP, addr);
	}
	return got < 0 ? (int)got : 0;
}

int signals_last(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Process *p = final->process;
	size_t i;
	int err = 0;

	for (i = 0; i < p->n_sigactions && !err; i++)
		if (p->sigactions[i]->signo == SIGTRAP)
			err = set_action(r, p->sigactions[i], true);
	if (!err)
		err = last_siginfos(r, r->ns.pid, 0, p->pending, p->n_pending);
	for (i = 0; i < final->n_threads && !err; i++) {
		const Mspd__Thread *t = final->threads[i];

		err = last_siginfos(r, restore_host_tid(r, t->tid), t->tid,
				    t->pending, t->n_pending);
	}
	return err;
}

const struct resource resource_signals = {
	.name = "signals",
	.capture = signals_capture,
	.finish = signals_finish,
};
