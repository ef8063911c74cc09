// SPDX-License-Identifier: GPL-2.0
/*
 * Descriptors on the source: validation, capture, shared storage
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "lib/cleanup.h"
#include "state/files.h"
#include "state/files_target.h"

const struct fd_kind *const fd_kinds[] = {
	&fd_kind_memfd,
	&fd_kind_file,
	&fd_kind_directory,
	&fd_kind_chardev,
	&fd_kind_pipe,
	&fd_kind_eventfd,
	&fd_kind_timerfd,
	&fd_kind_tcp,
	&fd_kind_unix,
	&fd_kind_closed,
	/* names other descriptors, so it comes last */
	&fd_kind_epoll,
};
const size_t nr_fd_kinds = ARRAY_SIZE(fd_kinds);

const struct fd_kind *fd_kind_of(const struct fd_entry *e)
{
	size_t i;

	for (i = 0; i < nr_fd_kinds; i++)
		if (fd_kinds[i]->match(e))
			return fd_kinds[i];
	return NULL;
}

const struct fd_kind *fd_kind_named(const char *name)
{
	size_t i;

	for (i = 0; i < nr_fd_kinds; i++)
		if (!strcmp(fd_kinds[i]->name, name))
			return fd_kinds[i];
	return NULL;
}

/* Nobody's kind: say what it is, and what could be done. */
static int refuse_unknown(struct fd_look *look, const struct fd_entry *e)
{
	static const struct {
		const char *link, *text;
	} anon[] = {
		{ "[signalfd]", "a signalfd can't be moved" },
		{ "inotify", "inotify watches can't be moved" },
		{ "[fanotify]", "fanotify marks can't be moved" },
		{ "[io_uring]", "an io_uring can't be moved" },
		{ "[userfaultfd]", "a userfaultfd can't be moved" },
		{ "[perf_event]", "a perf event belongs to this host" },
		{ "[pidfd]", "a pidfd names a process of this host" },
		{ "[seccomp notify]", "a seccomp listener can't be moved" },
		{ "bpf-", "BPF objects belong to this host" },
		{ "kvm-", "a virtual machine of KVM can't be moved" },
	};
	size_t i;

	if (!strncmp(e->link, "anon_inode:", 11))
		for (i = 0; i < ARRAY_SIZE(anon); i++)
			if (!strncmp(e->link + 11, anon[i].link,
				     strlen(anon[i].link)))
				return fd_refuse(look, e, "fd.kind",
						 "%s; close it first",
						 anon[i].text);
	if (e->family)
		return fd_refuse(look, e, "fd.socket",
				 "sockets of this kind can't be moved; close it first");
	if (S_ISFIFO(e->st.st_mode))
		return fd_refuse(look, e, "fd.fifo",
				 "a named pipe can't be moved; close it first");
	if (S_ISCHR(e->st.st_mode) &&
	    (!strncmp(e->link, "/dev/pts/", 9) ||
	     !strncmp(e->link, "/dev/tty", 8) ||
	     !strcmp(e->link, "/dev/console") ||
	     !strcmp(e->link, "/dev/ptmx")))
		return fd_refuse(look, e, "fd.terminal",
				 "a terminal stays on this host; start the guest without one");
	if (S_ISCHR(e->st.st_mode) || S_ISBLK(e->st.st_mode))
		return fd_refuse(look, e, "fd.device",
				 "device %u:%u belongs to this host",
				 major(e->st.st_rdev), minor(e->st.st_rdev));
	if (S_ISLNK(e->st.st_mode))
		return fd_refuse(look, e, "fd.kind",
				 "a symbolic link that is open can't be moved");
	return fd_refuse(look, e, "fd.kind",
			 "descriptors of this kind can't be moved; close it first");
}

