// SPDX-License-Identifier: GPL-2.0
/* Every attribute that a process has, and what becomes of it */
#include "lib/cleanup.h"
#include "state/attrs.h"
#include "state/census.h"

#define RESTORED(attribute, by, how) \
	{ attribute, CENSUS_RESTORED, &resource_##by, how, NULL }
#define REFUSED(attribute, by, how) \
	{ attribute, CENSUS_REFUSED, &resource_##by, how, NULL }
#define NEW(attribute, by, how) \
	{ attribute, CENSUS_NEW, &resource_##by, how, NULL }
/* looked at here */
#define CHECKED(outcome, attribute, check, how) \
	{ attribute, CENSUS_##outcome, &resource_census, how, check }

const struct census_row census[] = {
	/* identity and rights */
	RESTORED("user IDs (real, effective, saved, file system)", creds,
		 "each thread, last of all"),
	RESTORED("group IDs and supplementary groups", creds, "likewise"),
	RESTORED("capability sets (inheritable, permitted, effective, bounding, ambient)",
		 creds, "exactly, or the restore fails"),
	RESTORED("securebits", creds, "told by the module"),
	RESTORED("no_new_privs", creds, "a target that has it itself refuses others"),
	REFUSED("credentials that differ between threads", mm, "told by the module"),
	CHECKED(REFUSED, "seccomp mode and filters", attrs_seccomp,
		"any mode but 0"),
	CHECKED(VERIFIED, "LSM label", attrs_label,
		"that of mspd, or unconfined"),
	REFUSED("keyrings of thread or process", mm, "told by the module"),
	CHECKED(NEW, "audit login user", attrs_loginuid,
		"unset; a warning if it was set"),

	/* namespaces and places */
	RESTORED("PID namespace and process, thread IDs", mm,
		 "a new namespace with the same IDs in it"),
	RESTORED("time namespace", mm,
		 "a new one, in which the guest's clocks go on"),
	CHECKED(VERIFIED, "mount, network, UTS, IPC, user and cgroup namespace",
		attrs_namespaces, "those of mspd"),
	{ "root directory", CENSUS_VERIFIED, &resource_fs, "/ of mspd", NULL },
	RESTORED("working directory", fs, "by its path"),
	RESTORED("file mode mask", fs, ""),
	CHECKED(NEW, "session and process group", attrs_session,
		"it leads its own; a warning if it did not before"),
	CHECKED(REFUSED, "controlling terminal", attrs_terminal, ""),
	NEW("parent process", mm, "the reaper of its namespace"),
	REFUSED("child processes", mm, "waited for, within a limit"),
	CHECKED(NEW, "limits of its cgroup", attrs_cgroup,
		"the target's cgroup has its own; a warning"),

	/* scheduling and policies */
	RESTORED("scheduling policy, priority, nice value, reset-on-fork", sched,
		 "each thread; deadline scheduling is refused"),
	RESTORED("I/O priority", sched, "each thread"),
	RESTORED("processor affinity", sched,
		 "clamped to what the target has, with a warning"),
	RESTORED("timer slack", threads, "each thread"),
	RESTORED("oom_score_adj", sched, "1000 until the guest is complete"),
	RESTORED("core dump filter", sched, ""),
	CHECKED(VERIFIED, "NUMA memory policy", attrs_mempolicy,
		"default for all mappings"),
	CHECKED(VERIFIED, "execution domain (personality)", attrs_personality,
		"PER_LINUX"),
	CHECKED(VERIFIED, "speculation controls", attrs_speculation,
		"not changed by prctl()"),
	RESTORED("resource limits", limits, "all of them"),
	NEW("resource usage and accounting", limits, "starts at zero"),

	/* process flags */
	RESTORED("dumpable", mm, "after the credentials"),
	RESTORED("parent-death signal", threads, "after the credentials"),
	RESTORED("child subreaper", mm, ""),
	RESTORED("transparent huge pages disabled", mm, ""),
	RESTORED("membarrier registrations", mm, ""),
	RESTORED("name, arguments, environment, auxiliary vector, executable",
		 mm, ""),

	/* processor */
	RESTORED("general and vector registers", threads, ""),
	RESTORED("processor features seen", cpu, "the target must have them"),
	RESTORED("thread pointer, alternate signal stack", threads, ""),
	RESTORED("robust futex list, restartable sequences, address cleared at exit",
		 threads, ""),
	REFUSED("hardware breakpoints", mm, "told by the module"),
	REFUSED("local descriptor table", mm, "told by the module"),
	REFUSED("I/O port permissions", mm, "told by the module"),
	REFUSED("AMX permission", mm, "told by the module"),
	REFUSED("shadow stack", mm, "told by the module"),
	REFUSED("syscall user dispatch", mm, "told by the module"),
	REFUSED("tracer", mm, "told by the module"),

	/* memory */
	RESTORED("mappings with protection, flags and names", maps,
		 "flags without a row of their own are refused"),
	RESTORED("memory layout (code, data, heap, stack, arguments)", mm, ""),
	RESTORED("vDSO", vdso, "that of the source's kernel"),
	RESTORED("memory files and shared anonymous memory", maps,
		 "used by the guest alone"),
	REFUSED("memory shared with other processes", maps, ""),
	REFUSED("writable shared mappings of files", maps, ""),
	REFUSED("huge pages of hugetlbfs, device memory", maps, ""),
	REFUSED("memory protection keys", mm, "told by the module"),
	REFUSED("userfaultfd", mm, "told by the module"),
	REFUSED("uprobes", mm, "told by the module"),
	REFUSED("System V shared memory", maps, ""),
	REFUSED("System V semaphore undo values", mm, "told by the module"),

	/* signals and timers */
	RESTORED("signal dispositions, masks, pending signals", signals, ""),
	RESTORED("interval timers", itimers, "shortened by the pause"),
	REFUSED("POSIX timers", mm, "told by the module"),
	RESTORED("interrupted system calls", threads,
		 "go on without EINTR, with the time they have left"),

	/* descriptors */
	RESTORED("regular files", files,
		 "written: on shared storage; only read: same content; with O_DIRECT: by the module"),
	RESTORED("directories", files, "not while they are read"),
	RESTORED("/dev/null, zero, full, random, urandom", files, ""),
	RESTORED("pipes with their content", files, "all ends in the guest"),
	RESTORED("eventfd, epoll, timerfd", files, ""),
	RESTORED("memfd", files, "mapped, or of 1 MiB at most"),
	RESTORED("listening TCP and Unix stream sockets", listen,
		 "address, options and queue length"),
	REFUSED("established connections", files,
		"or closed, with connections=close"),
	REFUSED("other sockets, FIFOs, terminals, devices, other descriptors",
		files, "named one by one"),
	REFUSED("deleted files, files of proc, sysfs and the like", files, ""),
	REFUSED("descriptions shared with other processes", files, ""),
	REFUSED("locks and leases", files, ""),
	REFUSED("O_ASYNC, F_SETOWN, F_SETSIG", files, ""),
	REFUSED("a table of descriptors or directories shared with another process",
		mm, "told by the module"),
	REFUSED("io_uring, AIO contexts, perf events", mm, "told by the module"),
};
const size_t nr_census = ARRAY_SIZE(census);

const char *census_outcome_name(enum census_outcome outcome)
{
	static const char *const names[] = {
		[CENSUS_RESTORED] = "restored",
		[CENSUS_VERIFIED] = "verified",
		[CENSUS_REFUSED] = "refused",
		[CENSUS_NEW] = "new",
	};

	return names[outcome];
}

static int census_check(struct capture *c)
{
	size_t i;
	int r = 0;

	for (i = 0; i < nr_census && !r; i++)
		if (census[i].check)
			r = census[i].check(c);
	return r;
}

const struct resource resource_census = {
	.name = "census",
	.check = census_check,
	.target_check = attrs_target_check,
};
