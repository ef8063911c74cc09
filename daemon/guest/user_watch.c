// SPDX-License-Identifier: GPL-2.0
/*
 * Tells of the guest's end by a descriptor
 *
 * A pidfd shows the end of a process, but by POLLIN, and not an exec. So a
 * thread waits for both, and closes its end of a pipe: the other end shows
 * POLLHUP, as a stream's open of the module does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "guest/user.h"

/* an exec is found by looking */
#define LOOK_MS 50

struct user_watch {
	pthread_t thread;
	const struct user_stream *s;
	int stop;
	int out[2];
};

static void *watch_main(void *arg)
{
	struct user_watch *w = arg;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = w->s->pidfd, .events = POLLIN },
			{ .fd = w->stop, .events = POLLIN },
		};

		if (poll(fds, 2, LOOK_MS) < 0 && errno != EINTR)
			break;
		if (fds[1].revents)
			return NULL;
		if (user_alive(w->s))
			break;
	}
	close(w->out[1]);
	w->out[1] = -1;
	return NULL;
}

int user_watch_fd(struct user_stream *s)
{
	struct user_watch *w = s->watch;
	sigset_t all, old;
	int r;

	if (w)
		return w->out[0];
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->s = s;
	if (pipe2(w->out, O_CLOEXEC)) {
		r = -errno;
		goto free;
	}
	w->stop = eventfd(0, EFD_CLOEXEC);
	if (w->stop < 0) {
		r = -errno;
		goto close;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&w->thread, NULL, watch_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r) {
		s->watch = w;
		return w->out[0];
	}
	close(w->stop);
close:
	close(w->out[0]);
	close(w->out[1]);
free:
	free(w);
	return r;
}

void user_watch_free(struct user_stream *s)
{
	struct user_watch *w = s->watch;

	if (!w)
		return;
	eventfd_write(w->stop, 1);
	pthread_join(w->thread, NULL);
	close(w->stop);
	close(w->out[0]);
	if (w->out[1] >= 0)
		close(w->out[1]);
	free(w);
	s->watch = NULL;
}
