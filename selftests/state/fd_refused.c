// SPDX-License-Identifier: GPL-2.0
/* Each descriptor that can't be moved is refused by its name, untouched */
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pty.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bare.h"

static char dir[] = "/tmp/vasi-refused-XXXXXX";
static char file[64], fifo[64];

static void signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	guest_must(signalfd(-1, &set, 0) == 0);
}

static void inotify(void)
{
	guest_must(inotify_init1(0) == 0);
}

static void pidfd(void)
{
	guest_must(syscall(SYS_pidfd_open, getpid(), 0) == 0);
}

static void terminal(void)
{
	guest_must(open("/dev/ptmx", O_RDWR | O_NOCTTY) == 0);
}

static void terminal_slave(void)
{
	int a, b;

	guest_must(!openpty(&a, &b, NULL, NULL, NULL));
}

static void kmsg(void)
{
	guest_must(open("/dev/kmsg", O_RDONLY) == 0);
}

static void named_pipe(void)
{
	guest_must(open(fifo, O_RDWR) == 0);
}

static void deleted(void)
{
	char gone[80];

	snprintf(gone, sizeof(gone), "%s/gone", dir);
	guest_must(open(gone, O_RDWR | O_CREAT, 0600) == 0);
	guest_must(!unlink(gone));
}

static void replaced(void)
{
	char old[80];

	snprintf(old, sizeof(old), "%s/old", dir);
	guest_must(open(old, O_RDONLY | O_CREAT, 0600) == 0);
	guest_must(!unlink(old));
	guest_must(open(old, O_RDONLY | O_CREAT, 0600) == 1);
	guest_must(!close(1));
}

static void proc_file(void)
{
	guest_must(open("/proc/self/maps", O_RDONLY) == 0);
}

static void proc_directory(void)
{
	guest_must(open("/proc/self/fd", O_RDONLY | O_DIRECTORY) == 0);
}

static void locked(void)
{
	guest_must(open(file, O_RDWR) == 0);
	guest_must(!flock(0, LOCK_EX));
}

static void posix_locked(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	guest_must(open(file, O_RDWR) == 0);
	guest_must(!fcntl(0, F_SETLK, &l));
}

static void leased(void)
{
	guest_must(open(file, O_RDONLY) == 0);
	guest_must(!fcntl(0, F_SETLEASE, F_RDLCK));
}

static void owned(void)
{
	int p[2];

	guest_must(!pipe(p));
	guest_must(!fcntl(0, F_SETOWN, getpid()));
}

static void signalled(void)
{
	guest_must(eventfd(0, 0) == 0);
	guest_must(!fcntl(0, F_SETSIG, SIGUSR1));
}

static void async(void)
{
	int p[2];

	guest_must(!pipe(p));
	guest_must(!fcntl(0, F_SETFL, O_ASYNC));
}

static void epoll_closed(void)
{
	struct epoll_event ev = { .events = EPOLLIN };

	guest_must(eventfd(0, 0) == 0);
	guest_must(epoll_create1(0) == 1);
	guest_must(!epoll_ctl(1, EPOLL_CTL_ADD, 0, &ev));
	guest_must(dup2(0, 5) == 5);
	guest_must(!close(0));
}

static void epoll_other(void)
{
	epoll_closed();
	guest_must(eventfd(0, 0) == 0);
}

static void udp(void)
{
	guest_must(socket(AF_INET, SOCK_DGRAM, 0) == 0);
}

static void netlink(void)
{
	guest_must(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) == 0);
}

static void unix_pair(void)
{
	int p[2];

	guest_must(!socketpair(AF_UNIX, SOCK_STREAM, 0, p));
}

static void unix_datagram(void)
{
	guest_must(socket(AF_UNIX, SOCK_DGRAM, 0) == 0);
}

static void tcp_connected(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 0);
	guest_must(!bind(0, (void *)&a, len) && !listen(0, 1));
	guest_must(!getsockname(0, (void *)&a, &len));
	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 1);
	guest_must(!connect(1, (void *)&a, len));
}

static void unix_relative(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "here" };

	guest_must(!chdir(dir));
	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 0);
	guest_must(!bind(0, (void *)&a, sizeof(a)) && !listen(0, 1));
}

static void symlink_open(void)
{
	guest_must(open("/proc/self/exe", O_PATH | O_NOFOLLOW) == 0);
}

static void huge_memfd(void)
{
	guest_must(syscall(SYS_memfd_create, "huge", 4) == 0);
}

static void chroot_root(void)
{
	guest_must(!chroot(dir) && !chdir("/"));
}

