// SPDX-License-Identifier: GPL-2.0
/*
 * Every command with sizes, flags and states that it must refuse, each with
 * otherwise valid input and its own errno
 */
#include <stddef.h>
#include <sys/prctl.h>

#include "../vasi_test.h"

#define PAGE 4096

/* room for the largest command and a tail */
union any {
	uint32_t head[2];
	char bytes[4096];
};

/**
 * struct row - a command as the table below knows it
 * @name: for the results
 * @nr: command number
 * @size: of the structure
 * @min: shortest that is taken
 * @loose: needs no attach
 * @fill: makes it valid for an attached, tracked, running guest
 * @good: what it then returns
 */
struct row {
	const char *name;
	unsigned long nr;
	uint32_t size;
	uint32_t min;
	bool loose;
	void (*fill)(union any *a);
	int good;
};

static struct vasi_range range;
static struct vasi_range vec[64];
static struct vasi_object objects[64];
static struct vasi_mapping mappings[256];
static struct vasi_stream_info infos[64];
static char page[16 * PAGE];
static uint64_t guest_page;
static uint64_t stream_id;

static void fill_none(union any *a)
{
	(void)a;
}

static void fill_attach(union any *a)
{
	struct vasi_attach *c = (void *)a;

	/* the open is attached already */
	c->pid = getppid();
	c->service = VASI_SERVICE_SOURCE;
	c->stream_id = 77;
}

static void fill_track(union any *a)
{
	struct vasi_track *c = (void *)a;

	c->op = VASI_TRACK_START;
	c->tracker = VASI_TRACKER_DBIT;
}

static void fill_harvest(union any *a)
{
	struct vasi_harvest *c = (void *)a;

	c->start = guest_page;
	c->end = guest_page + PAGE;
	c->vec = (uintptr_t)vec;
	c->vec_len = 64;
}

static void fill_mark(union any *a)
{
	struct vasi_mark *c = (void *)a;

	range = (struct vasi_range) { .start = guest_page, .pages = 1 };
	c->vec = (uintptr_t)&range;
	c->vec_len = 1;
}

static void fill_objects(union any *a)
{
	struct vasi_objects *c = (void *)a;

	c->vec = (uintptr_t)objects;
	c->vec_len = 64;
}

static void fill_mappings(union any *a)
{
	struct vasi_mappings *c = (void *)a;

	c->vec = (uintptr_t)mappings;
	c->vec_len = 256;
}

static void fill_pages(union any *a)
{
	struct vasi_pages *c = (void *)a;

	range = (struct vasi_range) { .start = guest_page, .pages = 1 };
	c->vec = (uintptr_t)&range;
	c->vec_len = 1;
	c->data = (uintptr_t)page;
	c->data_len = PAGE;
}

static void fill_suspend(union any *a)
{
	struct vasi_suspend *c = (void *)a;

	c->deadline_ms = 20000;
}

static void fill_streams(union any *a)
{
	struct vasi_streams *c = (void *)a;

	c->vec = (uintptr_t)infos;
	c->vec_len = 64;
}

static void fill_destroy(union any *a)
{
	struct vasi_destroy *c = (void *)a;

	c->stream_id = stream_id;
	c->service = VASI_SERVICE_SOURCE;
	c->deadline_ms = 20000;
}

static void fill_signal(union any *a)
{
	struct vasi_signal *c = (void *)a;

	c->code = VASI_SIGNAL_FAILOVER;
}

#define END(type, last) \
	sizeof(type), offsetof(type, last) + sizeof(((type *)0)->last)

