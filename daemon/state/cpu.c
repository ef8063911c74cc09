// SPDX-License-Identifier: GPL-2.0
/*
 * Processor features that a guest may have seen
 *
 * A program looks once, when it starts, and uses what it found for ever. So all
 * that the source's processor has and a program can use must be on the target.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "state/resource.h"

#define XCR0	0

enum reg { EAX, EBX, ECX, EDX };

/* The order is the format: a bit each, new ones at the end only. */
static const struct feature {
	uint32_t leaf, subleaf;
	enum reg reg;
	unsigned int bit;
	const char *name;
} features[] = {
	{ 1, 0, ECX, 0, "sse3" }, { 1, 0, ECX, 1, "pclmulqdq" },
	{ 1, 0, ECX, 9, "ssse3" }, { 1, 0, ECX, 12, "fma" },
	{ 1, 0, ECX, 13, "cx16" }, { 1, 0, ECX, 19, "sse4_1" },
	{ 1, 0, ECX, 20, "sse4_2" }, { 1, 0, ECX, 22, "movbe" },
	{ 1, 0, ECX, 23, "popcnt" }, { 1, 0, ECX, 25, "aes" },
	{ 1, 0, ECX, 26, "xsave" }, { 1, 0, ECX, 27, "osxsave" },
	{ 1, 0, ECX, 28, "avx" }, { 1, 0, ECX, 29, "f16c" },
	{ 1, 0, ECX, 30, "rdrand" },
	{ 1, 0, EDX, 4, "tsc" }, { 1, 0, EDX, 8, "cx8" },
	{ 1, 0, EDX, 15, "cmov" }, { 1, 0, EDX, 19, "clflush" },
	{ 1, 0, EDX, 23, "mmx" }, { 1, 0, EDX, 24, "fxsr" },
	{ 1, 0, EDX, 25, "sse" }, { 1, 0, EDX, 26, "sse2" },
	{ 7, 0, EBX, 0, "fsgsbase" }, { 7, 0, EBX, 3, "bmi1" },
	{ 7, 0, EBX, 4, "hle" }, { 7, 0, EBX, 5, "avx2" },
	{ 7, 0, EBX, 8, "bmi2" }, { 7, 0, EBX, 9, "erms" },
	{ 7, 0, EBX, 11, "rtm" }, { 7, 0, EBX, 14, "mpx" },
	{ 7, 0, EBX, 16, "avx512f" }, { 7, 0, EBX, 17, "avx512dq" },
	{ 7, 0, EBX, 18, "rdseed" }, { 7, 0, EBX, 19, "adx" },
	{ 7, 0, EBX, 21, "avx512ifma" }, { 7, 0, EBX, 23, "clflushopt" },
	{ 7, 0, EBX, 24, "clwb" }, { 7, 0, EBX, 26, "avx512pf" },
	{ 7, 0, EBX, 27, "avx512er" }, { 7, 0, EBX, 28, "avx512cd" },
	{ 7, 0, EBX, 29, "sha_ni" }, { 7, 0, EBX, 30, "avx512bw" },
	{ 7, 0, EBX, 31, "avx512vl" },
	{ 7, 0, ECX, 0, "prefetchwt1" }, { 7, 0, ECX, 1, "avx512_vbmi" },
	{ 7, 0, ECX, 4, "ospke" }, { 7, 0, ECX, 5, "waitpkg" },
	{ 7, 0, ECX, 6, "avx512_vbmi2" }, { 7, 0, ECX, 7, "shstk" },
	{ 7, 0, ECX, 8, "gfni" }, { 7, 0, ECX, 9, "vaes" },
	{ 7, 0, ECX, 10, "vpclmulqdq" }, { 7, 0, ECX, 11, "avx512_vnni" },
	{ 7, 0, ECX, 12, "avx512_bitalg" },
	{ 7, 0, ECX, 14, "avx512_vpopcntdq" }, { 7, 0, ECX, 22, "rdpid" },
	{ 7, 0, ECX, 25, "cldemote" }, { 7, 0, ECX, 27, "movdiri" },
	{ 7, 0, ECX, 28, "movdir64b" },
	{ 7, 0, EDX, 2, "avx512_4vnniw" }, { 7, 0, EDX, 3, "avx512_4fmaps" },
	{ 7, 0, EDX, 4, "fsrm" }, { 7, 0, EDX, 8, "avx512_vp2intersect" },
	{ 7, 0, EDX, 14, "serialize" }, { 7, 0, EDX, 22, "amx_bf16" },
	{ 7, 0, EDX, 23, "avx512_fp16" }, { 7, 0, EDX, 24, "amx_tile" },
	{ 7, 0, EDX, 25, "amx_int8" },
	{ 7, 1, EAX, 0, "sha512" }, { 7, 1, EAX, 1, "sm3" },
	{ 7, 1, EAX, 2, "sm4" }, { 7, 1, EAX, 3, "rao_int" },
	{ 7, 1, EAX, 4, "avx_vnni" }, { 7, 1, EAX, 5, "avx512_bf16" },
	{ 7, 1, EAX, 7, "cmpccxadd" }, { 7, 1, EAX, 10, "fzrm" },
	{ 7, 1, EAX, 11, "fsrs" }, { 7, 1, EAX, 12, "fsrc" },
	{ 7, 1, EAX, 23, "avx_ifma" }, { 7, 1, EDX, 4, "avx_vnni_int8" },
	{ 7, 1, EDX, 5, "avx_ne_convert" }, { 7, 1, EDX, 10, "avx_vnni_int16" },
	{ 7, 1, EDX, 14, "prefetchi" },
	{ 0xd, 1, EAX, 0, "xsaveopt" }, { 0xd, 1, EAX, 1, "xsavec" },
	{ 0xd, 1, EAX, 2, "xgetbv1" },
	{ 0x80000001, 0, ECX, 0, "lahf_lm" }, { 0x80000001, 0, ECX, 5, "abm" },
	{ 0x80000001, 0, ECX, 6, "sse4a" },
	{ 0x80000001, 0, ECX, 8, "3dnowprefetch" },
	{ 0x80000001, 0, ECX, 11, "xop" }, { 0x80000001, 0, ECX, 16, "fma4" },
	{ 0x80000001, 0, ECX, 21, "tbm" },
	{ 0x80000001, 0, ECX, 29, "mwaitx" },
	{ 0x80000001, 0, EDX, 11, "syscall" },
	{ 0x80000001, 0, EDX, 22, "mmxext" },
	{ 0x80000001, 0, EDX, 27, "rdtscp" },
	{ 0x80000001, 0, EDX, 30, "3dnowext" },
	{ 0x80000001, 0, EDX, 31, "3dnow" },
	{ 0x80000008, 0, EBX, 0, "clzero" },
};

