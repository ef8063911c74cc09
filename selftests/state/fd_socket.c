// SPDX-License-Identifier: GPL-2.0
/* Listening sockets with their options; connections that are closed */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bare.h"

static struct bare m;
static char dir[] = "/tmp/vasi-sockets-XXXXXX";
static char path[80], deep[96];
static in_port_t port4, port6;

static socklen_t unix_address(struct sockaddr_un *a, const char *name)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (*name == '@') {
		strcpy(a->sun_path + 1, name + 1);
		return (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				   strlen(name));
	}
	strcpy(a->sun_path, name);
	return sizeof(*a);
}

static in_port_t free_port(int family)
{
	struct sockaddr_in6 a = { .sin6_family = (sa_family_t)family };
	socklen_t len = sizeof(a);
	int fd = socket(family, SOCK_STREAM, 0);

	must(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)));
	must(!getsockname(fd, (void *)&a, &len));
	close(fd);
	return a.sin6_port;
}

static void set(int fd, int level, int name, int value)
{
	guest_must(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static void listeners(void)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = port4,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = port6,
				   .sin6_addr = IN6ADDR_ANY_INIT };
	struct linger linger = { 1, 3 };
	struct sockaddr_un un;
	socklen_t len;

	guest_must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0) == 0);
	set(0, SOL_SOCKET, SO_REUSEADDR, 1);
	set(0, SOL_SOCKET, SO_RCVBUF, 20000);
	set(0, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
	set(0, SOL_SOCKET, SO_KEEPALIVE, 1);
	guest_must(!setsockopt(0, SOL_SOCKET, SO_LINGER, &linger,
			       sizeof(linger)));
	guest_must(!bind(0, (void *)&a4, sizeof(a4)) && !listen(0, 77));
	guest_must(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0) == 1);
	set(1, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	guest_must(!bind(1, (void *)&a6, sizeof(a6)) && !listen(1, 5));

	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 2);
	len = unix_address(&un, path);
	umask(0);
	guest_must(!bind(2, (void *)&un, len) && !listen(2, 9));
	guest_must(!chmod(path, 0640) && !chown(path, 1000, 1001));
	guest_must(socket(AF_UNIX, SOCK_SEQPACKET, 0) == 3);
	len = unix_address(&un, "@vasi-test-abstract");
	guest_must(!bind(3, (void *)&un, len) && !listen(3, 4));
	set(3, SOL_SOCKET, SO_PASSCRED, 1);
	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 4);
	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 5);
	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 6);
	len = unix_address(&un, deep);
	guest_must(!bind(6, (void *)&un, len) && !unlink(deep));
	guest_must(!listen(6, 1));
}

static int option(int nr, int level, int name)
{
	int fd = bare_fd(&m, nr), value = -1;
	socklen_t len = sizeof(value);

	getsockopt(fd, level, name, &value, &len);
	close(fd);
	return value;
}

static unsigned int tcp_backlog(int nr)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int fd = bare_fd(&m, nr);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	close(fd);
	return info.tcpi_sacked;
}

/* connects and sends, takes it out of the guest's queue: do they meet? */
static bool reaches(int nr, int family, int type, const void *addr,
		    socklen_t len, struct ucred *ret_peer)
{
	int fd = socket(family, type, 0), listener = bare_fd(&m, nr), conn;
	socklen_t ucred_len = sizeof(*ret_peer);
	char buf[4] = "";
	bool good = false;

	must(fd >= 0 && listener >= 0);
	fcntl(listener, F_SETFL, 0);
	if (!connect(fd, addr, len) && send(fd, "hey", 3, 0) == 3) {
		conn = accept(listener, NULL, NULL);
		good = conn >= 0 && recv(conn, buf, 4, 0) == 3 &&
			!strcmp(buf, "hey");
		close(conn);
	}
	if (ret_peer && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_peer,
				   &ucred_len))
		good = false;
	close(fd);
	close(listener);
	return good;
}

static int count_files(void)
{
	char cmd[128];
	FILE *f;
	int n = -1;

	snprintf(cmd, sizeof(cmd), "ls -A %s | wc -l", dir);
	f = popen(cmd, "re");
	must(f && fscanf(f, "%d", &n) == 1);
	pclose(f);
	return n;
}

