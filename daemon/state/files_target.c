// SPDX-License-Identifier: GPL-2.0
/*
 * Descriptors on the target
 *
 * The early image and the final one are put back by the same function: what is
 * there already and still right stays. A description is taken for the same one
 * when all that can't be changed in it and the set of its descriptors are the
 * same; how it came to be so in the guest makes no difference to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/asguest.h"
#include "state/files_target.h"

const char *file_object(const Mspd__FileTable *table, const Mspd__OpenFile *of,
			char *buf, size_t len)
{
	const char *name = of->file ? of->file->path : of->kind;
	size_t i;

	for (i = 0; i < table->n_fds; i++)
		if (table->fds[i]->file == of->id) {
			snprintf(buf, len, "fd %d (%s)", table->fds[i]->fd, name);
			return buf;
		}
	snprintf(buf, len, "%s", name);
	return buf;
}

int files_fail(struct files_target *t, const Mspd__OpenFile *of, int err,
	       const char *fmt, ...)
{
	char object[PATH_MAX + 64], text[512];
	va_list ap;

	if (t->as_guest && (err == -EACCES || err == -EPERM))
		return err;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return restore_fail(t->r, err, "fd.restore",
			    file_object(t->image->files, of, object,
					sizeof(object)), "%s", text);
}

struct placed_file *files_by_nr(struct files_target *t, int fd)
{
	size_t i, j;

	for (i = 0; i < t->n; i++)
		for (j = 0; j < t->v[i].nr_fds; j++)
			if (t->v[i].fds[j].nr == fd)
				return &t->v[i];
	return NULL;
}

struct placed_shared *files_shared(struct files_target *t, uint64_t peer)
{
	size_t i;

	for (i = 0; i < t->nr_shared; i++)
		if (t->shared[i].peer == peer)
			return &t->shared[i];
	return NULL;
}

int files_share(struct files_target *t, uint64_t peer, const int end[2])
{
	struct placed_shared *v;

	v = reallocarray(t->shared, t->nr_shared + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	t->shared = v;
	v[t->nr_shared++] = (struct placed_shared){
		.peer = peer, .end = { end[0], end[1] },
	};
	return 0;
}

int files_temp(struct files_target *t, const Mspd__OpenFile *of,
	       const char *temp)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		if (t->v[i].file == of) {
			t->v[i].temp = strdup(temp);
			return t->v[i].temp ? 0 : -ENOMEM;
		}
	return -ENOENT;
}

static Mspd__OpenFile *copy_of(const Mspd__OpenFile *of)
{
	_cleanup_free_ uint8_t *buf = NULL;
	size_t len = mspd__open_file__get_packed_size(of);

	buf = malloc(len ? len : 1);
	if (!buf)
		return NULL;
	mspd__open_file__pack(of, buf);
	return mspd__open_file__unpack(NULL, len, buf);
}

static void forget(struct placed_file *p)
{
	if (p->copy >= 0)
		close(p->copy);
	mspd__open_file__free_unpacked(p->early, NULL);
	free(p->fds);
	free(p->epoll);
	free(p->path);
	free(p->saved);
	free(p->temp);
	*p = (struct placed_file){ .copy = -1 };
}

/* Descriptors of description @id, by number as the table has them. */
static int fds_of(const Mspd__FileTable *table, uint32_t id,
		  struct remote_fd **ret, size_t *ret_n)
{
	struct remote_fd *v = calloc(table->n_fds + 1, sizeof(*v));
	size_t i, n = 0;

	if (!v)
		return -ENOMEM;
	for (i = 0; i < table->n_fds; i++)
		if (table->fds[i]->file == id)
			v[n++] = (struct remote_fd){
				.fd = -1, .nr = table->fds[i]->fd,
				.cloexec = table->fds[i]->cloexec,
			};
	*ret = v;
	*ret_n = n;
	return 0;
}

static bool is_same(const struct placed_file *p, const struct fd_kind *kind,
		    const Mspd__OpenFile *of, const struct remote_fd *fds,
		    size_t n)
{
	size_t i;

	if (!p->early || p->file || p->kind != kind || p->nr_fds != n ||
	    ((p->early->flags ^ of->flags) & ~SETTABLE_FLAGS))
		return false;
	for (i = 0; i < n; i++)
		if (p->fds[i].nr != fds[i].nr)
			return false;
	return !kind->same || kind->same(p->early, of);
}

static int change_cloexec(struct files_target *t, struct placed_file *p,
			  const struct remote_fd *fds)
{
	size_t i;
	int r;

	for (i = 0; i < p->nr_fds; i++) {
		if (p->placed && p->fds[i].cloexec != fds[i].cloexec) {
			r = remote_queue(&t->r->remote, 0, "close-on-exec flag",
					 SYS_fcntl, p->fds[i].nr, F_SETFD,
					 fds[i].cloexec ? FD_CLOEXEC : 0);
			if (r)
				return r;
		}
		p->fds[i].cloexec = fds[i].cloexec;
	}
	return 0;
}

