// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's clock must not go back: all ways in which a question for the
 * target's clock can be late
 */
#include <linux/vasi.h>
#include "session/timens.h"
#include "tap.h"

#define MS	1000000LL

/* the target's clock is @offset ahead of the source's, and the question takes
 * @there, the answer @back
 */
static struct clock_sample sample(int64_t offset, int64_t there, int64_t back)
{
	const int64_t sent = 5000 * MS;

	return (struct clock_sample){
		.sent_ns = sent,
		.monotonic_ns = sent + there + back,
		.boottime_ns = sent + there + back + 7,
		.target_monotonic_ns = sent + there + offset,
		.target_boottime_ns = sent + there + offset,
	};
}

static void test_offsets(void)
{
	const struct timens guest = { 1000 * MS, 2000 * MS };
	int64_t least = INT64_MAX, most = INT64_MIN;

	for (int64_t offset = -86400000 * MS; offset <= 86400000 * MS;
	     offset += 43200000 * MS)
		for (int64_t there = 0; there <= 20 * MS; there += 5 * MS)
			for (int64_t back = 0; back <= 20 * MS;
			     back += 5 * MS) {
				struct clock_sample s = sample(offset, there,
							       back);
				struct timens t = timens_offsets(&s, 1,
								 &guest);
				/* inside there, when it is X here */
				int64_t jump = t.monotonic_ns + offset -
					       guest.monotonic_ns;

				if (jump < least)
					least = jump;
				if (jump > most)
					most = jump;
			}
	ok(least >= 0, "the guest's clock never goes back (%lld)",
	   (long long)least);
	ok(most <= 40 * MS, "and jumps by a round trip at most (%lld)",
	   (long long)most);
}

static void test_best(void)
{
	const struct timens guest = { 0, 0 };
	struct clock_sample v[3] = {
		sample(100, 30 * MS, 30 * MS), sample(100, MS, MS),
		sample(100, 10 * MS, MS),
	};
	struct timens t = timens_offsets(v, 3, &guest);

	ok(timens_best(v, 3) == &v[1], "the shortest round trip is the best");
	ok(t.monotonic_ns == MS - 100 && t.boottime_ns == MS - 100 + 7,
	   "and counts for both clocks");
}

static void test_records(void)
{
	struct {
		struct vasi_record other;
		uint64_t payload;
		struct vasi_record rec;
		struct vasi_rec_process proc;
	} r = {
		.other = { .bytes = sizeof(r.other) + 8,
			   .type = VASI_REC_AUXV, .payload = 8 },
		.rec = { .bytes = sizeof(r.rec) + sizeof(r.proc),
			 .type = VASI_REC_PROCESS,
			 .payload = sizeof(r.proc) },
		.proc = { .timens_monotonic = 11, .timens_boottime = 12 },
	};
	struct timens t = { 0, 0 };

	ok(!timens_of_records(&r, sizeof(r), &t) && t.monotonic_ns == 11 &&
	   t.boottime_ns == 12, "found behind another record");
	ok(timens_of_records(&r, sizeof(r) - 1, &t) == -EBADMSG,
	   "not in a record that is cut off");
	ok(timens_of_records(&r, sizeof(r.other), &t) == -EBADMSG,
	   "not where none is");
	r.other.bytes = 0;
	ok(timens_of_records(&r, sizeof(r), &t) == -EBADMSG,
	   "a record without a length ends it");
}

int main(void)
{
	test_offsets();
	test_best();
	test_records();
	return tap_end();
}
