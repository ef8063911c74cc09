// SPDX-License-Identifier: GPL-2.0
/*
 * migrlpar, lslparmigr: as the management console of PowerVM calls them
 */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "follow.h"
#include "recover.h"

/* "-o s": the migration of that guest that runs */
static int stop_guest(const struct command *self, const char *name)
{
	json_t *list, *m, *result;
	int id = 0, this, runs;
	const char *guest;
	size_t i;

	list = conn_once(self, "migration.list", NULL);
	if (!list)
		return FAILED;
	json_array_foreach(json_object_get(list, "migrations"), i, m) {
		if (json_unpack(m, "{s:i, s:s, s:b}", "id", &this, "guest",
				&guest, "running", &runs) == 0 &&
		    runs && !strcmp(guest, name))
			id = this;
	}
	json_decref(list);
	if (!id)
		return failed(self, "no migration of guest \"%s\" runs here",
			      name);
	result = conn_once(self, "migration.cancel",
			   json_pack("{s:i}", "id", id));
	if (!result)
		return FAILED;
	json_decref(result);
	return DONE;
}

static int migrlpar(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *op = NULL, *host = NULL, *name = NULL;
	struct follow f = { .detail = DETAIL_WARNINGS };
	json_t *attributes = json_object();
	bool force = false;
	unsigned long v;
	int c, code = MISUSE;

	while ((c = getopt_long(argc, argv, "o:t:p:i:w:d:h", longs,
				NULL)) != -1) {
		switch (c) {
		case 'o':
			op = optarg;
			break;
		case 't':
			host = optarg;
			break;
		case 'p':
			name = optarg;
			break;
		case 'i':
			if (parse_attributes(self, optarg, attributes) != DONE)
				goto out;
			break;
		case 'w':
			if (parse_number(optarg, 0, 60, &v) < 0) {
				misuse(self, "-w takes 0 to 60 minutes");
				goto out;
			}
			json_object_set_new(attributes, "child_wait_ms",
					    json_integer(v * 60000));
			break;
		case 'd':
			if (parse_number(optarg, 0, 5, &v) < 0) {
				misuse(self, "-d takes 0 to 5");
				goto out;
			}
			f.detail = v > 1 ? DETAIL_ALL : v ? DETAIL_WARNINGS :
				   DETAIL_ERRORS;
			break;
		case 'f':
			force = true;
			break;
		case 'h':
			code = help(self);
			goto out;
		default:
			goto out;
		}
	}
	if (optind != argc) {
		misuse(self, "what is \"%s\"?", argv[optind]);
	} else if (!op || strlen(op) != 1 || !strchr("vmsr", *op)) {
		misuse(self, "-o is v (validate), m (migrate), s (stop) or r (recover)");
	} else if (!name) {
		misuse(self, "which guest? (-p)");
	} else if (*op == 's') {
		code = stop_guest(self, name);
	} else if (*op == 'r') {
		code = recover_guest(self, name, force);
	} else if (!host) {
		misuse(self, "to which host? (-t)");
	} else {
		f.validate = *op == 'v';
		return follow(self, f.validate ? "migration.validate" :
			      "migration.start",
			      json_pack("{s:s, s:s, s:o}", "name", name,
					"host", host, "attributes",
					attributes), &f);
	}
out:
	json_decref(attributes);
	return code;
}

const struct command command_migrlpar = {
	.name = "migrlpar",
	.args = "-o v|m|s|r [-t HOST[:PORT]] -p NAME [OPTION]...",
	.text = "Validate, migrate, stop the migration of, or recover a guest",
	.options =
	"  -o OPERATION       v validate, m migrate, s stop and roll back, r recover\n"
	"                     what is in doubt\n"
	"  -t HOST[:PORT]     target, with v and m\n"
	"  -p NAME            guest\n"
	"  -i NAME=VALUE,...  attributes, as in mspctl migrate\n"
	"  -w MINUTES         how long a guest may take to get ready, 0 to 60\n"
	"  -d LEVEL           0 errors only, 1 warnings too, 2 to 5 every check\n"
	"  --force            with r: as in mspctl recover\n"
	"  -h, --help         this text\n",
	.run = migrlpar,
};

