// SPDX-License-Identifier: GPL-2.0
/*
 * Content of pages, memory objects and flags of mappings, without the module
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tap.h"
#include "usertrack.h"

#define OBJECT_PAGES	64

enum what { MAP, PROTECT, UNMAP, FILL, SUM, MEMFD, SHARED, FILE_MAP, EXEC,
	    ADVISE, FORK };

static int64_t map_memfd(int64_t *arg)
{
	int fd = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *p;

	if (fd < 0 || ftruncate(fd, OBJECT_PAGES * PAGE - 100))
		return -1;
	p = mmap(NULL, OBJECT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		 fd, 0);
	p[3 * PAGE] = 3;
	p[4 * PAGE] = 4;
	p[63 * PAGE] = 63;
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	*arg = fd;
	return (int64_t)p;
}

static int64_t act(int what, int64_t *arg)
{
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	char *p = (char *)arg[0];
	size_t len = (size_t)arg[1] * PAGE;
	int64_t sum = 0;
	pid_t pid;
	int fd;

	switch (what) {
	case MAP:
		return (int64_t)mmap(NULL, len, PROT_READ | PROT_WRITE, anon,
				     -1, 0);
	case PROTECT:
		return mprotect(p, len, (int)arg[2]);
	case UNMAP:
		return munmap(p, len);
	case ADVISE:
		return madvise(p, len, (int)arg[2]);
	case FILL:
		for (int64_t i = 0; i < arg[1]; i++)
			memset(p + i * (int64_t)PAGE, (int)(arg[2] + i), PAGE);
		return 0;
	case SUM:
		for (size_t i = 0; i < len; i++)
			sum += (unsigned char)p[i];
		return sum;
	case MEMFD:
		return map_memfd(arg);
	case SHARED:
		p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		p[PAGE] = 1;
		return (int64_t)p;
	case FILE_MAP:
		fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		p = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
		close(fd);
		return (int64_t)p;
	case FORK:
		pid = fork();
		while (!pid)
			pause();
		return pid;
	case EXEC:
		execl("/bin/sleep", "sleep", "60", NULL);
		return -errno;
	}
	return -1;
}

static struct doer guest;

#define DO(what, a, b, c) doer_do(&guest, what, (int64_t)(a), \
				  (int64_t)(b), (int64_t)(c))

static char data[64 * PAGE];

static struct vasi_range range(uint64_t at, uint64_t pages, uint8_t kind)
{
	return (struct vasi_range){ .start = at, .pages = pages,
				    .kind = kind };
}

static void reading(uint64_t a)
{
	struct vasi_range vec[] = {
		range(a + 2 * PAGE, 1, VASI_KIND_DATA),
		range(a + 9 * PAGE, 3, VASI_KIND_HOLE),
		range(a + 4 * PAGE, 2, VASI_KIND_DATA),
		range(a + 5 * PAGE, 1, VASI_KIND_ZERO),
		range(a + 8 * PAGE, 1, VASI_KIND_DATA),
	};
	size_t done = 0;
	int ret;

	ret = user_mem_read(&guest.mem, vec, 5, data, sizeof(data), &done);
	ok(!ret && done == 5 && data[0] == 12 && data[PAGE] == 14 &&
	   data[2 * PAGE] == 15 && data[3 * PAGE] == 18,
	   "ranges are read, one behind another");
	DO(PROTECT, a + 4 * PAGE, 1, PROT_NONE);
	memset(data, 0, sizeof(data));
	ret = user_mem_read(&guest.mem, vec, 5, data, sizeof(data), &done);
	ok(!ret && done == 5 && data[PAGE] == 14 && data[2 * PAGE] == 15 &&
	   data[3 * PAGE] == 18, "also what the guest may not read");
	DO(PROTECT, a + 4 * PAGE, 1, PROT_READ | PROT_WRITE);
	DO(UNMAP, a + 5 * PAGE, 1, 0);
	ret = user_mem_read(&guest.mem, vec, 5, data, sizeof(data), &done);
	ok(!ret && done == 2, "up to a range that is not mapped whole");
	ret = user_mem_read(&guest.mem, vec + 2, 3, data, sizeof(data), &done);
	ok(ret == -EFAULT, "which is an error as the first");
	ret = user_mem_read(&guest.mem, vec, 5, data, PAGE, &done);
	ok(ret == -EMSGSIZE, "too little room");
	vec[0].start++;
	ok(user_mem_read(&guest.mem, vec, 1, data, sizeof(data), &done) ==
	   -EINVAL, "an odd address");
	vec[0] = range(a, UINT64_MAX / PAGE, VASI_KIND_DATA);
	ok(user_mem_read(&guest.mem, vec, 1, data, sizeof(data), &done) ==
	   -EOVERFLOW, "more than there is");
}

/* more entries than a call takes, and bytes than there is at once */
static void many(void)
{
	const size_t n = 3000;
	struct vasi_range *vec = calloc(n, sizeof(*vec));
	char *all = malloc(n * PAGE);
	uint64_t a = (uint64_t)DO(MAP, 0, 2 * n, 0);
	size_t done = 0, good = 0;

	must(vec && all);
	DO(FILL, a, 2 * n, 0);
	for (size_t i = 0; i < n; i++)
		vec[i] = range(a + 2 * i * PAGE, 1, VASI_KIND_DATA);
	must(!user_mem_read(&guest.mem, vec, n, all, n * PAGE, &done));
	for (size_t i = 0; i < n; i++)
		good += all[i * PAGE] == (char)(2 * i) &&
			all[i * PAGE + PAGE - 1] == (char)(2 * i);
	ok(done == n && good == n, "thousands of ranges by one read");
	for (size_t i = 0; i < n; i++)
		memset(all + i * PAGE, (int)(2 * i + 1), PAGE);
	must(!user_mem_write(&guest.mem, vec, n, all, n * PAGE, &done));
	good = 0;
	for (size_t i = 0; i < n; i++)
		good += DO(SUM, a + 2 * i * PAGE, 1, 0) ==
			(int64_t)((2 * i + 1) % 256 * PAGE);
	ok(done == n && good == n, "and by one write");
	DO(UNMAP, a, 2 * n, 0);
	free(vec);
	free(all);
}

