// SPDX-License-Identifier: GPL-2.0
/*
 * Every kind of blocking call goes on over ten suspends as if nothing had
 * happened: none returns early, none with EINTR, and each still ends as it
 * should when what it waits for comes.
 *
 * The guest has a thread per kind. What wakes the call is done by the guest's
 * main thread when the test asks for it.
 */
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <liburing.h>
#include <mqueue.h>
#include <pthread.h>
#include <pty.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "vasi_test.h"

#define SUSPENDS 10

/* what a kind works with; each has its own */
struct slot {
	int a, b;		/* descriptors, or an ID */
	atomic_int word;	/* futex */
	pid_t child;
	char path[64];
	void *ptr;
	atomic_int tid;
	/* findings */
	atomic_int returned;	/* the call has come back */
	long result;
	int error;
};

/* @prepare and @wake in the main thread, @call in the kind's own */
struct kind {
	const char *name;
	void (*prepare)(struct slot *s);
	long (*call)(struct slot *s);
	void (*wake)(struct slot *s);
	long expect;
};

static struct slot *slots;

static long sys_futex(void *word, int op, int val, void *timeout, int val3)
{
	return syscall(SYS_futex, word, op, val, timeout, NULL, val3);
}

static struct timespec in_seconds(clockid_t clock, int s)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_sec += s;
	return ts;
}

static const struct timespec ten_minutes = { 600, 0 };

/* pipes and other files */

static void make_pipe(struct slot *s)
{
	int fd[2];

	must(!pipe(fd));
	s->a = fd[0];
	s->b = fd[1];
}

static void wake_write(struct slot *s)
{
	must(write(s->b, "x", 1) == 1);
}

static long call_read(struct slot *s)
{
	char c[8];

	return read(s->a, c, sizeof(c));
}

static void make_full_pipe(struct slot *s)
{
	char buf[4096] = "";

	make_pipe(s);
	must(!fcntl(s->b, F_SETFL, O_NONBLOCK));
	while (write(s->b, buf, sizeof(buf)) > 0)
		;
	must(!fcntl(s->b, F_SETFL, 0));
}

static long call_write(struct slot *s)
{
	return write(s->b, "x", 1);
}

static void wake_drain(struct slot *s)
{
	char buf[65536];

	must(read(s->a, buf, sizeof(buf)) > 0);
}

static long call_splice(struct slot *s)
{
	int fd[2];

	must(!pipe(fd));
	return splice(s->a, NULL, fd[1], NULL, 100, 0);
}

static void make_eventfd(struct slot *s)
{
	s->a = s->b = eventfd(0, 0);
	must(s->a >= 0);
}

static void wake_eventfd(struct slot *s)
{
	uint64_t one = 1;

	must(write(s->b, &one, 8) == 8);
}

static void make_timerfd(struct slot *s)
{
	s->a = timerfd_create(CLOCK_MONOTONIC, 0);
	must(s->a >= 0);
}

static void wake_timerfd(struct slot *s)
{
	struct itimerspec its = { .it_value.tv_nsec = 1 };

	must(!timerfd_settime(s->a, 0, &its, NULL));
}

static void make_signalfd(struct slot *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	s->a = signalfd(-1, &set, 0);
	must(s->a >= 0);
}

static long call_signalfd(struct slot *s)
{
	struct signalfd_siginfo info;

	return read(s->a, &info, sizeof(info));
}

static void wake_signal(struct slot *s)
{
	must(!syscall(SYS_tgkill, getpid(), s->tid, SIGRTMIN + 5));
}

static void make_inotify(struct slot *s)
{
	strcpy(s->path, "/tmp/vasi-inotify-XXXXXX");
	must(mkdtemp(s->path));
	s->a = inotify_init();
	must(inotify_add_watch(s->a, s->path, IN_ATTRIB) >= 0);
}

