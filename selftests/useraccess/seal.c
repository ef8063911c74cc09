// SPDX-License-Identifier: GPL-2.0
/*
 * Sealed guests without the module: their cgroups, the mark, and what is left
 * behind by movers that die
 */
#include <stddef.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "useraccess/counting.h"

/* -- cgroups, seal */

static bool cgroup_of(pid_t pid, char *buf, size_t len)
{
	char path[64], line[512];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	f = fopen(path, "r");
	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "0::", 3);
	if (f)
		fclose(f);
	snprintf(buf, len, "%s%.*s", user_cgroup_root(),
		 (int)strcspn(line + 3, "\n"), line + 3);
	return found;
}

static void test_cgroup(void)
{
	const pid_t pid = start_guest(count);
	char before[1024], own[1024], after[1024];
	struct guest *g = attached(pid);

	wait_ready();
	must(cgroup_of(pid, before, sizeof(before)));
	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	must(cgroup_of(pid, own, sizeof(own)));
	ok(strcmp(before, own) && !access(own, F_OK),
	   "a guest gets a cgroup of its own");
	a->close(g);
	must(cgroup_of(pid, after, sizeof(after)));
	ok(!strcmp(before, after) && access(own, F_OK) && runs(),
	   "and goes back to where it was");
	end_guest(pid);
}

/* a mover that seals and waits to be killed; it may know that the target runs */
static pid_t sealing_mover(pid_t guest, uint64_t id, bool resumed)
{
	pid_t pid = fork_guest();
	struct guest *g;

	if (pid)
		return pid;
	must(!a->attach(&g, guest, VASI_SERVICE_SOURCE, id));
	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	must(!a->seal(g));
	if (resumed)
		must(!a->signal(g, VASI_SIGNAL_RESUMED,
				VASI_ENTITY_SOURCE_MOVER << 24));
	page->go = 1;
	for (;;)
		pause();
}

/* entry of the stream in the list, NULL if it is not there */
static struct vasi_stream_info *listed(uint64_t id)
{
	static struct vasi_stream_info v[16];
	size_t n = 0, i;

	must(!a->sealed(v, 16, &n));
	for (i = 0; i < n; i++)
		if (v[i].stream_id == id)
			return &v[i];
	return NULL;
}

static void test_sealed(bool resumed)
{
	const pid_t pid = start_guest(count);
	const uint64_t id = new_stream_id();
	struct vasi_stream_info *info;
	char own[1024];
	struct guest *g;
	pid_t mover;
	long n;

	wait_ready();
	mover = sealing_mover(pid, id, resumed);
	must(wait_until(page->go));
	info = listed(id);
	ok(info && info->opens && info->pid == pid && a->takeover(&g,
	   VASI_SERVICE_SOURCE, id) == -EBUSY,
	   "a sealed guest whose mover lives is listed as held");
	must(cgroup_of(pid, own, sizeof(own)));
	end_guest(mover);
	n = page->rounds[0];
	sleep_ms(30);
	info = listed(id);
	ok(info && !info->opens && page->rounds[0] == n &&
	   info->state == (resumed ? VASI_STATE_RESUMED : VASI_STATE_SUSPENDED),
	   "it outlives the mover, with its state");
	ok(a->attach(&g, pid, VASI_SERVICE_SOURCE, id + 1) == -EBUSY,
	   "nobody else may have it");
	ok(a->takeover(&g, VASI_SERVICE_TARGET, id) == -ENOENT &&
	   a->takeover(&g, VASI_SERVICE_SOURCE, id + 1) == -ENOENT,
	   "it is taken over by its ID and service");
	must(!a->takeover(&g, VASI_SERVICE_SOURCE, id));
	if (resumed) {
		ok(a->resume(g) == -EBUSY && page->rounds[0] == n,
		   "a copy of what runs elsewhere is not resumed");
		ok(!a->destroy(g, DEADLINE_MS) && waitpid(pid, NULL, 0) == pid,
		   "but destroyed");
	} else {
		ok(!a->resume(g) && runs(), "and resumed");
	}
	a->close(g);
	ok(!listed(id) && access(own, F_OK), "nothing of it is left");
	if (!resumed)
		end_guest(pid);
}