static void writing(void)
{
	uint64_t a = (uint64_t)DO(MAP, 0, 16, 0), f;
	struct vasi_range vec[3];
	size_t done = 0;
	int ret;

	DO(FILL, a, 4, 10);
	DO(PROTECT, a + PAGE, 1, PROT_READ);
	memset(data, 1, sizeof(data));
	vec[0] = range(a, 2, VASI_KIND_DATA);
	vec[1] = range(a + 2 * PAGE, 6, VASI_KIND_ZERO);
	vec[2] = range(a + 9 * PAGE, 1, VASI_KIND_DATA);
	ret = user_mem_write(&guest.mem, vec, 3, data, sizeof(data), &done);
	ok(!ret && done == 3 && DO(SUM, a, 2, 0) == 2 * (int64_t)PAGE &&
	   DO(SUM, a + 9 * PAGE, 1, 0) == (int64_t)PAGE,
	   "written, also where the guest may only read");
	ok(!DO(SUM, a + 2 * PAGE, 6, 0), "zero ranges are cleared");
	f = (uint64_t)DO(FILE_MAP, 0, 0, 0);
	must(DO(SUM, f, 2, 0) != 0);
	vec[0] = range(f, 1, VASI_KIND_ZERO);
	vec[1] = range(f + PAGE, 1, VASI_KIND_DATA);
	ret = user_mem_write(&guest.mem, vec, 2, data, sizeof(data), &done);
	ok(!ret && done == 2 && !DO(SUM, f, 1, 0) &&
	   DO(SUM, f + PAGE, 1, 0) == (int64_t)PAGE,
	   "a file's private mapping gets pages of its own");
	vec[0] = range(a, 1, VASI_KIND_HOLE);
	ret = user_mem_write(&guest.mem, vec, 1, data, 0, &done);
	ok(!ret && done == 1 && DO(SUM, a, 1, 0) == (int64_t)PAGE,
	   "holes are passed over");
}

static long faults(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_minflt;
}

