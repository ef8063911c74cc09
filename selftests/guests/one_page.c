// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest guest: one thread, one page that changes, no system call but
 * sched_yield. SIGUSR1 writes the counters to FILE, SIGTERM writes and ends.
 *
 * The same number is counted in the page, in its ones' complement at the
 * page's other end, and in a register; the verdict compares the three.
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "guest.h"

#define WORDS 512

static struct {
	volatile uint64_t word[WORDS];
} page __attribute__((aligned(4096)));
static volatile sig_atomic_t asked, ended;

static void on_signal(int sig)
{
	if (sig == SIGTERM)
		ended = 1;
	asked = 1;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	register uint64_t count = 0;
	bool ok;

	if (argc != 2) {
		fprintf(stderr, "usage: one_page FILE\n");
		return 2;
	}
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);

	page.word[WORDS - 1] = ~0ULL;
	do {
		count++;
		page.word[0]++;
		page.word[WORDS - 1]--;
		asm volatile("" : "+r"(count));
		if (count % 1024 == 0)
			sched_yield();
		ok = page.word[0] == count && page.word[WORDS - 1] == ~count;
		if (!ok)
			asked = ended = 1;
		if (!asked)
			continue;
		asked = 0;
		if (write_text(argv[1], "{\"ok\": %s, \"pid\": %d, \"count\": %llu, \"page\": %llu}\n",
			       ok ? "true" : "false", getpid(),
			       (unsigned long long)count,
			       (unsigned long long)page.word[0]) < 0)
			return 1;
	} while (!ended);
	return ok ? 0 : 1;
}
