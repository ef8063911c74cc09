// SPDX-License-Identifier: GPL-2.0
#include "useraccess/shim.h"
#include "kstate/restart.c"
#undef main

/* sleeps, of which less is known without the module, are in stream.c */
int main(void)
{
	if (!shim_usable())
		return 4;
	page = shared_memory(sizeof(*page));
	test_signal("nanosleep", sleep_with_handler, -ERESTART_RESTARTBLOCK,
		    -EINTR);
	test_signal("sigsuspend of a signal that is not blocked",
		    suspend_unblocked, -ERESTARTNOHAND, -EINTR);
	test_signal("sigsuspend of a signal that is blocked",
		    suspend_blocked, -ERESTARTNOHAND, -ERESTARTNOHAND);
	test_signal("read, handler with SA_RESTART", read_restart,
		    -ERESTARTSYS, -ERESTARTSYS);
	test_signal("read, handler without", read_eintr, -ERESTARTSYS, -EINTR);
	test_signal("read, signal blocked", read_stop, -ERESTARTSYS,
		    -ERESTARTSYS);
	return tap_end();
}
