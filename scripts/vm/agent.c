// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a test VM: runs commands for the host.
 *
 * The host talks over virtio-serial ports, one command per port at a time,
 * so that commands run in parallel without multiplexing. A request is
 *	u32 length of what follows, u8 token[8],
 *	working directory, environment strings, "", argument strings
 * with every string NUL-terminated. The answer starts with the token (the
 * host skips what an interrupted predecessor may have left in the port) and
 * goes on with frames { u32 type, u32 length, bytes }.
 *
 * A command ends with its process, not with the last holder of its output:
 * a daemon it left behind must not keep the host waiting. When the host
 * hangs up, the command's whole session group is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_PORTS	32
#define MAX_REQUEST	(1 << 20)
#define TOKEN_LEN	8
#define CHUNK		16384

enum frame_type { FRAME_OUT = 1, FRAME_ERR = 2, FRAME_EXIT = 3 };

struct frame {
	uint32_t type;
	uint32_t len;
	char data[CHUNK];
};

struct port {
	int fd;
	pid_t server;		/* the process serving it, 0 when idle */
};

static struct port ports[MAX_PORTS];
static int nports;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "vm agent: %s: %m\n", what);
	exit(1);
}

/* Waits for @events; -EPIPE once the host has hung up. */
static int port_wait(int fd, short events, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int r = poll(&p, 1, timeout_ms);

	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	if (!r)
		return -ETIMEDOUT;
	return p.revents & POLLHUP ? -EPIPE : 0;
}

static int port_read(int fd, void *buf, size_t len)
{
	char *p = buf;
	int r;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n > 0) {
			p += n;
			len -= n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		r = port_wait(fd, POLLIN, 5000);
		if (r)
			return r;
	}
	return 0;
}

static int port_write(int fd, const void *buf, size_t len)
{
	const char *p = buf;
	int r;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n > 0) {
			p += n;
			len -= n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		r = port_wait(fd, POLLOUT, -1);
		if (r)
			return r;
	}
	return 0;
}

/* Forwards what is in the pipe; 0 when it is drained, 1 at its end. */
static int forward(int port, int pipe, enum frame_type type)
{
	struct frame f = { .type = type };

	for (;;) {
		ssize_t n = read(pipe, f.data, sizeof(f.data));
		int r;

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (!n)
			return 1;
		f.len = n;
		r = port_write(port, &f, offsetof(struct frame, data) + n);
		if (r)
			return r;
	}
}

/* Splits the strings of a request; the arrays point into @body. */
static int parse(char *body, size_t len, char **ret_cwd, char ***ret_env,
		 char ***ret_argv)
{
	char **list = calloc(len + 2, sizeof(*list)), **argv = NULL;
	char *p = body, *end = body + len;
	size_t n = 0;

	if (!list || !len || end[-1])
		return -EINVAL;
	*ret_cwd = p;
	for (p += strlen(p) + 1; p < end; p += strlen(p) + 1) {
		if (!*p && !argv) {
			list[n++] = NULL;
			argv = list + n;
		} else {
			list[n++] = p;
		}
	}
	list[n] = NULL;
	if (!argv || !argv[0])
		return -EINVAL;
	*ret_env = list;
	*ret_argv = argv;
	return 0;
}

static void __attribute__((noreturn))
run_child(const char *cwd, char **env, char **argv, int out, int err)
{
	sigset_t none;
	int null;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	null = open("/dev/null", O_RDONLY);
	dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	close_range(3, ~0U, 0);
	environ = env;
	if (chdir(cwd)) {
		fprintf(stderr, "vm: %s: %m\n", cwd);
		_exit(126);
	}
	execvp(argv[0], argv);
	fprintf(stderr, "vm: %s: %m\n", argv[0]);
	_exit(errno == ENOENT ? 127 : 126);
}

