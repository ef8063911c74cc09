/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every attribute that a process has, and what becomes of it
 *
 * What nobody restores would silently be inherited from the daemon. So each
 * attribute is a row, and each row says how it is dealt with and by whom.
 */
#ifndef MSPD_STATE_CENSUS_H
#define MSPD_STATE_CENSUS_H

#include "state/resource.h"

enum census_outcome {
	CENSUS_RESTORED,	/* as it was on the source */
	CENSUS_VERIFIED,	/* has one value only, here and there */
	CENSUS_REFUSED,		/* a guest that has it is not moved */
	CENSUS_NEW,		/* the target's own, as documented */
};

/**
 * struct census_row - an attribute
 * @attribute: its name
 * @outcome: what becomes of it
 * @by: resource that deals with it
 * @how: in a few words
 * @check: looks at it, for rows that no resource of their own deals with
 */
struct census_row {
	const char *attribute;
	enum census_outcome outcome;
	const struct resource *by;
	const char *how;
	int (*check)(struct capture *c);
};

extern const struct census_row census[];
extern const size_t nr_census;
const char *census_outcome_name(enum census_outcome outcome);

#endif /* MSPD_STATE_CENSUS_H */
