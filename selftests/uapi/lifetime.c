// SPDX-License-Identifier: GPL-2.0
/*
 * Streams from attach to end: movers that die, guests that exec or die, seals
 */
#include <sys/prctl.h>

#include "../vasi_test.h"

/* what the guest is told and tells, shared */
struct box {
	uint64_t count;
	int exec;
};

static struct box *box;

static pid_t counter(void)
{
	pid_t pid = fork_guest();

	if (pid)
		return pid;
	for (;;) {
		__atomic_add_fetch(&box->count, 1, __ATOMIC_RELAXED);
		usleep(1000);
		if (__atomic_load_n(&box->exec, __ATOMIC_RELAXED))
			execl("/bin/sleep", "sleep", "1000", NULL);
	}
}

static bool runs(void)
{
	uint64_t before = __atomic_load_n(&box->count, __ATOMIC_RELAXED);

	return wait_until(__atomic_load_n(&box->count, __ATOMIC_RELAXED) >
			  before + 3);
}

/* a guest that stands still can only be told from a slow one by waiting */
static bool stands(void)
{
	uint64_t before = __atomic_load_n(&box->count, __ATOMIC_RELAXED);

	sleep_ms(100);
	return __atomic_load_n(&box->count, __ATOMIC_RELAXED) == before;
}

static int attach_flags(uint64_t id, uint32_t flags, int *ret_fd)
{
	struct vasi_attach c = {
		.size = sizeof(c),
		.flags = flags,
		.service = VASI_SERVICE_SOURCE,
		.stream_id = id,
	};
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC);
	int ret = vasi_cmd(fd, VASI_ATTACH, &c);

	if (ret)
		close(fd);
	else
		*ret_fd = fd;
	return ret;
}

static int destroy(int fd, uint64_t id)
{
	struct vasi_destroy c = {
		.size = sizeof(c),
		.stream_id = id,
		.service = VASI_SERVICE_SOURCE,
		.deadline_ms = 20000,
	};

	return vasi_cmd(fd, VASI_DESTROY, &c);
}

static int signal_stream(int fd, uint32_t code, uint32_t reason)
{
	struct vasi_signal c = {
		.size = sizeof(c),
		.code = code,
		.reason = reason,
	};

	return vasi_cmd(fd, VASI_SIGNAL, &c);
}

/* the stream in the list, from an open that has none; -ENOENT */
static int find_stream(uint64_t id, uint32_t flags,
		       struct vasi_stream_info *ret_info)
{
	static struct vasi_stream_info vec[64];
	struct vasi_streams c = {
		.size = sizeof(c),
		.flags = flags,
		.vec = (uintptr_t)vec,
		.vec_len = 64,
	};
	int fd = open("/dev/vasi", O_RDWR | O_CLOEXEC);
	int ret = vasi_cmd(fd, VASI_STREAMS, &c);
	uint32_t i;

	close(fd);
	if (ret)
		return ret;
	for (i = 0; i < c.out_count; i++) {
		if (vec[i].stream_id == id) {
			*ret_info = vec[i];
			return 0;
		}
	}
	return -ENOENT;
}

static int info_call(int fd)
{
	struct vasi_stream_info info;

	return stream_info(fd, &info);
}

static uint32_t state_of(int fd)
{
	struct vasi_stream_info info = {0};

	must(!stream_info(fd, &info));
	return info.state;
}

/* any command that needs the guest's memory */
static int touch_guest(int fd)
{
	struct vasi_track c = {
		.size = sizeof(c),
		.op = VASI_TRACK_START,
		.tracker = VASI_TRACKER_DBIT,
	};

	return vasi_cmd(fd, VASI_TRACK, &c);
}

static short events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLPRI };

	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static void closing(void)
{
	struct vasi_stream_info info;
	uint64_t id = new_stream_id();
	pid_t guest = counter();
	int a, b;

	must(!vasi_attach_as(guest, VASI_SERVICE_SOURCE, id, &a));
	must(!attach_flags(id, VASI_ATTACH_JOIN, &b));
	must(!find_stream(id, 0, &info));
	ok(info.opens == 2 && info.pid == guest &&
	   info.state == VASI_STATE_ENABLED, "a stream with two opens is listed");
	must(!suspend(a));
	ok(events(b) & POLLPRI && !info_call(b) && !(events(b) & POLLPRI),
	   "a change is told to the other open, once");
	close(a);
	ok(stands() && state_of(b) == VASI_STATE_SUSPENDED,
	   "one close of two leaves it suspended");
	close(b);
	ok(runs(), "the last one resumes it");
	ok(find_stream(id, 0, &info) == -ENOENT, "and ends the stream");
	end_guest(guest);
}

static void killed_controller(void)
{
	uint64_t id = new_stream_id();
	struct vasi_stream_info info;
	pid_t guest = counter(), pid;
	int *done = shared_memory(4096), fd;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		must(!vasi_attach_as(guest, VASI_SERVICE_SOURCE, id, &fd));
		must(!suspend(fd));
		*done = 1;
		for (;;)
			pause();
	}
	must(wait_until(__atomic_load_n(done, __ATOMIC_ACQUIRE)));
	ok(stands(), "a suspended guest stands");
	end_guest(pid);
	ok(runs(), "its controller killed, it runs");
	ok(find_stream(id, 0, &info) == -ENOENT, "and the stream is gone");
	end_guest(guest);
}