static long call_inotify(struct slot *s)
{
	char buf[512];

	return read(s->a, buf, sizeof(buf)) > 0;
}

static void wake_inotify(struct slot *s)
{
	must(!chmod(s->path, 0755));
	rmdir(s->path);
}

static void make_pty(struct slot *s)
{
	must(!openpty(&s->b, &s->a, NULL, NULL, NULL));
}

static void wake_pty(struct slot *s)
{
	must(write(s->b, "xy\n", 3) == 3);
}

static void make_fifo(struct slot *s)
{
	snprintf(s->path, sizeof(s->path), "/tmp/vasi-fifo-%d", getpid());
	unlink(s->path);
	must(!mkfifo(s->path, 0600));
}

static long call_open(struct slot *s)
{
	return open(s->path, O_RDONLY) >= 0;
}

static void wake_open(struct slot *s)
{
	must(open(s->path, O_WRONLY) >= 0);
	unlink(s->path);
}

static void make_lock(struct slot *s)
{
	snprintf(s->path, sizeof(s->path), "/tmp/vasi-lock-XXXXXX");
	s->a = mkstemp(s->path);
	must(s->a >= 0);
	s->b = open(s->path, O_RDWR);
	must(s->b >= 0);
	unlink(s->path);
}

static void make_flock(struct slot *s)
{
	make_lock(s);
	must(!flock(s->b, LOCK_EX));
}

static long call_flock(struct slot *s)
{
	return flock(s->a, LOCK_EX);
}

static void wake_flock(struct slot *s)
{
	must(!flock(s->b, LOCK_UN));
}

static struct flock whole_file(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET };
}

static void make_ofd(struct slot *s)
{
	struct flock fl = whole_file(F_WRLCK);

	make_lock(s);
	must(!fcntl(s->b, F_OFD_SETLK, &fl));
}

static long call_ofd(struct slot *s)
{
	struct flock fl = whole_file(F_WRLCK);

	return fcntl(s->a, F_OFD_SETLKW, &fl);
}

static void wake_ofd(struct slot *s)
{
	struct flock fl = whole_file(F_UNLCK);

	must(!fcntl(s->b, F_OFD_SETLK, &fl));
}

/* futexes */

static void wake_futex(struct slot *s)
{
	s->word = 1;
	sys_futex(&s->word, FUTEX_WAKE, 1, NULL, 0);
}

static void wake_private(struct slot *s)
{
	s->word = 1;
	sys_futex(&s->word, FUTEX_WAKE_PRIVATE, 1, NULL, 0);
}

static long call_futex(struct slot *s)
{
	return sys_futex(&s->word, FUTEX_WAIT, 0, NULL, 0);
}

static long call_futex_timeout(struct slot *s)
{
	return sys_futex(&s->word, FUTEX_WAIT_PRIVATE, 0, (void *)&ten_minutes, 0);
}

static long call_futex_bitset(struct slot *s)
{
	struct timespec ts = in_seconds(CLOCK_REALTIME, 600);

	return sys_futex(&s->word, FUTEX_WAIT_BITSET_PRIVATE |
			 FUTEX_CLOCK_REALTIME, 0, &ts, FUTEX_BITSET_MATCH_ANY);
}

static void make_pi(struct slot *s)
{
	s->word = gettid();
}

static long call_pi(struct slot *s)
{
	return sys_futex(&s->word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, 0);
}

static void wake_pi(struct slot *s)
{
	must(!sys_futex(&s->word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, 0));
}

static long call_waitv(struct slot *s)
{
	struct futex_waitv w = {
		.uaddr = (uintptr_t)&s->word,
		.flags = FUTEX_32 | FUTEX_PRIVATE_FLAG,
	};

	return syscall(449 /* futex_waitv */, &w, 1, 0, NULL, 0);
}

static pthread_mutex_t cond_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool cond_set;

