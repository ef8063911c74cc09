// SPDX-License-Identifier: GPL-2.0
/*
 * Identity of a file on two hosts
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <xxhash.h>
#include "lib/cleanup.h"
#include "state/fileid.h"

/* a digest of more would take too long for what it proves */
#define MAX_DIGEST_BYTES (256ULL << 20)
#define MAX_NOTES_BYTES	(64UL << 10)
#define CACHE_ENTRIES	512

#define NSEC_PER_SEC	1000000000LL

struct content {
	uint8_t build_id[64];
	size_t build_id_len;
	uint8_t digest[16];
	bool has_digest;
};

/* A worker looks at the same files in each capture; only its first costs. */
static struct cached {
	dev_t dev;
	ino_t ino;
	off_t size;
	int64_t mtime, ctime;
	struct content content;
} cache[CACHE_ENTRIES];
static size_t nr_cached;

static int64_t ts_ns(const struct timespec *ts)
{
	return ts->tv_sec * NSEC_PER_SEC + ts->tv_nsec;
}

static int full_pread(int fd, void *buf, size_t len, uint64_t pos)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, (off_t)pos);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENOENT;
		buf = (char *)buf + n;
		len -= (size_t)n;
		pos += (uint64_t)n;
	}
	return 0;
}

static int find_note(const uint8_t *p, size_t len, uint8_t *id, size_t *ret_len)
{
	while (len >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr nh;
		size_t name, desc;

		memcpy(&nh, p, sizeof(nh));
		name = ((size_t)nh.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)nh.n_descsz + 3) & ~(size_t)3;
		p += sizeof(nh);
		len -= sizeof(nh);
		if (name > len || desc > len - name)
			return -ENOENT;
		if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == 4 &&
		    !memcmp(p, ELF_NOTE_GNU, 4) && nh.n_descsz &&
		    nh.n_descsz <= *ret_len) {
			memcpy(id, p + name, nh.n_descsz);
			*ret_len = nh.n_descsz;
			return 0;
		}
		p += name + desc;
		len -= name + desc;
	}
	return -ENOENT;
}

int fileid_build_id(int fd, uint8_t *id, size_t *len)
{
	_cleanup_free_ uint8_t *notes = NULL;
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	size_t i;
	int r;

	r = full_pread(fd, &eh, sizeof(eh), 0);
	if (r)
		return r;
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
	    eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_phentsize != sizeof(ph))
		return -ENOENT;
	for (i = 0; i < eh.e_phnum; i++) {
		r = full_pread(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph));
		if (r)
			return r;
		if (ph.p_type != PT_NOTE || !ph.p_filesz ||
		    ph.p_filesz > MAX_NOTES_BYTES)
			continue;
		free(steal_ptr(&notes));
		notes = malloc(ph.p_filesz);
		if (!notes)
			return -ENOMEM;
		r = full_pread(fd, notes, ph.p_filesz, ph.p_offset);
		if (!r)
			r = find_note(notes, ph.p_filesz, id, len);
		if (r != -ENOENT)
			return r;
	}
	return -ENOENT;
}

static int digest(int fd, uint8_t ret[16])
{
	_cleanup_free_ char *buf = malloc(1 << 20);
	XXH3_state_t *state = XXH3_createState();
	XXH128_canonical_t out;
	uint64_t pos = 0;
	ssize_t n = -1;

	if (!buf || !state) {
		XXH3_freeState(state);
		return -ENOMEM;
	}
	XXH3_128bits_reset(state);
	while ((n = pread(fd, buf, 1 << 20, (off_t)pos)) > 0) {
		XXH3_128bits_update(state, buf, (size_t)n);
		pos += (uint64_t)n;
	}
	XXH128_canonicalFromHash(&out, XXH3_128bits_digest(state));
	XXH3_freeState(state);
	if (n < 0)
		return -errno;
	memcpy(ret, out.digest, 16);
	return 0;
}