static const struct row rows[] = {
	{ "QUERY", VASI_QUERY, END(struct vasi_query, __reserved), true,
	  fill_none, 0 },
	{ "ATTACH", VASI_ATTACH, END(struct vasi_attach, __reserved), true,
	  fill_attach, -EISCONN },
	{ "TRACK", VASI_TRACK, END(struct vasi_track, tracker), false,
	  fill_track, 0 },
	{ "HARVEST", VASI_HARVEST, END(struct vasi_harvest, out_flushes),
	  false, fill_harvest, 0 },
	{ "MARK", VASI_MARK, END(struct vasi_mark, out_count), false,
	  fill_mark, 0 },
	{ "OBJECTS", VASI_OBJECTS, END(struct vasi_objects, out_count), false,
	  fill_objects, 0 },
	{ "PAGES_READ", VASI_PAGES_READ, END(struct vasi_pages, out_bytes),
	  false, fill_pages, 0 },
	{ "PAGES_WRITE", VASI_PAGES_WRITE, END(struct vasi_pages, out_bytes),
	  false, fill_pages, 0 },
	{ "SUSPEND", VASI_SUSPEND, END(struct vasi_suspend, __reserved), false,
	  fill_suspend, 0 },
	{ "RESUME", VASI_RESUME, END(struct vasi_resume, flags), false,
	  fill_none, 0 },
	{ "STATE", VASI_STATE, END(struct vasi_state, out_len), false,
	  fill_none, -EMSGSIZE },
	{ "SEAL", VASI_SEAL, END(struct vasi_seal, flags), false, fill_none,
	  -EBUSY },
	{ "STREAMS", VASI_STREAMS, END(struct vasi_streams, out_count), true,
	  fill_streams, 0 },
	{ "DESTROY", VASI_DESTROY, END(struct vasi_destroy, deadline_ms), true,
	  fill_destroy, -EBUSY },
	{ "SIGNAL", VASI_SIGNAL, END(struct vasi_signal, reason), false,
	  fill_signal, 0 },
	{ "INFO", VASI_INFO, END(struct vasi_info, out_count), false,
	  fill_none, 0 },
	{ "PROGRESS", VASI_PROGRESS, END(struct vasi_progress, bytes_left),
	  false, fill_none, 0 },
	{ "MAPPINGS", VASI_MAPPINGS, END(struct vasi_mappings, out_count),
	  false, fill_mappings, 0 },
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

static int run(int fd, const struct row *r, union any *a, uint32_t size)
{
	a->head[0] = size;
	return vasi_cmd(fd, r->nr, a);
}

static int expect(int fd, const struct row *r, uint32_t size, uint32_t flags,
		  int tail, int good, const char *what)
{
	union any a = {0};
	int ret;

	/* what it takes back must be there */
	if (r->nr == VASI_RESUME && !good)
		must(!suspend(fd));
	r->fill(&a);
	a.head[1] = flags;
	if (tail)
		a.bytes[r->size + tail - 1] = 1;
	ret = run(fd, r, &a, size);
	if (ret != good)
		note("%s: %s: %d instead of %d", r->name, what, ret, good);
	return ret == good;
}

static void sizes(int fd)
{
	size_t i;

	for (i = 0; i < NR_ROWS; i++) {
		const struct row *r = &rows[i];
		bool good = true;

		good &= expect(fd, r, r->size, 0, 0, r->good, "valid");
		good &= expect(fd, r, r->min - 1, 0, 0, -EINVAL, "short");
		good &= expect(fd, r, 4, 0, 0, -EINVAL, "size alone");
		good &= expect(fd, r, 0, 0, 0, -EINVAL, "size 0");
		good &= expect(fd, r, r->size + 64, 0, 0, r->good,
			       "long, of zeros");
		good &= expect(fd, r, r->size + 64, 0, 1, -E2BIG,
			       "long, nonzero at once");
		good &= expect(fd, r, r->size + 64, 0, 64, -E2BIG,
			       "long, nonzero at its end");
		good &= expect(fd, r, r->size, 1u << 31, 0, -EOPNOTSUPP,
			       "unknown flag");
		good &= vasi_cmd(fd, r->nr, (void *)8) == -EFAULT;
		ok(good, "%s: sizes and flags", r->name);
	}
}

static void numbers(int fd)
{
	union any a = { .head = { sizeof(struct vasi_query) } };
	bool good = true;

	good &= vasi_cmd(fd, _IO(VASI_TYPE, VASI_CMD_END), &a) == -ENOTTY;
	good &= vasi_cmd(fd, _IO(VASI_TYPE, 0xff), &a) == -ENOTTY;
	good &= vasi_cmd(fd, _IO(VASI_TYPE + 1, 0), &a) == -ENOTTY;
	good &= vasi_cmd(fd, _IOWR(VASI_TYPE, 0, struct vasi_query), &a) ==
		-ENOTTY;
	ok(good, "unknown commands");
}

static void unattached(void)
{
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	bool good = true;
	size_t i;

	must(fd >= 0);
	for (i = 0; i < NR_ROWS; i++)
		if (!rows[i].loose)
			good &= expect(fd, &rows[i], rows[i].size, 0, 0,
				       -ENODEV, "not attached");
	ok(good, "what needs a stream says so without");
	ok(poll(&p, 1, 0) == 1 && p.revents == POLLERR, "poll without one");
	close(fd);
}

static int with_harvest(int fd, void (*change)(struct vasi_harvest *))
{
	union any a = {0};

	fill_harvest(&a);
	a.head[0] = sizeof(struct vasi_harvest);
	change((void *)&a);
	return vasi_cmd(fd, VASI_HARVEST, &a);
}

static void h_reserved(struct vasi_harvest *h) { h->__reserved = 1; }
static void h_member(struct vasi_harvest *h) { h->member = 1; }
static void h_space(struct vasi_harvest *h) { h->space = 999; }
static void h_odd(struct vasi_harvest *h) { h->start++; }
static void h_odd_end(struct vasi_harvest *h) { h->end++; }
static void h_empty(struct vasi_harvest *h) { h->end = h->start; }
static void h_no_vec(struct vasi_harvest *h) { h->vec_len = 0; }
static void h_huge_vec(struct vasi_harvest *h) { h->vec_len = 65537; }
static void h_bad_vec(struct vasi_harvest *h) { h->vec = 8; }

static void arguments(int fd)
{
	union any a = {0};
	struct vasi_pages *p = (void *)&a;
	struct vasi_signal *s = (void *)&a;
	struct vasi_track *t = (void *)&a;
	bool good;

	ok(with_harvest(fd, h_reserved) == -EOPNOTSUPP, "harvest: reserved");
	ok(with_harvest(fd, h_member) == -ENOENT, "harvest: no such member");
	ok(with_harvest(fd, h_space) == -ENOENT, "harvest: no such object");
	good = with_harvest(fd, h_odd) == -EINVAL &&
	       with_harvest(fd, h_odd_end) == -EINVAL &&
	       with_harvest(fd, h_empty) == -EINVAL &&
	       with_harvest(fd, h_no_vec) == -EINVAL &&
	       with_harvest(fd, h_huge_vec) == -EINVAL;
	ok(good, "harvest: wrong ranges and vectors");

	/* the evidence must not be lost with the copy */
	fill_mark(&a);
	a.head[0] = sizeof(struct vasi_mark);
	must(!vasi_cmd(fd, VASI_MARK, &a));
	ok(with_harvest(fd, h_bad_vec) == -EFAULT, "harvest: unwritable vector");
	memset(&a, 0, sizeof(a));
	fill_harvest(&a);
	a.head[0] = sizeof(struct vasi_harvest);
	ok(!vasi_cmd(fd, VASI_HARVEST, &a) &&
	   ((struct vasi_harvest *)&a)->out_pages == 1,
	   "what it had taken is reported again");

	memset(&a, 0, sizeof(a));
	fill_pages(&a);
	p->size = sizeof(*p);
	p->data_len = PAGE - 1;
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EMSGSIZE &&
	   p->out_bytes == PAGE, "pages: buffer too small");
	fill_pages(&a);
	range.start = guest_page + 1;
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EINVAL, "pages: not aligned");
	range.start = guest_page;
	range.pages = 1ull << 60;
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EOVERFLOW, "pages: wraps");
	range.pages = 4097;
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EINVAL, "pages: batch too long");
	range = (struct vasi_range) { .start = PAGE, .pages = 1 };
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EFAULT, "pages: not mapped");
	range = (struct vasi_range) { .start = guest_page, .pages = 1,
				      .kind = 9 };
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EOPNOTSUPP, "pages: no kind");
	fill_pages(&a);
	p->data = 8;
	ok(vasi_cmd(fd, VASI_PAGES_READ, p) == -EFAULT,
	   "pages: unwritable buffer");

	memset(&a, 0, sizeof(a));
	s->size = sizeof(*s);
	s->code = 99;
	ok(vasi_cmd(fd, VASI_SIGNAL, s) == -EOPNOTSUPP, "signal: no such code");
	s->code = VASI_SIGNAL_FAILOVER;
	s->reason = 99u << 24;
	ok(vasi_cmd(fd, VASI_SIGNAL, s) == -EOPNOTSUPP, "signal: no entity");
	s->reason = 0;
	s->code = VASI_SIGNAL_RESUMED;
	good = vasi_cmd(fd, VASI_SIGNAL, s) == -EBUSY;
	s->code = VASI_SIGNAL_COMPLETE;
	good &= vasi_cmd(fd, VASI_SIGNAL, s) == -EBUSY;
	ok(good, "signal: wrong state");
	memset(&a, 0, sizeof(a));
	t->size = sizeof(*t);
	t->op = 7;
	t->tracker = VASI_TRACKER_DBIT;
	ok(vasi_cmd(fd, VASI_TRACK, t) == -EOPNOTSUPP, "track: no such op");
	t->op = VASI_TRACK_STOP;
	must(!vasi_cmd(fd, VASI_TRACK, t));
	fill_harvest(&a);
	memset(&a, 0, sizeof(a));
	fill_harvest(&a);
	a.head[0] = sizeof(struct vasi_harvest);
	ok(vasi_cmd(fd, VASI_HARVEST, &a) == -EBUSY, "harvest: not tracking");
}

