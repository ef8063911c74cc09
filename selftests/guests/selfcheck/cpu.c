// SPDX-License-Identifier: GPL-2.0
/*
 * Registers and thread-local state. A general register and a vector register
 * count in lockstep, so that a snapshot which takes one of them earlier than
 * the other leaves a difference that stays.
 */
#include <sched.h>
#include <sys/syscall.h>

#include "check.h"

/* a burst is as long on any processor, however slow: long enough to be met */
#define BURST_NS (2 * NSEC_PER_MSEC)
#define MIN_STEPS 1000UL
#define MAX_STEPS (1UL << 30)
#define LANES 8

#ifndef __x86_64__
#error "the lockstep counters are written for x86-64"
#endif

struct counts {
	uint64_t general;
	/* lanes of xmm15, ymm13's upper half, zmm29's upper half */
	uint64_t vector[LANES];
	uint64_t kept[5];
	uint64_t x87;
	uint32_t mxcsr, saved_mxcsr;
	uint16_t x87_control, saved_x87_control;
};

/* rounding upwards in both units: not what anybody starts with */
static const uint32_t own_mxcsr = 0x5f80;
static const uint16_t own_x87_control = 0x0b7f;

/*
 * Constants that must survive beside the counters: two general registers, one
 * vector register, the x87 stack and the rounding modes.
 */
#define LOCKSTEP_ENTER \
	"stmxcsr %[saved_mxcsr]\n\t" \
	"fnstcw %[saved_x87cw]\n\t" \
	"ldmxcsr %[own_mxcsr]\n\t" \
	"fldcw %[own_x87cw]\n\t" \
	"movq %[start], %%r12\n\t" \
	"fildll %[start]\n\t" \
	"movq %[key], %%r13\n\t" \
	"movq %%r13, %%r14\n\t" \
	"notq %%r14\n\t" \
	"movq %%r13, %%xmm7\n\t" \
	"movq %%r14, %%xmm6\n\t" \
	"punpcklqdq %%xmm6, %%xmm7\n\t"

#define LOCKSTEP_LEAVE \
	"movq %%r12, %[general]\n\t" \
	"movq %%r13, %[kept]\n\t" \
	"movq %%r14, 8+%[kept]\n\t" \
	"movdqu %%xmm7, 16+%[kept]\n\t" \
	"fistpll %[x87]\n\t" \
	"stmxcsr %[mxcsr]\n\t" \
	"fnstcw %[x87cw]\n\t" \
	"ldmxcsr %[saved_mxcsr]\n\t" \
	"fldcw %[saved_x87cw]\n\t"

#define LOCKSTEP_OPERANDS \
	: [n] "+r"(n), [general] "=m"(c->general), [x87] "=m"(c->x87), \
	  [kept] "=o"(c->kept), [mxcsr] "=m"(c->mxcsr), \
	  [x87cw] "=m"(c->x87_control), [vector] "=o"(c->vector), \
	  [saved_mxcsr] "=m"(c->saved_mxcsr), \
	  [saved_x87cw] "=m"(c->saved_x87_control) \
	: [start] "m"(start), [key] "m"(key), \
	  [own_mxcsr] "m"(own_mxcsr), [own_x87cw] "m"(own_x87_control) \
	: "r12", "r13", "r14", "cc", "memory", "xmm6", "xmm7", "xmm14", \
	  "xmm15", "xmm13", "xmm12"

static void lockstep_sse(struct counts *c, uint64_t start, uint64_t key,
			 uint64_t n)
{
	asm volatile(LOCKSTEP_ENTER
		     "movq %%r12, %%xmm15\n\t"
		     "punpcklqdq %%xmm15, %%xmm15\n\t"
		     "pcmpeqd %%xmm14, %%xmm14\n\t"
		     "1: incq %%r12\n\t"
		     "psubq %%xmm14, %%xmm15\n\t"
		     "decq %[n]\n\t"
		     "jnz 1b\n\t"
		     "movdqu %%xmm15, %[vector]\n\t"
		     LOCKSTEP_LEAVE
		     LOCKSTEP_OPERANDS);
}

__attribute__((target("avx2")))
static void lockstep_avx2(struct counts *c, uint64_t start, uint64_t key,
			  uint64_t n)
{
	asm volatile(LOCKSTEP_ENTER
		     "movq %%r12, %%xmm15\n\t"
		     "vpbroadcastq %%xmm15, %%ymm15\n\t"
		     "vmovdqa %%ymm15, %%ymm13\n\t"
		     "vpcmpeqd %%ymm14, %%ymm14, %%ymm14\n\t"
		     "1: incq %%r12\n\t"
		     "vpsubq %%xmm14, %%xmm15, %%xmm15\n\t"
		     "vpsubq %%ymm14, %%ymm13, %%ymm13\n\t"
		     "decq %[n]\n\t"
		     "jnz 1b\n\t"
		     "vextracti128 $1, %%ymm13, %%xmm12\n\t"
		     "vmovdqu %%xmm15, %[vector]\n\t"
		     "vmovdqu %%xmm12, 16+%[vector]\n\t"
		     LOCKSTEP_LEAVE
		     LOCKSTEP_OPERANDS);
}

