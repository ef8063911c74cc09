// SPDX-License-Identifier: GPL-2.0
/* Arithmetic of timers that go on on another clock */
#include "state/timers.h"

void timer_advance(struct timer_state *t, int64_t elapsed_ns)
{
	int64_t late;

	if (!t->value_ns || elapsed_ns <= 0)
		return;
	late = elapsed_ns - t->value_ns;
	if (late < 0) {
		t->value_ns = -late;
		return;
	}
	if (t->interval_ns <= 0) {
		t->value_ns = 1;
		return;
	}
	/* a period keeps its phase */
	t->ticks += 1 + (uint64_t)(late / t->interval_ns);
	t->value_ns = t->interval_ns - late % t->interval_ns;
}
