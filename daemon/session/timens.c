// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <linux/vasi.h>
#include "session/timens.h"

const struct clock_sample *timens_best(const struct clock_sample *v, size_t n)
{
	const struct clock_sample *best = v;

	for (size_t i = 1; i < n; i++)
		if (v[i].monotonic_ns - v[i].sent_ns <
		    best->monotonic_ns - best->sent_ns)
			best = &v[i];
	return best;
}

/*
 * The target looked at its clock at some time between the question and its
 * answer. Taking it for the time of the answer makes the guest's clock there
 * later than here by at most the round trip, and never earlier.
 */
struct timens timens_offsets(const struct clock_sample *v, size_t n,
			     const struct timens *guest)
{
	const struct clock_sample *s = timens_best(v, n);

	return (struct timens){
		.monotonic_ns = s->monotonic_ns + guest->monotonic_ns -
				s->target_monotonic_ns,
		.boottime_ns = s->boottime_ns + guest->boottime_ns -
			       s->target_boottime_ns,
	};
}

int timens_of_records(const void *records, size_t len, struct timens *ret)
{
	const char *p = records;

	while (len >= sizeof(struct vasi_record)) {
		struct vasi_rec_process proc;
		struct vasi_record rec;

		memcpy(&rec, p, sizeof(rec));
		if (rec.bytes < sizeof(rec) || rec.bytes > len ||
		    rec.payload > rec.bytes - sizeof(rec))
			return -EBADMSG;
		if (rec.type == VASI_REC_PROCESS &&
		    rec.payload >= sizeof(proc)) {
			memcpy(&proc, p + sizeof(rec), sizeof(proc));
			ret->monotonic_ns = proc.timens_monotonic;
			ret->boottime_ns = proc.timens_boottime;
			return 0;
		}
		p += rec.bytes;
		len -= rec.bytes;
	}
	return -EBADMSG;
}
