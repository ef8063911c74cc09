// SPDX-License-Identifier: GPL-2.0
/*
 * Whether guests can be reached without the module, found out by doing it
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "state/procfile.h"

#define MAX_VEC		(1U << 20)
#define MAX_BATCH	(64U << 20)
#define YAMA		"/proc/sys/kernel/yama/ptrace_scope"
#define YAMA_NOBODY	3

/* a child that nobody is told of traces as well as any */
static int try_ptrace(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, 0);
	int r;

	if (pid < 0)
		return -errno;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	r = ptrace(PTRACE_SEIZE, pid, 0, 0) ? -errno : 0;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
	return r;
}

static void fill(struct vasi_query *q)
{
	unsigned int a, b, c, d, low, high;

	*q = (struct vasi_query){
		.size = sizeof(*q), .out_abi = VASI_ABI_VERSION,
		.out_page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.out_features = VASI_FEATURE_OBJECTS | VASI_FEATURE_SUSPEND |
				VASI_FEATURE_SEAL | VASI_FEATURE_MAPPINGS,
		.out_max_streams = UINT32_MAX, .out_max_opens = UINT32_MAX,
		.out_max_vec = MAX_VEC, .out_max_batch = MAX_BATCH,
	};
	if (__get_cpuid_count(1, 0, &a, &b, &c, &d) && c & bit_OSXSAVE) {
		__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
		q->out_xfeatures = (uint64_t)high << 32 | low;
		if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
			q->out_xstate_size = b;
	}
}

int user_probe(struct vasi_query *ret)
{
	int r;

	if (!*user_cgroup_root())
		return -EOPNOTSUPP;
	r = try_ptrace();
	if (!r && ret)
		fill(ret);
	return r;
}

static bool has_filter(void)
{
	_cleanup_free_ char *status = NULL;
	const char *f;

	if (procfile_read(AT_FDCWD, "/proc/self/status", &status, NULL))
		return false;
	f = procfile_field(status, "Seccomp");
	return f && atoi(f);
}

const char *user_probe_why(int err)
{
	_cleanup_free_ char *scope = NULL;

	if (err == -EOPNOTSUPP)
		return "no cgroup2 is mounted, by which guests are sealed";
	if (!procfile_read(AT_FDCWD, YAMA, &scope, NULL) &&
	    atoi(scope) >= YAMA_NOBODY)
		return "ptrace is refused to everybody (kernel.yama.ptrace_scope)";
	if (has_filter())
		return "ptrace is refused by the seccomp filter of this mspd";
	return "ptrace is refused";
}
