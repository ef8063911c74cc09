// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "engine/fault.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "session/journal.h"

#define POLL_MS		10

static const char *const roles[] = { "source", "target" };

static const char *const types[JOURNAL_TYPES] = {
	[JOURNAL_BEGIN] = "begin",
	[JOURNAL_PREPARED] = "prepared",
	[JOURNAL_COMMIT] = "commit",
	[JOURNAL_FORCED] = "forced",
	[JOURNAL_REFUSED] = "refused",
	[JOURNAL_RETURNED] = "returned",
	[JOURNAL_COMPLETED] = "completed",
};

#define BIT(type)	(1U << (type))

/* by role and last record: what may be next */
static const unsigned int next[2][JOURNAL_TYPES] = {
	[JOURNAL_SOURCE] = {
		[JOURNAL_BEGIN] = BIT(JOURNAL_COMMIT) | BIT(JOURNAL_RETURNED),
		[JOURNAL_COMMIT] = BIT(JOURNAL_COMPLETED) |
				   BIT(JOURNAL_RETURNED) |
				   BIT(JOURNAL_FORCED),
	},
	[JOURNAL_TARGET] = {
		[JOURNAL_BEGIN] = BIT(JOURNAL_PREPARED) | BIT(JOURNAL_REFUSED),
		[JOURNAL_PREPARED] = BIT(JOURNAL_COMMIT) | BIT(JOURNAL_FORCED) |
				     BIT(JOURNAL_REFUSED),
		/* the one call that resumes it has failed: it never ran */
		[JOURNAL_COMMIT] = BIT(JOURNAL_REFUSED),
	},
};

bool journal_follows(enum journal_role role, enum journal_type from,
		     enum journal_type to)
{
	return next[role][from] & BIT(to);
}

const char *journal_name(enum journal_type type)
{
	return types[type];
}

static int index_of(const char *const *words, int n, const char *word)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(words[i], word))
			return i;
	return -1;
}

/* -- text */

int journal_encode(const struct journal_record *r, char *buf, size_t len)
{
	_cleanup_free_ char *text = NULL;
	char stream[17];
	json_t *obj;
	int n;

	snprintf(stream, sizeof(stream), "%016" PRIx64, r->stream_id);
	obj = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:I}",
			"version", JOURNAL_VERSION, "role", roles[r->role],
			"type", types[r->type], "boot", r->boot,
			"stream", stream, "guest", r->guest, "uuid", r->uuid,
			"pid", (int)r->pid, "access", r->access,
			"cgroup", r->cgroup, "host", r->host,
			"port", (int)r->port, "time", (json_int_t)r->time);
	if (!obj)
		return -EINVAL;
	text = json_dumps(obj, JSON_COMPACT);
	json_decref(obj);
	if (!text)
		return -ENOMEM;
	n = snprintf(buf, len, "%s\n", text);
	return n < 0 || (size_t)n >= len ? -EOVERFLOW : n;
}

static bool copy(char *to, size_t len, const char *from)
{
	return snprintf(to, len, "%s", from) < (int)len;
}

static bool stream_of(const char *text, uint64_t *ret)
{
	char *end;

	if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
		return false;
	*ret = strtoull(text, &end, 16);
	return *ret;
}

/* a whole object that says all that a record says, and no more */
static bool decode(json_t *obj, struct journal_record *ret)
{
	const char *role, *type, *boot, *stream, *guest, *uuid, *access;
	const char *cgroup, *host;
	struct journal_record r = { 0 };
	int version, pid, port, i;
	json_int_t time;

	if (json_unpack(obj, "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:I !}",
			"version", &version, "role", &role, "type", &type,
			"boot", &boot, "stream", &stream, "guest", &guest,
			"uuid", &uuid, "pid", &pid, "access", &access,
			"cgroup", &cgroup, "host", &host, "port", &port,
			"time", &time) < 0 || version != JOURNAL_VERSION)
		return false;
	i = index_of(roles, ARRAY_SIZE(roles), role);
	if (i < 0)
		return false;
	r.role = i;
	i = index_of(types, ARRAY_SIZE(types), type);
	if (i < 0 || pid < 0 || port < 0 || port > UINT16_MAX ||
	    !stream_of(stream, &r.stream_id) ||
	    !copy(r.boot, sizeof(r.boot), boot) ||
	    !copy(r.guest, sizeof(r.guest), guest) ||
	    !copy(r.uuid, sizeof(r.uuid), uuid) ||
	    !copy(r.access, sizeof(r.access), access) ||
	    !copy(r.cgroup, sizeof(r.cgroup), cgroup) ||
	    !copy(r.host, sizeof(r.host), host))
		return false;
	r.type = i;
	r.pid = pid;
	r.port = port;
	r.time = time;
	*ret = r;
	return true;
}

