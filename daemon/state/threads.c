// SPDX-License-Identifier: GPL-2.0
/*
 * Threads, on the source
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "lib/cleanup.h"
#include "state/process.h"
#include "state/threads.h"

static void refuse(struct capture *c, const struct vasi_record *rec,
		   const char *check, const char *text)
{
	const struct vasi_rec_thread *t = record_payload(rec);
	char object[64];

	snprintf(object, sizeof(object), "thread %d (%.16s)", rec->tid,
		 (const char *)t->comm);
	finding_add(c->findings, FINDING_ERROR, check, object, "%s", text);
}

static int add_regset(Mspd__Thread *t, const struct vasi_record *rec)
{
	Mspd__Regset **v, *set;

	v = reallocarray(t->regsets, t->n_regsets + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	t->regsets = v;
	set = malloc(sizeof(*set));
	if (!set)
		return -ENOMEM;
	mspd__regset__init(set);
	v[t->n_regsets++] = set;
	set->note = rec->note;
	return bytes_set(&set->data, record_payload(rec), rec->payload);
}

/* absolute times as the guest counts them, with the offsets of its namespace */
static int64_t guest_time(const struct capture *c, int clock, int64_t ns)
{
	const struct vasi_rec_process *p = process_record(c);

	if (ns < 0)
		return ns;
	if (clock == CLOCK_MONOTONIC)
		return ns + p->timens_monotonic;
	return clock == CLOCK_BOOTTIME ? ns + p->timens_boottime : ns;
}

static int add_restart(struct capture *c, Mspd__Thread *t,
		       const struct vasi_record *rec)
{
	const struct vasi_rec_restart *from = record_payload(rec);
	Mspd__Restart *to;

	if (rec->payload < sizeof(*from))
		return -EPROTO;
	if (from->kind == VASI_RESTART_NONE)
		return 0;
	to = malloc(sizeof(*to));
	if (!to)
		return -ENOMEM;
	mspd__restart__init(to);
	t->restart = to;
	to->kind = from->kind;
	to->has_clock = 1;
	to->clock = from->clock;
	to->has_expiry_ns = 1;
	to->expiry_ns = guest_time(c, from->clock, from->expiry_ns);
	to->has_remaining_ns = 1;
	to->remaining_ns = from->remaining_ns;
	to->has_user1 = 1;
	to->user1 = from->user1;
	to->has_user2 = 1;
	to->user2 = from->user2;
	to->has_user3 = 1;
	to->user3 = from->user3;
	to->has_user4 = 1;
	to->user4 = from->user4;
	return 0;
}

int siginfos_set(ProtobufCBinaryData **to, size_t *ret_n,
		 const struct vasi_record *rec)
{
	const size_t n = rec->payload / SIGINFO_BYTES;
	const uint8_t *p = record_payload(rec);
	size_t i;

	if (!n)
		return 0;
	*to = calloc(n, sizeof(**to));
	if (!*to)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		if (bytes_set(&(*to)[i], p + i * SIGINFO_BYTES, SIGINFO_BYTES))
			return -ENOMEM;
		*ret_n = i + 1;
	}
	return 0;
}

static int thread_capture(struct capture *c, const struct vasi_record *rec,
			  Mspd__Thread *t)
{
	const struct vasi_rec_thread *from = record_payload(rec);
	const struct vasi_record *r2 = NULL;
	char comm[17] = {};
	int r = 0;

	memcpy(comm, from->comm, 16);
	t->tid = rec->tid;
	t->comm = strdup(comm);
	if (!t->comm)
		return -ENOMEM;
	t->where = from->where;
	t->has_sigmask = 1;
	t->sigmask = from->sigmask;
	t->has_sas_sp = 1;
	t->sas_sp = from->sas_sp;
	t->has_sas_size = 1;
	t->sas_size = from->sas_size;
	t->has_sas_flags = 1;
	t->sas_flags = from->sas_flags;
	t->has_pdeath_signal = 1;
	t->pdeath_signal = from->pdeath_signal;
	t->has_robust_list = 1;
	t->robust_list = from->robust_list;
	t->has_robust_len = 1;
	t->robust_len = from->robust_len;
	t->has_rseq = 1;
	t->rseq = from->rseq;
	t->has_rseq_len = 1;
	t->rseq_len = from->rseq_len;
	t->has_rseq_sig = 1;
	t->rseq_sig = from->rseq_sig;
	t->has_clear_child_tid = 1;
	t->clear_child_tid = from->clear_child_tid;
	t->has_timer_slack_ns = 1;
	t->timer_slack_ns = from->timer_slack_ns;

	while (!r && (r2 = record_next(c->records, c->records_len, r2))) {
		if (r2->tid != rec->tid)
			continue;
		if (r2->type == VASI_REC_REGSET)
			r = add_regset(t, r2);
		else if (r2->type == VASI_REC_RESTART && !t->restart)
			r = add_restart(c, t, r2);
		else if (r2->type == VASI_REC_SIGPENDING && !t->pending)
			r = siginfos_set(&t->pending, &t->n_pending, r2);
	}
	return r;
}

