// SPDX-License-Identifier: GPL-2.0
/*
 * What a suspend promises: nothing runs meanwhile, calls with a timeout end
 * neither early nor with an error, signals wait, whatever the threads do and
 * however the suspend ends.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/user.h>

#include "vasi_test.h"

/* what the guests of all tests write down */
static struct page {
	atomic_long count[16];
	atomic_int tid[16];
	atomic_int ready;
	atomic_int go;
	atomic_long result[16];
	atomic_long ns[16];
} *page;

static pid_t start(void (*body)(void))
{
	pid_t pid;

	memset(page, 0, sizeof(*page));
	pid = fork_guest();
	if (!pid) {
		body();
		for (;;)
			pause();
	}
	return pid;
}

static bool resumes(int fd)
{
	return resume(fd) == 0;
}

/* 1: counters */

static void *count_in_user(void *arg)
{
	atomic_long *n = arg;

	for (;;)
		(*n)++;
	return NULL;
}

static void *count_calls(void *arg)
{
	atomic_long *n = arg;

	for (;;) {
		syscall(SYS_getppid);
		(*n)++;
	}
	return NULL;
}

static void *count_sleeps(void *arg)
{
	atomic_long *n = arg;

	for (;;) {
		sleep_ms(1);
		(*n)++;
	}
	return NULL;
}

static void counting_guest(void)
{
	static void *(*const body[])(void *) = {
		count_in_user, count_calls, count_sleeps,
	};
	pthread_t t;
	int i;

	for (i = 0; i < 9; i++)
		must(!pthread_create(&t, NULL, body[i % 3], &page->count[i]));
}

static bool all_count(void)
{
	int i;

	for (i = 0; i < 9; i++)
		if (!page->count[i])
			return false;
	return true;
}

static void test_counters(void)
{
	pid_t pid = start(counting_guest);
	bool still = true, moves = true;
	long before[9];
	int fd, i, j;

	must(wait_until(all_count()));
	fd = attach(pid);
	for (j = 0; j < 10; j++) {
		must(!suspend(fd));
		for (i = 0; i < 9; i++)
			before[i] = page->count[i];
		sleep_ms(30);
		for (i = 0; i < 9; i++)
			still = still && page->count[i] == before[i];
		must(!resume(fd));
		for (i = 0; i < 9; i++)
			moves = moves && wait_until(page->count[i] != before[i]);
	}
	ok(still, "nine threads stand still while suspended");
	ok(moves, "and all go on after each resume");
	close(fd);
	end_guest(pid);
}

/* 2: calls of one second, suspended for 0.3 s in the middle */

static long timed_nanosleep(void)
{
	struct timespec ts = { 1, 0 };

	return nanosleep(&ts, NULL);
}

static long timed_clock_nanosleep(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec++;
	return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static long timed_poll(void)
{
	return poll(NULL, 0, 1000);
}

static long timed_futex(void)
{
	struct timespec ts = { 1, 0 };
	int word = 0;

	return syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, &ts, NULL, 0) ==
	       -1 && errno == ETIMEDOUT ? 0 : -1;
}

static long timed_select(void)
{
	struct timeval tv = { 1, 0 };

	return select(0, NULL, NULL, NULL, &tv);
}

static long timed_epoll(void)
{
	struct epoll_event ev;

	return epoll_wait(epoll_create1(0), &ev, 1, 1000);
}