static int attach_with(struct vasi_attach *c)
{
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC), ret;

	must(fd >= 0);
	c->size = sizeof(*c);
	ret = vasi_cmd(fd, VASI_ATTACH, c);
	close(fd);
	return ret;
}

static void attaching(pid_t guest)
{
	struct vasi_attach c = { .pid = guest, .service = 1, .stream_id = 5 };

	ok(attach_with(&c) == -EBUSY, "attach: guest in another stream");
	c.stream_id = stream_id;
	ok(attach_with(&c) == -EEXIST, "attach: ID in use");
	c.service = 3;
	ok(attach_with(&c) == -EOPNOTSUPP, "attach: no such service");
	c.service = 1;
	c.stream_id = 0;
	ok(attach_with(&c) == -EINVAL, "attach: no ID");
	c.stream_id = 5;
	c.pid = getpid();
	ok(attach_with(&c) == -EINVAL, "attach: to oneself");
	c.pid = 1;
	ok(attach_with(&c) == -EINVAL, "attach: to PID 1");
	c.pid = 2;
	ok(attach_with(&c) == -EINVAL, "attach: to a kernel thread");
	c.pid = 0;
	ok(attach_with(&c) == -EINVAL, "attach: to PID 0");
	c.pid = 4000000;
	ok(attach_with(&c) == -ESRCH, "attach: to nobody");
	c.__reserved = 1;
	ok(attach_with(&c) == -EOPNOTSUPP, "attach: reserved");
	c.__reserved = 0;
	c.flags = VASI_ATTACH_JOIN;
	ok(attach_with(&c) == -EINVAL, "attach: join with a PID");
	c.pid = 0;
	ok(attach_with(&c) == -ENOENT, "attach: join of no stream");
	c.stream_id = stream_id;
	c.flags = VASI_ATTACH_SEALED;
	ok(attach_with(&c) == -EBUSY, "attach: take over what is not sealed");
	c.flags = VASI_ATTACH_JOIN | VASI_ATTACH_SEALED;
	ok(attach_with(&c) == -EINVAL, "attach: both flags");
	c.flags = VASI_ATTACH_JOIN;
	ok(!attach_with(&c) && c.out_pid == guest, "attach: join");
	ok(!attach_with(&c), "attach: join again");
}

