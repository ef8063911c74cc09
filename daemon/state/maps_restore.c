// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of the guest, on the target
 *
 * The list of a round is compared with the last one, and the difference is
 * made by one table of remote calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/fileid.h"
#include "state/maps.h"
#include "state/remote_stop.h"
#include "state/restore.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#define HUGE (2UL << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

/* files that this round maps, open here and in the guest */
struct opened {
	const Mspd__FileId *id;
	uint32_t space;
	bool readonly;
	int fd;
	bool keep;	/* belongs to the restore, not to this list */
	int nr;
};

struct map_job {
	struct restore *r;
	struct opened *files;
	size_t nr_files;
	struct remote_call *calls;
	const struct map_change **of;	/* what each call is for */
	size_t nr_calls, room;
};

static void object_text(const struct map_change *change, char *buf, size_t len)
{
	snprintf(buf, len, "mapping %" PRIx64 "-%" PRIx64, change->start,
		 change->end);
}

int map_job_call(struct map_job *a, const struct map_change *of, long nr,
		 const uint64_t *arg)
{
	struct remote_call *call;

	if (a->nr_calls == a->room) {
		size_t room = a->room ? 2 * a->room : 64;
		void *p;

		p = reallocarray(a->calls, room, sizeof(*a->calls));
		if (!p)
			return -ENOMEM;
		a->calls = p;
		p = reallocarray(a->of, room, sizeof(*a->of));
		if (!p)
			return -ENOMEM;
		a->of = p;
		a->room = room;
	}
	call = &a->calls[a->nr_calls];
	a->of[a->nr_calls++] = of;
	*call = (struct remote_call){ .nr = (uint64_t)nr };
	memcpy(call->arg, arg, sizeof(call->arg));
	return 0;
}

#define add_remote(a, of, nr, ...) \
	map_job_call(a, of, nr, REMOTE_ARGS(__VA_ARGS__ __VA_OPT__(,) \
					0, 0, 0, 0, 0, 0))

static struct restore_object *object_of(const struct restore *r, uint32_t space)
{
	size_t i;

	for (i = 0; i < r->nr_objects; i++)
		if (r->objects[i].space == space)
			return &r->objects[i];
	return NULL;
}

int restore_object_fd(const struct restore *r, uint32_t space)
{
	const struct restore_object *o = object_of(r, space);

	return o ? o->fd : -ENOENT;
}

/*
 * A shared anonymous area is a file without a name: one that is mapped here
 * can be opened through its mapping.
 */
static int make_anon_object(uint64_t bytes)
{
	char path[96];
	void *p;
	int fd;

	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIxPTR "-%"
		 PRIxPTR, (uintptr_t)p, (uintptr_t)p + bytes);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	munmap(p, bytes);
	return fd;
}

static int make_object(struct restore *r, const Mspd__Object *obj)
{
	const uint64_t bytes = (obj->bytes + MAPS_PAGE - 1) & ~(MAPS_PAGE - 1);
	struct restore_object *v;
	int fd;

	if (obj->flags & VASI_OBJECT_MEMFD) {
		fd = memfd_create(obj->name ? obj->name : "",
				  MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (fd < 0)
			return -errno;
	} else {
		fd = make_anon_object(bytes);
		if (fd < 0)
			return fd;
	}
	v = reallocarray(r->objects, r->nr_objects + 1, sizeof(*v));
	if (!v) {
		close(fd);
		return -ENOMEM;
	}
	r->objects = v;
	v[r->nr_objects++] = (struct restore_object){
		.space = obj->space, .fd = fd,
	};
	return 0;
}

static bool is_listed(const Mspd__Maps *maps, uint32_t space)
{
	size_t i;

	for (i = 0; i < maps->n_objects; i++)
		if (maps->objects[i]->space == space)
			return true;
	return false;
}

/*
 * An object that the guest does not map now may come back, and nobody remembers
 * then what it had here: it is empty until it is told anew.
 */
static int empty_unlisted(struct restore *r, const Mspd__Maps *maps)
{
	size_t i;

	for (i = 0; i < r->nr_objects; i++) {
		const struct restore_object *o = &r->objects[i];

		if (!o->bytes || is_listed(maps, o->space))
			continue;
		if (fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      0, (off_t)((o->bytes + MAPS_PAGE - 1) &
					 ~(MAPS_PAGE - 1))))
			return restore_fail(r, -errno, "object.drop", "",
					    "cannot be emptied: %s",
					    strerror(errno));
	}
	return 0;
}

