// SPDX-License-Identifier: GPL-2.0
/*
 * All kinds of resources, in the order in which they are looked at and built
 */
#include "lib/cleanup.h"
#include "state/resource.h"

const struct resource *const resources[] = {
	&resource_mm,
	&resource_maps,
	&resource_vdso,
	&resource_threads,
	&resource_signals,
	&resource_itimers,
	&resource_cpu,
	&resource_census,
	&resource_files,
	&resource_fs,
	&resource_limits,
	&resource_sched,
	&resource_creds,
	&resource_listen,
};

const size_t nr_resources = ARRAY_SIZE(resources);
