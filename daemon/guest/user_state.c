// SPDX-License-Identifier: GPL-2.0
/*
 * State records, as the module would write them
 *
 * Of a suspended guest all of it. One that runs is asked by its first thread,
 * which is stopped for that if it can be; of the others /proc tells enough.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include "guest/user_records.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/maps.h"
#include "state/procfile.h"

#define RECORDS_MAX	(64UL << 20)
#define STOP_MS		100
#define TRIES		3
#define PAGE		4096ULL
#define STAT_FIELDS	53
#define VM_LOCKED	0x2000ULL
#define VM_LOCKONFAULT	0x80000ULL
#define MEMBARRIER_GET_REGISTRATIONS (1 << 9)

void user_put(struct user_records *o, uint16_t type, int32_t tid, uint32_t note,
	      const void *payload, size_t bytes)
{
	struct vasi_record rec = {
		.bytes = (uint32_t)((sizeof(rec) + bytes + 7) & ~7UL),
		.type = type, .tid = tid, .note = note,
		.payload = (uint32_t)bytes,
	};

	if (o->err)
		return;
	if (o->len + rec.bytes > o->max) {
		size_t max = 2 * (o->len + rec.bytes);
		uint8_t *buf = max <= RECORDS_MAX ? realloc(o->buf, max) :
						    NULL;

		if (!buf) {
			o->err = max <= RECORDS_MAX ? -ENOMEM : -EFBIG;
			return;
		}
		o->buf = buf;
		o->max = max;
	}
	memset(o->buf + o->len, 0, rec.bytes);
	memcpy(o->buf + o->len, &rec, sizeof(rec));
	memcpy(o->buf + o->len + sizeof(rec), payload, bytes);
	o->len += rec.bytes;
}

long user_ask(struct user_records *o, struct user_thread *t, long nr,
	      uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	long ret = -EIO;
	int r = user_inject(o->s, t, nr, USER_CALL(a, b, c, d), &ret);

	if (r && !o->err)
		o->err = r;
	return r ? r : ret;
}

long user_ask_mem(struct user_records *o, struct user_thread *t, long nr,
		  const uint64_t arg[6], int at, void *to, size_t len)
{
	long ret = -EIO;
	int r = user_inject_mem(o->s, t, nr, arg, at, to, len, &ret);

	if (!r && ret == -EFAULT)
		r = -EFAULT;	/* the memory is there */
	if (r && !o->err)
		o->err = r;
	return r ? r : ret;
}

long user_answer(struct user_records *o, long ret)
{
	if (ret < 0 && !o->err)
		o->err = (int)ret;
	return ret;
}

/* -- what belongs to the process */

/* bits as the kernel keeps them of what membarrier() takes */
static const struct { uint32_t registers, command, state; } membarriers[] = {
	{ MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
	  MEMBARRIER_CMD_PRIVATE_EXPEDITED, 3 << 0 },
	{ MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 3 << 2 },
	{ MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
	  MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 3 << 4 },
	{ MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ,
	  MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, 3 << 6 },
};

/*
 * Before 6.3 nobody tells, but a barrier that was not registered for fails. Of
 * the global one, which never does, nothing is known then.
 */
static uint32_t ask_membarrier(struct user_records *o, struct user_thread *t)
{
	long set = user_ask(o, t, __NR_membarrier,
			    MEMBARRIER_GET_REGISTRATIONS, 0, 0, 0);
	uint32_t state = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(membarriers); i++) {
		const uint32_t cmd = membarriers[i].command;

		if (set >= 0 ? set & membarriers[i].registers :
		    cmd && !user_ask(o, t, __NR_membarrier, cmd, 0, 0, 0))
			state |= membarriers[i].state;
	}
	return state;
}

static uint64_t locked_kb(const struct user_records *o)
{
	_cleanup_free_ char *status = NULL;
	const char *f;

	if (procfile_read(o->s->proc, "status", &status, NULL))
		return 0;
	f = procfile_field(status, "VmLck");
	return f ? strtoull(f, NULL, 10) : 0;
}

