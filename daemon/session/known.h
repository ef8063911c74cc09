/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MSPD_SESSION_KNOWN_H
#define MSPD_SESSION_KNOWN_H

#include "lib/pagemap.h"
#include "state/process.pb-c.h"

/*
 * The mappings change from @from (NULL: none) to @to: forgets what the target
 * loses by it. Both sides call it with the same lists, so that they go on
 * knowing the same. 0 or -ENOMEM.
 */
int known_follow(struct pagemap *known, const Mspd__Maps *from,
		 const Mspd__Maps *to);

#endif /* MSPD_SESSION_KNOWN_H */
