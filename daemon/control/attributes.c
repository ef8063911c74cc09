// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "control/attributes.h"
#include "lib/cleanup.h"

static const struct {
	const char *name;
	size_t offset;
	unsigned long min, max;
} numbers[] = {
	{ "streams", offsetof(struct migration, streams), 1, 64 },
	{ "max_rounds", offsetof(struct migration, max_rounds), 1, 1000 },
	{ "pause_limit_ms", offsetof(struct migration, pause_limit_ms), 1,
	  3600000 },
	{ "suspend_ms", offsetof(struct migration, suspend_ms), 1, 60000 },
	{ "pause_max_ms", offsetof(struct migration, pause_max_ms), 0,
	  3600000 },
	{ "child_wait_ms", offsetof(struct migration, child_wait_ms), 0,
	  3600000 },
};

static const struct {
	const char *name;
	size_t offset;
	const char *const *words;
} choices[] = {
	{ "connections", offsetof(struct migration, connections),
	  connections_words },
	{ "access", offsetof(struct migration, access), access_words },
	{ "tracker", offsetof(struct migration, tracker), tracker_words },
	{ "compression", offsetof(struct migration, compression),
	  compression_words },
};

void attributes_init(struct migration *m, const struct config *c)
{
	m->streams = c->streams;
	m->max_rounds = c->max_rounds;
	m->pause_limit_ms = c->pause_limit_ms;
	m->suspend_ms = c->suspend_ms;
	m->pause_max_ms = c->pause_max_ms;
	m->child_wait_ms = c->child_wait_ms;
	m->connections = c->connections;
	m->access = c->access;
	m->tracker = c->tracker;
	m->compression = c->compression;
}

static int number(struct migration *m, size_t i, const char *text, char *err,
		  size_t len)
{
	unsigned long v = 0;
	char *end = NULL;

	if (text[0] >= '0' && text[0] <= '9') {
		errno = 0;
		v = strtoul(text, &end, 10);
		if (errno)
			end = NULL;
	}
	if (!end || *end || v < numbers[i].min || v > numbers[i].max) {
		snprintf(err, len, "%s needs a number from %lu to %lu, not \"%s\"",
			 numbers[i].name, numbers[i].min, numbers[i].max, text);
		return -EINVAL;
	}
	*(unsigned int *)((char *)m + numbers[i].offset) = v;
	return 0;
}

static int choice(struct migration *m, size_t i, const char *text, char *err,
		  size_t len)
{
	int v = word_index(choices[i].words, text);
	char words[64];

	if (v < 0) {
		snprintf(err, len, "%s is %s, not \"%s\"", choices[i].name,
			 word_list(choices[i].words, words, sizeof(words)),
			 text);
		return v;
	}
	*(unsigned int *)((char *)m + choices[i].offset) = v;
	return 0;
}

static int apply(struct migration *m, const char *name, const char *text,
		 char *err, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!strcmp(numbers[i].name, name))
			return number(m, i, text, err, len);

	for (size_t i = 0; i < ARRAY_SIZE(choices); i++)
		if (!strcmp(choices[i].name, name))
			return choice(m, i, text, err, len);

	snprintf(err, len, "no attribute \"%s\"; there are streams, max_rounds, pause_limit_ms, suspend_ms, pause_max_ms, child_wait_ms, connections, access, tracker and compression",
		 name);
	return -EINVAL;
}

int attributes_apply(struct migration *m, json_t *obj, char *err, size_t len)
{
	const char *name;
	json_t *value;
	char text[32];
	int r;

	json_object_foreach(obj, name, value) {
		if (json_is_integer(value)) {
			snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT,
				 json_integer_value(value));
		} else if (!json_is_string(value)) {
			snprintf(err, len, "attribute %s needs a text or a number",
				 name);
			return -EINVAL;
		}
		r = apply(m, name, json_is_string(value) ?
			  json_string_value(value) : text, err, len);
		if (r < 0)
			return r;
	}
	return 0;
}