static pid_t sleeper(void)
{
	pid_t pid = fork_guest();

	while (!pid)
		pause();
	return pid;
}

static void foreign_user(void)
{
	pid_t guest = sleeper(), pid;
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC), status;
	struct vasi_attach c = { .size = sizeof(c), .pid = guest, .service = 1,
				 .stream_id = 6 };
	struct vasi_streams l = { .size = sizeof(l) };

	must(fd >= 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		must(!setgid(1000) && !setuid(1000));
		_exit((vasi_cmd(fd, VASI_ATTACH, &c) == -EPERM) +
		      2 * (vasi_cmd(fd, VASI_STREAMS, &l) == -EPERM) +
		      4 * (open("/dev/vasi", O_RDWR) < 0));
	}
	must(waitpid(pid, &status, 0) == pid);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 7,
	   "a foreign user is refused");
	if (WEXITSTATUS(status) != 7)
		note("status %x", status);
	close(fd);
	end_guest(guest);
}

static void limits(void)
{
	struct vasi_attach c = { .size = sizeof(c), .service = 1,
				 .flags = VASI_ATTACH_JOIN };
	int fds[70], n = 1, ret = 0, i;
	pid_t guest = sleeper();

	c.stream_id = 8;
	must(!vasi_attach_as(guest, 1, 8, &fds[0]));
	while (!ret && n < 70) {
		fds[n] = open("/dev/vasi", O_RDWR | O_CLOEXEC);
		ret = vasi_cmd(fds[n++], VASI_ATTACH, &c);
	}
	ok(ret == -ENOSPC && n == 65, "more opens than a stream may have");
	for (i = 0; i < n; i++)
		close(fds[i]);
	end_guest(guest);
}

int main(void)
{
	pid_t guest;
	int fd;

	guest_page = (uintptr_t)mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*(char *)guest_page = 1;
	guest = sleeper();
	stream_id = new_stream_id();
	must(!vasi_attach_as(guest, VASI_SERVICE_SOURCE, stream_id, &fd));

	numbers(fd);
	sizes(fd);
	unattached();
	attaching(guest);
	arguments(fd);
	foreign_user();
	limits();
	close(fd);
	end_guest(guest);
	return tap_end();
}
