// SPDX-License-Identifier: GPL-2.0
/*
 * Each held resource that makes a guest unmovable shows as its bit, and a guest
 * without any shows none
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/io.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/user.h>

#include "vasi_test.h"

static struct page {
	int ready;
	int skip;
	pid_t child;
} *page;

static void skip_unless(bool possible)
{
	if (!possible)
		page->skip = 1;
}

static void hold_nothing(void)
{
}

static void hold_posix_timer(void)
{
	timer_t t;

	must(!timer_create(CLOCK_MONOTONIC, NULL, &t));
}

static void hold_io_uring(void)
{
	static struct io_uring ring;

	must(!io_uring_queue_init(4, &ring, 0));
	io_uring_prep_nop(io_uring_get_sqe(&ring));
	must(io_uring_submit(&ring) == 1);
}

static void hold_past_io_uring(void)
{
	struct io_uring ring;

	must(!io_uring_queue_init(4, &ring, 0));
	io_uring_queue_exit(&ring);
	/* the ring goes in the background */
	sleep_ms(500);
}

static void hold_aio(void)
{
	aio_context_t ctx = 0;

	must(!syscall(SYS_io_setup, 8, &ctx));
}

static void hold_perf(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_TASK_CLOCK,
	};

	must(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) >= 0);
}

static void hold_ldt(void)
{
	struct user_desc d = {
		.base_addr = 0x1000,
		.limit = 1,
		.seg_32bit = 1,
	};

	must(!syscall(SYS_modify_ldt, 1, &d, sizeof(d)));
}

static void hold_pkey(void)
{
	skip_unless(pkey_alloc(0, 0) >= 0);
}

/* the lowest one is free again */
static void hold_second_pkey(void)
{
	int first = pkey_alloc(0, 0), second = pkey_alloc(0, 3);

	skip_unless(first >= 0);
	if (page->skip)
		return;
	must(second > first && !pkey_free(first));
}

static void hold_past_pkey(void)
{
	int key = pkey_alloc(0, 0);

	skip_unless(key >= 0);
	must(page->skip || !pkey_free(key));
}

static void hold_execute_only(void)
{
	hold_past_pkey();
	must(mmap(NULL, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	     MAP_FAILED);
}

static void hold_amx(void)
{
	skip_unless(!syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, 18));
}

static void hold_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(fd >= 0 && !ioctl(fd, UFFDIO_API, &api));
	reg.range.start = (uintptr_t)p;
	reg.range.len = 4096;
	must(!ioctl(fd, UFFDIO_REGISTER, &reg));
}

static void hold_seccomp(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = { 1, &allow };

	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static int idle(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
	return 0;
}

static void clone_with(int flags)
{
	char *stack = malloc(65536);

	page->child = clone(idle, stack + 65536, flags | SIGCHLD, NULL);
	must(page->child > 0);
}

static void hold_mm_shared(void)
{
	clone_with(CLONE_VM);
}

static void hold_files_shared(void)
{
	clone_with(CLONE_FILES);
}

static void hold_fs_shared(void)
{
	clone_with(CLONE_FS);
}

static void *own_tables(void *arg)
{
	(void)arg;
	must(!unshare(CLONE_FILES | CLONE_FS));
	page->ready = 1;
	for (;;)
		pause();
	return NULL;
}

static void hold_tables_apart(void)
{
	pthread_t t;

	must(!pthread_create(&t, NULL, own_tables, NULL));
	must(wait_until(page->ready));
}

static void hold_child(void)
{
	clone_with(0);
}

static void hold_zombie(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	must(wait_until(thread_state(pid, pid) == 'Z'));
}

static void hold_undo(void)
{
	struct sembuf op = { 0, 1, SEM_UNDO };
	int id = semget(IPC_PRIVATE, 1, 0600);

	must(id >= 0 && !semop(id, &op, 1));
}

static void hold_keyring(void)
{
	must(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID,
		     KEY_SPEC_THREAD_KEYRING, 1) >= 0);
}

static void hold_ioports(void)
{
	must(!ioperm(0x80, 1, 1));
}

static void *other_creds(void *arg)
{
	(void)arg;
	/* the raw call: of this thread only */
	must(!syscall(SYS_setresuid, 1000, 1000, 1000));
	page->ready = 1;
	for (;;)
		pause();
	return NULL;
}

static void hold_creds(void)
{
	pthread_t t;

	must(!pthread_create(&t, NULL, other_creds, NULL));
	must(wait_until(page->ready));
}

static void *idle_thread(void *arg)
{
	idle(arg);
	return NULL;
}

/* each thread has a copy of its own, and they are equal */
static void hold_same_creds(void)
{
	pthread_t t;

	must(!pthread_create(&t, NULL, idle_thread, NULL));
	must(!setgid(getgid()) && !setuid(getuid()));
}

static void hold_dispatch(void)
{
	static char selector;

	must(!prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector));
}

static int probed(int x)
{
	asm volatile("" : "+r" (x));
	return x + 1;
}

/* a probe of the whole system, so that no event counts for the guest alone */
static void hold_uprobe(void)
{
	struct perf_event_attr attr = { .size = sizeof(attr) };
	unsigned long begin, offset, at = (unsigned long)probed;
	char line[512], path[256] = "";
	FILE *f = fopen("/sys/bus/event_source/devices/uprobe/type", "r");

	skip_unless(f && fscanf(f, "%u", &attr.type) == 1);
	if (page->skip)
		return;
	fclose(f);
	f = fopen("/proc/self/maps", "r");
	must(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long end;

		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %255s", &begin, &end,
			   &offset, path) == 4 && begin <= at && at < end)
			break;
	}
	fclose(f);
	attr.config1 = (uintptr_t)path;
	attr.config2 = at - begin + offset;
	must(syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0) >= 0);
	must(probed(1) == 2);
}

