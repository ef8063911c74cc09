// SPDX-License-Identifier: GPL-2.0
/*
 * The way from one list of mappings to another
 *
 * What is mapped in both lists with the same backing stays, with its content;
 * what its protection and advice lack is changed. All else is unmapped and
 * mapped anew.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "lib/cleanup.h"
#include "state/maps.h"

#define ONLY_BY_MAP (ADVICE_NORESERVE | ADVICE_ACCOUNTED)
#define THP (ADVICE_HUGEPAGE | ADVICE_NOHUGEPAGE)

struct changes {
	struct map_change *v;
	size_t n, room;
};

bool vma_is_kernels(const Mspd__Vma *vma)
{
	return vma->special >= VMA_VDSO;
}

const Mspd__Vma *maps_find(const Mspd__Maps *maps, uint64_t addr)
{
	size_t low = 0, high = maps->n_vmas;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const Mspd__Vma *vma = maps->vmas[mid];

		if (addr >= vma->end)
			low = mid + 1;
		else if (addr < vma->start)
			high = mid;
		else
			return vma;
	}
	return NULL;
}

const Mspd__Vma *maps_special(const Mspd__Maps *maps, enum vma_special what)
{
	size_t i;

	for (i = 0; i < maps->n_vmas; i++)
		if (maps->vmas[i]->special == what)
			return maps->vmas[i];
	return NULL;
}

int maps_valid(const Mspd__Maps *maps, uint64_t top)
{
	uint64_t at = 0;
	size_t i;

	for (i = 0; i < maps->n_vmas; i++) {
		const Mspd__Vma *vma = maps->vmas[i];

		if (vma->start < at || vma->start >= vma->end ||
		    vma->end > top ||
		    (vma->start | vma->end | vma->offset) % MAPS_PAGE ||
		    vma->special > VMA_VVAR_VCLOCK ||
		    vma->readable % MAPS_PAGE ||
		    vma->readable > (vma->whole ? vma->end - vma->start : 0) ||
		    (vma->prot & ~(uint32_t)(PROT_READ | PROT_WRITE |
					     PROT_EXEC)) ||
		    (vma->advice & ~(uint64_t)ADVICE_ALL))
			return -EPROTO;
		at = vma->end;
	}
	return 0;
}

uint64_t maps_hole(const Mspd__Maps *const *lists, size_t n, uint64_t low,
		   uint64_t len)
{
	uint64_t at = low;
	bool moved;
	size_t i, j;

	do {
		moved = false;
		for (i = 0; i < n; i++) {
			for (j = 0; lists[i] && j < lists[i]->n_vmas; j++) {
				const Mspd__Vma *vma = lists[i]->vmas[j];

				if (vma->start < at + len && vma->end > at) {
					at = vma->end;
					moved = true;
				}
			}
		}
	} while (moved);
	return at + len <= USER_TOP ? at : 0;
}

static bool same_file(const Mspd__FileId *a, const Mspd__FileId *b)
{
	if (!a || !b)
		return a == b;
	return !strcmp(a->path, b->path) && a->size == b->size &&
	       a->mtime_ns == b->mtime_ns && a->deleted == b->deleted;
}

/*
 * Where a file without a name was that has become shorter: its pages are gone,
 * also those that the guest had written. False: nowhere.
 */
static bool cut_off(const Mspd__Vma *old, const Mspd__Vma *vma, uint64_t *ret_from,
		    uint64_t *ret_to)
{
	*ret_from = vma->start + vma->readable;
	*ret_to = old->start + old->readable;
	return old->whole && vma->whole && *ret_from < *ret_to;
}

/* nearest border of what was cut off, if it is before @end */
static uint64_t piece_end(const Mspd__Vma *old, const Mspd__Vma *vma,
			  uint64_t at, uint64_t end)
{
	uint64_t from, to;

	if (!cut_off(old, vma, &from, &to))
		return end;
	if (at < from)
		return from < end ? from : end;
	return at < to && to < end ? to : end;
}

/* does what the old list's @a has at @at serve as the new list's @b? */
static bool same_backing(const Mspd__Vma *a, const Mspd__Vma *b, uint64_t at)
{
	uint64_t from, to;

	if (a->flags != b->flags || a->space != b->space ||
	    a->whole != b->whole || a->readonly != b->readonly ||
	    !same_file(a->file, b->file))
		return false;
	if (cut_off(a, b, &from, &to) && at >= from && at < to)
		return false;
	/* no call takes these away: the mapping was made anew, so its content
	 * is told anew, too
	 */
	if (((a->advice ^ b->advice) & ADVICE_NORESERVE) ||
	    ((a->advice & THP) && !(b->advice & THP)))
		return false;
	if (!a->file && !a->space)
		return true;
	return a->offset - a->start == b->offset - b->start;
}

