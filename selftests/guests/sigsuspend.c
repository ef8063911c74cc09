// SPDX-License-Identifier: GPL-2.0
/*
 * sigsuspend FILE: waits in sigsuspend(). Each SIGUSR1 or SIGUSR2 must run its
 * handler once and end exactly one wait with EINTR; a wait that ends without a
 * handler, a handler without an ended wait, and a mask that is not the old one
 * afterwards are errors. FILE is written anew before each wait, so the sender
 * knows that a signal arrived; SIGTERM ends. Signals of one number sent faster
 * than they are taken merge: wait for the count before sending the next.
 */
#include <signal.h>

#include "guest.h"

static volatile sig_atomic_t handled[2], ended;

static void on_signal(int sig)
{
	if (sig == SIGTERM)
		ended = 1;
	else
		handled[sig == SIGUSR2]++;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	unsigned int waits = 0, errors = 0;
	sigset_t blocked, open_mask, now;
	const char *error = "";

	if (argc != 2) {
		fprintf(stderr, "usage: sigsuspend FILE\n");
		return 2;
	}
	sigfillset(&sa.sa_mask);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGUSR2);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigemptyset(&open_mask);

	while (!ended) {
		int before = handled[0] + handled[1], after;

		if (write_text(argv[1],
			       "{\"ok\": %s, \"pid\": %d, \"waits\": %u, \"usr1\": %d, \"usr2\": %d, \"errors\": %u, \"error\": \"%s\"}\n",
			       errors ? "false" : "true", getpid(), waits,
			       (int)handled[0], (int)handled[1], errors,
			       error) < 0)
			return 1;
		errno = 0;
		if (sigsuspend(&open_mask) != -1 || errno != EINTR) {
			errors++;
			error = "sigsuspend did not end with EINTR";
		}
		after = handled[0] + handled[1];
		/* the handlers' masks are full: the other signal stays out */
		if (!ended && after != before + 1) {
			errors++;
			error = "a wait ended with the wrong number of handlers";
		}
		waits++;
		sigprocmask(SIG_SETMASK, NULL, &now);
		if (sigismember(&now, SIGUSR1) != 1 ||
		    sigismember(&now, SIGUSR2) != 1 ||
		    sigismember(&now, SIGTERM) != 1 ||
		    sigismember(&now, SIGALRM) != 0) {
			errors++;
			error = "the old mask did not come back";
		}
	}
	return errors ? 1 : 0;
}
