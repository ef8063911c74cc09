// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupted calls in the records: what they were, how much time they have
 * left, also when they are interrupted for the second time; and what becomes of
 * them when a signal has arrived for the parked thread.
 */
#include <elf.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/user.h>

#include "vasi_test.h"

/* as the kernel has them in rax, not in any header for user space */
#define ERESTARTSYS		512
#define ERESTARTNOHAND		514
#define ERESTART_RESTARTBLOCK	516

#define HASTY_SUSPENDS		500

static struct page {
	int64_t begin;		/* of the call, CLOCK_MONOTONIC */
	int64_t begin_real;
	uint64_t arg[3];
	int ready;
	int word;
	int done;
	long result;
	int error;
} *page;

static int64_t real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

static void about_to_block(const void *arg)
{
	page->arg[0] = (uintptr_t)arg;
	page->begin_real = real_ns();
	page->begin = now_ns();
	__atomic_store_n(&page->ready, 1, __ATOMIC_RELEASE);
}

static const struct timespec minute = { 60, 0 };

static void call_nanosleep(void)
{
	static struct timespec left;

	about_to_block(&left);
	syscall(SYS_nanosleep, &minute, &left);
}

static void call_nanosleep_null(void)
{
	about_to_block(NULL);
	syscall(SYS_nanosleep, &minute, NULL);
}

static void call_sleep_boottime(void)
{
	about_to_block(NULL);
	syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &minute, NULL);
}

static void call_poll(void)
{
	static struct pollfd none[2] = { { -1, 0, 0 }, { -1, 0, 0 } };

	about_to_block(none);
	poll(none, 2, 60000);
}

static void call_poll_forever(void)
{
	static struct pollfd none = { -1, 0, 0 };

	about_to_block(&none);
	poll(&none, 1, -1);
}

static void call_futex(void)
{
	about_to_block(&page->word);
	syscall(SYS_futex, &page->word, FUTEX_WAIT_PRIVATE, 0, &minute, NULL, 0);
}

static void call_futex_real(void)
{
	struct timespec ts;

	about_to_block(&page->word);
	ts.tv_sec = page->begin_real / NSEC + 60;
	ts.tv_nsec = page->begin_real % NSEC;
	syscall(SYS_futex, &page->word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME,
		0, &ts, NULL, 0x1234);
}

static void *burn(void *arg)
{
	(void)arg;
	for (;;)
		;
	return NULL;
}

static void call_cpu_sleep(void)
{
	pthread_t t;

	must(!pthread_create(&t, NULL, burn, NULL));
	about_to_block(NULL);
	syscall(SYS_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, 0, &minute, NULL);
}

static const struct sleeper {
	const char *name;
	void (*call)(void);
	uint32_t kind;
	int clock;
	uint64_t user2, user3, user4;
	bool forever;
} sleepers[] = {
	{ "nanosleep", call_nanosleep, VASI_RESTART_NANOSLEEP,
	  CLOCK_MONOTONIC, 0, 0, 0, false },
	{ "nanosleep without a remainder", call_nanosleep_null,
	  VASI_RESTART_NANOSLEEP, CLOCK_MONOTONIC, 0, 0, 0, false },
	{ "clock_nanosleep", call_sleep_boottime, VASI_RESTART_NANOSLEEP,
	  CLOCK_BOOTTIME, 0, 0, 0, false },
	{ "poll", call_poll, VASI_RESTART_POLL, CLOCK_MONOTONIC, 2, 0, 0,
	  false },
	{ "poll without a timeout", call_poll_forever, VASI_RESTART_POLL,
	  CLOCK_MONOTONIC, 1, 0, 0, true },
	{ "private futex", call_futex, VASI_RESTART_FUTEX, CLOCK_MONOTONIC, 0,
	  FUTEX_BITSET_MATCH_ANY, 0, false },
	{ "shared futex on the real-time clock", call_futex_real,
	  VASI_RESTART_FUTEX, CLOCK_REALTIME, 0, 0x1234,
	  VASI_RESTART_FUTEX_SHARED | VASI_RESTART_FUTEX_CLOCKRT, false },
	{ "sleep on a CPU clock", call_cpu_sleep, VASI_RESTART_CPUSLEEP,
	  CLOCK_PROCESS_CPUTIME_ID, 0, 0, 0, false },
};

