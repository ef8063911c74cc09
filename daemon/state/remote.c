// SPDX-License-Identifier: GPL-2.0
/*
 * System calls performed by the threads of a guest that is being built
 *
 * Every thread of the guest is in a ptrace stop whenever no function of this
 * file runs. All its signals but SIGTRAP are blocked: a trap with SIGTRAP
 * blocked or ignored would make the kernel reset its disposition, so SIGTRAP's
 * own is set, and the mask, by what needs no trap (guest_leave()).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <elf.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/remote_stop.h"
#include "state/shell.h"

struct remote_queued {
	pid_t tid;
	const char *what;
	bool may_fail;
	struct remote_call call;
};

/* a call that the guest makes for itself: no file system takes so long */
#define WAIT_S		30

/* layout of the blob: code, table of calls, scratch */
#define PAGE		4096
#define TABLE_OFFSET	PAGE
#define TABLE_ENTRIES	(4 * PAGE / sizeof(struct remote_call))
#define SCRATCH_OFFSET	(5 * PAGE)
#define SCRATCH_BYTES	(REMOTE_BLOB_BYTES - SCRATCH_OFFSET)

_Static_assert(sizeof(struct remote_call) == 64, "the code knows this layout");

static pid_t tid_or_leader(const struct remote *r, pid_t tid)
{
	return tid ? tid : r->leader;
}

/* does nothing but end a wait */
static void on_timer(int sig)
{
	(void)sig;
}

static int timer_open(struct remote *r)
{
	struct sigaction act = { .sa_handler = on_timer };
	struct sigevent ev = {
		.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN,
		._sigev_un._tid = gettid(),
	};

	if (sigaction(SIGRTMIN, &act, NULL) ||
	    timer_create(CLOCK_MONOTONIC, &ev, &r->timer))
		return -errno;
	r->timed = true;
	return 0;
}

int remote_wait(struct remote *r, pid_t tid, int *ret_status)
{
	/* again and again: the first may come before the wait begins */
	const struct itimerspec limit = {
		.it_value.tv_sec = WAIT_S, .it_interval.tv_sec = 1,
	}, none = {};
	const int64_t begin = now_ns();
	int err = 0;

	timer_settime(r->timer, 0, &limit, NULL);
	if (waitpid(tid, ret_status, __WALL | __WNOTHREAD) < 0)
		err = errno;
	timer_settime(r->timer, 0, &none, NULL);
	r->stops++;
	/* a signal that is not the timer's wants an end, too */
	if (err == EINTR && now_ns() - begin >= WAIT_S * NSEC_PER_SEC)
		return -ETIMEDOUT;
	if (err)
		return err == ECHILD ? -ESRCH : -err;
	return WIFSTOPPED(*ret_status) ? 0 : -ESRCH;
}

int remote_get_regs(pid_t tid, struct user_regs_struct *ret)
{
	return ptrace(PTRACE_GETREGS, tid, 0, ret) ? -errno : 0;
}

int remote_set_regs(pid_t tid, const struct user_regs_struct *regs)
{
	return ptrace(PTRACE_SETREGS, tid, 0, regs) ? -errno : 0;
}

/*
 * Goes on to the trap behind the remote code. Stops for other signals cannot
 * be: all are blocked. A fault in the code (the blob was unmapped) can.
 */
static int run_to_trap(struct remote *r, pid_t tid)
{
	int status, err;

	if (ptrace(PTRACE_CONT, tid, 0, 0))
		return errno == ESRCH ? -ESRCH : -errno;
	err = remote_wait(r, tid, &status);
	if (err)
		return err;
	if (status >> 8 != SIGTRAP)
		return WSTOPSIG(status) == SIGSEGV ? -EFAULT : -EPROTO;
	return 0;
}

