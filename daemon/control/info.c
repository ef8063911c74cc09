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
	const struct guest_access *access = NULL;
	struct keys_cert own = { 0 };
	struct vasi_query q = { 0 };
	char why[400], how[400], keys[400];
	struct utsname u;
	json_t *obj;
	int r;

	(void)params;
	(void)err;
	uname(&u);
	r = access_choose(ACCESS_VASI, TRACKER_AUTO, &access, &q, why,
			  sizeof(why));
	if (access_choose(s->config.access, s->config.tracker, &access, NULL,
			  how, sizeof(how)) < 0)
		access = NULL;
	/* a tool may have changed it a moment ago */
	keys_own(s->config.keys, &own, keys, sizeof(keys));
	obj = json_pack("{s:s, s:s, s:s, s:i, s:s, s:i, s:s, s:s, s:i, s:b, s:i, s:s?, s:s, s:s, s:i, s:i}",
			"version", VASI_VERSION, "kernel", u.release,
			"host", u.nodename, "pid", (int)s->pid,
			"listen", s->config.listen, "port", s->config.port,
			"tls", tls_words[s->config.tls], "certificate",
			*own.text ? own.text : "none",
			"max_migrations", (int)s->config.max_migrations,
			"vasi", r >= 0, "vasi_abi", (int)q.out_abi,
			"access", access ? access->name : NULL, "access_how", how,
			"compression", compression_words[s->config.compression],
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
