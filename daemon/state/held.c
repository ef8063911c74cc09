// SPDX-License-Identifier: GPL-2.0
/*
 * What makes a guest unmovable and is seen by its kernel alone
 */
#include <stdio.h>
#include "lib/cleanup.h"
#include "state/process.h"

static const struct held {
	uint64_t bit;
	const char *check, *text;
} table[] = {
	{ VASI_HELD_POSIX_TIMERS, "process.posix-timers",
	  "has timers of timer_create()" },
	{ VASI_HELD_IO_URING, "process.io-uring", "has an io_uring" },
	{ VASI_HELD_AIO, "process.aio", "has a context of io_setup()" },
	{ VASI_HELD_PERF, "process.perf", "has performance events" },
	{ VASI_HELD_DEBUGREGS, "process.debug-registers",
	  "has hardware breakpoints: end the debugger" },
	{ VASI_HELD_LDT, "process.ldt", "has a local descriptor table" },
	{ VASI_HELD_PKEYS, "process.pkeys", "has memory protection keys" },
	{ VASI_HELD_AMX, "process.amx", "may use AMX tiles" },
	{ VASI_HELD_UPROBES, "process.uprobes",
	  "has uprobes: end the tracer" },
	{ VASI_HELD_USERFAULTFD, "process.userfaultfd",
	  "has memory watched by a userfaultfd" },
	{ VASI_HELD_SECCOMP, "process.seccomp", "has a seccomp filter" },
	{ VASI_HELD_TRACED, "process.traced",
	  "is traced: end the debugger" },
	{ VASI_HELD_STOPPED, "process.stopped",
	  "is stopped: let it go on with SIGCONT, or thaw its cgroup" },
	{ VASI_HELD_MM_SHARED, "process.memory-shared",
	  "shares its memory with another process" },
	{ VASI_HELD_FILES_SHARED, "process.files-shared",
	  "has threads or processes with different or shared tables of descriptors" },
	{ VASI_HELD_FS_SHARED, "process.fs-shared",
	  "has threads or processes with different or shared directories" },
	{ VASI_HELD_SYSV_UNDO, "process.semaphore-undo",
	  "has undo values of System V semaphores" },
	{ VASI_HELD_SHSTK, "process.shadow-stack", "has a shadow stack" },
	{ VASI_HELD_KEYRING, "process.keyring",
	  "has a keyring of its own" },
	{ VASI_HELD_IOPORTS, "process.ioports", "may use I/O ports" },
	{ VASI_HELD_CREDS_DIFFER, "process.credentials",
	  "has threads with different credentials" },
	{ VASI_HELD_SYSCALL_DISPATCH, "process.syscall-dispatch",
	  "has system call user dispatch" },
};

static void object_of(const struct capture *c, int32_t tid, char *buf,
		      size_t len)
{
	if (tid)
		snprintf(buf, len, "thread %d", tid);
	else
		snprintf(buf, len, "process %d", c->pid);
}

static void report(struct capture *c, uint64_t bits, int32_t tid)
{
	char object[32];
	size_t i;

	object_of(c, tid, object, sizeof(object));
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		if (bits & table[i].bit)
			finding_add(c->findings, FINDING_ERROR, table[i].check,
				    object, "%s", table[i].text);
		bits &= ~table[i].bit;
	}
	bits &= ~VASI_HELD_CHILD;
	if (bits)
		finding_add(c->findings, FINDING_ERROR, "process.held", object,
			    "holds something that this daemon does not know (%#llx)",
			    (unsigned long long)bits);
}

void held_check(struct capture *c)
{
	const struct vasi_rec_process *p = process_record(c);
	const struct vasi_record *rec = NULL;
	uint64_t rest = p->unmovable;

	/* by thread where it is known, of the process what is left */
	while ((rec = record_next(c->records, c->records_len, rec))) {
		const struct vasi_rec_thread *t = record_payload(rec);

		if (rec->type != VASI_REC_THREAD ||
		    rec->payload < sizeof(*t) || !t->unmovable)
			continue;
		report(c, t->unmovable, rec->tid);
		rest &= ~t->unmovable;
	}
	report(c, rest, 0);
}
