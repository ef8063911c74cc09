/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which access, and which tracker, a migration uses
 */
#ifndef MSPD_GUEST_CHOOSE_H
#define MSPD_GUEST_CHOOSE_H

#include <stddef.h>
#include "guest/guest.h"

/* indices of access_words[] and tracker_words[] */
enum access_wish { ACCESS_AUTO, ACCESS_VASI, ACCESS_USER };
enum tracker_wish {
	TRACKER_AUTO, TRACKER_DBIT, TRACKER_WPASYNC, TRACKER_SOFTDIRTY,
};

/* as in settings, attributes and on the wire; end with NULL */
extern const char *const access_words[];
extern const char *const tracker_words[];

/* all accesses, the best first; ends with NULL */
extern const struct guest_access *const guest_accesses[];

/**
 * access_choose - the best access that works on this host
 * @wish: ACCESS_AUTO leaves the choice
 * @tracker: likewise; a tracker is one of an access
 * @ret: the access
 * @ret_query: its limits, may be NULL
 * @why: of success: which it is, and what stands against better ones; else what
 *	is in the way and what to do
 * @len: bytes of @why
 *
 * Sets the tracker of this process, so it is called in the worker; elsewhere it
 * tells whether the worker will succeed.
 *
 * Returns 0 or -errno: -EINVAL, the two wishes exclude each other.
 */
int access_choose(enum access_wish wish, enum tracker_wish tracker,
		  const struct guest_access **ret, struct vasi_query *ret_query,
		  char *why, size_t len);

/* index of @text in @words, -EINVAL */
int word_index(const char *const *words, const char *text);
/* "a, b or c" into @buf, which is returned */
const char *word_list(const char *const *words, char *buf, size_t len);

#endif /* MSPD_GUEST_CHOOSE_H */