struct caught {
	struct vasi_rec_restart restart;
	bool has_restart;
	struct user_regs_struct regs;
	struct vasi_rec_thread thread;
};

/* of a suspended guest */
static struct caught look(int fd, pid_t pid)
{
	struct caught c = {};
	size_t len;
	void *buf, *rec;

	must(!get_state(fd, &buf, &len));
	rec = find_record(buf, len, VASI_REC_RESTART, pid, -1, NULL);
	c.has_restart = rec;
	if (rec)
		memcpy(&c.restart, rec, sizeof(c.restart));
	rec = find_record(buf, len, VASI_REC_REGSET, pid, NT_PRSTATUS, NULL);
	must(rec);
	memcpy(&c.regs, rec, sizeof(c.regs));
	rec = find_record(buf, len, VASI_REC_THREAD, pid, -1, NULL);
	must(rec);
	memcpy(&c.thread, rec, sizeof(c.thread));
	free(buf);
	return c;
}

static pid_t start(void (*call)(void), int *ret_fd)
{
	pid_t pid;

	memset(page, 0, sizeof(*page));
	pid = fork_guest();
	if (!pid) {
		call();
		page->done = 1;
		for (;;)
			pause();
	}
	must(wait_until(__atomic_load_n(&page->ready, __ATOMIC_ACQUIRE) &&
			thread_state(pid, pid) == 'S'));
	*ret_fd = attach(pid);
	return pid;
}

static bool expiry_fits(const struct sleeper *s, const struct vasi_rec_restart *r)
{
	int64_t begin = s->clock == CLOCK_REALTIME ? page->begin_real :
						     page->begin;
	int64_t now = s->clock == CLOCK_REALTIME ? real_ns() : now_ns();

	if (s->forever)
		return r->expiry_ns == -1 && r->remaining_ns == -1;
	/* burnt by two threads since an unknown time: not more than a minute */
	if (s->kind == VASI_RESTART_CPUSLEEP)
		return r->remaining_ns > 0 && r->remaining_ns <= 60 * NSEC &&
		       r->expiry_ns >= 60 * NSEC;
	/* this machine was never suspended: boot time is monotonic time */
	return r->expiry_ns >= begin + 60 * NSEC &&
	       r->expiry_ns < begin + 75 * NSEC &&
	       r->remaining_ns >= r->expiry_ns - now &&
	       r->remaining_ns <= 60 * NSEC;
}

static void test_sleeper(const struct sleeper *s)
{
	struct caught first, second;
	int fd;
	pid_t pid = start(s->call, &fd);

	must(!suspend(fd));
	first = look(fd, pid);
	ok((long)first.regs.rax == -ERESTART_RESTARTBLOCK && first.has_restart &&
	   first.restart.kind == s->kind && first.restart.clock == s->clock &&
	   first.restart.user1 == page->arg[0] &&
	   first.restart.user2 == s->user2 && first.restart.user3 == s->user3 &&
	   first.restart.user4 == s->user4,
	   "%s: kind %u clock %d", s->name, first.restart.kind,
	   first.restart.clock);
	ok(expiry_fits(s, &first.restart), "%s: %lld ms left", s->name,
	   (long long)first.restart.remaining_ns / 1000000);

	/* the second time it is restart_syscall() that is interrupted */
	must(!resume(fd));
	sleep_ms(30);
	must(wait_until(thread_state(pid, pid) == 'S'));
	must(!suspend(fd));
	second = look(fd, pid);
	ok((long)second.regs.rax == -ERESTART_RESTARTBLOCK &&
	   second.regs.orig_rax == SYS_restart_syscall &&
	   second.restart.kind == s->kind &&
	   second.restart.expiry_ns == first.restart.expiry_ns &&
	   second.restart.user1 == first.restart.user1 &&
	   (s->forever ||
	    second.restart.remaining_ns < first.restart.remaining_ns),
	   "%s: the same in a second suspend", s->name);
	close(fd);
	end_guest(pid);
}

