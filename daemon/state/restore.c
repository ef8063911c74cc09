// SPDX-License-Identifier: GPL-2.0
/*
 * The target's side: a process that becomes the guest
 *
 * Until restore_park() the calling thread holds all threads under ptrace with
 * EXITKILL: if it dies, so does what was built. From then on the module holds
 * them, sealed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "log.h"
#include "state/maps.h"
#include "state/process.h"
#include "state/procfile.h"
#include "state/remote_stop.h"
#include "state/shell.h"

#define BLOB_LOWEST	0x20000UL	/* above mmap_min_addr and the shell */
#define SOCK_NR_ABOVE	64		/* of the highest descriptor */
#define NOFILE_ABOVE	4096	/* the socket, for descriptors on their way */
#define REAP_TRIES	2000
#define DESTROY_MS	5000
/* more than a guest has; what is done for each pair stays bearable */
#define THREADS_MAX	32768
#define VMAS_MAX	(1U << 20)
#define FILES_MAX	(1U << 20)

int restore_fail(struct restore *r, int err, const char *check,
		 const char *object, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	finding_add(r->findings, FINDING_ERROR, check, object, "%s",
		    text ? text : "");
	return err;
}

int64_t restore_elapsed_ns(const struct restore *r, const Mspd__Process *p)
{
	const int64_t now = clock_ns(CLOCK_MONOTONIC) +
			    r->opt.timens_monotonic_ns;
	const int64_t elapsed = now - p->clock_monotonic_ns;

	return elapsed > 0 ? elapsed : 0;
}

