// SPDX-License-Identifier: GPL-2.0
/*
 * Programs of one page, written out as an ELF file in memory
 */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/shell.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define PAGE 4096

/*
 * remote code: at 0 one call from registers. At remote_table a table of calls:
 * {nr, 6 arguments, result}, r12 points to it, r13 is the number of entries.
 *
 * reaper: names itself, waits for children until there are none.
 */
asm(
"	.pushsection .rodata, \"a\"\n"
"remote_code:\n"
"	syscall\n"
"	int3\n"
"	.balign 8, 0xcc\n"
"remote_table:\n"
"	movq	(%r12), %rax\n"
"	movq	8(%r12), %rdi\n"
"	movq	16(%r12), %rsi\n"
"	movq	24(%r12), %rdx\n"
"	movq	32(%r12), %r10\n"
"	movq	40(%r12), %r8\n"
"	movq	48(%r12), %r9\n"
"	syscall\n"
"	movq	%rax, 56(%r12)\n"
"	addq	$64, %r12\n"
"	decq	%r13\n"
"	jnz	remote_table\n"
"	int3\n"
"remote_code_end:\n"
"reaper_code:\n"
"	movl	$157, %eax\n"		/* prctl(PR_SET_NAME) */
"	movl	$15, %edi\n"
"	leaq	reaper_name(%rip), %rsi\n"
"	syscall\n"
"1:	movl	$61, %eax\n"		/* wait4(-1, NULL, __WALL, NULL) */
"	movq	$-1, %rdi\n"
"	xorl	%esi, %esi\n"
"	movl	$0x40000000, %edx\n"
"	xorl	%r10d, %r10d\n"
"	syscall\n"
"	cmpq	$-10, %rax\n"		/* ECHILD */
"	jne	1b\n"
"	movl	$231, %eax\n"		/* exit_group(0) */
"	xorl	%edi, %edi\n"
"	syscall\n"
"reaper_name:\n"
"	.asciz	\"mspd-reaper\"\n"
"reaper_code_end:\n"
"	.popsection\n");

extern const uint8_t remote_code[], remote_table[], remote_code_end[];
extern const uint8_t reaper_code[], reaper_code_end[];

const size_t remote_code_table = 8;
const size_t remote_code_trapped = 3;

size_t remote_code_copy(void *to)
{
	size_t len = (size_t)(remote_code_end - remote_code);

	memcpy(to, remote_code, len);
	return len;
}

static void elf_headers(uint8_t *page)
{
	Elf64_Ehdr *eh = (Elf64_Ehdr *)page;
	Elf64_Phdr *ph = (Elf64_Phdr *)(page + sizeof(*eh));

	memcpy(eh->e_ident, ELFMAG, SELFMAG);
	eh->e_ident[EI_CLASS] = ELFCLASS64;
	eh->e_ident[EI_DATA] = ELFDATA2LSB;
	eh->e_ident[EI_VERSION] = EV_CURRENT;
	eh->e_type = ET_EXEC;
	eh->e_machine = EM_X86_64;
	eh->e_version = EV_CURRENT;
	eh->e_entry = SHELL_ADDR + SHELL_CODE;
	eh->e_phoff = sizeof(*eh);
	eh->e_ehsize = sizeof(*eh);
	eh->e_phentsize = sizeof(*ph);
	eh->e_phnum = 2;

	ph[0].p_type = PT_LOAD;
	ph[0].p_flags = PF_R | PF_X;
	ph[0].p_vaddr = SHELL_ADDR;
	ph[0].p_paddr = SHELL_ADDR;
	ph[0].p_filesz = PAGE;
	ph[0].p_memsz = PAGE;
	ph[0].p_align = PAGE;

	ph[1].p_type = PT_GNU_STACK;
	ph[1].p_flags = PF_R | PF_W;
}

int shell_memfd(enum shell_program program)
{
	uint8_t page[PAGE] __attribute__((aligned(16))) = {};
	_cleanup_close_ int fd = -1;

	elf_headers(page);
	if (program == SHELL_REAPER)
		memcpy(page + SHELL_CODE, reaper_code,
		       (size_t)(reaper_code_end - reaper_code));
	else
		remote_code_copy(page + SHELL_CODE);

	/* kernels before 6.3 know no MFD_EXEC: their memfds are executable */
	fd = memfd_create("mspd-shell", MFD_CLOEXEC | MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("mspd-shell", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, page, PAGE) != PAGE)
		return -EIO;
	return steal_fd(&fd);
}
