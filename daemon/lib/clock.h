/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Time in nanoseconds, and deadlines as absolute CLOCK_MONOTONIC times
 */
#ifndef MSPD_LIB_CLOCK_H
#define MSPD_LIB_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_MSEC	1000000LL
#define NSEC_PER_SEC	1000000000LL

int64_t clock_ns(clockid_t id);

static inline int64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t deadline_in(unsigned int ms);
/* milliseconds left, rounded up, for poll(); 0 when it has passed */
int deadline_left(int64_t deadline);
/* may end early only when a signal handler ran */
void sleep_ms(unsigned int ms);

#endif /* MSPD_LIB_CLOCK_H */
