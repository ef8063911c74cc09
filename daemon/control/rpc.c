// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "control/rpc.h"
#include "lib/cleanup.h"

static const struct rpc_method * const tables[] = {
	guest_methods, migration_methods, server_methods,
};

json_t *rpc_fail(struct rpc_error *err, int code, int error,
		 const char *fmt, ...)
{
	va_list ap;

	err->code = code;
	err->error = error < 0 ? -error : error;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return NULL;
}

static const struct rpc_method *find(const char *name)
{
	const struct rpc_method *m;

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		for (m = tables[i]; m->name; m++)
			if (!strcmp(m->name, name))
				return m;
	return NULL;
}

/* takes over @id (NULL = null) */
static void answer_error(struct client *c, json_t *id,
			 const struct rpc_error *err)
{
	json_t *obj, *error;

	error = json_pack("{s:i, s:s}", "code", err->code, "message",
			  err->text);
	if (!error) {
		/* the text holds what JSON cannot: input that is not UTF-8 */
		error = json_pack("{s:i, s:s}", "code", err->code, "message",
				  "the request is not valid UTF-8");
	}
	if (err->error)
		json_object_set_new(error, "data",
				    json_pack("{s:s*, s:i}", "errno",
					      strerrorname_np(err->error),
					      "number", err->error));
	obj = json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id",
			id ?: json_null(), "error", error);
	client_send(c, obj);
}

void rpc_handle(struct client *c, const char *line, size_t len)
{
	const char *version = NULL, *name = NULL;
	struct rpc_error err = { 0 };
	json_t *obj, *id, *params, *result;
	const struct rpc_method *m;
	json_error_t at;

	obj = json_loadb(line, len, JSON_REJECT_DUPLICATES, &at);
	if (!obj) {
		rpc_fail(&err, RPC_PARSE, 0, "not JSON: %s at byte %d",
			 at.text, at.position);
		answer_error(c, NULL, &err);
		return;
	}

	id = json_object_get(obj, "id");
	params = json_object_get(obj, "params");
	json_unpack(obj, "{s:s}", "jsonrpc", &version);
	json_unpack(obj, "{s:s}", "method", &name);
	if (!version || strcmp(version, "2.0") || !name ||
	    (id && !json_is_string(id) && !json_is_integer(id)) ||
	    (params && !json_is_object(params))) {
		rpc_fail(&err, RPC_INVALID_REQUEST, 0,
			 "not a JSON-RPC 2.0 request with named parameters");
		if (!json_is_string(id) && !json_is_integer(id))
			id = NULL;
		answer_error(c, json_incref(id), &err);
		goto out;
	}

	params = params ? json_incref(params) : json_object();
	m = find(name);
	if (m)
		result = m->call(c, params, &err);
	else
		result = rpc_fail(&err, RPC_NO_METHOD, 0, "no method \"%s\"",
				  name);
	json_decref(params);

	if (!id) {
		json_decref(result);	/* a notification gets no answer */
	} else if (result) {
		client_send(c, json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0",
					 "id", id, "result", result));
	} else {
		answer_error(c, json_incref(id), &err);
	}
out:
	json_decref(obj);
}