/* Was mlockall(MCL_FUTURE) called? The page for calls tells, when it is new. */
static uint64_t ask_def_flags(struct user_records *o, struct user_thread *t)
{
	_cleanup_close_ int fd = -1;
	uint64_t before, entry;
	int r = user_inject_begin(o->s, t);

	if (!r && !locked_kb(o))
		return 0;
	if (!r)
		r = user_inject_end(o->s);
	before = locked_kb(o);
	if (!r)
		r = user_inject_begin(o->s, t);
	if (user_answer(o, r) || locked_kb(o) <= before)
		return 0;
	fd = openat(o->s->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &entry, sizeof(entry),
			    (off_t)(o->s->page / PAGE * 8)) != sizeof(entry)) {
		user_answer(o, -EIO);
		return 0;
	}
	return VM_LOCKED | (entry >> 63 ? 0 : VM_LOCKONFAULT);
}

static void ask_process(struct user_records *o, struct user_thread *t,
			struct vasi_rec_process *rec)
{
	int subreaper = 0;
	long r;

	rec->brk = (uint64_t)user_ask(o, t, __NR_brk, 0, 0, 0, 0);
	r = user_ask(o, t, __NR_prctl, PR_GET_DUMPABLE, 0, 0, 0);
	rec->dumpable = (uint32_t)user_answer(o, r);
	r = user_ask(o, t, __NR_prctl, PR_GET_THP_DISABLE, 0, 0, 0);
	rec->thp_disable = user_answer(o, r) > 0;
	r = user_ask_mem(o, t, __NR_prctl, USER_CALL(PR_GET_CHILD_SUBREAPER),
			 1, &subreaper, sizeof(subreaper));
	user_answer(o, r);
	rec->child_subreaper = subreaper != 0;
	r = user_ask(o, t, __NR_prctl, PR_GET_SECUREBITS, 0, 0, 0);
	rec->securebits = (uint32_t)user_answer(o, r);
	rec->membarrier = ask_membarrier(o, t);
	rec->def_flags = ask_def_flags(o, t);
}

/* numbers of /proc/PID/stat; a[n] is field n of proc(5) */
static int stat_fields(int proc, uint64_t a[STAT_FIELDS])
{
	_cleanup_free_ char *text = NULL;
	int i, r = procfile_read(proc, "stat", &text, NULL);
	char *at;

	if (r)
		return r;
	at = strrchr(text, ')');
	if (!at || strlen(at) < 4)
		return -EPROTO;
	at += 4;	/* behind field 3, a letter */
	for (i = 4; i < STAT_FIELDS; i++)
		a[i] = strtoull(at, &at, 10);
	return 0;
}

static int read_timens(struct user_records *o)
{
	_cleanup_free_ char *text = NULL;
	long long s[2] = {};
	long ns[2] = {};

	/* a kernel without time namespaces has no such file */
	if (!procfile_read(o->s->proc, "timens_offsets", &text, NULL) &&
	    sscanf(text, "monotonic %lld %ld boottime %lld %ld", &s[0], &ns[0],
		   &s[1], &ns[1]) != 4)
		return -EPROTO;
	o->timens[0] = s[0] * NSEC_PER_SEC + ns[0];
	o->timens[1] = s[1] * NSEC_PER_SEC + ns[1];
	return 0;
}

static uint64_t find_vdso(const struct user_records *o)
{
	struct map_text t;
	uint64_t at = 0;
	char *text;
	size_t i;

	if (procfile_read(o->s->proc, "maps", &text, NULL) ||
	    map_text_parse(&t, text))
		return 0;
	for (i = 0; i < t.n; i++)
		if (!strcmp(t.v[i].name, "[vdso]"))
			at = t.v[i].start;
	map_text_free(&t);
	return at;
}

