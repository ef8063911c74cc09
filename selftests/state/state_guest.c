// SPDX-License-Identifier: GPL-2.0
/*
 * Guests of the move test
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state_guest.h"

#define PAGE 4096UL

static char verdict[256] = "ok";
static volatile sig_atomic_t on_stack, alarms;

__attribute__((format(printf, 1, 2)))
static void wrong(const char *fmt, ...)
{
	va_list ap;

	if (strcmp(verdict, "ok"))
		return;
	va_start(ap, fmt);
	vsnprintf(verdict, sizeof(verdict), fmt, ap);
	va_end(ap);
}

#define want(cond) do {							\
	if (!(cond))							\
		wrong("line %d: %s", __LINE__, #cond);			\
} while (0)

static void write_file(const char *name, const char *text)
{
	char tmp[64];
	int fd;

	snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	want(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	want(!rename(tmp, name));
}

static bool gone(void)
{
	return !access("go", F_OK);
}

/* the move is in here */
static void be_moved(void)
{
	const struct timespec ts = { 0, 5000000 };

	write_file("ready", "ready");
	while (!gone())
		want(!nanosleep(&ts, NULL) || (errno == EINTR && alarms));
}

/* -- signals: masks, dispositions, what waits, in order and with its value */

static void *wait_blocked(void *arg)
{
	pid_t *tid = arg;
	sigset_t set;
	siginfo_t si;

	*tid = gettid();
	while (!gone())
		usleep(1000);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	want(sigtimedwait(&set, &si, &(struct timespec){}) == SIGUSR2);
	/* the library tells SI_TKILL so */
	if (si.si_code != SI_USER || si.si_pid != getpid())
		wrong("a signal of code %d from %d", si.si_code, si.si_pid);
	return NULL;
}

static uint8_t altstack[65536];

static void on_alarm(int sig)
{
	const uint8_t *here = __builtin_frame_address(0);

	(void)sig;
	on_stack = here >= altstack && here < altstack + sizeof(altstack);
	alarms++;
}