static int add(struct changes *c, struct map_change change)
{
	if (c->n == c->room) {
		struct map_change *v;

		c->room = c->room ? 2 * c->room : 64;
		v = reallocarray(c->v, c->room, sizeof(*v));
		if (!v)
			return -ENOMEM;
		c->v = v;
	}
	c->v[c->n++] = change;
	return 0;
}

static int add_unmap(struct changes *c, uint64_t start, uint64_t end)
{
	struct map_change *last = c->n ? &c->v[c->n - 1] : NULL;

	/* one call for neighbours: a hole between them would be one, too */
	if (last && last->op == MAP_OP_UNMAP && last->end == start) {
		last->end = end;
		return 0;
	}
	return add(c, (struct map_change){ MAP_OP_UNMAP, start, end, NULL,
					   0, 0 });
}

static int add_map(struct changes *c, uint64_t start, uint64_t end,
		   const Mspd__Vma *vma)
{
	uint32_t advice = (uint32_t)vma->advice & ~ONLY_BY_MAP;
	int r;

	r = add(c, (struct map_change){ MAP_OP_MAP, start, end, vma, 0, 0 });
	if (!r && advice)
		r = add(c, (struct map_change){ MAP_OP_ADVISE, start, end, vma,
						0, advice });
	return r;
}

static int add_kept(struct changes *c, uint64_t start, uint64_t end,
		    const Mspd__Vma *old, const Mspd__Vma *vma)
{
	int r = 0;

	if (old->prot != vma->prot)
		r = add(c, (struct map_change){ MAP_OP_PROTECT, start, end,
						vma, 0, 0 });
	if (!r && ((old->advice ^ vma->advice) & ~(uint64_t)ONLY_BY_MAP))
		r = add(c, (struct map_change){
				MAP_OP_ADVISE, start, end, vma,
				(uint32_t)(old->advice & ~vma->advice) &
				~ONLY_BY_MAP,
				(uint32_t)(vma->advice & ~old->advice) &
				~ONLY_BY_MAP });
	return r;
}

/* index of the first mapping of @maps that ends behind @addr */
static size_t first_behind(const Mspd__Maps *maps, uint64_t addr)
{
	size_t low = 0, high = maps->n_vmas;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (maps->vmas[mid]->end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/*
 * Walks the pieces of @vma by what the other list has there. @unmap: @vma is of
 * the old list, and what does not stay is to go; else it is of the new one.
 */
static int walk(struct changes *c, const Mspd__Vma *vma,
		const Mspd__Maps *other, bool unmap)
{
	uint64_t at = vma->start;
	size_t i = other ? first_behind(other, at) : 0;
	int r = 0;

	while (at < vma->end && !r) {
		const Mspd__Vma *o = other && i < other->n_vmas ?
				     other->vmas[i] : NULL;
		uint64_t end = vma->end;
		bool kept = false;

		if (o && o->start <= at) {
			const Mspd__Vma *old = unmap ? vma : o;
			const Mspd__Vma *new = unmap ? o : vma;

			kept = !vma_is_kernels(o) && same_backing(old, new, at);
			if (o->end < end)
				end = o->end;
			end = piece_end(old, new, at, end);
			i += end == o->end;
		} else if (o && o->start < end) {
			end = o->start;
		}
		if (unmap && !kept)
			r = add_unmap(c, at, end);
		else if (!unmap && kept)
			r = add_kept(c, at, end, o, vma);
		else if (!unmap)
			r = add_map(c, at, end, vma);
		at = end;
	}
	return r;
}

int maps_diff(const Mspd__Maps *from, const Mspd__Maps *to,
	      struct map_change **ret, size_t *ret_n)
{
	struct changes c = {};
	size_t i;
	int r = 0;

	for (i = 0; from && i < from->n_vmas && !r; i++)
		if (!vma_is_kernels(from->vmas[i]))
			r = walk(&c, from->vmas[i], to, true);
	for (i = 0; i < to->n_vmas && !r; i++)
		if (!vma_is_kernels(to->vmas[i]))
			r = walk(&c, to->vmas[i], from, false);
	if (r) {
		free(c.v);
		return r;
	}
	*ret = c.v;
	*ret_n = c.n;
	return 0;
}
