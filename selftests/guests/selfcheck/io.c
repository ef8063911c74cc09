// SPDX-License-Identifier: GPL-2.0
/* Descriptors: epoll with a timer and an eventfd, pipes, a stdio stream. */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "check.h"

#define TIMER_NS (20 * NSEC_PER_MSEC)
#define KEPT_BYTES 3000

static int epoll_fd = -1, timer_fd = -1, event_fd = -1;
static int stream[2] = { -1, -1 }, kept[2] = { -1, -1 };
static FILE *journal, *journal_reader;
/*
 * Reads of more than 1024 bytes from 9p over virtio go into the reader's pages
 * by DMA, and the kernel marks neither the pages nor their entries as written:
 * no tracker by dirty bits can see that.
 */
static char reader_buffer[1024];
static uint64_t timer_started_ns;
/* what the pipe writer added to event_fd, beside the eventfd itself */
static _Atomic uint64_t event_added;

#define TAG_TIMER 0x7461670000000001ULL
#define TAG_EVENT 0x7461670000000002ULL

static int epoll_add(int fd, uint64_t tag)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = tag };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int journal_open(void)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/journal", options.dir) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	journal = fopen(path, "ae");
	if (!journal || ftruncate(fileno(journal), 0) < 0)
		return -errno;
	journal_reader = fopen(path, "re");
	if (!journal_reader)
		return -errno;
	setvbuf(journal_reader, reader_buffer, _IOFBF, sizeof(reader_buffer));
	return 0;
}

int io_setup(void)
{
	struct itimerspec its = {
		.it_value = ns_to_ts(TIMER_NS),
		.it_interval = ns_to_ts(TIMER_NS),
	};
	const int *fds[] = { &epoll_fd, &timer_fd, &event_fd, &stream[0],
			     &stream[1], &kept[0], &kept[1] };
	unsigned int i;
	int r;

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (epoll_fd < 0 || timer_fd < 0 || event_fd < 0 ||
	    pipe2(stream, O_CLOEXEC) < 0 || pipe2(kept, O_CLOEXEC) < 0)
		return -errno;
	timer_started_ns = now_ns();
	if (timerfd_settime(timer_fd, 0, &its, NULL) < 0)
		return -errno;
	r = epoll_add(timer_fd, TAG_TIMER);
	if (!r)
		r = epoll_add(event_fd, TAG_EVENT);
	if (!r)
		r = journal_open();
	if (!r)
		r = keep_fd(fileno(journal));
	if (!r)
		r = keep_fd(fileno(journal_reader));
	for (i = 0; !r && i < ARRAY_SIZE(fds); i++)
		r = keep_fd(*fds[i]);
	return r;
}

/* ---- epoll + timerfd + eventfd ---- */

static void read_timer(struct worker *w, uint64_t *ticks)
{
	uint64_t n, possible;

	if (read(timer_fd, &n, sizeof(n)) != sizeof(n)) {
		/* one reader, told by epoll: it has to be there */
		fail_call(w, "read timerfd");
		return;
	}
	*ticks += n;
	possible = (checked_now(w) - timer_started_ns) / TIMER_NS;
	/* a timer that is armed anew may round one expiry up */
	if (*ticks > possible + 2)
		fail(w, "timerfd expired %llu times, possible are %llu",
		     (unsigned long long)*ticks, (unsigned long long)possible);
}

static void read_event(struct worker *w, uint64_t *sum)
{
	uint64_t n;

	if (read(event_fd, &n, sizeof(n)) != sizeof(n)) {
		fail_call(w, "read eventfd");
		return;
	}
	*sum += n;
	if (*sum > atomic_load(&event_added))
		fail(w, "eventfd gave %llu, only %llu were added",
		     (unsigned long long)*sum,
		     (unsigned long long)atomic_load(&event_added));
}

void epoll_run(struct worker *w)
{
	uint64_t ticks = 0, sum = 0, before;
	struct epoll_event ev[4];
	int i, n;

	while (tick(w)) {
		before = atomic_load(&event_added);
		n = epoll_wait(epoll_fd, ev, ARRAY_SIZE(ev), -1);
		if (n < 0) {
			fail_call(w, "epoll_wait");
			continue;
		}
		if (n == 0)
			fail(w, "epoll_wait(-1) timed out");
		for (i = 0; i < n; i++) {
			if (ev[i].data.u64 == TAG_TIMER)
				read_timer(w, &ticks);
			else if (ev[i].data.u64 == TAG_EVENT)
				read_event(w, &sum);
			else
				fail(w, "epoll_wait gave the unknown tag %llx",
				     (unsigned long long)ev[i].data.u64);
		}
		/*
		 * What was added before the wait was readable then; the adder
		 * counts first, so at most its last addition may be missing.
		 */
		if (sum + 1000 < before)
			fail(w, "eventfd gave %llu of %llu",
			     (unsigned long long)sum,
			     (unsigned long long)before);
	}
}

