/* SPDX-License-Identifier: GPL-2.0 */
#ifndef MSPD_SESSION_KNOWN_H
#define MSPD_SESSION_KNOWN_H

#include "lib/pagemap.h"
#include "state/process.pb-c.h"

/* pages from @start to @end were known, and are lost; 0 or -errno */
typedef int known_lost(void *arg, uint64_t start, uint64_t end);

/*
 * The mappings change from @from (NULL: none) to @to: forgets what the target
 * loses by it, and tells @lost (NULL: nobody) of it before. Both sides call it
 * with the same lists, so that they go on knowing the same. 0, -ENOMEM or what
 * @lost returns.
 */
int known_follow(struct pagemap *known, const Mspd__Maps *from,
		 const Mspd__Maps *to, known_lost *lost, void *arg);
/* 0 if nothing is lost or new on the way from @from to @to, else -EPROTO */
int known_keeps(const Mspd__Maps *from, const Mspd__Maps *to);

#endif /* MSPD_SESSION_KNOWN_H */
