// SPDX-License-Identifier: GPL-2.0
/* Descriptors without a name: pipes, counters, timers, sets; duplicates */
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "lib/clock.h"
#include "bare.h"

static struct bare m;

static void moved(guest_part part, guest_part second, const char *what)
{
	int r = bare_all(&m, part, second);

	ok(!r, "%s: moved", what);
	if (r) {
		note("%s", strerror(-r));
		bare_print(&m);
		exit(tap_end());
	}
}

/* -- counters */

static void counters(void)
{
	guest_must(eventfd(5, 0) == 0);
	guest_must(eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC) == 1);
	guest_must(eventfd(7, EFD_SEMAPHORE | EFD_NONBLOCK) == 2);
	guest_must(eventfd(1, 0) == 3);
	guest_must(eventfd(0, EFD_NONBLOCK) == 4);
}

static void counters_second(void)
{
	uint64_t add = 3;

	guest_must(write(0, &add, sizeof(add)) == sizeof(add));
	guest_must(!close(3));
	guest_must(eventfd(~0ULL >> 33, EFD_SEMAPHORE) == 3);
	guest_must(!fcntl(2, F_SETFD, FD_CLOEXEC));
	guest_must(!fcntl(4, F_SETFL, 0));
}

static uint64_t read_count(int nr)
{
	int fd = bare_fd(&m, nr);
	uint64_t v = 0;

	must(fd >= 0 && !fcntl(fd, F_SETFL, O_NONBLOCK));
	if (read(fd, &v, sizeof(v)) != sizeof(v))
		v = 0;
	close(fd);
	return v;
}

static int nr_open(void)
{
	Mspd__FileTable *t = bare_again(&m);
	int n = t ? (int)t->n_fds : -1;

	mspd__file_table__free_unpacked(t, NULL);
	return n;
}

static int flags_of(int nr)
{
	int fd = bare_fd(&m, nr), flags;

	must(fd >= 0);
	flags = fcntl(fd, F_GETFL);
	close(fd);
	return flags;
}

static bool cloexec_of(int nr)
{
	char path[64], line[128];
	unsigned int flags = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", m.r->ns.pid, nr);
	f = fopen(path, "re");
	must(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "flags: %o", &flags);
	fclose(f);
	return flags & O_CLOEXEC;
}

static void test_counters(void)
{
	moved(counters, counters_second, "eventfd");
	ok(nr_open() == 5, "no descriptor too many");
	ok(cloexec_of(1) && cloexec_of(2) && !cloexec_of(0) && !cloexec_of(3),
	   "close-on-exec as it was at last");
	ok(flags_of(2) == (O_RDWR | O_NONBLOCK) && flags_of(4) == O_RDWR,
	   "flags as they were at last");
	ok(read_count(0) == 8, "a counter is as high as at last");
	ok(read_count(1) == 0, "a semaphore at zero stays there");
	ok(read_count(2) == 1 && read_count(2) == 1, "a semaphore gives one");
	ok(read_count(3) == 1, "one that was replaced is of the new kind");
	bare_end(&m);
}

/* -- the source's counters after the question whether they are semaphores */

static uint64_t source_count(int nr)
{
	char path[64], line[128];
	unsigned long long v = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", m.pid, nr);
	f = fopen(path, "re");
	must(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "eventfd-count: %llx", &v);
	fclose(f);
	return v;
}

static void test_untouched(void)
{
	bare_start(&m, counters, counters_second);
	must(!bare_capture_early(&m) && !bare_capture_final(&m));
	ok(source_count(0) == 5 && source_count(1) == 0 &&
	   source_count(2) == 7 && source_count(3) == 1 &&
	   source_count(4) == 0, "a capture leaves the source's counters");
	bare_end(&m);
}

/* -- pipes */

#define PIPE_TEXT "what is in the pipe"

static void pipes(void)
{
	char big[40000];
	int p[2];

	memset(big, 'b', sizeof(big));
	guest_must(!pipe2(p, 0) && p[0] == 0);		/* 0, 1 */
	guest_must(!pipe2(p, O_DIRECT | O_CLOEXEC));	/* 2, 3 */
	guest_must(!pipe2(p, O_NONBLOCK));		/* 4, 5 */
	guest_must(fcntl(5, F_SETPIPE_SZ, 4096) == 4096);
	guest_must(write(5, big, 4096) == 4096);
	guest_must(!pipe2(p, 0));			/* 6, 7 */
	guest_must(write(7, big, 40000) == 40000);
	guest_must(!close(7));
	guest_must(dup2(0, 20) == 20);
	guest_must(open("/proc/self/fd/1", O_WRONLY) == 7);
	guest_must(open("/proc/self/fd/0", O_RDWR | O_CLOEXEC) == 8);
}