void remote_call_regs(const struct remote *r, struct user_regs_struct *regs,
		      long nr, const uint64_t *arg)
{
	regs->rax = (unsigned long)nr;
	regs->orig_rax = -1UL;
	regs->rdi = arg[0];
	regs->rsi = arg[1];
	regs->rdx = arg[2];
	regs->r10 = arg[3];
	regs->r8 = arg[4];
	regs->r9 = arg[5];
	regs->rip = r->code;
}

long remote_syscall(struct remote *r, pid_t tid, long nr, const uint64_t *arg)
{
	struct user_regs_struct regs;
	int err;

	tid = tid_or_leader(r, tid);
	err = remote_get_regs(tid, &regs);
	if (err)
		return err;
	remote_call_regs(r, &regs, nr, arg);
	err = remote_set_regs(tid, &regs);
	if (err)
		return err;
	err = run_to_trap(r, tid);
	if (err)
		return err;
	err = remote_get_regs(tid, &regs);
	return err ? err : (long)regs.rax;
}

static int run_table(struct remote *r, pid_t tid, size_t n)
{
	struct user_regs_struct regs;
	int err;

	err = remote_get_regs(tid, &regs);
	if (err)
		return err;
	regs.rip = r->code + remote_code_table;
	regs.r12 = r->base + TABLE_OFFSET;
	regs.r13 = n;
	regs.orig_rax = -1UL;
	err = remote_set_regs(tid, &regs);
	if (err)
		return err;
	return run_to_trap(r, tid);
}

int remote_batch(struct remote *r, pid_t tid, struct remote_call *calls,
		 size_t n)
{
	void *table = r->local + TABLE_OFFSET;

	tid = tid_or_leader(r, tid);
	while (n) {
		size_t part = n < TABLE_ENTRIES ? n : TABLE_ENTRIES;
		int err;

		memcpy(table, calls, part * sizeof(*calls));
		err = run_table(r, tid, part);
		if (err)
			return err;
		memcpy(calls, table, part * sizeof(*calls));
		calls += part;
		n -= part;
	}
	return 0;
}

int remote_queue_call(struct remote *r, pid_t tid, const char *what,
		      bool may_fail, long nr, const uint64_t *arg)
{
	struct remote_queued *q;

	/* grows by powers of two */
	if (!(r->nr_queue & (r->nr_queue - 1))) {
		size_t room = r->nr_queue ? 2 * r->nr_queue : 1;

		q = reallocarray(r->queue, room, sizeof(*q));
		if (!q)
			return -ENOMEM;
		r->queue = q;
	}
	q = &r->queue[r->nr_queue++];
	*q = (struct remote_queued){
		.tid = tid_or_leader(r, tid), .what = what,
		.may_fail = may_fail, .call.nr = (uint64_t)nr,
	};
	memcpy(q->call.arg, arg, sizeof(q->call.arg));
	return 0;
}

/* all calls of the thread that queued entry @first, and of no other */
static int flush_thread(struct remote *r, size_t first)
{
	const pid_t tid = r->queue[first].tid;
	_cleanup_free_ struct remote_call *calls = NULL;
	size_t i, n = 0;
	int err;

	calls = calloc(r->nr_queue - first, sizeof(*calls));
	if (!calls)
		return -ENOMEM;
	for (i = first; i < r->nr_queue; i++)
		if (r->queue[i].tid == tid)
			calls[n++] = r->queue[i].call;
	err = remote_batch(r, tid, calls, n);
	if (err) {
		r->failed = r->queue[first].what;
		return err;
	}
	for (i = first, n = 0; i < r->nr_queue; i++) {
		if (r->queue[i].tid != tid)
			continue;
		if (calls[n].ret < 0 && !r->queue[i].may_fail) {
			r->failed = r->queue[i].what;
			return (int)calls[n].ret;
		}
		r->queue[i].tid = 0;
		n++;
	}
	return 0;
}

int remote_flush(struct remote *r)
{
	size_t i;
	int err = 0;

	for (i = 0; i < r->nr_queue && !err; i++)
		if (r->queue[i].tid)
			err = flush_thread(r, i);
	free(r->queue);
	r->queue = NULL;
	r->nr_queue = 0;
	r->used = 0;
	return err;
}

