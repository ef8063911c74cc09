// SPDX-License-Identifier: GPL-2.0
/* Timers after some time: pure arithmetic */
#include "state/timers.h"
#include "tap.h"

static const struct {
	const char *what;
	struct timer_state was;
	int64_t elapsed;
	struct timer_state is;
} cases[] = {
	{ "not armed", { 0, 0, 3 }, 100, { 0, 0, 3 } },
	{ "no time", { 50, 10, 0 }, 0, { 50, 10, 0 } },
	{ "time goes back", { 50, 10, 0 }, -20, { 50, 10, 0 } },
	{ "shorter", { 50, 0, 0 }, 20, { 30, 0, 0 } },
	{ "once, over", { 50, 0, 0 }, 51, { 1, 0, 0 } },
	{ "once, exactly", { 50, 0, 0 }, 50, { 1, 0, 0 } },
	{ "once, expired before", { 50, 0, 1 }, 60, { 1, 0, 1 } },
	{ "period, running", { 50, 100, 2 }, 49, { 1, 100, 2 } },
	{ "period, exactly", { 50, 100, 2 }, 50, { 100, 100, 3 } },
	{ "period, a little over", { 50, 100, 2 }, 60, { 90, 100, 3 } },
	{ "period, several", { 50, 100, 0 }, 365, { 85, 100, 4 } },
	{ "period, far", { 1, 1, 0 }, 1000000000, { 1, 1, 1000000000 } },
};

int main(void)
{
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct timer_state t = cases[i].was;

		timer_advance(&t, cases[i].elapsed);
		if (!ok(t.value_ns == cases[i].is.value_ns &&
			t.interval_ns == cases[i].is.interval_ns &&
			t.ticks == cases[i].is.ticks, "%s", cases[i].what))
			note("value %lld, ticks %llu", (long long)t.value_ns,
			     (unsigned long long)t.ticks);
	}
	return tap_end();
}
