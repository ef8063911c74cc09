/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For tests of the module's suspend and state: results as TAP, guests as forked
 * processes that share a page of findings with the test, commands as calls.
 */
#ifndef VASI_TEST_H
#define VASI_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/vasi.h>

#define NSEC 1000000000LL

static int tap_count, tap_failed;

/* one result; returns @good */
__attribute__((format(printf, 2, 3), unused))
static bool ok(bool good, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	tap_failed += !good;
	return good;
}

__attribute__((format(printf, 1, 2), unused))
static void note(const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

__attribute__((unused))
static int tap_end(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

/* the test itself can't go on */
#define must(cond) do {							\
	if (!(cond)) {							\
		printf("Bail out! %s:%d: %s: %s\n", __FILE__, __LINE__,	\
		       #cond, strerror(errno));				\
		exit(1);						\
	}								\
} while (0)

__attribute__((unused))
static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

__attribute__((unused))
static void sleep_ms(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* waits for a condition, not for a time; the time is for a broken test */
#define wait_until(cond) ({						\
	int64_t wait_end = now_ns() + 60 * NSEC;			\
	bool wait_good;							\
	while (!(wait_good = (cond)) && now_ns() < wait_end)		\
		sleep_ms(5);						\
	wait_good;							\
})

/* memory that a guest and its test share */
__attribute__((unused))
static void *shared_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	return p;
}

/* a guest dies with its test */
__attribute__((unused))
static pid_t fork_guest(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

__attribute__((unused))
static void end_guest(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int vasi_cmd(int fd, unsigned long nr, void *cmd)
{
	return ioctl(fd, nr, cmd) < 0 ? -errno : 0;
}

static uint64_t new_stream_id(void)
{
	static uint64_t last;

	return ((uint64_t)getpid() << 32) | ++last;
}

__attribute__((unused))
static int vasi_attach_as(pid_t pid, uint32_t service, uint64_t id, int *ret_fd)
{
	struct vasi_attach cmd = {
		.size = sizeof(cmd),
		.pid = pid,
		.service = service,
		.stream_id = id,
	};
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = vasi_cmd(fd, VASI_ATTACH, &cmd);
	if (ret)
		close(fd);
	else
		*ret_fd = fd;
	return ret;
}

/* an open attached to @pid as a source */
__attribute__((unused))
static int attach(pid_t pid)
{
	int fd = -1, ret = vasi_attach_as(pid, VASI_SERVICE_SOURCE,
					  new_stream_id(), &fd);

	if (ret) {
		errno = -ret;
		must(!"attach");
	}
	return fd;
}

__attribute__((unused))
static int suspend_with(int fd, uint32_t flags, uint32_t deadline_ms,
			struct vasi_suspend *ret_cmd)
{
	struct vasi_suspend cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.deadline_ms = deadline_ms,
	};
	int ret = vasi_cmd(fd, VASI_SUSPEND, &cmd);

	if (ret == -ETIMEDOUT)
		note("in the way: tid %d '%.16s' reason %u", cmd.out_tid,
		     cmd.out_comm, cmd.out_reason);
	if (ret_cmd)
		*ret_cmd = cmd;
	return ret;
}

__attribute__((unused))
static int suspend(int fd)
{
	return suspend_with(fd, 0, 20000, NULL);
}

__attribute__((unused))
static int resume_with(int fd, uint32_t flags)
{
	struct vasi_resume cmd = { .size = sizeof(cmd), .flags = flags };

	return vasi_cmd(fd, VASI_RESUME, &cmd);
}

__attribute__((unused))
static int resume(int fd)
{
	return resume_with(fd, 0);
}

__attribute__((unused))
static int seal(int fd)
{
	struct vasi_seal cmd = { .size = sizeof(cmd) };

	return vasi_cmd(fd, VASI_SEAL, &cmd);
}

__attribute__((unused))
static int stream_info(int fd, struct vasi_stream_info *ret_info)
{
	struct vasi_info cmd = { .size = sizeof(cmd) };
	int ret = vasi_cmd(fd, VASI_INFO, &cmd);

	if (!ret)
		*ret_info = cmd.out_stream;
	return ret;
}

/* all records, from malloc() */
__attribute__((unused))
static int get_state(int fd, void **ret_buf, size_t *ret_len)
{
	struct vasi_state cmd = { .size = sizeof(cmd) };
	void *buf = NULL;
	int ret;

	for (;;) {
		ret = vasi_cmd(fd, VASI_STATE, &cmd);
		if (ret != -EMSGSIZE)
			break;
		free(buf);
		cmd.buf_len = cmd.out_len + 4096;
		buf = aligned_alloc(8, (cmd.buf_len + 7) & ~7ull);
		must(buf);
		cmd.buf = (uintptr_t)buf;
	}
	if (ret) {
		free(buf);
		return ret;
	}
	*ret_buf = buf;
	*ret_len = cmd.out_len;
	return 0;
}

/* the first record that fits (-1 = any), NULL if none; @ret_len of payload */
__attribute__((unused))
static void *find_record(void *buf, size_t len, int type, int tid, int note_type,
			 size_t *ret_len)
{
	char *at = buf, *end = at + len;

	while (at < end) {
		struct vasi_record *r = (void *)at;

		if (r->type == type && (tid < 0 || r->tid == tid) &&
		    (note_type < 0 || r->note == (uint32_t)note_type)) {
			if (ret_len)
				*ret_len = r->payload;
			return r + 1;
		}
		at += r->bytes;
	}
	return NULL;
}

/* the state letter of a thread in /proc, 0 if it is gone */
__attribute__((unused))
static char thread_state(pid_t pid, pid_t tid)
{
	char path[64], line[512], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	return p ? p[2] : 0;
}

#endif /* VASI_TEST_H */
