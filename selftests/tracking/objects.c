// SPDX-License-Identifier: GPL-2.0
/*
 * Memory objects: found, numbered, harvested by extents, read and written
 * without moving the guest's file position
 */
#include <stddef.h>

#include "../vasi_test.h"
#include "track.h"

#define OBJECT_PAGES 64ul

enum what { MEMFD, ANON, WRITE_FD, POSITION, PEEK };

static int guest_fd = -1;
static char *guest_map;

static int64_t act(int what, int64_t *arg)
{
	switch (what) {
	case MEMFD:
		guest_fd = memfd_create("object", MFD_CLOEXEC);
		must(!ftruncate(guest_fd, OBJECT_PAGES * PAGE));
		guest_map = mmap(NULL, OBJECT_PAGES * PAGE, PROT_READ |
				 PROT_WRITE, MAP_SHARED, guest_fd, 0);
		memset(guest_map + 8 * PAGE, 3, 4 * PAGE);
		return lseek(guest_fd, 12345, SEEK_SET);
	case ANON:
		guest_map = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		*guest_map = 9;
		return (int64_t)guest_map;
	case WRITE_FD:
		return pwrite(guest_fd, "x", 1, arg[0]);
	case POSITION:
		return lseek(guest_fd, 0, SEEK_CUR);
	case PEEK:
		return guest_map[arg[0]];
	}
	return -1;
}

static struct vasi_object found[64];

static int list(int fd)
{
	struct vasi_objects c = {
		.size = sizeof(c),
		.vec = (uintptr_t)found,
		.vec_len = 64,
	};
	int ret = vasi_cmd(fd, VASI_OBJECTS, &c);

	return ret ?: (int)c.out_count;
}

static struct vasi_object *with_bytes(int n, uint64_t bytes, uint32_t flag)
{
	int i;

	for (i = 0; i < n; i++)
		if (found[i].bytes == bytes && found[i].flags & flag)
			return &found[i];
	return NULL;
}

static int extents(int fd, uint32_t space, struct vasi_range *vec, int len)
{
	struct vasi_harvest c = {
		.size = sizeof(c),
		.space = space,
		.vec = (uintptr_t)vec,
		.vec_len = len,
	};
	int ret = vasi_cmd(fd, VASI_HARVEST, &c);

	return ret ?: (int)c.out_count;
}

static int move(int fd, unsigned long nr, uint32_t space, uint64_t at,
		void *data)
{
	struct vasi_range r = { .start = at, .pages = 1, .space = space };
	struct vasi_pages c = {
		.size = sizeof(c),
		.vec = (uintptr_t)&r,
		.vec_len = 1,
		.data = (uintptr_t)data,
		.data_len = PAGE,
	};

	return vasi_cmd(fd, nr, &c);
}

static void source(void)
{
	struct vasi_range vec[16];
	struct vasi_object *o, *anon;
	char page[PAGE];
	struct doer d;
	uint32_t space;
	int n;

	doer_start(&d, act);
	must(doer_do(&d, MEMFD, 0, 0, 0) == 12345);
	n = list(d.fd);
	o = with_bytes(n, OBJECT_PAGES * PAGE, VASI_OBJECT_MEMFD);
	ok(o && o->space && o->nr_vmas == 1 && o->populated == 4 * PAGE &&
	   !(o->flags & VASI_OBJECT_OUTSIDE), "a memfd is an object");
	must(o);
	space = o->space;
	/* the test's own box is mapped by two */
	anon = with_bytes(n, PAGE, VASI_OBJECT_ANON);
	ok(anon && anon->flags & VASI_OBJECT_OUTSIDE,
	   "one that another process maps is told");

	n = extents(d.fd, space, vec, 16);
	ok(n == 3 && vec[0].kind == VASI_KIND_HOLE && vec[0].pages == 8 &&
	   vec[1].kind == VASI_KIND_DATA && vec[1].start == 8 * PAGE &&
	   vec[1].pages == 4 && vec[2].kind == VASI_KIND_HOLE &&
	   vec[2].pages == OBJECT_PAGES - 12, "its extents are told");
	must(doer_do(&d, WRITE_FD, 20 * PAGE, 0, 0) == 1);
	ok(extents(d.fd, space, vec, 16) == 5, "also what write(2) populated");
	ok(!move(d.fd, VASI_PAGES_READ, space, 20 * PAGE, page) &&
	   page[0] == 'x' && !page[1], "its pages are read");
	ok(doer_do(&d, POSITION, 0, 0, 0) == 12345,
	   "the guest's file position stays");
	ok(move(d.fd, VASI_PAGES_READ, 99, 0, page) == -ENOENT,
	   "no such object");
	ok(move(d.fd, VASI_PAGES_READ, space, OBJECT_PAGES * PAGE, page) ==
	   -EFAULT, "behind its end");
	doer_do(&d, ANON, 0, 0, 0);
	n = list(d.fd);
	o = with_bytes(n, OBJECT_PAGES * PAGE, VASI_OBJECT_MEMFD);
	ok(o && o->space == space && with_bytes(n, 4 * PAGE, VASI_OBJECT_ANON),
	   "a new one gets a number, an old one keeps its own");
	doer_end(&d);
}

static void target(void)
{
	struct doer d;
	struct vasi_object *o;
	char page[PAGE];
	int n;

	doer_start(&d, act);
	close(d.fd);
	must(!vasi_attach_as(d.pid, VASI_SERVICE_TARGET, new_stream_id(),
			     &d.fd));
	must(doer_do(&d, MEMFD, 0, 0, 0) == 12345);
	n = list(d.fd);
	o = with_bytes(n, OBJECT_PAGES * PAGE, VASI_OBJECT_MEMFD);
	must(o);
	memset(page, 42, sizeof(page));
	ok(!move(d.fd, VASI_PAGES_WRITE, o->space, 30 * PAGE, page) &&
	   doer_do(&d, PEEK, 30 * PAGE + 5, 0, 0) == 42,
	   "on a target its pages are written");
	doer_end(&d);
}

int main(void)
{
	source();
	target();
	return tap_end();
}
