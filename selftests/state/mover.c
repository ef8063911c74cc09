// SPDX-License-Identifier: GPL-2.0
/*
 * A migration without a network: the order of calls of a real one
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "mover.h"
#include "state/maps.h"
#include "state/records.h"

#define RANGES		512
#define DATA_BYTES	(1UL << 20)
#define PAGE		4096UL
#define STREAM		0x5eedULL
#define DEADLINE_MS	20000

struct mover {
	struct move *m;
	struct guest *source;
	struct capture capture;
	bool open;
	struct restore *restore;
	bool suspended;
	uint8_t *data;
	struct vasi_range *vec;
	size_t n;
};

const struct guest_access *move_access(void)
{
	return guest_kmod.probe(NULL) ? &guest_user : &guest_kmod;
}

const char *move_cgroup(const char *name)
{
	static const char *const roots[] = {
		"/sys/fs/cgroup", "/sys/fs/cgroup/unified",
	};
	static char path[256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(roots); i++) {
		snprintf(path, sizeof(path), "%s/cgroup.procs", roots[i]);
		if (access(path, W_OK))
			continue;
		snprintf(path, sizeof(path), "%s/selftest-state/%s", roots[i],
			 name);
		return path;
	}
	return NULL;
}

static int write_object(struct mover *v, const struct vasi_range *part)
{
	const size_t bytes = part->pages * PAGE;
	int fd = restore_object_fd(v->restore, part->space);

	if (fd < 0)
		return fd;
	return pwrite(fd, v->data, bytes, (off_t)part->start) ==
	       (ssize_t)bytes ? 0 : -EIO;
}

static int copy_part(struct mover *v, const struct vasi_range *part)
{
	const struct guest_access *a = v->m->access;
	size_t done;
	int r;

	r = a->read(v->source, part, 1, v->data, DATA_BYTES, &done);
	if (r == -EFAULT || (!r && !done)) {
		if (v->capture.suspended)
			return -EFAULT;
		if (a->mark)
			a->mark(v->source, part, 1);
		return 0;
	}
	if (r)
		return r;
	v->m->bytes += part->pages * PAGE;
	if (part->space)
		return write_object(v, part);
	r = a->write(restore_guest(v->restore), part, 1, v->data,
		     part->pages * PAGE, &done);
	return r ? r : done ? 0 : -EFAULT;
}

static int copy_range(struct mover *v, const struct vasi_range *range)
{
	struct vasi_range part = *range;
	uint64_t left = range->pages;
	int r = 0;

	if (range->kind == VASI_KIND_HOLE)
		return restore_drop(v->restore, range, 1);
	if (range->kind == VASI_KIND_ZERO) {
		size_t done;

		return v->m->access->write(restore_guest(v->restore), range, 1,
					   v->data, 0, &done);
	}
	while (left && !r) {
		part.pages = left < DATA_BYTES / PAGE ? left :
			     DATA_BYTES / PAGE;
		r = copy_part(v, &part);
		part.start += part.pages * PAGE;
		left -= part.pages;
	}
	return r;
}

/* all that a file without a name has is data */
static int copy_whole(struct mover *v, const Mspd__Maps *maps)
{
	size_t i;
	int r = 0;

	for (i = 0; i < maps->n_vmas && !r; i++) {
		const Mspd__Vma *vma = maps->vmas[i];
		struct vasi_range page = {
			.start = vma->start, .pages = 1, .kind = VASI_KIND_DATA,
		};

		for (; page.start < vma->start + vma->readable && !r;
		     page.start += PAGE)
			r = copy_part(v, &page);
	}
	return r;
}

/* all of a space, behind what is in @all already */
static int harvest_space(struct mover *v, uint32_t space)
{
	uint64_t at = 0, end;
	size_t n;
	int r;

	do {
		struct vasi_range *more;

		more = reallocarray(v->vec, v->n + RANGES, sizeof(*more));
		if (!more)
			return -ENOMEM;
		v->vec = more;
		n = 0;
		end = at;
		r = v->m->access->harvest(v->source, space, at, 0, 0,
					  v->vec + v->n, RANGES, &n, &end);
		v->n += n;
		if (end == at)
			break;
		at = end;
	} while (!r && at < USER_TOP);
	return r;
}

/* @range has its place in @maps, all of it */
static bool inside(const Mspd__Maps *maps, const struct vasi_range *range)
{
	uint64_t at = range->start;
	const uint64_t end = at + range->pages * PAGE;

	while (!range->space && at < end) {
		const Mspd__Vma *vma = maps_find(maps, at);

		if (!vma || vma_is_kernels(vma))
			return false;
		at = vma->end;
	}
	return true;
}

/*
 * The harvest comes before the list of mappings: what is mapped in between
 * comes with the next round. What was unmapped in between is given back.
 */