__attribute__((target("avx512f,avx512bw")))
static void lockstep_avx512(struct counts *c, uint64_t start, uint64_t key,
			    uint64_t n)
{
	asm volatile(LOCKSTEP_ENTER
		     "vpbroadcastq %%r12, %%zmm29\n\t"
		     "vmovdqa64 %%ymm29, %%ymm13\n\t"
		     "vmovdqa %%xmm13, %%xmm15\n\t"
		     "vpternlogd $0xff, %%zmm28, %%zmm28, %%zmm28\n\t"
		     "vmovdqa64 %%ymm28, %%ymm14\n\t"
		     "kmovq %%r13, %%k5\n\t"
		     "1: incq %%r12\n\t"
		     "vpsubq %%xmm14, %%xmm15, %%xmm15\n\t"
		     "vpsubq %%ymm14, %%ymm13, %%ymm13\n\t"
		     "vpsubq %%zmm28, %%zmm29, %%zmm29\n\t"
		     "decq %[n]\n\t"
		     "jnz 1b\n\t"
		     "kmovq %%k5, 32+%[kept]\n\t"
		     "vextracti128 $1, %%ymm13, %%xmm12\n\t"
		     "vmovdqu %%xmm15, %[vector]\n\t"
		     "vmovdqu %%xmm12, 16+%[vector]\n\t"
		     "vextracti64x4 $1, %%zmm29, 32+%[vector]\n\t"
		     LOCKSTEP_LEAVE
		     LOCKSTEP_OPERANDS, "xmm28", "xmm29", "k5");
}

void vector_run(struct worker *w)
{
	void (*lockstep)(struct counts *c, uint64_t start, uint64_t key,
			 uint64_t n) = lockstep_sse;
	uint64_t total = 0, steps = MIN_STEPS, key, started, took;
	unsigned int lanes = 2, i;
	bool opmask = false;
	struct counts c = { 0 };

	if (__builtin_cpu_supports("avx512bw")) {
		lockstep = lockstep_avx512;
		lanes = 8;
		opmask = true;
	} else if (__builtin_cpu_supports("avx2")) {
		lockstep = lockstep_avx2;
		lanes = 4;
	}

	while (tick(w)) {
		key = prng_next(&w->prng);
		started = checked_now(w);
		lockstep(&c, total, key, steps);
		took = checked_now(w) - started;

		if (c.general != total + steps)
			fail(w, "r12 counted to %llu, the loop to %llu",
			     (unsigned long long)c.general,
			     (unsigned long long)(total + steps));
		for (i = 0; i < lanes; i++) {
			if (c.vector[i] == c.general)
				continue;
			fail(w, "r12 is %llu, vector lane %u is %llu",
			     (unsigned long long)c.general, i,
			     (unsigned long long)c.vector[i]);
		}
		if (c.kept[0] != key || c.kept[1] != ~key)
			fail(w, "r13 or r14 changed");
		if (c.kept[2] != key || c.kept[3] != ~key)
			fail(w, "xmm7 changed");
		if (opmask && c.kept[4] != key)
			fail(w, "k5 changed");
		if (c.x87 != total)
			fail(w, "st0 changed");
		/* sticky exception flags are not ours to expect */
		if ((c.mxcsr & ~0x3fU) != own_mxcsr ||
		    c.x87_control != own_x87_control)
			fail(w, "rounding modes changed: mxcsr %x, x87 %x",
			     c.mxcsr, c.x87_control);
		total += steps;
		if (took < BURST_NS && steps < MAX_STEPS)
			steps += steps / 4;
		else if (took > 2 * BURST_NS && steps > MIN_STEPS)
			steps -= steps / 4;
		pace(w, 2 * BURST_NS);
	}
}

/* ---- thread-local storage, thread identity and errno ---- */

#define TLS_WORDS 700

static __thread uint64_t tls_words[TLS_WORDS];

static int provoke(bool bad_descriptor)
{
	char c;

	if (bad_descriptor) {
		(void)!read(-1, &c, 1);
		return EBADF;
	}
	(void)!open("/nonexistent/selfcheck", O_RDONLY);
	return ENOENT;
}

void tls_run(struct worker *w)
{
	uint64_t generation = 0;
	unsigned int i;
	int wanted, got;

	while (tick(w)) {
		for (i = 0; i < TLS_WORDS; i++) {
			if (generation &&
			    tls_words[i] != mix64_pair(w->index, generation + i)) {
				fail(w, "thread-local word %u at %p is wrong", i,
				     (void *)&tls_words[i]);
				break;
			}
		}
		generation++;
		for (i = 0; i < TLS_WORDS; i++)
			tls_words[i] = mix64_pair(w->index, generation + i);

		if (!pthread_equal(pthread_self(), w->thread))
			fail(w, "pthread_self() changed");
		if ((pid_t)syscall(SYS_gettid) != w->tid)
			fail(w, "thread ID is %ld, was %d",
			     (long)syscall(SYS_gettid), w->tid);

		wanted = provoke((generation + w->check->arg) % 2);
		/* others run, and fail in their own ways, in between */
		sched_yield();
		for (i = 0; i < 2000; i++)
			asm volatile("pause");
		got = errno;
		if (got != wanted)
			fail(w, "errno is %s, expected %s", strerrorname_np(got),
			     strerrorname_np(wanted));
		pace(w, 3 * NSEC_PER_MSEC);
	}
}