static void test_listeners(void)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = port4,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = port6,
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_un un, name = { 0 };
	Mspd__FileTable *t;
	struct stat old, now;
	struct ucred peer = { 0 };
	socklen_t len;
	int fd, r;

	must(!stat(dir, &old));
	r = bare_all(&m, listeners, NULL);
	if (!ok(!r, "listening sockets: moved")) {
		bare_print(&m);
		return;
	}
	ok(reaches(0, AF_INET, SOCK_STREAM, &a4, sizeof(a4), NULL), "IPv4");
	ok(reaches(1, AF_INET6, SOCK_STREAM, &a6, sizeof(a6), NULL), "IPv6");
	ok(tcp_backlog(0) == 77 && tcp_backlog(1) == 5, "length of the queues");
	ok(option(0, SOL_SOCKET, SO_REUSEADDR) == 1 &&
	   !option(1, SOL_SOCKET, SO_REUSEADDR) &&
	   option(0, SOL_SOCKET, SO_KEEPALIVE) == 1 &&
	   option(0, SOL_SOCKET, SO_RCVBUF) == 40000 &&
	   option(0, IPPROTO_TCP, TCP_DEFER_ACCEPT) >= 3 &&
	   option(1, IPPROTO_IPV6, IPV6_V6ONLY) == 1 &&
	   option(3, SOL_SOCKET, SO_PASSCRED) == 1, "options");
	len = unix_address(&un, path);
	ok(reaches(2, AF_UNIX, SOCK_STREAM, &un, len, &peer), "Unix path");
	ok(peer.pid == m.r->ns.pid, "who connects sees the guest (pid %d)",
	   peer.pid);
	fd = bare_fd(&m, 2);
	len = sizeof(name);
	getsockname(fd, (void *)&name, &len);
	close(fd);
	ok(!strcmp(name.sun_path, path), "the socket tells its name");
	ok(!stat(path, &now) && (now.st_mode & 07777) == 0640 &&
	   now.st_uid == 1000 && now.st_gid == 1001, "mode and owner of it");
	ok(count_files() == 2, "the old one is kept, nothing else");
	len = unix_address(&un, "@vasi-test-abstract");
	ok(reaches(3, AF_UNIX, SOCK_SEQPACKET, &un, len, NULL),
	   "abstract Unix name");
	t = bare_again(&m);
	ok(t && t->n_fds == 7, "new sockets, too");
	mspd__file_table__free_unpacked(t, NULL);
	must(!stat(path, &old));
	bare_end(&m);
	must(!stat(path, &now));
	ok(now.st_ino != old.st_ino && count_files() == 1,
	   "a restore that fails puts the old socket back");
	must(!unlink(path));
}

/* -- names that are taken */

static void one_port(void)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = port4 };

	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 0);
	set(0, SOL_SOCKET, SO_REUSEADDR, 1);
	guest_must(!bind(0, (void *)&a4, sizeof(a4)) && !listen(0, 1));
	set(0, SOL_SOCKET, SO_REUSEADDR, 0);
}

static void one_path(void)
{
	struct sockaddr_un un;
	socklen_t len = unix_address(&un, path);

	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 0);
	guest_must(!bind(0, (void *)&un, len) && !listen(0, 1));
}

static void one_abstract(void)
{
	struct sockaddr_un un;
	socklen_t len = unix_address(&un, "@vasi-test-abstract");

	guest_must(socket(AF_UNIX, SOCK_STREAM, 0) == 0);
	guest_must(!bind(0, (void *)&un, len) && !listen(0, 1));
}

static void captured(guest_part part)
{
	bare_start(&m, part, NULL);
	if (bare_check(&m) || bare_capture_early(&m))
		bare_print(&m);
	bare_kill(&m);
}

static void refused(const char *check, const char *object, const char *what)
{
	bool good = bare_target_check(&m) && bare_found(&m, check, object);

	if (!ok(good, "%s", what))
		bare_print(&m);
	bare_end(&m);
}

