// SPDX-License-Identifier: GPL-2.0
/*
 * Guest access through /dev/vasi
 *
 * One handle is one open of the device. Handles of a stream may be used by
 * different threads at one time; one handle by one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "guest/guest.h"
#include "lib/cleanup.h"

#define DEVICE		"/dev/vasi"
#define STATE_FIRST	(256UL << 10)
#define STATE_MAX	(64UL << 20)
#define STATE_TRIES	8
#define EXTRA_STATE	(64UL << 10)	/* threads born between two calls */

struct kmod_guest {
	struct guest guest;
	int fd;
};

static int fd_of(const struct guest *g)
{
	return ((const struct kmod_guest *)g)->fd;
}

static int command(int fd, unsigned long nr, void *arg)
{
	int r;

	do
		r = ioctl(fd, nr, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int kmod_probe(struct vasi_query *ret)
{
	struct vasi_query q = { .size = sizeof(q) };
	_cleanup_close_ int fd = -1;
	int r;

	fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = command(fd, VASI_QUERY, &q);
	if (r)
		return r == -ENOTTY || r == -E2BIG ? -EPROTONOSUPPORT : r;
	if (ret)
		*ret = q;
	return q.out_abi == VASI_ABI_VERSION ? 0 : -EPROTONOSUPPORT;
}

static int kmod_sealed(struct vasi_stream_info *vec, size_t len, size_t *ret_n)
{
	struct vasi_streams cmd = {
		.size = sizeof(cmd), .flags = VASI_STREAMS_SEALED,
		.vec = (uintptr_t)vec, .vec_len = (uint32_t)len,
	};
	_cleanup_close_ int fd = -1;
	int r;

	fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = command(fd, VASI_STREAMS, &cmd);
	if (r)
		return r;
	*ret_n = cmd.out_count;
	return 0;
}

static int attach(struct guest **ret, uint32_t flags, pid_t pid,
		  uint32_t service, uint64_t stream_id)
{
	struct vasi_attach cmd = {
		.size = sizeof(cmd), .flags = flags, .pid = pid,
		.service = service, .stream_id = stream_id,
	};
	struct kmod_guest *k;
	int r;

	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (k->fd < 0) {
		r = -errno;
		free(k);
		return r;
	}
	r = command(k->fd, VASI_ATTACH, &cmd);
	if (r) {
		close(k->fd);
		free(k);
		return r;
	}
	k->guest = (struct guest){
		.access = &guest_kmod, .stream_id = stream_id,
		.service = service, .pid = cmd.out_pid,
	};
	*ret = &k->guest;
	return 0;
}

static int kmod_attach(struct guest **ret, pid_t pid, uint32_t service,
		       uint64_t stream_id)
{
	return attach(ret, 0, pid, service, stream_id);
}

static int kmod_join(struct guest **ret, const struct guest *g)
{
	return attach(ret, VASI_ATTACH_JOIN, 0, g->service, g->stream_id);
}

static int kmod_takeover(struct guest **ret, uint32_t service,
			 uint64_t stream_id)
{
	return attach(ret, VASI_ATTACH_SEALED, 0, service, stream_id);
}

static void kmod_close(struct guest *g)
{
	if (!g)
		return;
	close(fd_of(g));
	free(g);
}

static int kmod_track(struct guest *g, int on)
{
	struct vasi_track cmd = {
		.size = sizeof(cmd),
		.op = on ? VASI_TRACK_START : VASI_TRACK_STOP,
		.tracker = VASI_TRACKER_DBIT,
	};

	return command(fd_of(g), VASI_TRACK, &cmd);
}

static int kmod_harvest(struct guest *g, uint32_t space, uint64_t start,
			uint64_t end, uint64_t max_pages,
			struct vasi_range *vec, size_t len, size_t *ret_n,
			uint64_t *ret_end)
{
	struct vasi_harvest cmd = {
		.size = sizeof(cmd), .space = space, .start = start,
		.end = end, .vec = (uintptr_t)vec, .vec_len = (uint32_t)len,
		.max_pages = max_pages,
	};
	int r = command(fd_of(g), VASI_HARVEST, &cmd);

	if (r)
		return r;
	*ret_n = cmd.out_count;
	*ret_end = cmd.out_walk_end;
	return 0;
}

static int kmod_mark(struct guest *g, const struct vasi_range *vec, size_t n)
{
	struct vasi_mark cmd = {
		.size = sizeof(cmd), .vec = (uintptr_t)vec,
		.vec_len = (uint32_t)n,
	};

	return command(fd_of(g), VASI_MARK, &cmd);
}

static int kmod_mappings(struct guest *g, struct vasi_mapping *vec, size_t len,
			 size_t *ret_n)
{
	struct vasi_mappings cmd = {
		.size = sizeof(cmd), .vec = (uintptr_t)vec,
		.vec_len = (uint32_t)len,
	};
	int r = command(fd_of(g), VASI_MAPPINGS, &cmd);

	if (!r || r == -EMSGSIZE)
		*ret_n = cmd.out_count;
	return r;
}

static int kmod_objects(struct guest *g, struct vasi_object *vec, size_t len,
			size_t *ret_n)
{
	struct vasi_objects cmd = {
		.size = sizeof(cmd), .vec = (uintptr_t)vec,
		.vec_len = (uint32_t)len,
	};
	int r = command(fd_of(g), VASI_OBJECTS, &cmd);

	if (!r || r == -EMSGSIZE)
		*ret_n = cmd.out_count;
	return r;
}

static int pages(struct guest *g, unsigned long nr,
		 const struct vasi_range *vec, size_t n, const void *data,
		 size_t len, size_t *ret_done)
{
	struct vasi_pages cmd = {
		.size = sizeof(cmd), .vec = (uintptr_t)vec,
		.vec_len = (uint32_t)n, .data = (uintptr_t)data,
		.data_len = len,
	};
	int r = command(fd_of(g), nr, &cmd);

	if (!r)
		*ret_done = cmd.out_count;
	return r;
}

static int kmod_read(struct guest *g, const struct vasi_range *vec, size_t n,
		     void *data, size_t len, size_t *ret_done)
{
	return pages(g, VASI_PAGES_READ, vec, n, data, len, ret_done);
}

static int kmod_write(struct guest *g, const struct vasi_range *vec, size_t n,
		      const void *data, size_t len, size_t *ret_done)
{
	return pages(g, VASI_PAGES_WRITE, vec, n, data, len, ret_done);
}

static int kmod_suspend(struct guest *g, unsigned int deadline_ms, int parked,
			struct guest_holdup *ret_holdup)
{
	struct vasi_suspend cmd = {
		.size = sizeof(cmd), .deadline_ms = deadline_ms,
		.flags = parked ? VASI_SUSPEND_PARKED : 0,
	};
	int r = command(fd_of(g), VASI_SUSPEND, &cmd);

	if (r == -ETIMEDOUT && ret_holdup) {
		ret_holdup->tid = cmd.out_tid;
		ret_holdup->reason = cmd.out_reason;
		memcpy(ret_holdup->comm, cmd.out_comm, sizeof(cmd.out_comm));
		ret_holdup->comm[sizeof(cmd.out_comm)] = '\0';
	}
	return r;
}

static int kmod_resume(struct guest *g)
{
	struct vasi_resume cmd = {
		.size = sizeof(cmd), .flags = VASI_RESUME_UNSEAL,
	};

	return command(fd_of(g), VASI_RESUME, &cmd);
}

static int kmod_seal(struct guest *g)
{
	struct vasi_seal cmd = { .size = sizeof(cmd) };

	return command(fd_of(g), VASI_SEAL, &cmd);
}

static int kmod_destroy(struct guest *g, unsigned int deadline_ms)
{
	struct vasi_destroy cmd = {
		.size = sizeof(cmd), .stream_id = g->stream_id,
		.service = g->service, .deadline_ms = deadline_ms,
	};

	return command(fd_of(g), VASI_DESTROY, &cmd);
}

static int kmod_state(struct guest *g, void **ret_buf, size_t *ret_len)
{
	_cleanup_free_ void *buf = NULL;
	size_t room = STATE_FIRST;
	int i, r;

	/* a guest that runs may have more to tell each time */
	for (i = 0; i < STATE_TRIES; i++) {
		struct vasi_state cmd = { .size = sizeof(cmd) };

		free(buf);
		buf = malloc(room);
		if (!buf)
			return -ENOMEM;
		cmd.buf = (uintptr_t)buf;
		cmd.buf_len = room;
		r = command(fd_of(g), VASI_STATE, &cmd);
		if (!r) {
			*ret_len = cmd.out_len;
			*ret_buf = steal_ptr(&buf);
			return 0;
		}
		if (r != -EMSGSIZE)
			return r;
		room = cmd.out_len + EXTRA_STATE;
		if (room > STATE_MAX)
			return -EFBIG;
	}
	return -EAGAIN;
}

static int kmod_signal(struct guest *g, uint32_t code, uint32_t reason)
{
	struct vasi_signal cmd = {
		.size = sizeof(cmd), .code = code, .reason = reason,
	};

	return command(fd_of(g), VASI_SIGNAL, &cmd);
}

static int kmod_info(struct guest *g, struct vasi_info *ret)
{
	struct vasi_info cmd = { .size = sizeof(cmd) };
	int r = command(fd_of(g), VASI_INFO, &cmd);

	if (!r)
		*ret = cmd;
	return r;
}

static int kmod_progress(struct guest *g, uint64_t bytes_left)
{
	struct vasi_progress cmd = {
		.size = sizeof(cmd), .bytes_left = bytes_left,
	};

	return command(fd_of(g), VASI_PROGRESS, &cmd);
}

static int kmod_pollfd(const struct guest *g)
{
	return fd_of(g);
}

const struct guest_access guest_kmod = {
	.name = "vasi",
	.probe = kmod_probe,
	.sealed = kmod_sealed,
	.attach = kmod_attach,
	.join = kmod_join,
	.takeover = kmod_takeover,
	.close = kmod_close,
	.track = kmod_track,
	.harvest = kmod_harvest,
	.mark = kmod_mark,
	.mappings = kmod_mappings,
	.objects = kmod_objects,
	.read = kmod_read,
	.write = kmod_write,
	.suspend = kmod_suspend,
	.resume = kmod_resume,
	.seal = kmod_seal,
	.destroy = kmod_destroy,
	.state = kmod_state,
	.signal = kmod_signal,
	.info = kmod_info,
	.progress = kmod_progress,
	.pollfd = kmod_pollfd,
};