/*
 * Let go and stopped again at once, a thread is caught between the decision to
 * restart its call and restart_syscall(): what it is told of must not change.
 */
static void test_hasty(const struct sleeper *s)
{
	unsigned int i, wrong = 0;
	int fd;
	pid_t pid = start(s->call, &fd);
	struct caught first, c;

	must(!suspend(fd));
	first = look(fd, pid);
	for (i = 0; i < HASTY_SUSPENDS; i++) {
		must(!resume(fd));
		must(!suspend(fd));
		c = look(fd, pid);
		if ((long)c.regs.rax != -ERESTART_RESTARTBLOCK ||
		    c.regs.rip != first.regs.rip || !c.has_restart ||
		    c.restart.kind != s->kind ||
		    c.restart.expiry_ns != first.restart.expiry_ns ||
		    c.thread.where != VASI_WHERE_SYSCALL)
			wrong++;
	}
	ok(!wrong, "%s: %u of %u suspends without a pause between tell otherwise",
	   s->name, wrong, HASTY_SUSPENDS);
	close(fd);
	end_guest(pid);
}

/* signals that arrive while parked */

static void on_signal(int sig)
{
	(void)sig;
}

static void handle(int flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };

	must(!sigaction(SIGUSR1, &sa, NULL));
}

static void sleep_with_handler(void)
{
	handle(SA_RESTART);
	call_nanosleep();
	page->result = -1;
	page->error = errno;
}

static void block(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void suspend_unblocked(void)
{
	sigset_t set;

	handle(0);
	sigemptyset(&set);
	about_to_block(NULL);
	sigsuspend(&set);
}

static void suspend_blocked(void)
{
	block(SIGUSR1);
	suspend_unblocked();
}

static void read_with(int flags)
{
	int fd[2];
	char c;

	handle(flags);
	must(!pipe(fd));
	about_to_block(NULL);
	page->result = read(fd[0], &c, 1);
	page->error = errno;
}

static void read_restart(void)
{
	read_with(SA_RESTART);
}

static void read_eintr(void)
{
	read_with(0);
}

static void read_stop(void)
{
	signal(SIGUSR1, SIG_DFL);
	block(SIGUSR1);
	read_with(0);
}

static void test_signal(const char *name, void (*call)(void), long before,
			long after)
{
	struct caught c;
	int fd;
	pid_t pid = start(call, &fd);

	must(!suspend(fd));
	c = look(fd, pid);
	ok((long)c.regs.rax == before, "%s: rax is %ld", name,
	   (long)c.regs.rax);
	must(!kill(pid, SIGUSR1));
	c = look(fd, pid);
	ok((long)c.regs.rax == after &&
	   c.has_restart == (after == -ERESTART_RESTARTBLOCK),
	   "%s: with a signal it is %ld", name, (long)c.regs.rax);
	close(fd);
	end_guest(pid);
}

int main(void)
{
	size_t i;

	page = shared_memory(sizeof(*page));
	for (i = 0; i < sizeof(sleepers) / sizeof(sleepers[0]); i++)
		test_sleeper(&sleepers[i]);
	test_hasty(&sleepers[0]);
	test_hasty(&sleepers[3]);
	test_hasty(&sleepers[5]);
	test_signal("nanosleep", sleep_with_handler, -ERESTART_RESTARTBLOCK,
		    -EINTR);
	test_signal("sigsuspend of a signal that is not blocked",
		    suspend_unblocked, -ERESTARTNOHAND, -EINTR);
	/* made again, the call unblocks it and is ended by it */
	test_signal("sigsuspend of a signal that is blocked",
		    suspend_blocked, -ERESTARTNOHAND, -ERESTARTNOHAND);
	test_signal("read, handler with SA_RESTART", read_restart,
		    -ERESTARTSYS, -ERESTARTSYS);
	test_signal("read, handler without", read_eintr, -ERESTARTSYS, -EINTR);
	test_signal("read, signal blocked", read_stop, -ERESTARTSYS,
		    -ERESTARTSYS);
	return tap_end();
}