static void sealing(void)
{
	uint64_t id = new_stream_id();
	struct vasi_stream_info info;
	pid_t guest = counter(), pid;
	int *done = shared_memory(4096), fd, other;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		must(!vasi_attach_as(guest, VASI_SERVICE_SOURCE, id, &fd));
		must(!suspend(fd) && !seal(fd));
		*done = 1;
		for (;;)
			pause();
	}
	must(wait_until(__atomic_load_n(done, __ATOMIC_ACQUIRE)));
	end_guest(pid);
	ok(stands(), "a sealed guest stands though its controller was killed");
	ok(!find_stream(id, VASI_STREAMS_SEALED, &info) && !info.opens &&
	   info.flags & VASI_STREAM_SEALED && info.pid == guest,
	   "it is listed as sealed");
	ok(attach_flags(id, VASI_ATTACH_JOIN, &fd) == -EBUSY,
	   "it can't be joined");
	must(!attach_flags(id, VASI_ATTACH_SEALED, &fd));
	ok(stands() && resume(fd) == -EBUSY && stands(),
	   "taken over it stays sealed");
	ok(signal_stream(fd, VASI_SIGNAL_ABORT, 0) == -EBUSY,
	   "and is not aborted");
	ok(!resume_with(fd, VASI_RESUME_UNSEAL) && runs() &&
	   state_of(fd) == VASI_STATE_ENABLED, "until it is unsealed");
	must(!suspend(fd) && !seal(fd));
	close(fd);
	other = open("/dev/vasi", O_RDWR | O_CLOEXEC);
	ok(!destroy(other, id) && kill(guest, 0) == 0 &&
	   waitpid(guest, NULL, 0) == guest, "destroyed by its ID");
	ok(find_stream(id, 0, &info) == -ENOENT && destroy(other, id) ==
	   -ENOENT, "no stream is left of it");
	close(other);
}

static void signals(void)
{
	uint32_t reason = VASI_ENTITY_ORCHESTRATOR << 24 | 7;
	struct vasi_stream_info info;
	pid_t guest = counter();
	int fd = attach(guest);
	uint64_t id;

	must(!touch_guest(fd));
	ok(!signal_stream(fd, VASI_SIGNAL_CANCEL, reason), "cancel");
	must(!stream_info(fd, &info));
	ok(info.state == VASI_STATE_ABORTED && info.reason == reason &&
	   !(info.flags & VASI_STREAM_TRACKED), "aborts and keeps the reason");
	ok(touch_guest(fd) == -ECANCELED && events(fd) & POLLERR,
	   "what needs the guest is refused then");
	close(fd);

	fd = attach(guest);
	must(!suspend(fd));
	ok(signal_stream(fd, VASI_SIGNAL_CANCEL, 0) == -EBUSY && stands(),
	   "no cancel once suspended");
	ok(signal_stream(fd, VASI_SIGNAL_RESUMED, 0) == -EBUSY,
	   "not resumed elsewhere unless sealed");
	ok(!signal_stream(fd, VASI_SIGNAL_ABORT, 0) && runs(),
	   "abort resumes");
	close(fd);

	id = new_stream_id();
	must(!vasi_attach_as(guest, VASI_SERVICE_SOURCE, id, &fd));
	must(!suspend(fd) && !seal(fd));
	ok(!signal_stream(fd, VASI_SIGNAL_RESUMED, 0) &&
	   state_of(fd) == VASI_STATE_RESUMED, "resumed elsewhere");
	ok(resume_with(fd, VASI_RESUME_UNSEAL) == -EBUSY && stands(),
	   "then this copy never runs again");
	ok(!destroy(fd, id) && state_of(fd) == VASI_STATE_COMPLETED,
	   "destroyed it is completed");
	must(waitpid(guest, NULL, 0) == guest);
	close(fd);
}

static void exec_and_death(void)
{
	struct vasi_stream_info info;
	pid_t guest = counter();
	int fd = attach(guest);

	must(!touch_guest(fd));
	box->exec = 1;
	ok(wait_until(touch_guest(fd) == -ECANCELED), "an exec aborts");
	must(wait_until(!stream_info(fd, &info) &&
			info.state == VASI_STATE_ABORTED));
	ok(info.reason >> 24 == VASI_ENTITY_GUEST, "by the guest");
	close(fd);
	box->exec = 0;
	fd = attach(guest);
	ok(!touch_guest(fd), "what it became can be attached");
	end_guest(guest);
	ok(wait_until(touch_guest(fd) == -ESRCH), "a killed guest is gone");
	ok(wait_until(events(fd) & POLLHUP), "poll says so");
	must(!stream_info(fd, &info));
	ok(info.flags & VASI_STREAM_DEAD && !destroy(fd, info.stream_id),
	   "its stream can be ended");
	close(fd);
}

int main(void)
{
	box = shared_memory(4096);
	closing();
	killed_controller();
	sealing();
	signals();
	exec_and_death();
	return tap_end();
}
