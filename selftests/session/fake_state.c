// SPDX-License-Identifier: GPL-2.0
/*
 * The state of the fake guest: stands in for capture_*() and restore_*() when
 * a test is linked
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "session/world.h"
#include "state/maps.h"
#include "state/state.h"
#include "tap.h"

struct restore {
	struct guest *guest;
	pid_t pid;
};

/* -- source */

int capture_open(struct capture *c, struct guest *g, pid_t pid,
		 enum connections connections, struct findings *f)
{
	struct {
		struct vasi_record rec;
		struct vasi_rec_process proc;
	} *r = calloc(1, sizeof(*r));
	char path[32];

	if (!r)
		return -ENOMEM;
	r->rec.bytes = sizeof(*r);
	r->rec.type = VASI_REC_PROCESS;
	r->rec.payload = sizeof(r->proc);
	r->proc.timens_monotonic = WORLD_TIMENS;
	snprintf(path, sizeof(path), "/proc/%d", pid);
	*c = (struct capture){
		.guest = g, .pid = pid, .pidfd = -1,
		.proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC),
		.connections = connections, .findings = f,
		.records = r, .records_len = sizeof(*r),
	};
	return 0;
}

void capture_close(struct capture *c)
{
	free(c->records);
	close(c->proc);
}

int capture_check(struct capture *c)
{
	if (world->plan.refuse_source)
		finding_add(c->findings, FINDING_ERROR, "fd.kind",
			    "fd 7 (socket:[1234])", "is connected");
	return 0;
}

static Mspd__Image *image_new(bool final)
{
	Mspd__Image *img = malloc(sizeof(*img));
	struct timespec ts;

	must(img);
	mspd__image__init(img);
	img->version = 1;
	img->final = final;
	img->process = malloc(sizeof(*img->process));
	must(img->process);
	mspd__process__init(img->process);
	img->process->pid = 2;
	img->process->exe = malloc(sizeof(*img->process->exe));
	must(img->process->exe);
	mspd__file_id__init(img->process->exe);
	img->process->exe->path = strdup("/bin/fake");
	clock_gettime(CLOCK_MONOTONIC, &ts);
	img->process->has_clock_monotonic_ns = 1;
	img->process->clock_monotonic_ns = WORLD_TIMENS +
		ts.tv_sec * 1000000000LL + ts.tv_nsec;
	return img;
}

int capture_early(struct capture *c, Mspd__Image **ret)
{
	(void)c;
	*ret = image_new(false);
	return 0;
}

int capture_final(struct capture *c, Mspd__Image **ret)
{
	must(world->suspended);
	if (world->plan.bad_captures-- > 0) {
		finding_add(c->findings, FINDING_ERROR, "fd.kind",
			    "fd 9 (anon_inode:inotify)", "cannot be moved");
		return -EOPNOTSUPP;
	}
	*ret = image_new(true);
	return 0;
}

int files_sync(struct capture *c)
{
	(void)c;
	return 0;
}

void image_free(Mspd__Image *img)
{
	mspd__image__free_unpacked(img, NULL);
}

static void vma_add(Mspd__Maps *m, unsigned int from, unsigned int to)
{
	Mspd__Vma *v = malloc(sizeof(*v));

	must(v);
	mspd__vma__init(v);
	v->start = WORLD_BASE + from * WORLD_PAGE;
	v->end = WORLD_BASE + to * WORLD_PAGE;
	m->vmas[m->n_vmas++] = v;
}

int capture_maps(struct capture *c, Mspd__Maps **ret)
{
	Mspd__Maps *m = malloc(sizeof(*m));

	(void)c;
	must(m);
	mspd__maps__init(m);
	m->vmas = calloc(3, sizeof(*m->vmas));
	m->objects = calloc(1, sizeof(*m->objects));
	must(m->vmas && m->objects);
	vma_add(m, 0, WORLD_LOOSE);
	if (world->page[WORLD_LOOSE].mapped)
		vma_add(m, WORLD_LOOSE, WORLD_LOOSE_END);
	vma_add(m, WORLD_LOOSE_END, WORLD_PAGES);
	if (world->plan.flags && world->harvests % 2) {
		m->vmas[m->n_vmas - 1]->has_advice = 1;
		m->vmas[m->n_vmas - 1]->advice = ADVICE_NORESERVE;
	}
	m->objects[0] = malloc(sizeof(**m->objects));
	must(m->objects[0]);
	mspd__object__init(m->objects[0]);
	m->objects[0]->space = OBJECT_SPACE;
	m->objects[0]->bytes = sizeof(world->object);
	m->n_objects = 1;
	*ret = m;
	return 0;
}