/* what writes to memory nobody has touched, @fill: by that way */
static long write_new(int fill, uint64_t a, uint64_t b)
{
	/* the guest may only read it; a page that is there; another mapping */
	const struct vasi_range vec[] = {
		range(a, 64, VASI_KIND_DATA),
		range(a + 100 * PAGE, 8, VASI_KIND_ZERO),
		range(a + 128 * PAGE, 64, VASI_KIND_DATA),
		range(b, 2, VASI_KIND_DATA),
	};
	size_t done = 0;
	char *all = malloc(130 * PAGE);
	long before;
	int ret;

	must(all);
	for (size_t i = 0; i < 130; i++)
		memset(all + i * PAGE, (int)i + 1, PAGE);
	DO(FILL, a + 130 * PAGE, 1, 200);
	DO(PROTECT, a, 64, PROT_READ);
	before = faults();
	guest.mem.fill = fill;
	ret = user_mem_write(&guest.mem, vec, 4, all, 130 * PAGE, &done);
	guest.mem.fill = -1;
	before = faults() - before;
	ok(!ret && done == 4, "ranges with and without pages are written");
	ret = 0;
	for (size_t i = 0; i < 64; i++)
		ret += DO(SUM, a + i * PAGE, 1, 0) == (int64_t)((i + 1) * PAGE) &&
		       DO(SUM, a + (128 + i) * PAGE, 1, 0) ==
		       (int64_t)((i + 65) * PAGE);
	ok(ret == 64 && !DO(SUM, a + 64 * PAGE, 64, 0) &&
	   !DO(SUM, a + 192 * PAGE, 64, 0) &&
	   DO(SUM, b, 2, 0) == (129 + 130) * (int64_t)PAGE,
	   "each page has what it was given, others nothing");
	free(all);
	return before;
}

