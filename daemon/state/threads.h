/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Threads: between the source's and the target's file
 */
#ifndef MSPD_STATE_THREADS_H
#define MSPD_STATE_THREADS_H

#include "state/restore.h"

#define SIGINFO_BYTES	128

/* the register set of ELF note type @note, NULL */
const Mspd__Regset *thread_regset(const Mspd__Thread *t, uint32_t note);
/* siginfos of a record as repeated bytes; counts what was made on failure */
int siginfos_set(ProtobufCBinaryData **to, size_t *ret_n,
		 const struct vasi_record *rec);

int threads_prepare(struct restore *r, const Mspd__Image *early);
int threads_finish(struct restore *r, const Mspd__Image *final);

#endif /* MSPD_STATE_THREADS_H */
