// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "control/loop.h"

int loop_open(struct loop *l)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -errno;
	*l = (struct loop) { .epoll = fd };
	return 0;
}

void loop_close(struct loop *l)
{
	if (l->epoll >= 0)
		close(l->epoll);
	l->epoll = -1;
}

int loop_add(struct loop *l, struct watch *w, int fd, uint32_t events,
	     void (*ready)(void *arg, uint32_t events), void *arg)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	*w = (struct watch) { .fd = fd, .ready = ready, .arg = arg };
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
		w->ready = NULL;
		return -errno;
	}
	return 0;
}

int loop_change(struct loop *l, struct watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	return epoll_ctl(l->epoll, EPOLL_CTL_MOD, w->fd, &ev) < 0 ? -errno : 0;
}

void loop_remove(struct loop *l, struct watch *w)
{
	if (!w->ready)
		return;
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	w->ready = NULL;
}

int loop_run(struct loop *l)
{
	struct epoll_event ev;
	struct watch *w;
	int n;

	while (!l->stop) {
		/*
		 * One event at a time: a handler may free any other watch,
		 * and a batch would still hold a pointer to it.
		 */
		n = epoll_wait(l->epoll, &ev, 1, -1);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n < 1)
			continue;
		w = ev.data.ptr;
		w->ready(w->arg, ev.events);
	}
	return 0;
}
