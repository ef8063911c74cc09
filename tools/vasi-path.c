// SPDX-License-Identifier: GPL-2.0
/*
 * Ways for pages to go from one process to another over TCP, side by side
 *
 * Each way is a source (where the bytes that are sent come from) and a target
 * (where they end), one thread per stream and side, on loopback. What a way
 * costs is told in CPU seconds: where both sides share the CPUs, and on a fast
 * link, that is what limits it. The ways take turns, so that a noisy machine
 * is noisy for all of them; the table shows medians.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define MAX_STREAMS	64
#define MAX_RUNS	99
#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define POPULATE	23		/* MADV_POPULATE_WRITE */
#define BACK		(256UL << 10)	/* read back at a time */
#define TARGET_AT	((unsigned char *)0x100000000000)

enum source { OWN, READ };
enum target { DROP, WRITE, FILL, PLACE, POPULATED };
enum sending { SEND, URING, FIXED, ZEROCOPY };

static const struct way {
	const char *name;
	enum source source;
	enum target target;
	enum sending sending;
	bool digest, huge, back;
} ways[] = {
	{ "send, recv and drop", OWN, DROP, SEND, false, false, false },
	{ "read, drop", READ, DROP, SEND, false, false, false },
	{ "read+digest, digest+drop", READ, DROP, SEND, true, false, false },
	{ "read+digest, digest+write", READ, WRITE, SEND, true, false, false },
	{ "read+digest, digest+fill", READ, FILL, SEND, true, false, false },
	{ "read+digest, write+read+digest", READ, WRITE, SEND, true, false, true },
	{ "read+digest, fill+read+digest", READ, FILL, SEND, true, false, true },
	{ "read+digest, in place+digest", READ, PLACE, SEND, true, false, false },
	{ "read+digest, populate+in place+digest", READ, POPULATED, SEND, true, false, false },
	{ "read+digest, digest+write, huge", READ, WRITE, SEND, true, true, false },
	{ "read+digest, in place+digest, huge", READ, PLACE, SEND, true, true, false },
	{ "as fill, io_uring", READ, FILL, URING, true, false, false },
	{ "as fill, io_uring, registered buffers", READ, FILL, FIXED, true, false, false },
	{ "as fill, MSG_ZEROCOPY", READ, FILL, ZEROCOPY, true, false, false },
};

#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

static struct {
	unsigned long size, chunk, streams, runs;
} opt = { .size = 512, .chunk = 1024, .streams = 2, .runs = 5 };

/* bytes of the source process, at the same address as here */
static unsigned char *memory;
static pid_t source_pid;

struct stream {
	const struct way *way;
	int out, in;
	size_t from, bytes;
	pid_t target;
	int uffd;
	pthread_t thread[2];
};

struct figure {
	double wall, cpu;	/* seconds per GB */
};

static void die(const char *what)
{
	fprintf(stderr, "vasi-path: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void digest(const unsigned char *p, size_t len)
{
	static volatile uint64_t sum;

	for (; len; len -= PAGE, p += PAGE)
		sum += XXH64(p, PAGE, 0);
}

/* -- the source */

static void send_plain(int fd, const unsigned char *p, size_t len, int flags)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL | flags);

		/* too many that were not acknowledged yet */
		if (n < 0 && (errno == EINTR || errno == ENOBUFS))
			continue;
		if (n < 0)
			die("send");
		p += n;
		len -= (size_t)n;
	}
}

/* each call has an answer, which must be taken before its bytes may change */
static void take_answers(int fd, unsigned int *calls)
{
	while (*calls) {
		char control[128];
		struct msghdr msg = {
			.msg_control = control, .msg_controllen = sizeof(control),
		};
		const struct cmsghdr *c;
		uint32_t range[2];

		if (recvmsg(fd, &msg, MSG_ERRQUEUE) < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			die("recvmsg");
		}
		c = CMSG_FIRSTHDR(&msg);
		/* ee_info and ee_data of struct sock_extended_err */
		memcpy(range, CMSG_DATA(c) + 8, sizeof(range));
		*calls -= range[1] - range[0] + 1;
	}
}

static void send_counted(int fd, const unsigned char *p, size_t len,
			 unsigned int *calls)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL | MSG_ZEROCOPY);

		if (n < 0 && errno == ENOBUFS) {
			take_answers(fd, calls);
			continue;
		}
		if (n < 0)
			die("send");
		++*calls;
		p += n;
		len -= (size_t)n;
	}
}

