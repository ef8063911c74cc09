// SPDX-License-Identifier: GPL-2.0
/*
 * Sets of descriptors to wait for
 *
 * An entry is a description together with the number it was added under. One
 * whose number stands for something else now can't be taken out or put back by
 * anybody, so it is refused. What is edge triggered is told once more after the
 * move, and a one-shot entry that has fired tells errors again.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/files.h"

static bool match(const struct fd_entry *e)
{
	return !strcmp(e->link, "anon_inode:[eventpoll]");
}

static int add_entry(struct fd_look *look, struct fd_entry *e,
		     Mspd__OpenFile *of, const Mspd__EpollEntry *got)
{
	struct kcmp_epoll_slot slot = { .efd = (uint32_t)e->fd,
					.tfd = (uint32_t)got->fd };
	Mspd__EpollEntry *entry, **v;
	size_t i;

	for (i = 0; i < of->n_epoll; i++)
		if (of->epoll[i]->fd == got->fd)
			return fd_refuse(look, e, "fd.epoll.closed",
					 "it waits for two files under the number %d, one of which is closed; remove entries before closing",
					 got->fd);
	if (syscall(SYS_kcmp, look->c->pid, look->c->pid, KCMP_EPOLL_TFD,
		    got->fd, &slot)) {
		/* the running guest may have changed it just now */
		if (look->when == CAPTURE_EARLY && !look->checking)
			return 0;
		return fd_refuse(look, e, "fd.epoll.closed",
				 "it waits for a file that was fd %d, which is closed; remove entries before closing",
				 got->fd);
	}
	v = reallocarray(of->epoll, of->n_epoll + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	of->epoll = v;
	entry = malloc(sizeof(*entry));
	if (!entry)
		return -ENOMEM;
	*entry = *got;
	v[of->n_epoll++] = entry;
	return 0;
}

static int capture(struct fd_look *look, struct fd_entry *e,
		   Mspd__OpenFile *of)
{
	const char *p;
	int r;

	for (p = strstr(e->info, "tfd:"); p; p = strstr(p + 4, "tfd:")) {
		Mspd__EpollEntry entry = MSPD__EPOLL_ENTRY__INIT;
		unsigned long long data;

		if (sscanf(p, "tfd: %d events: %x data: %llx", &entry.fd,
			   &entry.events, &data) != 3)
			return -EIO;
		entry.data = data;
		r = add_entry(look, e, of, &entry);
		if (r)
			return r;
	}
	return 0;
}

static int open_epoll(struct files_target *t, const Mspd__OpenFile *of,
		      int *ret_fd)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return files_fail(t, of, -errno, "%s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

/* An entry of a description that was replaced went away with it. */
static const struct placed_epoll *in_place(struct files_target *t,
					   const struct placed_file *p, int fd)
{
	const struct placed_file *target = files_by_nr(t, fd);
	size_t i;

	for (i = 0; i < p->nr_epoll; i++)
		if (p->epoll[i].fd == fd && target &&
		    p->epoll[i].serial == target->serial)
			return &p->epoll[i];
	return NULL;
}

static int control(struct files_target *t, struct placed_file *p, int op,
		   int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };
	struct remote *remote = &t->r->remote;
	uint64_t addr = 0;
	int r;

	if (op != EPOLL_CTL_DEL) {
		addr = remote_copy(remote, &ev, sizeof(ev));
		if (!addr) {
			r = remote_flush(remote);
			if (r)
				return r;
			addr = remote_copy(remote, &ev, sizeof(ev));
		}
		if (!addr)
			return -ENOMEM;
	}
	return remote_queue(remote, 0, "epoll_ctl", SYS_epoll_ctl,
			    p->fds[0].nr, op, fd, addr);
}

static const Mspd__EpollEntry *wanted(const Mspd__OpenFile *of, int fd)
{
	size_t i;

	for (i = 0; i < of->n_epoll; i++)
		if (of->epoll[i]->fd == fd)
			return of->epoll[i];
	return NULL;
}

/* what can be changed by EPOLL_CTL_MOD is not exclusive */
static bool changeable(uint32_t was, uint32_t is)
{
	return !((was | is) & EPOLLEXCLUSIVE);
}

static int settle(struct files_target *t, struct placed_file *p)
{
	_cleanup_free_ struct placed_epoll *now = NULL;
	const Mspd__OpenFile *of = p->file;
	size_t i, n = 0;
	int r = 0;

	now = calloc(of->n_epoll + 1, sizeof(*now));
	if (!now)
		return -ENOMEM;
	for (i = 0; !r && i < p->nr_epoll; i++) {
		int fd = p->epoll[i].fd;
		const Mspd__EpollEntry *want = wanted(of, fd);

		if (in_place(t, p, fd) == &p->epoll[i] &&
		    (!want || (p->epoll[i].events != want->events &&
			       !changeable(p->epoll[i].events, want->events)))) {
			r = control(t, p, EPOLL_CTL_DEL, fd, 0, 0);
			p->epoll[i].serial = 0;
		}
	}
	for (i = 0; !r && i < of->n_epoll; i++) {
		const Mspd__EpollEntry *e = of->epoll[i];
		struct placed_file *target = files_by_nr(t, e->fd);
		const struct placed_epoll *old = in_place(t, p, e->fd);

		if (!target && t->final)
			return files_fail(t, of, -EBADMSG,
					  "waits for fd %d, which is not open",
					  e->fd);
		/* closed while the early image was made, or opened in the pause */
		if (!target || !target->placed)
			continue;
		if (!old)
			r = control(t, p, EPOLL_CTL_ADD, e->fd, e->events,
				    e->data);
		else if (old->events != e->events || old->data != e->data)
			r = control(t, p, EPOLL_CTL_MOD, e->fd, e->events,
				    e->data);
		now[n++] = (struct placed_epoll){
			.fd = e->fd, .events = e->events, .data = e->data,
			.serial = target->serial,
		};
	}
	if (r)
		return r;
	free(p->epoll);
	p->epoll = steal_ptr(&now);
	p->nr_epoll = n;
	return 0;
}

const struct fd_kind fd_kind_epoll = {
	.name = "epoll",
	.match = match,
	.capture = capture,
	.open = open_epoll,
	.settle = settle,
};