const Mspd__Regset *thread_regset(const Mspd__Thread *t, uint32_t note)
{
	size_t i;

	for (i = 0; i < t->n_regsets; i++)
		if (t->regsets[i]->note == note)
			return t->regsets[i];
	return NULL;
}

/* can this thread, as it was stopped, be put together elsewhere? */
static void check_stop(struct capture *c, const struct vasi_record *rec,
		       const Mspd__Thread *t)
{
	switch (t->where) {
	case VASI_WHERE_USER:
	case VASI_WHERE_SYSCALL:
		if (!thread_regset(t, NT_PRSTATUS) ||
		    !thread_regset(t, NT_X86_XSTATE))
			refuse(c, rec, "thread.registers",
			       "runs code that is not 64-bit x86");
		break;
	case VASI_WHERE_IN_SYSCALL:
		refuse(c, rec, "thread.io-uring", "waits inside of an io_uring");
		break;
	case VASI_WHERE_STOPPED:
		refuse(c, rec, "thread.stopped", "is stopped or traced");
		break;
	case VASI_WHERE_VFORK:
		refuse(c, rec, "thread.vfork", "waits for a vforked child");
		break;
	default:
		refuse(c, rec, "thread.running", "could not be stopped");
		break;
	}
	if (t->restart && t->restart->kind == VASI_RESTART_UNKNOWN)
		refuse(c, rec, "thread.restart",
		       "waits in a system call that cannot be continued");
}

static int threads_capture(struct capture *c, enum capture_when when,
			   Mspd__Image *img)
{
	const struct vasi_record *rec = NULL;
	bool leader = false;
	size_t n = 0;
	int r = 0;

	while ((rec = record_next(c->records, c->records_len, rec)))
		n += rec->type == VASI_REC_THREAD;
	img->threads = calloc(n + 1, sizeof(*img->threads));
	if (!img->threads)
		return -ENOMEM;
	while (!r && (rec = record_next(c->records, c->records_len, rec))) {
		Mspd__Thread *t;

		if (rec->type != VASI_REC_THREAD)
			continue;
		if (rec->payload < sizeof(struct vasi_rec_thread))
			return -EPROTO;
		t = malloc(sizeof(*t));
		if (!t)
			return -ENOMEM;
		mspd__thread__init(t);
		img->threads[img->n_threads++] = t;
		r = thread_capture(c, rec, t);
		if (!r && when == CAPTURE_FINAL)
			check_stop(c, rec, t);
		leader |= rec->tid == img->process->pid;
	}
	if (!r && !leader)
		finding_add(c->findings, FINDING_ERROR, "thread.leader", "",
			    "the first thread of process %d has ended",
			    c->pid);
	return r;
}

static int threads_check(struct capture *c)
{
	const struct vasi_rec_process *p = process_record(c);

	if (!record_find(c->records, c->records_len, VASI_REC_THREAD, p->pid))
		finding_add(c->findings, FINDING_ERROR, "thread.leader", "",
			    "the first thread of process %d has ended",
			    c->pid);
	return 0;
}

const struct resource resource_threads = {
	.name = "threads",
	.check = threads_check,
	.capture = threads_capture,
	.prepare = threads_prepare,
	.finish = threads_finish,
};
