// SPDX-License-Identifier: GPL-2.0
/*
 * A ring carries what it is given, with io_uring and without, also when the
 * other side is slow, and ends when the connection does.
 */
#include <pthread.h>
#include <unistd.h>
#include "lib/clock.h"
#include "tap.h"
#include "wire/ring.h"

#define TOTAL	(8 << 20)
#define PIECES	100

static unsigned char *sent, *got;

static void *reader(void *arg)
{
	int fd = *(int *)arg;
	size_t n = 0;

	while (n < TOTAL) {
		ssize_t r = read(fd, got + n, 7777);

		if (r <= 0)
			break;
		n += r;
		if (n % 3 == 0)
			usleep(100);
	}
	return NULL;
}

static void test_send(bool uring)
{
	struct iovec iov[PIECES];
	pthread_t thread;
	struct ring r;
	int pair[2], err;

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(!ring_init(&r, pair[0], uring));
	note("io_uring %s", r.use_uring ? "in use" : "not in use");
	memset(got, 0, TOTAL);
	must(!pthread_create(&thread, NULL, reader, &pair[1]));
	for (int i = 0; i < PIECES; i++)
		iov[i] = (struct iovec){
			sent + (size_t)TOTAL / PIECES * i,
			i < PIECES - 1 ? TOTAL / PIECES :
			TOTAL - (size_t)TOTAL / PIECES * (PIECES - 1),
		};
	err = ring_send_start(&r, iov, PIECES);
	if (!err)
		err = ring_send_wait(&r);
	pthread_join(thread, NULL);
	ok(!err && !memcmp(sent, got, TOTAL), "all arrives, uring %d", uring);

	must(write(pair[1], "abc", 3) == 3);
	ok(!ring_recv(&r, got, 2) && !memcmp(got, "ab", 2),
	   "exactly as much as is asked for");
	close(pair[1]);
	ok(ring_recv(&r, got, 2) == -ECONNRESET, "half of it is an error");
	ok(ring_recv(&r, got, 2) == -ENODATA, "nothing is the end");
	iov[0] = (struct iovec){ sent, 100 };
	err = ring_send_start(&r, iov, 1);
	if (!err)
		err = ring_send_wait(&r);
	ok(err == -EPIPE || err == -ECONNRESET, "nobody is there (%d)", err);
	ring_exit(&r);
	close(pair[0]);
}

static void *end(void *arg)
{
	sleep_ms(100);
	shutdown(*(int *)arg, SHUT_RDWR);
	return NULL;
}

static void test_stall(bool uring)
{
	struct iovec iov = { sent, TOTAL };
	pthread_t thread;
	struct ring r;
	int pair[2], err;

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(!ring_init(&r, pair[0], uring));
	must(!pthread_create(&thread, NULL, end, &pair[0]));
	err = ring_send_start(&r, &iov, 1);
	if (!err)
		err = ring_send_wait(&r);
	pthread_join(thread, NULL);
	ok(err == -EPIPE || err == -ECONNRESET,
	   "a shutdown ends a send that stalls, uring %d (%d)", uring, err);
	ring_exit(&r);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	sent = malloc(TOTAL);
	got = malloc(TOTAL);
	must(sent && got);
	for (size_t i = 0; i < TOTAL; i++)
		sent[i] = i * 2654435761u >> 13;
	for (int uring = 0; uring < 2; uring++) {
		test_send(uring);
		test_stall(uring);
	}
	free(sent);
	free(got);
	return tap_end();
}