/* a refusal may be all there is: of a stream that nobody had heard of */
static bool in_order(const struct journal_record *last, size_t n,
		     const struct journal_record *r)
{
	if (!n)
		return r->type == JOURNAL_BEGIN ||
		       (r->type == JOURNAL_REFUSED &&
			r->role == JOURNAL_TARGET);
	return r->role == last->role && r->stream_id == last->stream_id &&
	       journal_follows(r->role, last->type, r->type);
}

int journal_parse(const char *text, size_t len, struct journal_record *ret,
		  size_t *ret_end)
{
	struct journal_record last = { 0 };
	size_t at = 0, n = 0;

	while (at < len) {
		const char *line = text + at, *end;
		struct journal_record r = { 0 };
		json_t *obj;
		bool good;

		end = memchr(line, '\n', len - at);
		if (!end)
			break;	/* torn */
		obj = json_loadb(line, end - line, JSON_REJECT_DUPLICATES,
				 NULL);
		if (!obj && end + 1 == text + len)
			break;	/* torn: its blocks came in another order */
		good = obj && decode(obj, &r) && in_order(&last, n, &r);
		json_decref(obj);
		if (!good)
			return -EBADMSG;
		last = r;
		n++;
		at = end + 1 - text;
	}
	if (!n)
		return -EBADMSG;
	*ret = last;
	*ret_end = at;
	return 0;
}

/* -- files */

static int path_of(char *buf, size_t len, const char *dir,
		   enum journal_role role, uint64_t stream_id)
{
	return snprintf(buf, len, "%s/%016" PRIx64 ".%s", dir, stream_id,
			roles[role]) < (int)len ? 0 : -ENAMETOOLONG;
}

static int sync_dir(const char *dir)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) ? -errno : 0;
}

int journal_setup(const char *state_dir, char *ret_dir, size_t len)
{
	if (snprintf(ret_dir, len, "%s/journal", state_dir) >= (int)len)
		return -ENAMETOOLONG;
	if (mkdir(ret_dir, 0700))
		return errno == EEXIST ? 0 : -errno;
	return sync_dir(state_dir);
}

static int stamp(struct journal_record *r)
{
	r->time = time(NULL);
	return boot_id(r->boot);
}

/* the whole of @r behind what is there, or nothing of it */
static int put(struct journal *j, const struct journal_record *r)
{
	char line[JOURNAL_LINE];
	int len, err = fault_journal(roles[r->role], types[r->type]);

	if (err)
		return err;
	len = journal_encode(r, line, sizeof(line));
	if (len < 0)
		return len;
	errno = EIO;
	if (pwrite(j->fd, line, len, j->end) != len || fdatasync(j->fd)) {
		err = -errno;
		/* the next one is written over it, whatever came of this */
		if (ftruncate(j->fd, j->end))
			return err;
		fdatasync(j->fd);
		return err;
	}
	j->end += len;
	j->last = *r;
	return 0;
}

int journal_append(struct journal *j, enum journal_type type)
{
	struct journal_record r = j->last;
	int err;

	if (!journal_follows(r.role, r.type, type))
		return -EPROTO;
	r.type = type;
	err = stamp(&r);
	return err ? err : put(j, &r);
}

static int create(struct journal *j, const char *tmp, const char *path,
		  const struct journal_record *first)
{
	int err;

	j->fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (j->fd < 0)
		return -errno;
	if (flock(j->fd, LOCK_EX | LOCK_NB))
		return -errno;
	/* room for the records to come: a full disk shows now */
	if (fallocate(j->fd, FALLOC_FL_KEEP_SIZE, 0, 4096) && errno == ENOSPC)
		return -ENOSPC;
	err = put(j, first);
	if (err)
		return err;
	/* it is never seen without its first record, nor without its lock */
	if (fsync(j->fd) || link(tmp, path))
		return -errno;
	err = sync_dir(j->dir);
	if (err)
		unlink(path);
	return err;
}

