/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A process without its memory: moved by the kinds of resources alone
 *
 * A child sets up what a test is about and stops. It is captured early, runs
 * its second part, stops, is captured again, and dies. Then an empty process in
 * new namespaces is given all of it. What it has is seen through copies of its
 * descriptors and through /proc.
 */
#ifndef SELFTESTS_STATE_MOVE_H
#define SELFTESTS_STATE_MOVE_H

#include "state/files.h"
#include "tap.h"

typedef void (*guest_part)(void);

/**
 * struct move - one guest
 * @c: of the source
 * @findings: of both sides
 * @early: first image
 * @final: second image
 * @r: the target, NULL = not built
 * @pid: the source, 0 = gone
 * @host_to_guest: nanoseconds that the guest's clocks are ahead on the target
 */
struct move {
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
void move_start(struct move *m, guest_part part, guest_part second);
/* lets the guest run its second part */
void move_second(struct move *m);
/* check() of the descriptors and all else; number of error findings */
size_t move_check(struct move *m);
/* 0 or the first error */
int move_capture_early(struct move *m);
int move_capture_final(struct move *m);
/* target_check(); number of error findings */
size_t move_target_check(struct move *m);
void move_kill(struct move *m);
int move_prepare(struct move *m);
int move_finish(struct move *m);
/* all of it, without a second part if there is none */
int move_all(struct move *m, guest_part part, guest_part second);
void move_end(struct move *m);

/* a copy of descriptor @fd of the target; -errno */
int move_fd(struct move *m, int fd);
/* the target's descriptors as an image again; nothing more can be moved then */
Mspd__FileTable *move_again(struct move *m);
/* is there an error finding of @check about an object that has @object in it? */
bool move_found(const struct move *m, const char *check, const char *object);
void move_print(const struct move *m);

#endif /* SELFTESTS_STATE_MOVE_H */