void *remote_alloc(struct remote *r, size_t len, uint64_t *ret_addr)
{
	uint8_t *p;

	len = (len + 15) & ~15UL;
	if (len > SCRATCH_BYTES - r->used)
		return NULL;
	p = r->local + SCRATCH_OFFSET + r->used;
	*ret_addr = r->base + SCRATCH_OFFSET + r->used;
	r->used += len;
	return memset(p, 0, len);
}

uint64_t remote_copy(struct remote *r, const void *data, size_t len)
{
	uint64_t addr;
	void *p = remote_alloc(r, len, &addr);

	if (!p)
		return 0;
	memcpy(p, data, len);
	return addr;
}

void remote_reset(struct remote *r)
{
	if (!r->nr_queue)
		r->used = 0;
}

int remote_send_fds(struct remote *r, const int *fds, size_t n, int *ret_nrs)
{
	char control[CMSG_SPACE(REMOTE_MAX_FDS * sizeof(int))]
		__attribute__((aligned(8))) = {};
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *c = (struct cmsghdr *)control;
	struct {
		struct msghdr mh;
		struct iovec iov;
		char byte[8];
	} *in;
	struct cmsghdr *in_control;
	uint64_t in_addr, control_addr;
	size_t used = r->used;
	long got;
	int err = 0;

	if (!n)
		return 0;
	if (n > REMOTE_MAX_FDS)
		return -E2BIG;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	if (sendmsg(r->sock, &mh, MSG_NOSIGNAL) < 0)
		return -errno;

	in = remote_alloc(r, sizeof(*in), &in_addr);
	in_control = remote_alloc(r, sizeof(control), &control_addr);
	if (!in || !in_control)
		return -ENOBUFS;
	in->iov.iov_base = (void *)(in_addr + offsetof(__typeof__(*in), byte));
	in->iov.iov_len = 1;
	in->mh.msg_iov = (void *)(in_addr + offsetof(__typeof__(*in), iov));
	in->mh.msg_iovlen = 1;
	in->mh.msg_control = (void *)control_addr;
	in->mh.msg_controllen = CMSG_SPACE(n * sizeof(int));
	got = remote_call(r, 0, __NR_recvmsg, r->guest_sock, in_addr,
			  MSG_CMSG_CLOEXEC);
	if (got < 0)
		err = (int)got;
	else if (in_control->cmsg_len != c->cmsg_len)
		err = -EMFILE;	/* the rest was dropped: limit of the guest */
	else
		memcpy(ret_nrs, CMSG_DATA(in_control), n * sizeof(int));
	r->used = used;
	return err;
}

static int check_calls(const struct remote_call *calls, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (calls[i].ret < 0)
			return (int)calls[i].ret;
	return 0;
}

int remote_yield_nr(struct remote *r, int nr)
{
	struct remote_call calls[2] = {};
	int err;

	if (nr != r->guest_sock)
		return 0;
	calls[0].nr = __NR_fcntl;
	calls[0].arg[0] = (uint64_t)r->guest_sock;
	calls[0].arg[1] = F_DUPFD;
	calls[0].arg[2] = (uint64_t)r->guest_sock + 1;
	calls[1].nr = __NR_close;
	calls[1].arg[0] = (uint64_t)r->guest_sock;
	err = remote_batch(r, 0, calls, ARRAY_SIZE(calls));
	if (!err)
		err = check_calls(calls, ARRAY_SIZE(calls));
	if (!err)
		r->guest_sock = (int)calls[0].ret;
	return err;
}

