// SPDX-License-Identifier: GPL-2.0
/*
 * Methods migration.*: moving guests away, and watching it
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include "control/attributes.h"
#include "control/job.h"
#include "control/rpc.h"

static uint64_t random_stream_id(void)
{
	uint64_t id = 0;

	while (!id)
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			id = 0;
	return id;
}

static json_t *start(struct client *c, json_t *params, bool validate_only,
		     struct rpc_error *err)
{
	struct server *s = c->server;
	const char *name, *host;
	json_t *attributes = NULL;
	struct migration m = { 0 };
	json_error_t at;
	struct entry *e;
	struct job *j;
	const struct guest_access *access;
	char why[400];
	int r;

	if (json_unpack_ex(params, &at, 0, "{s:s, s:s, s?o !}", "name", &name,
			   "host", &host, "attributes", &attributes) < 0)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0, "migration: %s",
				at.text);
	attributes_init(&m, &s->config);
	if (attributes && !json_is_object(attributes))
		return rpc_fail(err, RPC_INVALID_PARAMS, 0,
				"migration: attributes is an object");
	if (attributes_apply(&m, attributes, err->text, sizeof(err->text)) < 0) {
		err->code = RPC_INVALID_PARAMS;
		return NULL;
	}
	m.port = CONFIG_PORT;
	if (config_split_host(host, m.host, sizeof(m.host), &m.port) < 0)
		return rpc_fail(err, RPC_INVALID_PARAMS, 0,
				"\"%s\" is no HOST[:PORT]", host);

	e = registry_find(&s->registry, name);
	if (!e)
		return rpc_fail(err, RPC_FAILED, ENOENT,
				"no guest \"%s\" on this host; see mspctl list",
				name);
	if (e->state == ENTRY_IN_DOUBT)
		return rpc_fail(err, RPC_FAILED, EBUSY,
				"it is in doubt who owns guest \"%s\" since its last move (mspctl recover)",
				name);
	if (e->state != ENTRY_RUNNING)
		return rpc_fail(err, RPC_FAILED, EBUSY,
				"guest \"%s\" is in a migration already", name);
	if (s->stopping)
		return rpc_fail(err, RPC_FAILED, ESHUTDOWN,
				"this mspd is stopping");
	r = access_choose(m.access, m.tracker, &access, NULL, why, sizeof(why));
	if (r < 0)
		return rpc_fail(err, RPC_FAILED, r,
				"this host cannot move guests: %s", why);
	if (job_count(s, JOB_SOURCE) >= s->config.max_migrations)
		return rpc_fail(err, RPC_FAILED, EAGAIN,
				"%u migrations run already (max_migrations)",
				s->config.max_migrations);

	strcpy(m.name, e->name);
	strcpy(m.uuid, e->uuid);
	m.pid = e->pid;
	m.stream_id = random_stream_id();
	m.validate_only = validate_only;
	r = job_start_source(s, &m, e, &j);
	if (r < 0)
		return rpc_fail(err, RPC_FAILED, r, "no worker: %s",
				strerror(-r));
	job_watch(j, c->number);
	return job_to_json(j);
}

static json_t *migration_start(struct client *c, json_t *params,
			       struct rpc_error *err)
{
	return start(c, params, false, err);
}

static json_t *migration_validate(struct client *c, json_t *params,
				  struct rpc_error *err)
{
	return start(c, params, true, err);
}

static json_t *migration_list(struct client *c, json_t *params,
			      struct rpc_error *err)
{
	json_t *list = json_array();
	struct job *j;

	(void)params;
	(void)err;
	for (j = c->server->jobs; j; j = j->next)
		if (!j->stranger)
			json_array_append_new(list, job_to_json(j));
	return json_pack("{s:s, s:o}", "tls",
			 tls_words[c->server->config.tls], "migrations", list);
}

static struct job *job_of(struct client *c, json_t *params,
			  struct rpc_error *err)
{
	json_error_t at;
	struct job *j;
	int id;

	if (json_unpack_ex(params, &at, 0, "{s:i !}", "id", &id) < 0) {
		rpc_fail(err, RPC_INVALID_PARAMS, 0, "migration: %s", at.text);
		return NULL;
	}
	j = job_find(c->server, id);
	if (!j)
		rpc_fail(err, RPC_FAILED, ENOENT, "no migration %d", id);
	return j;
}

static json_t *migration_watch(struct client *c, json_t *params,
			       struct rpc_error *err)
{
	struct job *j = job_of(c, params, err);

	if (!j)
		return NULL;
	if (j->pid && job_watch(j, c->number) < 0)
		return rpc_fail(err, RPC_FAILED, ENOSPC,
				"migration %u has its %d watchers", j->id,
				JOB_WATCHERS);
	return job_to_json(j);
}

static json_t *migration_cancel(struct client *c, json_t *params,
				struct rpc_error *err)
{
	struct job *j = job_of(c, params, err);
	int r;

	if (!j)
		return NULL;
	r = job_cancel(j);
	if (r < 0)
		return rpc_fail(err, RPC_FAILED, r, "migration %u has ended",
				j->id);
	return job_to_json(j);
}

const struct rpc_method migration_methods[] = {
	{ "migration.start", migration_start },
	{ "migration.validate", migration_validate },
	{ "migration.list", migration_list },
	{ "migration.watch", migration_watch },
	{ "migration.cancel", migration_cancel },
	{ NULL, NULL },
};