static void ring_wait(struct io_uring *ring, size_t len)
{
	struct io_uring_cqe *cqe;

	if (io_uring_wait_cqe(ring, &cqe) || cqe->res != (int)len) {
		errno = cqe->res < 0 ? -cqe->res : EIO;
		die("io_uring");
	}
	io_uring_cqe_seen(ring, cqe);
}

static void ring_send(struct stream *st, struct io_uring *ring, int turn,
		      const unsigned char *p, size_t len)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (st->way->sending == FIXED)
		io_uring_prep_send_zc_fixed(sqe, st->out, p, len,
					    MSG_NOSIGNAL | MSG_WAITALL, 0,
					    (unsigned int)turn);
	else
		io_uring_prep_send(sqe, st->out, p, len,
				   MSG_NOSIGNAL | MSG_WAITALL);
	io_uring_submit(ring);
}

/* the notification that follows a send without a copy */
static void ring_notified(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;

	if (io_uring_wait_cqe(ring, &cqe) || !(cqe->flags & IORING_CQE_F_NOTIF))
		die("io_uring: no notification");
	io_uring_cqe_seen(ring, cqe);
}

static void *source_main(void *arg)
{
	struct stream *st = arg;
	const struct way *way = st->way;
	unsigned char *buffer[2];
	unsigned int calls = 0;
	struct io_uring ring;
	size_t done, len, busy = 0;
	int turn = 0, on = 1;

	for (int i = 0; i < 2; i++) {
		buffer[i] = aligned_alloc(PAGE, opt.chunk);
		if (!buffer[i])
			die("memory");
		memset(buffer[i], 0, opt.chunk);
	}
	if (way->sending == ZEROCOPY &&
	    setsockopt(st->out, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)))
		die("SO_ZEROCOPY");
	if (way->sending == URING || way->sending == FIXED) {
		const struct iovec v[] = { { buffer[0], opt.chunk },
					   { buffer[1], opt.chunk } };

		errno = -io_uring_queue_init(8, &ring, 0);
		if (errno || (errno = -io_uring_register_buffers(&ring, v, 2)))
			die("io_uring");
	}
	for (done = 0; done < st->bytes; done += len) {
		unsigned char *p = memory + st->from + done;

		len = st->bytes - done < opt.chunk ? st->bytes - done :
						     opt.chunk;
		if (way->source == READ) {
			struct iovec from = { p, len }, to = { buffer[turn], len };

			if (process_vm_readv(source_pid, &to, 1, &from, 1, 0) !=
			    (ssize_t)len)
				die("process_vm_readv");
			p = buffer[turn];
		}
		if (way->digest)
			digest(p, len);
		switch (way->sending) {
		case SEND:
			send_plain(st->out, p, len, 0);
			break;
		case ZEROCOPY:
			take_answers(st->out, &calls);
			send_counted(st->out, p, len, &calls);
			break;
		case URING:
		case FIXED:
			if (busy)
				ring_wait(&ring, busy);
			if (busy && way->sending == FIXED)
				ring_notified(&ring);
			ring_send(st, &ring, turn, p, len);
			busy = len;
			break;
		}
		turn ^= 1;
	}
	if (busy)
		ring_wait(&ring, busy);
	if (busy && way->sending == FIXED)
		ring_notified(&ring);
	take_answers(st->out, &calls);
	if (way->sending == URING || way->sending == FIXED)
		io_uring_queue_exit(&ring);
	free(buffer[0]);
	free(buffer[1]);
	return NULL;
}

/* -- the target */

static void recv_all(int fd, void *p, size_t len)
{
	ssize_t n;

	for (; len; len -= (size_t)n, p = (char *)p + n) {
		n = recv(fd, p, len, MSG_WAITALL);
		if (n <= 0)
			die("recv");
	}
}

static void put(struct stream *st, unsigned char *at, unsigned char *p,
		size_t len)
{
	struct iovec from = { p, len }, to = { at, len };
	struct uffdio_copy copy = {
		.dst = (uintptr_t)at, .src = (uintptr_t)p, .len = len,
	};

	if (st->way->target == WRITE &&
	    process_vm_writev(st->target, &from, 1, &to, 1, 0) != (ssize_t)len)
		die("process_vm_writev");
	if (st->way->target == FILL && ioctl(st->uffd, UFFDIO_COPY, &copy))
		die("UFFDIO_COPY");
}