/* moves descriptors that landed on numbers others shall get out of the way */
static int move_aside(struct remote *r, const struct remote_fd *v, int *nrs,
		      size_t n)
{
	struct remote_call calls[REMOTE_MAX_FDS];
	size_t index[REMOTE_MAX_FDS], i, j, m = 0;
	int above = r->guest_sock, err;

	for (i = 0; i < n; i++)
		if (v[i].nr > above)
			above = v[i].nr;
	for (i = 0; i < n; i++) {
		bool wanted = false;

		for (j = 0; j < n; j++)
			wanted |= j != i && v[j].nr == nrs[i];
		if (!wanted || v[i].nr == nrs[i])
			continue;
		calls[m] = (struct remote_call){
			.nr = __NR_fcntl,
			.arg = { (uint64_t)nrs[i], F_DUPFD_CLOEXEC,
				 (uint64_t)above + 1 },
		};
		index[m++] = i;
	}
	if (!m)
		return 0;
	err = remote_batch(r, 0, calls, m);
	if (!err)
		err = check_calls(calls, m);
	/* what they leave behind is replaced by the descriptor that goes there */
	for (i = 0; i < m && !err; i++)
		nrs[index[i]] = (int)calls[i].ret;
	return err;
}

static int place_part(struct remote *r, const struct remote_fd *v, size_t n)
{
	struct remote_call calls[2 * REMOTE_MAX_FDS];
	int fds[REMOTE_MAX_FDS], nrs[REMOTE_MAX_FDS];
	size_t i, m = 0;
	int err;

	for (i = 0; i < n; i++) {
		fds[i] = v[i].fd;
		err = remote_yield_nr(r, v[i].nr);
		if (err)
			return err;
	}
	err = remote_send_fds(r, fds, n, nrs);
	if (err)
		return err;
	err = move_aside(r, v, nrs, n);
	if (err)
		return err;
	for (i = 0; i < n; i++) {
		if (nrs[i] == v[i].nr) {
			if (!v[i].cloexec)
				calls[m++] = (struct remote_call){
					.nr = __NR_fcntl,
					.arg = { (uint64_t)nrs[i], F_SETFD, 0 },
				};
			continue;
		}
		calls[m++] = (struct remote_call){
			.nr = __NR_dup3,
			.arg = { (uint64_t)nrs[i], (uint64_t)v[i].nr,
				 v[i].cloexec ? O_CLOEXEC : 0 },
		};
		calls[m++] = (struct remote_call){
			.nr = __NR_close, .arg = { (uint64_t)nrs[i] },
		};
	}
	if (!m)
		return 0;
	err = remote_batch(r, 0, calls, m);
	return err ? err : check_calls(calls, m);
}

int remote_place_fds(struct remote *r, const struct remote_fd *v, size_t n)
{
	while (n) {
		size_t part = n < REMOTE_MAX_FDS ? n : REMOTE_MAX_FDS;
		int err = place_part(r, v, part);

		if (err)
			return err;
		v += part;
		n -= part;
	}
	return 0;
}

int remote_open(struct remote *r, pid_t leader, int sock, int guest_sock)
{
	_cleanup_close_ int fd = -1;
	void *p;
	int err;

	*r = (struct remote){ .leader = leader, .blob = -1, .sock = sock,
			      .guest_sock = guest_sock,
			      .code = SHELL_ADDR + SHELL_CODE };
	err = timer_open(r);
	if (err)
		return err;
	fd = memfd_create("mspd-blob", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, REMOTE_BLOB_BYTES))
		return -errno;
	p = mmap(NULL, REMOTE_BLOB_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		 fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	remote_code_copy(p);
	r->local = p;
	r->blob = steal_fd(&fd);
	return 0;
}

void remote_close(struct remote *r)
{
	if (r->timed)
		timer_delete(r->timer);
	if (r->local)
		munmap(r->local, REMOTE_BLOB_BYTES);
	if (r->blob >= 0)
		close(r->blob);
	if (r->sock >= 0)
		close(r->sock);
	free(r->queue);
	*r = (struct remote){ .blob = -1, .sock = -1 };
}

int remote_block_signals(pid_t tid)
{
	uint64_t mask = ~(1ULL << (SIGTRAP - 1));

	return ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) ? -errno : 0;
}

