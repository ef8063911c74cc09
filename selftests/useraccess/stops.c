// SPDX-License-Identifier: GPL-2.0
/*
 * Stops that come at a bad moment: with signals on their way, within an exec
 */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "useraccess/counting.h"

#define CYCLES		200
#define FILE_BYTES	65536

static void complain(const char *what, long result)
{
	snprintf(page->text, sizeof(page->text), "%s: %ld, %s", what, result,
		 strerror(errno));
	page->wrong = 1;
}

/* suspends that succeeded */
static int cycles(struct guest *g)
{
	int i, good = 0;

	for (i = 0; i < CYCLES; i++) {
		good += !a->suspend(g, DEADLINE_MS, 0, NULL) && !a->resume(g);
		usleep(500);
	}
	return good;
}

/* -- calls that must not see EINTR */

/* signals that it ignores, one after the other */
static pid_t bother(pid_t pid)
{
	pid_t other = fork_guest();

	while (!other)
		kill(pid, SIGUSR1);
	return other;
}

static void wait_for_nothing(void)
{
	struct epoll_event ev;
	long n;

	signal(SIGUSR1, SIG_IGN);
	page->ready = 1;
	n = epoll_wait(epoll_create1(0), &ev, 1, -1);
	complain("epoll_wait", n);
}

/* a stream with a timeout that nobody reads from, and a full one */
static void make_pair(int *sv)
{
	struct timeval tv = { 600, 0 };

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	must(!setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
	must(!setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
}

static void fill(int fd)
{
	char buf[4096] = {};

	while (send(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	while (send(fd, buf, 1, MSG_DONTWAIT) > 0)
		;
}

static void send_file(void)
{
	int sv[2], fd = memfd_create("file", 0);
	long n;

	make_pair(sv);
	fill(sv[0]);
	must(!ftruncate(fd, FILE_BYTES));
	page->ready = 1;
	n = sendfile(sv[0], fd, NULL, FILE_BYTES);
	complain("sendfile", n);
}

static void splice_from(void)
{
	int sv[2], p[2];
	long n;

	make_pair(sv);
	must(!pipe(p));
	page->ready = 1;
	n = splice(sv[0], NULL, p[1], NULL, 4096, 0);
	complain("splice from a socket", n);
}

static void splice_to(void)
{
	int sv[2], p[2];
	long n;

	make_pair(sv);
	fill(sv[0]);
	must(!pipe(p) && write(p[1], "x", 1) == 1);
	page->ready = 1;
	n = splice(p[0], NULL, sv[0], NULL, 1, 0);
	complain("splice to a socket", n);
}

static void test_call(const char *name, void (*body)(void), bool bothered)
{
	const pid_t pid = start_guest(body);
	struct guest *g = attached(pid);
	pid_t other;
	int good;

	wait_ready();
	must(wait_until(thread_state(pid, pid) == 'S'));
	other = bothered ? bother(pid) : 0;
	good = cycles(g);
	sleep_ms(20);
	ok(good == CYCLES && !page->wrong, "%s goes on: %d suspends%s%s", name,
	   good, page->wrong ? ", " : "", page->text);
	if (other)
		end_guest(other);
	a->close(g);
	end_guest(pid);
}

int main(void)
{
	if (geteuid() || a->probe(NULL)) {
		printf("1..0 # SKIP needs root and a cgroup2 mount\n");
		return 4;
	}
	page = shared_memory(sizeof(*page));
	test_call("epoll_wait among ignored signals", wait_for_nothing, true);
	test_call("sendfile with a timeout", send_file, false);
	test_call("splice from a socket with a timeout", splice_from, false);
	test_call("splice to a socket with a timeout", splice_to, false);
	return tap_end();
}
