// SPDX-License-Identifier: GPL-2.0
/*
 * A vDSO that has left its kernel: each function becomes its system call
 */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include "lib/cleanup.h"
#include "state/vdso_stub.h"

static const struct function {
	const char *name;
	uint32_t nr;
} functions[] = {
	{ "__vdso_clock_gettime", __NR_clock_gettime },
	{ "__vdso_gettimeofday", __NR_gettimeofday },
	{ "__vdso_time", __NR_time },
	{ "__vdso_getcpu", __NR_getcpu },
	{ "__vdso_clock_getres", __NR_clock_getres },
	{ "__vdso_getrandom", __NR_getrandom },
};

/* mov $nr, %eax; syscall; ret */
static const uint8_t plain[] = { 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3 };

/*
 * getrandom with an opaque length (r8) of -1 asks for the size of the state,
 * which the system call does not know: say ENOSYS, so that the caller goes on
 * without.
 *	cmp $-1, %r8; je 1f; mov $nr, %eax; syscall; ret
 * 1:	mov $-ENOSYS, %rax; ret
 */
static const uint8_t random_stub[] = {
	0x49, 0x83, 0xf8, 0xff, 0x74, 0x08,
	0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3,
	0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3,
};

struct symbols {
	const Elf64_Sym *sym;
	size_t n;
	const char *names;
	size_t names_len;
};

static bool inside(uint64_t at, uint64_t bytes, size_t len)
{
	return at <= len && bytes <= len - at;
}

static int find_symbols(const uint8_t *image, size_t len, struct symbols *ret)
{
	const Elf64_Ehdr *eh = (const void *)image;
	const Elf64_Shdr *sh;
	size_t i;

	if (len < sizeof(*eh) || memcmp(eh->e_ident, ELFMAG, SELFMAG) ||
	    eh->e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh->e_shentsize != sizeof(*sh) || eh->e_shoff % 8 ||
	    !inside(eh->e_shoff, (uint64_t)eh->e_shnum * sizeof(*sh), len))
		return -EPROTO;
	sh = (const void *)(image + eh->e_shoff);
	for (i = 0; i < eh->e_shnum; i++) {
		const Elf64_Shdr *str;

		if (sh[i].sh_type != SHT_DYNSYM)
			continue;
		if (sh[i].sh_link >= eh->e_shnum || sh[i].sh_offset % 8 ||
		    !inside(sh[i].sh_offset, sh[i].sh_size, len))
			return -EPROTO;
		str = &sh[sh[i].sh_link];
		if (!inside(str->sh_offset, str->sh_size, len) ||
		    !str->sh_size || image[str->sh_offset + str->sh_size - 1])
			return -EPROTO;
		ret->sym = (const void *)(image + sh[i].sh_offset);
		ret->n = sh[i].sh_size / sizeof(*ret->sym);
		ret->names = (const char *)image + str->sh_offset;
		ret->names_len = str->sh_size;
		return 0;
	}
	return -EPROTO;
}

static bool patch(uint8_t *image, size_t len, const Elf64_Sym *sym, uint32_t nr)
{
	const bool random = nr == __NR_getrandom;
	const uint8_t *code = random ? random_stub : plain;
	const size_t bytes = random ? sizeof(random_stub) : sizeof(plain);
	uint8_t *to = image + sym->st_value;

	if (!inside(sym->st_value, bytes, len) || sym->st_size < bytes)
		return false;
	memcpy(to, code, bytes);
	memcpy(to + (random ? 7 : 1), &nr, sizeof(nr));
	return true;
}

int vdso_stub(uint8_t *image, size_t len)
{
	struct symbols s;
	size_t i, j;
	int r, n = 0;

	r = find_symbols(image, len, &s);
	if (r)
		return r;
	for (i = 0; i < s.n; i++) {
		if (ELF64_ST_TYPE(s.sym[i].st_info) != STT_FUNC ||
		    s.sym[i].st_name >= s.names_len)
			continue;
		for (j = 0; j < ARRAY_SIZE(functions); j++) {
			if (strcmp(s.names + s.sym[i].st_name,
				   functions[j].name))
				continue;
			if (!patch(image, len, &s.sym[i], functions[j].nr))
				return -EPROTO;
			n++;
		}
	}
	return n;
}