static void pipes_second(void)
{
	guest_must(write(1, PIPE_TEXT, 19) == 19);
	guest_must(write(3, "one", 3) == 3);
	guest_must(write(3, "three", 5) == 5);
}

static void test_pipes(void)
{
	char buf[65536];
	int fd, other;
	ssize_t n;

	moved(pipes, pipes_second, "pipes");
	fd = bare_fd(&m, 20);
	n = read(fd, buf, sizeof(buf));
	ok(n == 19 && !memcmp(buf, PIPE_TEXT, 19), "content of a pipe");
	other = bare_fd(&m, 7);
	ok(write(other, "x", 1) == 1 && read(fd, buf, 1) == 1,
	   "a second description of the writing end leads there");
	close(other);
	other = bare_fd(&m, 8);
	ok(write(other, "y", 1) == 1 && read(other, buf, 1) == 1 &&
	   (fcntl(other, F_GETFL) & O_ACCMODE) == O_RDWR,
	   "a description for both");
	close(other);
	close(fd);
	fd = bare_fd(&m, 2);
	n = read(fd, buf, sizeof(buf));
	ok(n == 3 && read(fd, buf, sizeof(buf)) == 5, "packets stay apart");
	close(fd);
	ok(flags_of(0) == O_RDONLY && flags_of(1) == O_WRONLY &&
	   flags_of(3) == (O_WRONLY | O_DIRECT), "flags of pipes");
	fd = bare_fd(&m, 5);
	ok(fcntl(fd, F_GETPIPE_SZ) == 4096 && write(fd, "z", 1) == -1 &&
	   errno == EAGAIN, "a full small pipe is full");
	close(fd);
	fd = bare_fd(&m, 6);
	must(!fcntl(fd, F_SETFL, O_NONBLOCK));
	for (n = 0; read(fd, buf, 1000) == 1000;)
		n += 1000;
	ok(n == 40000 && read(fd, buf, 1) == 0,
	   "an end whose peer is closed gives the rest, then the end");
	close(fd);
	bare_end(&m);
}

/* -- timers */

static void timers(void)
{
	struct itimerspec its = { { 0, 50000000 }, { 0, 1000000 } };
	struct itimerspec once = { { 0, 0 }, { 5, 0 } };
	struct timespec now;

	guest_must(timerfd_create(CLOCK_MONOTONIC, 0) == 0);
	guest_must(!timerfd_settime(0, 0, &its, NULL));
	guest_must(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK) == 1);
	guest_must(!timerfd_settime(1, 0, &once, NULL));
	guest_must(timerfd_create(CLOCK_REALTIME, 0) == 2);
	clock_gettime(CLOCK_REALTIME, &now);
	once.it_value.tv_sec = now.tv_sec + 3600;
	guest_must(!timerfd_settime(2, TFD_TIMER_ABSTIME |
				    TFD_TIMER_CANCEL_ON_SET, &once, NULL));
	guest_must(timerfd_create(CLOCK_MONOTONIC, 0) == 3);
	guest_must(timerfd_create(CLOCK_MONOTONIC, 0) == 4);
	once.it_value = (struct timespec){ 0, 1000000 };
	guest_must(!timerfd_settime(4, 0, &once, NULL));
	usleep(20000);
}

static void timers_second(void)
{
	usleep(200000);
}

