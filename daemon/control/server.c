// SPDX-License-Identifier: GPL-2.0
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "control/client.h"
#include "control/job.h"
#include "control/recovery.h"
#include "control/server.h"
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "log.h"
#include "state/ns.h"
#include "wire/keys.h"

/* between two looks at a cgroup that is still busy */
#define SWEEP_S		1

static void control_ready(void *arg, uint32_t events)
{
	struct server *s = arg;
	int fd = accept4(s->control_fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0)
		client_accept(s, fd);
}

/* A stranger: what it is here for, and whether it may, is for a worker to see. */
static void peers_ready(void *arg, uint32_t events)
{
	struct server *s = arg;
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char host[INET6_ADDRSTRLEN];
	int fd, r;

	(void)events;
	fd = accept4(s->peers_fd, (struct sockaddr *)&addr, &len, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), NULL,
			0, NI_NUMERICHOST))
		strcpy(host, "?");
	if (s->stopping || !door_open(&s->door, host, job_strangers(s, host),
				      now_ns())) {
		close(fd);
		return;
	}
	if (job_strangers(s, NULL) >= DOOR_PLACES)
		job_drop_stranger(s);
	r = job_start_target(s, fd, host);
	if (r < 0)
		log_error("no worker for a guest from %s: %s", host,
			  strerror(-r));
}

static void stop(struct server *s)
{
	if (s->stopping)
		return;
	log_notice("stopping; guests live on");
	s->stopping = true;
	job_cancel_all(s);
	server_check_stop(s);
}

static void signals_ready(void *arg, uint32_t events)
{
	struct server *s = arg;
	struct signalfd_siginfo si;

	(void)events;
	if (read(s->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGCHLD)
		job_reap(s);
	else
		stop(s);
}

void server_check_stop(struct server *s)
{
	if (s->stopping && !job_count(s, JOB_SOURCE) &&
	    !job_count(s, JOB_TARGET))
		s->loop.stop = true;
}

const char *server_cgroup(const struct server *s, const char *name, char *buf,
			  size_t len)
{
	if (!s->cgroups)
		return NULL;
	snprintf(buf, len, "%s/%s", s->config.cgroup_root, name);
	return buf;
}

const struct keys_place *server_keys(const struct server *s,
				     struct keys_place *at)
{
	snprintf(at->dir, sizeof(at->dir), "%s", s->config.keys);
	snprintf(at->ca, sizeof(at->ca), "%s", s->config.ca);
	return s->config.tls == TLS_OFF ? NULL : at;
}

/* false: one is still busy, its last process is on its way out */
static bool sweep(struct server *s)
{
	_cleanup_closedir_ DIR *d = opendir(s->config.cgroup_root);
	bool clean = true;
	char path[600];
	struct dirent *de;

	while (d && (de = readdir(d))) {
		if (de->d_type != DT_DIR || de->d_name[0] == '.' ||
		    registry_find(&s->registry, de->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/%s", s->config.cgroup_root,
			 de->d_name);
		if (ns_cgroup_remove(path) == -EBUSY)
			clean = false;
	}
	return clean;
}

void server_sweep_cgroups(struct server *s)
{
	struct itimerspec again = { 0 };

	user_cgroup_sweep();
	if (!s->cgroups)
		return;
	again.it_value.tv_sec = sweep(s) ? 0 : SWEEP_S;
	timerfd_settime(s->timer_fd, 0, &again, NULL);
}

static void timer_ready(void *arg, uint32_t events)
{
	struct server *s = arg;
	uint64_t count;

	(void)events;
	if (read(s->timer_fd, &count, sizeof(count)) == sizeof(count))
		server_sweep_cgroups(s);
}

static void guest_gone(void *arg, struct entry *e)
{
	(void)e;
	server_sweep_cgroups(arg);
	recovery_soon(arg);
}

/* guests get cgroups only where there is a cgroup2 mount to put them */
static bool open_cgroups(const struct config *c)
{
	char parent[256];
	struct statfs fs;
	char *slash;

	if (!c->cgroup_root[0])
		return false;
	strcpy(parent, c->cgroup_root);
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return false;
	*slash = '\0';
	if (statfs(parent, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC) {
		log_warning("%s is not on cgroup2, guests stay in the daemon's cgroup",
			    c->cgroup_root);
		return false;
	}
	if (mkdir(c->cgroup_root, 0755) < 0 && errno != EEXIST) {
		log_warning("%s: %s, guests stay in the daemon's cgroup",
			    c->cgroup_root, strerror(errno));
		return false;
	}
	return true;
}

static int open_control(const struct server *s)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = s->config.socket;
	_cleanup_close_ int fd = -1;
	char dir[sizeof(addr.sun_path)];
	char *slash;
	mode_t old;
	int r;

	strcpy(addr.sun_path, path);
	strcpy(dir, path);
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = '\0';
		mkdir(dir, 0755);
	}

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* a socket nobody answers on is left over, any other is in use */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		log_error("%s: another mspd listens there; end it, or choose another --socket and --state-dir",
			  path);
		return -EADDRINUSE;
	}
	if (errno == ECONNREFUSED)
		unlink(path);
	close(steal_fd(&fd));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;

	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(old);
	if (r < 0 || listen(fd, 16) < 0) {
		r = r ?: -errno;
		log_error("%s: %s", path, strerror(-r));
		return r;
	}
	if (s->gid != (gid_t)-1 &&
	    (chown(path, -1, s->gid) < 0 || chmod(path, 0660) < 0)) {
		r = -errno;
		log_error("%s: %s", path, strerror(-r));
		return r;
	}
	return steal_fd(&fd);
}

