// SPDX-License-Identifier: GPL-2.0
/*
 * run, adopt, release: what is a guest
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "conn.h"
#include "lib/cleanup.h"

extern char **environ;

static int print_guest(json_t *guest, bool json)
{
	const char *name = "", *uuid = "";
	int pid = 0;

	if (!guest)
		return FAILED;
	if (json) {
		print_json(guest);
	} else {
		json_unpack(guest, "{s:s, s:s, s:i}", "name", &name, "uuid",
			    &uuid, "pid", &pid);
		printf("%s: PID %d, UUID %s\n", name, pid, uuid);
	}
	json_decref(guest);
	return DONE;
}

/* @path below @cwd; the daemon has another directory */
static char *absolute(const char *cwd, const char *path)
{
	char *r;

	if (path[0] == '/')
		return strdup(path);
	return asprintf(&r, "%s/%s", cwd, path) < 0 ? NULL : r;
}

static json_t *texts(char **v)
{
	json_t *list = json_array();

	for (; *v; v++) {
		/* what is not UTF-8 cannot be passed on, and is no text */
		if (json_array_append_new(list, json_string(*v)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static int run(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "output", required_argument, NULL, 'o' },
		{ "cwd", required_argument, NULL, 'C' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	_cleanup_free_ char *here = getcwd(NULL, 0), *dir = NULL, *file = NULL;
	const char *name = NULL, *output = NULL, *cwd = ".";
	json_t *args, *env, *params;
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "+n:o:C:jh", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			name = optarg;
			break;
		case 'o':
			output = optarg;
			break;
		case 'C':
			cwd = optarg;
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
	if (!name)
		return misuse(self, "the guest needs a --name");
	if (optind == argc)
		return misuse(self, "which program?");

	dir = strcmp(cwd, ".") ? absolute(here ?: "", cwd) : strdup(here ?: "/");
	file = output ? absolute(here ?: "", output) : NULL;
	args = texts(argv + optind);
	env = texts(environ);
	if (!args || !env || !dir) {
		json_decref(args);
		json_decref(env);
		return failed(self, "an argument or an environment variable is not valid UTF-8");
	}
	params = json_pack("{s:s, s:o, s:o, s:s, s:s*}", "name", name, "argv",
			   args, "env", env, "cwd", dir, "output", file);
	if (!params)
		return failed(self, "an argument is not valid UTF-8");
	return print_guest(conn_once(self, "guest.run", params), json);
}

const struct command command_run = {
	.name = "run",
	.args = "--name NAME [OPTION]... -- COMMAND [ARGUMENT]...",
	.text = "Start a guest in a PID and time namespace of its own",
	.options =
	"  -n, --name NAME    of the guest\n"
	"  -o, --output FILE  append its output there; default: none\n"
	"  -C, --cwd DIR      directory to start in; default: this one\n"
	"  -j, --json         print what was started as JSON\n"
	"  -h, --help         this text\n",
	.run = run,
};

static int adopt(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *name = NULL;
	unsigned long pid;
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "n:jh", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			name = optarg;
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
	if (!name)
		return misuse(self, "the guest needs a --name");
	if (optind != argc - 1)
		return misuse(self, "one PID, please");
	if (parse_number(argv[optind], 1, INT_MAX, &pid) < 0)
		return misuse(self, "\"%s\" is no PID", argv[optind]);
	return print_guest(conn_once(self, "guest.adopt",
				     json_pack("{s:s, s:i}", "name", name,
					       "pid", (int)pid)), json);
}

const struct command command_adopt = {
	.name = "adopt",
	.args = "--name NAME [OPTION]... PID",
	.text = "Make a running process a guest",
	.options =
	"  -n, --name NAME    of the guest\n"
	"  -j, --json         print the guest as JSON\n"
	"  -h, --help         this text\n",
	.run = adopt,
};

static int release(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	json_t *result;
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		return c == 'h' ? help(self) : MISUSE;
	if (optind != argc - 1)
		return misuse(self, "one guest, please");
	result = conn_once(self, "guest.release",
			   json_pack("{s:s}", "name", argv[optind]));
	if (!result)
		return FAILED;
	json_decref(result);
	return DONE;
}

const struct command command_release = {
	.name = "release",
	.args = "NAME",
	.text = "Forget a guest; its process goes on as an ordinary one",
	.options =
	"  -h, --help         this text\n",
	.run = release,
};