static int by_tid(const void *a, const void *b)
{
	const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* an image from the network: what all kinds take for granted */
static int image_valid(const Mspd__Image *img)
{
	_cleanup_free_ int32_t *tids = NULL;
	bool leader = false;
	size_t i;

	if (img->version != 1 || !img->process || !img->maps ||
	    !img->n_threads || img->n_threads > THREADS_MAX ||
	    img->maps->n_vmas > VMAS_MAX ||
	    (img->files && (img->files->n_files > FILES_MAX ||
			    img->files->n_fds > FILES_MAX)) ||
	    img->process->pid < 2 || maps_valid(img->maps, USER_TOP))
		return -EPROTO;
	tids = calloc(img->n_threads, sizeof(*tids));
	if (!tids)
		return -ENOMEM;
	for (i = 0; i < img->n_threads; i++) {
		tids[i] = img->threads[i]->tid;
		if (tids[i] < 2)
			return -EPROTO;
		leader |= tids[i] == img->process->pid;
	}
	qsort(tids, img->n_threads, sizeof(*tids), by_tid);
	for (i = 1; i < img->n_threads; i++)
		if (tids[i] == tids[i - 1])
			return -EPROTO;
	return leader ? 0 : -EPROTO;
}

int restore_check(const struct restore_options *opt, const Mspd__Image *early,
		  struct findings *f)
{
	size_t i;
	int err;

	err = image_valid(early);
	if (err) {
		finding_add(f, FINDING_ERROR, "image", "",
			    "the description of the guest is not whole");
		return err;
	}
	for (i = 0; i < nr_resources && !err; i++)
		if (resources[i]->target_check)
			err = resources[i]->target_check(opt, early, f);
	return err;
}

/* the mappings that exec made, kernel's parts named */
static int shell_maps(pid_t pid, Mspd__Maps *ret)
{
	static const struct { const char *name; enum vma_special what; } names[] = {
		{ "[vdso]", VMA_VDSO }, { "[vvar]", VMA_VVAR },
		{ "[vvar_vclock]", VMA_VVAR_VCLOCK },
	};
	_cleanup_close_ int dir = -1;
	struct map_text t;
	char path[32], *text;
	size_t i, j;
	int err;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	err = procfile_read(dir, "maps", &text, NULL);
	if (!err)
		err = map_text_parse(&t, text);
	if (err)
		return err;
	ret->vmas = calloc(t.n, sizeof(*ret->vmas));
	for (i = 0; i < t.n && ret->vmas; i++) {
		Mspd__Vma *vma;

		if (t.v[i].start >= USER_TOP)
			continue;
		vma = malloc(sizeof(*vma));
		if (!vma)
			break;
		mspd__vma__init(vma);
		vma->start = t.v[i].start;
		vma->end = t.v[i].end;
		for (j = 0; j < ARRAY_SIZE(names); j++)
			if (!strcmp(t.v[i].name, names[j].name))
				vma->special = names[j].what;
		ret->vmas[ret->n_vmas++] = vma;
	}
	err = i < t.n ? -ENOMEM : 0;
	map_text_free(&t);
	return err;
}

/* leaves the process without anything but the blob and the vDSO in place */
static int empty_shell(struct restore *r, const Mspd__Image *early)
{
	Mspd__Maps *shell = malloc(sizeof(*shell));
	const Mspd__Maps *lists[2];
	uint64_t blob;
	size_t i;
	long got;
	int err;

	if (!shell)
		return -ENOMEM;
	mspd__maps__init(shell);
	err = shell_maps(r->ns.pid, shell);
	if (err)
		goto out;
	lists[0] = early->maps;
	lists[1] = shell;
	err = -ENOMEM;
	blob = maps_hole(lists, ARRAY_SIZE(lists), BLOB_LOWEST,
			 REMOTE_BLOB_BYTES);
	if (!blob)
		goto out;
	err = remote_map_blob(&r->remote, blob);
	for (i = 0; i < shell->n_vmas && !err; i++) {
		const Mspd__Vma *vma = shell->vmas[i];

		if (vma_is_kernels(vma))
			continue;
		got = remote_call(&r->remote, 0, __NR_munmap, vma->start,
				  vma->end - vma->start);
		err = got < 0 ? (int)got : 0;
	}
	if (!err)
		err = vdso_place(r, early, shell);
out:
	maps_free(shell);
	return err;
}

/* number for the socket: the guest's descriptors grow from below */
static int socket_number(const Mspd__Image *early)
{
	int above = 0;
	size_t i;

	for (i = 0; early->files && i < early->files->n_fds; i++)
		if (early->files->fds[i]->fd > above)
			above = early->files->fds[i]->fd;
	return above + SOCK_NR_ABOVE;
}

static int raise_nofile(pid_t pid, rlim_t want)
{
	struct rlimit nofile;

	if (prlimit(pid, RLIMIT_NOFILE, NULL, &nofile))
		return -errno;
	if (nofile.rlim_cur >= want)
		return 0;
	nofile.rlim_cur = want;
	if (nofile.rlim_max < want)
		nofile.rlim_max = want;
	return prlimit(pid, RLIMIT_NOFILE, &nofile, NULL) ? -errno : 0;
}

static int build_shell(struct restore *r, const Mspd__Image *early)
{
	_cleanup_close_ int program = -1, ours = -1, theirs = -1;
	struct ns_spec spec = {
		.pid = early->process->pid,
		.monotonic_ns = r->opt.timens_monotonic_ns,
		.boottime_ns = r->opt.timens_boottime_ns,
		.cgroup = r->opt.cgroup,
		.sock_nr = socket_number(early),
	};
	const char *what = "";
	int pair[2], err;

	program = shell_memfd(SHELL_GUEST);
	if (program < 0)
		return program;
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	spec.program = program;
	spec.sock = theirs;
	err = ns_build(&spec, &r->ns, &what);
	if (err)
		return restore_fail(r, err, "process.make", r->opt.name,
				    "cannot make the process (%s): %s", what,
				    strerror(-err));
	r->traced = true;
	r->threads = malloc(sizeof(*r->threads));
	if (!r->threads)
		return -ENOMEM;
	r->threads[0] = (struct restore_thread){ spec.pid, r->ns.pid };
	r->nr_threads = 1;
	err = raise_nofile(r->ns.pid, (rlim_t)spec.sock_nr + NOFILE_ABOVE);
	if (err)
		return err;
	err = remote_open(&r->remote, r->ns.pid, ours, spec.sock_nr);
	if (err)
		return err;
	steal_fd(&ours);
	err = remote_block_signals(r->ns.pid);
	return err ? err : empty_shell(r, early);
}

/* what has no better explanation yet */
static int explain(struct restore *r, size_t errors, const char *kind, int err)
{
	if (!err || r->findings->errors != errors)
		return err;
	return restore_fail(r, err, kind, r->remote.failed ? r->remote.failed :
			    "", "failed: %s", strerror(-err));
}

int restore_prepare(struct restore **ret, const struct restore_options *opt,
		    const Mspd__Image *early, struct findings *f)
{
	struct restore *r;
	size_t i, errors = f->errors;
	int err;

	err = image_valid(early);
	if (err)
		return err;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct restore){
		.opt = *opt, .findings = f, .ns = NS_GUEST_INIT,
		.remote = { .blob = -1, .sock = -1 }, .fill = -1,
	};
	err = explain(r, errors, "process.make", build_shell(r, early));
	for (i = 0; i < nr_resources && !err; i++)
		if (resources[i]->prepare)
			err = explain(r, errors, resources[i]->name,
				      resources[i]->prepare(r, early));
	if (!err) {
		err = remote_flush(&r->remote);
		err = explain(r, errors, "prepare", err);
	}
	/* an exec would abort a stream that was opened before it */
	if (!err)
		err = explain(r, errors, "attach",
			      opt->access->attach(&r->guest, r->ns.pid,
						  VASI_SERVICE_TARGET,
						  opt->stream_id));
	if (err) {
		restore_abort(r);
		return err;
	}
	*ret = r;
	return 0;
}

