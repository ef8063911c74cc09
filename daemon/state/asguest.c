// SPDX-License-Identifier: GPL-2.0
/*
 * Work done under the file system identity of a guest
 *
 * In a thread: identity belongs to a task, and a change of it clears the
 * parent-death signal of the task that changes.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "state/asguest.h"

struct job {
	const Mspd__Creds *creds;
	int (*fn)(void *arg);
	void *arg;
	int ret;
};

/* The C library's calls would change every thread of the process. */
static int become(const Mspd__Creds *c)
{
	if (syscall(SYS_setgroups, c->n_groups, c->groups))
		return -errno;
	syscall(SYS_setfsgid, c->fsgid);
	syscall(SYS_setfsuid, c->fsuid);
	if ((uint32_t)syscall(SYS_setfsuid, -1) != c->fsuid ||
	    (uint32_t)syscall(SYS_setfsgid, -1) != c->fsgid)
		return -EPERM;
	return 0;
}

static void *run(void *arg)
{
	struct job *job = arg;

	job->ret = job->creds ? become(job->creds) : 0;
	if (!job->ret)
		job->ret = job->fn(job->arg);
	return NULL;
}

int as_guest(const Mspd__Creds *creds, int (*fn)(void *arg), void *arg)
{
	struct job job = { .creds = creds, .fn = fn, .arg = arg };
	pthread_t thread;
	int r;

	r = pthread_create(&thread, NULL, run, &job);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	return job.ret;
}
