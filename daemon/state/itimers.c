// SPDX-License-Identifier: GPL-2.0
/*
 * Interval timers
 */
#include <errno.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include "lib/cleanup.h"
#include "state/process.h"

#define NR_ITIMERS 3

static int itimers_capture(struct capture *c, enum capture_when when,
			   Mspd__Image *img)
{
	const struct vasi_rec_itimer *v;
	Mspd__Process *p = img->process;
	size_t i;

	if (when != CAPTURE_FINAL)
		return 0;
	v = record_get(c->records, c->records_len, VASI_REC_ITIMER, 0,
		       NR_ITIMERS * sizeof(*v));
	if (!v)
		return -EPROTO;
	p->itimers = calloc(NR_ITIMERS, sizeof(*p->itimers));
	if (!p->itimers)
		return -ENOMEM;
	for (i = 0; i < NR_ITIMERS; i++) {
		Mspd__Itimer *t = malloc(sizeof(*t));

		if (!t)
			return -ENOMEM;
		mspd__itimer__init(t);
		p->itimers[p->n_itimers++] = t;
		t->value_ns = v[i].value_ns;
		t->interval_ns = v[i].interval_ns;
	}
	return 0;
}

static struct timeval timeval_of(int64_t ns)
{
	/* up: a timer must not end early, and 0 would disarm it */
	const int64_t us = (ns + 999) / 1000;

	return (struct timeval){ us / 1000000, us % 1000000 };
}

static int itimers_finish(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Process *p = final->process;
	const int64_t elapsed = restore_elapsed_ns(r, p);
	size_t i;
	int err = 0;

	for (i = 0; i < p->n_itimers && i < NR_ITIMERS && !err; i++) {
		int64_t left = p->itimers[i]->value_ns;
		struct itimerval v;
		uint64_t addr;

		if (left <= 0)
			continue;
		/* the pause is real time; the guest used no CPU time in it */
		if (i == ITIMER_REAL)
			left = left > elapsed ? left - elapsed : 1;
		v.it_value = timeval_of(left);
		v.it_interval = timeval_of(p->itimers[i]->interval_ns);
		addr = remote_copy(&r->remote, &v, sizeof(v));
		if (!addr)
			return -ENOBUFS;
		err = remote_queue(&r->remote, 0, "setitimer", __NR_setitimer,
				   i, addr, 0);
	}
	return err;
}

const struct resource resource_itimers = {
	.name = "itimers",
	.capture = itimers_capture,
	.finish = itimers_finish,
};
