// SPDX-License-Identifier: GPL-2.0
#define SHIM_ITSELF
#include "useraccess/shim.h"

#include <errno.h>
#include <linux/vasi.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "guest/guest.h"

#define MAX_OPENS	1024

/* by descriptor; @guest is NULL until it is attached */
static struct open {
	int used;
	struct guest *guest;
} opens[MAX_OPENS];

static const struct guest_access *const a = &guest_user;

int shim_usable(void)
{
	if (!geteuid() && !a->probe(NULL))
		return 1;
	printf("1..0 # SKIP needs root and a cgroup2 mount\n");
	fflush(stdout);
	return 0;
}

long shim_syscall(long nr, ...)
{
	long v[6];
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		v[i] = va_arg(ap, long);
	va_end(ap);
	if (nr == SYS_delete_module) {
		errno = EBUSY;
		return -1;
	}
	return syscall(nr, v[0], v[1], v[2], v[3], v[4], v[5]);
}

int shim_open(const char *path, int flags, ...)
{
	va_list ap;
	int fd, mode;

	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	if (strcmp(path, "/dev/vasi"))
		return open(path, flags, mode);
	fd = eventfd(0, flags & O_CLOEXEC ? EFD_CLOEXEC : 0);
	if (fd >= MAX_OPENS)
		abort();
	if (fd >= 0)
		opens[fd] = (struct open){ .used = 1 };
	return fd;
}

static struct open *open_of(int fd)
{
	return fd >= 0 && fd < MAX_OPENS && opens[fd].used ? &opens[fd] : NULL;
}

int shim_close(int fd)
{
	struct open *o = open_of(fd);

	if (o) {
		if (o->guest)
			a->close(o->guest);
		*o = (struct open){};
	}
	return close(fd);
}

static struct guest *any_of(const struct vasi_attach *c)
{
	for (int i = 0; i < MAX_OPENS; i++) {
		struct guest *g = opens[i].guest;

		if (g && g->stream_id == c->stream_id &&
		    g->service == c->service)
			return g;
	}
	return NULL;
}

static int attach(int fd, struct open *o, struct vasi_attach *c)
{
	struct guest *other = any_of(c);
	int r;

	if (o->guest)
		return -EISCONN;
	if (c->flags & VASI_ATTACH_JOIN)
		r = other ? a->join(&o->guest, other) : -ENOENT;
	else if (c->flags & VASI_ATTACH_SEALED)
		r = a->takeover(&o->guest, c->service, c->stream_id);
	else
		r = a->attach(&o->guest, c->pid, c->service, c->stream_id);
	if (r)
		return r;
	c->out_pid = o->guest->pid;
	dup3(a->pollfd(o->guest), fd, O_CLOEXEC);
	return 0;
}

static int suspend(struct guest *g, struct vasi_suspend *c)
{
	struct guest_holdup h = {};
	struct vasi_info info = {};
	uint64_t before;
	int r;

	if (c->flags & ~VASI_SUSPEND_PARKED || c->__reserved)
		return -EOPNOTSUPP;
	a->info(g, &info);
	before = info.out_count[VASI_COUNT_SUSPEND_NS];
	r = a->suspend(g, c->deadline_ms, c->flags & VASI_SUSPEND_PARKED, &h);

	if (r == -ETIMEDOUT) {
		c->out_tid = h.tid;
		c->out_reason = h.reason;
		memcpy(c->out_comm, h.comm, sizeof(c->out_comm));
	}
	if (r || a->info(g, &info))
		return r;
	c->out_threads = info.out_stream.threads;
	c->out_ns = info.out_count[VASI_COUNT_SUSPEND_NS] - before;
	return 0;
}

/* the access takes the seal off unasked */
static int resume(struct guest *g, const struct vasi_resume *c)
{
	struct vasi_info info;

	a->info(g, &info);
	return info.out_stream.flags & VASI_STREAM_SEALED &&
	       !(c->flags & VASI_RESUME_UNSEAL) ? -EBUSY : a->resume(g);
}

/* as the kernel would: it is the test that may pass nonsense */
static int copy_out(uint64_t to, void *from, size_t len)
{
	struct iovec local = { from, len };
	struct iovec remote = { (void *)(uintptr_t)to, len };

	return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) !=
	       (ssize_t)len;
}

static int state(struct guest *g, struct vasi_state *c)
{
	void *buf;
	size_t len;
	int r;

	if (c->member)
		return -ENOENT;
	if (c->buf & 7)
		return -EINVAL;
	r = a->state(g, &buf, &len);
	if (r)
		return r;
	c->out_len = len;
	if (len > c->buf_len)
		r = -EMSGSIZE;
	else if (copy_out(c->buf, buf, len))
		r = -EFAULT;
	free(buf);
	return r;
}

static int streams(struct vasi_streams *c)
{
	size_t n = 0;
	int r = a->sealed((void *)(uintptr_t)c->vec, c->vec_len, &n);

	c->out_count = (uint32_t)n;
	return r;
}

static int pages(struct guest *g, struct vasi_pages *c, int write)
{
	void *vec = (void *)(uintptr_t)c->vec, *data = (void *)(uintptr_t)c->data;
	size_t done = 0;
	int r = write ? a->write(g, vec, c->vec_len, data, c->data_len, &done) :
			a->read(g, vec, c->vec_len, data, c->data_len, &done);

	c->out_count = (uint32_t)done;
	return r;
}

static int command(struct guest *g, unsigned long nr, void *arg)
{
	struct vasi_signal *signal = arg;
	struct vasi_destroy *destroy = arg;

	if (!g)
		return -ENODEV;
	switch (nr) {
	case VASI_TRACK:
		return a->track(g, ((struct vasi_track *)arg)->op);
	case VASI_PAGES_READ:
		return pages(g, arg, 0);
	case VASI_PAGES_WRITE:
		return pages(g, arg, 1);
	case VASI_SUSPEND:
		return suspend(g, arg);
	case VASI_RESUME:
		return resume(g, arg);
	case VASI_STATE:
		return state(g, arg);
	case VASI_SEAL:
		return a->seal(g);
	case VASI_DESTROY:
		return a->destroy(g, destroy->deadline_ms);
	case VASI_SIGNAL:
		return a->signal(g, signal->code, signal->reason);
	case VASI_INFO:
		return a->info(g, arg);
	}
	return -ENOTTY;
}

int shim_ioctl(int fd, unsigned long nr, void *arg)
{
	struct open *o = open_of(fd);
	int r;

	if (!o)
		return ioctl(fd, nr, arg);
	if (nr == VASI_ATTACH)
		r = attach(fd, o, arg);
	else if (nr == VASI_STREAMS)
		r = streams(arg);
	else if (nr == VASI_QUERY)
		r = a->probe(arg);
	else
		r = command(o->guest, nr, arg);
	if (r >= 0)
		return r;
	errno = -r;
	return -1;
}
