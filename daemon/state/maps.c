// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of the guest, on the source
 *
 * The lines of /proc/PID/maps, with the flags that the guest access lists.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "lib/cleanup.h"
#include "state/fileid.h"
#include "state/maps.h"
#include "state/procfile.h"
#include "state/resource.h"

#define READ_TRIES	20
#define OBJECTS_FIRST	64
#define MAPPINGS_FIRST	1024

/**
 * struct mapped_file - a file that mappings name
 * @dev: as the lines have it
 * @ino: as well
 * @path: without what the kernel adds
 * @id: identity, looked up once; NULL: /dev/zero
 * @bytes: of one without a name: its length, in whole pages, as of @look
 * @look: 0: it was not measured yet
 */
struct mapped_file {
	uint64_t dev, ino;
	char *path;
	Mspd__FileId *id;
	uint64_t bytes;
	uint64_t look;
};

/**
 * struct maps_source - what the source remembers between looks
 * @last: mappings with their flags
 * @files: identities
 * @nr_files: how many
 * @objects: memory objects, as last listed
 * @nr_objects: how many
 * @round: lists made
 * @look: looks taken
 * @final: files are as long as they were at the last look, or it is an error
 */
struct maps_source {
	struct map_text last;
	struct mapped_file *files;
	size_t nr_files;
	struct vasi_object *objects;
	size_t nr_objects;
	uint32_t round;
	uint64_t look;
	bool final;
};

static void maps_close(struct capture *c)
{
	struct maps_source *s = c->maps;
	size_t i;

	if (!s)
		return;
	for (i = 0; i < s->nr_files; i++) {
		free(s->files[i].path);
		mspd__file_id__free_unpacked(s->files[i].id, NULL);
	}
	free(s->files);
	free(s->objects);
	map_text_free(&s->last);
	free(s);
	c->maps = NULL;
}

static void refuse(struct capture *c, const struct map_line *line,
		   const char *check, const char *text)
{
	char object[128];

	snprintf(object, sizeof(object), "mapping %" PRIx64 "-%" PRIx64
		 " (%.60s)", line->start, line->end,
		 *line->name ? line->name : "anonymous");
	finding_add(c->findings, FINDING_ERROR, check, object, "%s", text);
}

static int read_text(struct capture *c, struct map_text *ret)
{
	char *text;
	int r;

	r = procfile_read(c->proc, "maps", &text, NULL);
	return r ? r : map_text_parse(ret, text);
}

