// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include "lib/cleanup.h"
#include "session/known.h"
#include "state/maps.h"

static uint64_t object_end(const Mspd__Object *o)
{
	return (o->bytes + MAPS_PAGE - 1) & ~(uint64_t)(MAPS_PAGE - 1);
}

/* what is no longer listed is emptied there, and what shrinks loses its end */
static void follow_object(struct pagemap *known, const Mspd__Object *o,
			  const Mspd__Maps *to)
{
	uint64_t left = 0;

	for (size_t i = 0; i < to->n_objects; i++)
		if (to->objects[i]->space == o->space)
			left = object_end(to->objects[i]);
	if (left < object_end(o))
		pagemap_clear(known, o->space, left, object_end(o));
}

static int tell_lost(struct pagemap *known, uint64_t start, uint64_t end,
		     known_lost *lost, void *arg)
{
	uint64_t from, to;
	int ret = 0;

	while (!ret && start < end &&
	       pagemap_run(known, 0, start, end, true, &from, &to)) {
		ret = lost(arg, from, to);
		start = to;
	}
	return ret;
}

/*
 * What the target maps anew has no content yet, even where there was some at
 * the same address: it is taken from the very list of changes it will make.
 */
int known_follow(struct pagemap *known, const Mspd__Maps *from,
		 const Mspd__Maps *to, known_lost *lost, void *arg)
{
	_cleanup_free_ struct map_change *v = NULL;
	size_t n;
	int ret;

	if (!from)
		return 0;
	ret = maps_diff(from, to, &v, &n);
	if (ret)
		return ret;
	for (size_t i = 0; i < n && !ret; i++) {
		if (v[i].op != MAP_OP_UNMAP)
			continue;
		if (lost)
			ret = tell_lost(known, v[i].start, v[i].end, lost, arg);
		pagemap_clear(known, 0, v[i].start, v[i].end);
	}
	if (ret)
		return ret;
	for (size_t i = 0; i < from->n_objects; i++)
		follow_object(known, from->objects[i], to);
	return 0;
}

int known_keeps(const Mspd__Maps *from, const Mspd__Maps *to)
{
	_cleanup_free_ struct map_change *v = NULL;
	size_t n = 0;
	int ret = from ? maps_diff(from, to, &v, &n) : -EPROTO;

	for (size_t i = 0; i < n && !ret; i++)
		if (v[i].op == MAP_OP_UNMAP || v[i].op == MAP_OP_MAP)
			ret = -EPROTO;
	return ret;
}
