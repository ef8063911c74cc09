/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests of tests of ``guest_user``: processes of the test that count, and a
 * page in which they tell of it
 */
#ifndef USERACCESS_COUNTING_H
#define USERACCESS_COUNTING_H

#include <stdatomic.h>

#include "guest/user.h"
#include "vasi_test.h"

#define DEADLINE_MS	5000

__attribute__((unused))
static const struct guest_access *const a = &guest_user;

/* what guests tell */
struct page {
	atomic_long rounds[4];
	atomic_int wrong, ready, go, alarms;
	char text[128];
};

extern struct page *page;

/* 0, or the exit code of a test that cannot run here, having said so */
int counting_begin(void);
struct guest *attached(pid_t pid);
/* a guest that runs @body with an empty page, and waits for ever behind it */
pid_t start_guest(void (*body)(void));
void count(void);
void wait_ready(void);
/* does the counting guest go on? */
bool runs(void);

#endif /* USERACCESS_COUNTING_H */
