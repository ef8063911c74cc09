// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "../vasi_test.h"
#include "track.h"

int track(int fd, uint32_t op)
{
	struct vasi_track cmd = {
		.size = sizeof(cmd),
		.op = op,
		.tracker = VASI_TRACKER_DBIT,
	};

	return vasi_cmd(fd, VASI_TRACK, &cmd);
}

static void add(struct tally *t, const struct vasi_range *r)
{
	if (r->kind == VASI_KIND_DATA && r->reason == VASI_REASON_PINNED)
		t->pinned += r->pages;
	else if (r->kind == VASI_KIND_DATA)
		t->data += r->pages;
	else if (r->kind == VASI_KIND_ZERO)
		t->zero += r->pages;
	else
		t->hole += r->pages;
	t->huge += r->shift == 21;
	t->reasons |= r->reason;
}

int harvest(int fd, uint64_t start, uint64_t end, struct tally *tally,
	    void (*fn)(const struct vasi_range *r, void *arg), void *arg)
{
	/* short on purpose: harvests must be able to go on */
	static __thread struct vasi_range vec[100];

	while (start < end) {
		struct vasi_harvest cmd = {
			.size = sizeof(cmd),
			.start = start,
			.end = end,
			.vec = (uintptr_t)vec,
			.vec_len = 100,
		};
		int ret = vasi_cmd(fd, VASI_HARVEST, &cmd);
		uint32_t i;

		if (ret)
			return ret;
		for (i = 0; i < cmd.out_count; i++) {
			if (tally)
				add(tally, &vec[i]);
			if (fn)
				fn(&vec[i], arg);
		}
		if (tally)
			tally->flushes += cmd.out_flushes;
		if (cmd.out_walk_end <= start)
			return -EIO;
		start = cmd.out_walk_end;
	}
	return 0;
}

int settle(int fd, uint64_t start, uint64_t end)
{
	int i, ret;

	for (i = 0; i < 50; i++) {
		struct tally t = {0};

		ret = harvest(fd, start, end, &t, NULL, NULL);
		if (ret)
			return ret;
		if (!t.data && !t.zero && !t.hole)
			return 0;
		sleep_ms(5);
	}
	return -EAGAIN;
}

int mark(int fd, uint64_t start, uint64_t pages)
{
	struct vasi_range r = { .start = start, .pages = pages };
	struct vasi_mark cmd = {
		.size = sizeof(cmd),
		.vec = (uintptr_t)&r,
		.vec_len = 1,
	};

	return vasi_cmd(fd, VASI_MARK, &cmd);
}

static int move_pages(int fd, unsigned long nr, uint64_t addr, uint64_t pages,
		      char *data)
{
	while (pages) {
		/* one call moves up to 16 MiB */
		struct vasi_range r = {
			.start = addr,
			.pages = pages < 1024 ? pages : 1024,
		};
		struct vasi_pages cmd = {
			.size = sizeof(cmd),
			.vec = (uintptr_t)&r,
			.vec_len = 1,
			.data = (uintptr_t)data,
			.data_len = r.pages * PAGE,
		};
		int ret = vasi_cmd(fd, nr, &cmd);

		if (ret)
			return ret;
		if (cmd.out_count != 1)
			return -EIO;
		addr += r.pages * PAGE;
		data += r.pages * PAGE;
		pages -= r.pages;
	}
	return 0;
}

int read_pages(int fd, uint64_t addr, uint64_t pages, void *data)
{
	return move_pages(fd, VASI_PAGES_READ, addr, pages, data);
}

int write_pages(int fd, uint64_t addr, uint64_t pages, const void *data)
{
	return move_pages(fd, VASI_PAGES_WRITE, addr, pages, (void *)data);
}

bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good;

	if (fd < 0)
		return false;
	good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

#define ZRAM "/dev/zram0"

bool swap_on(uint64_t bytes)
{
	char text[64];

	if (system("modprobe zram num_devices=2 2>/dev/null") ||
	    access(ZRAM, R_OK))
		return false;
	snprintf(text, sizeof(text), "%" PRIu64, bytes);
	write_file("/sys/block/zram0/reset", "1");
	if (!write_file("/sys/block/zram0/disksize", text) ||
	    system("mkswap " ZRAM " >/dev/null 2>&1"))
		return false;
	return !swapon(ZRAM, 0);
}

void swap_off(void)
{
	swapoff(ZRAM);
	write_file("/sys/block/zram0/reset", "1");
}

uint64_t vmstat(const char *name)
{
	FILE *f = fopen("/proc/vmstat", "r");
	char key[64];
	uint64_t value, found = 0;

	while (f && fscanf(f, "%63s %" SCNu64, key, &value) == 2)
		if (!strcmp(key, name))
			found = value;
	if (f)
		fclose(f);
	return found;
}

bool load_module(bool test)
{
	char exe[4000], command[9000];
	int major, minor;
	struct utsname u;
	ssize_t n;
	int i;

	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	must(n > 0 && !uname(&u));
	must(sscanf(u.release, "%d.%d", &major, &minor) == 2);
	exe[n] = '\0';
	for (i = 0; i < 3; i++)
		*strrchr(exe, '/') = '\0';
	snprintf(command, sizeof(command),
		 "m=%s/module/%d.%d/vasi%s.ko; test -e $m && rmmod vasi && insmod $m",
		 exe, major, minor, test ? "-test" : "");
	return !system(command);
}

bool set_knob(const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/vasi/parameters/%s", name);
	return write_file(path, value);
}

static void doer_loop(struct doer_box *box,
		      int64_t (*act)(int what, int64_t *arg))
{
	int64_t seen = 0;

	for (;;) {
		int64_t what = __atomic_load_n(&box->what, __ATOMIC_ACQUIRE);

		if (what == seen) {
			usleep(500);
			continue;
		}
		seen = what;
		box->result = act(what & 0xffff, box->arg);
		__atomic_store_n(&box->done, what, __ATOMIC_RELEASE);
	}
}

void doer_start(struct doer *d, int64_t (*act)(int what, int64_t *arg))
{
	d->box = shared_memory(PAGE);
	d->pid = fork_guest();
	if (!d->pid)
		doer_loop(d->box, act);
	d->fd = attach(d->pid);
}

int64_t doer_do(struct doer *d, int what, int64_t a, int64_t b, int64_t c)
{
	static int64_t serial;
	int64_t order = ++serial << 16 | what;

	d->box->arg[0] = a;
	d->box->arg[1] = b;
	d->box->arg[2] = c;
	__atomic_store_n(&d->box->what, order, __ATOMIC_RELEASE);
	must(wait_until(__atomic_load_n(&d->box->done, __ATOMIC_ACQUIRE) ==
			order));
	return d->box->result;
}

void doer_end(struct doer *d)
{
	close(d->fd);
	end_guest(d->pid);
	munmap(d->box, PAGE);
}