static long timed_sigtimedwait(void)
{
	struct timespec ts = { 1, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return sigtimedwait(&set, NULL, &ts) == -1 && errno == EAGAIN ? 0 : -1;
}

static long timed_recv(void)
{
	struct timeval tv = { 1, 0 };
	int fd[2];
	char c;

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return recv(fd[0], &c, 1, 0) == -1 && errno == EAGAIN ? 0 : -1;
}

static long (*const timed[])(void) = {
	timed_nanosleep, timed_clock_nanosleep, timed_poll, timed_futex,
	timed_select, timed_epoll, timed_sigtimedwait, timed_recv,
};

static const char *const timed_name[] = {
	"nanosleep", "clock_nanosleep", "poll", "futex",
	"select", "epoll_wait", "sigtimedwait", "recv with SO_RCVTIMEO",
};

#define NR_TIMED ((int)(sizeof(timed) / sizeof(timed[0])))

static void *run_timed(void *arg)
{
	long i = (long)arg;
	int64_t begin;

	page->tid[i] = gettid();
	page->ready++;
	begin = now_ns();
	page->result[i] = timed[i]();
	page->ns[i] = now_ns() - begin;
	page->count[i] = 1;
	return NULL;
}

static void timed_guest(void)
{
	pthread_t t;
	long i;

	for (i = 0; i < NR_TIMED; i++)
		must(!pthread_create(&t, NULL, run_timed, (void *)i));
}

static bool all_timed(pid_t pid, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (thread_state(pid, page->tid[i]) != 'S')
			return false;
	return true;
}

static void test_timeouts(void)
{
	pid_t pid = start(timed_guest);
	int fd, i, n;

	fd = attach(pid);
	must(wait_until(page->ready == NR_TIMED && all_timed(pid, NR_TIMED)));
	/* suspended twice: the second time in a call that was restarted */
	for (n = 0; n < 2; n++) {
		sleep_ms(100);
		must(!suspend(fd));
		sleep_ms(150);
		must(resumes(fd));
	}
	for (i = 0; i < NR_TIMED; i++) {
		must(wait_until(page->count[i]));
		ok(!page->result[i] && page->ns[i] >= NSEC,
		   "%s of 1 s with two suspends: result %ld, not early (%ld ms)",
		   timed_name[i], page->result[i], page->ns[i] / 1000000);
	}
	/* those whose expiry is absolute in the kernel don't begin again */
	for (i = 0; i < 4; i++)
		note("%s: %ld ms over", timed_name[i],
		     page->ns[i] / 1000000 - 1000);
	close(fd);
	end_guest(pid);
}

static void test_suspended_past_the_end(void)
{
	pid_t pid = start(timed_guest);
	int fd = attach(pid), i;
	bool good = true;

	must(wait_until(page->ready == NR_TIMED && all_timed(pid, NR_TIMED)));
	must(!suspend(fd));
	sleep_ms(1300);
	for (i = 0; i < NR_TIMED; i++)
		good = good && !page->count[i];
	must(resumes(fd));
	for (i = 0; i < NR_TIMED; i++)
		good = good && wait_until(page->count[i]) && !page->result[i];
	ok(good, "calls that expire while suspended end after the resume");
	close(fd);
	end_guest(pid);
}

/* 3: signals */

static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	handled = sig;
}

static void sigsuspend_guest(void)
{
	sigset_t set;

	signal(SIGUSR1, on_signal);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigemptyset(&set);
	page->tid[0] = gettid();
	page->ready = 1;
	page->result[0] = sigsuspend(&set);
	page->result[1] = errno;
	page->result[2] = handled;
	page->count[0] = 1;
}

static void test_sigsuspend(void)
{
	pid_t pid = start(sigsuspend_guest);
	int fd = attach(pid);

	must(wait_until(page->ready && thread_state(pid, pid) == 'S'));
	must(!suspend(fd));
	must(!kill(pid, SIGUSR1));
	sleep_ms(30);
	ok(!page->count[0], "a signal to a parked thread waits");
	must(resumes(fd));
	ok(wait_until(page->count[0]) && page->result[0] == -1 &&
	   page->result[1] == EINTR && page->result[2] == SIGUSR1,
	   "and ends its sigsuspend after the resume");
	close(fd);
	end_guest(pid);
}

static void epoll_guest(void)
{
	struct epoll_event ev;

	signal(SIGUSR1, on_signal);
	page->ready = 1;
	page->result[0] = epoll_wait(epoll_create1(0), &ev, 1, -1);
	page->result[1] = errno;
	page->result[2] = handled;
	page->count[0] = 1;
}

static void test_epoll_signal(void)
{
	pid_t pid = start(epoll_guest);
	int fd = attach(pid);

	must(wait_until(page->ready && thread_state(pid, pid) == 'S'));
	must(!suspend(fd));
	must(!kill(pid, SIGUSR1));
	must(resumes(fd));
	ok(wait_until(page->count[0]) && page->result[0] == -1 &&
	   page->result[1] == EINTR && page->result[2] == SIGUSR1,
	   "a real signal still ends epoll_wait with EINTR");
	close(fd);
	end_guest(pid);
}

static void one_counter(void)
{
	page->tid[0] = gettid();
	page->ready = 1;
	count_in_user(&page->count[0]);
}

