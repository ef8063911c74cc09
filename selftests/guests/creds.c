// SPDX-License-Identifier: GPL-2.0
/*
 * creds FILE [UID GID]: drops to the ids (1000 1000 unless told), with
 * supplementary groups, without capabilities, and keeps what the kernel says
 * about it. SIGUSR1 compares and writes FILE; SIGTERM does the same and ends.
 * FILE has the verdict in its first line, then what is and what was. FILE must
 * be in a directory the ids may write to.
 */
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "guest.h"

#define TEXT 8192

static int kept_line(const char *line)
{
	static const char *const fields[] = {
		"Name:", "Umask:", "Uid:", "Gid:", "Groups:", "SigBlk:",
		"SigIgn:", "SigCgt:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:",
		"CapAmb:", "NoNewPrivs:", "Seccomp:", "Threads:",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fields); i++)
		if (strncmp(line, fields[i], strlen(fields[i])) == 0)
			return 1;
	return 0;
}

static int describe(char *text)
{
	uid_t ru, eu, su;
	gid_t rg, eg, sg;
	char line[512];
	size_t len;
	FILE *f;

	if (getresuid(&ru, &eu, &su) < 0 || getresgid(&rg, &eg, &sg) < 0)
		return -errno;
	memset(text, 0, TEXT);
	len = (size_t)snprintf(text, TEXT,
			       "calls: uid %u %u %u gid %u %u %u nice %d dumpable %d securebits %x\n",
			       ru, eu, su, rg, eg, sg,
			       getpriority(PRIO_PROCESS, 0),
			       prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS));
	f = fopen("/proc/self/status", "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		if (kept_line(line) && len + strlen(line) < TEXT) {
			strcpy(text + len, line);
			len += strlen(line);
		}
	fclose(f);
	return 0;
}

static int become(uid_t uid, gid_t gid)
{
	gid_t groups[] = { gid, gid + 7, gid + 8 };

	if (setgroups(ARRAY_SIZE(groups), groups) < 0 ||
	    setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	umask(0077);
	if (setpriority(PRIO_PROCESS, 0, 3) < 0)
		return -errno;
	/* a change of ids takes this away; it is set so that it can be lost */
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

int main(int argc, char **argv)
{
	static char was[TEXT], is[TEXT], text[2 * TEXT + 200];
	unsigned long uid = 1000, gid = 1000;
	sigset_t set;
	bool ok = true;
	int r, n, sig = 0;

	if (argc == 4) {
		uid = strtoul(argv[2], NULL, 10);
		gid = strtoul(argv[3], NULL, 10);
	} else if (argc != 2) {
		fprintf(stderr, "usage: creds FILE [UID GID]\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = become((uid_t)uid, (gid_t)gid);
	if (!r)
		r = describe(was);
	if (r < 0) {
		fprintf(stderr, "creds: cannot become %lu:%lu: %s\n", uid, gid,
			strerror(-r));
		return 1;
	}

	/* the first file says that it is ready to be moved */
	do {
		ok = describe(is) == 0 && memcmp(was, is, TEXT) == 0 && ok;
		/* what root may still do is no description but the fact */
		if (setuid(0) == 0 || setgid(0) == 0)
			ok = false;
		n = snprintf(text, sizeof(text), "%s %d %d\nis:\n%s\nwas:\n%s",
			     ok ? "OK" : "FAIL", getpid(), sig, is, was);
		if (write_whole(argv[1], text, (size_t)n) < 0)
			return 1;
		do {
			r = sigwaitinfo(&set, NULL);
			if (r < 0 && errno == EINTR)
				ok = false;
		} while (r < 0);
		sig = r;
	} while (sig != SIGTERM);
	return ok ? 0 : 1;
}
