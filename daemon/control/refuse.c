// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control/refuse.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "wire/control.h"
#include "wire/sock.h"

/* its preamble and Hello, and some more */
#define GOT_MAX		65536

static void drop(struct refused *r)
{
	if (!r->watch.ready)
		return;
	loop_remove(r->loop, &r->watch);
	close(r->watch.fd);
}

static void refused_ready(void *arg, uint32_t events)
{
	struct refused *r = arg;
	char buf[4096];
	ssize_t n;

	(void)events;
	n = recv(r->watch.fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		r->got += n;
	if (n <= 0 || r->got > GOT_MAX)
		drop(r);
}

void refuse_peer(struct refusals *r, struct loop *l, int fd, int err,
		 const char *why)
{
	struct refused *slot = &r->v[r->next++ % REFUSED_MAX];
	Mspd__Failed msg = MSPD__FAILED__INIT;
	_cleanup_close_ int owned = fd;
	int64_t now = deadline_in(0);

	msg.text = (char *)why;
	msg.error = -err;
	/* there is room for it in the buffer of a new connection */
	if (sock_adopt(fd) || control_preamble_send(fd, now) ||
	    control_send(fd, CONTROL_FAILED, &msg.base, now))
		return;
	shutdown(fd, SHUT_WR);
	drop(slot);
	slot->loop = l;
	slot->got = 0;
	if (!loop_add(l, &slot->watch, fd, EPOLLIN, refused_ready, slot))
		steal_fd(&owned);
}

void refuse_close(struct refusals *r)
{
	for (unsigned int i = 0; i < REFUSED_MAX; i++)
		drop(&r->v[i]);
}
