// SPDX-License-Identifier: GPL-2.0
/*
 * The states of a stream: which may follow which, as a table
 *
 * LoPAR's table with one deviation: a suspended source may go back to Enabled
 * until its copy is destroyed, because this mover's switch-over can be rolled
 * back until the target has committed.
 */
#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/vasi.h>

#include "vasi_private.h"

#define TO(s)	BIT(VASI_STATE_##s)

static const u32 vasi_fsm_source[] = {
	[VASI_STATE_INVALID] = TO(ENABLED),
	[VASI_STATE_ENABLED] = TO(SUSPENDING) | TO(ABORTED),
	[VASI_STATE_ABORTED] = 0,
	[VASI_STATE_SUSPENDING] = TO(SUSPENDED) | TO(ENABLED) | TO(ABORTED),
	[VASI_STATE_SUSPENDED] = TO(ENABLED) | TO(RESUMED) | TO(COMPLETED) |
				 TO(ABORTED),
	[VASI_STATE_RESUMED] = TO(COMPLETED),
	[VASI_STATE_COMPLETED] = 0,
};

/* here the guest is built while Enabled, and runs once Resumed */
static const u32 vasi_fsm_target[] = {
	[VASI_STATE_INVALID] = TO(ENABLED),
	[VASI_STATE_ENABLED] = TO(SUSPENDING) | TO(ABORTED),
	[VASI_STATE_ABORTED] = 0,
	[VASI_STATE_SUSPENDING] = TO(SUSPENDED) | TO(ENABLED) | TO(ABORTED),
	[VASI_STATE_SUSPENDED] = TO(RESUMED) | TO(ABORTED),
	[VASI_STATE_RESUMED] = TO(COMPLETED),
	[VASI_STATE_COMPLETED] = 0,
};

int vasi_fsm_check(u32 service, u32 from, u32 to)
{
	const u32 *table = service == VASI_SERVICE_SOURCE ? vasi_fsm_source :
							    vasi_fsm_target;

	BUILD_BUG_ON(ARRAY_SIZE(vasi_fsm_source) !=
		     ARRAY_SIZE(vasi_fsm_target));
	if (from >= ARRAY_SIZE(vasi_fsm_source) || to >= BITS_PER_TYPE(u32))
		return -EBUSY;
	return table[from] & BIT(to) ? 0 : -EBUSY;
}