/* What any description may have besides its kind. */
static int check_common(struct fd_look *look, const struct fd_entry *e)
{
	const char *lock = fd_info(e, "lock");
	_cleanup_close_ int fd = -1;
	int r = 0;

	if (lock) {
		/* "1: FLOCK  ADVISORY  WRITE 123 00:13:5 0 EOF" */
		const char *kind = strchr(lock, ' ');
		int len;

		kind = kind ? kind + strspn(kind, " ") : lock;
		len = (int)strcspn(kind, " \n");
		r = fd_refuse(look, e, "fd.lock",
			      "a lock or lease (%.*s) is held on it, which no other host would respect; release it first",
			      len, kind);
	}
	if (e->flags & O_ASYNC)
		r = fd_refuse(look, e, "fd.async",
			      "it raises signals (O_ASYNC); switch that off first");
	if (e->flags & O_PATH)
		return r;
	fd = fd_copy(look, e);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_GETOWN) || fcntl(fd, F_GETSIG))
		r = fd_refuse(look, e, "fd.owner",
			      "an owner or a signal is set for it (F_SETOWN, F_SETSIG); clear them first");
	return r;
}

/* a running guest closes what was there a moment ago */
static bool is_gone(const struct fd_look *look, int err)
{
	return look->when == CAPTURE_EARLY && (err == -EBADF || err == -ENOENT);
}

static int capture_file(struct fd_look *look, struct fd_entry *e,
			Mspd__OpenFile **ret)
{
	Mspd__OpenFile *of;
	int r;

	if (!e->kind)
		return refuse_unknown(look, e);
	of = malloc(sizeof(*of));
	if (!of)
		return -ENOMEM;
	*of = (Mspd__OpenFile)MSPD__OPEN_FILE__INIT;
	of->id = e->id;
	of->flags = e->flags;
	of->kind = strdup(e->kind->name);
	r = of->kind ? check_common(look, e) : -ENOMEM;
	if (!r || (r == -EOPNOTSUPP && look->checking)) {
		int common = r;

		r = e->kind->capture(look, e, of);
		if (!r)
			r = common;
	}
	if (r) {
		mspd__open_file__free_unpacked(of, NULL);
		return r;
	}
	*ret = of;
	return 0;
}

static int add_tokens(struct fd_look *look, Mspd__FileTable *table)
{
	const struct files_source *s = look->c->files;
	size_t i;

	if (!s || !s->nr_tokens)
		return 0;
	table->tokens = calloc(s->nr_tokens, sizeof(*table->tokens));
	if (!table->tokens)
		return -ENOMEM;
	for (i = 0; i < s->nr_tokens; i++) {
		Mspd__Token *t = malloc(sizeof(*t));

		if (!t)
			return -ENOMEM;
		*t = (Mspd__Token)MSPD__TOKEN__INIT;
		table->tokens[table->n_tokens++] = t;
		t->path = strdup(s->tokens[i].path);
		t->nonce.data = malloc(FILEID_TOKEN_SIZE);
		if (!t->path || !t->nonce.data)
			return -ENOMEM;
		t->nonce.len = FILEID_TOKEN_SIZE;
		memcpy(t->nonce.data, s->tokens[i].nonce, FILEID_TOKEN_SIZE);
	}
	return 0;
}

/*
 * All descriptions, in the order of their numbers. A refused one is left out
 * when @look is for validation, and is an error otherwise.
 */
static int make_table(struct fd_look *look, Mspd__FileTable *table)
{
	size_t i;
	int r;

	table->files = calloc(look->n + 1, sizeof(*table->files));
	table->fds = calloc(look->n + 1, sizeof(*table->fds));
	if (!table->files || !table->fds)
		return -ENOMEM;
	for (i = 0; i < look->n; i++) {
		struct fd_entry *e = &look->v[i];
		Mspd__Fd *fd;

		if (e->first == e) {
			Mspd__OpenFile *of = NULL;

			r = capture_file(look, e, &of);
			if (r && !(r == -EOPNOTSUPP && look->checking) &&
			    !is_gone(look, r))
				return r;
			if (of)
				table->files[table->n_files++] = of;
		}
		fd = malloc(sizeof(*fd));
		if (!fd)
			return -ENOMEM;
		*fd = (Mspd__Fd)MSPD__FD__INIT;
		fd->fd = e->fd;
		fd->file = e->id;
		fd->cloexec = e->cloexec;
		table->fds[table->n_fds++] = fd;
	}
	return add_tokens(look, table);
}

