// SPDX-License-Identifier: GPL-2.0
/*
 * Registers in the records are those of the moment of the suspend: a general
 * and a vector register that count in lockstep are at most one step apart, and
 * a restartable sequence that was interrupted goes on at its abort handler.
 */
#include <elf.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/rseq.h>
#include <sys/user.h>

#include "vasi_test.h"

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE	0x202
#endif

#define THREADS		4
#define ROUNDS		40
#define XSAVE_XMM15	(160 + 15 * 16)

static struct page {
	int tid[THREADS];
	uint64_t self[THREADS];
	uint64_t aborts;
} *page;

static void *lockstep(void *arg)
{
	long i = (long)arg;

	page->self[i] = (uint64_t)pthread_self();
	__atomic_store_n(&page->tid[i], gettid(), __ATOMIC_RELEASE);
	asm volatile("xor %%r12, %%r12\n\t"
		     "movq %%r12, %%xmm15\n"
		     "1:\n\t"
		     "inc %%r12\n\t"
		     "movq %%r12, %%xmm15\n\t"
		     "jmp 1b"
		     : : : "r12", "xmm15");
	return NULL;
}

static void lockstep_guest(void)
{
	pthread_t t;
	long i;

	for (i = 0; i < THREADS; i++)
		must(!pthread_create(&t, NULL, lockstep, (void *)i));
	for (;;)
		pause();
}

static void test_lockstep(void)
{
	int fd, i, j, reads = 0, stale = 0, stuck = 0, foreign = 0;
	uint64_t last[THREADS] = {};
	pid_t pid = fork_guest();

	if (!pid)
		lockstep_guest();
	for (i = 0; i < THREADS; i++)
		must(wait_until(__atomic_load_n(&page->tid[i],
						__ATOMIC_ACQUIRE)));
	fd = attach(pid);
	for (j = 0; j < ROUNDS; j++) {
		size_t len, regs_len, xs_len;
		void *buf;

		sleep_ms(12);
		must(!suspend(fd));
		must(!get_state(fd, &buf, &len));
		for (i = 0; i < THREADS; i++) {
			struct user_regs_struct *regs;
			uint64_t xmm;
			char *xs;

			regs = find_record(buf, len, VASI_REC_REGSET,
					   page->tid[i], NT_PRSTATUS, &regs_len);
			xs = find_record(buf, len, VASI_REC_REGSET,
					 page->tid[i], NT_X86_XSTATE, &xs_len);
			must(regs && regs_len == sizeof(*regs));
			must(xs && xs_len > 576);
			memcpy(&xmm, xs + XSAVE_XMM15, sizeof(xmm));
			reads++;
			stale += regs->r12 - xmm > 1;
			foreign += regs->fs_base != page->self[i];
			/* two processors for four threads: most have moved */
			stuck += regs->r12 <= last[i];
			last[i] = regs->r12;
		}
		free(buf);
		must(!resume(fd));
	}
	ok(reads == THREADS * ROUNDS && !stale, "%d of %d reads are stale",
	   stale, reads);
	ok(stuck < reads / 2, "threads run in between (%d of %d did not)",
	   stuck, reads);
	ok(!foreign, "fs_base is the thread's own");
	close(fd);
	end_guest(pid);
}

/*
 * A critical section that never ends by itself. Whenever it is aborted it is
 * entered again. In r13 and r14: its first address and the abort handler.
 */
static void rseq_guest(void)
{
	char *tp = __builtin_thread_pointer();
	struct rseq *area = (void *)(tp + __rseq_offset);

	asm volatile(
		".pushsection .data.rel, \"aw\"\n\t"
		".balign 32\n"
		"9:\n\t"
		".long 0, 0\n\t"
		".quad 2f, 3f - 2f, 4f\n\t"
		".popsection\n\t"
		"lea 2f(%%rip), %%r13\n\t"
		"lea 4f(%%rip), %%r14\n\t"
		"xor %%r12, %%r12\n"
		"1:\n\t"
		"lea 9b(%%rip), %%rax\n\t"
		"mov %%rax, %[cs]\n"
		"2:\n\t"
		"inc %%r12\n\t"
		"jmp 2b\n"
		"3:\n\t"
		"ud2\n\t"
		".long 0x53053053\n"
		"4:\n\t"
		"incq %[aborts]\n\t"
		"jmp 1b"
		: [cs] "=m" (area->rseq_cs), [aborts] "+m" (page->aborts)
		: : "rax", "r12", "r13", "r14", "memory");
	__builtin_unreachable();
}

static void test_rseq(void)
{
	int fd, i, caught = 0, wrong = 0;
	pid_t pid = fork_guest();

	if (!pid)
		rseq_guest();
	fd = attach(pid);
	for (i = 0; i < 20; i++) {
		struct user_regs_struct *regs;
		struct vasi_rec_thread *t;
		uint64_t aborts;
		size_t len;
		void *buf;

		sleep_ms(5);
		must(!suspend(fd));
		must(!get_state(fd, &buf, &len));
		t = find_record(buf, len, VASI_REC_THREAD, pid, -1, NULL);
		regs = find_record(buf, len, VASI_REC_REGSET, pid, NT_PRSTATUS,
				   NULL);
		must(t && regs);
		if (t->rseq_abort) {
			caught++;
			wrong += regs->rip != regs->r14;
		} else {
			/* then it is not inside */
			wrong += regs->rip >= regs->r13 &&
				 regs->rip < regs->r13 + 5;
		}
		aborts = page->aborts;
		free(buf);
		must(!resume(fd));
		/* what the record says is what happens here as well */
		must(wait_until(page->aborts != aborts || !caught));
	}
	ok(caught > 0 && !wrong,
	   "caught inside a critical section %d of 20 times, %d wrong", caught,
	   wrong);
	close(fd);
	end_guest(pid);
}

int main(void)
{
	page = shared_memory(sizeof(*page));
	test_lockstep();
	if (__rseq_size)
		test_rseq();
	else
		ok(true, "critical sections # SKIP libc did not register rseq");
	return tap_end();
}