/* a mover that suspends and is killed: the guest stays in the cgroup it got */
static void test_left_cgroup(void)
{
	const pid_t pid = start_guest(count);
	char before[1024], own[1024], other[1100];
	struct guest *g;
	pid_t mover;

	wait_ready();
	must(cgroup_of(pid, before, sizeof(before)));
	mover = fork_guest();
	if (!mover) {
		must(!a->attach(&g, pid, VASI_SERVICE_SOURCE, 1));
		must(!a->suspend(g, DEADLINE_MS, 0, NULL));
		page->go = 1;
		for (;;)
			pause();
	}
	must(wait_until(page->go));
	must(cgroup_of(pid, own, sizeof(own)) && strcmp(before, own));
	end_guest(mover);
	must(runs());
	user_cgroup_sweep();
	ok(!access(own, F_OK), "what a dead mover's guest is in stays");
	end_guest(pid);
	must(!access(own, F_OK));
	snprintf(other, sizeof(other), "%s/vasi-x1", before);
	must(!mkdir(other, 0755));
	user_cgroup_sweep();
	ok(access(own, F_OK), "and goes when both have gone");
	ok(!access(other, F_OK), "but not what has a name of another kind");
	rmdir(other);
}

static void sometimes_parent(void)
{
	page->ready = 1;
	while (!page->go)
		page->rounds[0]++;
	if (!fork())
		for (;;)
			pause();
	page->ready = 2;
	for (;;)
		page->rounds[0]++;
}

/* before the guest has a cgroup of its own */
static void test_first_child(void)
{
	const pid_t pid = start_guest(sometimes_parent);
	struct guest *g = attached(pid);
	char cmd[64];

	page->go = 1;
	must(wait_until(page->ready == 2));
	ok(!a->suspend(g, DEADLINE_MS, 0, NULL) && !a->resume(g) && runs(),
	   "an older child is not in the way of a suspend, either");
	snprintf(cmd, sizeof(cmd), "pkill -KILL -P %d", pid);
	must(!system(cmd));
	ok(!a->suspend(g, DEADLINE_MS, 0, NULL) && !a->seal(g) &&
	   !a->resume(g) && runs(), "and without it the guest is sealed");
	a->close(g);
	end_guest(pid);
}

static void test_children(void)
{
	const pid_t pid = start_guest(sometimes_parent);
	struct guest *g = attached(pid);
	char cmd[64];

	wait_ready();
	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	must(!a->resume(g));
	page->go = 1;
	must(wait_until(page->ready == 2));
	ok(!a->suspend(g, DEADLINE_MS, 0, NULL),
	   "a child is not in the way of a suspend");
	ok(a->seal(g) == -EBUSY, "but of a seal");
	ok(!a->resume(g) && runs(), "and then all goes on");
	snprintf(cmd, sizeof(cmd), "pkill -KILL -P %d", pid);
	must(!system(cmd));
	a->close(g);
	end_guest(pid);
}

/* the mark's first field is its version, its last one when the guest began */
#define MARK		"trusted.vasi"
#define BORN_BYTES	sizeof(uint64_t)

static bool mark_change(const char *cgroup, uint32_t version, uint64_t later,
			size_t less)
{
	char mark[2048];
	ssize_t n = getxattr(cgroup, MARK, mark, sizeof(mark));
	uint64_t born;

	if (n < 64)
		return false;
	memcpy(mark, &version, sizeof(version));
	memcpy(&born, mark + n - BORN_BYTES, BORN_BYTES);
	born += later;
	memcpy(mark + n - BORN_BYTES, &born, BORN_BYTES);
	return !setxattr(cgroup, MARK, mark, (size_t)n - less, 0);
}

static bool move_into(const char *cgroup, pid_t pid)
{
	char path[1100];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	f = fopen(path, "w");
	must(f);
	fprintf(f, "%d", pid);
	return !fclose(f);
}

