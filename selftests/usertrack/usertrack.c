// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/clock.h"
#include "tap.h"
#include "usertrack.h"

#define VEC	1024

struct doer_box {
	int64_t what, done;
	int64_t arg[3];
	int64_t result;
};

struct server {
	struct doer_box *box;
	int64_t (*act)(int what, int64_t *arg);
};

void *shared_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	return p;
}

static int64_t serve_one(const struct server *s, int what)
{
	int64_t *a = s->box->arg;

	if (what != DO_CALL)
		return s->act(what, a);
	errno = 0;
	a[0] = syscall(a[0], a[1], a[2]);
	return a[0] < 0 ? -errno : a[0];
}

static void *serve(void *arg)
{
	const struct server *s = arg;
	int64_t seen = 0;

	for (;;) {
		int64_t what = __atomic_load_n(&s->box->what, __ATOMIC_ACQUIRE);

		if (what == seen) {
			usleep(100);
			continue;
		}
		seen = what;
		s->box->result = serve_one(s, (int)(what & 0xffff));
		__atomic_store_n(&s->box->done, what, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void guest_main(struct doer *d, int64_t (*act)(int what, int64_t *arg),
		       void (*run)(void))
{
	static struct server server;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	server = (struct server){ d->box, act };
	if (!run)
		serve(&server);
	must(!pthread_create(&thread, NULL, serve, &server));
	run();
	_exit(1);
}

int doer_uffd(struct doer *d, int flags)
{
	int fd = (int)doer_do(d, DO_CALL, SYS_userfaultfd, flags, 0), pidfd, got;

	if (fd < 0)
		return fd;
	pidfd = pidfd_open(d->pid, 0);
	got = pidfd_getfd(pidfd, fd, 0);
	close(pidfd);
	must(got >= 0 && !doer_do(d, DO_CALL, SYS_close, fd, 0));
	return got;
}

static int uffd(void *arg, int flags)
{
	return doer_uffd(arg, flags);
}

static int stop(void *arg)
{
	doer_stop(arg);
	return 0;
}

static void go(void *arg)
{
	doer_go(arg);
}

static bool still(void *arg)
{
	return ((struct doer *)arg)->stopped;
}

void doer_start(struct doer *d, int64_t (*act)(int what, int64_t *arg),
		void (*run)(void))
{
	const struct track_host host = {
		.uffd = uffd, .stop = stop, .go = go, .still = still,
		.arg = d,
	};
	struct track_host h = host;
	char path[64];

	*d = (struct doer){ .box = shared_memory(PAGE) };
	fflush(stdout);
	d->pid = fork();
	must(d->pid >= 0);
	if (!d->pid)
		guest_main(d, act, run);
	snprintf(path, sizeof(path), "/proc/%d", d->pid);
	d->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	d->memfd = openat(d->proc, "mem", O_RDWR | O_CLOEXEC);
	must(d->proc >= 0 && d->memfd >= 0);
	user_mem_init(&d->mem, d->pid, d->proc, d->memfd, VASI_SERVICE_SOURCE);
	h.pid = d->pid;
	h.proc = d->proc;
	must(!tracker_new(&d->t, &h));
}

int64_t doer_do(struct doer *d, int what, int64_t a, int64_t b, int64_t c)
{
	int64_t end = now_ns() + 60 * NSEC_PER_SEC, order;
	static int64_t serial;

	order = ++serial << 16 | what;
	d->box->arg[0] = a;
	d->box->arg[1] = b;
	d->box->arg[2] = c;
	__atomic_store_n(&d->box->what, order, __ATOMIC_RELEASE);
	while (__atomic_load_n(&d->box->done, __ATOMIC_ACQUIRE) != order) {
		must(now_ns() < end);
		usleep(100);
	}
	return d->box->result;
}

void doer_kill(struct doer *d)
{
	kill(d->pid, SIGKILL);
	while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
		;
	/* the number may be another's soon */
	d->pid = 0;
}

void doer_end(struct doer *d)
{
	tracker_free(d->t);
	user_mem_fini(&d->mem);
	close(d->proc);
	close(d->memfd);
	if (d->pid)
		doer_kill(d);
	munmap(d->box, PAGE);
}

void doer_stop(struct doer *d)
{
	int status;

	must(!kill(d->pid, SIGSTOP));
	must(waitpid(d->pid, &status, WUNTRACED) == d->pid);
	must(WIFSTOPPED(status));
	d->stopped = true;
}

void doer_go(struct doer *d)
{
	d->stopped = false;
	must(!kill(d->pid, SIGCONT));
}

static void add(struct tally *t, const struct vasi_range *r)
{
	uint64_t *kind = r->kind == VASI_KIND_DATA ? &t->data :
			 r->kind == VASI_KIND_ZERO ? &t->zero : &t->hole;

	*kind += r->pages;
	if (r->shift == 21)
		t->huge += r->pages;
	t->reasons |= r->reason;
	t->ranges++;
}

int harvest(struct doer *d, uint64_t start, uint64_t end, struct tally *tally,
	    void (*fn)(const struct vasi_range *r, void *arg), void *arg)
{
	struct vasi_range vec[VEC];
	size_t n;
	int ret;

	while (start < end) {
		uint64_t before = start;

		ret = tracker_harvest(d->t, start, end, 0, vec, VEC, &n,
				      &start);
		if (ret)
			return ret;
		must(n || start >= end);
		must(start > before || n == VEC);
		for (size_t i = 0; i < n; i++) {
			must(vec[i].pages && vec[i].start >= before);
			must(!i || vec[i].start >= vec[i - 1].start +
			     vec[i - 1].pages * PAGE);
			if (tally)
				add(tally, &vec[i]);
			if (fn)
				fn(&vec[i], arg);
		}
	}
	return 0;
}

int settle(struct doer *d, uint64_t start, uint64_t end)
{
	for (int i = 0; i < 10; i++) {
		struct tally t = {};
		int ret = harvest(d, start, end, &t, NULL, NULL);

		if (ret || !t.ranges)
			return ret;
	}
	return -EAGAIN;
}

int mark(struct doer *d, uint64_t start, uint64_t pages)
{
	const struct vasi_range r = { .start = start, .pages = pages };

	return tracker_mark(d->t, &r, 1);
}

int read_pages(struct doer *d, uint64_t addr, uint64_t pages, void *data)
{
	const struct vasi_range r = { .start = addr, .pages = pages };
	size_t done;

	return user_mem_read(&d->mem, &r, 1, data, pages * PAGE, &done);
}
