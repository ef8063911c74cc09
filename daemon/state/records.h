/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading the records that VASI_STATE wrote. Pure.
 */
#ifndef MSPD_STATE_RECORDS_H
#define MSPD_STATE_RECORDS_H

#include <stddef.h>
#include <stdint.h>
#include <linux/vasi.h>

/* Are these @len bytes a chain of whole records? 0 or -EPROTO */
int records_valid(const void *buf, size_t len);

/* the record behind @prev (NULL: the first); NULL at the end */
const struct vasi_record *record_next(const void *buf, size_t len,
				      const struct vasi_record *prev);
/* the first record of @type about @tid; NULL if there is none */
const struct vasi_record *record_find(const void *buf, size_t len,
				      uint16_t type, int32_t tid);

static inline const void *record_payload(const struct vasi_record *rec)
{
	return rec + 1;
}

/* its payload if it has at least @size bytes, else NULL */
const void *record_get(const void *buf, size_t len, uint16_t type, int32_t tid,
		       size_t size);

#endif /* MSPD_STATE_RECORDS_H */