static void test_taken(void)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = port4 };
	struct sockaddr_un un;
	int fd, one = 1;
	socklen_t len;

	captured(one_port);
	ok(!bare_target_check(&m),
	   "a port whose last connections are not forgotten passes");
	bare_end(&m);
	captured(one_port);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	must(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	must(!bind(fd, (void *)&a4, sizeof(a4)) && !listen(fd, 1));
	refused("fd.listen", "fd 0", "a port that is taken is refused");
	close(fd);

	captured(one_path);
	ok(!bare_target_check(&m), "a name nobody listens at passes");
	bare_end(&m);
	must(!unlink(path));
	captured(one_path);
	must(!unlink(path));
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	len = unix_address(&un, path);
	must(!bind(fd, (void *)&un, len));
	refused("fd.unix.used", "fd 0", "a name that is taken is refused");
	close(fd);
	must(!unlink(path));
	captured(one_path);
	must(!unlink(path));
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	refused("fd.unix.used", "fd 0", "a file in its place is refused");
	must(!unlink(path));

	captured(one_abstract);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	len = unix_address(&un, "@vasi-test-abstract");
	must(!bind(fd, (void *)&un, len));
	refused("fd.unix.used", "fd 0",
		"an abstract name that is taken is refused");
	close(fd);
}

/* -- connections=close */

static void connected(void)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = port4,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP,
				  .data.u64 = 42 };
	int p[2];

	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 0);
	set(0, SOL_SOCKET, SO_REUSEADDR, 1);
	guest_must(!bind(0, (void *)&a4, sizeof(a4)) && !listen(0, 3));
	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 1);
	guest_must(!connect(1, (void *)&a4, sizeof(a4)));
	guest_must(accept4(0, NULL, NULL, SOCK_NONBLOCK) == 2);
	guest_must(!socketpair(AF_UNIX, SOCK_STREAM, 0, p) && p[0] == 3);
	guest_must(epoll_create1(0) == 5);
	guest_must(!epoll_ctl(5, EPOLL_CTL_ADD, 2, &ev));
	guest_must(socket(AF_INET, SOCK_STREAM, 0) == 6);
	guest_must(!connect(6, (void *)&a4, sizeof(a4)));
}

static void test_closed(void)
{
	struct pollfd p = { .events = POLLIN | POLLRDHUP };
	struct epoll_event ev;
	char buf[4];
	int fd, r;

	bare_start(&m, connected, NULL);
	m.c.connections = CONNECTIONS_CLOSE;
	r = (int)bare_check(&m);
	if (!r)
		r = bare_capture_early(&m);
	if (!r)
		r = bare_capture_final(&m);
	bare_kill(&m);
	if (!r)
		r = (int)bare_target_check(&m);
	if (!r)
		r = bare_prepare(&m);
	if (!r)
		r = bare_finish(&m);
	if (!ok(!r, "connections, to be closed: moved"))
		bare_print(&m);
	fd = bare_fd(&m, 2);
	p.fd = fd;
	ok(poll(&p, 1, 0) == 1 && (p.revents & (POLLIN | POLLRDHUP)) ==
	   (POLLIN | POLLRDHUP), "a TCP connection shows its end");
	ok(recv(fd, buf, 4, 0) == 0, "and gives end of file");
	ok(fcntl(fd, F_GETFL) == (O_RDWR | O_NONBLOCK), "with its flags");
	close(fd);
	fd = bare_fd(&m, 5);
	ok(epoll_wait(fd, &ev, 1, 0) == 1 && ev.data.u64 == 42 &&
	   (ev.events & EPOLLRDHUP), "who waits for it is told");
	close(fd);
	fd = bare_fd(&m, 3);
	ok(recv(fd, buf, 4, 0) == 0 &&
	   send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE,
	   "a Unix connection");
	close(fd);
	bare_end(&m);
}

int main(void)
{
	char cmd[64];

	must(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(deep, sizeof(deep), "%s/gone", dir);
	port4 = free_port(AF_INET);
	port6 = free_port(AF_INET6);
	test_listeners();
	/* at the port of the connections that were just closed */
	test_taken();
	port4 = free_port(AF_INET);
	test_closed();
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	must(!system(cmd));
	return tap_end();
}