static void guest_signals(void)
{
	const stack_t ss = { .ss_sp = altstack, .ss_size = sizeof(altstack) };
	struct sigaction sa = { .sa_handler = on_alarm,
				.sa_flags = SA_ONSTACK | SA_RESTART }, is;
	struct itimerval it = { { 0, 20000 }, { 0, 20000 } };
	sigset_t set, old;
	pthread_t thread;
	pid_t tid = 0;
	siginfo_t si;
	int i;

	sigfillset(&sa.sa_mask);
	sigdelset(&sa.sa_mask, SIGTERM);
	want(!sigaltstack(&ss, NULL) && !sigaction(SIGALRM, &sa, NULL));
	signal(SIGTRAP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pthread_create(&thread, NULL, wait_blocked, &tid);
	for (i = 1; i <= 3; i++)
		want(!sigqueue(getpid(), SIGRTMIN, (union sigval){ i }));
	want(!kill(getpid(), SIGUSR1));
	while (!*(volatile pid_t *)&tid)
		usleep(100);
	want(!syscall(SYS_tgkill, getpid(), tid, SIGUSR2));
	want(!setitimer(ITIMER_REAL, &it, NULL));

	be_moved();

	i = alarms;
	usleep(200000);
	want(alarms > i && on_stack);
	setitimer(ITIMER_REAL, &(struct itimerval){}, &it);
	want(it.it_interval.tv_usec == 20000);
	sigprocmask(SIG_BLOCK, NULL, &old);
	for (i = 1; i < 64; i++)
		if (sigismember(&set, i) != sigismember(&old, i))
			wrong("signal %d in the mask", i);
	for (i = 1; i <= 3; i++)
		want(sigtimedwait(&set, &si, &(struct timespec){}) == SIGUSR1 ?
		     i-- : si.si_signo == SIGRTMIN && si.si_code == SI_QUEUE &&
		     si.si_value.sival_int == i && si.si_pid == getpid());
	want(sigtimedwait(&set, &si, &(struct timespec){}) < 0);
	sigaction(SIGALRM, NULL, &is);
	want(is.sa_handler == on_alarm && is.sa_flags & SA_ONSTACK &&
	     sigismember(&is.sa_mask, SIGHUP) &&
	     !sigismember(&is.sa_mask, SIGTERM));
	sigaction(SIGTRAP, NULL, &is);
	want(is.sa_handler == SIG_IGN);
	sigaction(SIGPIPE, NULL, &is);
	want(is.sa_handler == SIG_IGN);
	sigaction(SIGHUP, NULL, &is);
	want(is.sa_handler == SIG_DFL);
	pthread_join(thread, NULL);
}

/* -- trap: the signal that the mover itself uses */

static volatile sig_atomic_t traps;

static void on_trap(int sig)
{
	(void)sig;
	traps++;
}

static void guest_trap(void)
{
	struct sigaction sa = { .sa_handler = on_trap }, is;
	sigset_t set;

	sigaction(SIGTRAP, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGTRAP);
	be_moved();
	want(!traps);
	sigpending(&set);
	want(sigismember(&set, SIGTRAP));
	sigaction(SIGTRAP, NULL, &is);
	want(is.sa_handler == on_trap);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	want(traps == 1);
}

/* -- memory: each kind of mapping, its flags and its content */

#define AREA_PAGES 16

static uint8_t *map(int prot, int flags, int fd)
{
	void *p = mmap(NULL, AREA_PAGES * PAGE, prot, flags, fd, 0);

	if (p == MAP_FAILED) {
		wrong("mmap: %s", strerror(errno));
		exit(1);
	}
	return p;
}

static void fill(uint8_t *p, unsigned int what)
{
	size_t i;

	for (i = 0; i < AREA_PAGES * PAGE; i++)
		p[i] = (uint8_t)(i / PAGE * 7 + i + what);
}

static bool filled(const uint8_t *p, unsigned int what)
{
	size_t i;

	for (i = 0; i < AREA_PAGES * PAGE; i++)
		if (p[i] != (uint8_t)(i / PAGE * 7 + i + what))
			return false;
	return true;
}

/*
 * All mappings with their flags, but those of the kernel and the one at @but.
 * The kernel's own marks (soft-dirty) do not count.
 */
static char *all_mappings(const void *but)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char *text = NULL, line[512], head[512] = "";
	size_t len;
	FILE *out = open_memstream(&text, &len);

	while (f && fgets(line, sizeof(line), f)) {
		char *sd = strstr(line, " sd");

		if (strchr("0123456789abcdef", line[0]))
			strcpy(head, line);
		if (strncmp(line, "VmFlags:", 8) || strstr(head, "[v") ||
		    strtoul(head, NULL, 16) == (unsigned long)but)
			continue;
		/* a memory object is another inode there */
		if (strstr(head, " (deleted)") && strlen(head) > 73)
			memset(head + 34, '-', 39);
		if (sd)
			memmove(sd, sd + 3, strlen(sd + 3) + 1);
		fprintf(out, "%s%s", head, line);
	}
	if (f)
		fclose(f);
	fclose(out);
	return text;
}

static void same_mappings(const char *before, const void *but)
{
	char *after = all_mappings(but);
	size_t i;

	for (i = 0; before[i] && before[i] == after[i]; i++)
		;
	if (before[i] || after[i]) {
		while (i && before[i - 1] != '\n')
			i--;
		wrong("mapping \"%.90s\" is now \"%.90s\"", before + i,
		      after + i);
	}
	free(after);
}

