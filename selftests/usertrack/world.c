// SPDX-License-Identifier: GPL-2.0
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/clock.h"
#include "tap.h"
#include "world.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

struct world *w;
static int file = -1;

static uint32_t rnd(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void *writer(void *arg)
{
	int me = (int)(intptr_t)arg;
	uint32_t seed = 12345 + (uint32_t)me;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint32_t i = rnd(&seed) % (ARENA / sizeof(uint32_t));

		__atomic_add_fetch(&w->arena[i], 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&w->count[me], 1, __ATOMIC_SEQ_CST);
		/* some pages, not all, are written in a round */
		if (!(w->count[me] & 7))
			usleep(200);
	}
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void fork_and_write(char *p, size_t len)
{
	pid_t pid = fork();

	if (!pid) {
		for (size_t i = 0; i < len; i += PAGE)
			p[i]++;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void move_there(char *p, size_t len)
{
	char *from = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(from != MAP_FAILED);
	for (size_t i = 0; i < len; i += 2 * PAGE)
		from[i] = 1;
	must(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
}

static void map_there(char *p, size_t len)
{
	void *got;

	if (w->file)
		got = mmap(p, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_FIXED, file,
			   p - (char *)w->arena);
	else
		got = mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			   MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(got == p);
}

static void chaos_once(uint32_t op, char *p, size_t len)
{
	uint32_t sum = 0;

	switch (op) {
	case C_PAGEOUT:
		madvise(p, len, MADV_PAGEOUT);
		break;
	case C_COLD:
		madvise(p, len, MADV_COLD);
		break;
	case C_COLLAPSE:
		madvise((void *)((uintptr_t)p & ~(HUGE - 1)), HUGE,
			MADV_COLLAPSE);
		break;
	case C_FORK:
		fork_and_write(p, len);
		break;
	case C_PROTECT:
		/* writers would fault on less */
		mprotect(p, len, PROT_READ | PROT_WRITE | PROT_EXEC);
		mprotect(p, len, PROT_READ | PROT_WRITE);
		break;
	case C_READ:
		for (size_t i = 0; i < len; i += PAGE)
			sum += *(volatile unsigned char *)(p + i);
		break;
	case C_DONTNEED:
		madvise(p, len, MADV_DONTNEED);
		break;
	case C_FREE:
		madvise(p, len, MADV_FREE);
		break;
	case C_MAP:
		map_there(p, len);
		break;
	case C_MOVE:
		move_there(p, len);
		break;
	}
}

static void chaos(void)
{
	uint32_t seed = 4711;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint32_t op = 1U << rnd(&seed) % 10;
		size_t page = rnd(&seed) % (PAGES - 256);

		if (w->chaos & op) {
			chaos_once(op, (char *)w->arena + page * PAGE,
				   (1 + rnd(&seed) % 255) * PAGE);
			w->ops++;
		}
		usleep(500);
	}
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_SEQ_CST);
}

void world_run(void)
{
	pthread_t t;
	char *p;

	p = mmap(NULL, ARENA + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS, -1, 0);
	p = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	w->arena = (uint32_t *)p;
	if (w->file)
		map_there(p, ARENA);
	madvise(p, ARENA, w->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (!w->file)
		memset(p, 0, ARENA);
	for (int i = 0; i < WRITERS; i++)
		must(!pthread_create(&t, NULL, writer, (void *)(intptr_t)i));
	chaos();
	for (;;)
		pause();
}

void world_still(void)
{
	w->stop = 1;
	while (__atomic_load_n(&w->ended, __ATOMIC_SEQ_CST) != WRITERS + 1)
		sleep_ms(1);
}

int64_t world_sum(const unsigned char *p)
{
	const uint32_t *word = (const uint32_t *)p;
	int64_t sum = 0;

	for (size_t i = 0; i < ARENA / sizeof(*word); i++)
		sum += word[i];
	return sum;
}

void world_base(unsigned char *p)
{
	memset(p, 0, ARENA);
	if (w->file)
		must(pread(file, p, ARENA, 0) == (ssize_t)ARENA);
}

void world_init(void)
{
	char page[PAGE];

	w = shared_memory(sizeof(*w));
	file = memfd_create("arena", MFD_CLOEXEC);
	must(file >= 0);
	for (size_t i = 0; i < PAGES; i++) {
		memset(page, (int)i & 0x7f, PAGE);
		must(write(file, page, PAGE) == (ssize_t)PAGE);
	}
}