/*
 * The first time the socket has to be read without scratch memory: the message
 * header is on the stack that exec gave the process.
 */
static int send_blob_first(struct remote *r)
{
	struct {
		struct msghdr mh;
		struct iovec iov;
		char byte[8];
		struct cmsghdr hdr;
		int fd;
	} in = {};
	struct iovec local = { &in, sizeof(in) }, remote;
	char control[CMSG_SPACE(sizeof(int))]
		__attribute__((aligned(8))) = {};
	struct iovec out_iov = { control, 1 };
	struct msghdr mh = {
		.msg_iov = &out_iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = (struct cmsghdr *)control;
	struct user_regs_struct regs;
	uint64_t at;
	long got;
	int err;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &r->blob, sizeof(int));
	if (sendmsg(r->sock, &mh, MSG_NOSIGNAL) < 0)
		return -errno;

	err = remote_get_regs(r->leader, &regs);
	if (err)
		return err;
	at = (regs.rsp - sizeof(in) - 256) & ~15UL;
	in.iov = (struct iovec){ (void *)(at + offsetof(__typeof__(in), byte)),
				 1 };
	in.mh.msg_iov = (void *)(at + offsetof(__typeof__(in), iov));
	in.mh.msg_iovlen = 1;
	in.mh.msg_control = (void *)(at + offsetof(__typeof__(in), hdr));
	in.mh.msg_controllen = CMSG_SPACE(sizeof(int));
	remote = (struct iovec){ (void *)at, sizeof(in) };
	if (process_vm_writev(r->leader, &local, 1, &remote, 1, 0) !=
	    sizeof(in))
		return -errno;
	got = remote_call(r, 0, __NR_recvmsg, r->guest_sock, at,
			  MSG_CMSG_CLOEXEC);
	if (got < 0)
		return (int)got;
	if (process_vm_readv(r->leader, &local, 1, &remote, 1, 0) !=
	    sizeof(in))
		return -errno;
	return in.hdr.cmsg_len == CMSG_LEN(sizeof(int)) ? in.fd : -EPROTO;
}

int remote_map_blob(struct remote *r, uint64_t addr)
{
	long got;
	int nr, err;

	if (r->base) {
		err = remote_send_fds(r, &r->blob, 1, &nr);
		if (err)
			return err;
	} else {
		nr = send_blob_first(r);
		if (nr < 0)
			return nr;
	}
	got = remote_call(r, 0, __NR_mmap, addr, REMOTE_BLOB_BYTES,
			  PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_SHARED | MAP_FIXED_NOREPLACE, nr, 0);
	if (got < 0)
		return (int)got;
	if ((uint64_t)got != addr) {
		remote_call(r, 0, __NR_munmap, got, REMOTE_BLOB_BYTES);
		return -EEXIST;
	}
	got = remote_call(r, 0, __NR_close, nr);
	if (got < 0)
		return (int)got;
	if (r->base) {
		uint64_t old = r->base;

		r->code = addr;
		r->base = addr;
		got = remote_call(r, 0, __NR_munmap, old, REMOTE_BLOB_BYTES);
		return got < 0 ? (int)got : 0;
	}
	r->base = addr;
	r->code = addr;
	return 0;
}

long remote_last(struct remote *r, pid_t tid, long nr, const uint64_t *arg)
{
	struct user_regs_struct regs;
	int status, stops = 0, err;

	tid = tid_or_leader(r, tid);
	err = remote_get_regs(tid, &regs);
	if (err)
		return err;
	remote_call_regs(r, &regs, nr, arg);
	err = remote_set_regs(tid, &regs);
	if (err)
		return err;
	while (stops < 2) {
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0))
			return -errno;
		err = remote_wait(r, tid, &status);
		if (err)
			return err;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			stops++;
		else if (status >> 16 != PTRACE_EVENT_STOP)
			return -EPROTO;	/* not the rest of an interrupt */
	}
	err = remote_get_regs(tid, &regs);
	return err ? err : (long)regs.rax;
}
