// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"
#include "lib/cleanup.h"
#include "log.h"

enum type { TYPE_TEXT, TYPE_UINT, TYPE_PORT, TYPE_LEVEL, TYPE_WORD };

struct key {
	const char *section, *name;
	enum type type;
	size_t offset, size;
	unsigned long min, max;
	const char *const *words;
};

const char *const connections_words[] = { "refuse", "close", NULL };
const char *const tls_words[] = { "required", "off", NULL };

#define KEY(s, n, t, lo, hi) \
	{ #s, #n, t, offsetof(struct config, n), \
	  sizeof(((struct config *)0)->n), lo, hi, NULL }
#define KEY_WORD(s, n)	\
	{ #s, #n, TYPE_WORD, offsetof(struct config, n), \
	  sizeof(((struct config *)0)->n), 0, 0, n##_words }

static const struct key keys[] = {
	KEY(mspd, listen, TYPE_TEXT, 1, 0),
	KEY(mspd, port, TYPE_PORT, 1, UINT16_MAX),
	KEY(mspd, socket, TYPE_TEXT, 1, 0),
	KEY(mspd, state_dir, TYPE_TEXT, 1, 0),
	KEY(mspd, group, TYPE_TEXT, 0, 0),
	KEY(mspd, log_level, TYPE_LEVEL, 0, 0),
	KEY_WORD(mspd, tls),
	KEY(mspd, keys, TYPE_TEXT, 1, 0),
	KEY(mspd, ca, TYPE_TEXT, 0, 0),
	KEY(mspd, max_migrations, TYPE_UINT, 1, 16),
	KEY(migration, streams, TYPE_UINT, 1, 64),
	KEY(migration, max_rounds, TYPE_UINT, 1, 1000),
	KEY(migration, pause_limit_ms, TYPE_UINT, 1, 3600000),
	KEY(migration, suspend_ms, TYPE_UINT, 1, 60000),
	KEY(migration, pause_max_ms, TYPE_UINT, 0, 3600000),
	KEY(migration, child_wait_ms, TYPE_UINT, 0, 3600000),
	KEY_WORD(migration, connections),
	KEY_WORD(migration, access),
	KEY_WORD(migration, tracker),
	KEY_WORD(migration, compression),
	KEY(target, port_low, TYPE_PORT, 0, UINT16_MAX),
	KEY(target, port_high, TYPE_PORT, 0, UINT16_MAX),
	KEY(target, handshake_ms, TYPE_UINT, 100, 600000),
	KEY(target, idle_ms, TYPE_UINT, 100, 3600000),
	KEY(target, max_streams, TYPE_UINT, 1, 64),
	KEY(target, cgroup_root, TYPE_TEXT, 0, 0),
};

struct reading {
	struct config *config;
	FILE *file;
	int line;	/* being parsed */
	int why_line;	/* of the first setting that was refused */
	char why[512];
};

void config_init(struct config *c)
{
	*c = (struct config) {
		/* other hosts only when told to */
		.listen = "127.0.0.1",
		.port = CONFIG_PORT,
		.socket = CONFIG_SOCKET,
		.state_dir = CONFIG_STATE_DIR,
		.log_level = LOG_INFO,
		.tls = TLS_REQUIRED,
		.keys = CONFIG_KEYS,
		.max_migrations = 8,
		.streams = 4,
		.max_rounds = 30,
		.pause_limit_ms = 300,
		.suspend_ms = 5000,
		.child_wait_ms = 30000,
		.connections = CONNECTIONS_REFUSE,
		.handshake_ms = 10000,
		.idle_ms = 30000,
		.max_streams = 64,
		.cgroup_root = "/sys/fs/cgroup/mspd.guests",
	};
}

static int number(const char *text, unsigned long min, unsigned long max,
		  unsigned long *ret)
{
	unsigned long v;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end)
		return -EINVAL;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

/* @ret_why: text for the operator */
static int set(struct config *c, const struct key *k, const char *value,
	       char *ret_why, size_t len)
{
	char *at = (char *)c + k->offset;
	char words[64];
	unsigned long v;
	int r;

	switch (k->type) {
	case TYPE_TEXT:
		if (strlen(value) < k->min || strlen(value) >= k->size) {
			snprintf(ret_why, len, "%s needs %lu to %zu characters",
				 k->name, k->min, k->size - 1);
			return -EINVAL;
		}
		strcpy(at, value);
		return 0;
	case TYPE_UINT:
	case TYPE_PORT:
		r = number(value, k->min, k->max, &v);
		if (r < 0) {
			snprintf(ret_why, len,
				 "%s needs a number from %lu to %lu, not \"%s\"",
				 k->name, k->min, k->max, value);
			return r;
		}
		if (k->type == TYPE_PORT)
			*(uint16_t *)at = v;
		else
			*(unsigned int *)at = v;
		return 0;
	case TYPE_LEVEL:
		r = log_level_parse(value);
		if (r < 0) {
			snprintf(ret_why, len,
				 "%s is error, warning, notice, info or debug",
				 k->name);
			return r;
		}
		*(int *)at = r;
		return 0;
	case TYPE_WORD:
		r = word_index(k->words, value);
		if (r < 0) {
			snprintf(ret_why, len, "%s is %s", k->name,
				 word_list(k->words, words, sizeof(words)));
			return r;
		}
		*(unsigned int *)at = r;
		return 0;
	}
	return -EINVAL;
}

static char *reader(char *str, int num, void *stream)
{
	struct reading *rd = stream;
	char *r = fgets(str, num, rd->file);

	if (r)
		rd->line++;
	return r;
}

static int handler(void *user, const char *section, const char *name,
		   const char *value)
{
	struct reading *rd = user;

	if (rd->why_line)	/* the parser goes on behind an error */
		return 0;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, section) ||
		    strcmp(keys[i].name, name))
			continue;
		if (set(rd->config, &keys[i], value, rd->why,
			sizeof(rd->why)) == 0)
			return 1;
		rd->why_line = rd->line;
		return 0;
	}
	snprintf(rd->why, sizeof(rd->why),
		 "unknown setting \"%s\" in section [%s]", name, section);
	rd->why_line = rd->line;
	return 0;
}

