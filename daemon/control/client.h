/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Connections on the control socket: JSON-RPC 2.0, one object per line
 *
 * A client that sends too much without a line end, or does not read what it
 * gets, is dropped; it never blocks the supervisor.
 */
#ifndef MSPD_CONTROL_CLIENT_H
#define MSPD_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>
#include "control/loop.h"

struct server;

#define CLIENT_MAX		64
#define CLIENT_LINE		(1U << 20)
#define CLIENT_QUEUE		(4U << 20)
#define CLIENT_GROUPS		256

/**
 * struct client - one connection
 * @next: in the server
 * @server: it belongs to
 * @number: never used twice
 * @fd: nonblocking
 * @watch: of @fd
 * @uid: of the peer
 * @gid: of the peer
 * @groups: supplementary groups of the peer
 * @nr_groups: how many
 * @in: what has come of a line
 * @in_len: bytes of it
 * @out: what has not been taken yet
 * @out_len: bytes of it
 * @dropped: to be freed when its handler returns
 */
struct client {
	struct client *next;
	struct server *server;
	uint64_t number;
	int fd;
	struct watch watch;
	uid_t uid;
	gid_t gid;
	gid_t groups[CLIENT_GROUPS];
	size_t nr_groups;
	char *in;
	size_t in_len;
	char *out;
	size_t out_len;
	bool dropped;
};

/* takes an accepted connection, closes it if the peer may not be here */
void client_accept(struct server *s, int fd);
/* sends one line; takes over @obj */
void client_send(struct client *c, json_t *obj);
/* likewise as a notification, to a client that may have gone */
void client_notify(struct server *s, uint64_t number, const char *method,
		   json_t *params);
void client_free_all(struct server *s);

#endif /* MSPD_CONTROL_CLIENT_H */