void maps_free(Mspd__Maps *maps)
{
	mspd__maps__free_unpacked(maps, NULL);
}

/* -- target */

int restore_check(const struct restore_options *opt, const Mspd__Image *early,
		  struct findings *f)
{
	(void)opt;
	must(!early->final && !strcmp(early->process->exe->path, "/bin/fake"));
	finding_add(f, FINDING_PASS, "cpu", "", "all features are there");
	if (world->plan.refuse_target)
		finding_add(f, FINDING_ERROR, "file.missing",
			    "fd 3 (/san/log)", "is not there");
	return 0;
}

int restore_prepare(struct restore **ret, const struct restore_options *opt,
		    const Mspd__Image *early, struct findings *f)
{
	struct restore *r = calloc(1, sizeof(*r));

	(void)early;
	(void)f;
	must(r);
	world->timens_monotonic = opt->timens_monotonic_ns;
	must(!opt->access->attach(&r->guest, getpid(), VASI_SERVICE_TARGET,
				  opt->stream_id));
	r->pid = getpid();
	world->prepared = true;
	*ret = r;
	return 0;
}

struct guest *restore_guest(struct restore *r)
{
	return r->guest;
}

pid_t restore_pid(const struct restore *r)
{
	return r->pid;
}

int restore_object_fd(const struct restore *r, uint32_t space)
{
	(void)r;
	return space == OBJECT_SPACE ? world_object_fd : -ENOENT;
}

int restore_maps(struct restore *r, const Mspd__Maps *maps)
{
	bool mapped[WORLD_PAGES] = { false };

	(void)r;
	for (size_t i = 0; i < maps->n_vmas; i++) {
		const Mspd__Vma *v = maps->vmas[i];

		for (uint64_t a = v->start; a < v->end; a += WORLD_PAGE)
			mapped[(a - WORLD_BASE) / WORLD_PAGE] = true;
		/* no call changes this flag: all of it is mapped anew */
		if (v->end == WORLD_BASE + WORLD_BYTES &&
		    v->advice != world->target_advice) {
			memset(world->target + v->start - WORLD_BASE, 0,
			       v->end - v->start);
			world->target_advice = (uint32_t)v->advice;
		}
	}
	for (unsigned int n = 0; n < WORLD_PAGES; n++) {
		if (!mapped[n])
			memset(world->target + n * WORLD_PAGE, 0, WORLD_PAGE);
		world->target_mapped[n] = mapped[n];
	}
	return 0;
}

/* memory that is the test's own is there already */
void restore_fill_begin(struct restore *r)
{
	(void)r;
}

void restore_fill_end(struct restore *r)
{
	(void)r;
}

int restore_drop(struct restore *r, const struct vasi_range *vec, size_t n)
{
	(void)r;
	for (size_t i = 0; i < n; i++) {
		must(!vec[i].space && vec[i].kind == VASI_KIND_HOLE);
		memset(world->target + vec[i].start - WORLD_BASE, 0,
		       vec[i].pages * WORLD_PAGE);
	}
	return 0;
}

int restore_finish(struct restore *r, const Mspd__Image *final)
{
	(void)r;
	must(final->final);
	return world->plan.fail_restore ? -EIO : 0;
}

int restore_park(struct restore *r, unsigned int deadline_ms)
{
	(void)r;
	(void)deadline_ms;
	world->parked = true;
	return 0;
}

void restore_abort(struct restore *r)
{
	must(!world->running);
	r->guest->access->close(r->guest);
	world->aborted = true;
	free(r);
}

void restore_release(struct restore *r)
{
	r->guest->access->close(r->guest);
	world->released = true;
	free(r);
}
