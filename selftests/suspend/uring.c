// SPDX-License-Identifier: GPL-2.0
/*
 * Harvest and suspend as io_uring commands: right, and not in the submitter's
 * way
 */
#include <liburing.h>
#include <sys/eventfd.h>

#include "vasi_test.h"

#define PAGES 512

static void guest(volatile int *ready)
{
	char *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (;;) {
		for (int i = 0; i < PAGES; i++)
			p[i * 4096]++;
		*ready = 1;
	}
}

static int submit(struct io_uring *ring, int fd, uint32_t op, void *arg,
		  uint64_t reserved)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct vasi_uring payload = {
		.arg = (uintptr_t)arg,
		.__reserved = reserved,
	};

	must(sqe);
	/* the structure of the header ends before the payload */
	io_uring_prep_nop(sqe);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->off = op;		/* cmd_op */
	memcpy((char *)sqe + 48, &payload, sizeof(payload));
	return io_uring_submit(ring);
}

static int result(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int ret;

	must(!io_uring_wait_cqe(ring, &cqe));
	ret = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return ret;
}

static int do_one(struct io_uring *ring, int fd, uint32_t op, void *arg)
{
	must(submit(ring, fd, op, arg, 0) == 1);
	return result(ring);
}

static void test_harvest(struct io_uring *ring, int fd, volatile int *ready)
{
	struct vasi_track track = {
		.size = sizeof(track),
		.op = VASI_TRACK_START,
		.tracker = VASI_TRACKER_DBIT,
	};
	static struct vasi_range vec[4096];
	int i, good = 0;

	must(!vasi_cmd(fd, VASI_TRACK, &track));
	for (i = 0; i < 50; i++) {
		struct vasi_harvest h = {
			.size = sizeof(h),
			.vec = (uintptr_t)vec,
			.vec_len = 4096,
		};
		int ret;

		/* it has written all pages again, however seldom it runs */
		for (int k = 0; k < 2; k++) {
			*ready = 0;
			must(wait_until(*ready));
		}
		ret = do_one(ring, fd, VASI_HARVEST, &h);

		good += !ret && h.out_count && h.out_pages && h.out_walk_end;
		if (ret)
			note("harvest: %d", ret);
	}
	ok(good == 50, "%d of 50 harvests", good);
}

static void test_suspend(struct io_uring *ring, int fd)
{
	struct vasi_suspend s = { .size = sizeof(s), .deadline_ms = 20000 };
	struct vasi_harvest h = { .size = sizeof(h) };
	struct vasi_stream_info info;
	int i, good = 0;

	for (i = 0; i < 20; i++) {
		good += !do_one(ring, fd, VASI_SUSPEND, &s) &&
			s.out_threads == 1 && !stream_info(fd, &info) &&
			info.state == VASI_STATE_SUSPENDED && !resume(fd);
	}
	ok(good == 20, "%d of 20 suspends", good);

	s.deadline_ms = 0;
	ok(do_one(ring, fd, VASI_SUSPEND, &s) == -EINVAL, "errors arrive");
	ok(do_one(ring, fd, VASI_HARVEST, (void *)8) == -EFAULT,
	   "a bad address gives EFAULT");
	ok(do_one(ring, fd, VASI_HARVEST, &h) == -EINVAL,
	   "the command is checked as by ioctl()");
	ok(do_one(ring, fd, VASI_RESUME, &s) == -EOPNOTSUPP,
	   "other commands give EOPNOTSUPP");
	must(submit(ring, fd, VASI_SUSPEND, &s, 1) == 1);
	ok(result(ring) == -EOPNOTSUPP, "so does a reserved member");
}

/* a stopped thread never parks: a suspend that asks for it takes its time */
static void test_asynchronous(struct io_uring *ring, int fd, pid_t pid)
{
	struct vasi_suspend s = {
		.size = sizeof(s),
		.flags = VASI_SUSPEND_PARKED,
		.deadline_ms = 1000,
	};
	struct io_uring_cqe *cqe;
	int event = eventfd(0, EFD_NONBLOCK);
	struct pollfd p = { .fd = event, .events = POLLIN };

	must(!io_uring_register_eventfd(ring, event));
	must(!kill(pid, SIGSTOP));
	must(waitpid(pid, NULL, WUNTRACED) == pid);
	must(submit(ring, fd, VASI_SUSPEND, &s, 0) == 1);
	ok(io_uring_peek_cqe(ring, &cqe) == -EAGAIN, "submitting does not wait");
	ok(poll(&p, 1, 20000) == 1 && result(ring) == -ETIMEDOUT &&
	   s.out_tid == pid && s.out_reason == VASI_HOLDUP_STOPPED,
	   "its end wakes an eventfd");
	must(!kill(pid, SIGCONT));
}

/* the ring goes while a command runs */
static void test_exit(int fd, pid_t pid)
{
	struct vasi_suspend s = {
		.size = sizeof(s),
		.flags = VASI_SUSPEND_PARKED,
		.deadline_ms = 300,
	};
	struct io_uring ring;
	pid_t mover;
	int status;

	must(!kill(pid, SIGSTOP));
	must(waitpid(pid, NULL, WUNTRACED) == pid);
	mover = fork_guest();
	if (!mover) {
		must(!io_uring_queue_init(4, &ring, 0));
		must(submit(&ring, fd, VASI_SUSPEND, &s, 0) == 1);
		_exit(0);
	}
	ok(waitpid(mover, &status, 0) == mover && !WEXITSTATUS(status),
	   "a ring that goes with a command in it does not hang");
	must(!kill(pid, SIGCONT));
	ok(!suspend(fd) && !resume(fd), "and the stream goes on");
}

int main(void)
{
	volatile int *ready = shared_memory(4096);
	struct io_uring ring;
	pid_t pid;
	int fd;

	pid = fork_guest();
	if (!pid)
		guest(ready);
	must(wait_until(*ready));
	must(!io_uring_queue_init(8, &ring, 0));
	fd = attach(pid);
	test_harvest(&ring, fd, ready);
	test_suspend(&ring, fd);
	test_asynchronous(&ring, fd, pid);
	test_exit(fd, pid);
	close(fd);
	io_uring_queue_exit(&ring);
	end_guest(pid);
	return tap_end();
}
