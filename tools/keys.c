// SPDX-License-Identifier: GPL-2.0
/*
 * keys: who this host is to others, and whom it trusts. Files only: mspd need
 * not run, and one that does looks at them for each migration.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"
#include "lib/cleanup.h"
#include "mspctl.h"
#include "wire/keys.h"

/**
 * struct keys_call - what is to be done
 * @self: for messages
 * @dir: of the keys
 * @given: @dir is from the command line
 * @config: file that names it
 * @config_given: likewise
 * @name: of a host that is to be trusted
 * @file: its certificate
 * @force: a new key although there is one
 * @json: output as JSON
 * @help: nothing but that
 * @why: room for the reason of a failure
 */
struct keys_call {
	const struct command *self;
	char dir[200];
	bool given;
	const char *config;
	bool config_given;
	const char *name;
	const char *file;
	bool force;
	bool json;
	bool help;
	char why[500];
};

static int said(struct keys_call *k)
{
	return failed(k->self, "%s", k->why);
}

static json_t *cert_json(const struct keys_cert *c)
{
	return json_pack("{s:s, s:s, s:b}", "fingerprint", c->text,
			 "valid_until", c->until, "expired", c->expired);
}

static int keys_init(struct keys_call *k)
{
	struct keys_cert own;
	int ret = keys_make(k->dir, -86400, KEYS_LIFE, k->force, k->why,
			    sizeof(k->why));

	if (ret == -EEXIST)
		return failed(k->self, "%s: it stays; with --force a new one takes its place, and every other host has to trust that anew",
			      k->why);
	if (ret || keys_own(k->dir, &own, k->why, sizeof(k->why)))
		return said(k);
	printf("%s, valid until %s\n", own.text, own.until);
	return DONE;
}

/* it makes what it exports: two hosts are paired by two commands */
static int keys_out(struct keys_call *k)
{
	int ret = keys_make(k->dir, -86400, KEYS_LIFE, false, k->why,
			    sizeof(k->why));

	if (ret && ret != -EEXIST)
		return said(k);
	if (keys_export(k->dir, stdout, k->why, sizeof(k->why)))
		return said(k);
	return DONE;
}

/* "hostb" of /tmp/hostb.pem */
static void name_of_file(const char *file, char *ret, size_t len)
{
	const char *base = strrchr(file, '/');
	char *dot;

	snprintf(ret, len, "%s", base ? base + 1 : file);
	dot = strrchr(ret, '.');
	if (dot && dot != ret)
		*dot = '\0';
}

static int keys_in(struct keys_call *k)
{
	_cleanup_fclose_ FILE *opened = NULL;
	FILE *in = stdin;
	struct keys_cert c;
	char name[256];

	if (!k->file)
		return misuse(k->self, "trust needs a FILE, - is standard input");
	if (strcmp(k->file, "-")) {
		in = opened = fopen(k->file, "re");
		if (!in)
			return failed(k->self, "%s: %m", k->file);
		name_of_file(k->file, name, sizeof(name));
	} else if (!k->name) {
		return misuse(k->self, "what comes from standard input needs a --name");
	}
	if (k->name)
		snprintf(name, sizeof(name), "%s", k->name);
	if (keys_trust(k->dir, name, in, &c, k->why, sizeof(k->why)))
		return said(k);
	printf("%s: %s, valid until %s\n", c.name, c.text, c.until);
	return DONE;
}

static void print_cert(const char *name, const struct keys_cert *c)
{
	printf("%-20s %-12s %s\n", name, c->expired ? "expired" : c->until,
	       c->text);
}

