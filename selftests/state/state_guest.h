/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests of the move test: each makes some state, is moved, and looks at it
 */
#ifndef SELFTESTS_STATE_GUEST_H
#define SELFTESTS_STATE_GUEST_H

/*
 * Runs guest @name in the working directory: writes "ready" when its state is
 * made, waits for the file "go", writes "verdict" ("ok", or what is wrong).
 */
int state_guest(const char *name);

extern const char *const state_guests[];

#endif /* SELFTESTS_STATE_GUEST_H */
