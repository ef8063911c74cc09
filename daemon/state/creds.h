/* SPDX-License-Identifier: GPL-2.0 */
/* Identity and rights of a thread */
#ifndef MSPD_STATE_CREDS_H
#define MSPD_STATE_CREDS_H

#include <stdbool.h>
#include "state/files.pb-c.h"

/* from /proc/PID/status; all but securebits, which it does not show */
int creds_parse(const char *status, Mspd__Creds *c);
/* all but securebits */
bool creds_equal(const Mspd__Creds *a, const Mspd__Creds *b);

#endif /* MSPD_STATE_CREDS_H */
