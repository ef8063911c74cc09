// SPDX-License-Identifier: GPL-2.0
/*
 * A whole stream without the module: a guest that knows nothing of it is tracked
 * from outside, stopped, compared, and let go, again and again
 */
#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "guest/guest.h"
#include "lib/clock.h"
#include "tap.h"
#include "world.h"

#define ROUNDS	6
#define VEC	2048

static const struct guest_access *const access_ = &guest_user;
static struct guest *g;
static unsigned char *copy, *base_of_copy, *now;
static uint64_t base, nr_data;

static void copy_range(const struct vasi_range *r)
{
	unsigned char *to = copy + (r->start - base);
	size_t done;

	if (r->kind == VASI_KIND_DATA) {
		if (access_->read(g, r, 1, to, r->pages * PAGE, &done))
			must(!access_->mark(g, r, 1));
	} else if (r->kind == VASI_KIND_HOLE) {
		memcpy(to, base_of_copy + (r->start - base), r->pages * PAGE);
	} else {
		memset(to, 0, r->pages * PAGE);
	}
}

/* the whole guest is harvested, the arena copied */
static int one_round(void)
{
	static struct vasi_range vec[VEC];
	uint64_t at = 0, before;
	size_t n;

	nr_data = 0;
	do {
		int r;

		before = at;
		n = 0;
		r = access_->harvest(g, 0, at, 0, 0, vec, VEC, &n, &at);
		if (r)
			return r;
		for (size_t i = 0; i < n; i++) {
			struct vasi_range part = vec[i];
			uint64_t end = part.start + part.pages * PAGE;

			if (part.start < base)
				part.start = base;
			if (end > base + ARENA)
				end = base + ARENA;
			if (part.start >= end)
				continue;
			part.pages = (end - part.start) / PAGE;
			if (part.kind == VASI_KIND_DATA)
				nr_data += part.pages;
			copy_range(&part);
		}
	} while (n && at > before);
	return 0;
}

static int nr_fds(pid_t pid)
{
	const struct dirent *e;
	char path[64];
	int n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	must(d);
	while ((e = readdir(d)))
		n += *e->d_name != '.';
	closedir(d);
	return n;
}

static bool is_registered(pid_t pid)
{
	char line[512], path[64];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "r");
	must(f);
	while (fgets(line, sizeof(line), f))
		found |= !strncmp(line, "VmFlags:", 8) && strstr(line, " uw");
	fclose(f);
	return found;
}

static uint64_t stale(void)
{
	const struct vasi_range all = { .start = base, .pages = PAGES };
	uint64_t bad = 0;
	size_t done;

	must(!access_->read(g, &all, 1, now, ARENA, &done) && done == 1);
	for (size_t i = 0; i < PAGES; i++)
		bad += !!memcmp(now + i * PAGE, copy + i * PAGE, PAGE);
	return bad;
}

static int64_t increments(void)
{
	int64_t n = 0;

	for (int i = 0; i < WRITERS; i++)
		n += __atomic_load_n(&w->count[i], __ATOMIC_SEQ_CST);
	return n;
}

/* a migration that is called off at the last moment */
static void attempt(const char *name, pid_t pid, uint64_t id)
{
	struct guest_holdup holdup = {};
	uint64_t bad, quiet;
	int64_t count;
	int r;

	memset(copy, 0xaa, ARENA);
	must(!access_->attach(&g, pid, VASI_SERVICE_SOURCE, id));
	r = access_->track(g, 1);
	if (!ok(!r, "%s: tracked from outside", name))
		note("%s", strerror(-r));
	for (int i = 0; i < ROUNDS && !r; i++) {
		r = one_round();
		sleep_ms(20);
	}
	ok(!r, "%s: rounds", name);
	/* a child that the guest has just now is in its cgroup, too */
	for (int i = 0; i < 100; i++) {
		r = access_->suspend(g, 5000, 0, &holdup);
		if (r != -EBUSY)
			break;
		sleep_ms(5);
	}
	if (r)
		note("suspend: %s, thread %d reason %u", strerror(-r),
		     holdup.tid, holdup.reason);
	must(!r);
	must(!one_round());
	bad = stale();
	ok(!bad, "%s: the copy is the guest's memory", name);
	note("%llu stale pages, %lld increments", (unsigned long long)bad,
	     (long long)increments());
	must(!one_round());
	/* our own look at what is a hole has made it zero pages */
	quiet = nr_data;
	/* what may be in the middle of a write is told again */
	ok((!quiet || w->file) && !stale(), "%s: a guest that is stopped writes nothing",
	   name);
	count = increments();
	must(!access_->resume(g));
	for (int i = 0; i < 5000 && increments() == count; i++)
		sleep_ms(1);
	ok(increments() > count, "%s: it goes on", name);
	must(!one_round());
	access_->close(g);
}

static pid_t start(void)
{
	pid_t pid;

	world_base(base_of_copy);
	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		world_run();
	}
	while (!increments())
		sleep_ms(1);
	base = (uintptr_t)w->arena;
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	must(waitpid(pid, NULL, 0) == pid);
}