static void print_guest(const json_t *g, const json_t *migrations)
{
	const char *name = "", *state = "", *guest, *peer = "", *side, *phase;
	const char *remote = "", *stream = "";
	json_int_t left = 0;
	const json_t *m;
	int runs = 0;
	size_t i;

	json_unpack((json_t *)g, "{s:s, s:s}", "name", &name, "state", &state);
	json_array_foreach(migrations, i, m) {
		if (json_unpack((json_t *)m, "{s:s, s:s, s:s, s:s, s:b}",
				"guest", &guest, "peer", &peer, "side", &side,
				"phase", &phase, "running", &runs) < 0 ||
		    !runs || strcmp(guest, name))
			continue;
		json_unpack((json_t *)m, "{s:{s:I}}", "progress",
			    "remaining_bytes", &left);
		printf("name=%s,migration_state=%s,migration_type=active,side=%s,remote=%s,phase=%s,bytes_remaining=%lld\n",
		       name, state, side, peer, phase, (long long)left);
		return;
	}
	if (!json_unpack((json_t *)g, "{s:{s:s, s:s, s:s}}", "doubt", "side",
			 &side, "remote", &remote, "stream_id", &stream)) {
		printf("name=%s,migration_state=%s,side=%s,remote=%s,stream_id=%s\n",
		       name, state, side, remote, stream);
		return;
	}
	printf("name=%s,migration_state=%s\n", name,
	       strcmp(state, "running") ? state : "not migrating");
}

static int lslparmigr(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	json_t *guests = NULL, *migrations = NULL, *info = NULL, *g;
	bool json = false, limits = false;
	int c, max, source, target, code = FAILED;
	struct conn conn;
	size_t i;

	while ((c = getopt_long(argc, argv, "r:jh", longs, NULL)) != -1) {
		switch (c) {
		case 'r':
			if (strcmp(optarg, "lpar") && strcmp(optarg, "msp"))
				return misuse(self, "-r is lpar or msp");
			limits = !strcmp(optarg, "msp");
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
	if (conn_open(&conn, self) != DONE)
		return FAILED;
	info = conn_call(&conn, "server.info", NULL);
	if (info)
		guests = conn_call(&conn, "guest.list", NULL);
	if (guests)
		migrations = conn_call(&conn, "migration.list", NULL);
	conn_close(&conn);
	if (!migrations)
		goto out;

	code = DONE;
	if (json) {
		g = json_pack("{s:O}", "msp", info);
		json_object_update(g, guests);
		json_object_update(g, migrations);
		print_json(g);
		json_decref(g);
	} else if (limits) {
		json_unpack(info, "{s:i, s:i, s:i}", "max_migrations", &max,
			    "active_source", &source, "active_target", &target);
		printf("num_active_migrations_supported=16,num_active_migrations_configured=%d,num_active_migrations_in_progress=%d,inactive_lpar_mobility_capable=0,active_lpar_mobility_capable=%d\n",
		       max, source + target,
		       json_is_string(json_object_get(info, "access")));
	} else {
		json_array_foreach(json_object_get(guests, "guests"), i, g)
			print_guest(g, json_object_get(migrations,
						       "migrations"));
	}
out:
	json_decref(info);
	json_decref(guests);
	json_decref(migrations);
	return code;
}

const struct command command_lslparmigr = {
	.name = "lslparmigr",
	.args = "[-r lpar|msp] [OPTION]...",
	.text = "List guests with the state of their migration, or the mover's limits",
	.options =
	"  -r lpar|msp        guests (default), or this mover service\n"
	"  -j, --json         both as JSON\n"
	"  -h, --help         this text\n",
	.run = lslparmigr,
};
