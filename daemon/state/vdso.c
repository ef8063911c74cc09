// SPDX-License-Identifier: GPL-2.0
/*
 * The vDSO: code and clock data that a kernel gives its processes
 *
 * Between equal kernels the target's own is moved to where the guest had it.
 * Else the guest's stays as plain memory whose functions are system calls; the
 * data pages in front of it read as zero, which its code takes for "no clock
 * here, ask the kernel". Such a guest keeps it for all further moves.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "lib/cleanup.h"
#include "state/maps.h"
#include "state/process.h"
#include "state/vdso_stub.h"

#define VDSO_MAX_BYTES	(64UL << 10)

static const enum vma_special parts[] = {
	VMA_VDSO, VMA_VVAR, VMA_VVAR_VCLOCK,
};

static int read_memory(pid_t pid, const Mspd__Vma *vma, uint8_t **ret,
		       size_t *ret_len)
{
	const size_t len = vma->end - vma->start;
	_cleanup_free_ uint8_t *buf = NULL;
	struct iovec local, remote = { (void *)vma->start, len };

	if (len > VDSO_MAX_BYTES)
		return -EFBIG;
	buf = malloc(len);
	if (!buf)
		return -ENOMEM;
	local = (struct iovec){ buf, len };
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)len)
		return errno ? -errno : -EIO;
	*ret = steal_ptr(&buf);
	*ret_len = len;
	return 0;
}

static int vdso_capture(struct capture *c, enum capture_when when,
			Mspd__Image *img)
{
	const Mspd__Vma *vma = maps_special(img->maps, VMA_VDSO);

	if (!vma || when != CAPTURE_EARLY)
		return 0;
	img->process->has_vdso_pages = 1;
	return read_memory(c->pid, vma, &img->process->vdso_pages.data,
			   &img->process->vdso_pages.len);
}

static bool same_place(const Mspd__Maps *a, const Mspd__Maps *b,
		       enum vma_special what)
{
	const Mspd__Vma *va = maps_special(a, what), *vb;
	const uint64_t da = maps_special(a, VMA_VDSO)->start;
	const uint64_t db = maps_special(b, VMA_VDSO)->start;

	vb = maps_special(b, what);
	if (!va || !vb)
		return va == vb;
	return va->end - va->start == vb->end - vb->start &&
	       va->start - da == vb->start - db;
}

/* Is the shell's vDSO what the guest had? */
static bool same_vdso(struct restore *r, const Mspd__Image *early,
		      const Mspd__Maps *shell)
{
	const ProtobufCBinaryData *theirs = &early->process->vdso_pages;
	const Mspd__Vma *vma = maps_special(shell, VMA_VDSO);
	_cleanup_free_ uint8_t *ours = NULL;
	size_t i, len;

	if (!vma || !maps_special(early->maps, VMA_VDSO))
		return false;
	for (i = 0; i < ARRAY_SIZE(parts); i++)
		if (!same_place(early->maps, shell, parts[i]))
			return false;
	if (read_memory(r->ns.pid, vma, &ours, &len))
		return false;
	return len == theirs->len && !memcmp(ours, theirs->data, len);
}

/* all parts by the way of a hole: old and new places may overlap */
static int move_vdso(struct restore *r, const Mspd__Maps *from,
		     const Mspd__Maps *to)
{
	const Mspd__Maps *lists[] = { from, to };
	struct remote_call calls[2 * ARRAY_SIZE(parts)] = {};
	const uint64_t vdso = maps_special(from, VMA_VDSO)->start;
	uint64_t low = vdso, high = 0, hole;
	size_t i, j, n = 0;
	int err;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		const Mspd__Vma *vma = maps_special(from, parts[i]);

		if (!vma)
			continue;
		low = vma->start < low ? vma->start : low;
		high = vma->end > high ? vma->end : high;
	}
	hole = maps_hole(lists, ARRAY_SIZE(lists),
			 r->remote.base + (1UL << 20), high - low);
	if (!hole)
		return -ENOMEM;
	for (j = 0; j < 2; j++) {
		for (i = 0; i < ARRAY_SIZE(parts); i++) {
			const Mspd__Vma *vma = maps_special(from, parts[i]);
			const Mspd__Vma *end = maps_special(to, parts[i]);
			uint64_t len;

			if (!vma)
				continue;
			len = vma->end - vma->start;
			calls[n].nr = __NR_mremap;
			calls[n].arg[0] = j ? hole + (vma->start - low) :
					      vma->start;
			calls[n].arg[1] = len;
			calls[n].arg[2] = len;
			calls[n].arg[3] = MREMAP_MAYMOVE | MREMAP_FIXED;
			calls[n].arg[4] = j ? end->start :
					      hole + (vma->start - low);
			n++;
		}
	}
	err = remote_batch(&r->remote, 0, calls, n);
	for (i = 0; i < n && !err; i++)
		if ((uint64_t)calls[i].ret != calls[i].arg[4])
			err = calls[i].ret < 0 ? (int)calls[i].ret : -EIO;
	return err;
}

