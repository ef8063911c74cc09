/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kinds of the process itself share
 */
#ifndef MSPD_STATE_PROCESS_H
#define MSPD_STATE_PROCESS_H

#include "state/records.h"
#include "state/resource.h"
#include "state/restore.h"

/* the process record; there is one, mm.c has looked */
static inline const struct vasi_rec_process *
process_record(const struct capture *c)
{
	return record_get(c->records, c->records_len, VASI_REC_PROCESS, 0,
			  sizeof(struct vasi_rec_process));
}

/* findings for everything unmovable in the records */
void held_check(struct capture *c);

/* copies into a protobuf bytes field; -ENOMEM */
int bytes_set(ProtobufCBinaryData *to, const void *data, size_t len);

/* -- mm.c: what a change of credentials changes, too */
int mm_leave(struct restore *r, const Mspd__Image *final);

/* -- vdso.c: before the first mapping, and with the last registers */

/* leaves the shell's vDSO where the guest had its own, or takes it away */
int vdso_place(struct restore *r, const Mspd__Image *early,
	       const Mspd__Maps *shell);

/* -- threads_restore.c */

/* makes the threads that @img has, ends those that it has not */
int threads_match(struct restore *r, const Mspd__Image *img);
/* what a change of credentials changes, too */
int threads_after_creds(struct restore *r, const Mspd__Image *final);
/* restart blocks, then registers and masks: nothing remote can follow */
int threads_leave(struct restore *r, const Mspd__Image *final);

/* -- signals.c */

/* queues @siginfo of thread @tid (0: of the process) */
int signals_queue(struct restore *r, int32_t tid,
		  const ProtobufCBinaryData *info, size_t n);
/* what needs SIGTRAP blocked or ignored, without a trap */
int signals_last(struct restore *r, const Mspd__Image *final);

#endif /* MSPD_STATE_PROCESS_H */
