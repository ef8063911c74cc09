// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "conn.h"
#include "lib/cleanup.h"

/* mspd never sends a longer line than what it queues */
#define LINE_MAX_BYTES	(8U << 20)

int conn_open(struct conn *c, const struct command *self)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	*c = (struct conn) { .self = self, .fd = -1 };
	if (strlen(control_socket) >= sizeof(addr.sun_path))
		return failed(self, "%s: the path is too long", control_socket);
	strcpy(addr.sun_path, control_socket);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return failed(self, "socket: %s", strerror(errno));
	if (connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int error = errno;

		conn_close(c);
		if (error == ENOENT || error == ECONNREFUSED)
			return failed(self, "%s: no mspd listens there; start it (systemctl start mspd), or name its socket by --socket or MSPD_SOCKET",
				      control_socket);
		if (error == EACCES)
			return failed(self, "%s: permission denied; be root or a member of the group in mspd.conf",
				      control_socket);
		return failed(self, "%s: %s", control_socket, strerror(error));
	}
	return DONE;
}

void conn_close(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buf);
	c->fd = -1;
	c->buf = NULL;
}

int conn_send(struct conn *c, const char *method, json_t *params)
{
	_cleanup_free_ char *text = NULL;
	size_t len, done = 0;
	json_t *obj;
	ssize_t n;

	obj = json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id",
			++c->next_id, "method", method, "params",
			params ?: json_object());
	text = obj ? json_dumps(obj, JSON_COMPACT) : NULL;
	json_decref(obj);
	if (!text)
		return failed(c->self, "an argument is not valid UTF-8");
	len = strlen(text);
	text[len++] = '\n';	/* in the place of the NUL */
	while (done < len) {
		n = send(c->fd, text + done, len - done, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EPIPE)
			break;	/* it may have said why before it closed */
		if (n < 0)
			return failed(c->self, "mspd: %s", strerror(errno));
		done += n;
	}
	return DONE;
}

json_t *conn_next(struct conn *c, int *ret_error)
{
	json_t *obj;
	ssize_t n;
	char *end, *p;

	for (;;) {
		end = c->buf ? memchr(c->buf, '\n', c->len) : NULL;
		if (end) {
			obj = json_loadb(c->buf, end - c->buf, 0, NULL);
			c->len -= end + 1 - c->buf;
			memmove(c->buf, end + 1, c->len);
			*ret_error = obj ? 0 : -EPROTO;
			return obj;
		}
		if (c->len >= LINE_MAX_BYTES) {
			*ret_error = -EMSGSIZE;
			return NULL;
		}
		p = realloc(c->buf, c->len + 65536);
		if (!p) {
			*ret_error = -ENOMEM;
			return NULL;
		}
		c->buf = p;
		n = recv(c->fd, c->buf + c->len, 65536, 0);
		if (n <= 0) {
			*ret_error = n < 0 ? -errno : -EPIPE;
			return NULL;
		}
		c->len += n;
	}
}

json_t *conn_call(struct conn *c, const char *method, json_t *params)
{
	json_t *answer, *result;
	const char *text = NULL;
	int error;

	if (conn_send(c, method, params) != DONE)
		return NULL;
	do {
		answer = conn_next(c, &error);
	} while (!answer && error == -EINTR);
	if (!answer) {
		failed(c->self, error == -EPIPE || error == -ECONNRESET ?
		       "mspd closed the connection; its log says why" :
		       "mspd: %s", strerror(-error));
		return NULL;
	}
	result = json_incref(json_object_get(answer, "result"));
	if (!result) {
		json_unpack(answer, "{s:{s:s}}", "error", "message", &text);
		failed(c->self, "%s", text ?: "mspd answers what is no answer");
	}
	json_decref(answer);
	return result;
}

json_t *conn_once(const struct command *self, const char *method,
		  json_t *params)
{
	struct conn c;
	json_t *result;

	if (conn_open(&c, self) != DONE) {
		json_decref(params);
		return NULL;
	}
	result = conn_call(&c, method, params);
	conn_close(&c);
	return result;
}
