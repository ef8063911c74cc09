// SPDX-License-Identifier: GPL-2.0
/* A process without its memory: moved by the kinds of resources alone */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "bare.h"
#include "state/remote_stop.h"
#include "state/shell.h"

#define BLOB	0x200000UL
#define SOCK_NR	700

static const struct resource *const kinds[] = {
	&resource_cpu, &resource_census, &resource_files, &resource_fs,
	&resource_limits, &resource_sched, &resource_creds, &resource_listen,
};

/* shared with the guest, which has no descriptor to tell by */
static char *complaint;

void guest_fail(const char *file, int line, const char *cond)
{
	snprintf(complaint, 256, "%s:%d: %s: %s", file, line, cond,
		 strerror(errno));
	_exit(99);
}

static void stopped(struct bare *m)
{
	int status;

	must(waitpid(m->pid, &status, WUNTRACED) == m->pid);
	if (!WIFSTOPPED(status)) {
		printf("Bail out! the guest ended with status %x: %s\n", status,
		       complaint);
		exit(1);
	}
}

static void *make_records(void)
{
	struct vasi_rec_process *p;
	struct vasi_record *rec;

	rec = calloc(1, sizeof(*rec) + sizeof(*p));
	must(rec);
	rec->bytes = sizeof(*rec) + sizeof(*p);
	rec->type = VASI_REC_PROCESS;
	rec->payload = sizeof(*p);
	p = (void *)(rec + 1);
	p->securebits = (uint32_t)prctl(PR_GET_SECUREBITS);
	return rec;
}

void bare_start(struct bare *m, guest_part part, guest_part second)
{
	char path[32];

	*m = (struct bare){ .host_to_guest = m->host_to_guest };
	if (!complaint)
		complaint = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(complaint != MAP_FAILED);
	m->pid = fork();
	must(m->pid >= 0);
	if (!m->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		close_range(0, ~0U, 0);
		part();
		raise(SIGSTOP);
		if (second)
			second();
		raise(SIGSTOP);
		_exit(98);
	}
	stopped(m);
	m->c = (struct capture){ .pid = m->pid, .findings = &m->findings };
	m->c.pidfd = (int)syscall(SYS_pidfd_open, m->pid, 0);
	snprintf(path, sizeof(path), "/proc/%d", m->pid);
	m->c.proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(m->c.pidfd >= 0 && m->c.proc >= 0);
	m->c.records = make_records();
	m->c.records_len = ((struct vasi_record *)m->c.records)->bytes;
}

void bare_second(struct bare *m)
{
	must(!kill(m->pid, SIGCONT));
	stopped(m);
}

size_t bare_check(struct bare *m)
{
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->check) {
			r = kinds[i]->check(&m->c);
			if (r)
				note("check of %s: %s", kinds[i]->name,
				     strerror(-r));
		}
	return m->findings.errors;
}

static int capture(struct bare *m, enum capture_when when, Mspd__Image **ret)
{
	Mspd__Image *img = calloc(1, sizeof(*img));
	size_t i;
	int r = 0;

	must(img);
	*img = (Mspd__Image)MSPD__IMAGE__INIT;
	img->version = 1;
	img->final = m->c.suspended = when == CAPTURE_FINAL;
	for (i = 0; !r && i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->capture) {
			r = kinds[i]->capture(&m->c, when, img);
			if (r)
				note("capture of %s: %s", kinds[i]->name,
				     strerror(-r));
		}
	*ret = img;
	return r;
}

/* over the wire: what the target gets is what was packed */
static void send_image(Mspd__Image **img)
{
	size_t len = mspd__image__get_packed_size(*img);
	uint8_t *buf = malloc(len);

	must(buf);
	mspd__image__pack(*img, buf);
	mspd__image__free_unpacked(*img, NULL);
	*img = mspd__image__unpack(NULL, len, buf);
	must(*img);
	free(buf);
}

int bare_capture_early(struct bare *m)
{
	int r = capture(m, CAPTURE_EARLY, &m->early);

	if (!r)
		send_image(&m->early);
	return r;
}

int bare_capture_final(struct bare *m)
{
	int r = capture(m, CAPTURE_FINAL, &m->final);

	if (!r)
		send_image(&m->final);
	return r;
}

size_t bare_target_check(struct bare *m)
{
	struct restore_options opt = { .name = "test" };
	size_t before = m->findings.errors, i;
	int r;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->target_check) {
			r = kinds[i]->target_check(&opt, m->early,
						   &m->findings);
			if (r)
				note("target check of %s: %s", kinds[i]->name,
				     strerror(-r));
		}
	return m->findings.errors - before;
}

void bare_kill(struct bare *m)
{
	if (!m->pid)
		return;
	kill(m->pid, SIGKILL);
	waitpid(m->pid, NULL, 0);
	m->pid = 0;
}

