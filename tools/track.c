// SPDX-License-Identifier: GPL-2.0
/*
 * track: harvests the pages of a process round by round, and moves nothing
 *
 * Needs no mspd: it opens /dev/vasi itself.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "guest/guest.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "mspctl.h"

#define VEC_LEN		4096

/**
 * struct round - what one harvest found
 * @pages: data pages
 * @zero: pages that read as zero
 * @holes: pages with nothing private
 * @ranges: entries
 * @ns: time the harvest took
 * @since_ns: from the last harvest's start to this one's, 0 at first
 * @flushes: TLB flushes
 * @faults: minor faults of the process since the last round
 */
struct round {
	uint64_t pages, zero, holes, ranges;
	int64_t ns, since_ns;
	uint64_t flushes;
	uint64_t faults;
};

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

/* minor faults of @pid so far, 0 if it is gone */
static uint64_t minor_faults(pid_t pid)
{
	_cleanup_fclose_ FILE *f = NULL;
	unsigned long long n = 0;
	char path[32], line[1024];
	char *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return 0;
	at = strrchr(line, ')');
	if (at)
		sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %llu", &n);
	return n;
}

static void count(struct round *r, const struct vasi_range *vec, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (vec[i].kind == VASI_KIND_DATA)
			r->pages += vec[i].pages;
		else if (vec[i].kind == VASI_KIND_ZERO)
			r->zero += vec[i].pages;
		else
			r->holes += vec[i].pages;
	}
	r->ranges += n;
}

static int harvest(struct guest *g, struct vasi_range *vec, struct round *ret)
{
	const struct guest_access *a = g->access;
	struct vasi_info before, after;
	struct round round = { 0 };
	uint64_t at = 0, end;
	int64_t start;
	size_t n;
	int r;

	r = a->info(g, &before);
	if (r < 0)
		return r;
	start = now_ns();
	do {
		r = a->harvest(g, 0, at, 0, 0, vec, VEC_LEN, &n, &end);
		if (r < 0)
			return r;
		count(&round, vec, n);
		/* the last call fills less than it could */
		if (n < VEC_LEN || end <= at)
			break;
		at = end;
	} while (!stopped);
	round.ns = now_ns() - start;
	r = a->info(g, &after);
	if (r < 0)
		return r;
	round.flushes = after.out_count[VASI_COUNT_FLUSHES] -
			before.out_count[VASI_COUNT_FLUSHES];
	*ret = round;
	return 0;
}

static double dirty_rate(const struct round *r)
{
	return r->since_ns ? (r->pages + r->zero) * 1e9 / r->since_ns : 0;
}

static void print(unsigned long number, const struct round *r, bool json)
{
	json_t *obj;

	if (json) {
		obj = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I}",
				"event", "round", "round", (json_int_t)number,
				"pages", (json_int_t)r->pages,
				"zero", (json_int_t)r->zero,
				"holes", (json_int_t)r->holes,
				"ranges", (json_int_t)r->ranges,
				"dirty_pages_per_s", dirty_rate(r),
				"harvest_ns", (json_int_t)r->ns,
				"flushes", (json_int_t)r->flushes,
				"minor_faults", (json_int_t)r->faults);
		print_json(obj);
		json_decref(obj);
		return;
	}
	if (number == 1)
		printf("%6s %10s %8s %10s %8s %12s %12s %8s %8s\n", "round",
		       "pages", "zero", "holes", "ranges", "dirty/s",
		       "harvest us", "flushes", "minflt");
	printf("%6lu %10llu %8llu %10llu %8llu %12.0f %12.1f %8llu %8llu\n",
	       number, (unsigned long long)r->pages,
	       (unsigned long long)r->zero, (unsigned long long)r->holes,
	       (unsigned long long)r->ranges, dirty_rate(r), r->ns / 1e3,
	       (unsigned long long)r->flushes, (unsigned long long)r->faults);
	fflush(stdout);
}

/* until @ms have passed, the process ended, or a signal came */
static void wait_round(int pidfd, unsigned long ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	poll(&p, 1, ms);
}