static const struct holder {
	const char *name;
	void (*hold)(void);
	uint64_t bits;
} holders[] = {
	{ "nothing", hold_nothing, 0 },
	{ "POSIX timer", hold_posix_timer, VASI_HELD_POSIX_TIMERS },
	{ "io_uring", hold_io_uring, VASI_HELD_IO_URING },
	{ "io_uring that is closed", hold_past_io_uring, 0 },
	{ "AIO context", hold_aio, VASI_HELD_AIO },
	{ "perf event", hold_perf, VASI_HELD_PERF },
	{ "LDT", hold_ldt, VASI_HELD_LDT },
	{ "protection key", hold_pkey, VASI_HELD_PKEYS },
	{ "protection key behind a free one", hold_second_pkey,
	  VASI_HELD_PKEYS },
	{ "protection key that is free again", hold_past_pkey, 0 },
	{ "execute-only memory", hold_execute_only, VASI_HELD_PKEYS },
	{ "AMX permission", hold_amx, VASI_HELD_AMX },
	{ "userfaultfd", hold_userfaultfd, VASI_HELD_USERFAULTFD },
	{ "seccomp filter", hold_seccomp, VASI_HELD_SECCOMP },
	{ "memory shared with a process", hold_mm_shared,
	  VASI_HELD_MM_SHARED | VASI_HELD_CHILD },
	{ "descriptors shared with a process", hold_files_shared,
	  VASI_HELD_FILES_SHARED | VASI_HELD_CHILD },
	{ "directories shared with a process", hold_fs_shared,
	  VASI_HELD_FS_SHARED | VASI_HELD_CHILD },
	{ "a thread with tables of its own", hold_tables_apart,
	  VASI_HELD_FILES_SHARED | VASI_HELD_FS_SHARED },
	{ "child", hold_child, VASI_HELD_CHILD },
	{ "dead child", hold_zombie, VASI_HELD_CHILD },
	{ "semaphore undo", hold_undo, VASI_HELD_SYSV_UNDO },
	{ "thread keyring", hold_keyring, VASI_HELD_KEYRING },
	{ "I/O ports", hold_ioports, VASI_HELD_IOPORTS },
	{ "a thread with other credentials", hold_creds,
	  VASI_HELD_CREDS_DIFFER },
	{ "credentials that are equal copies", hold_same_creds, 0 },
	{ "system call dispatch", hold_dispatch, VASI_HELD_SYSCALL_DISPATCH },
};

static pid_t start(void (*hold)(void))
{
	pid_t pid;

	memset(page, 0, sizeof(*page));
	pid = fork_guest();
	if (!pid) {
		hold();
		__atomic_store_n(&page->ready, 2, __ATOMIC_RELEASE);
		for (;;)
			pause();
	}
	must(wait_until(__atomic_load_n(&page->ready, __ATOMIC_ACQUIRE) == 2));
	return pid;
}

static uint64_t held(int fd)
{
	struct vasi_rec_process *p;
	uint64_t bits;
	size_t len;
	void *buf;

	must(!get_state(fd, &buf, &len));
	p = find_record(buf, len, VASI_REC_PROCESS, -1, -1, NULL);
	must(p);
	bits = p->unmovable;
	free(buf);
	return bits;
}

static void test_holder(const struct holder *h)
{
	uint64_t running, suspended;
	pid_t pid = start(h->hold);
	int fd;

	if (page->skip) {
		ok(true, "%s # SKIP this processor has none", h->name);
		end_guest(pid);
		return;
	}
	fd = attach(pid);
	running = held(fd);
	must(!suspend(fd));
	suspended = held(fd);
	ok(running == h->bits && suspended == h->bits,
	   "%s: %#llx, suspended %#llx", h->name, (unsigned long long)running,
	   (unsigned long long)suspended);
	close(fd);
	if (page->child)
		kill(page->child, SIGKILL);
	end_guest(pid);
}

/* what somebody else does to the guest */
static void test_traced(void)
{
	pid_t pid = start(hold_nothing);
	int fd = attach(pid), status;
	uint64_t dr7 = 1 | 3 << 18 | 1 << 16;

	must(!ptrace(PTRACE_SEIZE, pid, 0, 0));
	ok(held(fd) == VASI_HELD_TRACED, "a tracer");
	must(!ptrace(PTRACE_INTERRUPT, pid, 0, 0));
	must(waitpid(pid, &status, __WALL) == pid);
	must(!ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]),
		     page));
	must(!ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]),
		     dr7));
	/* a breakpoint is a perf event as well */
	ok((held(fd) & ~VASI_HELD_PERF) ==
	   (VASI_HELD_TRACED | VASI_HELD_DEBUGREGS), "a debug register");
	close(fd);
	end_guest(pid);
}

static void test_stopped(void)
{
	pid_t pid = start(hold_nothing);
	int fd = attach(pid), status;

	must(!kill(pid, SIGSTOP));
	must(waitpid(pid, &status, WUNTRACED) == pid);
	ok(held(fd) == VASI_HELD_STOPPED, "a stopped guest");
	close(fd);
	kill(pid, SIGCONT);
	end_guest(pid);
}

int main(void)
{
	/* last: every process of this program is marked, for good */
	static const struct holder uprobe = {
		"uprobe", hold_uprobe, VASI_HELD_UPROBES,
	};
	size_t i;

	page = shared_memory(sizeof(*page));
	for (i = 0; i < sizeof(holders) / sizeof(holders[0]); i++)
		test_holder(&holders[i]);
	test_traced();
	test_stopped();
	test_holder(&uprobe);
	return tap_end();
}