static void filling(void)
{
	uint64_t a = (uint64_t)DO(MAP, 0, 256, 0);
	uint64_t b = (uint64_t)DO(MAP, 0, 256, 0);
	uint64_t c = (uint64_t)DO(MAP, 0, 4, 0);
	struct uffdio_register reg = {
		.range = { a, 256 * PAGE }, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_api api = { .api = UFFD_API };
	int fd = doer_uffd(&guest, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	long plain, filled;

	must(fd >= 0 && !ioctl(fd, UFFDIO_API, &api) &&
	     !ioctl(fd, UFFDIO_REGISTER, &reg));
	filled = write_new(fd, a, c);
	plain = write_new(-1, b, c);
	/* the first range of a, whose pages need no look-up */
	ok(filled + 60 <= plain, "%ld pages are faulted in instead of %ld",
	   filled, plain);
	close(fd);
	DO(UNMAP, a, 256, 0);
	DO(UNMAP, b, 256, 0);
	DO(UNMAP, c, 4, 0);
}

static const struct vasi_object *object(const struct vasi_object *v, size_t n,
					uint32_t flags)
{
	for (size_t i = 0; i < n; i++)
		if ((v[i].flags & ~VASI_OBJECT_OUTSIDE) == flags &&
		    v[i].bytes > PAGE)
			return &v[i];
	return NULL;
}

static void content(const struct vasi_object *o, uint64_t at)
{
	struct vasi_range vec[16], r = range(2 * PAGE, 3, VASI_KIND_DATA);
	size_t n, done = 0;
	uint64_t end;
	int ret;

	ret = user_mem_object_harvest(&guest.mem, o->space, 0, 0, 0, vec, 16,
				      &n, &end);
	ok(!ret && n == 4 && vec[0].kind == VASI_KIND_HOLE &&
	   vec[0].pages == 3 && vec[1].kind == VASI_KIND_DATA &&
	   vec[1].pages == 2 && vec[2].kind == VASI_KIND_HOLE &&
	   vec[3].kind == VASI_KIND_DATA && vec[3].start == 63 * PAGE &&
	   vec[3].pages == 1 && vec[3].space == o->space &&
	   end == OBJECT_PAGES * PAGE, "what an object has, and its holes");
	ret = user_mem_object_harvest(&guest.mem, o->space, 0, 0, 1, vec, 16,
				      &n, &end);
	ok(!ret && n == 2 && vec[1].pages == 1 && end == 4 * PAGE,
	   "a limit of one page");
	r.space = o->space;
	ret = user_mem_read(&guest.mem, &r, 1, data, sizeof(data), &done);
	ok(!ret && done == 1 && !data[0] && data[PAGE] == 3 &&
	   data[2 * PAGE] == 4, "its content");
	r = vec[1];
	r.start = 63 * PAGE;
	memset(data, 1, sizeof(data));
	ret = user_mem_read(&guest.mem, &r, 1, data, sizeof(data), &done);
	ok(!ret && data[0] == 63 && !data[PAGE - 1] && data[PAGE] == 1,
	   "the part of a page at its end");
	DO(FILL, at + 5 * PAGE, 1, 9);
	r.start = 5 * PAGE;
	ret = user_mem_read(&guest.mem, &r, 1, data, sizeof(data), &done);
	ok(!ret && data[0] == 9, "as it is now");
	r.space = 77;
	ok(user_mem_read(&guest.mem, &r, 1, data, sizeof(data), &done) ==
	   -ENOENT, "no such object");
}

static void objects(void)
{
	uint64_t a = (uint64_t)DO(MEMFD, 0, 0, 0);
	struct vasi_object v[16];
	const struct vasi_object *o;
	uint32_t space;
	size_t n = 0;
	pid_t child;
	int ret;

	DO(SHARED, 0, 0, 0);
	ret = user_mem_objects(&guest.mem, false, v, 0, &n);
	/* the box is one, too */
	ok(ret == -EMSGSIZE && n == 3, "objects, too many of them");
	must(!user_mem_objects(&guest.mem, false, v, 16, &n));
	o = object(v, n, VASI_OBJECT_ANON);
	ok(n == 3 && o && o->bytes == 8 * PAGE && o->nr_vmas == 1,
	   "shared memory without a name");
	o = object(v, n, VASI_OBJECT_MEMFD);
	must(o);
	space = o->space;
	ok(o->flags == VASI_OBJECT_MEMFD && o->nr_vmas == 1 &&
	   o->bytes == OBJECT_PAGES * PAGE - 100 &&
	   o->populated == 3 * PAGE && o->seals == F_SEAL_SHRINK,
	   "a memfd, which nobody else maps");
	content(o, a);
	child = (pid_t)DO(FORK, 0, 0, 0);
	sleep(3);
	must(!user_mem_objects(&guest.mem, true, v, 16, &n));
	o = object(v, n, VASI_OBJECT_MEMFD);
	ok(o && !(o->flags & VASI_OBJECT_OUTSIDE),
	   "others are not looked at in the pause");
	must(!user_mem_objects(&guest.mem, false, v, 16, &n));
	o = object(v, n, VASI_OBJECT_MEMFD);
	ok(o && o->flags & VASI_OBJECT_OUTSIDE && o->space == space,
	   "mapped by another process, too");
	kill(child, SIGKILL);
}

static uint32_t flags_at(uint64_t at, bool suspended, bool tracked)
{
	struct vasi_mapping v[256];
	size_t n = 0;

	must(!user_mem_mappings(&guest.mem, suspended, tracked, v, 256, &n));
	for (size_t i = 0; i < n; i++)
		if (v[i].start <= at && v[i].end > at)
			return v[i].flags;
	return 0;
}

static void mappings(void)
{
	const uint32_t plain = VASI_MAP_READ | VASI_MAP_WRITE |
			       VASI_MAP_MAYWRITE | VASI_MAP_ACCOUNTED;
	uint64_t a;
	size_t n;

	DO(MAP, 0, 16, 0);
	a = (uint64_t)DO(MAP, 0, 16, 0);
	/* what has no content loses the mark that it was writable once */
	DO(FILL, a, 16, 0);
	DO(PROTECT, a, 1, PROT_NONE);
	DO(PROTECT, a + 15 * PAGE, 1, PROT_NONE);
	a += PAGE;
	ok(flags_at(a, false, false) == plain, "flags of a mapping");
	ok(flags_at(a - PAGE, false, false) ==
	   (VASI_MAP_MAYWRITE | VASI_MAP_ACCOUNTED), "and of its neighbour");
	DO(ADVISE, a, 14, MADV_DONTFORK);
	DO(PROTECT, a, 2, PROT_READ);
	ok(flags_at(a, false, false) == ((plain | VASI_MAP_DONTFORK) &
					 ~VASI_MAP_WRITE),
	   "advice, and another protection");
	DO(PROTECT, a + 4 * PAGE, 2, PROT_NONE);
	ok(flags_at(a + 5 * PAGE, true, false) ==
	   (VASI_MAP_MAYWRITE | VASI_MAP_ACCOUNTED | VASI_MAP_DONTFORK),
	   "in the pause flags come from before");
	must(!tracker_track(guest.t, true));
	must(!harvest(&guest, 0, 0x7ffffffff000, NULL, NULL, NULL));
	DO(ADVISE, a, 14, MADV_DOFORK);
	DO(PROTECT, a, 14, PROT_READ | PROT_WRITE);
	ok(flags_at(a, false, true) == plain, "ours are not told");
	DO(PROTECT, a, 14, PROT_READ);
	if (!strcmp(track_chosen()->name, "wpasync"))
		ok(flags_at(a, false, false) & VASI_MAP_USERFAULTFD,
		   "those of others are");
	ok(user_mem_mappings(&guest.mem, false, true, NULL, 0, &n) ==
	   -EMSGSIZE && n > 4, "too many of them");
}

/* how often pages from @a on are told by one pass; each other one is there */
static void told_once(uint64_t a, size_t n, const char *what)
{
	static struct vasi_range vec[8192];
	uint64_t at = 0;
	size_t told = 0, twice = 0, got;
	unsigned char *times = calloc(n, 1);

	must(times);
	do {
		must(!tracker_harvest(guest.t, at, 0, 0, vec,
				      sizeof(vec) / sizeof(vec[0]), &got, &at));
		for (size_t i = 0; i < got; i++)
			for (uint64_t p = 0; p < vec[i].pages; p++) {
				uint64_t page = (vec[i].start - a) / PAGE + p;

				if (vec[i].start + p * PAGE < a || page >= n ||
				    vec[i].kind == VASI_KIND_HOLE)
					continue;
				told += page % 2 == 0;
				twice += times[page]++;
			}
	} while (got);
	ok(told == n / 2 && !twice, "%s: %zu of %zu told, %zu twice", what, told,
	   n / 2, twice);
	free(times);
}

/* the kernel finds more regions than it has room for at once */
static void many_regions(void)
{
	const size_t n = 3000;
	uint64_t a = (uint64_t)DO(MAP, 0, n, 0);

	for (size_t i = 0; i < n; i += 2)
		DO(FILL, a + i * PAGE, 1, i);
	told_once(a, n, "pages apart, for the first time");
	for (size_t i = 0; i < n; i += 2)
		DO(FILL, a + i * PAGE, 1, i + 1);
	told_once(a, n, "and when they were written");
	DO(UNMAP, a, n, 0);
}

/* one area after another comes and goes, each of them for itself */
static void churn(void)
{
	for (;;) {
		char *p[8];

		for (size_t i = 0; i < 8; i++) {
			p[i] = mmap(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE |
				    MAP_ANONYMOUS, -1, 0);
			mprotect(p[i] + PAGE, PAGE, PROT_NONE);
		}
		for (size_t i = 0; i < 8; i++)
			munmap(p[i], 3 * PAGE);
	}
}

/* what is there all the time is listed each time */
static void mappings_that_change(void)
{
	static struct vasi_mapping v[512];
	struct doer busy;
	size_t n = 0, listed = 0, tries;
	uint64_t a;
	int ret = 0;

	doer_start(&busy, act, churn);
	a = (uint64_t)doer_do(&busy, MAP, 0, 16, 0);
	for (tries = 0; tries < 300 && !ret; tries++) {
		ret = user_mem_mappings(&busy.mem, false, false, v,
					sizeof(v) / sizeof(v[0]), &n);
		for (size_t i = 0; i < n && !ret; i++)
			listed += v[i].start <= a &&
				  v[i].end >= a + 16 * PAGE;
	}
	ok(!ret && listed == tries, "a guest that maps all the time: %s, %zu of %zu",
	   strerror(-ret), listed, tries);
	doer_kill(&busy);
	doer_end(&busy);
}

static void the_end(uint64_t a)
{
	struct vasi_range r = range(a, 1, VASI_KIND_DATA);
	size_t done;

	doer_kill(&guest);
	ok(user_mem_read(&guest.mem, &r, 1, data, sizeof(data), &done) ==
	   -ESRCH && user_mem_write(&guest.mem, &r, 1, data, sizeof(data),
				    &done) == -ESRCH, "a guest that is gone");
}

int main(void)
{
	uint64_t a;

	if (!track_chosen()) {
		printf("1..0 # SKIP no tracker works on this host\n");
		return 4;
	}
	doer_start(&guest, act, NULL);
	a = (uint64_t)DO(MAP, 0, 16, 0);
	DO(FILL, a, 16, 10);
	reading(a);
	many();
	writing();
	filling();
	objects();
	mappings();
	many_regions();
	mappings_that_change();
	the_end(a);
	doer_end(&guest);
	return tap_end();
}