static long call_cond(struct slot *s)
{
	struct timespec ts = in_seconds(CLOCK_REALTIME, 600);
	int ret = 0;

	(void)s;
	pthread_mutex_lock(&cond_lock);
	while (!cond_set && !ret)
		ret = pthread_cond_timedwait(&cond, &cond_lock, &ts);
	pthread_mutex_unlock(&cond_lock);
	return ret;
}

static void wake_cond(struct slot *s)
{
	(void)s;
	pthread_mutex_lock(&cond_lock);
	cond_set = true;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&cond_lock);
}

/* waiting for descriptors */

static long call_poll(struct slot *s)
{
	struct pollfd p = { .fd = s->a, .events = POLLIN };

	return poll(&p, 1, 600000);
}

static long call_poll_forever(struct slot *s)
{
	struct pollfd p = { .fd = s->a, .events = POLLIN };

	return poll(&p, 1, -1);
}

static long call_ppoll(struct slot *s)
{
	struct pollfd p = { .fd = s->a, .events = POLLIN };
	struct timespec ts = ten_minutes;
	sigset_t set;

	sigemptyset(&set);
	return ppoll(&p, 1, &ts, &set);
}

static long call_select(struct slot *s)
{
	struct timeval tv = { 600, 0 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(s->a, &set);
	return select(s->a + 1, &set, NULL, NULL, &tv);
}

static long call_pselect(struct slot *s)
{
	struct timespec ts = ten_minutes;
	sigset_t mask;
	fd_set set;

	sigemptyset(&mask);
	FD_ZERO(&set);
	FD_SET(s->a, &set);
	return pselect(s->a + 1, &set, NULL, NULL, &ts, &mask);
}

static int epoll_of(struct slot *s)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = epoll_create1(0);

	must(!epoll_ctl(fd, EPOLL_CTL_ADD, s->a, &ev));
	return fd;
}

static long call_epoll(struct slot *s)
{
	struct epoll_event ev;

	return epoll_wait(epoll_of(s), &ev, 1, -1);
}

static long call_epoll_timeout(struct slot *s)
{
	struct epoll_event ev;

	return epoll_wait(epoll_of(s), &ev, 1, 600000);
}

static long call_epoll_pwait(struct slot *s)
{
	struct epoll_event ev;
	sigset_t set;

	sigemptyset(&set);
	return epoll_pwait(epoll_of(s), &ev, 1, -1, &set);
}

static long call_epoll_pwait2(struct slot *s)
{
	struct epoll_event ev;

	return syscall(SYS_epoll_pwait2, epoll_of(s), &ev, 1, &ten_minutes, NULL,
		       0);
}

/* sockets */