static int list_flags(struct capture *c, struct vasi_mapping **ret,
		      size_t *ret_n)
{
	_cleanup_free_ struct vasi_mapping *v = NULL;
	size_t room = MAPPINGS_FIRST;
	int r;

	do {
		free(v);
		v = calloc(room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		r = c->guest->access->mappings(c->guest, v, room, ret_n);
		room = *ret_n + MAPPINGS_FIRST;
	} while (r == -EMSGSIZE);
	if (!r)
		*ret = steal_ptr(&v);
	return r;
}

/*
 * One look at the lines and one at the flags: a guest that runs may be between.
 * What it took apart or away then is seen as it is now; what it mapped then, by
 * the next look.
 */
static int look(struct capture *c, struct maps_source *s)
{
	_cleanup_free_ struct vasi_mapping *v = NULL;
	struct map_text t;
	size_t n = 0;
	int r;

	r = read_text(c, &t);
	if (r)
		return r;
	r = list_flags(c, &v, &n);
	if (!r)
		r = map_text_flags(&t, v, n);
	if (r > 0)
		r = c->suspended ? -EPROTO : 0;
	if (r) {
		map_text_free(&t);
		return r;
	}
	map_text_free(&s->last);
	s->last = t;
	s->look++;
	return 0;
}

static int list_objects(struct capture *c, struct maps_source *s)
{
	size_t room = s->nr_objects > OBJECTS_FIRST ? s->nr_objects :
						      OBJECTS_FIRST;
	int r;

	do {
		struct vasi_object *v;

		v = reallocarray(s->objects, room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		s->objects = v;
		s->nr_objects = 0;
		r = c->guest->access->objects(c->guest, v, room,
					      &s->nr_objects);
		room = s->nr_objects + OBJECTS_FIRST;
	} while (r == -EMSGSIZE);
	if (r)
		s->nr_objects = 0;
	return r;
}

static const struct vasi_object *find_object(const struct maps_source *s,
					     const struct map_line *line)
{
	size_t i;

	for (i = 0; i < s->nr_objects; i++) {
		const struct vasi_object *o = &s->objects[i];

		if (o->ino == line->ino &&
		    ((uint64_t)o->dev_major << 20 | o->dev_minor) == line->dev)
			return o;
	}
	return NULL;
}

static int is_named(int fd, const struct map_line *line)
{
	char path[32], link[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return -errno;
	link[n] = '\0';
	return map_line_names(line, link);
}

/*
 * A guest that runs may have mapped another file at the very place since it was
 * listed: -EAGAIN. Who else renames the file of one that is suspended does no
 * harm.
 */
static int open_mapped(struct capture *c, const struct map_line *line,
		       int flags)
{
	_cleanup_close_ int fd = -1;
	char name[64];
	int r;

	snprintf(name, sizeof(name), "map_files/%" PRIx64 "-%" PRIx64,
		 line->start, line->end);
	fd = openat(c->proc, name, flags | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = c->suspended ? 1 : is_named(fd, line);
	if (r < 0)
		return r;
	return r ? steal_fd(&fd) : -EAGAIN;
}

/* the name without what the kernel adds when the file has no name any more */
static char *file_path(const struct map_line *line)
{
	static const char gone[] = " (deleted)";
	size_t len = strlen(line->name), tail = sizeof(gone) - 1;

	if (len > tail && !strcmp(line->name + len - tail, gone))
		len -= tail;
	return strndup(line->name, len);
}

static bool is_gone(const char *name)
{
	size_t len = strlen(name);

	return len > 10 && !strcmp(name + len - 10, " (deleted)");
}

/* nothing to be found by this name: its content is not worth reading */
static int identify_deleted(const char *path, int fd, Mspd__FileId **ret)
{
	int r = fileid_capture(path, fd, FILEID_NO_CONTENT, ret);

	if (!r) {
		(*ret)->has_deleted = 1;
		(*ret)->deleted = 1;
	}
	return r;
}

static int identify(struct capture *c, const struct map_line *line,
		    const char *path, Mspd__FileId **ret)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	fd = open_mapped(c, line, O_RDONLY | O_NONBLOCK);
	/* a deleted file of a network file system cannot be opened again */
	if (fd == -ENOENT && is_gone(line->name)) {
		fd = open_mapped(c, line, O_PATH);
		return fd < 0 ? fd : identify_deleted(path, fd, ret);
	}
	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		return -errno;
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 5)) {
		*ret = NULL;	/* /dev/zero: anonymous memory */
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return -ENODEV;
	if (!st.st_nlink)
		return identify_deleted(path, fd, ret);
	r = fileid_capture(path, fd, FILEID_CONTENT, ret);
	if (r == -EFBIG)
		r = fileid_capture(path, fd, FILEID_NO_CONTENT, ret);
	return r;
}

static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + MAPS_PAGE - 1) & ~(uint64_t)(MAPS_PAGE - 1);
}

static int measure_now(struct capture *c, const struct map_line *line,
		       uint64_t *ret)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	fd = open_mapped(c, line, O_PATH);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		return -errno;
	*ret = whole_pages((uint64_t)st.st_size);
	return 0;
}

/*
 * Whoever has the file open can change its length. Behind the end nothing can
 * be read, and that looks like a medium that fails: so where the end is has to
 * be known. All mappings of a list have it from one look.
 */
static int measure(struct capture *c, const struct maps_source *s,
		   const struct map_line *line, struct mapped_file *v)
{
	int r;

	if (v->look && (s->final || v->look == s->look))
		return 0;
	r = measure_now(c, line, &v->bytes);
	if (!r)
		v->look = s->look;
	return r;
}

