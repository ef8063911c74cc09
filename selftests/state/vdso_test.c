// SPDX-License-Identifier: GPL-2.0
/*
 * A vDSO away from its kernel: its functions still answer, by system calls
 *
 * The copy has no data pages before it, so a function that was left as it is
 * would fault.
 */
#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "state/vdso_stub.h"
#include "tap.h"

#define PAGE 4096UL

static uint8_t *vdso;
static size_t vdso_len;

static bool find_vdso(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (!strstr(line, "[vdso]") ||
		    sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		vdso = (uint8_t *)start;
		vdso_len = end - start;
	}
	if (f)
		fclose(f);
	return vdso;
}

static void *function(uint8_t *image, const char *name)
{
	const Elf64_Ehdr *eh = (const void *)image;
	const Elf64_Shdr *sh = (const void *)(image + eh->e_shoff);
	size_t i, j;

	for (i = 0; i < eh->e_shnum; i++) {
		const Elf64_Sym *sym = (const void *)(image + sh[i].sh_offset);
		const char *names;

		if (sh[i].sh_type != SHT_DYNSYM)
			continue;
		names = (const char *)image + sh[sh[i].sh_link].sh_offset;
		for (j = 0; j < sh[i].sh_size / sizeof(*sym); j++)
			if (!strcmp(names + sym[j].st_name, name))
				return image + sym[j].st_value;
	}
	return NULL;
}

static int64_t ns(const struct timespec *ts)
{
	return ts->tv_sec * 1000000000LL + ts->tv_nsec;
}

static void test_calls(uint8_t *image)
{
	int (*gettime)(clockid_t, struct timespec *) =
		function(image, "__vdso_clock_gettime");
	int (*getres)(clockid_t, struct timespec *) =
		function(image, "__vdso_clock_getres");
	int (*gettod)(struct timeval *, void *) =
		function(image, "__vdso_gettimeofday");
	time_t (*seconds)(time_t *) = function(image, "__vdso_time");
	int (*cpu)(unsigned int *, unsigned int *, void *) =
		function(image, "__vdso_getcpu");
	ssize_t (*random)(void *, size_t, unsigned int, void *, size_t) =
		function(image, "__vdso_getrandom");
	struct timespec a, b, c;
	unsigned int on = ~0U;
	struct timeval tv = {};
	uint64_t word = 0;

	clock_gettime(CLOCK_MONOTONIC, &a);
	ok(!gettime(CLOCK_MONOTONIC, &b) && !clock_gettime(CLOCK_MONOTONIC, &c)
	   && ns(&a) <= ns(&b) && ns(&b) <= ns(&c), "clock_gettime");
	ok(gettime(-1, &b) == -EINVAL, "clock_gettime gives the kernel's error");
	ok(!getres(CLOCK_MONOTONIC, &b) && ns(&b) > 0, "clock_getres");
	ok(!gettod(&tv, NULL) && labs(tv.tv_sec - time(NULL)) < 5,
	   "gettimeofday");
	ok(labs(seconds(NULL) - time(NULL)) < 5, "time");
	ok(!cpu(&on, NULL, NULL) && on < (unsigned int)sysconf(
		_SC_NPROCESSORS_CONF), "getcpu");
	if (!random)
		return;
	ok(random(&word, sizeof(word), 0, NULL, 0) == sizeof(word) && word,
	   "getrandom");
	ok(random(NULL, 0, 0, &word, ~0UL) == -ENOSYS,
	   "getrandom has no state here");
}

int main(void)
{
	uint8_t *area, *image, junk[PAGE] = { 0x7f, 'E', 'L', 'F' };
	int n;

	if (!find_vdso()) {
		printf("1..0 # SKIP no vDSO\n");
		return 4;
	}
	/* nothing but PROT_NONE where its data pages would be */
	area = mmap(NULL, vdso_len + 16 * PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(area != MAP_FAILED);
	image = area + 16 * PAGE;
	must(!mprotect(image, vdso_len, PROT_READ | PROT_WRITE));
	memcpy(image, vdso, vdso_len);
	n = vdso_stub(image, vdso_len);
	ok(n >= 5, "%d functions are replaced", n);
	must(!mprotect(image, vdso_len, PROT_READ | PROT_EXEC));
	test_calls(image);

	ok(vdso_stub(junk, sizeof(junk)) == -EPROTO &&
	   vdso_stub(junk, 16) == -EPROTO, "what is no vDSO is refused");
	memcpy(junk, vdso, sizeof(junk));
	((Elf64_Ehdr *)junk)->e_shoff = ~7ULL;
	ok(vdso_stub(junk, sizeof(junk)) == -EPROTO,
	   "a table outside of the image is refused");
	return tap_end();
}