static int process_record(struct user_records *o, struct user_thread *t,
			  uint64_t xfeatures, uint32_t nr_threads)
{
	struct vasi_rec_process rec = { .dumpable = 1 };
	_cleanup_free_ char *score = NULL;
	uint64_t f[STAT_FIELDS] = {};
	const char *pids, *end;
	int r = stat_fields(o->s->proc, f);

	if (r)
		return r;
	pids = procfile_field(o->status, "NSpid");
	if (!pids)
		return -EPROTO;
	end = strchrnul(pids, '\n');
	while (end > pids && end[-1] != '\t' && end[-1] != ' ')
		end--;
	rec.pid = atoi(end);
	rec.nr_threads = nr_threads;
	rec.start_code = f[26];
	rec.end_code = f[27];
	rec.start_stack = f[28];
	rec.exit_signal = (uint32_t)f[38];
	rec.start_data = f[45];
	rec.end_data = f[46];
	rec.start_brk = f[47];
	rec.brk = f[47];
	rec.arg_start = f[48];
	rec.arg_end = f[49];
	rec.env_start = f[50];
	rec.env_end = f[51];
	rec.vdso = find_vdso(o);
	if (!procfile_read(o->s->proc, "oom_score_adj", &score, NULL))
		rec.oom_score_adj = atoi(score);
	if (t)
		ask_process(o, t, &rec);
	rec.xfeatures = xfeatures;
	rec.unmovable = user_held_process(o, t, &rec.nr_children);
	rec.clock_monotonic = clock_ns(CLOCK_MONOTONIC);
	rec.clock_boottime = clock_ns(CLOCK_BOOTTIME);
	rec.timens_monotonic = o->timens[0];
	rec.timens_boottime = o->timens[1];
	user_put(o, VASI_REC_PROCESS, 0, 0, &rec, sizeof(rec));
	return 0;
}

/* -- signals and timers */

static uint64_t signal_set(const struct user_records *o, const char *key)
{
	const char *f = procfile_field(o->status, key);

	return f ? strtoull(f, NULL, 16) : 0;
}

/* a signal with nothing but its default action is not asked for */
static void action_record(struct user_records *o, struct user_thread *t)
{
	const uint64_t used = signal_set(o, "SigCgt") | signal_set(o, "SigIgn");
	long r;
	int i;

	for (i = 0; i < NR_SIGNALS && t; i++) {
		uint64_t ksa[4] = {};

		if (!(used >> i & 1))
			continue;
		r = user_ask_mem(o, t, __NR_rt_sigaction,
				 USER_CALL(i + 1, 0, 0, sizeof(uint64_t)), 2,
				 ksa, sizeof(ksa));
		if (user_answer(o, r))
			break;
		o->action[i] = (struct vasi_rec_sigaction){
			ksa[0], ksa[1], ksa[2], ksa[3],
		};
	}
	user_put(o, VASI_REC_SIGACTION, 0, 0, o->action, sizeof(o->action));
}

static void ask_itimers(struct user_records *o, struct user_thread *t,
			struct vasi_rec_itimer v[3])
{
	uint64_t i;

	for (i = 0; i < 3; i++) {
		struct itimerval it = {};
		long r = user_ask_mem(o, t, __NR_getitimer, USER_CALL(i), 1,
				      &it, sizeof(it));

		if (user_answer(o, r))
			return;
		v[i].interval_ns = it.it_interval.tv_sec * NSEC_PER_SEC +
				   it.it_interval.tv_usec * 1000;
		v[i].value_ns = it.it_value.tv_sec * NSEC_PER_SEC +
				it.it_value.tv_usec * 1000;
	}
}

static bool alarm_waits(const struct user_records *o)
{
	_cleanup_free_ char *status = NULL;
	const char *f;

	if (procfile_read(o->s->proc, "status", &status, NULL))
		return false;
	f = procfile_field(status, "ShdPnd");
	return f && strtoull(f, NULL, 16) >> (SIGALRM - 1) & 1;
}

/*
 * The timer runs on while the guest is stopped: its signal is either among
 * those that wait, or still to come by what the timer has left. Then the
 * signals are read again.
 */
static void itimer_records(struct user_records *o, struct user_thread *t)
{
	struct vasi_rec_itimer v[3] = {};
	size_t begin = o->len;

	if (!t) {
		user_put(o, VASI_REC_ITIMER, 0, 0, v, sizeof(v));
		return;
	}
	do {
		o->len = begin;
		o->shared_pending = user_pending_record(o, t->tid, 0, true);
		ask_itimers(o, t, v);
	} while (!o->err && alarm_waits(o) !=
		 (bool)(o->shared_pending >> (SIGALRM - 1) & 1));
	/* it starts again only when its signal is taken */
	if (!v[0].value_ns && o->shared_pending >> (SIGALRM - 1) & 1)
		v[0].value_ns = v[0].interval_ns;
	user_put(o, VASI_REC_ITIMER, 0, 0, v, sizeof(v));
}

