// SPDX-License-Identifier: GPL-2.0
/*
 * Several opens of a stream harvest at one time, each its own part; and what
 * tracking costs the guest in faults: nothing
 */
#include <pthread.h>
#include <sys/resource.h>

#include "../vasi_test.h"
#include "track.h"

#define THREADS 4
#define PART (8ul << 20)
#define ARENA (THREADS * PART)

enum what { PREPARE, WRITE_SOME, WRITE_ALL };

/* every fourth page, another one each time */
static int64_t act(int what, int64_t *arg)
{
	struct rusage before, after;
	char *p = (char *)arg[0];
	size_t i;

	switch (what) {
	case PREPARE:
		p = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS, -1, 0);
		madvise(p, ARENA, MADV_NOHUGEPAGE);
		memset(p, 1, ARENA);
		return (int64_t)p;
	case WRITE_SOME:
		for (i = arg[1] % 4 * PAGE; i < ARENA; i += 4 * PAGE)
			p[i]++;
		return 0;
	case WRITE_ALL:
		getrusage(RUSAGE_SELF, &before);
		for (i = 0; i < ARENA; i += PAGE)
			p[i]++;
		getrusage(RUSAGE_SELF, &after);
		return after.ru_minflt - before.ru_minflt;
	}
	return -1;
}

struct part {
	pthread_t thread;
	int fd;
	uint64_t start;
	struct tally tally;
	uint64_t twice;
	unsigned char seen[PART / PAGE];
	int ret;
};

static void see(const struct vasi_range *r, void *arg)
{
	struct part *p = arg;
	uint64_t i;

	/* held for a moment by the kernel: reported in vain, and that is right */
	if (r->reason == VASI_REASON_PINNED)
		return;
	for (i = 0; i < r->pages; i++)
		p->twice += p->seen[(r->start - p->start) / PAGE + i]++;
}

static void *harvest_part(void *arg)
{
	struct part *p = arg;

	p->ret = harvest(p->fd, p->start, p->start + PART, &p->tally, see, p);
	return NULL;
}

static struct part parts[THREADS];

static int join(uint64_t id)
{
	struct vasi_attach c = {
		.size = sizeof(c),
		.flags = VASI_ATTACH_JOIN,
		.service = VASI_SERVICE_SOURCE,
		.stream_id = id,
	};
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC);

	must(!vasi_cmd(fd, VASI_ATTACH, &c));
	return fd;
}

/* against what the guest wrote in this round */
static void compare(const struct part *p, int round, uint64_t *missing,
		    uint64_t *extra)
{
	size_t i;

	for (i = 0; i < PART / PAGE; i++) {
		bool written = (int)(i % 4) == round % 4;

		*missing += written && !p->seen[i];
		*extra += !written && p->seen[i];
	}
}

static void rounds(struct doer *d, uint64_t arena)
{
	uint64_t missing = 0, extra = 0, twice = 0;
	int i, round, bad = 0;

	for (round = 0; round < 8; round++) {
		doer_do(d, WRITE_SOME, arena, round, 0);
		for (i = 0; i < THREADS; i++) {
			memset(&parts[i].tally, 0, sizeof(parts[i].tally));
			memset(parts[i].seen, 0, sizeof(parts[i].seen));
			parts[i].twice = 0;
			must(!pthread_create(&parts[i].thread, NULL,
					     harvest_part, &parts[i]));
		}
		for (i = 0; i < THREADS; i++) {
			pthread_join(parts[i].thread, NULL);
			compare(&parts[i], round, &missing, &extra);
			twice += parts[i].twice;
			bad |= parts[i].ret;
		}
	}
	/* what the kernel touches meanwhile is reported in vain, and is little */
	ok(!bad && !missing && !twice && extra < 8 * ARENA / PAGE / 100,
	   "four at a time report each page written, and each once");
	if (missing || extra || twice)
		note("%llu missing, %llu not written, %llu twice",
		     (unsigned long long)missing, (unsigned long long)extra,
		     (unsigned long long)twice);
}

int main(void)
{
	struct doer d;
	struct vasi_stream_info info;
	uint64_t arena, faults = 0;
	struct tally t = {0};
	int i;

	doer_start(&d, act);
	must(!stream_info(d.fd, &info));
	arena = doer_do(&d, PREPARE, 0, 0, 0);
	must(!track(d.fd, VASI_TRACK_START));
	for (i = 0; i < THREADS; i++) {
		parts[i].fd = join(info.stream_id);
		parts[i].start = arena + i * PART;
	}
	must(!settle(d.fd, arena, arena + ARENA));
	rounds(&d, arena);

	doer_do(&d, WRITE_ALL, arena, 0, 0);
	for (i = 0; i < 10; i++) {
		must(!harvest(d.fd, arena, arena + ARENA, &t, NULL, NULL));
		faults += doer_do(&d, WRITE_ALL, arena, 0, 0);
	}
	ok(!faults, "tracking costs the guest no fault");
	note("%llu faults in 10 rounds, %llu pages reported, %llu flushes",
	     (unsigned long long)faults, (unsigned long long)t.data,
	     (unsigned long long)t.flushes);
	ok(t.flushes && t.flushes <= 10 * (ARENA / HUGE + 1) + 40,
	   "one flush for each page table at most");
	for (i = 0; i < THREADS; i++)
		close(parts[i].fd);
	doer_end(&d);
	return tap_end();
}
