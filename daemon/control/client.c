// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control/client.h"
#include "control/rpc.h"
#include "control/server.h"
#include "log.h"

static void client_free(struct client *c)
{
	struct client **at;

	for (at = &c->server->clients; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	loop_remove(&c->server->loop, &c->watch);
	close(c->fd);
	free(c->in);
	free(c->out);
	free(c);
}

/* writes what the socket takes */
static int flush(struct client *c)
{
	size_t done = 0;
	ssize_t n;

	while (done < c->out_len) {
		n = send(c->fd, c->out + done, c->out_len - done,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		done += n;
	}
	c->out_len -= done;
	memmove(c->out, c->out + done, c->out_len);
	return loop_change(&c->server->loop, &c->watch,
			   EPOLLIN | (c->out_len ? EPOLLOUT : 0));
}

void client_send(struct client *c, json_t *obj)
{
	char *text = obj ? json_dumps(obj, JSON_COMPACT) : NULL;
	size_t len;
	char *p;

	json_decref(obj);
	if (c->dropped)
		goto out;
	if (!text)
		goto drop;
	len = strlen(text);
	if (c->out_len + len + 1 > CLIENT_QUEUE) {
		log_warning("client %llu does not read, dropping it",
			    (unsigned long long)c->number);
		goto drop;
	}
	p = realloc(c->out, c->out_len + len + 1);
	if (!p)
		goto drop;
	c->out = p;
	memcpy(p + c->out_len, text, len);
	p[c->out_len + len] = '\n';
	c->out_len += len + 1;
	if (flush(c) == 0)
		goto out;
drop:
	/* not freed here: a caller may be in the middle of its list */
	c->dropped = true;
	shutdown(c->fd, SHUT_RDWR);
out:
	free(text);
}

void client_notify(struct server *s, uint64_t number, const char *method,
		   json_t *params)
{
	struct client *c;

	for (c = s->clients; c; c = c->next) {
		if (c->number != number)
			continue;
		client_send(c, json_pack("{s:s, s:s, s:O}", "jsonrpc", "2.0",
					 "method", method, "params", params));
		return;
	}
}

static void handle_lines(struct client *c)
{
	size_t done = 0;
	char *end;

	while (!c->dropped &&
	       (end = memchr(c->in + done, '\n', c->in_len - done))) {
		size_t len = end - (c->in + done);

		if (len)
			rpc_handle(c, c->in + done, len);
		done += len + 1;
	}
	c->in_len -= done;
	memmove(c->in, c->in + done, c->in_len);
}

/* -errno: the connection is of no use any more */
static int receive(struct client *c)
{
	ssize_t n;

	n = recv(c->fd, c->in + c->in_len, CLIENT_LINE - c->in_len,
		 MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	c->in_len += n;
	handle_lines(c);
	if (c->in_len == CLIENT_LINE) {
		log_warning("client %llu sends a line above %u bytes, dropping it",
			    (unsigned long long)c->number, CLIENT_LINE);
		return -EMSGSIZE;
	}
	return 0;
}

static void ready(void *arg, uint32_t events)
{
	struct client *c = arg;
	int r = 0;

	if (events & EPOLLOUT)
		r = flush(c);
	if (!r && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		r = receive(c);
	if (r < 0 || c->dropped)
		client_free(c);
}

static bool allowed(const struct server *s, const struct client *c)
{
	if (c->uid == 0 || c->uid == geteuid())
		return true;
	if (s->gid == (gid_t)-1)
		return false;
	for (size_t i = 0; i < c->nr_groups; i++)
		if (c->groups[i] == s->gid)
			return true;
	return c->gid == s->gid;
}

/* tells why before the connection closes; it need not arrive */
static void refuse(int fd, const char *text)
{
	json_t *obj = json_pack("{s:s, s:n, s:{s:i, s:s}}", "jsonrpc", "2.0",
				"id", "error", "code", RPC_FAILED, "message",
				text);

	char *line = obj ? json_dumps(obj, JSON_COMPACT) : NULL;

	if (line && (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0 ||
		     send(fd, "\n", 1, MSG_NOSIGNAL) < 0))
		log_debug("a refused client did not hear why");
	free(line);
	json_decref(obj);
}

void client_accept(struct server *s, int fd)
{
	struct client *c, *other;
	unsigned int count = 0;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	for (other = s->clients; other; other = other->next)
		count++;
	c = count < CLIENT_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c || !(c->in = malloc(CLIENT_LINE))) {
		log_warning("too many clients, dropping a new one");
		refuse(fd, "mspd has too many connections; try again later");
		goto drop;
	}
	c->server = s;
	c->fd = fd;
	c->number = ++s->next_client;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		goto drop;
	c->uid = cred.uid;
	c->gid = cred.gid;
	len = sizeof(c->groups);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, c->groups, &len) < 0)
		goto drop;
	c->nr_groups = len / sizeof(c->groups[0]);
	if (!allowed(s, c)) {
		log_warning("user %u may not use the control socket", c->uid);
		refuse(fd, "you may not use mspd; be root or a member of the group in mspd.conf");
		goto drop;
	}
	if (loop_add(&s->loop, &c->watch, fd, EPOLLIN, ready, c) < 0)
		goto drop;
	c->next = s->clients;
	s->clients = c;
	return;
drop:
	if (c)
		free(c->in);
	free(c);
	close(fd);
}

void client_free_all(struct server *s)
{
	while (s->clients)
		client_free(s->clients);
}