static void test_stop_while_parked(void)
{
	pid_t pid = start(one_counter);
	int fd = attach(pid), status;
	long n;

	must(wait_until(page->count[0]));
	must(!suspend(fd));
	must(!kill(pid, SIGSTOP));
	ok(!waitpid(pid, &status, WUNTRACED | WNOHANG),
	   "SIGSTOP of a parked guest waits");
	must(resumes(fd));
	must(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	n = page->count[0];
	sleep_ms(20);
	ok(page->count[0] == n, "and takes effect at the resume");

	/* now the other way round: stopped, then suspended, then continued */
	ok(!suspend(fd), "a stopped guest can be suspended");
	must(!kill(pid, SIGCONT));
	sleep_ms(50);
	ok(page->count[0] == n, "and stays so when it is continued");
	must(resumes(fd));
	ok(wait_until(page->count[0] != n), "and runs after the resume");
	close(fd);
	end_guest(pid);
}

static void test_kill_while_parked(void)
{
	pid_t pid = start(counting_guest);
	int fd = attach(pid), status;
	int64_t begin;

	must(wait_until(all_count()));
	must(!suspend(fd));
	begin = now_ns();
	must(!kill(pid, SIGKILL));
	ok(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status),
	   "SIGKILL ends a parked guest (%ld ms)",
	   (long)((now_ns() - begin) / 1000000));
	ok(suspend(fd) == -ESRCH, "which then can't be suspended");
	close(fd);
}

/* 4: births and deaths */

static int vfork_child(void *arg)
{
	(void)arg;
	sleep_ms(3);
	page->count[0]++;
	_exit(0);
}

