// SPDX-License-Identifier: GPL-2.0
/*
 * validate, migrate, watch, cancel
 */
#include <getopt.h>
#include <limits.h>
#include "follow.h"

static int move(const struct command *self, int argc, char **argv,
		bool validate)
{
	static const struct option longs[] = {
		{ "attributes", required_argument, NULL, 'i' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct follow f = {
		.detail = validate ? DETAIL_ALL : DETAIL_WARNINGS,
		.validate = validate,
	};
	json_t *attributes = json_object();
	int c, code;

	while ((c = getopt_long(argc, argv, "i:jh", longs, NULL)) != -1) {
		switch (c) {
		case 'i':
			code = parse_attributes(self, optarg, attributes);
			if (code == DONE)
				break;
			goto out;
		case 'j':
			f.json = true;
			break;
		case 'h':
			code = help(self);
			goto out;
		default:
			code = MISUSE;
			goto out;
		}
	}
	if (argc - optind != 2) {
		code = misuse(self, "which guest, and to which host?");
		goto out;
	}
	return follow(self, validate ? "migration.validate" : "migration.start",
		      json_pack("{s:s, s:s, s:o}", "name", argv[optind],
				"host", argv[optind + 1], "attributes",
				attributes), &f);
out:
	json_decref(attributes);
	return code;
}

static int validate(const struct command *self, int argc, char **argv)
{
	return move(self, argc, argv, true);
}

static int migrate(const struct command *self, int argc, char **argv)
{
	return move(self, argc, argv, false);
}

#define MOVE_OPTIONS \
	"  -i, --attributes NAME=VALUE,...\n" \
	"                     streams=N          data connections, 1 to 64\n" \
	"                     pause_limit_ms=N   stop the guest when the predicted\n" \
	"                                        pause is below\n" \
	"                     max_rounds=N       at most so many rounds\n" \
	"                     suspend_ms=N       deadline for stopping its threads\n" \
	"                     pause_max_ms=N     roll back when it stands still longer\n" \
	"                     child_wait_ms=N    wait so long for child processes to end\n" \
	"                     connections=refuse|close\n" \
	"                                        what to do about established connections\n" \
	"                     access=auto|vasi|user\n" \
	"                                        how the guest is reached\n" \
	"                     tracker=auto|dbit|wpasync|softdirty\n" \
	"                                        how its writes are found\n" \
	"                     compression=auto|off|lz4|zstd\n" \
	"                                        of its pages on the wire\n" \
	"  -j, --json         one event per line as JSON\n" \
	"  -h, --help         this text\n"

const struct command command_validate = {
	.name = "validate",
	.args = "[OPTION]... NAME HOST[:PORT]",
	.text = "Tell whether a guest could be moved, and what stands against it",
	.options = MOVE_OPTIONS,
	.run = validate,
};

const struct command command_migrate = {
	.name = "migrate",
	.args = "[OPTION]... NAME HOST[:PORT]",
	.text = "Move a running guest to another host",
	.options = MOVE_OPTIONS,
	.run = migrate,
};

/* the only argument: number of a migration */
static int parse_id(const struct command *self, int argc, char **argv,
		    unsigned long *ret)
{
	if (argc - optind != 1)
		return misuse(self, "which migration? (mspctl list --migrations)");
	if (parse_number(argv[optind], 1, INT_MAX, ret) < 0)
		return misuse(self, "\"%s\" is no number of a migration",
			      argv[optind]);
	return DONE;
}

static int watch(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct follow f = { .detail = DETAIL_WARNINGS };
	unsigned long id;
	int c;

	while ((c = getopt_long(argc, argv, "jh", longs, NULL)) != -1) {
		switch (c) {
		case 'j':
			f.json = true;
			break;
		case 'h':
			return help(self);
		default:
			return MISUSE;
		}
	}
	if (parse_id(self, argc, argv, &id) != DONE)
		return MISUSE;
	return follow(self, "migration.watch",
		      json_pack("{s:i}", "id", (int)id), &f);
}

const struct command command_watch = {
	.name = "watch",
	.args = "[OPTION]... ID",
	.text = "Follow a migration that was started elsewhere",
	.options =
	"  -j, --json         one event per line as JSON\n"
	"  -h, --help         this text\n",
	.run = watch,
};

static int cancel(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	json_t *result;
	unsigned long id;
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		return c == 'h' ? help(self) : MISUSE;
	if (parse_id(self, argc, argv, &id) != DONE)
		return MISUSE;
	result = conn_once(self, "migration.cancel",
			   json_pack("{s:i}", "id", (int)id));
	if (!result)
		return FAILED;
	json_decref(result);
	return DONE;
}

const struct command command_cancel = {
	.name = "cancel",
	.args = "ID",
	.text = "Roll a migration back, as long as the guest was not handed over",
	.options =
	"  -h, --help         this text\n",
	.run = cancel,
};