static int keys_list(struct keys_call *k)
{
	_cleanup_free_ struct keys_cert *v = NULL;
	struct keys_cert own;
	bool has_own = !keys_own(k->dir, &own, k->why, sizeof(k->why));
	json_t *obj, *list;
	size_t n;

	if (keys_trusted(k->dir, &v, &n, k->why, sizeof(k->why)))
		return said(k);
	if (k->json) {
		list = json_array();
		for (size_t i = 0; i < n; i++) {
			json_t *c = cert_json(&v[i]);

			json_object_set_new(c, "name", json_string(v[i].name));
			json_array_append_new(list, c);
		}
		obj = json_pack("{s:o?, s:o}", "own",
				has_own ? cert_json(&own) : NULL, "trusted",
				list);
		print_json(obj);
		json_decref(obj);
		return DONE;
	}
	printf("%-20s %-12s %s\n", "NAME", "VALID UNTIL", "FINGERPRINT");
	if (has_own)
		print_cert("(this host)", &own);
	for (size_t i = 0; i < n; i++)
		print_cert(v[i].name, &v[i]);
	return DONE;
}

static const struct {
	const char *name;
	int (*run)(struct keys_call *k);
} verbs[] = {
	{ "init", keys_init },
	{ "export", keys_out },
	{ "trust", keys_in },
	{ "list", keys_list },
};

/* where mspd looks */
static int find_dir(struct keys_call *k)
{
	struct config c;
	int ret;

	if (k->given)
		return DONE;
	config_init(&c);
	ret = config_read(&c, k->config, k->why, sizeof(k->why));
	if (ret && (ret != -ENOENT || k->config_given))
		return said(k);
	snprintf(k->dir, sizeof(k->dir), "%s", c.keys);
	return DONE;
}

static int take_dir(struct keys_call *k, const char *dir)
{
	k->given = true;
	if (snprintf(k->dir, sizeof(k->dir), "%s", dir) >=
	    (int)sizeof(k->dir) || !*dir)
		return misuse(k->self, "--dir needs 1 to %zu characters",
			      sizeof(k->dir) - 1);
	return DONE;
}

static int parse(struct keys_call *k, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "config", required_argument, NULL, 'c' },
		{ "force", no_argument, NULL, 'f' },
		{ "name", required_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "d:c:fn:jh", longs, NULL)) != -1) {
		switch (c) {
		case 'd':
			if (take_dir(k, optarg))
				return MISUSE;
			break;
		case 'c':
			k->config = optarg;
			k->config_given = true;
			break;
		case 'f':
			k->force = true;
			break;
		case 'n':
			k->name = optarg;
			break;
		case 'j':
			k->json = true;
			break;
		case 'h':
			k->help = true;
			return DONE;
		default:
			return MISUSE;
		}
	}
	return DONE;
}

static int keys(const struct command *self, int argc, char **argv)
{
	struct keys_call k = { .self = self, .config = CONFIG_PATH };
	const char *verb;
	int ret = parse(&k, argc, argv);

	if (ret)
		return ret;
	if (k.help)
		return help(self);
	if (optind == argc)
		return misuse(self, "init, export, trust or list?");
	verb = argv[optind++];
	if (!strcmp(verb, "trust") && optind < argc)
		k.file = argv[optind++];
	if (optind != argc)
		return misuse(self, "what is \"%s\"?", argv[optind]);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(verbs[i].name, verb))
			continue;
		ret = find_dir(&k);
		return ret ? ret : verbs[i].run(&k);
	}
	return misuse(self, "no \"%s\"; there are init, export, trust and list",
		      verb);
}

const struct command command_keys = {
	.name = "keys",
	.args = "[OPTION]... init | export | trust FILE | list",
	.text = "Make this host's key, and say which hosts it trusts",
	.options =
	"  -d, --dir DIR      the keys, default as mspd is configured\n"
	"  -c, --config FILE  that configuration, default " CONFIG_PATH "\n"
	"  -f, --force        init: a new key in the place of the one there is\n"
	"  -n, --name NAME    trust: of the host, default that of FILE\n"
	"  -j, --json         list: as JSON\n"
	"  -h, --help         this text\n",
	.run = keys,
};
