// SPDX-License-Identifier: GPL-2.0
/*
 * What the records say is what the guest itself is told by its getters
 */
#include <elf.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/rseq.h>
#include <sys/time.h>

#include "vasi_test.h"

static struct page {
	int ready;
	int tid;
	struct itimerval timer[3];
	stack_t stack;
	uint64_t robust;
	size_t robust_len;
	int child_tid;		/* set_tid_address */
	uint64_t child_tid_addr;
	uint64_t rseq;
	uint64_t brk;
	int slack;
	int dumpable, thp, subreaper, pdeath;
	uint64_t vdso;
	uint64_t handler;
	struct sigaction action;	/* of SIGUSR2, as read back */
} *page;

static void handler(int sig)
{
	(void)sig;
}

static void queue(pid_t tid, int sig, int value)
{
	siginfo_t info = {
		.si_signo = sig,
		.si_code = SI_QUEUE,
	};

	info.si_pid = getpid();
	info.si_value.sival_int = value;
	if (tid)
		must(!syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, sig, &info));
	else
		must(!syscall(SYS_rt_sigqueueinfo, getpid(), sig, &info));
}

static void *second_thread(void *arg)
{
	static char stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	void *robust;
	sigset_t set;

	(void)arg;
	must(!prctl(PR_SET_NAME, "second"));
	must(!sigaltstack(&ss, NULL));
	must(!sigaltstack(NULL, &page->stack));
	must(!syscall(SYS_get_robust_list, 0, &robust, &page->robust_len));
	page->robust = (uintptr_t)robust;
	page->tid = syscall(SYS_set_tid_address, &page->child_tid);
	page->child_tid_addr = (uintptr_t)&page->child_tid;
	page->rseq = (uintptr_t)__builtin_thread_pointer() + __rseq_offset;
	must(!prctl(PR_SET_TIMERSLACK, 123456));
	page->slack = prctl(PR_GET_TIMERSLACK);

	sigfillset(&set);
	must(!sigprocmask(SIG_BLOCK, &set, NULL));
	queue(gettid(), SIGRTMIN + 1, 11);
	queue(gettid(), SIGRTMIN + 1, 12);
	queue(0, SIGRTMIN + 2, 13);
	must(!syscall(SYS_tgkill, getpid(), gettid(), SIGHUP));

	/* the mask of the record is the one behind the call */
	sigfillset(&set);
	__atomic_store_n(&page->ready, 1, __ATOMIC_RELEASE);
	sigsuspend(&set);
	return NULL;
}

