/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The methods of the control socket
 */
#ifndef MSPD_CONTROL_RPC_H
#define MSPD_CONTROL_RPC_H

#include <jansson.h>
#include "control/client.h"

/* error codes of JSON-RPC 2.0 */
#define RPC_PARSE		-32700
#define RPC_INVALID_REQUEST	-32600
#define RPC_NO_METHOD		-32601
#define RPC_INVALID_PARAMS	-32602
#define RPC_INTERNAL		-32603
/* ours: understood, but it cannot be done; data.errno says which kind */
#define RPC_FAILED		-32000

/**
 * struct rpc_error - why a method failed
 * @code: RPC_*
 * @error: positive errno with RPC_FAILED
 * @text: for the operator: the cause and what to do
 */
struct rpc_error {
	int code;
	int error;
	char text[1024];
};

/**
 * struct rpc_method - one entry of a table that ends with a NULL name
 * @name: "noun.verb"
 * @call: returns the result, or NULL with @err filled by rpc_fail()
 */
struct rpc_method {
	const char *name;
	json_t *(*call)(struct client *c, json_t *params, struct rpc_error *err);
};

/* returns NULL, for "return rpc_fail(...)" */
json_t *rpc_fail(struct rpc_error *err, int code, int error,
		 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* handles one line, answers */
void rpc_handle(struct client *c, const char *line, size_t len);

extern const struct rpc_method guest_methods[];
extern const struct rpc_method migration_methods[];
extern const struct rpc_method server_methods[];

#endif /* MSPD_CONTROL_RPC_H */