/* What the file is, without its name. A build ID stands for the content. */
static int content_of(int fd, const struct stat *st, struct content *ret)
{
	struct cached key = {
		.dev = st->st_dev, .ino = st->st_ino, .size = st->st_size,
		.mtime = ts_ns(&st->st_mtim), .ctime = ts_ns(&st->st_ctim),
	};
	struct content *c = &key.content;
	size_t i;
	int r;

	for (i = 0; i < nr_cached; i++) {
		const struct cached *o = &cache[i];

		if (o->dev == key.dev && o->ino == key.ino &&
		    o->size == key.size && o->mtime == key.mtime &&
		    o->ctime == key.ctime) {
			*ret = o->content;
			return 0;
		}
	}
	c->build_id_len = sizeof(c->build_id);
	r = fileid_build_id(fd, c->build_id, &c->build_id_len);
	if (r == -ENOENT) {
		c->build_id_len = 0;
		if ((uint64_t)st->st_size > MAX_DIGEST_BYTES)
			return -EFBIG;
		r = digest(fd, c->digest);
		c->has_digest = !r;
	}
	if (r)
		return r;
	cache[nr_cached < CACHE_ENTRIES ? nr_cached++ :
	      key.ino % CACHE_ENTRIES] = key;
	*ret = *c;
	return 0;
}

static int set_bytes(ProtobufCBinaryData *b, const void *data, size_t len)
{
	b->data = malloc(len);
	if (!b->data)
		return -ENOMEM;
	memcpy(b->data, data, len);
	b->len = len;
	return 0;
}

int fileid_capture(const char *path, int fd, enum fileid_content content,
		   Mspd__FileId **ret)
{
	struct stat st, at;
	Mspd__FileId *id;
	struct content c;
	int r = 0;

	if (fstat(fd, &st))
		return -errno;
	id = malloc(sizeof(*id));
	if (!id)
		return -ENOMEM;
	*id = (Mspd__FileId)MSPD__FILE_ID__INIT;
	id->path = strdup(path);
	if (!id->path)
		r = -ENOMEM;
	id->has_size = id->has_mtime_ns = id->has_mode = 1;
	id->size = (uint64_t)st.st_size;
	id->mtime_ns = ts_ns(&st.st_mtim);
	id->mode = st.st_mode;
	id->has_deleted = 1;
	id->deleted = stat(path, &at) || at.st_dev != st.st_dev ||
		at.st_ino != st.st_ino;
	if (!r && content == FILEID_CONTENT && S_ISREG(st.st_mode)) {
		r = content_of(fd, &st, &c);
		if (!r && c.build_id_len) {
			r = set_bytes(&id->build_id, c.build_id, c.build_id_len);
			id->has_build_id = !r;
		} else if (!r && c.has_digest) {
			r = set_bytes(&id->digest, c.digest, sizeof(c.digest));
			id->has_digest = !r;
		}
	}
	if (r) {
		mspd__file_id__free_unpacked(id, NULL);
		return r;
	}
	*ret = id;
	return 0;
}

int fileid_still(const Mspd__FileId *id, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	return (uint64_t)st.st_size == id->size &&
	       ts_ns(&st.st_mtim) == id->mtime_ns;
}

__attribute__((format(printf, 4, 5)))
static int because(char *why, size_t len, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, len, fmt, ap);
	va_end(ap);
	return err;
}

static bool bytes_equal(const ProtobufCBinaryData *b, const void *data,
			size_t len)
{
	return b->len == len && !memcmp(b->data, data, len);
}

