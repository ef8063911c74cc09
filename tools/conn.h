/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A connection to mspd's control socket
 */
#ifndef MSPCTL_CONN_H
#define MSPCTL_CONN_H

#include <jansson.h>
#include <stddef.h>
#include "mspctl.h"

/**
 * struct conn - one connection
 * @self: for messages
 * @fd: socket
 * @buf: what has come
 * @len: bytes of it
 * @next_id: of the next request
 */
struct conn {
	const struct command *self;
	int fd;
	char *buf;
	size_t len;
	int next_id;
};

/* DONE, or FAILED with a message */
int conn_open(struct conn *c, const struct command *self);
void conn_close(struct conn *c);
/*
 * One request; takes over @params. Returns the result, or NULL with a message.
 * Notifications that come before the answer are not for this call: none do.
 */
json_t *conn_call(struct conn *c, const char *method, json_t *params);
/* sends without waiting; the answer comes with conn_next() */
int conn_send(struct conn *c, const char *method, json_t *params);
/* the next object; NULL: -EINTR in @ret_error, or the connection is lost */
json_t *conn_next(struct conn *c, int *ret_error);
/* open, call, close; NULL with a message */
json_t *conn_once(const struct command *self, const char *method,
		  json_t *params);

#endif /* MSPCTL_CONN_H */