void bare_build(struct bare *m)
{
	struct restore *r = calloc(1, sizeof(*r));
	struct rlimit nofile;
	struct ns_spec spec = { .pid = 7, .sock_nr = SOCK_NR,
				.monotonic_ns = m->host_to_guest,
				.boottime_ns = m->host_to_guest };
	const char *what = "";
	int pair[2], err;

	must(r);
	r->opt = (struct restore_options){
		.name = "test",
		.timens_monotonic_ns = m->host_to_guest,
		.timens_boottime_ns = m->host_to_guest,
	};
	r->findings = &m->findings;
	r->ns = (struct ns_guest)NS_GUEST_INIT;
	spec.program = shell_memfd(SHELL_GUEST);
	must(spec.program >= 0);
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
	spec.sock = pair[1];
	err = ns_build(&spec, &r->ns, &what);
	if (err) {
		printf("Bail out! ns_build: %s: %s\n", what, strerror(-err));
		exit(1);
	}
	close(spec.program);
	close(pair[1]);
	r->threads = calloc(1, sizeof(*r->threads));
	r->threads[0] = (struct restore_thread){ spec.pid, r->ns.pid };
	r->nr_threads = 1;
	must(!prlimit(r->ns.pid, RLIMIT_NOFILE, NULL, &nofile));
	nofile.rlim_cur = nofile.rlim_max;
	must(!prlimit(r->ns.pid, RLIMIT_NOFILE, &nofile, NULL));
	must(!remote_open(&r->remote, r->ns.pid, pair[0], SOCK_NR));
	must(!remote_block_signals(r->ns.pid));
	must(!remote_map_blob(&r->remote, BLOB));
	m->r = r;
}

int bare_prepare(struct bare *m)
{
	size_t i;
	int r = 0;

	bare_build(m);
	for (i = 0; !r && i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->prepare) {
			r = kinds[i]->prepare(m->r, m->early);
			if (r)
				note("prepare of %s: %s", kinds[i]->name,
				     strerror(-r));
		}
	/* as a session may do */
	mspd__image__free_unpacked(m->early, NULL);
	m->early = NULL;
	return r;
}

int bare_finish(struct bare *m)
{
	size_t i;
	int r = 0;

	/* the source's thread has another number than the shell */
	for (i = 0; i < m->final->n_sched; i++)
		m->final->sched[i]->tid = m->r->threads[0].tid;
	for (i = 0; !r && i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->finish) {
			r = kinds[i]->finish(m->r, m->final);
			if (r)
				note("finish of %s: %s", kinds[i]->name,
				     strerror(-r));
		}
	return r;
}

int bare_all(struct bare *m, guest_part part, guest_part second)
{
	int r;

	bare_start(m, part, second);
	bare_check(m);
	if (m->findings.errors)
		return -EOPNOTSUPP;
	r = bare_capture_early(m);
	if (!r && second)
		bare_second(m);
	if (!r)
		r = bare_capture_final(m);
	if (r)
		return r;
	bare_kill(m);
	if (bare_target_check(m))
		return -EOPNOTSUPP;
	r = bare_prepare(m);
	return r ? r : bare_finish(m);
}

void bare_print(const struct bare *m)
{
	size_t i;

	for (i = 0; i < m->findings.n; i++)
		note("%s %s: %s: %s",
		     m->findings.v[i].level == FINDING_ERROR ? "error" :
		     m->findings.v[i].level == FINDING_WARNING ? "warning" :
		     "pass", m->findings.v[i].check, m->findings.v[i].object,
		     m->findings.v[i].text);
}

static void end_target(struct restore *r)
{
	size_t i;

	if (r->ns.reaper_pidfd >= 0)
		syscall(SYS_pidfd_send_signal, r->ns.reaper_pidfd, SIGKILL,
			NULL, 0);
	waitpid(r->ns.pid, NULL, __WALL);
	ns_kill(&r->ns);
	for (i = ARRAY_SIZE(kinds); i-- > 0;)
		if (kinds[i]->done)
			kinds[i]->done(r, false);
	remote_close(&r->remote);
	free(r->threads);
	free(r);
}

void bare_end(struct bare *m)
{
	size_t i;

	bare_kill(m);
	if (m->r)
		end_target(m->r);
	for (i = ARRAY_SIZE(kinds); i-- > 0;)
		if (kinds[i]->close)
			kinds[i]->close(&m->c);
	mspd__image__free_unpacked(m->early, NULL);
	mspd__image__free_unpacked(m->final, NULL);
	findings_clear(&m->findings);
	close(m->c.pidfd);
	close(m->c.proc);
	free(m->c.records);
	*m = (struct bare){ .r = NULL };
}

int bare_fd(struct bare *m, int fd)
{
	int copy = (int)syscall(SYS_pidfd_getfd, m->r->ns.pidfd, fd, 0);

	return copy < 0 ? -errno : copy;
}

Mspd__FileTable *bare_again(struct bare *m)
{
	struct remote *remote = &m->r->remote;
	struct capture c = m->c;
	Mspd__Image img = MSPD__IMAGE__INIT;
	char path[32];
	int r;

	remote_call(remote, 0, SYS_close, remote->guest_sock);
	c.pid = m->r->ns.pid;
	c.pidfd = m->r->ns.pidfd;
	snprintf(path, sizeof(path), "/proc/%d", c.pid);
	c.proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	c.suspended = true;
	r = resource_files.capture(&c, CAPTURE_FINAL, &img);
	m->c.files = c.files;
	close(c.proc);
	return r ? NULL : img.files;
}

bool bare_found(const struct bare *m, const char *check, const char *object)
{
	size_t i;

	for (i = 0; i < m->findings.n; i++)
		if (m->findings.v[i].level == FINDING_ERROR &&
		    !strcmp(m->findings.v[i].check, check) &&
		    strstr(m->findings.v[i].object, object))
			return true;
	return false;
}
