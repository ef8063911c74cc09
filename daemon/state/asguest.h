/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Work done under the file system identity of a guest
 *
 * A description keeps the credentials of who opened it, and file servers see
 * them: what a guest of uid 1000 opened must not become root's.
 */
#ifndef MSPD_STATE_ASGUEST_H
#define MSPD_STATE_ASGUEST_H

#include "state/files.pb-c.h"

/*
 * Runs @fn(@arg) in a thread of its own, which shares this process's
 * descriptors and has the fsuid, fsgid and groups of @creds (NULL = unchanged).
 * Returns what @fn returns, or -errno.
 */
int as_guest(const Mspd__Creds *creds, int (*fn)(void *arg), void *arg);

#endif /* MSPD_STATE_ASGUEST_H */