static const struct {
	const char *what;
	guest_part part;
	const char *check, *object;
} cases[] = {
	{ "signalfd", signals, "fd.kind", "fd 0 (anon_inode:[signalfd])" },
	{ "inotify", inotify, "fd.kind", "fd 0 (anon_inode:inotify)" },
	{ "pidfd", pidfd, "fd.kind", "fd 0 (" },
	{ "terminal master", terminal, "fd.terminal", "fd 0 (/dev/" },
	{ "terminal", terminal_slave, "fd.terminal", "fd 1 (/dev/pts/" },
	{ "device", kmsg, "fd.device", "fd 0 (/dev/kmsg)" },
	{ "named pipe", named_pipe, "fd.fifo", "fd 0 (/tmp/" },
	{ "deleted file", deleted, "fd.file.deleted", "fd 0 (/tmp/" },
	{ "replaced file", replaced, "fd.file.deleted", "fd 0 (/tmp/" },
	{ "file of proc", proc_file, "fd.file.host", "fd 0 (/proc/" },
	{ "directory of proc", proc_directory, "fd.directory.host",
	  "fd 0 (/proc/" },
	{ "flock", locked, "fd.lock", "fd 0 (/tmp/" },
	{ "POSIX lock", posix_locked, "fd.lock", "fd 0 (/tmp/" },
	{ "lease", leased, "fd.lock", "fd 0 (/tmp/" },
	{ "F_SETOWN", owned, "fd.owner", "fd 0 (pipe:[" },
	{ "F_SETSIG", signalled, "fd.owner", "fd 0 (anon_inode:[eventfd])" },
	{ "O_ASYNC", async, "fd.async", "fd 0 (pipe:[" },
	{ "epoll of a closed number", epoll_closed, "fd.epoll.closed",
	  "fd 1 (anon_inode:[eventpoll])" },
	{ "epoll of a number that is another file", epoll_other,
	  "fd.epoll.closed", "fd 1 (anon_inode:[eventpoll])" },
	{ "UDP socket", udp, "fd.socket", "IPv4 UDP)" },
	{ "netlink socket", netlink, "fd.socket", "netlink" },
	{ "Unix socket pair", unix_pair, "fd.connection",
	  "unix stream connected)" },
	{ "Unix datagram socket", unix_datagram, "fd.socket",
	  "unix datagram)" },
	{ "TCP connection", tcp_connected, "fd.connection",
	  "IPv4 TCP connected)" },
	{ "connection that waits", tcp_connected, "fd.connection",
	  "IPv4 TCP listening)" },
	{ "Unix socket with a relative name", unix_relative,
	  "fd.unix.relative", "fd 0 (socket:[" },
	{ "symbolic link", symlink_open, "fd.kind", "fd 0 (" },
	{ "huge pages", huge_memfd, "fd.memfd.hugetlb", "fd 0 (/memfd:" },
	{ "another root", chroot_root, "fs.root", "/tmp/" },
};

static void test_case(size_t i)
{
	struct bare m = { .pid = 0 };

	bare_start(&m, cases[i].part, NULL);
	bare_check(&m);
	if (!ok(bare_found(&m, cases[i].check, cases[i].object), "%s: %s",
		cases[i].what, cases[i].check))
		bare_print(&m);
	bare_end(&m);
}

/* -- shared with a process outside */


/* The guest of the harness closes all it got, so this one is made by hand. */
static void test_shared(const char *what, int fd, const char *object)
{
	struct bare m = { .pid = 0 };
	char path[32];
	int status;

	m.pid = fork();
	must(m.pid >= 0);
	if (!m.pid) {
		setsid();
		dup2(fd, 200);
		close_range(0, 199, 0);
		close_range(201, ~0U, 0);
		raise(SIGSTOP);
		_exit(0);
	}
	must(waitpid(m.pid, &status, WUNTRACED) == m.pid);
	m.c = (struct capture){ .pid = m.pid, .findings = &m.findings };
	m.c.pidfd = (int)syscall(SYS_pidfd_open, m.pid, 0);
	snprintf(path, sizeof(path), "/proc/%d", m.pid);
	m.c.proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(!resource_files.check(&m.c));
	if (!object)
		ok(!bare_found(&m, "fd.shared", ""), "%s", what);
	else
		ok(bare_found(&m, "fd.shared", object), "%s", what);
	bare_end(&m);
}

/* what this process has is left out, so another one holds it */
static pid_t holder(void)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		pause();
		_exit(0);
	}
	return pid;
}

static void test_outside(void)
{
	int p[2], file_fd = open(file, O_RDONLY), null, event, other;
	pid_t pid;

	must(!pipe(p));
	event = eventfd(0, 0);
	null = open("/dev/null", O_RDWR);
	pid = holder();
	other = open(file, O_RDONLY);
	test_shared("a pipe that another process has is refused", p[0],
		    "fd 200 (pipe:[");
	test_shared("a shared offset is refused", file_fd, "fd 200 (/tmp/");
	test_shared("a shared eventfd is refused", event,
		    "fd 200 (anon_inode:[eventfd])");
	test_shared("a shared /dev/null is not", null, NULL);
	test_shared("a file that another process opened for itself is not",
		    other, NULL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	char cmd[64];
	size_t i;
	int fd;

	must(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/file", dir);
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
	must(fd >= 0 && write(fd, "content", 7) == 7);
	close(fd);
	must(!mkfifo(fifo, 0600));
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		test_case(i);
	test_outside();
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	must(!system(cmd));
	return tap_end();
}