static int failure(const struct command *self, pid_t pid, const char *what,
		   int error)
{
	if (error == -ESRCH)
		return failed(self, "PID %d is gone", pid);
	if (error == -ECANCELED)
		return failed(self, "PID %d called exec, tracking ended", pid);
	if (error == -ENOENT || error == -ENXIO || error == -ENODEV)
		return failed(self, "%s: /dev/vasi is not there; load vasi.ko (modprobe vasi)",
			      what);
	if (error == -EBUSY)
		return failed(self, "%s: PID %d is being moved or tracked already",
			      what, pid);
	if (error == -EPERM || error == -EACCES)
		return failed(self, "%s: permission denied; it needs CAP_SYS_PTRACE",
			      what);
	return failed(self, "%s: %s", what, strerror(-error));
}

static int rounds(const struct command *self, struct guest *g, int pidfd,
		  unsigned long number, unsigned long interval_ms, bool json)
{
	_cleanup_free_ struct vasi_range *vec = calloc(VEC_LEN, sizeof(*vec));
	uint64_t faults = minor_faults(g->pid), now;
	int64_t last = 0, start;
	struct round round;
	int r;

	if (!vec)
		return failure(self, g->pid, "track", -ENOMEM);
	for (unsigned long i = 1; i <= number && !stopped; i++) {
		if (i > 1)
			wait_round(pidfd, interval_ms);
		if (stopped)
			break;
		start = now_ns();
		r = harvest(g, vec, &round);
		if (r < 0)
			return failure(self, g->pid, "harvest", r);
		now = minor_faults(g->pid);
		round.faults = now > faults ? now - faults : 0;
		faults = now;
		round.since_ns = last ? start - last : 0;
		last = start;
		print(i, &round, json);
	}
	return DONE;
}

static int track_pid(const struct command *self, pid_t pid,
		     unsigned long number, unsigned long interval_ms, bool json)
{
	struct sigaction stop = { .sa_handler = on_signal };
	_cleanup_close_ int pidfd = -1;
	struct guest *g;
	uint64_t id;
	int r;

	pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return failure(self, pid, "pidfd_open", -errno);
	do {
		r = getrandom(&id, sizeof(id), 0);
	} while (r != sizeof(id) || !id);
	r = guest_kmod.attach(&g, pid, VASI_SERVICE_SOURCE, id);
	if (r < 0)
		return failure(self, pid, "attach", r);

	/* the PID could have been another's between the two */
	if (poll(&(struct pollfd) { .fd = pidfd, .events = POLLIN }, 1, 0)) {
		guest_kmod.close(g);
		return failure(self, pid, "attach", -ESRCH);
	}
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	r = guest_kmod.track(g, 1);
	r = r < 0 ? failure(self, pid, "track", r) :
	    rounds(self, g, pidfd, number, interval_ms, json);
	guest_kmod.close(g);
	return r;
}

static int track(const struct command *self, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "rounds", required_argument, NULL, 'r' },
		{ "interval", required_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned long number = 10, interval_ms = 1000, pid;
	bool json = false;
	double seconds;
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "r:n:jh", longs, NULL)) != -1) {
		switch (c) {
		case 'r':
			if (parse_number(optarg, 1, 1000000000, &number) < 0)
				return misuse(self, "--rounds takes a number from 1");
			break;
		case 'n':
			seconds = strtod(optarg, &end);
			if (*end || end == optarg || !(seconds >= 0) ||
			    seconds > 86400)
				return misuse(self, "--interval takes seconds, 0 to 86400");
			interval_ms = seconds * 1000;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			return help(self);
		default:
			return MISUSE;
		}
	}
	if (optind != argc - 1)
		return misuse(self, "one PID, please");
	if (parse_number(argv[optind], 1, INT_MAX, &pid) < 0)
		return misuse(self, "\"%s\" is no PID", argv[optind]);
	return track_pid(self, pid, number, interval_ms, json);
}

const struct command command_track = {
	.name = "track",
	.args = "[OPTION]... PID",
	.text = "Show which pages a process dirties, round by round; moves nothing",
	.options =
	"  -r, --rounds N     harvests, default 10\n"
	"  -n, --interval S   seconds between them, default 1\n"
	"  -j, --json         one round per line as JSON\n"
	"  -h, --help         this text\n",
	.run = track,
};
