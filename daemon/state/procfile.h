/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whole text of files in /proc
 */
#ifndef MSPD_STATE_PROCFILE_H
#define MSPD_STATE_PROCFILE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Reads @name in the directory @dir, of at most a bounded size, with a NUL
 * behind its @ret_len (may be NULL) bytes. -ESRCH: the process is gone.
 */
int procfile_read(int dir, const char *name, char **ret, size_t *ret_len);
/* value of "KEY:\tVALUE" in a status file, NULL; ends at the newline */
const char *procfile_field(const char *text, const char *key);

#endif /* MSPD_STATE_PROCFILE_H */
