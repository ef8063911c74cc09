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
#include "state/procfile.h"
#include "state/resource.h"
#include "state/restore.h"

static const char *const names[RLIM_NLIMITS] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};

static const char *value(const char *p, uint64_t *ret)
{
	char *end;

	p += strspn(p, " ");
	if (!strncmp(p, "unlimited", 9)) {
		*ret = RLIM_INFINITY;
		return p + 9;
	}
	*ret = strtoull(p, &end, 10);
	return end == p ? NULL : end;
}

static int read_limit(const char *text, unsigned int resource, Mspd__Limit *l)
{
	const char *p = strstr(text, names[resource]);

	l->resource = resource;
	if (p)
		p = value(p + strlen(names[resource]), &l->soft);
	if (p)
		p = value(p, &l->hard);
	return p ? 0 : -EIO;
}

static int limits_capture(struct capture *c, enum capture_when when,
			  Mspd__Image *img)
{
	_cleanup_free_ char *text = NULL;
	unsigned int i;
	int r;

	(void)when;
	r = procfile_read(c->proc, "limits", &text, NULL);
	if (r)
		return r;
	img->limits = calloc(RLIM_NLIMITS, sizeof(*img->limits));
	if (!img->limits)
		return -ENOMEM;
	for (i = 0; i < RLIM_NLIMITS && !r; i++) {
		Mspd__Limit *l = malloc(sizeof(*l));

		if (!l)
			return -ENOMEM;
		*l = (Mspd__Limit)MSPD__LIMIT__INIT;
		img->limits[img->n_limits++] = l;
		r = read_limit(text, i, l);
	}
	return r;
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