static void make_sockets(struct slot *s)
{
	int fd[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	s->a = fd[0];
	s->b = fd[1];
}

static void make_timed_sockets(struct slot *s)
{
	struct timeval tv = { 600, 0 };

	make_sockets(s);
	must(!setsockopt(s->a, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	must(!setsockopt(s->b, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
}

static long call_recv(struct slot *s)
{
	char c[8];

	return recv(s->a, c, sizeof(c), 0);
}

static long call_recvmsg(struct slot *s)
{
	char c[8];
	struct iovec iov = { c, sizeof(c) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	return recvmsg(s->a, &msg, 0);
}

static long call_recvmmsg(struct slot *s)
{
	char c[8];
	struct iovec iov = { c, sizeof(c) };
	struct mmsghdr msg = { .msg_hdr = { .msg_iov = &iov, .msg_iovlen = 1 } };

	return recvmmsg(s->a, &msg, 1, 0, NULL);
}

static void fill_socket(struct slot *s)
{
	char buf[4096] = "";

	while (send(s->b, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

static void make_full_sockets(struct slot *s)
{
	make_timed_sockets(s);
	fill_socket(s);
}

static long call_send(struct slot *s)
{
	return send(s->b, "x", 1, 0);
}

static long call_writev(struct slot *s)
{
	struct iovec iov = { "x", 1 };

	return writev(s->b, &iov, 1);
}

static void wake_drain_socket(struct slot *s)
{
	char buf[65536];

	while (recv(s->a, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

static socklen_t abstract(struct slot *s, struct sockaddr_un *addr)
{
	int n;

	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	n = snprintf(addr->sun_path + 1, sizeof(addr->sun_path) - 1,
		     "vasi-%d-%d", getpid(), (int)(s - slots));
	return offsetof(struct sockaddr_un, sun_path) + 1 + n;
}

static void make_listener(struct slot *s)
{
	struct sockaddr_un addr;
	socklen_t len = abstract(s, &addr);

	s->a = socket(AF_UNIX, SOCK_STREAM, 0);
	must(!bind(s->a, (void *)&addr, len));
	must(!listen(s->a, 0));
}

static void make_timed_listener(struct slot *s)
{
	struct timeval tv = { 600, 0 };

	make_listener(s);
	must(!setsockopt(s->a, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
}

static long call_accept(struct slot *s)
{
	return accept(s->a, NULL, NULL) >= 0;
}

static int connect_to(struct slot *s, int flags)
{
	struct sockaddr_un addr;
	socklen_t len = abstract(s, &addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | flags, 0);
	struct timeval tv = { 600, 0 };

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	return connect(fd, (void *)&addr, len);
}

static void wake_accept(struct slot *s)
{
	must(!connect_to(s, 0));
}

static void make_busy_listener(struct slot *s)
{
	make_listener(s);
	while (!connect_to(s, SOCK_NONBLOCK))
		;
}

static long call_connect(struct slot *s)
{
	return connect_to(s, 0);
}

static void wake_connect(struct slot *s)
{
	must(accept(s->a, NULL, NULL) >= 0);
}

/* System V and POSIX IPC */

struct message {
	long type;
	char text[4096];
};

static void make_msg(struct slot *s)
{
	s->a = msgget(IPC_PRIVATE, 0600);
	must(s->a >= 0);
}

static long call_msgrcv(struct slot *s)
{
	struct message m;
	long ret = msgrcv(s->a, &m, sizeof(m.text), 0, 0);

	msgctl(s->a, IPC_RMID, NULL);
	return ret;
}

static void wake_msgrcv(struct slot *s)
{
	struct message m = { .type = 1 };

	must(!msgsnd(s->a, &m, 1, 0));
}

static void make_full_msg(struct slot *s)
{
	struct message m = { .type = 1 };

	make_msg(s);
	while (!msgsnd(s->a, &m, sizeof(m.text), IPC_NOWAIT))
		;
}

static long call_msgsnd(struct slot *s)
{
	struct message m = { .type = 1 };

	return msgsnd(s->a, &m, sizeof(m.text), 0);
}

static void wake_msgsnd(struct slot *s)
{
	struct message m;

	must(msgrcv(s->a, &m, sizeof(m.text), 0, 0) >= 0);
	wait_until(s->returned);
	msgctl(s->a, IPC_RMID, NULL);
}

static void make_sem(struct slot *s)
{
	s->a = semget(IPC_PRIVATE, 1, 0600);
	must(s->a >= 0);
}

static long call_semop(struct slot *s)
{
	struct sembuf op = { 0, -1, 0 };

	return semop(s->a, &op, 1);
}

static long call_semtimedop(struct slot *s)
{
	struct sembuf op = { 0, -1, 0 };

	return semtimedop(s->a, &op, 1, &ten_minutes);
}

static void wake_sem(struct slot *s)
{
	struct sembuf op = { 0, 1, 0 };

	must(!semop(s->a, &op, 1));
	wait_until(s->returned);
	semctl(s->a, 0, IPC_RMID);
}

static void make_mq(struct slot *s)
{
	struct mq_attr attr = { .mq_maxmsg = 1, .mq_msgsize = 8 };

	snprintf(s->path, sizeof(s->path), "/vasi-%d-%d", getpid(),
		 (int)(s - slots));
	s->a = mq_open(s->path, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	must(s->a >= 0);
	mq_unlink(s->path);
}

static long call_mq_receive(struct slot *s)
{
	struct timespec ts = in_seconds(CLOCK_REALTIME, 600);
	char c[8];

	return mq_timedreceive(s->a, c, sizeof(c), NULL, &ts);
}

static void wake_mq_receive(struct slot *s)
{
	must(!mq_send(s->a, "x", 1, 0));
}

/* signals and children */

static long call_sigtimedwait(struct slot *s)
{
	sigset_t set;

	(void)s;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	return sigtimedwait(&set, NULL, &ten_minutes) == SIGRTMIN + 5;
}

static long call_sigwaitinfo(struct slot *s)
{
	sigset_t set;

	(void)s;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	return sigwaitinfo(&set, NULL) == SIGRTMIN + 5;
}

static __thread volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static long call_pause(struct slot *s)
{
	(void)s;
	return pause() == -1 && errno == EINTR && handled == 1;
}

static long call_sigsuspend(struct slot *s)
{
	sigset_t set;

	(void)s;
	sigfillset(&set);
	sigdelset(&set, SIGUSR1);
	return sigsuspend(&set) == -1 && errno == EINTR && handled == 1;
}

static void wake_handler(struct slot *s)
{
	must(!syscall(SYS_tgkill, getpid(), s->tid, SIGUSR1));
}

static void make_child(struct slot *s)
{
	pid_t pid;

	make_pipe(s);
	pid = fork();
	must(pid >= 0);
	/* the slots are shared with the child, too */
	if (pid) {
		s->child = pid;
	} else {
		char c;

		close(s->b);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(read(s->a, &c, 1) == 1 ? 7 : 8);
	}
}

static long call_wait4(struct slot *s)
{
	int status;

	return wait4(s->child, &status, 0, NULL) == s->child &&
	       WEXITSTATUS(status) == 7;
}

static long call_waitid(struct slot *s)
{
	siginfo_t info;

	return !waitid(P_PID, s->child, &info, WEXITED) && info.si_status == 7;
}

/* rings */

static void make_aio(struct slot *s)
{
	aio_context_t ctx = 0;

	must(!syscall(SYS_io_setup, 8, &ctx));
	s->ptr = (void *)ctx;
	make_eventfd(s);
}

static long call_aio(struct slot *s)
{
	struct io_event ev;

	return syscall(SYS_io_getevents, s->ptr, 1, 1, &ev, NULL);
}

static void wake_aio(struct slot *s)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_POLL,
		.aio_fildes = s->a,
		.aio_buf = POLLIN,
	};
	struct iocb *list = &cb;

	wake_eventfd(s);
	must(syscall(SYS_io_submit, s->ptr, 1, &list) == 1);
}

static void make_ring(struct slot *s)
{
	s->ptr = malloc(sizeof(struct io_uring));
	must(!io_uring_queue_init(4, s->ptr, 0));
}

static long call_ring(struct slot *s)
{
	struct io_uring *ring = s->ptr;

	return syscall(SYS_io_uring_enter, ring->ring_fd, 0, 1,
		       IORING_ENTER_GETEVENTS, NULL, 0);
}

static void wake_ring(struct slot *s)
{
	io_uring_prep_nop(io_uring_get_sqe(s->ptr));
	must(io_uring_submit(s->ptr) == 1);
}

static const struct kind kinds[] = {
	{ "read of a pipe", make_pipe, call_read, wake_write, 1 },
	{ "write to a full pipe", make_full_pipe, call_write, wake_drain, 1 },
	{ "splice from a pipe", make_pipe, call_splice, wake_write, 1 },
	{ "read of an eventfd", make_eventfd, call_read, wake_eventfd, 8 },
	{ "read of a timerfd", make_timerfd, call_read, wake_timerfd, 8 },
	{ "read of a signalfd", make_signalfd, call_signalfd, wake_signal,
	  sizeof(struct signalfd_siginfo) },
	{ "read of an inotify", make_inotify, call_inotify, wake_inotify, 1 },
	{ "read of a terminal", make_pty, call_read, wake_pty, 3 },
	{ "open of a FIFO", make_fifo, call_open, wake_open, 1 },
	{ "flock", make_flock, call_flock, wake_flock, 0 },
	{ "fcntl F_OFD_SETLKW", make_ofd, call_ofd, wake_ofd, 0 },
	{ "futex", NULL, call_futex, wake_futex, 0 },
	{ "futex with a timeout", NULL, call_futex_timeout, wake_private, 0 },
	{ "futex until a time", NULL, call_futex_bitset, wake_private, 0 },
	{ "futex_lock_pi", make_pi, call_pi, wake_pi, 0 },
	{ "futex_waitv", NULL, call_waitv, wake_private, 0 },
	{ "pthread_cond_timedwait", NULL, call_cond, wake_cond, 0 },
	{ "poll", make_pipe, call_poll, wake_write, 1 },
	{ "poll without timeout", make_pipe, call_poll_forever, wake_write, 1 },
	{ "ppoll", make_pipe, call_ppoll, wake_write, 1 },
	{ "select", make_pipe, call_select, wake_write, 1 },
	{ "pselect6", make_pipe, call_pselect, wake_write, 1 },
	{ "epoll_wait", make_pipe, call_epoll, wake_write, 1 },
	{ "epoll_wait with a timeout", make_pipe, call_epoll_timeout,
	  wake_write, 1 },
	{ "epoll_pwait", make_pipe, call_epoll_pwait, wake_write, 1 },
	{ "epoll_pwait2", make_pipe, call_epoll_pwait2, wake_write, 1 },
	{ "recv", make_sockets, call_recv, wake_write, 1 },
	{ "recv with SO_RCVTIMEO", make_timed_sockets, call_recv, wake_write, 1 },
	{ "read with SO_RCVTIMEO", make_timed_sockets, call_read, wake_write, 1 },
	{ "recvmsg with SO_RCVTIMEO", make_timed_sockets, call_recvmsg,
	  wake_write, 1 },
	{ "recvmmsg", make_sockets, call_recvmmsg, wake_write, 1 },
	{ "recvmmsg with SO_RCVTIMEO", make_timed_sockets, call_recvmmsg,
	  wake_write, 1 },
	{ "send with SO_SNDTIMEO", make_full_sockets, call_send,
	  wake_drain_socket, 1 },
	{ "write with SO_SNDTIMEO", make_full_sockets, call_write,
	  wake_drain_socket, 1 },
	{ "writev with SO_SNDTIMEO", make_full_sockets, call_writev,
	  wake_drain_socket, 1 },
	{ "accept", make_listener, call_accept, wake_accept, 1 },
	{ "accept with SO_RCVTIMEO", make_timed_listener, call_accept,
	  wake_accept, 1 },
	{ "connect with SO_SNDTIMEO", make_busy_listener, call_connect,
	  wake_connect, 0 },
	{ "msgrcv", make_msg, call_msgrcv, wake_msgrcv, 1 },
	{ "msgsnd", make_full_msg, call_msgsnd, wake_msgsnd, 0 },
	{ "semop", make_sem, call_semop, wake_sem, 0 },
	{ "semtimedop", make_sem, call_semtimedop, wake_sem, 0 },
	{ "mq_timedreceive", make_mq, call_mq_receive, wake_mq_receive, 1 },
	{ "rt_sigtimedwait", NULL, call_sigtimedwait, wake_signal, 1 },
	{ "sigwaitinfo", NULL, call_sigwaitinfo, wake_signal, 1 },
	{ "pause", NULL, call_pause, wake_handler, 1 },
	{ "sigsuspend", NULL, call_sigsuspend, wake_handler, 1 },
	{ "wait4", make_child, call_wait4, wake_write, 1 },
	{ "waitid", make_child, call_waitid, wake_write, 1 },
	{ "io_getevents", make_aio, call_aio, wake_aio, 1 },
	{ "io_uring_enter", make_ring, call_ring, wake_ring, 0 },
};

#define NR_KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))

static void *run_kind(void *arg)
{
	struct slot *s = arg;
	int i = s - slots;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	/* only the two that wait for a handler let it run */
	if (kinds[i].call == call_pause)
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	s->tid = gettid();
	s->result = kinds[i].call(s);
	s->error = errno;
	s->returned = 1;
	return NULL;
}

/* the guest: prepare, block, and on one byte wake everything */
static void guest(int commands)
{
	struct sigaction sa = { .sa_handler = on_signal };
	pthread_t thread;
	sigset_t set;
	char c;
	int i;

	must(!sigaction(SIGUSR1, &sa, NULL));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 5);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < NR_KINDS; i++) {
		if (kinds[i].prepare)
			kinds[i].prepare(&slots[i]);
		must(!pthread_create(&thread, NULL, run_kind, &slots[i]));
	}
	must(read(commands, &c, 1) == 1);
	for (i = 0; i < NR_KINDS; i++)
		kinds[i].wake(&slots[i]);
	for (;;)
		pause();
}

static bool all_asleep(pid_t pid)
{
	int i;

	for (i = 0; i < NR_KINDS; i++)
		if (!slots[i].tid || thread_state(pid, slots[i].tid) != 'S')
			return false;
	return true;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	uint64_t took[SUSPENDS] = {};
	int commands[2], fd, i, j, bad;
	bool asleep, good = true;
	pid_t pid;

	slots = shared_memory(NR_KINDS * sizeof(*slots));
	must(!pipe(commands));
	pid = fork_guest();
	if (!pid)
		guest(commands[0]);
	asleep = wait_until(all_asleep(pid));
	ok(asleep, "all %d kinds of call block", NR_KINDS);
	if (!asleep)
		for (i = 0; i < NR_KINDS; i++)
			if (thread_state(pid, slots[i].tid) != 'S')
				note("%s: returned %d with %ld", kinds[i].name,
				     slots[i].returned, slots[i].result);

	fd = attach(pid);
	for (j = 0; j < SUSPENDS && good; j++) {
		struct vasi_suspend s;

		good = !suspend_with(fd, 0, 20000, &s);
		good = good && s.out_threads == (uint32_t)NR_KINDS + 1;
		took[j] = s.out_ns;
		good = good && !resume(fd) && wait_until(all_asleep(pid));
	}
	qsort(took, SUSPENDS, sizeof(took[0]), compare);
	note("suspend of %d sleeping threads: median %.2f ms, longest %.2f ms",
	     NR_KINDS + 1, took[SUSPENDS / 2] / 1e6, took[SUSPENDS - 1] / 1e6);
	ok(good, "%d suspends of all threads", SUSPENDS);

	for (i = 0; i < NR_KINDS; i++)
		ok(!slots[i].returned, "%s stays blocked (%ld, %s)",
		   kinds[i].name, slots[i].result,
		   slots[i].returned ? strerror(slots[i].error) : "blocked");

	must(write(commands[1], "w", 1) == 1);
	for (i = 0, bad = 0; i < NR_KINDS; i++) {
		good = wait_until(slots[i].returned) &&
		       slots[i].result == kinds[i].expect;
		bad += !good;
		if (!good)
			note("%s: returned %d, %ld, errno %d", kinds[i].name,
			     slots[i].returned, slots[i].result, slots[i].error);
	}
	ok(!bad, "every call ends as it should when its event comes");

	close(fd);
	end_guest(pid);
	return tap_end();
}
