// SPDX-License-Identifier: GPL-2.0
/*
 * What /proc shows of a guest's descriptors
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include "lib/cleanup.h"
#include "state/files.h"

#define MQUEUE_MAGIC 0x19800202

static int read_all(int dir, const char *path, char **ret)
{
	_cleanup_close_ int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *buf = NULL;
	size_t size = 4096, len = 0;

	if (fd < 0)
		return -errno;
	buf = malloc(size);
	if (!buf)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(fd, buf + len, size - 1 - len);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
		if (size - 1 - len < 1024) {
			char *p = realloc(buf, size *= 2);

			if (!p)
				return -ENOMEM;
			buf = p;
		}
	}
	buf[len] = '\0';
	*ret = steal_ptr(&buf);
	return 0;
}

const char *fd_info(const struct fd_entry *e, const char *name)
{
	size_t len = strlen(name);
	const char *p = e->info;

	while (p) {
		if (!strncmp(p, name, len) && p[len] == ':') {
			p += len + 1;
			return p + strspn(p, " \t");
		}
		p = strchr(p, '\n');
		if (p)
			p++;
	}
	return NULL;
}

bool fd_info_u64(const struct fd_entry *e, const char *name, int base,
		 uint64_t *ret)
{
	const char *p = fd_info(e, name);
	char *end;

	if (!p)
		return false;
	errno = 0;
	*ret = strtoull(p, &end, base);
	return end != p && !errno;
}

const char *fd_host_file_system(const struct fd_look *look,
				const struct fd_entry *e)
{
	static const struct {
		unsigned long magic;
		const char *name;
	} v[] = {
		{ PROC_SUPER_MAGIC, "proc" }, { SYSFS_MAGIC, "sysfs" },
		{ DEBUGFS_MAGIC, "debugfs" }, { TRACEFS_MAGIC, "tracefs" },
		{ CGROUP2_SUPER_MAGIC, "cgroup2" },
		{ CGROUP_SUPER_MAGIC, "cgroup" },
		{ SECURITYFS_MAGIC, "securityfs" },
		{ SELINUX_MAGIC, "selinuxfs" }, { BPF_FS_MAGIC, "bpf" },
		{ NSFS_MAGIC, "nsfs" }, { HUGETLBFS_MAGIC, "hugetlbfs" },
		{ MQUEUE_MAGIC, "mqueue" },
	};
	char path[64];
	struct statfs fs;
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", look->c->pid, e->fd);
	if (statfs(path, &fs))
		return NULL;
	for (i = 0; i < ARRAY_SIZE(v); i++)
		if ((unsigned long)fs.f_type == v[i].magic)
			return v[i].name;
	return NULL;
}

int fd_copy(struct fd_look *look, const struct fd_entry *e)
{
	int fd = (int)syscall(SYS_pidfd_getfd, look->c->pidfd, e->fd, 0);

	return fd < 0 ? -errno : fd;
}

bool fd_first_of_file(const struct fd_look *look, const struct fd_entry *e)
{
	size_t i;

	for (i = 0; i < look->n; i++)
		if (look->v[i].st.st_ino == e->st.st_ino &&
		    look->v[i].st.st_dev == e->st.st_dev)
			return look->v[i].first == e;
	return true;
}

static void look_at_socket(struct fd_look *look, struct fd_entry *e)
{
	_cleanup_close_ int fd = fd_copy(look, e);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(int);
	int value;

	if (fd < 0)
		return;
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &e->family, &len);
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &e->type, &len);
	getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &e->protocol, &len);
	if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len))
		e->listening = value;
	e->addr_len = sizeof(e->addr);
	if (getsockname(fd, (struct sockaddr *)&e->addr, &e->addr_len))
		e->addr_len = 0;
	len = sizeof(peer);
	e->has_peer = !getpeername(fd, (struct sockaddr *)&peer, &len);
	if (e->protocol == IPPROTO_TCP) {
		struct tcp_info info = { 0 };

		len = sizeof(info);
		if (!getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
			e->tcp_state = info.tcpi_state;
	}
}

static int look_at(struct fd_look *look, struct fd_entry *e)
{
	uint64_t flags, pos;
	char path[32];
	ssize_t n;
	int r;

	snprintf(path, sizeof(path), "fd/%d", e->fd);
	n = readlinkat(look->c->proc, path, e->link, sizeof(e->link) - 1);
	if (n < 0)
		return -errno;
	e->link[n] = '\0';
	if (fstatat(look->c->proc, path, &e->st, 0))
		return -errno;
	snprintf(path, sizeof(path), "fdinfo/%d", e->fd);
	r = read_all(look->c->proc, path, &e->info);
	if (r)
		return r;
	if (!fd_info_u64(e, "flags", 8, &flags) ||
	    !fd_info_u64(e, "pos", 10, &pos))
		return -EIO;
	e->cloexec = flags & O_CLOEXEC;
	e->flags = (uint32_t)flags & ~(uint32_t)O_CLOEXEC;
	e->pos = (int64_t)pos;
	if (S_ISSOCK(e->st.st_mode))
		look_at_socket(look, e);
	return 0;
}

static bool same_description(const struct fd_look *look,
			     const struct fd_entry *a, const struct fd_entry *b)
{
	if (a->st.st_ino != b->st.st_ino || a->st.st_dev != b->st.st_dev)
		return false;
	return syscall(SYS_kcmp, look->c->pid, look->c->pid, KCMP_FILE,
		       a->fd, b->fd) == 0;
}

static void number_descriptions(struct fd_look *look)
{
	uint32_t id = 0;
	size_t i, j;

	for (i = 0; i < look->n; i++) {
		struct fd_entry *e = &look->v[i];

		e->first = e;
		for (j = 0; j < i; j++) {
			struct fd_entry *o = &look->v[j];

			if (o->first == o && same_description(look, o, e)) {
				e->first = o;
				break;
			}
		}
		e->id = e->first == e ? ++id : e->first->id;
		e->kind = e->first == e ? fd_kind_of(e) : e->first->kind;
	}
}

static int by_number(const void *a, const void *b)
{
	return ((const struct fd_entry *)a)->fd - ((const struct fd_entry *)b)->fd;
}

static int list(struct fd_look *look)
{
	_cleanup_closedir_ DIR *dir = NULL;
	size_t room = 0;
	struct dirent *de;
	int fd;

	fd = openat(look->c->proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((de = readdir(dir))) {
		if (de->d_name[0] < '0' || de->d_name[0] > '9')
			continue;
		if (look->n == room) {
			size_t more = room ? 2 * room : 16;
			struct fd_entry *v;

			v = reallocarray(look->v, more, sizeof(*v));
			if (!v)
				return -ENOMEM;
			look->v = v;
			room = more;
		}
		look->v[look->n] = (struct fd_entry){
			.fd = (int)strtol(de->d_name, NULL, 10),
		};
		look->n++;
	}
	if (look->n)
		qsort(look->v, look->n, sizeof(*look->v), by_number);
	return 0;
}

int fd_look(struct fd_look *look)
{
	size_t i, kept = 0;
	int r;

	r = list(look);
	for (i = 0; !r && i < look->n; i++) {
		struct fd_entry *e = &look->v[kept];

		if (i != kept)
			*e = look->v[i];
		r = look_at(look, e);
		/* closed by the running guest in the meantime */
		if (r == -ENOENT && !look->c->suspended) {
			free(e->info);
			e->info = NULL;
			r = 0;
			continue;
		}
		kept++;
	}
	if (r) {
		fd_look_close(look);
		return r;
	}
	look->n = kept;
	number_descriptions(look);
	return 0;
}

