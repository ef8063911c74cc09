// SPDX-License-Identifier: GPL-2.0
/*
 * Reading the records that VASI_STATE wrote
 */
#include <errno.h>
#include "state/records.h"

int records_valid(const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		const struct vasi_record *rec = (const void *)p;

		if (len < sizeof(*rec) || rec->bytes < sizeof(*rec) ||
		    rec->bytes > len || rec->bytes % 8 ||
		    rec->payload > rec->bytes - sizeof(*rec))
			return -EPROTO;
		p += rec->bytes;
		len -= rec->bytes;
	}
	return 0;
}

const struct vasi_record *record_next(const void *buf, size_t len,
				      const struct vasi_record *prev)
{
	const uint8_t *end = (const uint8_t *)buf + len;
	const uint8_t *p = buf;

	if (prev)
		p = (const uint8_t *)prev + prev->bytes;
	return p < end ? (const void *)p : NULL;
}

const struct vasi_record *record_find(const void *buf, size_t len,
				      uint16_t type, int32_t tid)
{
	const struct vasi_record *rec = NULL;

	while ((rec = record_next(buf, len, rec)))
		if (rec->type == type && rec->tid == tid)
			return rec;
	return NULL;
}

const void *record_get(const void *buf, size_t len, uint16_t type, int32_t tid,
		       size_t size)
{
	const struct vasi_record *rec = record_find(buf, len, type, tid);

	return rec && rec->payload >= size ? record_payload(rec) : NULL;
}
