// SPDX-License-Identifier: GPL-2.0
/*
 * The first content of the guest's memory, on the target
 *
 * A page that nothing has touched is allocated and cleared by the first write,
 * only to be overwritten at once. Memory that is registered with a userfaultfd
 * can be given whole pages: nothing is cleared and no fault is taken. All of it
 * is registered while the first round lasts. Nothing is protected, so nobody
 * ever waits for this userfaultfd, and its close takes all registrations away.
 *
 * That way all pages are small. Where the guest has huge ones, those are worth
 * more than what is saved here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "log.h"
#include "state/maps.h"
#include "state/restore.h"

#define THP_ENABLED "/sys/kernel/mm/transparent_hugepage/enabled"

/* do all mappings get huge pages here, wanted or not? */
static bool huge_everywhere(void)
{
	_cleanup_close_ int fd = open(THP_ENABLED, O_RDONLY | O_CLOEXEC);
	char text[64] = "";

	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 &&
	       strstr(text, "[always]");
}

/* made by the guest, since it is for its memory; here is the only copy */
static int open_uffd(struct restore *r)
{
	struct uffdio_api api = { .api = UFFD_API };
	long nr;
	int fd;

	nr = remote_call(&r->remote, 0, __NR_userfaultfd,
			 O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (nr < 0)
		return (int)nr;
	fd = (int)syscall(SYS_pidfd_getfd, r->ns.pidfd, nr, 0);
	if (fd < 0)
		fd = -errno;
	remote_call(&r->remote, 0, __NR_close, nr);
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

void restore_fill_begin(struct restore *r)
{
	const struct guest_access *access = r->guest->access;
	size_t i;

	if (!access->fill || r->fill >= 0 || huge_everywhere())
		return;
	r->fill = open_uffd(r);
	if (r->fill < 0) {
		log_debug("pages are cleared before they are written: %s",
			  strerror(-r->fill));
		r->fill = -1;
		return;
	}
	for (i = 0; i < r->maps->n_vmas; i++) {
		const Mspd__Vma *vma = r->maps->vmas[i];
		struct uffdio_register reg = {
			.range = { vma->start, vma->end - vma->start },
			.mode = UFFDIO_REGISTER_MODE_WP,
		};

		/* what cannot be registered is written in the other way */
		if (!vma->file && !vma->space && !vma_is_kernels(vma) &&
		    !(vma->advice & ADVICE_HUGEPAGE))
			ioctl(r->fill, UFFDIO_REGISTER, &reg);
	}
	access->fill(r->guest, r->fill);
}

void restore_fill_end(struct restore *r)
{
	if (r->fill < 0)
		return;
	r->guest->access->fill(r->guest, -1);
	close(r->fill);
	r->fill = -1;
}
