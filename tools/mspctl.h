/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the subcommands of mspctl share
 */
#ifndef MSPCTL_H
#define MSPCTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* exit codes of everything here */
#define DONE		0
#define FAILED		1	/* nothing changed, or all was rolled back */
#define MISUSE		2
#define IN_DOUBT	3	/* who owns the guest is not known */

/**
 * struct command - a subcommand, or a tool by its own name
 * @name: how it is called
 * @args: its arguments, for the help
 * @text: what it does, one line
 * @options: its options, for the help; NULL = none
 * @run: argv[0] is its name
 */
struct command {
	const char *name;
	const char *args;
	const char *text;
	const char *options;
	int (*run)(const struct command *self, int argc, char **argv);
};

extern const struct command command_run, command_adopt, command_release,
	command_list, command_info, command_validate, command_migrate,
	command_watch, command_cancel, command_recover, command_track,
	command_keys, command_migrlpar, command_lslparmigr, command_vasistat;

/* path of the daemon's control socket */
extern const char *control_socket;

/* "NAME: ..." on stderr, returns MISUSE */
int misuse(const struct command *self, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* likewise, returns FAILED */
int failed(const struct command *self, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* help on stdout, returns DONE */
int help(const struct command *self);
/* -EINVAL, -ERANGE */
int parse_number(const char *text, unsigned long min, unsigned long max,
		 unsigned long *ret);
/* "4.0 KiB", in a buffer of the caller's */
const char *human_bytes(double bytes, char *buf, size_t len);
/* one JSON object on one line of stdout, at once */
void print_json(const json_t *obj);

#endif /* MSPCTL_H */
