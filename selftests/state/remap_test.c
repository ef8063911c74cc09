// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that maps one file and then another at the same place, while it is
 * looked at: no name comes with the identity of the other file
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "mover.h"
#include "state/maps.h"
#include "tap.h"

#define PAGE	4096UL
#define LOOKS	3000
#define FILES	2
#define TIME_MS	8000

static char dir[] = "/var/tmp/remap_test.XXXXXX";

/* a file of so many pages, open for reading */
static int make(unsigned int pages)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%u", dir, pages);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && !ftruncate(fd, (off_t)(pages * PAGE)));
	return fd;
}

static void clean(void)
{
	char path[64];

	for (unsigned int i = 1; i <= FILES; i++) {
		snprintf(path, sizeof(path), "%s/%u", dir, i);
		unlink(path);
	}
	rmdir(dir);
}

static pid_t child(void)
{
	int fd[FILES];
	void *at;
	pid_t pid;

	for (unsigned int i = 0; i < FILES; i++)
		fd[i] = make(i + 1);
	at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd[0], 0);
	must(at != MAP_FAILED);
	pid = fork();
	must(pid >= 0);
	if (pid) {
		munmap(at, PAGE);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		for (unsigned int i = 0; i < FILES; i++)
			mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED,
			     fd[i], 0);
}

/* files that are said to be another one, or to have lost their name */
static unsigned int wrong(const Mspd__Maps *maps, unsigned int *seen)
{
	unsigned int n = 0;

	for (size_t i = 0; i < maps->n_vmas; i++) {
		const Mspd__FileId *id = maps->vmas[i]->file;
		unsigned int pages;

		n += maps->vmas[i]->whole;
		if (!id || strncmp(id->path, dir, strlen(dir)))
			continue;
		must(sscanf(id->path + strlen(dir), "/%u", &pages) == 1);
		*seen |= 1U << pages;
		n += id->size != pages * PAGE;
	}
	return n;
}

static void test_remap(struct guest *g, pid_t pid)
{
	int64_t deadline = deadline_in(TIME_MS);
	unsigned int n = 0, looks = 0, seen = 0, none = 0;

	for (; looks < LOOKS && deadline_left(deadline); looks++) {
		struct findings f = {};
		struct capture c;
		Mspd__Maps *maps;
		int r;

		must(!capture_open(&c, g, pid, CONNECTIONS_REFUSE, &f));
		r = capture_maps(&c, &maps);
		if (!r) {
			n += wrong(maps, &seen);
			maps_free(maps);
		} else {
			must(r == -EAGAIN);
			none++;
		}
		capture_close(&c);
		findings_clear(&f);
	}
	note("%u looks, %u in vain", looks, none);
	ok(seen == 6, "both files are seen");
	ok(!n, "each is what its name says (%u are not)", n);
}

int main(void)
{
	const struct guest_access *a = move_access();
	struct guest *g;
	pid_t pid;
	int r;

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 4;
	}
	must(mkdtemp(dir));
	pid = child();
	r = a->attach(&g, pid, VASI_SERVICE_SOURCE, 1);
	ok(!r, "attached by %s", a->name);
	if (!r) {
		test_remap(g, pid);
		a->close(g);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	clean();
	return tap_end();
}
