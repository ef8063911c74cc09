// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that checks itself: many threads, each of which exercises one kind
 * of state that a move has to carry and compares it with something that was
 * computed or kept elsewhere.
 *
 *   DIR/status   one line a second, appended with one write
 *   DIR/report   JSON; written at SIGUSR1, at the first error and at the end
 *
 * SIGTERM writes the report and exits with 0 or 1. An error does not end the
 * guest: it stays to be looked at, and every later status line says FAIL.
 */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check.h"

#define THREAD_STACK (256 * 1024)
#define MAX_WORKERS 64
/* a rest is so many times as long as the work before, within a limit */
#define REST 10
#define MAX_REST_NS (50 * NSEC_PER_MSEC)

struct options options = {
	.dir = ".",
	.arena_bytes = 8 << 20,
	.rate = 500,
	.stall_lines = 60,
};

pthread_rwlock_t fd_table_lock = PTHREAD_RWLOCK_INITIALIZER;

static const struct check checks[] = {
	{ "ticker", ticker_run, 0, false },
	{ "pingpong-a", sync_pingpong, 0, false },
	{ "pingpong-b", sync_pingpong, 1, false },
	{ "lockers-a", sync_lockers, 0, false },
	{ "lockers-b", sync_lockers, 1, false },
	{ "timedwait", sync_timedwait, 0, false },
	{ "heap-a", heap_churn, 0, false },
	{ "heap-b", heap_churn, 1, false },
	{ "arena", arena_run, 0, false },
	{ "protect", protect_run, 0, false },
	{ "maps", maps_churn, 0, false },
	{ "map-kinds", maps_kinds, 0, false },
	{ "vector-a", vector_run, 0, false },
	{ "vector-b", vector_run, 1, false },
	{ "tls-a", tls_run, 0, false },
	{ "tls-b", tls_run, 1, false },
	{ "epoll", epoll_run, 0, false },
	{ "pipe-writer", pipe_writer, 0, false },
	{ "pipe-reader", pipe_reader, 0, false },
	{ "pipe-kept", pipe_kept, 0, false },
	{ "stdio", stdio_run, 0, false },
	{ "sleep", sleep_run, 0, false },
	{ "timeouts-a", timeouts_run, 0, false },
	{ "timeouts-b", timeouts_run, 1, false },
	{ "itimer", itimer_run, 0, false },
	{ "waker", blocked_waker, 0, false },
};

static struct check blocked_checks[16];
static struct worker workers[MAX_WORKERS];
static unsigned int n_workers;
static struct worker main_worker;
static const struct check main_check = { .name = "main" };
static _Atomic uint64_t newest_ns;

/*
 * CLOCK_MONOTONIC may go back neither within a thread nor from one thread to
 * another that can know of the earlier reading.
 */
uint64_t checked_now(struct worker *w)
{
	uint64_t newest = atomic_load(&newest_ns);
	uint64_t ns = now_ns();

	if (ns < newest)
		fail(w, "CLOCK_MONOTONIC went back by %llu ns between threads",
		     (unsigned long long)(newest - ns));
	if (ns < w->last_ns)
		fail(w, "CLOCK_MONOTONIC went back by %llu ns in one thread",
		     (unsigned long long)(w->last_ns - ns));
	w->last_ns = ns;
	while (newest < ns &&
	       !atomic_compare_exchange_weak(&newest_ns, &newest, ns))
		;
	return ns;
}

bool tick(struct worker *w)
{
	checked_now(w);
	atomic_fetch_add(&w->loops, 1);
	return true;
}

/*
 * Leaves the processor to the others, for longer where the work before took long: on an
 * emulated processor, too, something must be left for those who move us. Must not come
 * back early or by EINTR.
 */
void pace(struct worker *w, uint64_t ns)
{
	uint64_t start = checked_now(w), took = start - w->rested_ns;
	struct timespec ts;

	if (took > MAX_REST_NS / REST)
		took = MAX_REST_NS / REST;
	if (ns < took * REST)
		ns = took * REST;
	ts = ns_to_ts(ns);
	if (nanosleep(&ts, NULL) < 0) {
		fail_call(w, "nanosleep");
		return;
	}
	w->rested_ns = checked_now(w);
	took = w->rested_ns - start;
	if (took < ns)
		fail(w, "nanosleep of %llu ns ended after %llu",
		     (unsigned long long)ns, (unsigned long long)took);
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;

	w->tid = (pid_t)syscall(SYS_gettid);
	w->prng = mix64_pair(w->index, (uint64_t)getpid());
	prctl(PR_SET_NAME, w->check->name);
	w->check->run(w);
	return NULL;
}

static int start_worker(const struct check *check, const pthread_attr_t *attr)
{
	struct worker *w = &workers[n_workers];
	int r;

	w->check = check;
	w->index = n_workers;
	r = pthread_create(&w->thread, attr, thread_main, w);
	if (r)
		return -r;
	n_workers++;
	return 0;
}