static void guest_memory(void)
{
	uint8_t *gone_file, *file, *none, *ro, *locked, *wipe, *nofork, *shared,
		*object, *nores, *hole;
	_cleanup_free_ char *before = NULL;
	int fd, mem;

	fd = open("gone", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	want(fd >= 0 && !ftruncate(fd, AREA_PAGES * PAGE));
	gone_file = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	fill(gone_file, 1);
	munmap(gone_file, AREA_PAGES * PAGE);
	/* it will be anonymous: its neighbours must not be of its kind */
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	gone_file = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	gone_file[PAGE] ^= 0xff;
	want(!unlink("gone"));
	close(fd);
	fd = open("kept", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	none = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(none, 2);
	want(write(fd, none, AREA_PAGES * PAGE) == (ssize_t)(AREA_PAGES * PAGE));
	close(fd);
	fd = open("kept", O_RDONLY | O_CLOEXEC);
	file = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	close(fd);
	file[2 * PAGE] ^= 0xff;
	mprotect(none, AREA_PAGES * PAGE, PROT_NONE);
	ro = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(ro, 3);
	mprotect(ro, AREA_PAGES * PAGE, PROT_READ);
	locked = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(locked, 4);
	want(!mlock(locked, AREA_PAGES * PAGE));
	wipe = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(wipe, 5);
	want(!madvise(wipe, AREA_PAGES * PAGE, MADV_WIPEONFORK));
	nofork = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(nofork, 6);
	want(!madvise(nofork, AREA_PAGES * PAGE, MADV_DONTFORK));
	want(!madvise(nofork, AREA_PAGES * PAGE, MADV_DONTDUMP));
	nores = map(PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	fill(nores, 7);
	shared = map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(shared, 8);
	mprotect(shared + 4 * PAGE, 4 * PAGE, PROT_READ);
	mem = memfd_create("a name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	want(mem >= 0 && !ftruncate(mem, AREA_PAGES * PAGE));
	object = map(PROT_READ | PROT_WRITE, MAP_SHARED, mem);
	close(mem);
	fill(object, 9);
	hole = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(hole, 10);
	munmap(hole + 4 * PAGE, 4 * PAGE);
	madvise(hole + 9 * PAGE, PAGE, MADV_DONTNEED);
	madvise(hole, PAGE, MADV_RANDOM);
	want(sbrk(40 * PAGE) != (void *)-1);
	before = all_mappings(gone_file);

	be_moved();

	same_mappings(before, gone_file);
	gone_file[PAGE] ^= 0xff;
	file[2 * PAGE] ^= 0xff;
	want(filled(gone_file, 1));
	want(filled(file, 2));
	mprotect(none, AREA_PAGES * PAGE, PROT_READ);
	want(filled(none, 2));
	want(filled(ro, 3));
	want(filled(locked, 4));
	want(filled(wipe, 5));
	want(filled(nofork, 6));
	want(filled(nores, 7));
	want(filled(shared, 8));
	want(filled(object, 9));
	want(hole[0] == 10 && hole[9 * PAGE] == 0);
}

/* -- merge: what was many mappings becomes one, and grows */

static void guest_merge(void)
{
	const struct timespec ts = { 0, 2000000 };
	uint8_t *p = NULL;
	unsigned int n;

	write_file("ready", "ready");
	/* rounds see it in pieces that are filled apart */
	for (n = 0; !gone(); n++) {
		if (p)
			munmap(p, AREA_PAGES * PAGE);
		p = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1);
		/* parts of what was never written would not join again */
		p[2 * PAGE] = 3;
		mprotect(p + (n % 7 + 1) * PAGE, 3 * PAGE, PROT_READ);
		p[0] = 1;
		p[(AREA_PAGES - 1) * PAGE] = 2;
		nanosleep(&ts, NULL);
		mprotect(p, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE);
		fill(p, n);
		nanosleep(&ts, NULL);
		if (!filled(p, n))
			wrong("content of round %u", n);
		p = mremap(p, AREA_PAGES * PAGE, 2 * AREA_PAGES * PAGE,
			   MREMAP_MAYMOVE);
		if (p == MAP_FAILED) {
			wrong("mremap in round %u: %s", n, strerror(errno));
			return;
		}
		if (!filled(p, n))
			wrong("content after mremap of round %u", n);
		munmap(p + AREA_PAGES * PAGE, AREA_PAGES * PAGE);
	}
}

/* -- join: parts that have been one become one again, before and after */

static void grow(uint8_t *p, const char *what)
{
	uint8_t *to = mremap(p, AREA_PAGES * PAGE, 2 * AREA_PAGES * PAGE,
			     MREMAP_MAYMOVE);

	if (to == MAP_FAILED)
		wrong("%s do not grow as one: %s", what, strerror(errno));
	else if (to[0] != 11 || to[AREA_PAGES * PAGE - 1] != 12)
		wrong("%s lost their content", what);
}

static void guest_join(void)
{
	uint8_t *late = map(PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1);
	uint8_t *early, *mixed, *three;

	/* nothing may touch them */
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	early = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	fill(late, 0);
	fill(early, 0);
	late[0] = early[0] = 11;
	late[AREA_PAGES * PAGE - 1] = early[AREA_PAGES * PAGE - 1] = 12;
	want(!mprotect(late + 4 * PAGE, 4 * PAGE, PROT_READ));
	want(!madvise(late + 4 * PAGE, 4 * PAGE, MADV_DONTNEED));
	want(!munmap(early + 4 * PAGE, 4 * PAGE));
	/* two areas, with a hole between them */
	mixed = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	want(!munmap(mixed + 6 * PAGE, 4 * PAGE));
	mixed[0] = mixed[AREA_PAGES * PAGE - 1] = 1;
	/* three that were never written, the largest in front */
	three = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	want(!munmap(three + 7 * PAGE, 2 * PAGE));
	want(!munmap(three + 10 * PAGE, 2 * PAGE));
	write_file("ready", "ready");
	/* the rounds see these parts, in each of them */
	while (access("join", F_OK))
		usleep(1000);
	want(mmap(early + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	     early + 4 * PAGE);
	for (int at = 7; at <= 10; at += 3)
		want(mmap(three + at * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		     three + at * PAGE);
	three[0] = 11;
	three[AREA_PAGES * PAGE - 1] = 12;
	/* now one area, taken apart elsewhere */
	want(mmap(mixed, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mixed);
	mixed[0] = 11;
	mixed[AREA_PAGES * PAGE - 1] = 12;
	want(!mprotect(mixed, 8 * PAGE, PROT_READ));
	write_file("joined", "joined");
	while (!gone())
		usleep(1000);
	grow(early, "parts joined before the move");
	want(!mprotect(late + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE));
	grow(late, "parts joined behind the move");
	want(!mprotect(mixed, 8 * PAGE, PROT_READ | PROT_WRITE));
	grow(mixed, "parts of two areas made one before the move");
	grow(three, "three parts made one before the move");
}

/* -- shorter: files without a name that end within their mappings */

static uint8_t *map_gone(const char *name, off_t len)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint8_t *p;

	want(fd >= 0 && !ftruncate(fd, AREA_PAGES * PAGE));
	p = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	fill(p, 1);
	munmap(p, AREA_PAGES * PAGE);
	/* it will be anonymous: its neighbours must not be of its kind */
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	p = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	want(!ftruncate(fd, len) && !unlink(name));
	close(fd);
	return p;
}

/* its length, by whoever can find it without a name */
static void cut_gone(const uint8_t *p, off_t len)
{
	char path[80];

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx",
		 (unsigned long)p, (unsigned long)p + AREA_PAGES * PAGE);
	want(!truncate(path, len));
}

/* @len bytes of the file, and zeros where there is none */
static void want_gone(const uint8_t *p, size_t len, const char *what)
{
	size_t i;

	for (i = 0; i < AREA_PAGES * PAGE; i++) {
		if (p[i] != (i < len ? (uint8_t)(i / PAGE * 7 + i + 1) : 0)) {
			wrong("%s: byte %zu is %u", what, i, p[i]);
			return;
		}
	}
}

static void guest_shorter(void)
{
	uint8_t *is = map_gone("is", 5 * PAGE + 100);
	uint8_t *gets = map_gone("gets", AREA_PAGES * PAGE);
	uint8_t *grows = map_gone("grows", 2 * PAGE);
	uint8_t *no = map_gone("no", 0);

	is[PAGE] ^= 0xff;
	gets[PAGE] ^= 0xff;
	gets[12 * PAGE] ^= 0xff;
	write_file("ready", "ready");
	while (access("join", F_OK))
		usleep(1000);
	/* what it wrote behind the new end goes as well */
	cut_gone(gets, 7 * PAGE + 1);
	cut_gone(grows, 4 * PAGE);
	write_file("joined", "joined");
	while (!gone())
		usleep(1000);
	is[PAGE] ^= 0xff;
	gets[PAGE] ^= 0xff;
	want_gone(is, 5 * PAGE + 100, "a file that is shorter");
	want_gone(gets, 7 * PAGE + 1, "a file that gets shorter");
	want_gone(grows, 2 * PAGE, "a file that grows");
	want_gone(no, 0, "an empty file");
}

/* -- identity: who it is, what it was set to */

static void guest_identity(void)
{
	const pid_t pid = getpid(), tid = gettid(), parent = getppid();
	struct timespec before, after;
	char name[16] = "", cwd[4096], now[4096];
	void *brk = sbrk(0);
	int sig = 0;

	umask(0027);
	prctl(PR_SET_NAME, "somebody else");
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_TIMERSLACK, 123456UL);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	want(getcwd(cwd, sizeof(cwd)));
	clock_gettime(CLOCK_MONOTONIC, &before);

	be_moved();

	clock_gettime(CLOCK_MONOTONIC, &after);
	want(after.tv_sec - before.tv_sec >= 0 &&
	     after.tv_sec - before.tv_sec < 300);
	want(getpid() == pid && gettid() == tid && getppid() == parent);
	want(getsid(0) == pid && getpgid(0) == pid);
	prctl(PR_GET_NAME, name);
	want(!strcmp(name, "somebody else"));
	prctl(PR_GET_PDEATHSIG, &sig);
	want(sig == SIGUSR1);
	want(prctl(PR_GET_DUMPABLE) == 0);
	want(prctl(PR_GET_TIMERSLACK) == 123456);
	want(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
	sig = 0;
	prctl(PR_GET_CHILD_SUBREAPER, &sig);
	want(sig == 1);
	want(umask(0) == 0027 && sbrk(0) == brk);
	want(getcwd(now, sizeof(now)) && !strcmp(cwd, now));
	/* nothing of the mover is left */
	want(!syscall(SYS_close_range, 3, ~0U, 0));
	want(mmap((void *)0x20000, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
		  MAP_FIXED_NOREPLACE, -1, 0) == (void *)0x20000);
}

/* -- sleep: calls that know their remaining time, across the move */

#define SLEEP_NS 1500000000LL

static int64_t clock_now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static long sleep_nanosleep(const struct timespec *ts)
{
	return syscall(SYS_nanosleep, ts, NULL);
}

static long sleep_rest(const struct timespec *ts)
{
	struct timespec left;

	return syscall(SYS_nanosleep, ts, &left);
}

static long sleep_clock(const struct timespec *ts)
{
	return syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, ts, NULL);
}

static long sleep_poll(const struct timespec *ts)
{
	return syscall(SYS_poll, NULL, 0,
		       (int)(ts->tv_sec * 1000 + ts->tv_nsec / 1000000));
}

static long sleep_futex(const struct timespec *ts)
{
	static uint32_t word;
	long r = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, ts, NULL, 0);

	return r < 0 && errno == ETIMEDOUT ? 0 : r;
}

static const struct sleeper {
	const char *name;
	long (*run)(const struct timespec *ts);
} sleepers[] = {
	{ "nanosleep", sleep_nanosleep },
	{ "nanosleep with a rest", sleep_rest },
	{ "clock_nanosleep", sleep_clock },
	{ "poll", sleep_poll },
	{ "futex", sleep_futex },
};

static void *sleep_on(void *arg)
{
	const struct timespec ts = { SLEEP_NS / 1000000000,
				     SLEEP_NS % 1000000000 };
	const struct sleeper *s = arg;

	do {
		const int64_t begin = clock_now(CLOCK_MONOTONIC);
		int64_t took;

		if (s->run(&ts))
			wrong("%s: %s", s->name, strerror(errno));
		took = clock_now(CLOCK_MONOTONIC) - begin;
		if (took < SLEEP_NS)
			wrong("%s ended %lld ns early", s->name,
			      (long long)(SLEEP_NS - took));
	} while (!gone());
	return NULL;
}

static void guest_sleep(void)
{
	pthread_t t[ARRAY_SIZE(sleepers)];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(t); i++)
		pthread_create(&t[i], NULL, sleep_on, (void *)&sleepers[i]);
	usleep(20000);
	be_moved();
	for (i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
}

/* -- clocks: read all the time, by the vDSO, from two threads */

static void *read_clocks(void *arg)
{
	int64_t last = 0;

	(void)arg;
	while (!gone()) {
		volatile int spin;
		int i;

		for (i = 0; i < 500; i++) {
			const int64_t now = clock_now(CLOCK_MONOTONIC);

			if (now < last)
				wrong("the clock went back by %lld ns",
				      (long long)(last - now));
			last = now;
			if (clock_now(CLOCK_REALTIME_COARSE) < 1000000000LL ||
			    time(NULL) < 1000000000)
				wrong("no time of day");
			/* or it would be inside of the vDSO at each stop */
			for (spin = 0; spin < 20000; spin++)
				;
		}
	}
	return NULL;
}

static void guest_clocks(void)
{
	pthread_t t;

	pthread_create(&t, NULL, read_clocks, NULL);
	write_file("ready", "ready");
	read_clocks(NULL);
	pthread_join(t, NULL);
}

/* -- births: threads come and go all the time */

static _Atomic unsigned long born;
static __thread unsigned long mine;

static void *short_life(void *arg)
{
	mine = (unsigned long)arg;
	usleep(3000);
	if (mine != (unsigned long)arg)
		wrong("thread-local memory");
	born++;
	return NULL;
}

static void guest_births(void)
{
	unsigned long made = 0;
	pthread_t t[8];
	size_t i;

	write_file("ready", "ready");
	while (!gone()) {
		for (i = 0; i < ARRAY_SIZE(t); i++) {
			if (pthread_create(&t[i], NULL, short_life, (void *)made))
				wrong("pthread_create: %s", strerror(errno));
			made++;
			usleep(200);
		}
		for (i = 0; i < ARRAY_SIZE(t); i++)
			if (pthread_join(t[i], NULL))
				wrong("pthread_join");
	}
	want(born == made);
}

static const struct {
	const char *name;
	void (*run)(void);
} guests[] = {
	{ "signals", guest_signals },
	{ "trap", guest_trap },
	{ "memory", guest_memory },
	{ "merge", guest_merge },
	{ "join", guest_join },
	{ "shorter", guest_shorter },
	{ "identity", guest_identity },
	{ "sleep", guest_sleep },
	{ "births", guest_births },
	{ "clocks", guest_clocks },
};

const char *const state_guests[] = {
	"signals", "trap", "memory", "merge", "join", "shorter", "identity",
	"sleep", "births", "clocks", NULL,
};

int state_guest(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(guests); i++) {
		if (strcmp(guests[i].name, name))
			continue;
		guests[i].run();
		write_file("verdict", verdict);
		return strcmp(verdict, "ok") != 0;
	}
	return 2;
}
