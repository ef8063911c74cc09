// SPDX-License-Identifier: GPL-2.0
/*
 * recover: a guest of which it is in doubt who owns it
 */
#include <getopt.h>
#include <string.h>
#include "conn.h"
#include "lib/clock.h"
#include "recover.h"

/* longer than the other side is asked for */
#define PATIENCE_MS	20000
#define LOOK_MS		200

/* what is known of it, borrowed; NULL: it is no guest here any more */
static json_t *look(json_t *list, const char *name)
{
	const char *this;
	json_t *g;
	size_t i;

	json_array_foreach(json_object_get(list, "guests"), i, g) {
		this = json_string_value(json_object_get(g, "name"));
		if (this && !strcmp(this, name))
			return g;
	}
	return NULL;
}

/* -1: not yet, else the exit code */
static int outcome(const struct command *self, const char *name,
		   const json_t *g, int asked)
{
	const char *state = "", *remote = "";
	int now = 0;

	if (!g) {
		printf("%s: there is no copy of it here any more\n", name);
		return DONE;
	}
	json_unpack((json_t *)g, "{s:s, s?{s:s, s:i}}", "state", &state,
		    "doubt", "remote", &remote, "asked", &now);
	if (strcmp(state, "in doubt")) {
		printf("%s runs here\n", name);
		return DONE;
	}
	if (now <= asked)
		return -1;
	failed(self, "%s is in doubt still: %s does not answer; the log of mspd says more",
	       name, remote);
	return IN_DOUBT;
}

int recover_guest(const struct command *self, const char *name, bool force)
{
	int64_t deadline = deadline_in(PATIENCE_MS);
	int code, asked = 0;
	json_t *answer;

	answer = conn_once(self, "guest.recover",
			   json_pack("{s:s, s:b}", "name", name, "force",
				     force));
	if (!answer)
		return FAILED;
	json_unpack(answer, "{s?{s:i}}", "doubt", "asked", &asked);
	json_decref(answer);
	do {
		sleep_ms(LOOK_MS);
		answer = conn_once(self, "guest.list", NULL);
		if (!answer)
			return FAILED;
		code = outcome(self, name, look(answer, name), asked);
		json_decref(answer);
	} while (code < 0 && deadline_left(deadline));
	if (code >= 0)
		return code;
	failed(self, "%s is in doubt still", name);
	return IN_DOUBT;
}

static int recover(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool force = false;
	int c;

	while ((c = getopt_long(argc, argv, "fh", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			force = true;
			break;
		case 'h':
			return help(self);
		default:
			return MISUSE;
		}
	}
	if (optind != argc - 1)
		return misuse(self, "one guest, please");
	return recover_guest(self, argv[optind], force);
}

const struct command command_recover = {
	.name = "recover",
	.args = "[OPTION]... NAME",
	.text = "Settle who owns a guest that is in doubt, by asking the other host",
	.options =
	"  -f, --force        run it here if nobody answers: it then runs twice\n"
	"                     if it runs on the other host\n"
	"  -h, --help         this text\n",
	.run = recover,
};