int config_read(struct config *c, const char *path, char *err, size_t len)
{
	struct reading rd = { .config = c };
	_cleanup_fclose_ FILE *f = NULL;
	int line;

	f = fopen(path, "re");
	if (!f) {
		int r = -errno;

		snprintf(err, len, "%s: %s", path, strerror(-r));
		return r;
	}
	rd.file = f;
	line = ini_parse_stream(reader, &rd, handler, &rd);
	if (line < 0 || ferror(f)) {
		snprintf(err, len, "%s: cannot be read", path);
		return -EIO;
	}
	if (line > 0) {
		snprintf(err, len, "%s:%d: %s", path, line,
			 rd.why_line == line ? rd.why :
			 "neither [section] nor name = value");
		return -EINVAL;
	}
	return 0;
}

int config_check(const struct config *c, char *err, size_t len)
{
	if (!c->port_low != !c->port_high || c->port_low > c->port_high) {
		snprintf(err, len, "port_low (%u) and port_high (%u) are no range",
			 c->port_low, c->port_high);
		return -EINVAL;
	}
	if (c->streams > c->max_streams) {
		snprintf(err, len, "streams (%u) is above max_streams (%u)",
			 c->streams, c->max_streams);
		return -EINVAL;
	}
	return 0;
}

int config_split_host(const char *text, char *ret_host, size_t len,
		      uint16_t *ret_port)
{
	const char *host = text, *port = NULL, *end;
	unsigned long v;
	size_t n;
	int r;

	if (*text == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		if (end[1])
			port = end + 2;
	} else {
		end = strchr(host, ':');
		if (end && strchr(end + 1, ':'))
			end = NULL;	/* an IPv6 address without brackets */
		if (end)
			port = end + 1;
		else
			end = host + strlen(host);
	}
	n = end - host;
	if (!n || n >= len)
		return -EINVAL;
	if (port) {
		r = number(port, 1, UINT16_MAX, &v);
		if (r < 0)
			return r;
		*ret_port = v;
	}
	memcpy(ret_host, host, n);
	ret_host[n] = '\0';
	return 0;
}