static int look_and_tell(struct fd_look *look, Mspd__FileTable **ret)
{
	Mspd__FileTable *table;
	int r;

	r = fd_look(look);
	if (r)
		return r;
	table = malloc(sizeof(*table));
	if (!table)
		return -ENOMEM;
	*table = (Mspd__FileTable)MSPD__FILE_TABLE__INIT;
	r = make_table(look, table);
	if (r) {
		mspd__file_table__free_unpacked(table, NULL);
		return r;
	}
	*ret = table;
	return 0;
}

static int files_check_source(struct capture *c)
{
	struct fd_look look = { .c = c, .when = CAPTURE_EARLY,
				.checking = true };
	Mspd__FileTable *table = NULL;
	int r;

	r = look_and_tell(&look, &table);
	if (!r)
		r = outside_check(&look);
	mspd__file_table__free_unpacked(table, NULL);
	fd_look_close(&look);
	return r;
}

static int files_capture(struct capture *c, enum capture_when when,
			 Mspd__Image *img)
{
	struct fd_look look = { .c = c, .when = when };
	int r;

	r = look_and_tell(&look, &img->files);
	fd_look_close(&look);
	return r;
}

int files_token(struct capture *c, const char *path, dev_t dev)
{
	_cleanup_free_ char *dir = strdup(path);
	struct files_token *v, t = { .dev = dev };
	struct files_source *s;
	size_t i;
	char *p;
	int r;

	if (!dir)
		return -ENOMEM;
	if (!c->files)
		c->files = calloc(1, sizeof(*c->files));
	s = c->files;
	if (!s)
		return -ENOMEM;
	for (i = 0; i < s->nr_tokens; i++)
		if (s->tokens[i].dev == dev)
			return (int)i + 1;
	p = strrchr(dir, '/');
	if (!p)
		return -EINVAL;
	p[p == dir] = '\0';
	v = reallocarray(s->tokens, s->nr_tokens + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->tokens = v;
	r = fileid_token_make(dir, &t.path, t.nonce);
	if (r)
		return r;
	v[s->nr_tokens++] = t;
	return (int)s->nr_tokens;
}

static void files_close(struct capture *c)
{
	size_t i;

	if (!c->files)
		return;
	for (i = 0; i < c->files->nr_tokens; i++) {
		unlink(c->files->tokens[i].path);
		free(c->files->tokens[i].path);
	}
	free(c->files->tokens);
	free(c->files);
	c->files = NULL;
}

int files_sync(struct capture *c)
{
	struct fd_look look = { .c = c, .when = CAPTURE_EARLY };
	size_t i;
	int r;

	r = fd_look(&look);
	if (r)
		return r;
	for (i = 0; i < look.n && !r; i++) {
		struct fd_entry *e = &look.v[i];
		_cleanup_close_ int fd = -1;

		if (e->first != e || e->kind != &fd_kind_file ||
		    (e->flags & O_ACCMODE) == O_RDONLY)
			continue;
		fd = fd_copy(&look, e);
		if (fd < 0)
			r = fd == -EBADF ? 0 : fd;
		else if (fdatasync(fd))
			r = -errno;
	}
	fd_look_close(&look);
	return r;
}

const struct resource resource_files = {
	.name = "files",
	.check = files_check_source,
	.capture = files_capture,
	.close = files_close,
	.target_check = files_target_check,
	.prepare = files_prepare,
	.finish = files_finish,
	.done = files_done,
};