/* what is there is read back in parts, the digest is of that */
static void put_and_look(struct stream *st, unsigned char *at,
			 unsigned char *p, size_t len, unsigned char *back)
{
	while (len) {
		size_t n = len < BACK ? len : BACK;
		struct iovec from = { at, n }, to = { back, n };

		put(st, at, p, n);
		if (process_vm_readv(st->target, &to, 1, &from, 1, 0) !=
		    (ssize_t)n)
			die("process_vm_readv");
		digest(back, n);
		at += n;
		p += n;
		len -= n;
	}
}

static bool in_place(const struct way *way)
{
	return way->target == PLACE || way->target == POPULATED;
}

static void *target_main(void *arg)
{
	struct stream *st = arg;
	unsigned char *buffer = NULL, *back = NULL;
	size_t done, len;

	if (!in_place(st->way))
		buffer = aligned_alloc(PAGE, opt.chunk);
	if (st->way->back)
		back = aligned_alloc(PAGE, BACK);
	for (done = 0; done < st->bytes; done += len) {
		unsigned char *at = TARGET_AT + st->from + done;
		unsigned char *p = buffer ? buffer : at;

		len = st->bytes - done < opt.chunk ? st->bytes - done :
						     opt.chunk;
		if (st->way->target == POPULATED && madvise(at, len, POPULATE))
			die("madvise");
		recv_all(st->in, p, len);
		if (st->way->back) {
			put_and_look(st, at, p, len, back);
			continue;
		}
		if (st->way->digest)
			digest(p, len);
		put(st, at, p, len);
	}
	free(back);
	free(buffer);
	return NULL;
}

static void run_threads(struct stream *st, int which, void *(*body)(void *))
{
	for (unsigned long i = 0; i < opt.streams; i++) {
		errno = pthread_create(&st[i].thread[which], NULL, body, &st[i]);
		if (errno)
			die("thread");
	}
}

static void join_threads(struct stream *st, int which)
{
	for (unsigned long i = 0; i < opt.streams; i++)
		pthread_join(st[i].thread[which], NULL);
}

/* A process with memory that nothing has touched. @pipe: its CPU seconds */
static pid_t make_target(struct stream *st, const struct way *way,
			 const int *pipe)
{
	struct uffdio_api api = { .api = UFFD_API };
	pid_t parent = getpid(), pid = fork();
	int uffd, go;
	double cpu;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent ||
	    mmap(TARGET_AT, opt.size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
	    TARGET_AT || madvise(TARGET_AT, opt.size, way->huge ?
				 MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("target");
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		die("userfaultfd");
	if (write(pipe[1], &uffd, sizeof(uffd)) != sizeof(uffd) ||
	    read(pipe[1], &go, sizeof(go)) != sizeof(go))
		die("target");
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	if (in_place(way)) {
		run_threads(st, 1, target_main);
		join_threads(st, 1);
	}
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	if (write(pipe[1], &cpu, sizeof(cpu)) != sizeof(cpu))
		die("target");
	pause();
	_exit(0);
}

static int copy_uffd(pid_t pid, int nr)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)TARGET_AT, opt.size },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, nr, 0);

	close(pidfd);
	if (fd < 0 || ioctl(fd, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	return fd;
}

static void connect_streams(struct stream *st)
{
	struct sockaddr_in at = {
		.sin_family = AF_INET,
		.sin_addr = { htonl(INADDR_LOOPBACK) },
	};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(fd, MAX_STREAMS) ||
	    getsockname(fd, (struct sockaddr *)&at, &len))
		die("listen");
	for (unsigned long i = 0; i < opt.streams; i++) {
		st[i].out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(st[i].out, (struct sockaddr *)&at, sizeof(at)))
			die("connect");
		st[i].in = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (st[i].in < 0)
			die("accept");
	}
	close(fd);
}

static struct figure run_way(const struct way *way)
{
	struct stream st[MAX_STREAMS] = {};
	const size_t share = opt.size / opt.streams / PAGE * PAGE;
	double wall, cpu, theirs;
	int pipe[2], nr, go = 1, uffd = -1;
	pid_t pid;

