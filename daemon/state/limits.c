// SPDX-License-Identifier: GPL-2.0
/*
 * Resource limits
 *
 * Set from the outside, and last: the guest may have lowered them below what
 * it has.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include "lib/cleanup.h"
#include "state/resource.h"
#include "state/restore.h"

static int limits_capture(struct capture *c, enum capture_when when,
			  Mspd__Image *img)
{
	unsigned int i;

	(void)when;
	img->limits = calloc(RLIM_NLIMITS, sizeof(*img->limits));
	if (!img->limits)
		return -ENOMEM;
	for (i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit64 lim;
		Mspd__Limit *l;

		if (prlimit64(c->pid, i, NULL, &lim))
			return -errno;
		l = malloc(sizeof(*l));
		if (!l)
			return -ENOMEM;
		*l = (Mspd__Limit)MSPD__LIMIT__INIT;
		l->resource = i;
		l->soft = lim.rlim_cur;
		l->hard = lim.rlim_max;
		img->limits[img->n_limits++] = l;
	}
	return 0;
}

static int limits_finish(struct restore *r, const Mspd__Image *final)
{
	size_t i;

	for (i = 0; i < final->n_limits; i++) {
		const Mspd__Limit *l = final->limits[i];
		struct rlimit64 lim = { .rlim_cur = l->soft,
					.rlim_max = l->hard };

		if (prlimit64(r->ns.pid, l->resource, &lim, NULL))
			return restore_fail(r, -errno, "limits", "process",
					    "limit %u can't be set to %llu (hard %llu): %s",
					    l->resource,
					    (unsigned long long)l->soft,
					    (unsigned long long)l->hard,
					    strerror(errno));
	}
	return 0;
}

const struct resource resource_limits = {
	.name = "limits",
	.capture = limits_capture,
	.finish = limits_finish,
};