static int match_one(struct files_target *t, const Mspd__OpenFile *of)
{
	_cleanup_free_ struct remote_fd *fds = NULL;
	const struct fd_kind *kind = fd_kind_named(of->kind);
	struct placed_file *p;
	size_t i, n;
	int r;

	if (!kind)
		return files_fail(t, of, -EOPNOTSUPP,
				  "this mspd does not know descriptors of kind \"%s\"",
				  of->kind);
	r = fds_of(t->image->files, of->id, &fds, &n);
	if (r)
		return r;
	if (!n)
		return files_fail(t, of, -EBADMSG, "has no descriptor");
	for (i = 0; i < t->n; i++) {
		p = &t->v[i];
		if (is_same(p, kind, of, fds, n)) {
			p->file = of;
			return change_cloexec(t, p, fds);
		}
	}
	p = reallocarray(t->v, t->n + 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	t->v = p;
	p += t->n++;
	*p = (struct placed_file){
		.file = of, .kind = kind, .serial = ++t->serial, .copy = -1,
		.fds = steal_ptr(&fds), .nr_fds = n,
	};
	return 0;
}

/* Descriptions of the early image that the guest has no more. */
static int drop_unmatched(struct files_target *t)
{
	size_t i, j, kept = 0;
	int r;

	for (i = 0; i < t->n; i++) {
		struct placed_file *p = &t->v[i];

		if (p->file) {
			if (kept != i)
				t->v[kept] = *p;
			kept++;
			continue;
		}
		for (j = 0; p->placed && j < p->nr_fds; j++) {
			r = remote_queue(&t->r->remote, 0, "close", SYS_close,
					 p->fds[j].nr);
			if (r)
				return r;
		}
		if (p->kind->done)
			p->kind->done(t, p, false);
		forget(p);
	}
	t->n = kept;
	return 0;
}

static bool to_be_opened(const struct files_target *t,
			 const struct placed_file *p)
{
	return p->copy < 0 &&
		(t->final || !p->kind->late || !p->kind->late(p->file));
}

/* @arg: struct files_target; what the guest itself may not open stays */
static int open_as_guest(void *arg)
{
	struct files_target *t = arg;
	size_t i;
	int r;

	for (i = 0; i < t->n; i++) {
		struct placed_file *p = &t->v[i];

		if (!to_be_opened(t, p))
			continue;
		r = p->kind->open(t, p->file, &p->copy);
		if (r && r != -EACCES && r != -EPERM)
			return r;
	}
	return 0;
}

/*
 * The guest may have opened a file before it gave its rights away: what it
 * can't open now is opened by the daemon.
 */
static int open_all(struct files_target *t)
{
	size_t i;
	int r;

	t->as_guest = true;
	r = as_guest(t->image->creds, open_as_guest, t);
	t->as_guest = false;
	for (i = 0; !r && i < t->n; i++)
		if (to_be_opened(t, &t->v[i]))
			r = t->v[i].kind->open(t, t->v[i].file, &t->v[i].copy);
	return r;
}

static int by_nr(const void *a, const void *b)
{
	return ((const struct remote_fd *)a)->nr -
		((const struct remote_fd *)b)->nr;
}

/* In the order of the numbers: most of them are the lowest free one then. */
static int place_all(struct files_target *t)
{
	_cleanup_free_ struct remote_fd *v = NULL;
	size_t i, j, n = 0;
	int r;

	v = calloc(t->image->files->n_fds + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (i = 0; i < t->n; i++) {
		struct placed_file *p = &t->v[i];

		if (p->copy < 0 || p->placed)
			continue;
		for (j = 0; j < p->nr_fds; j++) {
			v[n] = p->fds[j];
			v[n++].fd = p->copy;
		}
	}
	if (!n)
		return 0;
	qsort(v, n, sizeof(*v), by_nr);
	r = remote_place_fds(&t->r->remote, v, n);
	if (r)
		return restore_fail(t->r, r, "fd.place", "descriptors",
				    "can't be put into the guest: %s",
				    strerror(-r));
	for (i = 0; i < t->n; i++)
		t->v[i].placed = t->v[i].copy >= 0;
	return 0;
}

static int settle_flags(struct files_target *t, struct placed_file *p)
{
	uint32_t want = p->file->flags & SETTABLE_FLAGS;
	int now;

	if (p->file->flags & O_PATH)
		return 0;
	now = fcntl(p->copy, F_GETFL);
	if (now >= 0 && ((uint32_t)now & SETTABLE_FLAGS) == want)
		return 0;
	if (now < 0 || fcntl(p->copy, F_SETFL, (int)want))
		return files_fail(t, p->file, -errno, "flags %o: %s", want,
				  strerror(errno));
	return 0;
}

static int settle_all(struct files_target *t)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < t->n; i++) {
		struct placed_file *p = &t->v[i];

		if (p->copy < 0)
			continue;
		r = settle_flags(t, p);
		if (!r && p->kind->settle &&
		    (t->final || p->kind == &fd_kind_epoll))
			r = p->kind->settle(t, p);
	}
	return r;
}

