// SPDX-License-Identifier: GPL-2.0
/*
 * list, info: what there is
 */
#include <getopt.h>
#include <string.h>
#include <time.h>
#include "conn.h"

/* whoever looks at the list sees that it was so configured */
static void print_insecure(const json_t *answer)
{
	const char *tls = json_string_value(json_object_get(answer, "tls"));

	if (tls && !strcmp(tls, "off"))
		puts("insecure: tls = off, other hosts are neither authenticated, nor is anything encrypted");
}

static void print_guests(const json_t *answer)
{
	const char *name, *uuid, *state, *origin;
	json_int_t since;
	size_t i;
	json_t *g;
	struct tm tm;
	char when[32];
	time_t t;
	int pid;

	printf("%-20s %7s %-10s %-19s %-16s %s\n", "NAME", "PID", "STATE",
	       "SINCE", "FROM", "UUID");
	json_array_foreach(json_object_get(answer, "guests"), i, g) {
		if (json_unpack(g, "{s:s, s:s, s:i, s:s, s:I, s:s}", "name",
				&name, "uuid", &uuid, "pid", &pid, "state",
				&state, "since", &since, "origin", &origin) < 0)
			continue;
		t = since;
		localtime_r(&t, &tm);
		strftime(when, sizeof(when), "%F %T", &tm);
		printf("%-20s %7d %-10s %-19s %-16s %s\n", name, pid, state,
		       when, *origin ? origin : "-", uuid);
	}
}

static void print_migrations(const json_t *answer)
{
	const char *guest, *side, *peer, *phase, *state;
	json_int_t ms;
	int id, runs, ok;
	json_t *m;
	size_t i;

	printf("%4s %-20s %-6s %-24s %-10s %-12s %9s\n", "ID", "GUEST", "SIDE",
	       "PEER", "STATE", "PHASE", "SECONDS");
	json_array_foreach(json_object_get(answer, "migrations"), i, m) {
		if (json_unpack(m, "{s:i, s:s, s:s, s:s, s:s, s:b, s:I}", "id",
				&id, "guest", &guest, "side", &side, "peer",
				&peer, "phase", &phase, "running", &runs,
				"elapsed_ms", &ms) < 0)
			continue;
		ok = 0;
		json_unpack(m, "{s:{s:b}}", "result", "ok", &ok);
		state = runs ? "running" : ok ? "done" : "failed";
		printf("%4d %-20s %-6s %-24s %-10s %-12s %9.1f\n", id, guest,
		       side, peer, state, phase, ms / 1000.0);
	}
}

static int list(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "migrations", no_argument, NULL, 'm' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false, migrations = false;
	json_t *answer;
	int c;

	while ((c = getopt_long(argc, argv, "mjh", longs, NULL)) != -1) {
		switch (c) {
		case 'm':
			migrations = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			return help(self);
		default:
			return MISUSE;
		}
	}
	if (optind != argc)
		return misuse(self, "what is \"%s\"?", argv[optind]);
	answer = conn_once(self, migrations ? "migration.list" : "guest.list",
			   NULL);
	if (!answer)
		return FAILED;
	if (json)
		print_json(answer);
	else if (migrations)
		print_migrations(answer);
	else
		print_guests(answer);
	if (!json)
		print_insecure(answer);
	json_decref(answer);
	return DONE;
}

const struct command command_list = {
	.name = "list",
	.args = "[OPTION]...",
	.text = "List the guests of this host, or its migrations",
	.options =
	"  -m, --migrations   those that run and the last that ended\n"
	"  -j, --json         as JSON\n"
	"  -h, --help         this text\n",
	.run = list,
};

static int info(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false;
	json_t *answer, *value;
	const char *name;
	int c;

	while ((c = getopt_long(argc, argv, "jh", longs, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			return help(self);
		default:
			return MISUSE;
		}
	}
	if (optind != argc)
		return misuse(self, "what is \"%s\"?", argv[optind]);
	answer = conn_once(self, "server.info", NULL);
	if (!answer)
		return FAILED;
	if (json) {
		print_json(answer);
	} else {
		json_object_foreach(answer, name, value) {
			printf("%-16s ", name);
			if (json_is_string(value))
				puts(json_string_value(value));
			else if (json_is_boolean(value))
				puts(json_is_true(value) ? "yes" : "no");
			else
				printf("%" JSON_INTEGER_FORMAT "\n",
				       json_integer_value(value));
		}
	}
	json_decref(answer);
	return DONE;
}

const struct command command_info = {
	.name = "info",
	.args = "[OPTION]...",
	.text = "Show the daemon, its limits and whether /dev/vasi is usable",
	.options =
	"  -j, --json         as JSON\n"
	"  -h, --help         this text\n",
	.run = info,
};
