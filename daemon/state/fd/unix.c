// SPDX-License-Identifier: GPL-2.0
/*
 * Unix stream sockets without a connection: listening, bound, or new
 *
 * A name in the file system is made beside its place before the pause, and
 * takes the place of what is there (on shared storage: of what the source
 * leaves) by a rename in the pause; a restore that fails renames back. The
 * socket must tell the name it is bound to, so it is bound to that name in a
 * root directory of its own.
 */
#include <errno.h>
#include <ftw.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/sockopt.h"

static bool match(const struct fd_entry *e)
{
	return e->family == AF_UNIX && !e->has_peer &&
		(e->type == SOCK_STREAM || e->type == SOCK_SEQPACKET);
}

/* queue: connections that wait and how many may, from the kernel's list */
static int queue_of(ino_t ino, struct unix_diag_rqlen *ret)
{
	struct {
		struct nlmsghdr nlh;
		struct unix_diag_req req;
	} msg = {
		.nlh = { .nlmsg_len = sizeof(msg),
			 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			 .nlmsg_flags = NLM_F_REQUEST },
		.req = { .sdiag_family = AF_UNIX, .udiag_states = ~0U,
			 .udiag_ino = (uint32_t)ino,
			 .udiag_show = UDIAG_SHOW_RQLEN,
			 .udiag_cookie = { ~0U, ~0U } },
	};
	_cleanup_close_ int fd = -1;
	char buf[4096] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = (void *)buf;
	struct nlattr *a;
	ssize_t n;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0 || send(fd, &msg, sizeof(msg), 0) < 0)
		return -errno;
	n = recv(fd, buf, sizeof(buf), 0);
	if (n < 0)
		return -errno;
	if (!NLMSG_OK(nlh, (size_t)n))
		return -EIO;
	if (nlh->nlmsg_type == NLMSG_ERROR)
		return ((struct nlmsgerr *)NLMSG_DATA(nlh))->error;
	n = (ssize_t)(nlh->nlmsg_len - NLMSG_LENGTH(sizeof(struct unix_diag_msg)));
	a = (void *)((char *)NLMSG_DATA(nlh) + sizeof(struct unix_diag_msg));
	while (n >= (ssize_t)sizeof(*a) && a->nla_len >= sizeof(*a) &&
	       a->nla_len <= n) {
		if (a->nla_type == UNIX_DIAG_RQLEN &&
		    a->nla_len >= sizeof(*a) + sizeof(*ret)) {
			memcpy(ret, a + 1, sizeof(*ret));
			return 0;
		}
		n -= NLA_ALIGN(a->nla_len);
		a = (void *)((char *)a + NLA_ALIGN(a->nla_len));
	}
	return -ENOENT;
}

/* NULL: abstract or not bound */
static const char *name_of(const void *addr, size_t len, char *buf)
{
	const struct sockaddr_un *un = addr;
	size_t n;

	if (len <= offsetof(struct sockaddr_un, sun_path) || !un->sun_path[0] ||
	    len > sizeof(*un))
		return NULL;
	n = strnlen(un->sun_path, len - offsetof(struct sockaddr_un, sun_path));
	memcpy(buf, un->sun_path, n);
	buf[n] = '\0';
	return buf;
}

