// SPDX-License-Identifier: GPL-2.0
/*
 * The process and the layout of its memory
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/fileid.h"
#include "state/process.h"
#include "state/procfile.h"

#define VM_LOCKED		0x2000ULL
#define VM_LOCKONFAULT		0x80000ULL

int bytes_set(ProtobufCBinaryData *to, const void *data, size_t len)
{
	to->data = malloc(len ? len : 1);
	if (!to->data)
		return -ENOMEM;
	if (len)
		memcpy(to->data, data, len);
	to->len = len;
	return 0;
}

/* Is @pid this process or one of its ancestors? */
static bool is_ancestor(pid_t pid)
{
	pid_t at = getpid();

	while (at > 0) {
		_cleanup_free_ char *text = NULL;
		_cleanup_close_ int dir = -1;
		const char *field;
		char path[32];

		if (at == pid)
			return true;
		snprintf(path, sizeof(path), "/proc/%d", at);
		dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0 || procfile_read(dir, "status", &text, NULL))
			return false;
		field = procfile_field(text, "PPid");
		at = field ? atoi(field) : 0;
	}
	return false;
}

static int mm_check(struct capture *c)
{
	const struct vasi_rec_process *p = process_record(c);
	_cleanup_close_ int exe = -1;
	unsigned char ident[5] = {};
	char object[32];

	if (!p)
		return -EPROTO;
	snprintf(object, sizeof(object), "process %d", c->pid);
	if (is_ancestor(c->pid))
		finding_add(c->findings, FINDING_ERROR, "process.mover", object,
			    "is what this daemon runs in");
	if (p->pid == 1)
		finding_add(c->findings, FINDING_ERROR, "process.init", object,
			    "is PID 1 of its namespace");
	if (p->nr_children)
		finding_add(c->findings, FINDING_WARNING, "process.children",
			    object,
			    "has %u child processes; they must have ended when it is suspended",
			    p->nr_children);
	exe = openat(c->proc, "exe", O_RDONLY | O_CLOEXEC);
	if (exe < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (pread(exe, ident, sizeof(ident), 0) != sizeof(ident) ||
	    memcmp(ident, "\177ELF\2", sizeof(ident)))
		finding_add(c->findings, FINDING_ERROR, "process.format",
			    object, "is not a 64-bit program");
	held_check(c);
	return 0;
}

static int look_up_exe(struct capture *c, Mspd__FileId **ret)
{
	_cleanup_close_ int fd = -1;
	char path[4096];
	ssize_t n;
	int r;

	n = readlinkat(c->proc, "exe", path, sizeof(path) - 1);
	if (n < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	path[n] = '\0';
	if (n > 10 && !strcmp(path + n - 10, " (deleted)"))
		path[n - 10] = '\0';
	fd = openat(c->proc, "exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fileid_capture(path, fd, FILEID_CONTENT, ret);
	return r == -EFBIG ?
		fileid_capture(path, fd, FILEID_NO_CONTENT, ret) : r;
}

static Mspd__FileId *copy_id(const Mspd__FileId *id)
{
	size_t len = mspd__file_id__get_packed_size(id);
	_cleanup_free_ uint8_t *buf = malloc(len ? len : 1);

	if (!buf)
		return NULL;
	mspd__file_id__pack(id, buf);
	return mspd__file_id__unpack(NULL, len, buf);
}

/* looked up once: only an exec could change it, and that ends the stream */
static int exe_of(struct capture *c, Mspd__FileId **ret)
{
	int r;

	if (!c->exe) {
		r = look_up_exe(c, &c->exe);
		if (r)
			return r;
	}
	*ret = copy_id(c->exe);
	return *ret ? 0 : -ENOMEM;
}

static void mm_close(struct capture *c)
{
	if (c->exe)
		mspd__file_id__free_unpacked(c->exe, NULL);
	c->exe = NULL;
}

static int memory_in_use(struct capture *c, uint64_t *ret)
{
	_cleanup_free_ char *text = NULL;
	unsigned long long size, resident;
	int r = procfile_read(c->proc, "statm", &text, NULL);

	if (r)
		return r;
	if (sscanf(text, "%llu %llu", &size, &resident) != 2)
		return -EPROTO;
	*ret = resident * 4096;
	return 0;
}

static int mm_capture(struct capture *c, enum capture_when when,
		      Mspd__Image *img)
{
	const struct vasi_rec_process *rec = process_record(c);
	const struct vasi_record *auxv;
	Mspd__Process *p;
	int r;

	auxv = record_find(c->records, c->records_len, VASI_REC_AUXV, 0);
	if (!rec || !auxv)
		return -EPROTO;
	p = malloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	mspd__process__init(p);
	img->process = p;
	p->pid = rec->pid;
	p->start_code = rec->start_code;
	p->end_code = rec->end_code;
	p->start_data = rec->start_data;
	p->end_data = rec->end_data;
	p->start_brk = rec->start_brk;
	p->brk = rec->brk;
	p->start_stack = rec->start_stack;
	p->arg_start = rec->arg_start;
	p->arg_end = rec->arg_end;
	p->env_start = rec->env_start;
	p->env_end = rec->env_end;
	p->vdso = rec->vdso;
	p->has_dumpable = 1;
	p->dumpable = rec->dumpable;
	p->has_thp_disable = 1;
	p->thp_disable = rec->thp_disable;
	p->has_child_subreaper = 1;
	p->child_subreaper = rec->child_subreaper;
	p->has_membarrier = 1;
	p->membarrier = rec->membarrier;
	p->has_lock_future = 1;
	p->lock_future = (rec->def_flags & VM_LOCKED ? MCL_FUTURE : 0) |
			 (rec->def_flags & VM_LOCKONFAULT ? MCL_ONFAULT : 0);
	p->has_clock_monotonic_ns = 1;
	p->clock_monotonic_ns = rec->clock_monotonic + rec->timens_monotonic;
	p->has_clock_boottime_ns = 1;
	p->clock_boottime_ns = rec->clock_boottime + rec->timens_boottime;
	p->has_resident_bytes = 1;
	r = memory_in_use(c, &p->resident_bytes);
	if (!r)
		r = bytes_set(&p->auxv, record_payload(auxv), auxv->payload);
	if (!r)
		r = exe_of(c, &p->exe);
	if (r || when != CAPTURE_FINAL)
		return r;
	held_check(c);
	return rec->nr_children ? -ECHILD : 0;
}

/* membarrier registrations, by the bits that the kernel keeps of them */
static const struct { uint32_t state; int cmd; } membarriers[] = {
	{ 1 << 0, 1 << 4 },	/* PRIVATE_EXPEDITED */
	{ 1 << 2, 1 << 2 },	/* GLOBAL_EXPEDITED */
	{ 1 << 4, 1 << 6 },	/* PRIVATE_EXPEDITED_SYNC_CORE */
	{ 1 << 6, 1 << 8 },	/* PRIVATE_EXPEDITED_RSEQ */
};

/* takes an RCU grace period in a process with threads, unless it was done */
static int queue_membarriers(struct restore *r, uint32_t state)
{
	size_t i;
	int err = 0;

	for (i = 0; i < ARRAY_SIZE(membarriers) && !err; i++)
		if (state & membarriers[i].state)
			err = remote_queue(&r->remote, 0, "membarrier",
					   __NR_membarrier, membarriers[i].cmd);
	return err;
}

static int set_mm(struct restore *r, const Mspd__Process *p, int exe)
{
	struct prctl_mm_map map = {
		.start_code = p->start_code, .end_code = p->end_code,
		.start_data = p->start_data, .end_data = p->end_data,
		.start_brk = p->start_brk, .brk = p->brk,
		.start_stack = p->start_stack,
		.arg_start = p->arg_start, .arg_end = p->arg_end,
		.env_start = p->env_start, .env_end = p->env_end,
		.auxv_size = (uint32_t)p->auxv.len, .exe_fd = (uint32_t)exe,
	};
	uint64_t auxv, addr;

	auxv = remote_copy(&r->remote, p->auxv.data, p->auxv.len);
	map.auxv = (void *)auxv;
	addr = remote_copy(&r->remote, &map, sizeof(map));
	if (!auxv || !addr)
		return -ENOBUFS;
	return remote_queue(&r->remote, 0, "memory layout", __NR_prctl,
			    PR_SET_MM, PR_SET_MM_MAP, addr, sizeof(map), 0);
}

static int mm_prepare(struct restore *r, const Mspd__Image *early)
{
	const Mspd__Process *p = early->process;
	_cleanup_close_ int fd = -1;
	char why[256] = "";
	int nr = -1, err;

	if (p->exe->deleted) {
		finding_add(r->findings, FINDING_WARNING, "process.exe",
			    p->exe->path,
			    "has no name any more: /proc/PID/exe will not name it");
	} else {
		err = fileid_open(p->exe, O_RDONLY, &fd, why, sizeof(why));
		if (err)
			return restore_fail(r, err, "process.exe",
					    p->exe->path, "%s", why);
		err = remote_send_fds(&r->remote, &fd, 1, &nr);
		if (err)
			return err;
	}
	err = set_mm(r, p, nr);
	if (!err && nr >= 0)
		err = remote_queue(&r->remote, 0, "close", __NR_close, nr);
	if (!err)
		err = queue_membarriers(r, p->membarrier);
	return err ? err : remote_flush(&r->remote);
}

static int mm_finish(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Process *p = final->process;
	struct remote *re = &r->remote;
	int err;

	err = set_mm(r, p, -1);
	if (!err && p->thp_disable)
		err = remote_queue(re, 0, "PR_SET_THP_DISABLE", __NR_prctl,
				   PR_SET_THP_DISABLE, 1);
	if (!err && p->child_subreaper)
		err = remote_queue(re, 0, "PR_SET_CHILD_SUBREAPER", __NR_prctl,
				   PR_SET_CHILD_SUBREAPER, 1);
	if (!err && p->lock_future)
		err = remote_queue(re, 0, "mlockall", __NR_mlockall,
				   p->lock_future);
	return err ? err : queue_membarriers(r, p->membarrier);
}

int mm_leave(struct restore *r, const Mspd__Image *final)
{
	/*
	 * Changing credentials made it what fs.suid_dumpable says, which may
	 * be the 2 that cannot be asked for.
	 */
	return remote_queue(&r->remote, 0, "PR_SET_DUMPABLE", __NR_prctl,
			    PR_SET_DUMPABLE, final->process->dumpable == 1);
}

const struct resource resource_mm = {
	.name = "mm",
	.check = mm_check,
	.capture = mm_capture,
	.prepare = mm_prepare,
	.finish = mm_finish,
	.close = mm_close,
};
