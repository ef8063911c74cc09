// SPDX-License-Identifier: GPL-2.0
/*
 * The source's side: drives the table of resources over a running or suspended
 * guest
 *
 * Everything comes from /proc, from copies of descriptors and from the records
 * of the access; nothing is traced and nothing is run in the guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "log.h"
#include "state/maps.h"
#include "state/records.h"
#include "state/resource.h"

static int alive(const struct capture *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 ? -ESRCH : 0;
}

int capture_open(struct capture *c, struct guest *g, pid_t pid,
		 enum connections connections, struct findings *f)
{
	char path[32];
	int r;

	*c = (struct capture){
		.guest = g, .pid = pid, .pidfd = -1, .proc = -1,
		.connections = connections, .findings = f,
	};
	c->pidfd = (int)syscall(__NR_pidfd_open, pid, 0);
	if (c->pidfd < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/%d", pid);
	c->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (c->proc < 0) {
		r = errno == ENOENT ? -ESRCH : -errno;
		capture_close(c);
		return r;
	}
	/* the directory is of the process of the pidfd if that lives now */
	r = alive(c);
	if (r)
		capture_close(c);
	return r;
}

void capture_close(struct capture *c)
{
	size_t i;

	for (i = nr_resources; i-- > 0;)
		if (resources[i]->close)
			resources[i]->close(c);
	if (c->pidfd >= 0)
		close(c->pidfd);
	if (c->proc >= 0)
		close(c->proc);
	free(c->records);
	c->pidfd = -1;
	c->proc = -1;
	c->records = NULL;
	c->records_len = 0;
}

static int read_records(struct capture *c)
{
	_cleanup_free_ void *buf = NULL;
	size_t len;
	int r;

	r = c->guest->access->state(c->guest, &buf, &len);
	if (r)
		return r;
	r = records_valid(buf, len);
	if (r)
		return r;
	free(c->records);
	c->records = steal_ptr(&buf);
	c->records_len = len;
	return 0;
}

int capture_check(struct capture *c)
{
	size_t i;
	int r;

	r = read_records(c);
	for (i = 0; i < nr_resources && !r; i++)
		if (resources[i]->check)
			r = resources[i]->check(c);
	return r ? r : alive(c);
}

/* where the time of the pause goes */
static int64_t took(const char *what, int64_t since)
{
	const int64_t now = now_ns();

	log_debug("captured %s in %.1f ms", what,
		  (double)(now - since) / NSEC_PER_MSEC);
	return now;
}

static int capture(struct capture *c, enum capture_when when,
		   Mspd__Image **ret)
{
	const size_t errors = c->findings->errors;
	Mspd__Image *img;
	int64_t since;
	size_t i;
	int r;

	img = malloc(sizeof(*img));
	if (!img)
		return -ENOMEM;
	mspd__image__init(img);
	img->version = 1;
	img->final = when == CAPTURE_FINAL;

	since = now_ns();
	r = read_records(c);
	since = took("records", since);
	for (i = 0; i < nr_resources && !r; i++) {
		if (!resources[i]->capture)
			continue;
		r = resources[i]->capture(c, when, img);
		since = took(resources[i]->name, since);
	}
	if (!r)
		r = alive(c);
	if (!r && c->findings->errors != errors)
		r = -EBUSY;
	if (r) {
		image_free(img);
		return r;
	}
	*ret = img;
	return 0;
}

int capture_early(struct capture *c, Mspd__Image **ret)
{
	return capture(c, CAPTURE_EARLY, ret);
}

int capture_final(struct capture *c, Mspd__Image **ret)
{
	const bool suspended = c->suspended;
	int r;

	c->suspended = true;
	r = capture(c, CAPTURE_FINAL, ret);
	c->suspended = suspended;
	return r;
}

int capture_maps(struct capture *c, Mspd__Maps **ret)
{
	const size_t errors = c->findings->errors;
	Mspd__Maps *maps;
	int r;

	r = maps_capture(c, &maps);
	if (!r && c->findings->errors != errors) {
		maps_free(maps);
		r = -EBUSY;
	}
	if (!r)
		*ret = maps;
	return r;
}

void image_free(Mspd__Image *img)
{
	if (img)
		mspd__image__free_unpacked(img, NULL);
}

void maps_free(Mspd__Maps *maps)
{
	if (maps)
		mspd__maps__free_unpacked(maps, NULL);
}
