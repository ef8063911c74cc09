// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control/server.h"
#include "lib/cleanup.h"
#include "log.h"

/* more than the module has streams */
#define SEALED_MAX	1024
#define DESTROY_MS	10000

/* in a process of its own: the guest's end may take its time */
static void destroy(const struct guest_access *access,
		    const struct vasi_stream_info *info)
{
	struct guest *g;
	pid_t pid;
	int r;

	fflush(NULL);
	pid = fork();
	if (pid) {
		if (pid < 0)
			log_error("no process to end stream %016llx: %s",
				  (unsigned long long)info->stream_id,
				  strerror(errno));
		return;
	}
	r = access->takeover(&g, info->service, info->stream_id);
	if (!r)
		r = access->destroy(g, DESTROY_MS);
	/* gone already: somebody else has looked after it */
	if (r < 0 && r != -ENOENT && r != -ESRCH)
		log_error("stream %016llx: the unfinished guest PID %d stays: %s",
			  (unsigned long long)info->stream_id, info->pid,
			  strerror(-r));
	_exit(EXIT_SUCCESS);
}

static void sweep(struct server *s, const struct guest_access *access)
{
	_cleanup_free_ struct vasi_stream_info *v = NULL;
	struct entry *e;
	size_t n = 0;

	v = calloc(SEALED_MAX, sizeof(*v));
	if (!v || access->sealed(v, SEALED_MAX, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (v[i].opens)
			continue;	/* its worker lives */
		e = registry_find_pid(&s->registry, v[i].pid);
		if (v[i].service == VASI_SERVICE_TARGET) {
			/* on record already, but never let run */
			if (e)
				registry_remove(&s->registry, e);
			log_notice("stream %016llx: ending the unfinished guest PID %d",
				   (unsigned long long)v[i].stream_id,
				   v[i].pid);
			destroy(access, &v[i]);
			continue;
		}
		if (v[i].state == VASI_STATE_RESUMED) {
			log_notice("stream %016llx: ending the stopped copy of a guest that was moved, PID %d",
				   (unsigned long long)v[i].stream_id,
				   v[i].pid);
			destroy(access, &v[i]);
			continue;
		}
		if (!e || e->state == ENTRY_IN_DOUBT)
			continue;
		log_error("guest %s (PID %d) is stopped, and who owns it is in doubt: it was handed over without an answer",
			  e->name, e->pid);
		e->state = ENTRY_IN_DOUBT;
	}
}

void server_sweep_sealed(struct server *s)
{
	for (size_t i = 0; guest_accesses[i]; i++)
		sweep(s, guest_accesses[i]);
}