int journal_create(struct journal *j, const char *dir,
		   const struct journal_record *first)
{
	struct journal_record r = *first;
	char path[400], tmp[400];
	int err;

	*j = (struct journal){ .fd = -1 };
	err = path_of(path, sizeof(path), dir, r.role, r.stream_id);
	if (err || !copy(j->dir, sizeof(j->dir), dir) ||
	    snprintf(tmp, sizeof(tmp), "%s/.%d", dir, getpid()) >=
	    (int)sizeof(tmp))
		return -ENAMETOOLONG;
	err = stamp(&r);
	if (err)
		return err;
	/* left by a process of this number that died here */
	unlink(tmp);
	err = create(j, tmp, path, &r);
	unlink(tmp);
	if (err)
		journal_close(j);
	return err;
}

static int load(int fd, struct journal_record *ret, size_t *ret_end)
{
	_cleanup_free_ char *text = malloc(JOURNAL_BYTES);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = pread(fd, text, JOURNAL_BYTES, 0);
	if (n < 0)
		return -errno;
	if (n == JOURNAL_BYTES)
		return -EBADMSG;
	return journal_parse(text, n, ret, ret_end);
}

/* the file says of whom it is, and its name too */
static int load_own(int fd, enum journal_role role, uint64_t stream_id,
		    struct journal_record *ret, size_t *ret_end)
{
	struct journal_record r;
	int err = load(fd, &r, ret_end);

	if (err)
		return err;
	if (r.role != role || r.stream_id != stream_id)
		return -EBADMSG;
	*ret = r;
	return 0;
}

static int lock(int fd, unsigned int wait_ms)
{
	int64_t deadline = deadline_in(wait_ms);
	struct stat st;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (!deadline_left(deadline))
			return -EBUSY;
		sleep_ms(POLL_MS);
	}
	/* who had it may have removed it */
	if (fstat(fd, &st))
		return -errno;
	return st.st_nlink ? 0 : -ENOENT;
}

int journal_open(struct journal *j, const char *dir, enum journal_role role,
		 uint64_t stream_id, unsigned int wait_ms)
{
	char path[400];
	size_t end = 0;
	int err;

	*j = (struct journal){ .fd = -1 };
	err = path_of(path, sizeof(path), dir, role, stream_id);
	if (err || !copy(j->dir, sizeof(j->dir), dir))
		return -ENAMETOOLONG;
	j->fd = open(path, O_RDWR | O_CLOEXEC);
	if (j->fd < 0)
		return -errno;
	err = lock(j->fd, wait_ms);
	if (!err)
		err = load_own(j->fd, role, stream_id, &j->last, &end);
	j->end = end;
	/* what is acted upon is on the disk, and nothing behind it */
	if (!err && (ftruncate(j->fd, j->end) || fsync(j->fd)))
		err = -errno;
	if (err)
		journal_close(j);
	return err;
}

int journal_peek(const char *dir, enum journal_role role, uint64_t stream_id,
		 struct journal_record *ret, bool *ret_held)
{
	_cleanup_close_ int fd = -1;
	char path[400];
	size_t end;
	int err;

	err = path_of(path, sizeof(path), dir, role, stream_id);
	if (err)
		return err;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_held = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
	return load_own(fd, role, stream_id, ret, &end);
}

bool journal_stale(const struct journal_record *r)
{
	char now[BOOT_ID_BYTES];

	return !boot_id(now) && strcmp(now, r->boot);
}

void journal_close(struct journal *j)
{
	/* a child may have it still, for the moment until it calls exec */
	if (j->fd >= 0)
		flock(j->fd, LOCK_UN);
	cleanup_close(&j->fd);
	j->fd = -1;
}

void journal_remove(struct journal *j)
{
	char path[400];

	if (j->fd < 0)
		return;
	if (!path_of(path, sizeof(path), j->dir, j->last.role,
		     j->last.stream_id))
		unlink(path);
	journal_close(j);
}

int journal_scan(const char *dir,
		 void (*found)(void *arg, enum journal_role role,
			       uint64_t stream_id), void *arg)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	const struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		char stream[17];
		uint64_t id;
		int role;

		if (strlen(e->d_name) < 18 || e->d_name[16] != '.')
			continue;
		snprintf(stream, sizeof(stream), "%.16s", e->d_name);
		role = index_of(roles, ARRAY_SIZE(roles), e->d_name + 17);
		if (role >= 0 && stream_of(stream, &id))
			found(arg, role, id);
	}
	return 0;
}
