// SPDX-License-Identifier: GPL-2.0
/*
 * The tracer: a thread that does for a stream what ptrace lets no other one do
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "guest/user.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/procfile.h"

/* between two looks, while it has nothing to do and while it ends */
#define LOOK_MS		50
#define END_NS		10000
#define NICE		-15

struct user_tracer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct user_stream *s;
	int (*fn)(struct user_stream *s, void *arg);
	void *arg;
	int ret;
	bool end;
	pid_t tid;
	bool late;	/* it ends with threads that have not stopped */
};

/*
 * One that is not stopped yet is let go by the end of the tracer: true. That
 * leaves it a signal that it has come to stop for meanwhile; a detach does not.
 */
static bool let_go(struct user_stream *s)
{
	bool late = false;
	size_t i;

	user_inject_end(s);
	for (i = 0; i < s->nr_threads; i++) {
		if (!s->threads[i].held) {
			late = true;
			continue;
		}
		ptrace(PTRACE_DETACH, s->threads[i].tid, 0, 0);
	}
	s->nr_threads = 0;
	return late;
}

static bool is_ours(const struct user_stream *s)
{
	_cleanup_free_ char *status = NULL;
	const char *f;

	if (procfile_read(s->proc, "status", &status, NULL))
		return false;
	f = procfile_field(status, "PPid");
	return f && atoi(f) == getpid();
}

/*
 * A guest that is killed while it is held goes only when its tracer has seen
 * it.
 */
static void see_the_dead(struct user_stream *s)
{
	size_t i;

	for (i = 0; i < s->nr_threads; i++) {
		const pid_t tid = s->threads[i].tid;
		int status;

		/* a parent that is this very process sees it by itself */
		if ((tid != s->pid || !is_ours(s)) &&
		    waitpid(tid, &status, __WALL | __WNOTHREAD | WNOHANG) ==
		    tid && !WIFSTOPPED(status))
			s->threads[i--] = s->threads[--s->nr_threads];
	}
}

static void wait_for_work(struct user_tracer *t)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_MS * NSEC_PER_MSEC;
	if (until.tv_nsec >= NSEC_PER_SEC) {
		until.tv_nsec -= NSEC_PER_SEC;
		until.tv_sec++;
	}
	if (pthread_cond_clockwait(&t->cond, &t->lock, CLOCK_MONOTONIC,
				   &until) == ETIMEDOUT)
		see_the_dead(t->s);
}

static void *tracer_main(void *arg)
{
	struct user_tracer *t = arg;

	/* its sleeps are the guest's pause, and so is what runs before it */
	prctl(PR_SET_TIMERSLACK, 1);
	setpriority(PRIO_PROCESS, 0, NICE);
	pthread_mutex_lock(&t->lock);
	t->tid = gettid();
	for (;;) {
		while (!t->fn && !t->end)
			wait_for_work(t);
		if (t->end)
			break;
		pthread_mutex_unlock(&t->lock);
		t->ret = t->fn(t->s, t->arg);
		pthread_mutex_lock(&t->lock);
		t->fn = NULL;
		pthread_cond_broadcast(&t->cond);
	}
	pthread_mutex_unlock(&t->lock);
	t->late = let_go(t->s);
	return NULL;
}

static int tracer_start(struct user_stream *s)
{
	struct user_tracer *t = calloc(1, sizeof(*t));
	sigset_t all, old;
	int r;

	if (!t)
		return -ENOMEM;
	t->s = s;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->cond, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&t->thread, NULL, tracer_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		free(t);
	else
		s->tracer = t;
	return r;
}

static int tracer_run(struct user_tracer *t,
		      int (*fn)(struct user_stream *s, void *arg), void *arg)
{
	int r;

	pthread_mutex_lock(&t->lock);
	t->fn = fn;
	t->arg = arg;
	pthread_cond_broadcast(&t->cond);
	while (t->fn)
		pthread_cond_wait(&t->cond, &t->lock);
	r = t->ret;
	pthread_mutex_unlock(&t->lock);
	return r;
}

void user_release(struct user_stream *s)
{
	struct user_tracer *t = s->tracer;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->end = true;
	pthread_cond_broadcast(&t->cond);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	/*
	 * The thread has ended for us before the kernel lets go what it traced:
	 * until then nobody else can trace it, not even we.
	 */
	while (t->late && !tgkill(getpid(), t->tid, 0))
		nanosleep(&(struct timespec){ 0, END_NS }, NULL);
	pthread_cond_destroy(&t->cond);
	pthread_mutex_destroy(&t->lock);
	free(t);
	s->tracer = NULL;
}

int user_trace(struct user_stream *s, int (*fn)(struct user_stream *s,
						void *arg), void *arg)
{
	const bool held = s->tracer;
	int r;

	if (s->target)
		return -EBUSY;
	r = held ? 0 : tracer_start(s);
	if (!r)
		r = tracer_run(s->tracer, fn, arg);
	if (!held)
		user_release(s);
	return r;
}

struct hold {
	int64_t deadline;
	struct guest_holdup *holdup;
};

static int hold(struct user_stream *s, void *arg)
{
	struct hold *h = arg;

	const int r = user_stop(s, 0, h->deadline, h->holdup);

	/* what stands still may be another program by now */
	return r ? r : user_alive(s);
}

int user_hold(struct user_stream *s, int64_t deadline,
	      struct guest_holdup *ret_holdup)
{
	struct hold h = { deadline, ret_holdup };
	int r;

	if (s->target)
		return -EBUSY;
	r = s->tracer ? 0 : tracer_start(s);
	if (!r)
		r = tracer_run(s->tracer, hold, &h);
	if (r)
		user_release(s);
	return r;
}