void fd_look_close(struct fd_look *look)
{
	size_t i;

	for (i = 0; i < look->n; i++)
		free(look->v[i].info);
	free(look->v);
	look->v = NULL;
	look->n = 0;
}

static const char *family_name(int family)
{
	switch (family) {
	case AF_UNIX: return "unix";
	case AF_INET: return "IPv4";
	case AF_INET6: return "IPv6";
	case AF_NETLINK: return "netlink";
	case AF_PACKET: return "packet";
	case AF_VSOCK: return "vsock";
	case AF_ALG: return "crypto";
	}
	return "other family";
}

static const char *type_name(const struct fd_entry *e)
{
	if (e->protocol == IPPROTO_TCP &&
	    (e->family == AF_INET || e->family == AF_INET6))
		return "TCP";
	switch (e->type) {
	case SOCK_STREAM: return "stream";
	case SOCK_DGRAM: return e->family == AF_UNIX ? "datagram" : "UDP";
	case SOCK_SEQPACKET: return "seqpacket";
	case SOCK_RAW: return "raw";
	}
	return "other type";
}

const char *fd_object(const struct fd_entry *e, char *buf, size_t len)
{
	if (!e->family)
		snprintf(buf, len, "fd %d (%s)", e->fd, e->link);
	else
		snprintf(buf, len, "fd %d (%s, %s %s%s)", e->fd, e->link,
			 family_name(e->family), type_name(e),
			 e->listening ? " listening" :
			 e->has_peer ? " connected" : "");
	return buf;
}

int fd_refuse(struct fd_look *look, const struct fd_entry *e,
	      const char *check, const char *fmt, ...)
{
	char object[PATH_MAX + 64], text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	finding_add(look->c->findings, FINDING_ERROR, check,
		    fd_object(e, object, sizeof(object)), "%s", text);
	return -EOPNOTSUPP;
}
