// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include "engine/extents.h"
#include "lib/digest.h"

static int extent_compare(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return 0;
}

static int extents_check(const struct extents *x)
{
	for (size_t i = 0; i < x->n; i++) {
		const struct extent *e = &x->v[i];

		if (e->start % GUEST_PAGE_SIZE || e->end % GUEST_PAGE_SIZE ||
		    e->start >= e->end)
			return -EBADMSG;
		if (i && e[-1].space == e->space && e[-1].end > e->start)
			return -EBADMSG;
	}
	return 0;
}

/* behind the end of a file without a name is nothing */
static int extents_add(struct extents *x, const Mspd__Vma *v)
{
	struct extent e = {
		.start = v->start, .end = v->end, .blank = !v->file,
	};

	if (v->whole) {
		if (v->start >= v->end || v->readable > v->end - v->start)
			return -EBADMSG;
		if (!v->readable)
			return 0;
		e.end = e.start + v->readable;
		e.whole = true;
	}
	x->v[x->n++] = e;
	return 0;
}

int extents_build(struct extents *ret, const Mspd__Maps *maps)
{
	struct extents x = { 0 };
	int err;

	x.v = calloc(maps->n_vmas + maps->n_objects + 1, sizeof(*x.v));
	if (!x.v)
		return -ENOMEM;
	for (size_t i = 0; i < maps->n_vmas; i++) {
		const Mspd__Vma *v = maps->vmas[i];

		/* the kernel's own pages are the target kernel's there;
		 * a shared mapping has its content in its object
		 */
		if (v->special >= VMA_SPECIAL_VDSO || v->space)
			continue;
		err = extents_add(&x, v);
		if (err) {
			free(x.v);
			return err;
		}
	}
	for (size_t i = 0; i < maps->n_objects; i++) {
		const Mspd__Object *o = maps->objects[i];
		uint64_t end = o->bytes + GUEST_PAGE_SIZE - 1;

		end -= end % GUEST_PAGE_SIZE;
		if (!o->space || end < o->bytes) {
			free(x.v);
			return -EBADMSG;
		}
		if (end)
			x.v[x.n++] = (struct extent){
				.end = end, .space = o->space, .blank = true,
			};
	}
	qsort(x.v, x.n, sizeof(*x.v), extent_compare);
	err = extents_check(&x);
	if (err) {
		free(x.v);
		return err;
	}
	*ret = x;
	return 0;
}

void extents_free(struct extents *x)
{
	free(x->v);
	x->v = NULL;
	x->n = 0;
}

/* the first extent that ends behind @addr, or one past the last */
static size_t extents_lower(const struct extents *x, uint32_t space,
			    uint64_t addr)
{
	size_t lo = 0, hi = x->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct extent *e = &x->v[mid];

		if (e->space < space || (e->space == space && e->end <= addr))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct extent *extents_find(const struct extents *x, uint32_t space,
				  uint64_t addr)
{
	size_t i = extents_lower(x, space, addr);

	if (i < x->n && x->v[i].space == space && x->v[i].start <= addr)
		return &x->v[i];
	return NULL;
}

bool extents_cover(const struct extents *x, const struct vasi_range *r)
{
	uint64_t addr = r->start, end = addr + (r->pages << GUEST_PAGE_SHIFT);

	while (addr < end) {
		const struct extent *e = extents_find(x, r->space, addr);

		if (!e)
			return false;
		addr = e->end;
	}
	return true;
}

bool extents_clip(const struct extents *x, const struct vasi_range *r,
		  struct vasi_range *ret)
{
	uint64_t end = r->start + (r->pages << GUEST_PAGE_SHIFT);
	size_t i = extents_lower(x, r->space, r->start);
	uint64_t from, to;

	if (i >= x->n || x->v[i].space != r->space || x->v[i].start >= end)
		return false;
	from = x->v[i].start > r->start ? x->v[i].start : r->start;
	to = x->v[i].end < end ? x->v[i].end : end;
	*ret = *r;
	ret->start = from;
	ret->pages = (to - from) >> GUEST_PAGE_SHIFT;
	return true;
}
