// SPDX-License-Identifier: GPL-2.0
#include "useraccess/shim.h"
#include "kstate/held.c"
#undef main

/* what user space does not see, and what this kernel does not have */
static bool skipped(const struct holder *h)
{
	return h->bits == VASI_HELD_SYSV_UNDO ||
	       (h->bits == VASI_HELD_IOPORTS && ioperm(0x80, 1, 0));
}

/* a debugger is seen, but what it has set is its own affair */
static void test_debugged(void)
{
	pid_t pid = start(hold_nothing);
	int fd = attach(pid);

	must(!ptrace(PTRACE_SEIZE, pid, 0, 0));
	ok(held(fd) == VASI_HELD_TRACED, "a tracer");
	close(fd);
	end_guest(pid);
}

int main(void)
{
	size_t i;

	if (!shim_usable())
		return 4;
	page = shared_memory(sizeof(*page));
	for (i = 0; i < sizeof(holders) / sizeof(holders[0]); i++)
		if (!skipped(&holders[i]))
			test_holder(&holders[i]);
	test_debugged();
	test_stopped();
	return tap_end();
}
