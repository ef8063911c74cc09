/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One migration over loopback, each side as it is in a worker process
 */
#ifndef SELFTESTS_SESSION_DRIVE_H
#define SELFTESTS_SESSION_DRIVE_H

#include <stdbool.h>
#include <stdint.h>
#include "lib/compress.h"

/**
 * struct drive - how a migration is to be driven
 * @fault: MSPD_FAULT, or NULL
 * @peer: takes the target's place with the accepted connection, or NULL
 * @streams: data connections, 0 = 2
 * @compression: of pages on the wire
 * @reply_ms: how patient the source is, 0 = 10000
 * @validate_only: ends there
 * @child: the guest has a child process
 * @child_ms: which ends after so long, 0 = stays
 */
struct drive {
	const char *fault;
	void (*peer)(int fd);
	unsigned int streams;
	enum compression compression;
	unsigned int reply_ms;
	bool validate_only;
	bool child;
	unsigned int child_ms;
};

/* what source_run() gave; results are in the world. world_new() comes before */
int drive(const struct drive *d);

/* source_run() failed with @text, the guest runs there and only there, and
 * nothing is left on the target
 */
bool rolled_back(int ret, const char *text);
/* it runs on the target and only there, every byte as it was */
bool moved(int ret);

/* a worker of the target for a connection made by the test; its PID */
int target_worker(uint16_t *ret_port, const char *fault, void (*peer)(int));
/* waits for its end; the status of wait() */
int target_wait(int pid);

/*
 * What is on record when all is over, which is forgotten with this: a bit for
 * each journal, 1 << (last type + 8 * role)
 */
int drive_journals(void);
/* removes what the test has left behind */
void drive_end(void);

#endif /* SELFTESTS_SESSION_DRIVE_H */
