// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "control/registry.h"
#include "lib/boot.h"
#include "lib/cleanup.h"
#include "log.h"

static const char * const state_names[] = {
	[ENTRY_RUNNING] = "running",
	[ENTRY_MIGRATING] = "migrating",
	[ENTRY_INCOMING] = "incoming",
	[ENTRY_IN_DOUBT] = "in doubt",
};

void uuid_random(char ret[37])
{
	uint8_t b[16];

	while (getrandom(b, sizeof(b), 0) != sizeof(b))
		;
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(ret, 37,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9],
		 b[10], b[11], b[12], b[13], b[14], b[15]);
}

bool registry_name_valid(const char *name)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyz"
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t n = strlen(name);

	/* a leading dot or dash would be a hidden file or an option */
	return n > 0 && n < sizeof(((struct entry *)0)->name) &&
	       strspn(name, ok) == n && name[0] != '.' && name[0] != '-';
}

static int start_ticks(pid_t pid, uint64_t *ret)
{
	_cleanup_close_ int fd = -1;
	unsigned long long ticks;
	char path[32], buf[1024];
	char *at;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return -ESRCH;
	buf[n] = '\0';
	/* the name may hold anything, also ")" */
	at = strrchr(buf, ')');
	if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u "
			  "%*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
			  &ticks) != 1)
		return -EIO;
	*ret = ticks;
	return 0;
}

static bool pidfd_alive(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

static int file_path(char *ret, size_t len, const char *dir, const char *name,
		     const char *suffix)
{
	int n = snprintf(ret, len, "%s/%s%s", dir, name, suffix);

	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

static int file_write(const char *dir, const char *name, json_t *obj)
{
	char path[400], tmp[400];
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r;

	r = file_path(path, sizeof(path), dir, name, ".json");
	if (r < 0)
		return r;
	/* not *.json, and no name of a guest starts with a dot */
	r = snprintf(tmp, sizeof(tmp), "%s/.%s.%d", dir, name, getpid());
	if (r < 0 || (size_t)r >= sizeof(tmp))
		return -ENAMETOOLONG;

	text = json_dumps(obj, JSON_INDENT(2));
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len] = '\n';	/* in the place of the NUL */
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, len + 1) != (ssize_t)len + 1 || fsync(fd) < 0 ||
	    rename(tmp, path) < 0) {
		r = errno ? -errno : -EIO;
		unlink(tmp);
		return r;
	}
	return 0;
}

static json_t *record(const char *name, const char *uuid, pid_t pid,
		      uint64_t ticks, int64_t since, const char *origin)
{
	char boot[BOOT_ID_BYTES];

	if (boot_id(boot) < 0)
		return NULL;
	return json_pack("{s:s, s:s, s:i, s:I, s:s, s:I, s:s}",
			 "name", name, "uuid", uuid, "pid", (int)pid,
			 "start_ticks", (json_int_t)ticks, "boot_id", boot,
			 "since", (json_int_t)since, "origin", origin);
}

int registry_file_write(const char *state_dir, const char *name,
			const char *uuid, pid_t pid, const char *origin)
{
	char dir[256];
	uint64_t ticks;
	json_t *obj;
	int r;

	r = file_path(dir, sizeof(dir), state_dir, "guests", "");
	if (r < 0)
		return r;
	r = start_ticks(pid, &ticks);
	if (r < 0)
		return r;
	obj = record(name, uuid, pid, ticks, time(NULL), origin);
	if (!obj)
		return -ENOMEM;
	r = file_write(dir, name, obj);
	json_decref(obj);
	return r;
}

void registry_file_remove(const char *state_dir, const char *name)
{
	char path[400];

	if (snprintf(path, sizeof(path), "%s/guests/%s.json", state_dir,
		     name) < (int)sizeof(path))
		unlink(path);
}

