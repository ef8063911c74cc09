// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves of 2 MiB in a hash table with linear probing. The lock is for the
 * table; values within a leaf are exchanged atomically under the read side.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "lib/digest.h"
#include "lib/pagemap.h"

#define LEAF_PAGES	512
#define LEAF_SHIFT	21
#define LEAF_SIZE	(1ULL << LEAF_SHIFT)

struct leaf {
	uint64_t base;
	uint32_t space;
	_Atomic uint64_t value[LEAF_PAGES];
};

struct pagemap {
	pthread_rwlock_t lock;
	struct leaf **table;
	size_t size;		/* a power of two */
	size_t used;
	_Atomic uint64_t sum;
	_Atomic uint64_t pages;
};

struct pagemap *pagemap_new(void)
{
	struct pagemap *pm = calloc(1, sizeof(*pm));

	if (!pm)
		return NULL;
	pm->size = 256;
	pm->table = calloc(pm->size, sizeof(*pm->table));
	if (!pm->table) {
		free(pm);
		return NULL;
	}
	pthread_rwlock_init(&pm->lock, NULL);
	return pm;
}

void pagemap_free(struct pagemap *pm)
{
	if (!pm)
		return;
	for (size_t i = 0; i < pm->size; i++)
		free(pm->table[i]);
	free(pm->table);
	pthread_rwlock_destroy(&pm->lock);
	free(pm);
}

static size_t leaf_hash(uint32_t space, uint64_t base, size_t size)
{
	uint64_t h = ((base >> LEAF_SHIFT) ^ ((uint64_t)space << 40)) *
		     0x9e3779b97f4a7c15ULL;

	return (h >> 32) & (size - 1);
}

static struct leaf **leaf_slot(struct leaf **table, size_t size,
			       uint32_t space, uint64_t base)
{
	size_t i = leaf_hash(space, base, size);

	while (table[i] &&
	       (table[i]->base != base || table[i]->space != space))
		i = (i + 1) & (size - 1);
	return &table[i];
}

static struct leaf *leaf_find(struct pagemap *pm, uint32_t space,
			      uint64_t base)
{
	return *leaf_slot(pm->table, pm->size, space, base);
}

static int table_grow(struct pagemap *pm)
{
	size_t size = pm->size * 2;
	struct leaf **table = calloc(size, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < pm->size; i++) {
		struct leaf *l = pm->table[i];

		if (l)
			*leaf_slot(table, size, l->space, l->base) = l;
	}
	free(pm->table);
	pm->table = table;
	pm->size = size;
	return 0;
}

static int leaf_add(struct pagemap *pm, uint32_t space, uint64_t base)
{
	struct leaf **slot;
	int ret = 0;

	pthread_rwlock_wrlock(&pm->lock);
	if (pm->used * 2 >= pm->size)
		ret = table_grow(pm);
	if (!ret) {
		slot = leaf_slot(pm->table, pm->size, space, base);
		if (!*slot) {
			*slot = calloc(1, sizeof(**slot));
			if (*slot) {
				(*slot)->base = base;
				(*slot)->space = space;
				pm->used++;
			} else {
				ret = -ENOMEM;
			}
		}
	}
	pthread_rwlock_unlock(&pm->lock);
	return ret;
}

/**
 * struct change - what replacing values does to the sums, counted apart so that
 * threads meet at the sums once per leaf and not once per page
 */
struct change {
	uint64_t sum;
	uint64_t pages;
};

static uint64_t value_replace(struct change *c, _Atomic uint64_t *p,
			      uint64_t value)
{
	uint64_t old = atomic_exchange_explicit(p, value,
						memory_order_relaxed);

	c->sum += value - old;
	c->pages += (uint64_t)!!value - !!old;
	return old;
}

static void change_apply(struct pagemap *pm, const struct change *c)
{
	atomic_fetch_add(&pm->sum, c->sum);
	atomic_fetch_add(&pm->pages, c->pages);
}

int pagemap_set(struct pagemap *pm, uint32_t space, uint64_t start,
		size_t pages, const uint64_t *digests, uint64_t *ret_old)
{
	while (pages) {
		uint64_t base = start & ~(LEAF_SIZE - 1);
		size_t first = (start - base) >> GUEST_PAGE_SHIFT;
		size_t n = LEAF_PAGES - first;
		struct change change = { 0 };
		struct leaf *l;
		int ret;

		if (n > pages)
			n = pages;
		pthread_rwlock_rdlock(&pm->lock);
		l = leaf_find(pm, space, base);
		for (size_t i = 0; l && i < n; i++) {
			uint64_t old = value_replace(&change,
						     &l->value[first + i],
						     digests[i]);

			if (ret_old)
				*ret_old++ = old;
		}
		change_apply(pm, &change);
		pthread_rwlock_unlock(&pm->lock);
		if (!l) {
			ret = leaf_add(pm, space, base);
			if (ret)
				return ret;
			continue;
		}
		start += n << GUEST_PAGE_SHIFT;
		digests += n;
		pages -= n;
	}
	return 0;
}

uint64_t pagemap_get(struct pagemap *pm, uint32_t space, uint64_t addr)
{
	uint64_t base = addr & ~(LEAF_SIZE - 1), value = 0;
	struct leaf *l;

	pthread_rwlock_rdlock(&pm->lock);
	l = leaf_find(pm, space, base);
	if (l)
		value = l->value[(addr - base) >> GUEST_PAGE_SHIFT];
	pthread_rwlock_unlock(&pm->lock);
	return value;
}

bool pagemap_run(struct pagemap *pm, uint32_t space, uint64_t start,
		 uint64_t end, bool present, uint64_t *ret_start,
		 uint64_t *ret_end)
{
	uint64_t addr = start, from = 0;
	bool found = false;

	pthread_rwlock_rdlock(&pm->lock);
	while (addr < end) {
		uint64_t base = addr & ~(LEAF_SIZE - 1);
		uint64_t stop = base + LEAF_SIZE < end ? base + LEAF_SIZE : end;
		struct leaf *l = leaf_find(pm, space, base);

		if (stop < addr)	/* the top of the address space */
			stop = end;
		for (; addr < stop; addr += l ? GUEST_PAGE_SIZE : stop - addr) {
			uint64_t v = l ? l->value[(addr - base) >>
						  GUEST_PAGE_SHIFT] : 0;

			if (!!v == present) {
				if (!found)
					from = addr;
				found = true;
			} else if (found) {
				goto out;
			}
		}
	}
out:
	pthread_rwlock_unlock(&pm->lock);
	if (found) {
		*ret_start = from;
		*ret_end = addr;
	}
	return found;
}

void pagemap_clear(struct pagemap *pm, uint32_t space, uint64_t start,
		   uint64_t end)
{
	uint64_t from, to;

	while (pagemap_run(pm, space, start, end, true, &from, &to)) {
		struct change change = { 0 };

		pthread_rwlock_rdlock(&pm->lock);
		for (uint64_t a = from; a < to; a += GUEST_PAGE_SIZE) {
			uint64_t base = a & ~(LEAF_SIZE - 1);
			struct leaf *l = leaf_find(pm, space, base);

			value_replace(&change, &l->value[(a - base) >>
							 GUEST_PAGE_SHIFT], 0);
		}
		change_apply(pm, &change);
		pthread_rwlock_unlock(&pm->lock);
		start = to;
	}
}

uint64_t pagemap_sum(struct pagemap *pm)
{
	return pm->sum;
}

uint64_t pagemap_pages(struct pagemap *pm)
{
	return pm->pages;
}