/* whoever comes into its cgroup does not make a sealed guest a free one */
static void test_company(void)
{
	const pid_t pid = start_guest(count), other = fork_guest();
	const uint64_t id = new_stream_id();
	char own[1024], below[1100];
	struct guest *g;
	pid_t mover;

	if (!other)
		for (;;)
			pause();
	wait_ready();
	mover = sealing_mover(pid, id, false);
	must(wait_until(page->go));
	end_guest(mover);
	must(cgroup_of(pid, own, sizeof(own)));
	snprintf(below, sizeof(below), "%s/below", own);
	must(move_into(own, other) && !mkdir(below, 0755));
	sleep_ms(30);
	ok(listed(id) && a->attach(&g, pid, VASI_SERVICE_SOURCE, id + 1) ==
	   -EBUSY, "a sealed guest that got company is sealed");
	must(mark_change(own, 2, 1, 0));
	ok(!listed(id), "one that began at another time is another");
	must(mark_change(own, 2, -1ULL, 0));
	must(listed(id));
	must(mark_change(own, 1, 0, BORN_BYTES));
	ok(listed(id), "a mark of an older mspd is read");
	must(!a->takeover(&g, VASI_SERVICE_SOURCE, id));
	must(!rmdir(below));
	ok(!a->resume(g) && runs(), "and its guest taken over, and resumed");
	a->close(g);
	end_guest(other);
	ok(!listed(id) && access(own, F_OK), "and all go back home");
	end_guest(pid);
}

static bool freeze(const char *cgroup)
{
	char path[1200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.freeze", cgroup);
	f = fopen(path, "w");
	must(f);
	fprintf(f, "1");
	return !fclose(f);
}

/* what a mover that died has left under the name that the guest's would have */
static void test_name_taken(bool occupied)
{
	const pid_t pid = start_guest(count), other = fork_guest();
	char home[1024], own[1100];
	struct guest *g;

	if (!other)
		for (;;)
			pause();
	wait_ready();
	must(cgroup_of(pid, home, sizeof(home)));
	snprintf(own, sizeof(own), "%s/vasi-%d", home, pid);
	must(!mkdir(own, 0755) && freeze(own) &&
	     !setxattr(own, MARK, "nonsense", 8, 0));
	if (occupied)
		must(move_into(own, other));
	g = attached(pid);
	ok(!a->suspend(g, DEADLINE_MS, 0, NULL) && !a->resume(g) && runs() &&
	   getxattr(own, MARK, NULL, 0) < 0,
	   "a frozen cgroup that has its name%s is none of a guest's affair",
	   occupied ? " and somebody in it" : "");
	end_guest(other);
	a->close(g);
	end_guest(pid);
	rmdir(own);
}

/* looks whether the guest is held, as who makes a list does, at length */
static void look_often(pid_t guest)
{
	for (;;) {
		struct user_stream s = {
			.pid = guest, .lock_fd = -1,
			.pidfd = (int)syscall(SYS_pidfd_open, guest, 0),
		};

		user_lock(&s);
		sleep_ms(2);
		close(s.pidfd);
		if (s.lock_fd >= 0)
			close(s.lock_fd);
		sleep_ms(2);
	}
}

/* a list is made while a guest is taken over, again and again */
static void test_list_meanwhile(void)
{
	const pid_t pid = start_guest(count);
	const uint64_t id = new_stream_id();
	struct guest *g;
	pid_t mover, lister;
	int i, good = 0;

	wait_ready();
	mover = sealing_mover(pid, id, false);
	must(wait_until(page->go));
	end_guest(mover);
	lister = fork_guest();
	if (!lister)
		look_often(pid);
	for (i = 0; i < 100; i++) {
		sleep_ms(1);
		if (a->takeover(&g, VASI_SERVICE_SOURCE, id))
			continue;
		good++;
		a->close(g);
	}
	end_guest(lister);
	ok(good == i, "who makes a list does not hold a guest: %d of %d", good,
	   i);
	must(!a->takeover(&g, VASI_SERVICE_SOURCE, id) && !a->resume(g));
	a->close(g);
	end_guest(pid);
}

int main(void)
{
	const int skip = counting_begin();

	if (skip)
		return skip;
	test_cgroup();
	test_sealed(false);
	test_sealed(true);
	test_company();
	test_name_taken(false);
	test_name_taken(true);
	test_list_meanwhile();
	test_first_child();
	test_children();
	test_left_cgroup();
	return tap_end();
}