static int serve(int port)
{
	struct { uint32_t len; char token[TOKEN_LEN]; } __attribute__((packed)) head;
	struct { uint32_t type, len, code; } last = { FRAME_EXIT, sizeof(uint32_t), 0 };
	int out[2], err[2], child, status, r;
	char *body, *cwd, **env, **argv;
	struct pollfd p[4];
	pid_t pid;

	r = port_read(port, &head, sizeof(head));
	if (r)
		return r;
	if (head.len <= TOKEN_LEN || head.len > MAX_REQUEST)
		return -EINVAL;
	head.len -= TOKEN_LEN;
	body = malloc(head.len);
	if (!body)
		return -ENOMEM;
	r = port_read(port, body, head.len);
	if (r)
		return r;
	r = parse(body, head.len, &cwd, &env, &argv);
	if (r)
		return r;

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid)
		run_child(cwd, env, argv, out[1], err[1]);
	close(out[1]);
	close(err[1]);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	child = syscall(SYS_pidfd_open, pid, 0);
	if (child < 0)
		return -errno;

	r = port_write(port, head.token, TOKEN_LEN);
	p[0] = (struct pollfd){ .fd = port };
	p[1] = (struct pollfd){ .fd = out[0], .events = POLLIN };
	p[2] = (struct pollfd){ .fd = err[0], .events = POLLIN };
	p[3] = (struct pollfd){ .fd = child, .events = POLLIN };
	while (r >= 0) {
		if (poll(p, 4, -1) < 0)
			continue;
		if (p[0].revents & POLLHUP) {
			r = -EPIPE;
			break;
		}
		if (p[1].revents) {
			r = forward(port, p[1].fd, FRAME_OUT);
			if (r > 0)
				p[1].fd = -1;
		}
		if (r >= 0 && p[2].revents) {
			r = forward(port, p[2].fd, FRAME_ERR);
			if (r > 0)
				p[2].fd = -1;
		}
		if (p[3].revents)
			break;
	}
	if (r < 0) {
		kill(-pid, SIGKILL);
		return r;
	}
	if (p[1].fd >= 0)
		forward(port, p[1].fd, FRAME_OUT);
	if (p[2].fd >= 0)
		forward(port, p[2].fd, FRAME_ERR);
	waitpid(pid, &status, 0);
	last.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return port_write(port, &last, sizeof(last));
}

static void start_server(struct port *port)
{
	port->server = fork();
	if (!port->server)
		_exit(serve(port->fd) ? 1 : 0);
	if (port->server < 0)
		port->server = 0;
}

/* Edge triggered: a port without a host is readable and hung up all the time. */
static void arm(int ep, int op, int index)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLET, .data.u32 = index };

	if (epoll_ctl(ep, op, ports[index].fd, &e))
		die("epoll");
}

static void reap(int ep)
{
	pid_t pid;
	int i;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
		for (i = 0; i < nports; i++) {
			if (ports[i].server != pid)
				continue;
			ports[i].server = 0;
			arm(ep, EPOLL_CTL_MOD, i);
		}
	}
}

/* /dev/vport<virtio device>p<port>; the driver makes them after loading. */
static int open_port(int number)
{
	char pattern[32];
	int tries;

	snprintf(pattern, sizeof(pattern), "/dev/vport*p%d", number);
	for (tries = 0; tries < 1000; tries++) {
		glob_t g;
		int fd = -1;

		if (!glob(pattern, 0, NULL, &g)) {
			fd = open(g.gl_pathv[0], O_RDWR | O_NONBLOCK | O_CLOEXEC);
			globfree(&g);
		}
		if (fd >= 0)
			return fd;
		usleep(10000);
	}
	die(pattern);
}

static void open_ports(int ep)
{
	int i;

	for (i = 0; i < nports; i++) {
		ports[i].fd = open_port(i + 1);
		arm(ep, EPOLL_CTL_ADD, i);
	}
}

int main(int argc, char **argv)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = MAX_PORTS };
	struct signalfd_siginfo si;
	sigset_t set;
	int ep, sfd;

	nports = argc > 1 ? atoi(argv[1]) : 0;
	if (nports < 1 || nports > MAX_PORTS)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sfd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (sfd < 0 || ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, sfd, &e))
		die("setting up");
	open_ports(ep);

	for (;;) {
		if (epoll_wait(ep, &e, 1, -1) < 1)
			continue;
		if (e.data.u32 == MAX_PORTS) {
			while (read(sfd, &si, sizeof(si)) > 0)
				;
			reap(ep);
		} else if (!(e.events & EPOLLHUP) && !ports[e.data.u32].server) {
			start_server(&ports[e.data.u32]);
		}
	}
}
