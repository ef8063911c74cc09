// SPDX-License-Identifier: GPL-2.0
/*
 * Timers
 *
 * The time of the next expiry is told on the clock of the timer as the guest
 * sees it: the guest's CLOCK_MONOTONIC and CLOCK_BOOTTIME go on in its time
 * namespace on the target, CLOCK_REALTIME is the same everywhere. A relative
 * timer of CLOCK_REALTIME is the kernel's CLOCK_MONOTONIC.
 *
 * fdinfo of a periodic timer that expired unread shows no time to go; asking by
 * timerfd_gettime() starts its next period and counts what has passed.
 */
#include <errno.h>
#include <linux/ioctl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/files.h"
#include "state/timers.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

static bool match(const struct fd_entry *e)
{
	return !strcmp(e->link, "anon_inode:[timerfd]");
}

static bool absolute(const Mspd__OpenFile *of)
{
	return of->settime_flags & TFD_TIMER_ABSTIME;
}

/* the clock that runs it, as the kernel counts */
static clockid_t base_clock(const Mspd__OpenFile *of)
{
	switch (of->clockid) {
	case CLOCK_REALTIME:
		return absolute(of) ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	case CLOCK_REALTIME_ALARM:
		return absolute(of) ? CLOCK_REALTIME : CLOCK_BOOTTIME;
	case CLOCK_MONOTONIC:
		return CLOCK_MONOTONIC;
	default:
		return CLOCK_BOOTTIME;
	}
}

/* offset of the guest's clock to this host's, from its time namespace */
static int guest_offset(struct fd_look *look, clockid_t clock, int64_t *ret)
{
	_cleanup_close_ int fd = -1;
	const char *name = clock == CLOCK_MONOTONIC ? "monotonic" : "boottime";
	long long sec, nsec;
	char buf[256], *p;
	ssize_t n;

	*ret = 0;
	if (clock == CLOCK_REALTIME)
		return 0;
	fd = openat(look->c->proc, "timens_offsets", O_RDONLY | O_CLOEXEC);
	/* a kernel without time namespaces */
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	p = strstr(buf, name);
	if (!p || sscanf(p + strlen(name), "%lld %lld", &sec, &nsec) != 2)
		return -EIO;
	*ret = sec * NSEC_PER_SEC + nsec;
	return 0;
}

static int64_t timespec_ns(const struct timespec *ts)
{
	return ts->tv_sec * NSEC_PER_SEC + ts->tv_nsec;
}

static struct timespec ns_timespec(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / NSEC_PER_SEC,
				  .tv_nsec = ns % NSEC_PER_SEC };
}

/* "clockid: 1\nticks: 0\nsettime flags: 01\nit_value: (0, 1)\n..." */
static int parse(const char *info, Mspd__OpenFile *of)
{
	const char *p = strstr(info, "clockid:");
	unsigned long long ticks;
	unsigned int clock, flags;

	if (!p || sscanf(p, "clockid: %u ticks: %llu settime flags: %o",
			 &clock, &ticks, &flags) != 3)
		return -EIO;
	of->clockid = clock;
	of->count = ticks;
	of->settime_flags = flags;
	of->has_clockid = of->has_count = of->has_settime_flags = 1;
	return 0;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	_cleanup_close_ int fd = -1;
	struct itimerspec its;
	char info[1024], path[32];
	int64_t offset;
	ssize_t n;
	int r, info_fd;

	r = parse(e->info, of);
	if (r || look->when == CAPTURE_EARLY)
		return r;
	fd = fd_copy(look, e);
	if (fd < 0)
		return fd;
	if (timerfd_gettime(fd, &its))
		return -errno;
	r = guest_offset(look, base_clock(of), &offset);
	if (r)
		return r;
	if (timespec_ns(&its.it_value))
		of->expiry_ns = clock_ns(base_clock(of)) + offset +
			timespec_ns(&its.it_value);
	of->interval_ns = timespec_ns(&its.it_interval);
	of->has_expiry_ns = of->has_interval_ns = 1;
	/* asking may have counted */
	snprintf(path, sizeof(path), "fdinfo/%d", e->fd);
	info_fd = openat(look->c->proc, path, O_RDONLY | O_CLOEXEC);
	if (info_fd < 0)
		return -errno;
	n = read(info_fd, info, sizeof(info) - 1);
	close(info_fd);
	if (n < 0)
		return -EIO;
	info[n] = '\0';
	return parse(info, of);
}

static int open_timerfd(struct files_target *t, const Mspd__OpenFile *of,
			int *ret_fd)
{
	int fd = timerfd_create((clockid_t)of->clockid, TFD_CLOEXEC);

	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

static bool same(const Mspd__OpenFile *a, const Mspd__OpenFile *b)
{
	return a->clockid == b->clockid;
}

/* the guest's clock on this host, seen from outside of its namespace */
static int64_t guest_now(const struct files_target *t, clockid_t clock)
{
	int64_t now = clock_ns(clock);

	if (clock == CLOCK_MONOTONIC)
		now += t->r->opt.timens_monotonic_ns;
	else if (clock == CLOCK_BOOTTIME)
		now += t->r->opt.timens_boottime_ns;
	return now;
}

static int settle(struct files_target *t, struct placed_file *p)
{
	const Mspd__OpenFile *of = p->file;
	clockid_t clock = base_clock(of);
	struct timer_state s = { .interval_ns = of->interval_ns,
				 .ticks = of->count };
	int64_t host = clock_ns(clock), guest = guest_now(t, clock), left;
	struct itimerspec its;

	if (of->expiry_ns) {
		left = of->expiry_ns - guest;
		/* an absolute one counts for itself what it missed */
		if (absolute(of)) {
			s.value_ns = host + left > 0 ? host + left : 1;
		} else {
			s.value_ns = left > 0 ? left : 1;
			if (left <= 0)
				timer_advance(&s, 1 - left);
		}
	}
	its.it_value = ns_timespec(s.value_ns);
	its.it_interval = ns_timespec(s.interval_ns);
	if (timerfd_settime(p->copy, (int)of->settime_flags, &its, NULL))
		return files_fail(t, of, -errno, "can't be armed: %s",
				  strerror(errno));
	if (s.ticks && ioctl(p->copy, TFD_IOC_SET_TICKS, &s.ticks))
		return files_fail(t, of, -errno, "expiries can't be set: %s",
				  strerror(errno));
	return 0;
}

const struct fd_kind fd_kind_timerfd = {
	.name = "timerfd",
	.match = match,
	.capture = capture,
	.open = open_timerfd,
	.same = same,
	.settle = settle,
};
