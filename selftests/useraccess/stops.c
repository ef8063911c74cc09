// SPDX-License-Identifier: GPL-2.0
/*
 * Stops that come at a bad moment: with signals on their way, within an exec
 */
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "useraccess/counting.h"

#define CYCLES		200
#define FILE_BYTES	65536
#define MSEC		1000000LL

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
	/* older kernels find room for it */
	if (n < 0)
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
	if (n < 0)
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

/* -- an exec that others have to end for, some of which are held already */

static char *argument;

static void *exec_it(void *arg)
{
	char *const argv[] = { argument, "100", NULL };

	(void)arg;
	page->go = 1;
	execv("/bin/sleep", argv);
	return NULL;
}

static void *spin(void *arg)
{
	for (;;)
		page->rounds[0]++;
	return arg;
}

/* the kernel will wait for the text of its first argument */
static void make_argument(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	argument = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	page->rounds[1] = (long)argument;
	page->rounds[2] = syscall(SYS_userfaultfd, O_CLOEXEC);
	reg.range.start = (uintptr_t)argument;
	reg.range.len = 4096;
	must(!ioctl((int)page->rounds[2], UFFDIO_API, &api) &&
	     !ioctl((int)page->rounds[2], UFFDIO_REGISTER, &reg));
}

static void exec_by_first(void)
{
	pthread_t t;

	make_argument();
	must(!pthread_create(&t, NULL, spin, NULL));
	page->ready = 1;
	exec_it(NULL);
}

static void exec_by_other(void)
{
	pthread_t t;

	make_argument();
	must(!pthread_create(&t, NULL, exec_it, NULL));
	page->ready = 1;
	spin(NULL);
}

static void *give_argument(void *arg)
{
	const int uffd = *(int *)arg;
	static char text[4096] = "sleep";
	struct uffdio_copy c = {
		.dst = (uint64_t)page->rounds[1], .src = (uintptr_t)text,
		.len = sizeof(text),
	};

	sleep_ms(200);
	must(!ioctl(uffd, UFFDIO_COPY, &c));
	return NULL;
}

static void test_exec(const char *name, void (*body)(void))
{
	const pid_t pid = start_guest(body);
	struct guest *g = attached(pid);
	int64_t begin = now_ns();
	pthread_t t;
	int fd, r;

	must(wait_until(page->ready && page->go));
	fd = (int)syscall(SYS_pidfd_getfd, user_of(g)->pidfd, page->rounds[2],
			  0);
	must(fd >= 0 && !pthread_create(&t, NULL, give_argument, &fd));
	r = a->suspend(g, DEADLINE_MS, 0, NULL);
	ok(r == -ECANCELED && now_ns() - begin < DEADLINE_MS / 2 * MSEC,
	   "an exec by %s ends the suspend, not the other way round: %d", name,
	   r);
	pthread_join(t, NULL);
	close(fd);
	a->close(g);
	end_guest(pid);
}

/* -- signals on their way to threads that are let go again */

static void on_signal(int sig)
{
	(void)sig;
	page->rounds[0]++;
}

static void *stay(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	page->rounds[2] = syscall(SYS_gettid);
	for (;;)
		pause();
	return arg;
}

/* the second thread is another tracer's */
static void take_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	pthread_t t;

	must(!sigaction(SIGRTMIN, &sa, NULL));
	must(!pthread_create(&t, NULL, stay, NULL));
	for (;;)
		if (page->rounds[2])
			page->ready = 1;
}

static pid_t trace(pid_t tid)
{
	pid_t pid = fork_guest();

	if (pid)
		return pid;
	must(!ptrace(PTRACE_SEIZE, tid, 0, 0));
	page->go = 1;
	for (;;)
		pause();
}

/* never many at a time, all of which arrive */
static pid_t send_signals(pid_t to)
{
	const union sigval none = {};
	pid_t pid = fork_guest();

	if (pid)
		return pid;
	while (page->go == 1) {
		if (page->rounds[1] - page->rounds[0] < 16 &&
		    !sigqueue(to, SIGRTMIN, none))
			page->rounds[1]++;
	}
	page->go = 3;
	for (;;)
		pause();
}

static void test_signals(void)
{
	const pid_t pid = start_guest(take_signals);
	struct guest *g = attached(pid);
	pid_t tracer, sender;
	int i, good = 0;

	wait_ready();
	tracer = trace((pid_t)page->rounds[2]);
	must(wait_until(page->go == 1));
	sender = send_signals(pid);
	for (i = 0; i < CYCLES; i++)
		good += a->suspend(g, 1000, 0, NULL) == -ETIMEDOUT;
	page->go = 2;
	must(wait_until(page->go == 3));
	for (i = 0; i < 100 && page->rounds[0] != page->rounds[1]; i++)
		sleep_ms(10);
	ok(good == CYCLES && page->rounds[0] == page->rounds[1],
	   "%ld signals sent, %ld taken, in %d suspends that were refused",
	   page->rounds[1], page->rounds[0], good);
	end_guest(sender);
	end_guest(tracer);
	a->close(g);
	end_guest(pid);
}

int main(void)
{
	const int skip = counting_begin();

	if (skip)
		return skip;
	test_call("epoll_wait among ignored signals", wait_for_nothing, true);
	test_call("sendfile with a timeout", send_file, false);
	test_call("splice from a socket with a timeout", splice_from, false);
	test_call("splice to a socket with a timeout", splice_to, false);
	test_exec("the first thread", exec_by_first);
	test_exec("another thread", exec_by_other);
	test_signals();
	return tap_end();
}
