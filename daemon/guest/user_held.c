// SPDX-License-Identifier: GPL-2.0
/*
 * What makes a guest unmovable, as far as user space can see it
 *
 * Not seen at all: System V undo values, uprobes whose area is not mapped yet,
 * performance events of others on the guest, I/O privilege by iopl(); rings,
 * events and userfaultfds only by descriptors that the guest has open.
 */
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/keyctl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include "guest/user_records.h"
#include "lib/cleanup.h"
#include "state/procfile.h"

#define NT_IOPERM		0x201
#define IOPERM_BYTES		8192
#define LDT_BYTES		16
#define XCOMP_PERM		0x1022	/* of arch_prctl() */
#define XTILE_DATA		(1ULL << 18)
#define PKEYS			16
/* in the kernel's half, where a process has nothing */
#define NOBODYS_PAGE		0xffff800000000000
#define PAGE_BYTES		4096

static bool same_line(const char *a, const char *b, const char *key)
{
	const char *x = procfile_field(a, key), *y = procfile_field(b, key);
	size_t n;

	if (!x || !y)
		return x == y;
	n = strcspn(x, "\n");
	return n == strcspn(y, "\n") && !memcmp(x, y, n);
}

static bool same_creds(const char *a, const char *b)
{
	static const char *const keys[] = {
		"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd",
		"CapAmb",
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!same_line(a, b, keys[i]))
			return false;
	return true;
}

static uint64_t by_status(const struct user_records *o, const char *status)
{
	const char *f;
	uint64_t held = 0;

	f = procfile_field(status, "Seccomp");
	if (f && atoi(f))
		held |= VASI_HELD_SECCOMP;
	f = procfile_field(status, "TracerPid");
	if (f && atoi(f) && atoi(f) != gettid())
		held |= VASI_HELD_TRACED;
	f = procfile_field(status, "State");
	if (f && *f == 'T')
		held |= VASI_HELD_STOPPED;
	f = procfile_field(status, "x86_Thread_features");
	if (f && memmem(f, strcspn(f, "\n"), "shstk", 5))
		held |= VASI_HELD_SHSTK;
	f = procfile_field(status, "Name");
	if (f && (!strncmp(f, "iou-wrk-", 8) || !strncmp(f, "iou-sqp-", 8)))
		held |= VASI_HELD_IO_URING;
	if (!same_creds(status, o->status))
		held |= VASI_HELD_CREDS_DIFFER;
	return held;
}

static bool has_debugregs(pid_t tid)
{
	errno = 0;
	return ptrace(PTRACE_PEEKUSER, tid,
		      offsetof(struct user, u_debugreg[7]), 0) && !errno;
}

static bool has_ioports(pid_t tid)
{
	uint8_t map[IOPERM_BYTES];
	struct iovec iov = { map, sizeof(map) };

	return !ptrace(PTRACE_GETREGSET, tid, NT_IOPERM, &iov) && iov.iov_len;
}

uint64_t user_held_thread(struct user_records *o, pid_t tid,
			  struct user_thread *t)
{
	_cleanup_free_ char *status = NULL;
	uint64_t held = 0;
	char path[48];

	snprintf(path, sizeof(path), "task/%d/status", tid);
	if (!procfile_read(o->s->proc, path, &status, NULL))
		held = by_status(o, status);
	if (t && t->stopped)
		held |= VASI_HELD_STOPPED;
	if (t && has_debugregs(tid))
		held |= VASI_HELD_DEBUGREGS;
	if (t && has_ioports(tid))
		held |= VASI_HELD_IOPORTS;
	if (t && (o->s->dispatched || user_dispatched(tid)))
		held |= VASI_HELD_SYSCALL_DISPATCH;
	o->held |= held;
	return held;
}

static int same(pid_t a, pid_t b, int type)
{
	return !syscall(__NR_kcmp, a, b, type, 0, 0);
}

/* tables of descriptors and directories: one for all threads */
static uint64_t held_in_group(const struct user_records *o,
			      uint32_t *ret_children)
{
	_cleanup_closedir_ DIR *dir = NULL;
	const pid_t pid = o->s->pid;
	const struct dirent *e;
	uint64_t held = 0;
	int fd;

	fd = openat(o->s->proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (e = readdir(dir))) {
		const pid_t tid = atoi(e->d_name);
		_cleanup_free_ char *text = NULL;
		char path[300];

		if (*e->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "%s/children", e->d_name);
		if (!procfile_read(dirfd(dir), path, &text, NULL))
			for (const char *p = text; *p; p++)
				*ret_children += *p == ' ';
		if (tid == pid)
			continue;
		if (syscall(__NR_kcmp, pid, tid, KCMP_FILES, 0, 0) > 0)
			held |= VASI_HELD_FILES_SHARED;
		if (syscall(__NR_kcmp, pid, tid, KCMP_FS, 0, 0) > 0)
			held |= VASI_HELD_FS_SHARED;
	}
	return held;
}

