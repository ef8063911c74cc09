/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Why a migration failed: the first reason, which is the one to tell
 */
#ifndef MSPD_SESSION_FAILURE_H
#define MSPD_SESSION_FAILURE_H

struct failure {
	int err;
	char text[512];
};

/* keeps the first; returns @err, which is negative */
int failure_set(struct failure *f, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* MSPD_SESSION_FAILURE_H */
