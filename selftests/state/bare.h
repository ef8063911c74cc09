/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A process without its memory: moved by the kinds of resources alone
 *
 * A child sets up what a test is about and stops. It is captured early, runs
 * its second part, stops, is captured again, and dies. Then an empty process in
 * new namespaces is given all of it. What it has is seen through copies of its
 * descriptors and through /proc.
 */
#ifndef SELFTESTS_STATE_BARE_H
#define SELFTESTS_STATE_BARE_H

#include "state/files.h"
#include "tap.h"

typedef void (*guest_part)(void);

/**
 * struct bare - one guest
 * @c: of the source
 * @findings: of both sides
 * @early: first image
 * @final: second image
 * @r: the target, NULL = not built
 * @pid: the source, 0 = gone
 * @host_to_guest: nanoseconds that the guest's clocks are ahead on the target
 */
struct bare {
	struct capture c;
	struct findings findings;
	Mspd__Image *early, *final;
	struct restore *r;
	pid_t pid;
	int64_t host_to_guest;
};

/* what a guest asserts; it ends with a message otherwise */
#define guest_must(cond) do {						\
	if (!(cond))							\
		guest_fail(__FILE__, __LINE__, #cond);			\
} while (0)
void guest_fail(const char *file, int line, const char *cond)
	__attribute__((noreturn));

/* starts a guest, which runs @part and stops; it has no descriptor then */
void bare_start(struct bare *m, guest_part part, guest_part second);
/* lets the guest run its second part */
void bare_second(struct bare *m);
/* check() of the descriptors and all else; number of error findings */
size_t bare_check(struct bare *m);
/* 0 or the first error */
int bare_capture_early(struct bare *m);
int bare_capture_final(struct bare *m);
/* target_check(); number of error findings */
size_t bare_target_check(struct bare *m);
void bare_kill(struct bare *m);
/* the shell and its blob alone; bare_prepare() starts with it */
void bare_build(struct bare *m);
int bare_prepare(struct bare *m);
int bare_finish(struct bare *m);
/* all of it, without a second part if there is none */
int bare_all(struct bare *m, guest_part part, guest_part second);
void bare_end(struct bare *m);

/* a copy of descriptor @fd of the target; -errno */
int bare_fd(struct bare *m, int fd);
/* the target's descriptors as an image again; nothing more can be moved then */
Mspd__FileTable *bare_again(struct bare *m);
/* is there an error finding of @check about an object that has @object in it? */
bool bare_found(const struct bare *m, const char *check, const char *object);
void bare_print(const struct bare *m);

#endif /* SELFTESTS_STATE_BARE_H */
