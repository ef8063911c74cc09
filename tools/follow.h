/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Follows a migration and shows it: a line that is rewritten on a terminal,
 * lines otherwise, or JSON
 */
#ifndef MSPCTL_FOLLOW_H
#define MSPCTL_FOLLOW_H

#include "conn.h"

/* how much of the validation is shown */
enum detail { DETAIL_ERRORS, DETAIL_WARNINGS, DETAIL_ALL };

/**
 * struct follow - how to show it
 * @json: one event per line, as it came
 * @detail: of the validation
 * @validate: nothing will move
 */
struct follow {
	bool json;
	enum detail detail;
	bool validate;
};

/*
 * Starts a migration by @method (takes over @params) and follows it to its
 * end, or joins one. An interrupt cancels it, a second one leaves it alone.
 * Returns the exit code.
 */
int follow(const struct command *self, const char *method, json_t *params,
	   const struct follow *f);
/* "name=value,..." added to @attributes; DONE or MISUSE with a message */
int parse_attributes(const struct command *self, const char *text,
		     json_t *attributes);

#endif /* MSPCTL_FOLLOW_H */
