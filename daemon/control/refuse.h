/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hosts that want to send a guest and are told why they cannot
 *
 * The connection stays until the peer has closed it: a close with something of
 * it unread would take the answer away again. The last few are kept, whoever
 * does not close gives way to the next.
 */
#ifndef MSPD_CONTROL_REFUSE_H
#define MSPD_CONTROL_REFUSE_H

#include <stddef.h>
#include "control/loop.h"

#define REFUSED_MAX	16

/**
 * struct refused - one of them
 * @loop: where it is watched
 * @watch: of its connection
 * @got: bytes read and dropped
 */
struct refused {
	struct loop *loop;
	struct watch watch;
	size_t got;
};

/**
 * struct refusals - the last few
 * @v: in no order, watch.ready tells which are in use
 * @next: to be used next
 */
struct refusals {
	struct refused v[REFUSED_MAX];
	unsigned int next;
};

/* takes over the accepted connection @fd; never waits */
void refuse_peer(struct refusals *r, struct loop *l, int fd, int err,
		 const char *why);
void refuse_close(struct refusals *r);

#endif /* MSPD_CONTROL_REFUSE_H */