static int capture_name(struct fd_look *look, struct fd_entry *e,
			Mspd__OpenFile *of)
{
	char buf[sizeof(struct sockaddr_un)];
	const char *name = name_of(&e->addr, e->addr_len, buf);
	struct stat st;

	if (!name)
		return 0;
	if (name[0] != '/')
		return fd_refuse(look, e, "fd.unix.relative",
				 "it is bound to the relative path \"%s\", which leads nowhere for sure; bind it to an absolute one",
				 name);
	of->has_gone = 1;
	of->gone = stat(name, &st) || !S_ISSOCK(st.st_mode);
	if (of->gone)
		return 0;
	of->mode = st.st_mode & 07777;
	of->uid = st.st_uid;
	of->gid = st.st_gid;
	of->has_mode = of->has_uid = of->has_gid = 1;
	return 0;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = fd_copy(look, e);
	struct unix_diag_rqlen queue;
	int r;

	if (fd < 0)
		return fd;
	r = socket_capture(e, of);
	if (!r)
		r = sockopt_capture(look, e, fd, of);
	if (!r)
		r = capture_name(look, e, of);
	if (r || !e->listening)
		return r;
	r = queue_of(e->st.st_ino, &queue);
	if (r)
		return fd_refuse(look, e, "fd.unix.queue",
				 "the length of its queue is unknown: %s; load the module unix_diag",
				 strerror(-r));
	if (queue.udiag_rqueue && look->c->connections == CONNECTIONS_REFUSE)
		return fd_refuse(look, e, "fd.connection",
				 "%u connections wait to be accepted; use connections=close to drop them",
				 queue.udiag_rqueue);
	of->backlog = queue.udiag_wqueue;
	of->has_backlog = 1;
	return 0;
}

struct binding {
	int fd;
	const struct sockaddr *addr;
	socklen_t len;
	const char *root;
	char name[sizeof(struct sockaddr_un)];
	int ret;
};

