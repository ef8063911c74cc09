/* SPDX-License-Identifier: GPL-2.0 */
/* Arithmetic of timers that go on on another clock */
#ifndef MSPD_STATE_TIMERS_H
#define MSPD_STATE_TIMERS_H

#include <stdint.h>

/**
 * struct timer_state - a relative timer
 * @value_ns: to the next expiry, 0 = disarmed
 * @interval_ns: period, 0 = once
 * @ticks: expiries that nobody read yet
 */
struct timer_state {
	int64_t value_ns;
	int64_t interval_ns;
	uint64_t ticks;
};

/*
 * @t after @elapsed_ns in which nobody looked at it. One that is over expires at
 * once (value 1); expiries of a period are counted, and its phase is kept.
 */
void timer_advance(struct timer_state *t, int64_t elapsed_ns);

#endif /* MSPD_STATE_TIMERS_H */