/* @fd may be an O_PATH one if the identity has no content */
static int check_opened(const Mspd__FileId *id, int fd, char *why, size_t len)
{
	struct content c;
	struct stat st;
	int r;

	if (fstat(fd, &st))
		return because(why, len, -errno, "can't be looked at: %s",
			       strerror(errno));
	if (id->has_mode && (id->mode & S_IFMT) != (st.st_mode & S_IFMT))
		return because(why, len, -ESTALE,
			       "is not of the same type on the target");
	if (!S_ISREG(st.st_mode))
		return 0;
	if (id->has_size && (uint64_t)st.st_size != id->size)
		return because(why, len, -ESTALE,
			       "has %llu bytes on the target, %llu on the source",
			       (unsigned long long)st.st_size,
			       (unsigned long long)id->size);
	if (!id->has_digest && !id->has_build_id)
		return 0;
	r = content_of(fd, &st, &c);
	if (r)
		return because(why, len, r, "can't be read: %s", strerror(-r));
	if (id->has_build_id && !bytes_equal(&id->build_id, c.build_id,
					     c.build_id_len))
		return because(why, len, -ESTALE,
			       "has another build ID on the target; install the same version");
	if (id->has_digest && !(c.has_digest &&
				bytes_equal(&id->digest, c.digest, 16)))
		return because(why, len, -ESTALE,
			       "has other content on the target; copy it there");
	return 0;
}

int fileid_open(const Mspd__FileId *id, int flags, int *ret_fd, char *why,
		size_t len)
{
	_cleanup_close_ int fd = -1, reader = -1;
	bool content = id->has_digest || id->has_build_id;
	int r;

	flags = (flags & ~(O_CREAT | O_EXCL | O_TRUNC)) | O_NOCTTY | O_CLOEXEC;
	fd = open(id->path, flags);
	if (fd < 0)
		return because(why, len, -errno,
			       "can't be opened on the target: %s",
			       strerror(errno));
	/* content is read through a descriptor that can, and moves no offset */
	if (content && (flags & (O_PATH | O_WRONLY | O_DIRECT))) {
		char self[32];

		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		reader = open(self, O_RDONLY | O_CLOEXEC);
		if (reader < 0)
			return because(why, len, -errno, "can't be read: %s",
				       strerror(errno));
	}
	r = check_opened(id, reader >= 0 ? reader : fd, why, len);
	if (r)
		return r;
	*ret_fd = steal_fd(&fd);
	return 0;
}

int fileid_check(const Mspd__FileId *id, char *why, size_t len)
{
	bool content = id->has_digest || id->has_build_id;
	_cleanup_close_ int fd = -1;

	if (id->deleted)
		return because(why, len, -ENOENT, "was deleted on the source");
	fd = open(id->path, (content ? O_RDONLY : O_PATH) | O_CLOEXEC |
		  O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return because(why, len, -errno, "%s on the target: %s",
			       errno == ENOENT ? "is missing" : "can't be opened",
			       strerror(errno));
	return check_opened(id, fd, why, len);
}

int fileid_token_make(const char *dir, char **ret_path,
		      uint8_t nonce[FILEID_TOKEN_SIZE])
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	uint64_t name[2];
	int r;

	if (getrandom(name, sizeof(name), 0) != sizeof(name) ||
	    getrandom(nonce, FILEID_TOKEN_SIZE, 0) != FILEID_TOKEN_SIZE)
		return -EIO;
	if (asprintf(&path, "%s/.vasi-token-%016llx%016llx",
		     strcmp(dir, "/") ? dir : "",
		     (unsigned long long)name[0],
		     (unsigned long long)name[1]) < 0)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		  0600);
	if (fd < 0)
		return -errno;
	if (write(fd, nonce, FILEID_TOKEN_SIZE) != FILEID_TOKEN_SIZE ||
	    fsync(fd)) {
		r = errno ? -errno : -EIO;
		unlink(path);
		return r;
	}
	*ret_path = steal_ptr(&path);
	return 0;
}

int fileid_token_check(const char *path, const uint8_t *nonce, size_t len,
		       dev_t *ret_dev)
{
	uint8_t buf[FILEID_TOKEN_SIZE + 1];
	_cleanup_close_ int fd = -1;
	struct stat st;
	ssize_t n;

	if (len != FILEID_TOKEN_SIZE)
		return -EINVAL;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK |
		  O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	n = read(fd, buf, sizeof(buf));
	if (n < 0)
		return -errno;
	if (n != FILEID_TOKEN_SIZE || memcmp(buf, nonce, FILEID_TOKEN_SIZE))
		return -ESTALE;
	*ret_dev = st.st_dev;
	return 0;
}