struct guest *restore_guest(struct restore *r)
{
	return r->guest;
}

pid_t restore_pid(const struct restore *r)
{
	return r->ns.pid;
}

/* where the time of the pause goes */
static int64_t took(const char *what, int64_t since)
{
	const int64_t now = now_ns();

	log_debug("finished %s in %.1f ms", what,
		  (double)(now - since) / NSEC_PER_MSEC);
	return now;
}

int restore_finish(struct restore *r, const Mspd__Image *final)
{
	const size_t errors = r->findings->errors;
	int64_t since;
	size_t i;
	int err;

	err = image_valid(final);
	if (err || final->process->pid != r->threads[0].tid)
		return restore_fail(r, -EPROTO, "image", "",
				    "the description of the guest is not whole");
	restore_fill_end(r);
	since = now_ns();
	for (i = 0; i < nr_resources && !err; i++) {
		if (!resources[i]->finish)
			continue;
		err = explain(r, errors, resources[i]->name,
			      resources[i]->finish(r, final));
		since = took(resources[i]->name, since);
	}
	if (!err)
		err = mm_leave(r, final);
	if (!err)
		err = threads_after_creds(r, final);
	if (!err)
		err = remote_queue(&r->remote, 0, "close", __NR_close,
				   r->remote.guest_sock);
	if (!err)
		err = remote_flush(&r->remote);
	if (!err)
		err = threads_leave(r, final);
	took("what is last", since);
	return explain(r, errors, "finish", err);
}

static int detach_all(struct restore *r)
{
	size_t i;

	for (i = 0; i < r->nr_threads; i++)
		if (ptrace(PTRACE_DETACH, r->threads[i].host_tid, 0, 0))
			return -errno;
	r->traced = false;
	return 0;
}

int restore_park(struct restore *r, unsigned int deadline_ms)
{
	const struct guest_access *access = r->guest->access;
	const char *what = "suspend";
	struct guest_holdup holdup = {};
	char object[48];
	int err;

	err = access->suspend(r->guest, deadline_ms, 0, &holdup);
	if (!err) {
		what = "seal";
		err = access->seal(r->guest);
	}
	r->sealed = !err;
	if (!err) {
		what = "detach";
		err = detach_all(r);
	}
	if (!err) {
		what = "park";
		err = access->suspend(r->guest, deadline_ms, 1, &holdup);
	}
	if (!err)
		return 0;
	snprintf(object, sizeof(object), "thread %d (%s)", holdup.tid,
		 holdup.comm);
	return restore_fail(r, err, "park", holdup.tid ? object : "",
			    "%s: %s", what, strerror(-err));
}

/* a dead tracee stays until its tracer has seen it, threads before leader */
static void reap(struct restore *r)
{
	int tries;

	for (tries = 0; r->nr_threads && tries < REAP_TRIES; tries++) {
		const pid_t host = r->threads[r->nr_threads - 1].host_tid;
		pid_t n = waitpid(host, NULL, __WALL | __WNOTHREAD | WNOHANG);

		if (n == host || (n < 0 && errno == ECHILD))
			r->nr_threads--;
		else if (!n)
			sleep_ms(1);
	}
}

static void end(struct restore *r, bool alive)
{
	size_t i;

	for (i = nr_resources; i-- > 0;)
		if (resources[i]->done)
			resources[i]->done(r, alive);
	cleanup_close(&r->fill);
	remote_close(&r->remote);
	for (i = 0; i < r->nr_objects; i++)
		close(r->objects[i].fd);
	free(r->objects);
	free(r->threads);
	maps_free(r->maps);
	free(r);
}

void restore_abort(struct restore *r)
{
	if (!r)
		return;
	/* else the module would keep what is sealed, though it is dead */
	if (r->sealed)
		r->guest->access->destroy(r->guest, DESTROY_MS);
	if (r->ns.reaper_pidfd >= 0)
		syscall(__NR_pidfd_send_signal, r->ns.reaper_pidfd, SIGKILL,
			NULL, 0);
	if (r->traced)
		reap(r);
	ns_kill(&r->ns);
	if (r->guest)
		r->guest->access->close(r->guest);
	if (r->opt.cgroup)
		ns_cgroup_remove(r->opt.cgroup);
	end(r, false);
}

void restore_release(struct restore *r)
{
	if (!r)
		return;
	ns_release(&r->ns);
	r->guest->access->close(r->guest);
	end(r, true);
}