static int round_once(struct mover *v, bool last)
{
	Mspd__Maps *maps;
	size_t i;
	int r;

	v->n = 0;
	r = harvest_space(v, 0);
	if (!r)
		r = capture_maps(&v->capture, &maps);
	if (r)
		return r;
	for (i = 0; i < maps->n_objects && !r; i++)
		r = harvest_space(v, maps->objects[i]->space);
	if (!r)
		r = restore_maps(v->restore, maps);
	for (i = 0; i < v->n && !r; i++) {
		if (inside(maps, &v->vec[i]))
			r = copy_range(v, &v->vec[i]);
		else if (v->m->access->mark && v->vec[i].kind != VASI_KIND_HOLE)
			r = v->m->access->mark(v->source, &v->vec[i], 1);
	}
	if (!r && last)
		r = copy_whole(v, maps);
	maps_free(maps);
	return r;
}

static int source_ready(struct mover *v, Mspd__Image **ret_early)
{
	struct move *m = v->m;
	int r;

	r = m->access->attach(&v->source, m->pid, VASI_SERVICE_SOURCE, STREAM);
	if (r)
		return r;
	r = capture_open(&v->capture, v->source, m->pid, CONNECTIONS_REFUSE,
			 &m->findings);
	if (r)
		return r;
	v->open = true;
	r = capture_check(&v->capture);
	if (!r && m->findings.errors)
		r = -EBUSY;
	if (!r)
		r = m->access->track(v->source, 1);
	return r ? r : capture_early(&v->capture, ret_early);
}

static int64_t offset_of(const struct capture *c, bool monotonic)
{
	const struct vasi_rec_process *p;

	p = record_get(c->records, c->records_len, VASI_REC_PROCESS, 0,
		       sizeof(*p));
	return monotonic ? p->timens_monotonic : p->timens_boottime;
}

static int target_ready(struct mover *v, const Mspd__Image *early)
{
	/* one host: the offsets of the new namespace are those of the old one */
	const struct restore_options o = {
		.name = "test", .cgroup = v->m->cgroup, .stream_id = STREAM,
		.access = v->m->access,
		.timens_monotonic_ns = offset_of(&v->capture, true),
		.timens_boottime_ns = offset_of(&v->capture, false),
	};
	int r;

	r = restore_check(&o, early, &v->m->findings);
	if (!r && v->m->findings.errors)
		r = -EBUSY;
	return r ? r : restore_prepare(&v->restore, &o, early,
				       &v->m->findings);
}

static int switch_over(struct mover *v)
{
	const struct guest_access *a = v->m->access;
	struct guest_holdup holdup = {};
	Mspd__Image *final = NULL;
	const int64_t begin = now_ns();
	int64_t at;
	int r;

	r = a->suspend(v->source, DEADLINE_MS, 0, &holdup);
	if (r)
		return r;
	v->suspended = true;
	v->capture.suspended = true;
	r = round_once(v, true);
	if (!r && v->m->before_final)
		v->m->before_final(v->m->arg);
	at = now_ns();
	if (!r)
		r = files_sync(&v->capture);
	if (!r)
		r = capture_final(&v->capture, &final);
	v->m->capture_ns = now_ns() - at;
	at = now_ns();
	if (!r)
		r = restore_finish(v->restore, final);
	image_free(final);
	if (!r && v->m->fail_at == MOVE_FINISHED)
		r = -EINTR;
	if (!r)
		r = restore_park(v->restore, DEADLINE_MS);
	v->m->restore_ns = now_ns() - at;
	if (!r && v->m->fail_at == MOVE_PARKED)
		r = -EINTR;
	if (r)
		return r;
	r = a->resume(restore_guest(v->restore));
	v->m->pause_ns = now_ns() - begin;
	if (r)
		return r;
	v->m->pid = restore_pid(v->restore);
	return a->destroy(v->source, DEADLINE_MS);
}

int move_guest(struct move *m)
{
	struct mover v = { .m = m };
	Mspd__Image *early = NULL;
	unsigned int i;
	int r;

	v.data = malloc(DATA_BYTES);
	r = v.data ? source_ready(&v, &early) : -ENOMEM;
	/* the last byte of the image is padding */
	if (!r && m->other_kernel && early->process->vdso_pages.len)
		early->process->vdso_pages.data[
			early->process->vdso_pages.len - 1] ^= 1;
	if (!r)
		r = target_ready(&v, early);
	for (i = 0; i < m->rounds && !r; i++)
		r = round_once(&v, false);
	if (!r && m->fail_at == MOVE_PREPARED)
		r = -EINTR;
	if (!r && m->before_switch)
		m->before_switch(m->arg);
	if (!r)
		r = switch_over(&v);
	image_free(early);
	if (r)
		restore_abort(v.restore);
	else
		restore_release(v.restore);
	if (r && v.suspended)
		m->access->resume(v.source);
	if (v.open)
		capture_close(&v.capture);
	if (v.source)
		m->access->close(v.source);
	free(v.data);
	free(v.vec);
	return r;
}

void move_print(const struct move *m)
{
	static const char *const level[] = { "pass", "warning", "error" };
	size_t i;

	for (i = 0; i < m->findings.n; i++) {
		const struct finding *f = &m->findings.v[i];

		printf("# %s %s %s: %s\n", level[f->level], f->check, f->object,
		       f->text);
	}
	printf("# pause %.2f ms (capture %.2f, restore %.2f), %.1f MiB\n",
	       (double)m->pause_ns / 1e6, (double)m->capture_ns / 1e6,
	       (double)m->restore_ns / 1e6, (double)m->bytes / 1048576);
	fflush(stdout);
}