static void run(const char *name, bool huge, bool file, uint32_t ops)
{
	int64_t before, after;
	pid_t pid;
	int fds;

	*w = (struct world){ .huge = huge, .file = file, .chaos = ops };
	pid = start();
	fds = nr_fds(pid);
	attempt(name, pid, (uint64_t)pid << 32 | 1);
	attempt(name, pid, (uint64_t)pid << 32 | 2);
	ok(nr_fds(pid) == fds && !is_registered(pid),
	   "%s: nothing is left in the guest", name);
	world_still();
	before = world_sum(base_of_copy);
	must(!access_->attach(&g, pid, VASI_SERVICE_SOURCE, 77));
	stale();
	after = world_sum(now);
	access_->close(g);
	if (!(ops & ~C_KEEP))
		ok(after - before == increments(), "%s: no increment is lost",
		   name);
	end(pid);
}

static void tracked(void)
{
	int r = access_->track(g, 1);

	if (r)
		note("track: %s", strerror(-r));
	must(!r);
}

/* a mover that dies, with the guest in its hand or not */
static void dead_mover(const char *name, bool suspended)
{
	struct guest_holdup holdup;
	pid_t pid, mover;
	int64_t count;
	int status;

	*w = (struct world){ .chaos = C_KEEP & ~C_COLLAPSE };
	pid = start();
	mover = fork();
	must(mover >= 0);
	if (!mover) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		must(!access_->attach(&g, pid, VASI_SERVICE_SOURCE, 5));
		tracked();
		must(!one_round());
		must(is_registered(pid));
		while (suspended && access_->suspend(g, 5000, 0, &holdup))
			sleep_ms(5);
		_exit(77);
	}
	must(waitpid(mover, &status, 0) == mover);
	must(WIFEXITED(status) && WEXITSTATUS(status) == 77);
	count = increments();
	for (int i = 0; i < 5000 && increments() == count; i++)
		sleep_ms(1);
	ok(increments() > count && !is_registered(pid),
	   "%s: the guest runs, and nothing is left in it", name);
	attempt(name, pid, 6);
	end(pid);
}

/* the guest becomes another program, or ends */
static void the_end(void)
{
	static struct vasi_range vec[VEC];
	uint64_t at;
	pid_t pid;
	size_t n;
	int r;

	*w = (struct world){ .chaos = C_READ };
	pid = start();
	must(!access_->attach(&g, pid, VASI_SERVICE_SOURCE, 8));
	tracked();
	must(!one_round());
	end(pid);
	r = access_->harvest(g, 0, 0, 0, 0, vec, VEC, &n, &at);
	ok(r == -ESRCH, "a guest that has ended");
	vec[0] = (struct vasi_range){ .start = base, .pages = 1 };
	ok(access_->read(g, vec, 1, now, PAGE, &n) == -ESRCH,
	   "has no memory");
	access_->close(g);

	*w = (struct world){};
	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		__atomic_store_n(&w->ended, 1, __ATOMIC_RELEASE);
		while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED))
			usleep(100);
		execl("/bin/sleep", "sleep", "60", NULL);
		_exit(1);
	}
	/* it dies with its test from then on */
	while (!__atomic_load_n(&w->ended, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	must(!access_->attach(&g, pid, VASI_SERVICE_SOURCE, 9));
	tracked();
	must(!access_->harvest(g, 0, 0, 0, 0, vec, VEC, &n, &at));
	w->stop = 1;
	for (int i = 0; i < 5000; i++) {
		r = access_->harvest(g, 0, 0, 0, 0, vec, VEC, &n, &at);
		if (r)
			break;
		sleep_ms(1);
	}
	if (!ok(r == -ECANCELED, "a guest that has become another program"))
		note("%s", strerror(-r));
	vec[0] = (struct vasi_range){ .start = (uintptr_t)w, .pages = 1 };
	ok(access_->read(g, vec, 1, now, PAGE, &n) == -ECANCELED,
	   "is not read from");
	access_->close(g);
	end(pid);
}

int main(void)
{
	int r = access_->probe(NULL);

	if (r || !track_chosen()) {
		printf("1..0 # SKIP no access without the module here\n");
		return 4;
	}
	note("tracker: %s", track_chosen()->name);
	world_init();
	copy = calloc(1, ARENA);
	base_of_copy = calloc(1, ARENA);
	now = calloc(1, ARENA);
	must(copy && base_of_copy && now);
	run("writers alone", false, false, 0);
	run("small pages", false, false, C_KEEP & ~C_COLLAPSE);
	run("huge pages", true, false, C_KEEP);
	run("everything", false, false, C_ALL & ~C_COLLAPSE);
	run("everything, huge pages", true, false, C_ALL);
	run("a file", false, true, C_DONTNEED | C_MAP | C_READ | C_FORK);
	dead_mover("a mover that died", false);
	dead_mover("one that died in the pause", true);
	the_end();
	return tap_end();
}