int vdso_place(struct restore *r, const Mspd__Image *early,
	       const Mspd__Maps *shell)
{
	size_t i;
	int err = 0;

	if (same_vdso(r, early, shell))
		return move_vdso(r, shell, early->maps);
	r->vdso_foreign = maps_special(early->maps, VMA_VDSO);
	for (i = 0; i < ARRAY_SIZE(parts) && !err; i++) {
		const Mspd__Vma *vma = maps_special(shell, parts[i]);

		if (vma)
			err = (int)remote_call(&r->remote, 0, __NR_munmap,
					       vma->start,
					       vma->end - vma->start);
	}
	return err;
}

static int map_plain(struct restore *r, const Mspd__Vma *vma, int prot)
{
	long got;

	if (!vma)
		return 0;
	got = remote_call(&r->remote, 0, __NR_mmap, vma->start,
			  vma->end - vma->start, prot,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			  -1, 0);
	return got < 0 ? (int)got : 0;
}

static int vdso_prepare(struct restore *r, const Mspd__Image *early)
{
	const ProtobufCBinaryData *pages = &early->process->vdso_pages;
	const Mspd__Vma *vma = maps_special(early->maps, VMA_VDSO);
	_cleanup_free_ uint8_t *image = NULL;
	struct iovec local, remote;
	int err;

	if (!r->vdso_foreign)
		return 0;
	if (pages->len != vma->end - vma->start)
		return -EPROTO;
	image = malloc(pages->len);
	if (!image)
		return -ENOMEM;
	memcpy(image, pages->data, pages->len);
	err = vdso_stub(image, pages->len);
	if (err < 0)
		return restore_fail(r, err, "vdso.image", "",
				    "the source's vDSO is not understood");
	err = map_plain(r, vma, PROT_READ | PROT_WRITE);
	if (!err)
		err = map_plain(r, maps_special(early->maps, VMA_VVAR),
				PROT_READ);
	if (!err)
		err = map_plain(r, maps_special(early->maps, VMA_VVAR_VCLOCK),
				PROT_READ);
	if (err)
		return restore_fail(r, err, "vdso.map", "",
				    "cannot map the source's vDSO: %s",
				    strerror(-err));
	local = (struct iovec){ image, pages->len };
	remote = (struct iovec){ (void *)vma->start, pages->len };
	if (process_vm_writev(r->ns.pid, &local, 1, &remote, 1, 0) !=
	    (ssize_t)pages->len)
		return -errno;
	return (int)remote_call(&r->remote, 0, __NR_mprotect, vma->start,
				pages->len, PROT_READ | PROT_EXEC);
}

/*
 * A thread in the middle of a function of the vDSO would run what is left of
 * it. It is out of it the next time that the guest is suspended.
 */
static int vdso_finish(struct restore *r, const Mspd__Image *final)
{
	const Mspd__Vma *vma = maps_special(final->maps, VMA_VDSO);
	size_t i, j;

	if (!r->vdso_foreign || !vma)
		return 0;
	for (i = 0; i < final->n_threads; i++) {
		const Mspd__Thread *t = final->threads[i];

		for (j = 0; j < t->n_regsets; j++) {
			struct user_regs_struct regs;
			char object[32];

			if (t->regsets[j]->note != 1 /* NT_PRSTATUS */ ||
			    t->regsets[j]->data.len != sizeof(regs))
				continue;
			memcpy(&regs, t->regsets[j]->data.data, sizeof(regs));
			if (regs.rip < vma->start || regs.rip >= vma->end)
				continue;
			snprintf(object, sizeof(object), "thread %d", t->tid);
			return restore_fail(r, -EAGAIN, "vdso.thread", object,
					    "is inside the vDSO of the other kernel: try again");
		}
	}
	return 0;
}

const struct resource resource_vdso = {
	.name = "vdso",
	.capture = vdso_capture,
	.prepare = vdso_prepare,
	.finish = vdso_finish,
};