/* fills what the file of @e->name says; -ESRCH: of another life */
static int entry_load(struct registry *r, struct entry *e)
{
	const char *uuid, *boot, *origin, *name;
	json_int_t ticks, since;
	char path[400], now[BOOT_ID_BYTES];
	uint64_t have;
	json_t *obj;
	int pid, ret;

	ret = file_path(path, sizeof(path), r->dir, e->name, ".json");
	if (ret < 0)
		return ret;
	obj = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
	if (!obj)
		return -EBADMSG;
	if (json_unpack(obj, "{s:s, s:s, s:i, s:I, s:s, s:I, s:s !}",
			"name", &name, "uuid", &uuid, "pid", &pid,
			"start_ticks", &ticks, "boot_id", &boot,
			"since", &since, "origin", &origin) < 0 ||
	    strcmp(name, e->name) || strlen(uuid) != 36 ||
	    strlen(origin) >= sizeof(e->origin) || pid < 1) {
		ret = -EBADMSG;
		goto out;
	}
	ret = boot_id(now);
	if (ret < 0)
		goto out;
	if (strcmp(boot, now)) {
		ret = -ESRCH;
		goto out;
	}
	e->pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (e->pidfd < 0) {
		ret = -errno;
		goto out;
	}
	/* the pidfd is open: whoever has these ticks now is who it is of */
	ret = start_ticks(pid, &have);
	if (!ret && (have != (uint64_t)ticks || !pidfd_alive(e->pidfd)))
		ret = -ESRCH;
	if (ret < 0) {
		close(e->pidfd);
		e->pidfd = -1;
		goto out;
	}
	strcpy(e->uuid, uuid);
	strcpy(e->origin, origin);
	e->pid = pid;
	e->start_ticks = have;
	e->since = since;
out:
	json_decref(obj);
	return ret;
}

static void entry_free(struct registry *r, struct entry *e)
{
	loop_remove(r->loop, &e->watch);
	if (e->pidfd >= 0)
		close(e->pidfd);
	free(e);
}

static struct entry *entry_new(struct registry *r, const char *name)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->registry = r;
	e->pidfd = -1;
	strcpy(e->name, name);
	return e;
}

static void insert(struct registry *r, struct entry *e)
{
	struct entry **at = &r->entries;

	while (*at && strcmp((*at)->name, e->name) < 0)
		at = &(*at)->next;
	e->next = *at;
	*at = e;
}

static void ended(void *arg, uint32_t events)
{
	struct entry *e = arg;
	struct registry *r = e->registry;

	(void)events;
	if (e->state != ENTRY_RUNNING && e->state != ENTRY_IN_DOUBT) {
		/* its worker notices too and says what it means */
		loop_remove(r->loop, &e->watch);
		return;
	}
	log_notice("guest %s (PID %d) ended", e->name, e->pid);
	if (r->gone)
		r->gone(r->arg, e);
	registry_remove(r, e);
}

static int watch_end(struct registry *r, struct entry *e)
{
	return loop_add(r->loop, &e->watch, e->pidfd, EPOLLIN, ended, e);
}

static void load(struct registry *r, const char *file)
{
	struct entry *e = NULL;
	char name[64], path[400];
	size_t n = strlen(file);
	int ret;

	if (n < 6 || n - 5 >= sizeof(name) || strcmp(file + n - 5, ".json"))
		return;
	snprintf(name, sizeof(name), "%.*s", (int)n - 5, file);
	if (!registry_name_valid(name))
		return;
	e = entry_new(r, name);
	if (!e)
		return;
	ret = entry_load(r, e);
	if (!ret)
		ret = watch_end(r, e);
	if (ret == -ESRCH && !file_path(path, sizeof(path), r->dir, file, "")) {
		log_notice("guest %s ended while nobody looked", name);
		unlink(path);
	} else if (ret < 0) {
		log_warning("%s/%s: %s, ignoring", r->dir, file, strerror(-ret));
	}
	if (ret < 0) {
		entry_free(r, e);
		return;
	}
	insert(r, e);
	log_info("guest %s found again, PID %d", e->name, e->pid);
}

void registry_look(struct registry *r, const char *name)
{
	char path[400], file[80];

	if (!registry_name_valid(name) || registry_find(r, name) ||
	    file_path(path, sizeof(path), r->dir, name, ".json") ||
	    access(path, F_OK))
		return;
	snprintf(file, sizeof(file), "%s.json", name);
	load(r, file);
}

