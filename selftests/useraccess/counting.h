/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests of tests of ``guest_user``: processes of the test that count, and a
 * page in which they tell of it
 */
#ifndef USERACCESS_COUNTING_H
#define USERACCESS_COUNTING_H

#include <stdatomic.h>

#include "guest/user.h"
#include "vasi_test.h"

#define DEADLINE_MS	5000

__attribute__((unused))
static const struct guest_access *const a = &guest_user;

/* what guests tell */
static struct page {
	atomic_long rounds[4];
	atomic_int wrong, ready, go, alarms;
	char text[128];
} *page;

__attribute__((unused))
static struct guest *attached(pid_t pid)
{
	struct guest *g = NULL;
	int r = a->attach(&g, pid, VASI_SERVICE_SOURCE, new_stream_id());

	errno = -r;
	must(!r);
	return g;
}

__attribute__((unused))
static pid_t start_guest(void (*body)(void))
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

__attribute__((unused))
static void count(void)
{
	page->ready = 1;
	for (;;)
		page->rounds[0]++;
}

__attribute__((unused))
static void wait_ready(void)
{
	must(wait_until(page->ready));
}

__attribute__((unused))
static bool runs(void)
{
	const long n = page->rounds[0];

	return wait_until(page->rounds[0] != n);
}

#endif /* USERACCESS_COUNTING_H */
