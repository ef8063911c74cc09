/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Programs of one page: the shell that becomes the guest, and the reaper
 *
 * They have no libc, no data and no stack use of their own, so a guest starts
 * with nothing registered (rseq, robust list, signal handlers) and little to
 * unmap. The code of the shell also is what the blob of remote.h runs.
 */
#ifndef MSPD_STATE_SHELL_H
#define MSPD_STATE_SHELL_H

#include <stddef.h>
#include <stdint.h>

/* where the page of a program is mapped, and its code in it */
#define SHELL_ADDR	0x10000UL
#define SHELL_CODE	0x100UL

/* offsets of the two entries of the remote code */
extern const size_t remote_code_table;	/* r12 table, r13 entries, then trap */
/* the other entry is offset 0: one call from registers, then trap */
extern const size_t remote_code_trapped; /* where a thread is behind that trap */

enum shell_program { SHELL_GUEST, SHELL_REAPER };

/* executable memfd with a program, close-on-exec */
int shell_memfd(enum shell_program program);
/* copies the remote code, returns its length */
size_t remote_code_copy(void *to);

#endif /* MSPD_STATE_SHELL_H */