/* Tokens are only ever added to the list. */
static int check_tokens(struct files_target *t)
{
	const Mspd__FileTable *table = t->image->files;
	dev_t *v;

	v = reallocarray(t->token_dev, table->n_tokens + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	t->token_dev = v;
	for (; t->nr_tokens < table->n_tokens; t->nr_tokens++) {
		const Mspd__Token *token = table->tokens[t->nr_tokens];

		if (fileid_token_check(token->path, token->nonce.data,
				       token->nonce.len, &v[t->nr_tokens]))
			v[t->nr_tokens] = 0;
	}
	return 0;
}

static int put_back(struct files_target *t)
{
	const Mspd__FileTable *table = t->image->files;
	size_t i;
	int r;

	r = check_tokens(t);
	for (i = 0; i < t->n; i++)
		t->v[i].file = NULL;
	for (i = 0; !r && i < table->n_files; i++)
		r = match_one(t, table->files[i]);
	if (!r)
		r = drop_unmatched(t);
	if (!r)
		r = remote_flush(&t->r->remote);
	if (!r)
		r = open_all(t);
	if (!r)
		r = place_all(t);
	if (!r)
		r = settle_all(t);
	if (!r)
		r = remote_flush(&t->r->remote);
	return r;
}

int files_prepare(struct restore *r, const Mspd__Image *early)
{
	struct files_target *t;
	size_t i;
	int err;

	if (!early->files)
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->r = r;
	t->image = early;
	r->files = t;
	err = put_back(t);
	/* the caller may free the image */
	for (i = 0; i < t->n; i++) {
		t->v[i].early = copy_of(t->v[i].file);
		if (!t->v[i].early && !err)
			err = -ENOMEM;
		t->v[i].file = NULL;
	}
	t->image = NULL;
	return err;
}

int files_finish(struct restore *r, const Mspd__Image *final)
{
	struct files_target *t = r->files;

	if (!t || !final->files)
		return 0;
	t->image = final;
	t->final = true;
	return put_back(t);
}

static void close_shared(struct files_target *t)
{
	size_t i, j;

	for (i = 0; i < t->nr_shared; i++)
		for (j = 0; j < 2; j++)
			if (t->shared[i].end[j] >= 0)
				close(t->shared[i].end[j]);
	free(t->shared);
	t->shared = NULL;
	t->nr_shared = 0;
}

/*
 * The last step: who listens on a Unix socket shows its credentials to those
 * who connect, so the guest has to do that itself. No copy of a descriptor
 * outlives this, or a pipe's reader would never see its end.
 */
static int files_listen(struct restore *r, const Mspd__Image *final)
{
	struct files_target *t = r->files;
	size_t i;
	int err;

	if (!t || !final->files)
		return 0;
	for (i = 0; i < t->n; i++) {
		struct placed_file *p = &t->v[i];

		if (p->kind != &fd_kind_unix || !p->file->has_backlog)
			continue;
		err = remote_queue(&r->remote, 0, "listen", SYS_listen,
				   p->fds[0].nr, p->file->backlog);
		if (err)
			return err;
	}
	err = remote_flush(&r->remote);
	if (err)
		return restore_fail(r, err, "fd.listen", "Unix sockets",
				    "can't listen: %s", strerror(-err));
	for (i = 0; i < t->n; i++) {
		if (t->v[i].copy >= 0)
			close(t->v[i].copy);
		t->v[i].copy = -1;
		t->v[i].file = NULL;
	}
	close_shared(t);
	return 0;
}

const struct resource resource_listen = {
	.name = "listen",
	.finish = files_listen,
};

void files_done(struct restore *r, bool alive)
{
	struct files_target *t = r->files;
	size_t i;

	if (!t)
		return;
	for (i = 0; i < t->n; i++) {
		if (t->v[i].kind->done)
			t->v[i].kind->done(t, &t->v[i], alive);
		forget(&t->v[i]);
	}
	close_shared(t);
	free(t->token_dev);
	free(t->v);
	free(t);
	r->files = NULL;
}

int files_target_check(const struct restore_options *opt,
		       const Mspd__Image *early, struct findings *f)
{
	struct files_check t = { .f = f, .table = early->files };
	_cleanup_free_ dev_t *devs = NULL;
	size_t i;
	int r;

	(void)opt;
	if (!t.table)
		return 0;
	devs = calloc(t.table->n_tokens + 1, sizeof(*devs));
	if (!devs)
		return -ENOMEM;
	t.token_dev = devs;
	for (i = 0; i < t.table->n_tokens; i++) {
		const Mspd__Token *token = t.table->tokens[i];

		r = fileid_token_check(token->path, token->nonce.data,
				       token->nonce.len, &devs[i]);
		if (r)
			devs[i] = 0;
	}
	for (i = 0; i < t.table->n_files; i++) {
		const Mspd__OpenFile *of = t.table->files[i];
		const struct fd_kind *kind = fd_kind_named(of->kind);
		char object[PATH_MAX + 64];

		if (!kind) {
			finding_add(f, FINDING_ERROR, "fd.kind",
				    file_object(t.table, of, object,
						sizeof(object)),
				    "the target's mspd does not know descriptors of kind \"%s\"; update it",
				    of->kind);
			continue;
		}
		r = kind->check ? kind->check(&t, of) : 0;
		if (r)
			return r;
	}
	return 0;
}
