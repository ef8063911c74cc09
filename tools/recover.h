/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MSPCTL_RECOVER_H
#define MSPCTL_RECOVER_H

#include "mspctl.h"

/* has the daemon settle it now, waits for what comes of it; the exit code */
int recover_guest(const struct command *self, const char *name, bool force);

#endif /* MSPCTL_RECOVER_H */