static void test_timers(void)
{
	struct itimerspec its;
	struct timespec now;
	uint64_t ticks = 0;
	int fd;

	moved(timers, timers_second, "timerfd");
	fd = bare_fd(&m, 0);
	must(!timerfd_gettime(fd, &its));
	ok(its.it_interval.tv_nsec == 50000000 &&
	   (its.it_value.tv_nsec || its.it_value.tv_sec),
	   "a periodic timer that expired unread goes on");
	must(read(fd, &ticks, 8) == 8);
	ok(ticks >= 4, "it tells at least what had expired (%llu)",
	   (unsigned long long)ticks);
	close(fd);
	fd = bare_fd(&m, 1);
	must(!timerfd_gettime(fd, &its));
	ok(its.it_value.tv_sec <= 4 && its.it_value.tv_sec >= 0 &&
	   (its.it_value.tv_sec || its.it_value.tv_nsec),
	   "a timer that runs goes on");
	close(fd);
	fd = bare_fd(&m, 2);
	must(!timerfd_gettime(fd, &its));
	clock_gettime(CLOCK_REALTIME, &now);
	ok(its.it_value.tv_sec > 3500 && its.it_value.tv_sec <= 3600,
	   "an absolute one means the same time");
	close(fd);
	fd = bare_fd(&m, 3);
	must(!timerfd_gettime(fd, &its));
	ok(!its.it_value.tv_sec && !its.it_value.tv_nsec,
	   "one that is not armed is not armed");
	close(fd);
	fd = bare_fd(&m, 4);
	ticks = 0;
	ok(read(fd, &ticks, 8) == 8 && ticks == 1,
	   "one that expired once, unread, tells so");
	close(fd);
	bare_end(&m);
}

/* -- sets */

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	guest_must(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
}

static void sets(void)
{
	guest_must(eventfd(1, 0) == 0);
	guest_must(eventfd(0, 0) == 1);
	guest_must(epoll_create1(0) == 2);
	guest_must(epoll_create1(EPOLL_CLOEXEC) == 3);
	add(2, 0, EPOLLIN, 0x1111222233334444);
	add(2, 1, EPOLLIN | EPOLLET, 55);
	add(3, 2, EPOLLIN, 66);
	guest_must(dup2(2, 10) == 10);
	guest_must(eventfd(0, 0) == 4);
	guest_must(eventfd(0, 0) == 5);
	add(2, 4, EPOLLIN, 77);
	add(2, 5, EPOLLIN, 78);
}

/* changes of all sorts: gone, other events, other file under the number */
static void sets_second(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT,
				  .data.u64 = 99 };

	guest_must(!epoll_ctl(2, EPOLL_CTL_MOD, 1, &ev));
	guest_must(!epoll_ctl(2, EPOLL_CTL_DEL, 5, NULL));
	guest_must(!close(4));
	guest_must(eventfd(2, EFD_SEMAPHORE) == 4);
	add(2, 4, EPOLLIN | EPOLLOUT, 88);
}

static const Mspd__OpenFile *file_at(const Mspd__FileTable *t, int nr)
{
	size_t i, j;

	for (i = 0; i < t->n_fds; i++)
		for (j = 0; t->fds[i]->fd == nr && j < t->n_files; j++)
			if (t->files[j]->id == t->fds[i]->file)
				return t->files[j];
	return NULL;
}

static bool waits_for(const Mspd__OpenFile *of, int fd, uint32_t events,
		      uint64_t data)
{
	size_t i;

	for (i = 0; i < of->n_epoll; i++)
		if (of->epoll[i]->fd == fd && of->epoll[i]->data == data &&
		    (of->epoll[i]->events & ~(EPOLLERR | EPOLLHUP)) == events)
			return true;
	return false;
}

static void test_sets(void)
{
	struct epoll_event ev[8];
	Mspd__FileTable *t;
	int fd, n;

	moved(sets, sets_second, "epoll");
	fd = bare_fd(&m, 10);
	n = epoll_wait(fd, ev, 8, 0);
	ok(n == 2, "two entries are ready (%d)", n);
	ok(n == 2 && ev[0].data.u64 + ev[1].data.u64 == 0x1111222233334444 + 88,
	   "with the data they had");
	close(fd);
	fd = bare_fd(&m, 3);
	ok(epoll_wait(fd, ev, 8, 0) == 1 && ev[0].data.u64 == 66,
	   "a set in a set");
	close(fd);
	t = bare_again(&m);
	if (!ok(t != NULL, "the target's table is readable"))
		bare_print(&m);
	else
		ok(file_at(t, 2)->n_epoll == 3 &&
		   waits_for(file_at(t, 2), 0, EPOLLIN, 0x1111222233334444) &&
		   waits_for(file_at(t, 2), 1, EPOLLIN | EPOLLONESHOT, 99) &&
		   waits_for(file_at(t, 2), 4, EPOLLIN | EPOLLOUT, 88),
		   "the entries are those of the end");
	mspd__file_table__free_unpacked(t, NULL);
	bare_end(&m);
}

int main(void)
{
	test_counters();
	test_untouched();
	test_pipes();
	test_timers();
	test_sets();
	return tap_end();
}