static void guest(void)
{
	struct sigaction sa = {
		.sa_handler = handler,
		.sa_flags = SA_RESTART | SA_ONSTACK | SA_NODEFER,
	};
	struct itimerval real = { { 7, 0 }, { 500, 250000 } };
	struct itimerval prof = { { 0, 0 }, { 900, 0 } };
	pthread_t t;
	sigset_t set;

	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGTERM);
	must(!sigaction(SIGUSR2, &sa, NULL));
	must(!sigaction(SIGUSR2, NULL, &page->action));
	signal(SIGPIPE, SIG_IGN);
	page->handler = (uintptr_t)handler;
	must(!setitimer(ITIMER_REAL, &real, NULL));
	must(!setitimer(ITIMER_PROF, &prof, NULL));
	must(!prctl(PR_SET_DUMPABLE, 1));
	must(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	must(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	page->dumpable = prctl(PR_GET_DUMPABLE);
	page->thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	prctl(PR_GET_CHILD_SUBREAPER, &page->subreaper);
	prctl(PR_GET_PDEATHSIG, &page->pdeath);
	page->vdso = getauxval(AT_SYSINFO_EHDR);
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	must(!pthread_create(&t, NULL, second_thread, NULL));
	for (;;) {
		page->brk = (uintptr_t)sbrk(0);
		getitimer(ITIMER_REAL, &page->timer[0]);
		getitimer(ITIMER_PROF, &page->timer[2]);
		sleep_ms(2);
	}
}

/* field @n (from 1) of /proc/PID/stat as proc(5) counts them */
static uint64_t stat_field(pid_t pid, int n)
{
	char path[64], line[1024], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	must(f && fgets(line, sizeof(line), f));
	fclose(f);
	p = strrchr(line, ')') + 2;
	for (n -= 3; n; n--)
		p = strchr(p, ' ') + 1;
	return strtoull(p, NULL, 10);
}

static void check_process(pid_t pid, void *buf, size_t len)
{
	struct vasi_rec_process *p;
	char path[64];
	char auxv[1024];
	size_t n, size;
	void *rec;
	FILE *f;

	p = find_record(buf, len, VASI_REC_PROCESS, -1, -1, &size);
	must(p && size == sizeof(*p));
	ok(p->pid == pid && p->nr_threads == 2, "pid and number of threads");
	ok(p->start_code == stat_field(pid, 26) &&
	   p->end_code == stat_field(pid, 27) &&
	   p->start_stack == stat_field(pid, 28) &&
	   p->start_data == stat_field(pid, 45) &&
	   p->end_data == stat_field(pid, 46) &&
	   p->start_brk == stat_field(pid, 47) &&
	   p->arg_start == stat_field(pid, 48) &&
	   p->arg_end == stat_field(pid, 49) &&
	   p->env_start == stat_field(pid, 50) &&
	   p->env_end == stat_field(pid, 51), "layout as in /proc/PID/stat");
	ok(p->brk == page->brk && p->vdso == page->vdso, "brk and vDSO");
	ok((int)p->dumpable == page->dumpable &&
	   (int)p->thp_disable == page->thp &&
	   (int)p->child_subreaper == page->subreaper, "what prctl() has set");
	ok(p->exit_signal == SIGCHLD && !p->oom_score_adj && !p->nr_children,
	   "exit signal, oom_score_adj, children");
	ok(p->clock_monotonic > 0 && p->clock_monotonic <= now_ns() &&
	   p->clock_monotonic > now_ns() - 60 * NSEC &&
	   !p->timens_monotonic && !p->timens_boottime, "clocks");

	rec = find_record(buf, len, VASI_REC_AUXV, 0, -1, &size);
	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	f = fopen(path, "r");
	must(f);
	n = fread(auxv, 1, sizeof(auxv), f);
	fclose(f);
	ok(rec && size <= n && !memcmp(rec, auxv, size) && size > 16,
	   "auxiliary vector as in /proc/PID/auxv");
}

/* a mask in /proc/PID/status */
static uint64_t status_mask(pid_t pid, const char *name)
{
	char path[64], line[256];
	uint64_t mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	must(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			mask = strtoull(line + strlen(name) + 1, NULL, 16);
	fclose(f);
	return mask;
}

static void check_signals(pid_t pid, void *buf, size_t len)
{
	uint64_t ignored = 0, caught = 0;
	struct vasi_rec_sigaction *sa;
	struct vasi_rec_itimer *timer;
	siginfo_t *info;
	size_t size;
	int i, n;

	sa = find_record(buf, len, VASI_REC_SIGACTION, 0, -1, &size);
	must(sa && size == 64 * sizeof(*sa));
	for (i = 0; i < 64; i++) {
		ignored |= (uint64_t)(sa[i].handler == 1) << i;
		caught |= (uint64_t)(sa[i].handler > 1) << i;
	}
	ok(sa[SIGUSR2 - 1].handler == page->handler &&
	   (sa[SIGUSR2 - 1].flags & ~0x04000000ull) ==
	   (uint64_t)(page->action.sa_flags & ~0x04000000) &&
	   sa[SIGUSR2 - 1].restorer &&
	   sa[SIGUSR2 - 1].mask == 1ull << (SIGTERM - 1), "a handler");
	ok(ignored == status_mask(pid, "SigIgn:") &&
	   caught == status_mask(pid, "SigCgt:") &&
	   sa[SIGPIPE - 1].handler == 1,
	   "ignored and caught signals as in /proc/PID/status");

	timer = find_record(buf, len, VASI_REC_ITIMER, 0, -1, &size);
	must(timer && size == 3 * sizeof(*timer));
	ok(timer[0].interval_ns == 7 * NSEC &&
	   llabs(timer[0].value_ns - (page->timer[0].it_value.tv_sec * NSEC +
		 page->timer[0].it_value.tv_usec * 1000)) < NSEC,
	   "ITIMER_REAL");
	ok(!timer[1].value_ns && !timer[1].interval_ns, "ITIMER_VIRTUAL is off");
	ok(!timer[2].interval_ns &&
	   llabs(timer[2].value_ns - (page->timer[2].it_value.tv_sec * NSEC +
		 page->timer[2].it_value.tv_usec * 1000)) < NSEC,
	   "ITIMER_PROF");

	info = find_record(buf, len, VASI_REC_SIGPENDING, page->tid, -1, &size);
	n = size / sizeof(*info);
	ok(info && n == 3 && info[0].si_signo == SIGRTMIN + 1 &&
	   info[0].si_code == SI_QUEUE && info[0].si_value.sival_int == 11 &&
	   info[1].si_signo == SIGRTMIN + 1 &&
	   info[1].si_value.sival_int == 12 && info[2].si_signo == SIGHUP &&
	   info[2].si_code == SI_TKILL,
	   "pending signals of a thread, in order, with their values");
	info = find_record(buf, len, VASI_REC_SIGPENDING, 0, -1, &size);
	ok(info && size == sizeof(*info) && info->si_signo == SIGRTMIN + 2 &&
	   info->si_value.sival_int == 13, "pending signals of the process");
}

static void check_thread(void *buf, size_t len)
{
	struct vasi_rec_thread *t;
	size_t size;

	t = find_record(buf, len, VASI_REC_THREAD, page->tid, -1, &size);
	must(t && size == sizeof(*t));
	ok(!strcmp((char *)t->comm, "second"), "name of a thread");
	ok(t->where == VASI_WHERE_SYSCALL && t->syscall == SYS_rt_sigsuspend,
	   "it was leaving sigsuspend");
	/* SIGKILL and SIGSTOP are never blocked */
	ok(t->sigmask == (~0ull & ~(1ull << (SIGKILL - 1)) &
			  ~(1ull << (SIGSTOP - 1)) & ~(3ull << 31)) ||
	   t->sigmask == (~0ull & ~(1ull << (SIGKILL - 1)) &
			  ~(1ull << (SIGSTOP - 1))),
	   "signal mask (%#llx)", (unsigned long long)t->sigmask);
	ok(t->sas_sp == (uintptr_t)page->stack.ss_sp &&
	   t->sas_size == page->stack.ss_size &&
	   t->sas_flags == (uint32_t)page->stack.ss_flags, "alternate stack");
	ok(t->robust_list == page->robust && t->robust_len == page->robust_len,
	   "robust list");
	ok(t->clear_child_tid == page->child_tid_addr, "clear_child_tid");
	if (__rseq_size)
		ok(t->rseq == page->rseq && t->rseq_len == 32 &&
		   t->rseq_sig == 0x53053053, "rseq");
	else
		ok(!t->rseq, "no rseq");
	ok(t->timer_slack_ns == (uint64_t)page->slack, "timer slack");
	ok(t->xstate_in_use & 3, "register components in use");
}

static void test_running(int fd, pid_t pid)
{
	struct vasi_rec_thread *t;
	size_t len;
	void *buf;

	must(!get_state(fd, &buf, &len));
	t = find_record(buf, len, VASI_REC_THREAD, page->tid, -1, NULL);
	ok(t && t->where == VASI_WHERE_RUNNING &&
	   !find_record(buf, len, VASI_REC_REGSET, -1, -1, NULL),
	   "of a running guest there are no registers");
	check_process(pid, buf, len);
	free(buf);
}

static void test_sizes(int fd)
{
	struct vasi_state cmd = { .size = sizeof(cmd) };
	static uint64_t buf[8];
	uint64_t need;

	ok(vasi_cmd(fd, VASI_STATE, &cmd) == -EMSGSIZE && cmd.out_len > 4096,
	   "no buffer: EMSGSIZE and the size needed");
	need = cmd.out_len;
	cmd.buf = (uintptr_t)buf;
	cmd.buf_len = sizeof(buf);
	ok(vasi_cmd(fd, VASI_STATE, &cmd) == -EMSGSIZE && cmd.out_len == need,
	   "small buffer: EMSGSIZE");
	cmd.buf_len = need;
	cmd.buf = 8;
	ok(vasi_cmd(fd, VASI_STATE, &cmd) == -EFAULT, "bad buffer: EFAULT");
	cmd.buf = (uintptr_t)buf + 4;
	ok(vasi_cmd(fd, VASI_STATE, &cmd) == -EINVAL, "not aligned: EINVAL");
	cmd.buf = (uintptr_t)buf;
	cmd.member = 1;
	ok(vasi_cmd(fd, VASI_STATE, &cmd) == -ENOENT, "no such member: ENOENT");
}

/* an expired periodic timer whose signal is blocked starts again later */
static void expired_guest(void)
{
	struct itimerval it = { { 5, 0 }, { 0, 1000 } };
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	must(!setitimer(ITIMER_REAL, &it, NULL));
	do {
		sleep_ms(1);
		must(!sigpending(&set));
	} while (!sigismember(&set, SIGALRM));
	page->ready = 2;
	for (;;)
		pause();
}

static void test_expired_timer(void)
{
	struct vasi_rec_itimer *timer;
	pid_t pid = fork_guest();
	size_t len;
	void *buf;
	int fd;

	if (!pid)
		expired_guest();
	must(wait_until(page->ready == 2));
	fd = attach(pid);
	must(!suspend(fd));
	must(!get_state(fd, &buf, &len));
	timer = find_record(buf, len, VASI_REC_ITIMER, 0, -1, NULL);
	ok(timer->value_ns == 5 * NSEC && timer->interval_ns == 5 * NSEC,
	   "an expired timer whose signal is pending has its interval to go");
	free(buf);
	close(fd);
	end_guest(pid);
}

int main(void)
{
	pid_t pid;
	size_t len;
	void *buf;
	int fd;

	page = shared_memory(sizeof(*page));
	pid = fork_guest();
	if (!pid)
		guest();
	must(wait_until(__atomic_load_n(&page->ready, __ATOMIC_ACQUIRE) &&
			thread_state(pid, page->tid) == 'S' &&
			page->timer[0].it_value.tv_sec));
	fd = attach(pid);
	test_running(fd, pid);
	must(!suspend(fd));
	must(!get_state(fd, &buf, &len));
	check_process(pid, buf, len);
	check_signals(pid, buf, len);
	check_thread(buf, len);
	free(buf);
	test_sizes(fd);
	close(fd);
	end_guest(pid);
	test_expired_timer();
	return tap_end();
}
