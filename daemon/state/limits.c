// SPDX-License-Identifier: GPL-2.0
/*
 * Resource limits
 *
 * Set from the outside, and last: the guest may have lowered them below what
 * it has.
 */
#include <errno.h>
#include <fcntl.h>
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

static int set_limit(struct restore *r, const Mspd__Limit *l)
{
	struct rlimit64 lim = { .rlim_cur = l->soft, .rlim_max = l->hard };

	if (l->resource >= RLIM_NLIMITS)
		return -EBADMSG;
	if (!prlimit64(r->ns.pid, l->resource, &lim, NULL))
		return 0;
	return restore_fail(r, -errno, "limits", "process",
			    "\"%s\" can't be set to %llu (hard %llu): %s",
			    names[l->resource], (unsigned long long)l->soft,
			    (unsigned long long)l->hard, strerror(errno));
}

/* One look costs less in the pause than setting those that are right. */
static int limits_finish(struct restore *r, const Mspd__Image *final)
{
	_cleanup_free_ char *text = NULL;
	char path[32];
	size_t i;
	int err;

	snprintf(path, sizeof(path), "/proc/%d/limits", r->ns.pid);
	err = procfile_read(AT_FDCWD, path, &text, NULL);
	for (i = 0; i < final->n_limits && !err; i++) {
		const Mspd__Limit *l = final->limits[i];
		Mspd__Limit now = MSPD__LIMIT__INIT;

		if (l->resource < RLIM_NLIMITS &&
		    !read_limit(text, l->resource, &now) &&
		    now.soft == l->soft && now.hard == l->hard)
			continue;
		err = set_limit(r, l);
	}
	return err;
}

const struct resource resource_limits = {
	.name = "limits",
	.capture = limits_capture,
	.finish = limits_finish,
};
