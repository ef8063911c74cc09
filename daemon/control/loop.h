/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The supervisor's event loop: file descriptors and what to call for them
 */
#ifndef MSPD_CONTROL_LOOP_H
#define MSPD_CONTROL_LOOP_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct watch - one descriptor in the loop; lives inside its owner
 * @fd: not owned
 * @ready: called with the EPOLL* bits; may free the owner
 * @arg: for @ready
 */
struct watch {
	int fd;
	void (*ready)(void *arg, uint32_t events);
	void *arg;
};

struct loop {
	int epoll;
	bool stop;
};

int loop_open(struct loop *l);
void loop_close(struct loop *l);
int loop_add(struct loop *l, struct watch *w, int fd, uint32_t events,
	     void (*ready)(void *arg, uint32_t events), void *arg);
int loop_change(struct loop *l, struct watch *w, uint32_t events);
/* to be called before the descriptor is closed; harmless if not added */
void loop_remove(struct loop *l, struct watch *w);
/* until @l->stop */
int loop_run(struct loop *l);

#endif /* MSPD_CONTROL_LOOP_H */