#define FEATURE_BYTES ((ARRAY_SIZE(features) + 7) / 8)

static bool has(const uint8_t *bits, size_t i)
{
	return bits[i / 8] & 1 << i % 8;
}

static void own_features(uint8_t bits[FEATURE_BYTES])
{
	size_t i;

	memset(bits, 0, FEATURE_BYTES);
	for (i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		unsigned int v[4];

		if (__get_cpuid_count(f->leaf, f->subleaf, &v[EAX], &v[EBX],
				      &v[ECX], &v[EDX]) &&
		    v[f->reg] & 1U << f->bit)
			bits[i / 8] |= (uint8_t)(1 << i % 8);
	}
}

static uint64_t own_xcr0(void)
{
	uint32_t low, high, a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 3;
	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(XCR0));
	return (uint64_t)high << 32 | low;
}

/* bytes of the standard format with all that XCR0 has */
static uint32_t own_xstate_size(void)
{
	uint32_t a, b, c, d;

	return __get_cpuid_count(0xd, 0, &a, &b, &c, &d) ? b : 512;
}

static int cpu_capture(struct capture *c, enum capture_when when,
		       Mspd__Image *img)
{
	Mspd__Cpu *cpu;

	(void)c;
	/* looked at before anything is built, and then no more */
	if (when == CAPTURE_FINAL)
		return 0;
	cpu = malloc(sizeof(*cpu));
	if (!cpu)
		return -ENOMEM;
	*cpu = (Mspd__Cpu)MSPD__CPU__INIT;
	img->cpu = cpu;
	cpu->cpuid.data = malloc(FEATURE_BYTES);
	if (!cpu->cpuid.data)
		return -ENOMEM;
	cpu->cpuid.len = FEATURE_BYTES;
	own_features(cpu->cpuid.data);
	cpu->xcr0 = own_xcr0();
	cpu->xstate_size = own_xstate_size();
	return 0;
}

static void check_features(const Mspd__Cpu *cpu, struct findings *f)
{
	uint8_t own[FEATURE_BYTES];
	char names[256] = "";
	size_t i, len = 0, n = 0;

	own_features(own);
	for (i = 0; i < 8 * cpu->cpuid.len; i++) {
		const char *name = "unknown";

		if (!has(cpu->cpuid.data, i))
			continue;
		if (i < ARRAY_SIZE(features)) {
			if (has(own, i))
				continue;
			name = features[i].name;
		}
		n++;
		if (len + strlen(name) + 2 < sizeof(names))
			len += (size_t)sprintf(names + len, "%s%s",
					       len ? " " : "", name);
	}
	if (n)
		finding_add(f, FINDING_ERROR, "cpu.features", "processor",
			    "%zu features of the source are missing on the target: %s; move to a processor that has them",
			    n, names);
}

static int cpu_target_check(const struct restore_options *opt,
			    const Mspd__Image *early, struct findings *f)
{
	const Mspd__Cpu *cpu = early->cpu;
	uint32_t size = own_xstate_size();

	(void)opt;
	if (!cpu)
		return -EBADMSG;
	check_features(cpu, f);
	if (cpu->xcr0 & ~own_xcr0())
		finding_add(f, FINDING_ERROR, "cpu.xcr0", "processor",
			    "register sets of the source (XCR0 %llx) are missing on the target (%llx)",
			    (unsigned long long)cpu->xcr0,
			    (unsigned long long)own_xcr0());
	if (cpu->xstate_size != size)
		finding_add(f, FINDING_ERROR, "cpu.xstate", "processor",
			    "register state has %u bytes on the source and %u on the target; give both the same processor model",
			    cpu->xstate_size, size);
	return 0;
}

const struct resource resource_cpu = {
	.name = "cpu",
	.capture = cpu_capture,
	.target_check = cpu_target_check,
};
