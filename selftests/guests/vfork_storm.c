// SPDX-License-Identifier: GPL-2.0
/*
 * vfork_storm FILE [THREADS [PAUSE_US]]: each thread starts /bin/true again and
 * again, by vfork and by posix_spawn in turn, reaps it and checks how it ended,
 * while another counts. So the guest has children that share its memory most of
 * the time. SIGUSR1 writes FILE; SIGTERM writes it and ends.
 */
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "guest.h"

#define MAX_THREADS 16

extern char **environ;

static _Atomic unsigned long started, ended, errors, counted;
static _Atomic bool stopping;
static const char *_Atomic error = "";
static unsigned long pause_us;

static void note(const char *what)
{
	atomic_store(&error, what);
	atomic_fetch_add(&errors, 1);
}

static pid_t start(bool spawn)
{
	char *const argv[] = { (char *)"true", NULL };
	pid_t pid;

	if (spawn)
		return posix_spawn(&pid, "/bin/true", NULL, NULL, argv,
				   environ) ? -1 : pid;
	pid = vfork();
	if (pid == 0) {
		execve("/bin/true", argv, environ);
		_exit(127);
	}
	return pid;
}

static void *storm(void *arg)
{
	bool spawn = (uintptr_t)arg;
	int status;
	pid_t pid;

	while (!atomic_load(&stopping)) {
		spawn = !spawn;
		pid = start(spawn);
		if (pid < 0) {
			note("cannot start a child");
			continue;
		}
		atomic_fetch_add(&started, 1);
		if (waitpid(pid, &status, 0) != pid)
			note(errno == EINTR ? "waitpid: visible EINTR" :
					      "waitpid failed");
		else if (!WIFEXITED(status) || WEXITSTATUS(status))
			note("a child did not end with 0");
		else
			atomic_fetch_add(&ended, 1);
		if (pause_us)
			usleep((useconds_t)pause_us);
	}
	return NULL;
}

static void *count(void *arg)
{
	(void)arg;
	while (!atomic_load(&stopping))
		atomic_fetch_add(&counted, 1);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long n = argc > 2 ? strtoul(argv[2], NULL, 10) : 2, i;
	pthread_t thread[MAX_THREADS], counter;
	sigset_t set;
	int sig;

	if (argc < 2 || argc > 4 || n < 1 || n > MAX_THREADS) {
		fprintf(stderr, "usage: vfork_storm FILE [THREADS [PAUSE_US]]\n");
		return 2;
	}
	pause_us = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < n; i++)
		if (pthread_create(&thread[i], NULL, storm,
				   (void *)(uintptr_t)(i % 2)))
			return 1;
	if (pthread_create(&counter, NULL, count, NULL))
		return 1;

	do {
		/* not sigwaitinfo(), which every SIGCHLD would interrupt */
		if (sigwait(&set, &sig))
			return 1;
		if (sig == SIGTERM) {
			atomic_store(&stopping, true);
			for (i = 0; i < n; i++)
				pthread_join(thread[i], NULL);
			if (atomic_load(&started) != atomic_load(&ended))
				note("a child was lost");
		}
		if (write_text(argv[1],
			       "{\"ok\": %s, \"pid\": %d, \"started\": %lu, \"ended\": %lu, \"counted\": %lu, \"errors\": %lu, \"error\": \"%s\"}\n",
			       atomic_load(&errors) ? "false" : "true", getpid(),
			       atomic_load(&started), atomic_load(&ended),
			       atomic_load(&counted), atomic_load(&errors),
			       atomic_load(&error)) < 0)
			return 1;
	} while (sig != SIGTERM);
	return atomic_load(&errors) ? 1 : 0;
}