static int make_parents(char *name)
{
	char *p;

	for (p = strchr(name + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(name, 0700) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* In a thread with a root directory of its own. */
static void *bind_in_root(void *arg)
{
	struct binding *b = arg;

	if (unshare(CLONE_FS) || chroot(b->root) || chdir("/"))
		b->ret = -errno;
	else
		b->ret = make_parents(b->name);
	if (!b->ret && bind(b->fd, b->addr, b->len))
		b->ret = -errno;
	return NULL;
}

static int temp_beside(const char *name, char **ret)
{
	_cleanup_free_ char *temp = NULL;
	const char *slash = strrchr(name, '/');

	if (asprintf(&temp, "%.*s/.vasi-XXXXXX", (int)(slash - name), name) < 0) {
		temp = NULL;
		return -ENOMEM;
	}
	if (!mkdtemp(temp))
		return -errno;
	*ret = steal_ptr(&temp);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type == FTW_DP)
		rmdir(path);
	else
		unlink(path);
	return 0;
}

static void remove_temp(const char *temp)
{
	nftw(temp, remove_one, 4, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Nobody on this host may have the name already. */
static bool name_in_use(const void *addr, size_t len)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/net/unix", "re");
	const struct sockaddr_un *un = addr;
	size_t n = len - offsetof(struct sockaddr_un, sun_path), i;
	char line[512], want[sizeof(un->sun_path) + 1];
	int at;

	if (len <= offsetof(struct sockaddr_un, sun_path) || len > sizeof(*un))
		return false;
	memset(want, 0, sizeof(want));
	memcpy(want, un->sun_path, n);
	/* the list shows zero bytes as @ */
	if (!want[0])
		for (i = 0; i < n; i++)
			if (!want[i])
				want[i] = '@';
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		at = 0;
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %n", &at) < 0 ||
		    !at)
			continue;
		if (!strcmp(line + at, want))
			return true;
	}
	return false;
}

static int open_unix(struct files_target *t, const Mspd__OpenFile *of,
		     int *ret_fd)
{
	struct binding b = { .addr = (const void *)of->address.data,
			     .len = (socklen_t)of->address.len };
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *temp = NULL;
	const char *what = "socket", *name;
	pthread_t thread;
	int r;

	if (of->family != AF_UNIX || of->address.len > sizeof(struct sockaddr_un))
		return files_fail(t, of, -EBADMSG, "is no Unix socket");
	fd = socket(AF_UNIX, (int)of->type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	r = sockopt_restore(fd, of, &what);
	if (r)
		return files_fail(t, of, r, "%s: %s", what, strerror(-r));
	name = name_of(of->address.data, of->address.len, b.name);
	if (!name) {
		if (of->address.len > offsetof(struct sockaddr_un, sun_path) &&
		    bind(fd, b.addr, b.len))
			return files_fail(t, of, -errno, "its name: %s",
					  strerror(errno));
		*ret_fd = steal_fd(&fd);
		return 0;
	}
	r = temp_beside(name, &temp);
	if (r)
		return files_fail(t, of, r, "no place beside %s: %s", name,
				  strerror(-r));
	b.fd = fd;
	b.root = temp;
	r = pthread_create(&thread, NULL, bind_in_root, &b);
	if (!r) {
		pthread_join(thread, NULL);
		r = -b.ret;
	}
	if (!r)
		r = -files_temp(t, of, temp);
	if (r) {
		remove_temp(temp);
		return files_fail(t, of, -r, "%s: %s", name, strerror(r));
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int check(struct files_check *t, const Mspd__OpenFile *of)
{
	char object[PATH_MAX + 64], buf[sizeof(struct sockaddr_un)], *slash;
	const char *name = name_of(of->address.data, of->address.len, buf);
	struct stat st;

	file_object(t->table, of, object, sizeof(object));
	if (name_in_use(of->address.data, of->address.len))
		finding_add(t->f, FINDING_ERROR, "fd.unix.used", object,
			    "another program of the target has its name%s%s; end it",
			    name ? " " : "", name ? name : "");
	if (!name)
		return 0;
	if (!lstat(name, &st) && !S_ISSOCK(st.st_mode))
		finding_add(t->f, FINDING_ERROR, "fd.unix.used", object,
			    "%s is no socket on the target; remove it", name);
	slash = strrchr(buf, '/');
	if (slash > buf)
		*slash = '\0';
	else
		buf[1] = '\0';
	if (stat(buf, &st) || !S_ISDIR(st.st_mode))
		finding_add(t->f, FINDING_ERROR, "fd.unix.directory", object,
			    "directory %s is missing on the target", buf);
	return 0;
}

/* What is at the name is kept beside it until the guest runs. */
static int keep_old(struct placed_file *p, const char *name)
{
	_cleanup_free_ char *saved = NULL;

	if (asprintf(&saved, "%s.old", p->temp) < 0) {
		saved = NULL;
		return -ENOMEM;
	}
	if (link(name, saved))
		return errno == ENOENT ? 0 : -errno;
	p->saved = steal_ptr(&saved);
	return 0;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	const Mspd__OpenFile *of = p->file;
	char buf[sizeof(struct sockaddr_un)], made[PATH_MAX];
	const char *name = name_of(of->address.data, of->address.len, buf);
	int r = 0;

	if (!name)
		return 0;
	if (!p->temp)
		return -EBADMSG;
	snprintf(made, sizeof(made), "%s%s", p->temp, name);
	if (!of->gone) {
		if (of->has_mode && (chmod(made, of->mode & 07777) ||
				     lchown(made, of->uid, of->gid)))
			r = -errno;
		if (!r)
			r = keep_old(p, name);
		if (!r) {
			p->path = strdup(name);
			if (!p->path)
				r = -ENOMEM;
			else if (rename(made, name)) {
				r = -errno;
				free(steal_ptr(&p->path));
			}
		}
	}
	if (r)
		return files_fail(t, of, r, "%s: %s", name, strerror(-r));
	remove_temp(p->temp);
	free(steal_ptr(&p->temp));
	return 0;
}

static void done(struct files_target *t, struct placed_file *p, bool alive)
{
	(void)t;
	if (p->path && !alive) {
		if (p->saved)
			rename(p->saved, p->path);
		else
			unlink(p->path);
	} else if (p->saved) {
		unlink(p->saved);
	}
	if (p->temp)
		remove_temp(p->temp);
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return socket_equal(a, b);
}

const struct fd_kind fd_kind_unix = {
	.name = "unix",
	.match = match,
	.capture = capture,
	.check = check,
	.open = open_unix,
	.same = same,
	.settle = settle,
	.done = done,
};
