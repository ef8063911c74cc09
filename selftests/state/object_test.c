// SPDX-License-Identifier: GPL-2.0
/*
 * Memory objects on the target, from one list of mappings to the next
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/vasi.h>
#include "state/maps.h"
#include "state/restore.h"
#include "tap.h"

#define BYTES	(3 * MAPS_PAGE)

static struct restore r;
static Mspd__Object object = MSPD__OBJECT__INIT;

static Mspd__Maps *list(size_t n)
{
	static Mspd__Object *v[] = { &object };
	static Mspd__Maps maps;

	mspd__maps__init(&maps);
	maps.n_objects = n;
	maps.objects = v;
	return &maps;
}

static void fill(void)
{
	char data[BYTES];

	memset(data, 'x', sizeof(data));
	must(pwrite(restore_object_fd(&r, 1), data, BYTES, 0) == BYTES);
}

static bool empty(void)
{
	char data[BYTES];

	must(pread(restore_object_fd(&r, 1), data, BYTES, 0) == BYTES);
	for (size_t i = 0; i < BYTES; i++)
		if (data[i])
			return false;
	return true;
}

static void test_comes_back(void)
{
	must(!maps_apply(&r, list(1)));
	fill();
	must(!maps_apply(&r, list(1)));
	ok(!empty(), "an object that stays keeps its content");
	must(!maps_apply(&r, list(0)));
	must(!maps_apply(&r, list(1)));
	ok(empty(), "one that was away comes back empty");
}

static void test_size(void)
{
	Mspd__Image final = MSPD__IMAGE__INIT;
	struct stat st;

	object.bytes = 2 * MAPS_PAGE + 5;
	object.has_seals = 1;
	object.seals = F_SEAL_SHRINK | F_SEAL_GROW;
	final.maps = list(1);
	must(!maps_apply(&r, final.maps));
	fill();
	must(!maps_finish(&r, &final) && !fstat(restore_object_fd(&r, 1), &st));
	ok((uint64_t)st.st_size == object.bytes,
	   "its size is not that of whole pages (%lld)",
	   (long long)st.st_size);
	ok(fcntl(restore_object_fd(&r, 1), F_GET_SEALS) == (int)object.seals,
	   "and is sealed");
}

int main(void)
{
	object.space = 1;
	object.bytes = BYTES;
	object.flags = VASI_OBJECT_MEMFD;
	test_comes_back();
	test_size();
	maps_free(r.maps);
	close(r.objects[0].fd);
	free(r.objects);
	return tap_end();
}
