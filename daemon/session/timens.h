/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Offsets of the target's time namespace from samples of both hosts' clocks
 *
 * An offset is frozen when the namespace is entered, long before the guest
 * runs there, so it is rounded up by the error of the measurement: the guest's
 * clock may jump forward by that error and never goes back. Pure.
 */
#ifndef MSPD_SESSION_TIMENS_H
#define MSPD_SESSION_TIMENS_H

#include <stddef.h>
#include <stdint.h>

/**
 * struct clock_sample - one question for the target's clocks
 * @sent_ns: source's CLOCK_MONOTONIC before
 * @monotonic_ns: source's CLOCK_MONOTONIC after
 * @boottime_ns: source's CLOCK_BOOTTIME after, not before @monotonic_ns
 * @target_monotonic_ns: what the target answered
 * @target_boottime_ns: what the target answered
 */
struct clock_sample {
	int64_t sent_ns;
	int64_t monotonic_ns;
	int64_t boottime_ns;
	int64_t target_monotonic_ns;
	int64_t target_boottime_ns;
};

/**
 * struct timens - offsets of a time namespace
 * @monotonic_ns: CLOCK_MONOTONIC inside minus outside
 * @boottime_ns: likewise CLOCK_BOOTTIME
 */
struct timens {
	int64_t monotonic_ns;
	int64_t boottime_ns;
};

/* sample with the shortest round trip; @n > 0 */
const struct clock_sample *timens_best(const struct clock_sample *v, size_t n);
/* @guest: the guest's offsets on the source */
struct timens timens_offsets(const struct clock_sample *v, size_t n,
			     const struct timens *guest);
/* the guest's offsets out of VASI_STATE records; -EBADMSG: not in there */
int timens_of_records(const void *records, size_t len, struct timens *ret);

#endif /* MSPD_SESSION_TIMENS_H */