static int open_peers(const struct config *c)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
	};
	_cleanup_close_ int fd = -1;
	struct addrinfo *ai;
	int r, on = 1;
	char port[8];

	snprintf(port, sizeof(port), "%u", c->port);
	r = getaddrinfo(c->listen, port, &hints, &ai);
	if (r) {
		log_error("listen address %s: %s", c->listen, gai_strerror(r));
		return -EADDRNOTAVAIL;
	}
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	r = fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
	    listen(fd, 16) < 0 ? -errno : 0;
	freeaddrinfo(ai);
	if (r < 0) {
		log_error("listening on %s port %u: %s", c->listen, c->port,
			  strerror(-r));
		return r;
	}
	return steal_fd(&fd);
}

static int open_signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* what stands against a move, before one is tried */
static void tell_keys(const struct config *c)
{
	struct keys_cert own;
	char why[400];

	if (c->tls == TLS_OFF)
		log_warning("tls = off: whoever can connect may send guests, and read those that are sent");
	else if (keys_own(c->keys, &own, why, sizeof(why)))
		log_warning("guests can be started and listed, but not moved: %s",
			    why);
	else
		log_info("this host's certificate is %s, valid until %s",
			 own.text, own.until);
}

int server_open(struct server *s, const struct config *c)
{
	const struct guest_access *access;
	struct group *gr;
	char why[400];
	int r;

	*s = (struct server) {
		.config = *c, .pid = getpid(), .gid = -1, .control_fd = -1, .peers_fd = -1, .signal_fd = -1,
		.timer_fd = -1, .recovery_fd = -1, .loop.epoll = -1,
	};
	if (c->group[0]) {
		gr = getgrnam(c->group);
		if (!gr) {
			log_error("group %s does not exist", c->group);
			return -ENOENT;
		}
		s->gid = gr->gr_gid;
	}
	r = loop_open(&s->loop);
	if (r < 0)
		return r;
	/* the sockets first: a second daemon must not touch the registry */
	r = s->control_fd = open_control(s);
	if (r < 0)
		return r;
	r = s->peers_fd = open_peers(c);
	if (r < 0)
		return r;
	r = registry_open(&s->registry, c->state_dir, &s->loop);
	if (r < 0) {
		log_error("%s/guests: %s", c->state_dir, strerror(-r));
		return r;
	}
	s->registry.gone = guest_gone;
	s->registry.arg = s;
	r = s->timer_fd = timerfd_create(CLOCK_MONOTONIC,
					 TFD_CLOEXEC | TFD_NONBLOCK);
	if (r < 0)
		return -errno;
	s->cgroups = open_cgroups(c);
	server_sweep_cgroups(s);
	r = recovery_open(s);
	if (r < 0)
		return r;

	r = s->signal_fd = open_signals();
	if (r >= 0)
		r = loop_add(&s->loop, &s->signals, s->signal_fd, EPOLLIN,
			     signals_ready, s);
	if (r >= 0)
		r = loop_add(&s->loop, &s->timer, s->timer_fd, EPOLLIN,
			     timer_ready, s);
	if (r >= 0)
		r = loop_add(&s->loop, &s->control, s->control_fd, EPOLLIN,
			     control_ready, s);
	if (r >= 0)
		r = loop_add(&s->loop, &s->peers, s->peers_fd, EPOLLIN,
			     peers_ready, s);
	if (r < 0)
		return r;
	/* its processes' ends are seen from here on */
	recovery_look(s);

	if (access_choose(c->access, c->tracker, &access, NULL, why,
			  sizeof(why)) < 0)
		log_warning("guests can be started and listed, but not moved: %s",
			    why);
	else
		log_info("guests are reached %s", why);
	tell_keys(c);
	log_notice("listening on %s port %u and %s", c->listen, c->port,
		   c->socket);
	return 0;
}

int server_run(struct server *s)
{
	return loop_run(&s->loop);
}

void server_close(struct server *s)
{
	client_free_all(s);
	job_free_all(s);
	recovery_close(s);
	registry_close(&s->registry);
	if (s->control_fd >= 0) {
		unlink(s->config.socket);
		close(s->control_fd);
	}
	if (s->peers_fd >= 0)
		close(s->peers_fd);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->timer_fd >= 0)
		close(s->timer_fd);
	loop_close(&s->loop);
}