/* -- all of it */

static int begin(struct user_records *o)
{
	_cleanup_free_ char *auxv = NULL;
	size_t len;
	int r;

	r = procfile_read(o->s->proc, "status", &o->status, NULL);
	if (!r)
		r = procfile_read(o->s->proc, "auxv", &auxv, &len);
	if (!r)
		r = read_timens(o);
	if (!r)
		user_put(o, VASI_REC_AUXV, 0, 0, auxv, len);
	return r;
}

/* the thread that asks for the process: one that can, the first if possible */
static struct user_thread *spokesman(struct user_stream *s)
{
	struct user_thread *t = NULL;
	size_t i;

	for (i = 0; i < s->nr_threads; i++) {
		if (s->threads[i].stopped || s->threads[i].mute)
			continue;
		if (!t || s->threads[i].tid == s->pid)
			t = &s->threads[i];
	}
	return t;
}

/* the guest's mappings are its own again */
static int ended(struct user_records *o, int r)
{
	int end = user_inject_end(o->s);

	return r ? r : o->err ? o->err : end;
}

static int all_records(struct user_stream *s, void *arg)
{
	struct user_records *o = arg;
	struct user_thread *t = spokesman(s);
	uint64_t xfeatures = 0, mine;
	bool led = false, leads;
	size_t i;
	int r = begin(o);

	if (r)
		return r;
	action_record(o, t);
	itimer_records(o, t);
	for (i = 0; i < s->nr_threads && !o->err; i++) {
		/* who is first and does not block it takes a signal of all */
		leads = !led && (o->shared_pending & ~s->threads[i].mask);
		mine = user_thread_records(o, &s->threads[i], leads);
		led |= leads;
		xfeatures |= mine;
	}
	if (!o->err)
		r = process_record(o, t, xfeatures, (uint32_t)s->nr_threads);
	return ended(o, r);
}

static uint32_t running_threads(struct user_records *o)
{
	_cleanup_closedir_ DIR *dir = NULL;
	const struct dirent *e;
	uint32_t n = 0;
	int fd;

	fd = openat(o->s->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (e = readdir(dir))) {
		if (*e->d_name == '.')
			continue;
		user_thread_running(o, atoi(e->d_name));
		n++;
	}
	return n;
}

static int early_records(struct user_stream *s, void *arg)
{
	struct user_records *o = arg;
	struct guest_holdup holdup = {};
	struct user_thread *t = NULL;
	uint32_t n;
	int r;

	/* it may be in the kernel, traced, or gone before the others */
	r = user_stop(s, s->pid, deadline_in(STOP_MS), &holdup);
	if (r == -EPERM && holdup.reason != VASI_HOLDUP_STOPPED)
		return r;
	if (!r)
		t = spokesman(s);
	r = begin(o);
	if (r)
		return r;
	action_record(o, t);
	itimer_records(o, t);
	if (s->nr_threads && s->threads[0].held)
		user_held_thread(o, s->pid, &s->threads[0]);
	n = running_threads(o);
	r = process_record(o, t, 0, n);
	return ended(o, r);
}

static int write_records(struct user_stream *s, struct user_records *o)
{
	int r;

	*o = (struct user_records){ .s = s };
	r = user_trace(s, s->suspended ? all_records : early_records, o);
	free(o->status);
	if (r)
		free(o->buf);
	return r;
}

int user_state(struct guest *g, void **ret_buf, size_t *ret_len)
{
	struct user_stream *s = user_of(g);
	struct user_records o;
	int i, r = user_alive(s);

	if (!r && s->suspended && !s->tracer)
		r = -EBUSY;
	if (!r)
		r = -EAGAIN;
	/* who was stopped by a signal is so the next time, and is not asked */
	for (i = 0; i < TRIES && r == -EAGAIN; i++)
		r = write_records(s, &o);
	if (r) {
		if (r == -ESRCH && user_alive(s))
			r = user_alive(s);
		return r;
	}
	*ret_buf = o.buf;
	*ret_len = o.len;
	return 0;
}