static void *vfork_storm(void *arg)
{
	char *stack = malloc(65536);
	pid_t pid;

	(void)arg;
	for (;;) {
		pid = clone(vfork_child, stack + 65536,
			    CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
	return NULL;
}

static void vfork_guest(void)
{
	pthread_t t;
	int i;

	for (i = 0; i < 3; i++)
		must(!pthread_create(&t, NULL, vfork_storm, NULL));
}

static void test_storm(void (*body)(void), const char *name)
{
	pid_t pid = start(body);
	int fd = attach(pid), i, good = 0;
	bool still = true;
	long n;

	must(wait_until(page->count[0] > 3));
	for (i = 0; i < 40; i++) {
		good += !suspend(fd);
		n = page->count[0];
		sleep_ms(5);
		still = still && page->count[0] == n;
		resume(fd);
		must(wait_until(page->count[0] != n));
	}
	ok(good == 40, "%s: %d of 40 suspends", name, good);
	ok(still, "%s: nothing is born or dies meanwhile", name);
	close(fd);
	end_guest(pid);
}

static void *short_life(void *arg)
{
	(void)arg;
	page->count[0]++;
	return NULL;
}

static void *thread_storm(void *arg)
{
	pthread_t t;

	(void)arg;
	for (;;)
		if (!pthread_create(&t, NULL, short_life, NULL))
			pthread_join(t, NULL);
	return NULL;
}

static void clone_guest(void)
{
	pthread_t t;
	int i;

	for (i = 0; i < 4; i++)
		must(!pthread_create(&t, NULL, thread_storm, NULL));
}

static void test_exit_races(void)
{
	int i, fd, ret, odd = 0;
	pid_t pid;

	for (i = 0; i < 30; i++) {
		pid = start(counting_guest);
		must(wait_until(page->count[0]));
		fd = attach(pid);
		kill(pid, SIGKILL);
		ret = suspend_with(fd, 0, 20000, NULL);
		odd += ret && ret != -ESRCH && ret != -ECANCELED;
		waitpid(pid, NULL, 0);
		close(fd);
	}
	ok(!odd, "30 suspends of a dying guest end with it");
}

static void exec_guest(void)
{
	page->ready = 1;
	while (!page->go)
		;
	execl("/bin/sleep", "sleep", "100", NULL);
}

static void test_exec_race(void)
{
	int i, fd, ret, odd = 0;
	pid_t pid;

	for (i = 0; i < 20; i++) {
		pid = start(exec_guest);
		must(wait_until(page->ready));
		fd = attach(pid);
		page->go = 1;
		ret = suspend_with(fd, 0, 20000, NULL);
		odd += ret && ret != -ESRCH && ret != -ECANCELED;
		close(fd);
		/* it must not be left parked */
		must(!kill(pid, SIGTERM));
		must(waitpid(pid, NULL, 0) == pid);
	}
	ok(!odd, "20 suspends race with exec, and leave nothing parked");
}

/* 5: tracers */

static void test_traced(void)
{
	pid_t pid = start(one_counter);
	int fd = attach(pid), status;
	struct vasi_suspend s;
	long n;

	must(wait_until(page->count[0]));
	must(!ptrace(PTRACE_SEIZE, pid, 0, 0));
	must(!ptrace(PTRACE_INTERRUPT, pid, 0, 0));
	must(waitpid(pid, &status, __WALL) == pid);
	n = page->count[0];
	ok(suspend_with(fd, 0, 100, &s) == -ETIMEDOUT &&
	   s.out_reason == VASI_HOLDUP_STOPPED && s.out_tid == pid,
	   "a thread in a ptrace stop does not count on the source");
	close(fd);
	must(!vasi_attach_as(pid, VASI_SERVICE_TARGET, 1, &fd));
	ok(!suspend(fd), "on the target it counts as suspended");
	ok(suspend_with(fd, VASI_SUSPEND_PARKED, 100, &s) == -ETIMEDOUT &&
	   s.out_reason == VASI_HOLDUP_STOPPED && s.out_tid == pid,
	   "but not as parked, and is named");
	ok(!seal(fd), "it can be sealed");
	must(!ptrace(PTRACE_DETACH, pid, 0, 0));
	ok(!suspend_with(fd, VASI_SUSPEND_PARKED, 20000, &s) &&
	   s.out_threads == 1, "let go, it parks");
	sleep_ms(20);
	ok(page->count[0] == n, "before it has done anything");
	ok(resume(fd) == -EBUSY, "sealed, it is not resumed by accident");
	must(!resume_with(fd, VASI_RESUME_UNSEAL));
	ok(wait_until(page->count[0] != n), "unsealed, it runs");
	close(fd);
	end_guest(pid);
}

/* 6: ends of a suspend */

static void test_close(void)
{
	pid_t pid = start(one_counter);
	int fd = attach(pid);
	long n;

	must(wait_until(page->count[0]));
	must(!suspend(fd));
	n = page->count[0];
	close(fd);
	ok(wait_until(page->count[0] != n), "closing the last open resumes");
	end_guest(pid);
}

/* a controller that suspends, perhaps seals, and waits to be killed */
static pid_t controller(pid_t guest, uint64_t id, bool sealed)
{
	pid_t pid = fork_guest();

	if (!pid) {
		int fd = -1;

		must(!vasi_attach_as(guest, VASI_SERVICE_SOURCE, id, &fd));
		must(!suspend(fd));
		if (sealed)
			must(!seal(fd));
		page->go = 1;
		for (;;)
			pause();
	}
	return pid;
}

static void test_controller_killed(void)
{
	pid_t pid = start(one_counter), mover;
	long n;

	must(wait_until(page->count[0]));
	mover = controller(pid, new_stream_id(), false);
	must(wait_until(page->go));
	n = page->count[0];
	end_guest(mover);
	ok(wait_until(page->count[0] != n), "a killed controller's guest runs on");
	end_guest(pid);
}

static bool module_is_busy(void)
{
	return syscall(SYS_delete_module, "vasi", O_NONBLOCK) == -1 &&
	       (errno == EBUSY || errno == EAGAIN || errno == EWOULDBLOCK);
}

static void test_sealed(void)
{
	pid_t pid = start(one_counter), mover;
	struct vasi_stream_info list[8];
	struct vasi_streams streams = {
		.size = sizeof(streams),
		.flags = VASI_STREAMS_SEALED,
		.vec = (uintptr_t)list,
		.vec_len = 8,
	};
	uint64_t id = new_stream_id();
	struct vasi_attach cmd = {
		.size = sizeof(cmd),
		.flags = VASI_ATTACH_SEALED,
		.service = VASI_SERVICE_SOURCE,
		.stream_id = id,
	};
	int fd;
	long n;

	must(wait_until(page->count[0]));
	mover = controller(pid, id, true);
	must(wait_until(page->go));
	n = page->count[0];
	end_guest(mover);
	sleep_ms(50);
	ok(page->count[0] == n, "a sealed guest outlives its mover parked");
	ok(module_is_busy(), "and keeps the module");

	fd = open("/dev/vasi", O_RDWR);
	ok(!vasi_cmd(fd, VASI_STREAMS, &streams) && streams.out_count == 1 &&
	   list[0].stream_id == id && list[0].pid == pid &&
	   list[0].flags == (VASI_STREAM_SEALED | VASI_STREAM_SUSPENDED) &&
	   list[0].suspended_ns > 0, "it is listed");
	ok(!vasi_cmd(fd, VASI_ATTACH, &cmd) && cmd.out_pid == pid,
	   "and taken over by its ID");
	ok(!resume_with(fd, VASI_RESUME_UNSEAL) &&
	   wait_until(page->count[0] != n), "and resumed");
	close(fd);
	end_guest(pid);
}

static void test_module_busy(void)
{
	pid_t pid = start(one_counter);
	int fd = attach(pid);
	long n;

	must(wait_until(page->count[0]));
	must(!kill(pid, SIGSTOP));
	must(waitpid(pid, NULL, WUNTRACED) == pid);
	must(!suspend(fd));
	must(resumes(fd));
	close(fd);
	/* its work is still queued, and must not run from freed memory */
	ok(module_is_busy(), "a work that is queued keeps the module");
	n = page->count[0];
	must(!kill(pid, SIGCONT));
	ok(wait_until(page->count[0] != n), "and is harmless when it runs late");
	end_guest(pid);
}

/* 7: deadline */

static int sleeping_child(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

/* waits uninterruptibly for a child that is none of the guest's */
static void blocked_guest(void)
{
	pthread_t t;
	char *stack = malloc(65536);

	must(!pthread_create(&t, NULL, count_in_user, &page->count[0]));
	prctl(PR_SET_NAME, "in-the-way");
	page->tid[0] = gettid();
	clone(sleeping_child, stack + 65536, CLONE_VFORK | SIGCHLD, NULL);
}

static pid_t child_of(pid_t pid, pid_t tid)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	if (fscanf(f, "%d", &child) != 1)
		child = 0;
	fclose(f);
	return child;
}

static void test_deadline(void)
{
	pid_t pid = start(blocked_guest);
	int fd = attach(pid);
	struct vasi_stream_info info;
	struct vasi_suspend s;
	pid_t child = 0;
	long n;

	must(wait_until(page->count[0] &&
			thread_state(pid, page->tid[0]) == 'D' &&
			(child = child_of(pid, pid))));
	ok(suspend_with(fd, 0, 200, &s) == -ETIMEDOUT, "a deadline is kept");
	ok(s.out_tid == page->tid[0] && s.out_reason == VASI_HOLDUP_VFORK &&
	   !strcmp((char *)s.out_comm, "in-the-way"),
	   "the thread in the way is named");
	n = page->count[0];
	ok(wait_until(page->count[0] != n), "the others run on");
	ok(!stream_info(fd, &info) && info.state == VASI_STATE_ENABLED &&
	   !info.suspended_ns, "the stream is as before");
	kill(child, SIGKILL);
	ok(!suspend(fd), "without it the suspend is done");
	close(fd);
	end_guest(pid);
}

static void test_arguments(void)
{
	pid_t pid = start(one_counter);
	int fd = attach(pid);
	struct vasi_suspend s = { .size = sizeof(s), .deadline_ms = 100 };
	struct vasi_stream_info info;
	long n;

	s.deadline_ms = 0;
	ok(vasi_cmd(fd, VASI_SUSPEND, &s) == -EINVAL, "no deadline: EINVAL");
	s.deadline_ms = 60001;
	ok(vasi_cmd(fd, VASI_SUSPEND, &s) == -EINVAL, "too long: EINVAL");
	s.deadline_ms = 100;
	s.__reserved = 1;
	ok(vasi_cmd(fd, VASI_SUSPEND, &s) == -EOPNOTSUPP,
	   "reserved member: EOPNOTSUPP");
	s.__reserved = 0;
	s.flags = 1u << 31;
	ok(vasi_cmd(fd, VASI_SUSPEND, &s) == -EOPNOTSUPP,
	   "unknown flag: EOPNOTSUPP");
	ok(resume(fd) == -EBUSY, "resume of a running guest: EBUSY");
	must(!suspend(fd));
	ok(!suspend(fd), "suspend of a suspended guest succeeds");
	ok(!stream_info(fd, &info) && info.state == VASI_STATE_SUSPENDED &&
	   info.flags & VASI_STREAM_SUSPENDED && info.threads == 1,
	   "the stream says so");
	n = page->count[0];
	must(resumes(fd));
	ok(wait_until(page->count[0] != n), "one resume is enough");
	close(fd);
	end_guest(pid);
}

int main(void)
{
	page = shared_memory(sizeof(*page));
	test_arguments();
	test_counters();
	test_timeouts();
	test_suspended_past_the_end();
	test_sigsuspend();
	test_epoll_signal();
	test_stop_while_parked();
	test_kill_while_parked();
	test_storm(vfork_guest, "vfork storm");
	test_storm(clone_guest, "thread storm");
	test_exit_races();
	test_exec_race();
	test_traced();
	test_close();
	test_controller_killed();
	test_sealed();
	test_module_busy();
	test_deadline();
	return tap_end();
}