	connect_streams(st);
	for (unsigned long i = 0; i < opt.streams; i++) {
		st[i].way = way;
		st[i].from = i * share;
		st[i].bytes = share;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pipe))
		die("socketpair");
	pid = make_target(st, way, pipe);
	if (pid < 0 || read(pipe[0], &nr, sizeof(nr)) != sizeof(nr))
		die("target");
	if (way->target == FILL)
		uffd = copy_uffd(pid, nr);
	for (unsigned long i = 0; i < opt.streams; i++) {
		st[i].target = pid;
		st[i].uffd = uffd;
	}
	wall = seconds(CLOCK_MONOTONIC);
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	if (write(pipe[0], &go, sizeof(go)) != sizeof(go))
		die("target");
	if (!in_place(way))
		run_threads(st, 1, target_main);
	run_threads(st, 0, source_main);
	join_threads(st, 0);
	if (!in_place(way))
		join_threads(st, 1);
	if (read(pipe[0], &theirs, sizeof(theirs)) != sizeof(theirs))
		die("target");
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu + theirs;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (unsigned long i = 0; i < opt.streams; i++) {
		close(st[i].out);
		close(st[i].in);
	}
	if (uffd >= 0)
		close(uffd);
	close(pipe[0]);
	close(pipe[1]);
	return (struct figure){ wall / ((double)(share * opt.streams) / 1e9),
				cpu / ((double)(share * opt.streams) / 1e9) };
}

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const struct figure *f, bool wall)
{
	double v[MAX_RUNS];

	for (unsigned long i = 0; i < opt.runs; i++)
		v[i] = wall ? f[i].wall : f[i].cpu;
	qsort(v, opt.runs, sizeof(v[0]), by_value);
	return v[opt.runs / 2];
}

static void make_source(void)
{
	uint64_t x = 88172645463325252ULL, *p;
	pid_t parent = getpid();

	p = mmap(NULL, opt.size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("memory");
	for (size_t i = 0; i < opt.size / sizeof(*p); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
	memory = (unsigned char *)p;
	source_pid = fork();
	if (source_pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	_exit(0);
}

/* what the hypervisor took back of this machine costs nobody's time */
static void warm(void)
{
	void *p = mmap(NULL, opt.size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	/* it takes large blocks: others would still be missing */
	madvise(p, opt.size, MADV_HUGEPAGE);
	madvise(p, opt.size, POPULATE);
	munmap(p, opt.size);
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: vasi-path [options]\n"
		"  --size MiB     memory of a run, 16 to 65536 (default 512)\n"
		"  --chunk KiB    bytes of one call, 4 to 65536 (default 1024)\n"
		"  --streams N    connections, a thread each per side, 1 to 64 (default 2)\n"
		"  --runs N       of each way, 1 to 99 (default 5)\n"
		"Prints a line of JSON per way: medians of seconds per GB, by the clock and of\n"
		"CPU time on both sides together. Exit code: 0 done, 1 a call failed, 2 misuse.\n");
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 0 },
		{ "chunk", required_argument, NULL, 1 },
		{ "streams", required_argument, NULL, 2 },
		{ "runs", required_argument, NULL, 3 },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	static const struct {
		unsigned long *to, min, max;
	} number[] = {
		{ &opt.size, 16, 65536 }, { &opt.chunk, 4, 65536 },
		{ &opt.streams, 1, MAX_STREAMS }, { &opt.runs, 1, MAX_RUNS },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		char *end;

		if (c == 'h') {
			usage(stdout);
			exit(0);
		}
		if (c == '?')
			return -EINVAL;
		*number[c].to = strtoul(optarg, &end, 10);
		if (*end || *optarg < '0' || *optarg > '9' ||
		    *number[c].to < number[c].min ||
		    *number[c].to > number[c].max) {
			fprintf(stderr, "vasi-path: not a valid value: %s\n",
				optarg);
			return -EINVAL;
		}
	}
	return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static struct figure figures[NR_WAYS][MAX_RUNS];

	if (parse(argc, argv)) {
		usage(stderr);
		return 2;
	}
	opt.size <<= 20;
	opt.chunk <<= 10;
	make_source();
	for (unsigned long run = 0; run < opt.runs; run++) {
		for (size_t i = 0; i < NR_WAYS; i++) {
			warm();
			figures[i][run] = run_way(&ways[i]);
		}
	}
	for (size_t i = 0; i < NR_WAYS; i++)
		printf("{\"way\": \"%s\", \"streams\": %lu, \"chunk\": %lu, \"wall_s_per_gb\": %.3f, \"cpu_s_per_gb\": %.3f}\n",
		       ways[i].name, opt.streams, opt.chunk,
		       median(figures[i], true), median(figures[i], false));
	kill(source_pid, SIGKILL);
	waitpid(source_pid, NULL, 0);
	return 0;
}