/* ---- a stream of computable bytes through a pipe ---- */

static unsigned char stream_byte(uint64_t at)
{
	return (unsigned char)(mix64(at / 8) >> (at % 8 * 8));
}

void pipe_writer(struct worker *w)
{
	unsigned char buf[8192];
	uint64_t at = 0, add;
	size_t len, i;
	ssize_t n;

	while (tick(w)) {
		len = 1 + prng_next(&w->prng) % sizeof(buf);
		for (i = 0; i < len; i++)
			buf[i] = stream_byte(at + i);
		/* full most of the time: the reader is slower */
		n = write(stream[1], buf, len);
		if (n < 0)
			fail_call(w, "write pipe");
		else
			at += (uint64_t)n;

		add = 1 + prng_next(&w->prng) % 1000;
		atomic_fetch_add(&event_added, add);
		if (write(event_fd, &add, sizeof(add)) != sizeof(add))
			fail_call(w, "write eventfd");
	}
}

void pipe_reader(struct worker *w)
{
	unsigned char buf[6000];
	uint64_t at = 0;
	ssize_t n, i;

	while (tick(w)) {
		n = read(stream[0], buf, 1 + prng_next(&w->prng) % sizeof(buf));
		if (n < 0)
			fail_call(w, "read pipe");
		else if (n == 0)
			fail(w, "end of file on a pipe whose writer lives");
		for (i = 0; i < n; i++) {
			if (buf[i] == stream_byte(at + (uint64_t)i))
				continue;
			fail(w, "byte %llu of the pipe is wrong",
			     (unsigned long long)(at + (uint64_t)i));
			break;
		}
		if (n > 0)
			at += (uint64_t)n;
		pace(w, 10 * NSEC_PER_MSEC);
	}
}

/* ---- a pipe that is never empty: its content has to move ---- */

void pipe_kept(struct worker *w)
{
	unsigned char buf[KEPT_BYTES];
	uint64_t in = 0, out = 0;
	ssize_t n, i;
	size_t len;

	while (tick(w)) {
		while (in < out + KEPT_BYTES) {
			len = (size_t)(out + KEPT_BYTES - in);
			for (i = 0; i < (ssize_t)len; i++)
				buf[i] = stream_byte(~(in + (uint64_t)i));
			n = write(kept[1], buf, len);
			if (n <= 0) {
				fail_call(w, "write kept pipe");
				break;
			}
			in += (uint64_t)n;
		}
		pace(w, 30 * NSEC_PER_MSEC);
		n = read(kept[0], buf, 1 + prng_next(&w->prng) % KEPT_BYTES);
		if (n <= 0)
			fail_call(w, "read kept pipe");
		for (i = 0; i < n; i++) {
			if (buf[i] == stream_byte(~(out + (uint64_t)i)))
				continue;
			fail(w, "byte %llu kept in the pipe is wrong",
			     (unsigned long long)(out + (uint64_t)i));
			break;
		}
		if (n > 0)
			out += (uint64_t)n;
	}
}

/* ---- stdio: appended with a buffer, read back through another stream ---- */

#define LINES_PER_FILE 5000

static void verify_line(struct worker *w, uint64_t line)
{
	char buf[128], want[128];

	snprintf(want, sizeof(want), "%llu %016llx\n", (unsigned long long)line,
		 (unsigned long long)mix64(line));
	if (!fgets(buf, sizeof(buf), journal_reader)) {
		if (ferror(journal_reader))
			fail_call(w, "fgets");
		else
			fail(w, "journal ends before line %llu",
			     (unsigned long long)line);
		clearerr(journal_reader);
	} else if (strcmp(buf, want)) {
		fail(w, "line %llu of the journal is wrong",
		     (unsigned long long)line);
	}
}

void stdio_run(struct worker *w)
{
	uint64_t line = 0, first = 0, flushed = 0, read_to = 0;

	while (tick(w)) {
		fprintf(journal, "%llu %016llx\n", (unsigned long long)line,
			(unsigned long long)mix64(line));
		line++;
		pace(w, 5 * NSEC_PER_MSEC);
		if (prng_next(&w->prng) % 32)
			continue;

		if (fflush(journal))
			fail_call(w, "fflush");
		flushed = line;
		/* some lines stay for the next time: an offset inside the file */
		while (read_to + 3 < flushed)
			verify_line(w, read_to++);

		if (line - first < LINES_PER_FILE)
			continue;
		while (read_to < flushed)
			verify_line(w, read_to++);
		if (ftruncate(fileno(journal), 0) < 0)
			fail_call(w, "ftruncate");
		rewind(journal_reader);
		first = line;
	}
}
