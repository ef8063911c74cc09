// SPDX-License-Identifier: GPL-2.0
/*
 * mspctl: the operator's side of mspd
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"
#include "lib/cleanup.h"
#include "mspctl.h"

const char *control_socket = CONFIG_SOCKET;

static const struct command * const commands[] = {
	&command_run, &command_adopt, &command_release, &command_list,
	&command_info, &command_validate, &command_migrate, &command_watch,
	&command_cancel, &command_recover, &command_track, &command_keys,
};

/* these have names of their own, and are subcommands too */
static const struct command * const by_name[] = {
	&command_migrlpar, &command_lslparmigr, &command_vasistat,
};

int misuse(const struct command *self, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", self->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (%s --help)\n", self->name);
	return MISUSE;
}

int failed(const struct command *self, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", self->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return FAILED;
}

static bool has_own_name(const struct command *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(by_name); i++)
		if (by_name[i] == c)
			return true;
	return false;
}

int help(const struct command *self)
{
	printf("Usage: %s%s%s%s\n%s\n", has_own_name(self) ? "" : "mspctl ",
	       self->name, *self->args ? " " : "", self->args, self->text);
	if (self->options)
		printf("\n%s", self->options);
	return DONE;
}

int parse_number(const char *text, unsigned long min, unsigned long max,
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

const char *human_bytes(double bytes, char *buf, size_t len)
{
	static const char * const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	size_t i = 0;

	while (bytes >= 1024 && i < ARRAY_SIZE(units) - 1) {
		bytes /= 1024;
		i++;
	}
	snprintf(buf, len, i ? "%.1f %s" : "%.0f %s", bytes, units[i]);
	return buf;
}

void print_json(const json_t *obj)
{
	json_dumpf(obj, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
}

static int usage(void)
{
	printf("Usage: mspctl [-s PATH] COMMAND [ARGUMENT]...\n"
	       "Controls the mover service of this host, mspd.\n"
	       "\n"
	       "  -s, --socket PATH  control socket of mspd, default %s\n"
	       "  -h, --help         this text; after a command: its help\n"
	       "  -V, --version      version\n"
	       "\n"
	       "Commands:\n", CONFIG_SOCKET);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-11s%s\n", commands[i]->name, commands[i]->text);
	for (size_t i = 0; i < ARRAY_SIZE(by_name); i++)
		printf("  %-11s%s\n", by_name[i]->name, by_name[i]->text);
	return DONE;
}

static const struct command *find(const struct command * const *table,
				  size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(table[i]->name, name))
			return table[i];
	return NULL;
}

static int run(const struct command *c, int argc, char **argv)
{
	/* the subcommands parse from the start again */
	optind = 0;
	return c->run(c, argc, argv);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const char *env = getenv("MSPD_SOCKET");
	const struct command *c;
	int opt;

	if (env && *env)
		control_socket = env;
	c = argc > 0 ? find(by_name, ARRAY_SIZE(by_name), basename(argv[0])) :
	    NULL;
	if (c)
		return run(c, argc, argv);

	while ((opt = getopt_long(argc, argv, "+s:hV", longs, NULL)) != -1) {
		switch (opt) {
		case 's':
			control_socket = optarg;
			break;
		case 'h':
			return usage();
		case 'V':
			puts("mspctl " VASI_VERSION);
			return DONE;
		default:
			return MISUSE;
		}
	}
	if (optind == argc) {
		fprintf(stderr, "mspctl: which command? (mspctl --help)\n");
		return MISUSE;
	}
	c = find(commands, ARRAY_SIZE(commands), argv[optind]) ?:
	    find(by_name, ARRAY_SIZE(by_name), argv[optind]);
	if (!c) {
		fprintf(stderr, "mspctl: no command \"%s\" (mspctl --help)\n",
			argv[optind]);
		return MISUSE;
	}
	return run(c, argc - optind, argv + optind);
}
