// SPDX-License-Identifier: GPL-2.0
/*
 * Methods server.*: the daemon itself
 */
#include <sys/utsname.h>
#include "control/job.h"
#include "control/rpc.h"

static json_t *server_info(struct client *c, json_t *params,
			   struct rpc_error *err)
{
	const struct server *s = c->server;
	struct vasi_query q = { 0 };
	struct utsname u;
	char why[256];
	json_t *obj;
	int r;

	(void)params;
	(void)err;
	uname(&u);
	r = server_access(s, &q, why, sizeof(why));
	obj = json_pack("{s:s, s:s, s:s, s:i, s:s, s:i, s:i, s:b, s:i, s:i, s:i}",
			"version", VASI_VERSION, "kernel", u.release,
			"host", u.nodename, "pid", (int)s->pid,
			"listen", s->config.listen, "port", s->config.port,
			"max_migrations", (int)s->config.max_migrations,
			"vasi", r >= 0, "vasi_abi", (int)q.out_abi,
			"active_source", (int)job_count(s, JOB_SOURCE),
			"active_target", (int)job_count(s, JOB_TARGET));
	if (r < 0 && obj)
		json_object_set_new(obj, "vasi_error", json_string(why));
	return obj;
}

const struct rpc_method server_methods[] = {
	{ "server.info", server_info },
	{ NULL, NULL },
};
