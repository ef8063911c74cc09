// SPDX-License-Identifier: GPL-2.0
#include "counting.h"

struct page *page;

int counting_begin(void)
{
	if (geteuid() || a->probe(NULL)) {
		printf("1..0 # SKIP needs root and a cgroup2 mount\n");
		return 4;
	}
	page = shared_memory(sizeof(*page));
	return 0;
}

struct guest *attached(pid_t pid)
{
	struct guest *g = NULL;
	int r = a->attach(&g, pid, VASI_SERVICE_SOURCE, new_stream_id());

	errno = -r;
	must(!r);
	return g;
}

pid_t start_guest(void (*body)(void))
{
	pid_t pid;

	memset(page, 0, sizeof(*page));
	pid = fork_guest();
	if (pid)
		return pid;
	body();
	for (;;)
		pause();
}

void count(void)
{
	page->ready = 1;
	for (;;)
		page->rounds[0]++;
}

void wait_ready(void)
{
	must(wait_until(page->ready));
}

bool runs(void)
{
	const long n = page->rounds[0];

	return wait_until(page->rounds[0] != n);
}