static int apply_objects(struct restore *r, const Mspd__Maps *maps)
{
	size_t i;
	int err;

	err = empty_unlisted(r, maps);
	if (err)
		return err;
	for (i = 0; i < maps->n_objects; i++) {
		const Mspd__Object *obj = maps->objects[i];
		struct restore_object *o = object_of(r, obj->space);

		if (!o) {
			err = make_object(r, obj);
			if (err)
				return restore_fail(r, err, "object.make",
						    obj->name,
						    "cannot make a memory object of %" PRIu64
						    " bytes: %s", obj->bytes,
						    strerror(-err));
			o = object_of(r, obj->space);
		}
		if (o->bytes == obj->bytes)
			continue;
		if ((obj->flags & VASI_OBJECT_MEMFD) &&
		    ftruncate(o->fd, (off_t)obj->bytes))
			return restore_fail(r, -errno, "object.size", obj->name,
					    "cannot have %" PRIu64 " bytes: %s",
					    obj->bytes, strerror(errno));
		o->bytes = obj->bytes;
	}
	return 0;
}

static int object_open(struct restore *r, uint32_t space, bool readonly,
		       bool *ret_keep)
{
	const struct restore_object *o = object_of(r, space);
	char path[64];
	int fd;

	if (!o)
		return -ENOENT;
	*ret_keep = !readonly;
	if (!readonly)
		return o->fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", o->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static struct opened *find_opened(struct map_job *a, const Mspd__Vma *vma)
{
	size_t i;

	for (i = 0; i < a->nr_files; i++) {
		struct opened *o = &a->files[i];

		if (vma->file ? o->id && !strcmp(o->id->path, vma->file->path) :
		    !o->id && o->space == vma->space &&
		    o->readonly == vma->readonly)
			return o;
	}
	return NULL;
}

int map_job_open(struct map_job *a, const Mspd__Vma *vma)
{
	struct opened *v, o = { .id = vma->file, .space = vma->space,
				.readonly = vma->readonly, .fd = -1 };
	char why[256] = "";
	int err;

	if ((!vma->file && !vma->space) || find_opened(a, vma))
		return 0;
	v = reallocarray(a->files, a->nr_files + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	a->files = v;
	if (vma->file) {
		err = fileid_open(vma->file, O_RDONLY, &o.fd, why, sizeof(why));
		if (err)
			return restore_fail(a->r, err, "vma.file",
					    vma->file->path, "%s", why);
	} else {
		err = object_open(a->r, vma->space, vma->readonly, &o.keep);
		if (err < 0)
			return restore_fail(a->r, err, "vma.object", "",
					    "cannot open memory object %u: %s",
					    vma->space, strerror(-err));
		o.fd = err;
	}
	a->files[a->nr_files++] = o;
	/* the mappings of a new guest use few files: one stop for each */
	return remote_send_fds(&a->r->remote, &o.fd, 1,
			       &a->files[a->nr_files - 1].nr);
}

/*
 * Parts of an area become one mapping again only if they have one anon_vma,
 * which comes with the first page that is written and is passed on when the
 * area is taken apart. So a page is written before anything else is done, one
 * that cannot be huge if there is such a one.
 */
static int give_anon_vma(struct map_job *a, const struct map_change *change)
{
	const uint64_t at = change->start % HUGE || change->end % HUGE == 0 ?
			    change->start : change->end - MAPS_PAGE;
	int err;

	err = add_remote(a, change, __NR_madvise, at, MAPS_PAGE,
			 MADV_POPULATE_WRITE);
	return err ? err : add_remote(a, change, __NR_madvise, at, MAPS_PAGE,
				      MADV_DONTNEED);
}

static int give_name(struct map_job *a, const struct map_change *change)
{
	const char *name = change->vma->name;
	uint64_t addr = remote_copy(&a->r->remote, name, strlen(name) + 1);

	return addr ? add_remote(a, NULL, __NR_prctl, PR_SET_VMA,
				 PR_SET_VMA_ANON_NAME, change->start,
				 change->end - change->start, addr) : 0;
}

int map_job_map(struct map_job *a, const struct map_change *change)
{
	const Mspd__Vma *vma = change->vma;
	const uint64_t len = change->end - change->start;
	const struct opened *o = find_opened(a, vma);
	/* what was writable once stays accounted, or it would not join others */
	const uint32_t prot = vma->prot |
		(vma->advice & ADVICE_ACCOUNTED ? PROT_WRITE : 0);
	uint64_t flags = MAP_FIXED_NOREPLACE |
			 (vma->flags & (MAP_SHARED | MAP_PRIVATE |
					MAP_GROWSDOWN));
	uint64_t offset = 0;
	int nr = -1, err;

	if (vma->advice & ADVICE_NORESERVE)
		flags |= MAP_NORESERVE;
	if (o) {
		nr = o->nr;
		offset = vma->offset + (change->start - vma->start);
	} else {
		flags |= MAP_ANONYMOUS;
	}
	err = add_remote(a, change, __NR_mmap, change->start, len, prot, flags,
			 nr, offset);
	if (!err && !o && (prot & PROT_WRITE))
		err = give_anon_vma(a, change);
	if (!err && prot != vma->prot)
		err = add_remote(a, change, __NR_mprotect, change->start, len,
				 vma->prot);
	if (!err && vma->name)
		err = give_name(a, change);
	return err;
}

static const struct advice {
	uint32_t bit;
	int on, off;
	bool may_fail;	/* the kernel may be built without it */
} advices[] = {
	{ ADVICE_SEQUENTIAL, MADV_SEQUENTIAL, MADV_NORMAL, false },
	{ ADVICE_RANDOM, MADV_RANDOM, MADV_NORMAL, false },
	{ ADVICE_DONTFORK, MADV_DONTFORK, MADV_DOFORK, false },
	{ ADVICE_DONTDUMP, MADV_DONTDUMP, MADV_DODUMP, false },
	{ ADVICE_HUGEPAGE, MADV_HUGEPAGE, 0, true },
	{ ADVICE_NOHUGEPAGE, MADV_NOHUGEPAGE, 0, true },
	{ ADVICE_MERGEABLE, MADV_MERGEABLE, MADV_UNMERGEABLE, true },
	{ ADVICE_WIPEONFORK, MADV_WIPEONFORK, MADV_KEEPONFORK, false },
};

int map_job_advise(struct map_job *a, const struct map_change *change)
{
	const uint64_t len = change->end - change->start;
	size_t i, j;
	int err = 0;

	/* what is switched off first: NORMAL would undo the other one */
	for (j = 0; j < 2; j++) {
		const uint32_t bits = j ? change->advice_on :
					  change->advice_off;

		for (i = 0; i < ARRAY_SIZE(advices) && !err; i++) {
			const struct advice *ad = &advices[i];

			if (!(bits & ad->bit) ||
			    (!j && ad->on == MADV_HUGEPAGE) ||
			    (!j && ad->on == MADV_NOHUGEPAGE))
				continue;
			err = add_remote(a, ad->may_fail ? NULL : change,
					 __NR_madvise, change->start, len,
					 j ? ad->on : ad->off);
		}
	}
	return err;
}

static int call_change(struct map_job *a, const struct map_change *change)
{
	const uint64_t len = change->end - change->start;

	switch (change->op) {
	case MAP_OP_UNMAP:
		return add_remote(a, change, __NR_munmap, change->start, len);
	case MAP_OP_MAP:
		return map_job_map(a, change);
	case MAP_OP_PROTECT:
		return add_remote(a, change, __NR_mprotect, change->start, len,
				  change->vma->prot);
	case MAP_OP_ADVISE:
		return map_job_advise(a, change);
	}
	return -EINVAL;
}

struct restore *map_job_restore(struct map_job *a)
{
	return a->r;
}

int map_job_run(struct map_job *a)
{
	size_t i, n;
	int err;

	if (!a->nr_calls)
		return 0;
	err = remote_batch(&a->r->remote, 0, a->calls, a->nr_calls);
	if (err)
		return err;
	n = a->nr_calls;
	a->nr_calls = 0;
	for (i = 0; i < n; i++) {
		const struct remote_call *call = &a->calls[i];
		char object[64];

		if (call->ret >= 0 || !a->of[i])
			continue;
		object_text(a->of[i], object, sizeof(object));
		return restore_fail(a->r, (int)call->ret,
				    call->nr == __NR_mmap ? "vma.map" :
				    "vma.change", object, "%s",
				    strerror((int)-call->ret));
	}
	return 0;
}

static int apply_changes(struct map_job *a, const Mspd__Maps *maps,
			 const struct map_change *changes, size_t n)
{
	size_t i;
	int err = 0;

	if (!n)
		return 0;
	for (i = 0; i < n && !err; i++)
		if (changes[i].op == MAP_OP_MAP)
			err = map_job_open(a, changes[i].vma);
	for (i = 0; i < n && !err; i++)
		err = call_change(a, &changes[i]);
	if (!err)
		err = map_job_run(a);
	if (!err)
		err = maps_unite(a, maps);
	for (i = 0; i < a->nr_files && !err; i++)
		err = add_remote(a, NULL, __NR_close, a->files[i].nr);
	if (!err)
		err = map_job_run(a);
	remote_reset(&a->r->remote);
	return err;
}

/* the blob makes room when the guest maps something where it is */
static int move_blob(struct restore *r, const Mspd__Maps *maps)
{
	const Mspd__Maps *lists[] = { r->maps, maps };
	const uint64_t base = r->remote.base, end = base + REMOTE_BLOB_BYTES;
	uint64_t to;
	size_t i;
	int err;

	for (i = 0; i < maps->n_vmas; i++)
		if (maps->vmas[i]->start < end && maps->vmas[i]->end > base)
			break;
	if (i == maps->n_vmas)
		return 0;
	/* not over itself either */
	to = maps_hole(lists, ARRAY_SIZE(lists), end, REMOTE_BLOB_BYTES);
	if (!to)
		return -ENOMEM;
	/* what is queued has its arguments at the old place */
	err = remote_flush(&r->remote);
	return err ? err : remote_map_blob(&r->remote, to);
}

static Mspd__Maps *copy_maps(const Mspd__Maps *maps)
{
	size_t len = mspd__maps__get_packed_size(maps);
	_cleanup_free_ uint8_t *buf = malloc(len ? len : 1);

	if (!buf)
		return NULL;
	mspd__maps__pack(maps, buf);
	return mspd__maps__unpack(NULL, len, buf);
}

int maps_apply(struct restore *r, const Mspd__Maps *maps)
{
	struct map_job a = { .r = r };
	struct map_change *changes = NULL;
	Mspd__Maps *copy = NULL;
	size_t i, n;
	int err;

	err = maps_valid(maps, USER_TOP);
	if (err)
		return restore_fail(r, err, "maps.list", "",
				    "the list of mappings is not in order");
	copy = copy_maps(maps);
	if (!copy)
		return -ENOMEM;
	err = apply_objects(r, maps);
	if (!err)
		err = move_blob(r, maps);
	if (!err)
		err = maps_diff(r->maps, maps, &changes, &n);
	if (!err)
		err = apply_changes(&a, maps, changes, n);
	for (i = 0; i < a.nr_files; i++)
		if (!a.files[i].keep)
			close(a.files[i].fd);
	free(a.files);
	free(a.calls);
	free(a.of);
	free(changes);
	if (err) {
		maps_free(copy);
		return err;
	}
	maps_free(r->maps);
	r->maps = copy;
	return 0;
}

int restore_maps(struct restore *r, const Mspd__Maps *maps)
{
	return maps_apply(r, maps);
}

int restore_drop(struct restore *r, const struct vasi_range *vec, size_t n)
{
	struct map_job a = { .r = r };
	size_t i;
	int err = 0;

	for (i = 0; i < n && !err; i++) {
		const uint64_t len = vec[i].pages * MAPS_PAGE;

		if (!vec[i].space) {
			/* part of the range may be unmapped: that is no fault */
			err = add_remote(&a, NULL, __NR_madvise, vec[i].start,
					 len, MADV_DONTNEED);
			continue;
		}
		err = restore_object_fd(r, vec[i].space);
		if (err < 0)
			break;
		err = fallocate(err, FALLOC_FL_PUNCH_HOLE |
				FALLOC_FL_KEEP_SIZE, (off_t)vec[i].start,
				(off_t)len) ? -errno : 0;
	}
	if (!err)
		err = map_job_run(&a);
	free(a.calls);
	free(a.of);
	return err;
}

int maps_target_check(const struct restore_options *opt,
		      const Mspd__Image *early, struct findings *f)
{
	const Mspd__Maps *maps = early->maps;
	const char *last = NULL;
	size_t i;

	(void)opt;
	if (!maps || maps_valid(maps, USER_TOP)) {
		finding_add(f, FINDING_ERROR, "maps.list", "",
			    "the list of mappings is not in order");
		return 0;
	}
	for (i = 0; i < maps->n_vmas; i++) {
		const Mspd__FileId *id = maps->vmas[i]->file;
		char why[256] = "";

		/* mappings of one file stand together */
		if (!id || (last && !strcmp(last, id->path)))
			continue;
		last = id->path;
		if (fileid_check(id, why, sizeof(why)))
			finding_add(f, FINDING_ERROR, "vma.file", id->path,
				    "%s", why);
	}
	return 0;
}

int maps_prepare(struct restore *r, const Mspd__Image *early)
{
	return early->maps ? maps_apply(r, early->maps) : -EPROTO;
}

static int lock_memory(struct restore *r, const Mspd__Maps *maps)
{
	size_t i;
	int err = 0;

	for (i = 0; i < maps->n_vmas && !err; i++) {
		const Mspd__Vma *vma = maps->vmas[i];

		if (vma->advice & ADVICE_LOCKED)
			err = remote_queue(&r->remote, 0, "mlock2", __NR_mlock2,
					   vma->start, vma->end - vma->start,
					   vma->advice & ADVICE_LOCKONFAULT ?
					   MLOCK_ONFAULT : 0);
	}
	return err;
}

int maps_finish(struct restore *r, const Mspd__Image *final)
{
	size_t i;
	int err;

	if (!final->maps)
		return -EPROTO;
	err = maps_apply(r, final->maps);
	if (!err)
		err = lock_memory(r, final->maps);
	for (i = 0; i < final->maps->n_objects && !err; i++) {
		const Mspd__Object *obj = final->maps->objects[i];
		int fd = restore_object_fd(r, obj->space);
		int seals = (int)obj->seals & ~fcntl(fd, F_GET_SEALS);

		/* its last page was written as a whole */
		if ((obj->flags & VASI_OBJECT_MEMFD) &&
		    ftruncate(fd, (off_t)obj->bytes))
			err = restore_fail(r, -errno, "object.size", obj->name,
					   "cannot have %" PRIu64 " bytes: %s",
					   obj->bytes, strerror(errno));
		if (!err && obj->seals && seals && fcntl(fd, F_ADD_SEALS, seals))
			err = restore_fail(r, -errno, "object.seals", obj->name,
					   "cannot be sealed: %s",
					   strerror(errno));
	}
	return err;
}