/* and nobody else's */
static uint64_t held_outside(const struct user_records *o)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	const pid_t pid = o->s->pid;
	const struct dirent *e;
	uint64_t held = 0;

	while (dir && (e = readdir(dir))) {
		const pid_t other = atoi(e->d_name);

		if (other <= 0 || other == pid)
			continue;
		if (same(pid, other, KCMP_VM))
			held |= VASI_HELD_MM_SHARED;
		if (same(pid, other, KCMP_FILES))
			held |= VASI_HELD_FILES_SHARED;
		if (same(pid, other, KCMP_FS))
			held |= VASI_HELD_FS_SHARED;
	}
	return held;
}

static bool cpu_has_pkeys(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & bit_OSPKE;
}

static uint64_t by_maps(const struct user_records *o)
{
	_cleanup_free_ char *maps = NULL;
	uint64_t held = 0;

	if (procfile_read(o->s->proc, "maps", &maps, NULL))
		return 0;
	if (strstr(maps, " /[aio] (deleted)\n"))
		held |= VASI_HELD_AIO;
	if (strstr(maps, " [uprobes]\n"))
		held |= VASI_HELD_UPROBES;
	/* memory that can be executed only gets a key from the kernel */
	if (strstr(maps, " --xp ") && cpu_has_pkeys())
		held |= VASI_HELD_PKEYS;
	return held;
}

static uint64_t by_fds(const struct user_records *o)
{
	static const struct { const char *link; uint64_t bit; } kinds[] = {
		{ "anon_inode:[io_uring]", VASI_HELD_IO_URING },
		{ "anon_inode:[perf_event]", VASI_HELD_PERF },
		{ "anon_inode:[userfaultfd]", VASI_HELD_USERFAULTFD },
	};
	_cleanup_closedir_ DIR *dir = NULL;
	const struct dirent *e;
	uint64_t held = 0;
	int fd;

	fd = openat(o->s->proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (e = readdir(dir))) {
		char link[32];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, link,
				       sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
			if (!strcmp(link, kinds[i].link))
				held |= kinds[i].bit;
	}
	return held;
}

static bool has_timers(const struct user_records *o)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;

	return !procfile_read(o->s->proc, "timers", &text, &len) && len;
}

/*
 * Which keys are taken is told nowhere, and a key may be taken long before
 * memory has it. To protect a page that is not there fails in one way when the
 * key is taken, and in another one when it is not.
 */
static bool has_pkeys(struct user_records *o, struct user_thread *t)
{
	uint64_t key;

	for (key = 1; key < PKEYS; key++)
		if (user_ask(o, t, __NR_pkey_mprotect, NOBODYS_PAGE,
			     PAGE_BYTES, PROT_NONE, key) == -ENOMEM)
			return true;
	return false;
}

/* what only the guest can ask for */
static uint64_t by_calls(struct user_records *o, struct user_thread *t)
{
	uint8_t ldt[LDT_BYTES] = {};
	uint64_t held = 0, perm = 0;

	if (user_ask(o, t, __NR_keyctl, KEYCTL_GET_KEYRING_ID,
		     (uint64_t)KEY_SPEC_THREAD_KEYRING, 0, 0) > 0 ||
	    user_ask(o, t, __NR_keyctl, KEYCTL_GET_KEYRING_ID,
		     (uint64_t)KEY_SPEC_PROCESS_KEYRING, 0, 0) > 0)
		held |= VASI_HELD_KEYRING;
	if (user_ask_mem(o, t, __NR_modify_ldt, USER_CALL(0, 0, sizeof(ldt)),
			 1, ldt, sizeof(ldt)) > 0)
		held |= VASI_HELD_LDT;
	if (!user_ask_mem(o, t, __NR_arch_prctl, USER_CALL(XCOMP_PERM), 1,
			  &perm, sizeof(perm)) && perm & XTILE_DATA)
		held |= VASI_HELD_AMX;
	if (cpu_has_pkeys() && has_pkeys(o, t))
		held |= VASI_HELD_PKEYS;
	return held;
}

uint64_t user_held_process(struct user_records *o, struct user_thread *t,
			   uint32_t *ret_children)
{
	uint64_t held;

	*ret_children = 0;
	held = o->held | held_in_group(o, ret_children) | held_outside(o) | by_maps(o) |
	       by_fds(o) | by_status(o, o->status);
	if (*ret_children)
		held |= VASI_HELD_CHILD;
	if (user_is_frozen(o->s))
		held |= VASI_HELD_STOPPED;
	if (has_timers(o))
		held |= VASI_HELD_POSIX_TIMERS;
	if (t)
		held |= by_calls(o, t);
	return held;
}