static int start_workers(void)
{
	pthread_attr_t attr;
	unsigned int i;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	for (i = 0; i < ARRAY_SIZE(checks); i++) {
		r = start_worker(&checks[i], &attr);
		if (r < 0)
			return r;
	}
	for (i = 0; i < blocked_kinds(); i++) {
		blocked_checks[i] = (struct check){
			.name = blocked_kind_name(i),
			.run = blocked_wait,
			.arg = i,
			.silent = strcmp(blocked_kind_name(i), "pause") == 0,
		};
		r = start_worker(&blocked_checks[i], &attr);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * A thread that did not move during many of our own status lines was lost: a
 * wake-up, a timer or an expiry is gone. Lines and not seconds, so that time in
 * which nobody could run does not count.
 */
static void look_for_stalls(void)
{
	unsigned int i;

	for (i = 0; i < n_workers; i++) {
		struct worker *w = &workers[i];
		uint64_t loops = atomic_load(&w->loops);

		if (w->check->silent)
			continue;
		if (loops != w->seen_loops) {
			w->seen_loops = loops;
			w->still = 0;
		} else if (++w->still == options.stall_lines) {
			fail(w, "did nothing during %u status lines",
			     options.stall_lines);
		}
	}
}

static int run(void)
{
	uint64_t started, next, wait;
	struct timespec ts;
	bool reported = false;
	sigset_t wanted;
	int sig, r;

	main_worker.check = &main_check;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigaddset(&wanted, SIGTERM);
	started = checked_now(&main_worker);
	next = started + NSEC_PER_SEC;

	for (;;) {
		uint64_t now = checked_now(&main_worker);

		wait = next > now ? next - now : 0;
		ts = ns_to_ts(wait);
		sig = sigtimedwait(&wanted, NULL, &ts);
		if (sig == SIGTERM)
			break;
		if (sig == SIGUSR1) {
			r = report_write(workers, n_workers, "SIGUSR1");
			if (r < 0)
				fail(NULL, "report: %s", strerrorname_np(-r));
			continue;
		}
		if (errno != EAGAIN) {
			fail_call(NULL, "sigtimedwait");
			continue;
		}
		now = checked_now(&main_worker);
		if (now < next)
			fail(NULL, "sigtimedwait ended %llu ns early",
			     (unsigned long long)(next - now));
		/* after a long stop the missed lines are not made up for */
		next = now + NSEC_PER_SEC;

		look_for_stalls();
		attrs_verify(&main_worker);
		status_line(workers, n_workers);
		if (error_count() && !reported) {
			reported = true;
			report_write(workers, n_workers, "first error");
		}
		if (options.seconds &&
		    now - started >= options.seconds * NSEC_PER_SEC)
			break;
	}

	status_line(workers, n_workers);
	r = report_write(workers, n_workers, sig == SIGTERM ? "SIGTERM" : "end");
	if (r < 0) {
		fprintf(stderr, "selfcheck: cannot write the report: %s\n",
			strerror(-r));
		return 1;
	}
	return error_count() ? 1 : 0;
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: selfcheck --dir DIR [--seconds N|forever] [--size MiB]\n"
		"                 [--rate PAGES/S] [--stall LINES] [--stop-signals]\n"
		"  --dir DIR       where status, report and the guest's files go\n"
		"  --seconds N     end after N seconds (default: forever)\n"
		"  --size MiB      pages written by the arena thread (default 8)\n"
		"  --rate N        pages it writes per second (default 500)\n"
		"  --stall LINES   a thread still for so many lines is lost (default 60)\n"
		"  --stop-signals  count the EINTRs that SIGSTOP and SIGCONT cause\n");
}

static int parse_number(const char *s, uint64_t max, uint64_t *ret_n)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno || end == s || *end || *s == '-' || n > max)
		return -EINVAL;
	*ret_n = n;
	return 0;
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "seconds", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'm' },
		{ "rate", required_argument, NULL, 'r' },
		{ "stall", required_argument, NULL, 't' },
		{ "stop-signals", no_argument, NULL, 'S' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t n = 0;
	int c, r;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		r = 0;
		switch (c) {
		case 'd':
			options.dir = optarg;
			break;
		case 's':
			if (strcmp(optarg, "forever") == 0)
				options.seconds = 0;
			else
				r = parse_number(optarg, 1 << 30,
						 &options.seconds);
			break;
		case 'm':
			r = parse_number(optarg, 1 << 20, &n);
			options.arena_bytes = (size_t)n << 20;
			if (!n)
				r = -EINVAL;
			break;
		case 'r':
			r = parse_number(optarg, 100000000, &options.rate);
			break;
		case 't':
			r = parse_number(optarg, 1000000, &n);
			options.stall_lines = (unsigned int)n;
			break;
		case 'S':
			options.stop_signals = true;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return -EINVAL;
		}
		if (r < 0) {
			fprintf(stderr, "selfcheck: not a valid number: %s\n",
				optarg);
			return r;
		}
	}
	if (optind != argc) {
		usage(stderr);
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*fn)(void);
	} setups[] = {
		{ "status", status_open },
		{ "arena", arena_setup },
		{ "files", files_setup },
		{ "io", io_setup },
		{ "blocked", blocked_setup },
		{ "signals", attrs_setup },
		{ "threads", start_workers },
		{ "attributes", attrs_snapshot },
	};
	sigset_t all;
	unsigned int i;
	int r;

	if (parse(argc, argv) < 0)
		return 2;
	/* whatever the starter left open is not this guest's */
	close_range(3, ~0U, 0);

	/* every thread inherits this; only the itimer thread opens SIGALRM */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);

	for (i = 0; i < ARRAY_SIZE(setups); i++) {
		r = setups[i].fn();
		if (r < 0) {
			fprintf(stderr, "selfcheck: %s: %s\n", setups[i].name,
				strerror(-r));
			return 1;
		}
	}
	/* the threads end with the process: most of them sleep for good */
	_exit(run());
}