int registry_open(struct registry *r, const char *state_dir, struct loop *loop)
{
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *de;
	int ret;

	*r = (struct registry) { .loop = loop };
	ret = file_path(r->dir, sizeof(r->dir), state_dir, "guests", "");
	if (ret < 0)
		return ret;
	if (mkdir(state_dir, 0755) < 0 && errno != EEXIST)
		return -errno;
	if (mkdir(r->dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	d = opendir(r->dir);
	if (!d)
		return -errno;
	while ((de = readdir(d)))
		load(r, de->d_name);
	return 0;
}

void registry_close(struct registry *r)
{
	struct entry *e;

	while ((e = r->entries)) {
		r->entries = e->next;
		entry_free(r, e);
	}
}

struct entry *registry_find(struct registry *r, const char *name)
{
	struct entry *e;

	for (e = r->entries; e; e = e->next)
		if (!strcmp(e->name, name))
			return e;
	return NULL;
}

struct entry *registry_find_uuid(struct registry *r, const char *uuid)
{
	struct entry *e;

	for (e = r->entries; e; e = e->next)
		if (!strcmp(e->uuid, uuid))
			return e;
	return NULL;
}

struct entry *registry_find_pid(struct registry *r, pid_t pid)
{
	struct entry *e;

	for (e = r->entries; e; e = e->next)
		if (e->pid == pid)
			return e;
	return NULL;
}

int registry_add(struct registry *r, const char *name, const char *uuid,
		 pid_t pid, struct entry **ret)
{
	struct entry *e;
	json_t *obj;
	int err;

	if (registry_find(r, name) || registry_find_uuid(r, uuid) ||
	    registry_find_pid(r, pid))
		return -EEXIST;
	e = entry_new(r, name);
	if (!e)
		return -ENOMEM;
	snprintf(e->uuid, sizeof(e->uuid), "%s", uuid);
	e->pid = pid;
	e->since = time(NULL);
	e->pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (e->pidfd < 0) {
		err = -errno;
		goto fail;
	}
	err = start_ticks(pid, &e->start_ticks);
	if (!err && !pidfd_alive(e->pidfd))
		err = -ESRCH;
	if (err < 0)
		goto fail;
	obj = record(e->name, e->uuid, pid, e->start_ticks, e->since, "");
	err = obj ? file_write(r->dir, name, obj) : -ENOMEM;
	json_decref(obj);
	if (err < 0)
		goto fail;
	err = watch_end(r, e);
	if (err < 0) {
		registry_remove(r, e);
		return err;
	}
	insert(r, e);
	*ret = e;
	return 0;
fail:
	entry_free(r, e);
	return err;
}

int registry_reserve(struct registry *r, const char *name, const char *uuid,
		     struct entry **ret)
{
	struct entry *e;

	if (!registry_name_valid(name) || strlen(uuid) != 36)
		return -EINVAL;
	if (registry_find(r, name) || registry_find_uuid(r, uuid))
		return -EEXIST;
	e = entry_new(r, name);
	if (!e)
		return -ENOMEM;
	strcpy(e->uuid, uuid);
	e->since = time(NULL);
	e->state = ENTRY_INCOMING;
	insert(r, e);
	*ret = e;
	return 0;
}

int registry_arrived(struct registry *r, struct entry *e)
{
	int ret = entry_load(r, e);

	if (ret < 0)
		return ret;
	ret = watch_end(r, e);
	if (ret < 0)
		return ret;
	e->state = ENTRY_RUNNING;
	return 0;
}

void registry_remove(struct registry *r, struct entry *e)
{
	struct entry **at;
	char path[400];

	for (at = &r->entries; *at; at = &(*at)->next) {
		if (*at == e) {
			*at = e->next;
			break;
		}
	}
	if (!file_path(path, sizeof(path), r->dir, e->name, ".json"))
		unlink(path);
	entry_free(r, e);
}

bool registry_alive(const struct entry *e)
{
	return e->pidfd >= 0 && pidfd_alive(e->pidfd);
}

json_t *entry_to_json(const struct entry *e)
{
	json_t *obj = json_pack("{s:s, s:s, s:i, s:s, s:I, s:s, s:I}",
				"name", e->name, "uuid", e->uuid,
				"pid", (int)e->pid,
				"state", state_names[e->state],
				"since", (json_int_t)e->since,
				"origin", e->origin,
				"start_ticks", (json_int_t)e->start_ticks);

	if (obj && e->state == ENTRY_IN_DOUBT)
		json_object_set_new(obj, "doubt", json_pack(
			"{s:s, s:s, s:s, s:i}", "side", e->doubt.side ?: "",
			"stream_id", e->doubt.stream, "remote",
			e->doubt.remote, "asked", (int)e->doubt.asked));
	return obj;
}