static int find_file(struct capture *c, struct maps_source *s,
		     const struct map_line *line, struct mapped_file **ret)
{
	_cleanup_free_ char *path = NULL;
	struct mapped_file *v;
	size_t i;
	int r;

	path = file_path(line);
	if (!path)
		return -ENOMEM;
	for (i = 0; i < s->nr_files; i++) {
		v = &s->files[i];
		if (v->dev == line->dev && v->ino == line->ino &&
		    !strcmp(v->path, path)) {
			*ret = v;
			return 0;
		}
	}
	v = reallocarray(s->files, s->nr_files + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->files = v;
	v += s->nr_files;
	*v = (struct mapped_file){ .dev = line->dev, .ino = line->ino };
	r = identify(c, line, path, &v->id);
	if (r)
		return r;
	v->path = steal_ptr(&path);
	s->nr_files++;
	*ret = v;
	return 0;
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

static enum vma_special special_of(const char *name)
{
	static const char *const names[] = {
		[VMA_STACK] = "[stack]", [VMA_HEAP] = "[heap]",
		[VMA_VDSO] = "[vdso]", [VMA_VVAR] = "[vvar]",
		[VMA_VVAR_VCLOCK] = "[vvar_vclock]",
	};
	size_t i;

	for (i = VMA_STACK; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return (enum vma_special)i;
	return VMA_PLAIN;
}

/* anonymous memory there, with all that can be read here */
static void whole_vma(const struct mapped_file *file,
		      const struct map_line *line, Mspd__Vma *vma)
{
	const uint64_t len = line->end - line->start;

	vma->has_whole = 1;
	vma->whole = 1;
	vma->has_readable = 1;
	if (file->bytes > line->offset)
		vma->readable = file->bytes - line->offset;
	if (vma->readable > len)
		vma->readable = len;
}

static int private_vma(struct capture *c, struct maps_source *s,
		       const struct map_line *line, Mspd__Vma *vma)
{
	struct mapped_file *file;
	int r;

	if (!line->ino) {
		static const char anon[] = "[anon:";
		size_t len = strlen(line->name);

		if (!strncmp(line->name, anon, sizeof(anon) - 1)) {
			vma->name = strndup(line->name + sizeof(anon) - 1,
					    len - sizeof(anon));
			return vma->name ? 0 : -ENOMEM;
		}
		if (*line->name && special_of(line->name) == VMA_PLAIN)
			refuse(c, line, "vma.kind",
			       "is of a kind that cannot be moved");
		return 0;
	}
	r = find_file(c, s, line, &file);
	if (!r && file->id && file->id->deleted)
		r = measure(c, s, line, file);
	/* unmapped since it was listed */
	if ((r == -ENOENT || r == -EAGAIN) && !c->suspended)
		return -EAGAIN;
	if (r == -ENODEV) {
		refuse(c, line, "vma.device", "is a mapping of a device");
		return 0;
	}
	if (r) {
		refuse(c, line, "vma.file", strerror(-r));
		return 0;
	}
	if (!file->id)
		return 0;
	if (file->id->deleted) {
		whole_vma(file, line, vma);
		return 0;
	}
	vma->file = copy_id(file->id);
	vma->has_offset = 1;
	vma->offset = line->offset;
	return vma->file ? 0 : -ENOMEM;
}

static int shared_vma(struct capture *c, struct maps_source *s,
		      const struct map_line *line, Mspd__Vma *vma)
{
	const struct vasi_object *o = find_object(s, line);

	/*
	 * What nobody can write through is like a private mapping that was
	 * never written; glibc maps its gconv-modules.cache so.
	 */
	if (!o && !(line->flags & VMFLAG_MAYWRITE) && !is_gone(line->name)) {
		vma->has_readonly = 1;
		vma->readonly = 1;
		return private_vma(c, s, line, vma);
	}
	if (!o || !is_gone(line->name)) {
		refuse(c, line, "vma.shared-file",
		       "is a shared mapping of a file");
		return 0;
	}
	if (o->flags & VASI_OBJECT_HUGETLB)
		refuse(c, line, "vma.hugetlb", "is made of huge TLB pages");
	else if (o->flags & VASI_OBJECT_SYSV)
		refuse(c, line, "vma.sysv", "is a System V segment");
	else if (o->flags & VASI_OBJECT_OUTSIDE)
		refuse(c, line, "vma.shared",
		       "is shared with another process");
	vma->has_space = 1;
	vma->space = o->space;
	vma->has_offset = 1;
	vma->offset = line->offset;
	if (!(line->flags & VMFLAG_MAYWRITE)) {
		vma->has_readonly = 1;
		vma->readonly = 1;
	}
	return 0;
}

static void refuse_flag(struct capture *c, const struct map_line *line)
{
	static const struct {
		const char *flag, *check, *text;
	} texts[] = {
		{ "ht", "vma.hugetlb", "is made of huge TLB pages" },
		{ "io", "vma.device", "is memory of a device" },
		{ "pf", "vma.device", "is memory of a device" },
		{ "mm", "vma.device", "is memory of a device" },
		{ "um", "vma.userfaultfd", "is watched by a userfaultfd" },
		{ "uw", "vma.userfaultfd", "is watched by a userfaultfd" },
		{ "ui", "vma.userfaultfd", "is watched by a userfaultfd" },
		{ "ss", "vma.shadow-stack", "is a shadow stack" },
		{ "pk", "vma.pkey", "has a memory protection key" },
		{ "sl", "vma.sealed", "is sealed by mseal()" },
		{ "dp", "vma.droppable", "may be dropped by the kernel" },
	};
	char text[80];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(texts); i++) {
		if (!strcmp(texts[i].flag, line->refused)) {
			refuse(c, line, texts[i].check, texts[i].text);
			return;
		}
	}
	snprintf(text, sizeof(text), "has VmFlags \"%s\", unknown here",
		 line->refused);
	refuse(c, line, "vma.flags", text);
}

static int convert(struct capture *c, struct maps_source *s,
		   const struct map_line *line, Mspd__Vma *vma)
{
	const enum vma_special special = special_of(line->name);

	vma->start = line->start;
	vma->end = line->end;
	vma->prot = line->prot;
	vma->flags = line->shared ? MAP_SHARED : MAP_PRIVATE;
	if (special) {
		vma->has_special = 1;
		vma->special = special;
	}
	if (special >= VMA_VDSO)
		return 0;
	if (line->refused[0])
		refuse_flag(c, line);
	if (line->flags & VMFLAG_GROWSDOWN)
		vma->flags |= MAP_GROWSDOWN;
	vma->advice = line->flags & ADVICE_ALL;
	vma->has_advice = vma->advice != 0;
	return line->shared ? shared_vma(c, s, line, vma) :
			      private_vma(c, s, line, vma);
}

/* "/memfd:NAME (deleted)" -> NAME */
static char *object_name(const struct map_line *line)
{
	const char *name = line->name;

	if (!strncmp(name, "/memfd:", 7))
		name += 7;
	return strndup(name, strlen(name) - (is_gone(name) ? 10 : 0));
}

static int convert_objects(const struct maps_source *s, Mspd__Maps *maps)
{
	size_t i, j;

	maps->objects = calloc(s->nr_objects + 1, sizeof(*maps->objects));
	if (!maps->objects)
		return -ENOMEM;
	for (i = 0; i < s->nr_objects; i++) {
		const struct vasi_object *o = &s->objects[i];
		const struct map_line *line = NULL;
		Mspd__Object *obj;

		for (j = 0; j < s->last.n && !line; j++)
			if (find_object(s, &s->last.v[j]) == o)
				line = &s->last.v[j];
		if (!line)
			continue;	/* all its mappings are gone */
		obj = malloc(sizeof(*obj));
		if (!obj)
			return -ENOMEM;
		mspd__object__init(obj);
		maps->objects[maps->n_objects++] = obj;
		obj->space = o->space;
		obj->bytes = o->bytes;
		obj->flags = o->flags;
		obj->has_seals = o->seals != 0;
		obj->seals = o->seals;
		obj->name = object_name(line);
		if (!obj->name)
			return -ENOMEM;
	}
	return 0;
}

static int convert_all(struct capture *c, struct maps_source *s,
		       Mspd__Maps *maps)
{
	const struct map_text *t = &s->last;
	size_t i;
	int r = 0;

	maps->round = s->round;
	maps->vmas = calloc(t->n + 1, sizeof(*maps->vmas));
	if (!maps->vmas)
		return -ENOMEM;
	for (i = 0; i < t->n && !r; i++) {
		Mspd__Vma *vma;

		if (t->v[i].start >= USER_TOP)
			continue;	/* [vsyscall] is everybody's */
		vma = malloc(sizeof(*vma));
		if (!vma)
			return -ENOMEM;
		mspd__vma__init(vma);
		maps->vmas[maps->n_vmas++] = vma;
		r = convert(c, s, &t->v[i], vma);
	}
	return r ? r : convert_objects(s, maps);
}

int maps_capture(struct capture *c, Mspd__Maps **ret)
{
	int i, r = -EAGAIN;

	if (!c->maps) {
		c->maps = calloc(1, sizeof(*c->maps));
		if (!c->maps)
			return -ENOMEM;
	}
	for (i = 0; i < READ_TRIES && r == -EAGAIN; i++) {
		Mspd__Maps *maps;

		r = look(c, c->maps);
		if (!r)
			r = list_objects(c, c->maps);
		if (r)
			return r;
		maps = malloc(sizeof(*maps));
		if (!maps)
			return -ENOMEM;
		mspd__maps__init(maps);
		r = convert_all(c, c->maps, maps);
		if (!r)
			*ret = maps;
		else
			maps_free(maps);
	}
	if (!r)
		c->maps->round++;
	return r;
}

static int maps_check(struct capture *c)
{
	Mspd__Maps *maps;
	int r = maps_capture(c, &maps);

	if (!r)
		maps_free(maps);
	return r;
}

/* 1: it reaches as far as when its pages were read */
static int length_still(struct capture *c, const struct map_line *line,
			const struct mapped_file *v)
{
	uint64_t bytes;
	int r = measure_now(c, line, &bytes);

	return r ? r : bytes == v->bytes;
}

/*
 * Pages that the guest never wrote are those of the target's file, which was
 * compared with the file here as it was in the beginning.
 */
static int file_still(struct capture *c, const struct mapped_file *v)
{
	const struct map_text *t = &c->maps->last;
	_cleanup_close_ int fd = -1;
	size_t i;
	int r;

	for (i = 0; i < t->n; i++)
		if (t->v[i].dev == v->dev && t->v[i].ino == v->ino)
			break;
	if (i == t->n || !v->id)
		return 0;
	if (v->id->deleted) {
		r = length_still(c, &t->v[i], v);
	} else {
		fd = open_mapped(c, &t->v[i], O_PATH);
		/* it has lost its name since, and cannot be opened without */
		if (fd == -ENOENT)
			return 0;
		r = fd < 0 ? fd : fileid_still(v->id, fd);
	}
	if (r < 0)
		return r;
	if (!r)
		refuse(c, &t->v[i], "vma.file",
		       "is of a file that was changed during the migration");
	return 0;
}

static int maps_capture_image(struct capture *c, enum capture_when when,
			      Mspd__Image *img)
{
	size_t i;
	int r;

	if (c->maps)
		c->maps->final = when == CAPTURE_FINAL;
	r = maps_capture(c, &img->maps);
	if (c->maps)
		c->maps->final = false;
	for (i = 0; !r && when == CAPTURE_FINAL && i < c->maps->nr_files; i++)
		r = file_still(c, &c->maps->files[i]);
	return r;
}

const struct resource resource_maps = {
	.name = "maps",
	.check = maps_check,
	.capture = maps_capture_image,
	.target_check = maps_target_check,
	.prepare = maps_prepare,
	.finish = maps_finish,
	.close = maps_close,
};
