// SPDX-License-Identifier: GPL-2.0
/*
 * Guests that are made to call: what they have stays as it is, and whatever
 * comes between, they are not lost
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "counting.h"
#include "guest/user_records.h"

#define STOP_NS		NSEC
#define CYCLES		30
#define BELOW		(64 << 10)

static void (*prepare)(void);

static void prepared(void)
{
	prepare();
	count();
}

/* one that counts when it has done @body */
static pid_t ready_guest(void (*body)(void))
{
	pid_t pid;

	prepare = body;
	pid = start_guest(prepared);
	wait_ready();
	return pid;
}

/* of all threads and the process, 0 = movable; or -errno */
static int64_t state_of(struct guest *g)
{
	const struct vasi_rec_process *p;
	int64_t held;
	size_t len;
	void *buf;
	int r = a->state(g, &buf, &len);

	if (r)
		return r;
	p = find_record(buf, len, VASI_REC_PROCESS, 0, -1, NULL);
	must(p);
	held = (int64_t)p->unmovable;
	free(buf);
	return held;
}

static char *text_of(pid_t pid, const char *name)
{
	static char text[2][65536];
	static int turn;
	char path[64];
	size_t n;
	FILE *f;

	turn = !turn;
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	f = fopen(path, "r");
	must(f);
	n = fread(text[turn], 1, sizeof(text[turn]) - 1, f);
	text[turn][n] = '\0';
	fclose(f);
	return text[turn];
}

static char field_of(pid_t pid, const char *key)
{
	const char *at = strstr(text_of(pid, "status"), key);

	must(at);
	return at[strlen(key) + 2];
}

/* -- memory */

static void no_handler(int sig)
{
	(void)sig;
}

/* much to ask for */
static void many_actions(void)
{
	int i;

	for (i = 34; i < 60; i++)
		signal(i, no_handler);
}

/* what is below the stack of the first thread belongs to the second one */
static void *use_memory(void *arg)
{
	volatile uint64_t *v = arg;
	uint64_t n = 0;
	size_t i;

	for (;;) {
		n++;
		for (i = 0; i < BELOW / sizeof(n); i++)
			v[i] = n;
		for (i = 0; i < BELOW / sizeof(n); i++)
			page->wrong |= v[i] != n;
		page->rounds[0]++;
	}
	return NULL;
}

static void stay(int sig)
{
	(void)sig;
	page->ready = 1;
	for (;;)
		pause();
}

static void on_small_stack(void)
{
	static uint8_t memory[BELOW + 16384] __attribute__((aligned(4096)));
	stack_t ss = { .ss_sp = memory + BELOW, .ss_size = 16384 };
	struct sigaction sa = { .sa_handler = stay, .sa_flags = SA_ONSTACK };
	sigset_t all, none;
	pthread_t t;

	many_actions();
	sigfillset(&all);
	sigemptyset(&none);
	must(!sigaltstack(&ss, NULL) && !sigaction(SIGUSR1, &sa, NULL));
	sigprocmask(SIG_SETMASK, &all, NULL);
	must(!pthread_create(&t, NULL, use_memory, memory));
	sigprocmask(SIG_SETMASK, &none, NULL);
	raise(SIGUSR1);
}

static void test_memory(void)
{
	const pid_t pid = ready_guest(on_small_stack);
	struct guest *g = attached(pid);
	int i, good = 0;

	for (i = 0; i < CYCLES; i++)
		good += !state_of(g);
	ok(good == CYCLES && runs() && !page->wrong,
	   "a thread on a small stack is asked: what is below is not touched");
	a->close(g);
	end_guest(pid);
}

static void test_mappings(void)
{
	const pid_t pid = ready_guest(many_actions);
	const char *before = strdup(text_of(pid, "maps"));
	struct guest *g = attached(pid);
	int64_t running = state_of(g), suspended;

	ok(!running && !strcmp(before, text_of(pid, "maps")),
	   "its mappings are what they were");
	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	suspended = state_of(g);
	ok(!suspended && !strcmp(before, text_of(pid, "maps")),
	   "also before a suspended one goes on");
	a->close(g);
	end_guest(pid);
}

static void lock_current(void)
{
	must(!mlockall(MCL_CURRENT));
}

static void lock_future(void)
{
	must(!mlockall(MCL_FUTURE));
}

static void lock_onfault(void)
{
	must(!mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
}

static void test_locked(const char *name, void (*body)(void), uint64_t flags)
{
	const pid_t pid = ready_guest(body);
	const char *before = strdup(text_of(pid, "maps"));
	struct guest *g = attached(pid);
	const struct vasi_rec_process *p;
	size_t len;
	void *buf;

	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	must(!a->state(g, &buf, &len));
	p = find_record(buf, len, VASI_REC_PROCESS, 0, -1, NULL);
	ok(p && p->def_flags == flags &&
	   !strcmp(before, text_of(pid, "maps")), "%s: flags %#llx", name,
	   p ? (unsigned long long)p->def_flags : 0);
	free(buf);
	a->close(g);
	end_guest(pid);
}

static void at_its_limit(void)
{
	const struct rlimit none = { 0, 0 };

	many_actions();
	must(!setrlimit(RLIMIT_AS, &none));
}

static void test_limit(void)
{
	const pid_t pid = ready_guest(at_its_limit);
	struct guest *g = attached(pid);

	ok(state_of(g) == -ENOMEM && runs(),
	   "where there is no room for a page nothing is made up");
	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	ok(state_of(g) == -ENOMEM && !a->resume(g) && runs(),
	   "neither when it is suspended");
	a->close(g);
	end_guest(pid);
}

/* -- who makes none */

static void kill_on_call(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = { 4, f };

	many_actions();
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	must(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
}

static char selector;

static void dispatched(void)
{
	many_actions();
	must(!prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector));
	selector = 1;	/* from here on each call is a SIGSYS */
}

/* an endless loop in a 32-bit code segment */
static void in_32bit_code(void)
{
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	must(code != MAP_FAILED);
	many_actions();
	code[0] = 0xeb;
	code[1] = 0xfe;
	page->ready = 1;
	asm volatile("pushq $0x23\n\tpushq %0\n\tlretq" :
		     : "r"((uint64_t)(uintptr_t)code) : "memory");
}

static bool spins(pid_t pid)
{
	unsigned long a1, a2;
	const char *f = "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu";

	must(sscanf(text_of(pid, "stat"), f, &a1) == 1);
	return wait_until(sscanf(text_of(pid, "stat"), f, &a2) == 1 && a2 > a1);
}

static void test_mute(const char *name, void (*body)(void), int64_t held)
{
	const pid_t pid = ready_guest(body);
	struct guest *g = attached(pid);
	uint64_t arg[6] = { 0 };
	int64_t running, suspended;
	long ret = 0;
	int refused;

	running = state_of(g);
	refused = user_syscall(user_of(g), 0, SYS_getpid, arg, &ret);
	a->track(g, VASI_TRACK_START);
	a->track(g, VASI_TRACK_STOP);
	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	suspended = state_of(g);
	a->close(g);
	ok(running == held && suspended == held && refused == -EOPNOTSUPP,
	   "%s: makes no calls (%#llx, %#llx, %d)", name, (long long)running,
	   (long long)suspended, refused);
	ok(spins(pid) && waitpid(pid, NULL, WNOHANG) == 0, "and goes on");
	end_guest(pid);
}

/* -- frozen by others */

static char cgroup[600];

static void put(const char *name, const char *text)
{
	char path[700];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", cgroup, name);
	fd = open(path, O_WRONLY);
	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static bool frozen(void)
{
	char path[700], text[64] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.events", cgroup);
	fd = open(path, O_RDONLY);
	must(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return strstr(text, "frozen 1");
}

static pid_t start_in_cgroup(void)
{
	const pid_t pid = ready_guest(many_actions);
	char text[16];

	snprintf(cgroup, sizeof(cgroup), "%s/calls-%d", user_cgroup_root(),
		 getpid());
	must(!mkdir(cgroup, 0755));
	snprintf(text, sizeof(text), "%d", pid);
	put("cgroup.procs", text);
	return pid;
}

static void end_in_cgroup(pid_t pid)
{
	end_guest(pid);
	must(wait_until(!rmdir(cgroup)));
}

static void test_frozen(void)
{
	const pid_t pid = start_in_cgroup();
	struct guest_holdup holdup = {};
	struct guest *g = attached(pid);
	uint64_t arg[6] = { 0 };
	long ret = 0;

	put("cgroup.freeze", "1");
	must(wait_until(frozen()));
	ok(state_of(g) == VASI_HELD_STOPPED,
	   "one that others have frozen is not asked, and said to be stopped");
	ok(a->suspend(g, DEADLINE_MS, 0, &holdup) == -ETIMEDOUT &&
	   holdup.reason == VASI_HOLDUP_STOPPED &&
	   user_syscall(user_of(g), 0, SYS_getpid, arg, &ret) == -ETIMEDOUT,
	   "nor is it suspended");
	put("cgroup.freeze", "0");
	ok(runs() && !state_of(g), "it goes on, and is asked then");
	a->close(g);
	end_in_cgroup(pid);
}

static int freeze_then_call(struct user_stream *s, void *arg)
{
	const uint64_t args[6] = { 0 };
	long ret;
	int r = user_stop(s, s->pid, now_ns() + STOP_NS, NULL);

	(void)arg;
	must(!r);
	put("cgroup.freeze", "1");
	must(wait_until(frozen()));
	return user_inject(s, &s->threads[0], SYS_getpid, args, &ret);
}

static void test_frozen_within(void)
{
	const pid_t pid = start_in_cgroup();
	struct guest *g = attached(pid);
	int r = user_trace(user_of(g), freeze_then_call, NULL);

	ok(r == -ETIMEDOUT, "one that is frozen then does not come to the call");
	put("cgroup.freeze", "0");
	ok(runs() && field_of(pid, "SigBlk") == '0' && !state_of(g),
	   "but it is given its registers back");
	a->close(g);
	end_in_cgroup(pid);
}

/* -- signals */

static bool all_unblocked(pid_t pid)
{
	return strstr(text_of(pid, "status"), "SigBlk:\t0000000000000000\n");
}

static void test_stopped(void)
{
	const pid_t pid = ready_guest(many_actions);
	const char *before = strdup(text_of(pid, "maps"));
	struct guest *g = attached(pid);
	struct user_stream *s = user_of(g);
	int64_t held;

	must(!a->suspend(g, DEADLINE_MS, 0, NULL));
	kill(pid, SIGSTOP);
	held = state_of(g);
	ok(held == VASI_HELD_STOPPED && !s->page &&
	   !strcmp(before, text_of(pid, "maps")),
	   "a SIGSTOP that comes to a suspended guest is told (%#llx)",
	   (long long)held);
	must(!a->resume(g));
	ok(wait_until(field_of(pid, "State") == 'T') && all_unblocked(pid),
	   "and has stopped it");
	kill(pid, SIGCONT);
	ok(runs() && !state_of(g), "and with SIGCONT it is as before");
	a->close(g);
	end_guest(pid);
}

static int stop_then_call(struct user_stream *s, void *arg)
{
	const uint64_t args[6] = { 0 };
	struct timespec ts;
	long ret;
	int r = user_stop(s, s->pid, now_ns() + STOP_NS, NULL);

	(void)arg;
	must(!r);
	must(!user_inject_mem(s, &s->threads[0], SYS_clock_gettime, args, 1,
			      &ts, sizeof(ts), &ret));
	kill(s->pid, SIGSTOP);
	return user_inject(s, &s->threads[0], SYS_getpid, args, &ret);
}

static void test_stop_between(void)
{
	const pid_t pid = ready_guest(many_actions);
	const char *before = strdup(text_of(pid, "maps"));
	struct guest *g = attached(pid);
	int r = user_trace(user_of(g), stop_then_call, NULL);

	ok(r == -EAGAIN && wait_until(field_of(pid, "State") == 'T'),
	   "a SIGSTOP between two calls is not lost");
	ok(!strcmp(before, text_of(pid, "maps")),
	   "the page is taken away from a stopped guest as well");
	kill(pid, SIGCONT);
	ok(runs() && all_unblocked(pid), "it goes on with SIGCONT");
	a->close(g);
	end_guest(pid);
}

/* -- the mover's end */

static int call_then_stay(struct user_stream *s, void *arg)
{
	const uint64_t args[6] = { 0 };
	atomic_int *called = arg;
	long ret;

	must(!user_stop(s, s->pid, now_ns() + STOP_NS, NULL));
	must(!user_inject(s, &s->threads[0], SYS_getpid, args, &ret));
	*called = 1;
	for (;;)
		pause();
	return 0;
}

static void test_killed(void)
{
	atomic_int *called = shared_memory(sizeof(*called));
	const pid_t pid = ready_guest(many_actions);
	pid_t mover = fork_guest();

	if (!mover) {
		user_trace(user_of(attached(pid)), call_then_stay, called);
		_exit(1);
	}
	must(wait_until(*called));
	end_guest(mover);
	ok(runs() && all_unblocked(pid),
	   "a mover that is killed between two calls leaves no signal blocked");
	end_guest(pid);
}

int main(void)
{
	const int skip = counting_begin();

	if (skip)
		return skip;
	test_memory();
	test_mappings();
	test_locked("mlockall() of what is there", lock_current, 0);
	test_locked("of what will be", lock_future, 0x2000);
	test_locked("of both, when it is used", lock_onfault, 0x82000);
	test_limit();
	test_mute("a seccomp filter", kill_on_call, VASI_HELD_SECCOMP);
	test_mute("system call dispatch", dispatched,
		  VASI_HELD_SYSCALL_DISPATCH);
	test_mute("32-bit code", in_32bit_code, 0);
	test_frozen();
	test_frozen_within();
	test_stopped();
	test_stop_between();
	test_killed();
	return tap_end();
}
