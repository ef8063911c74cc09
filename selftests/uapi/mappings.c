// SPDX-License-Identifier: GPL-2.0
/*
 * VASI_MAPPINGS: every flag that a mapping can be given, against what the
 * kernel's own smaps says of the same mapping; too little room; a guest that
 * is gone
 */
#include <sys/syscall.h>

#include "../vasi_test.h"

#define PAGE	4096
#define MAPPINGS 512

static const struct {
	const char *letters;
	uint32_t flag;
} flags[] = {
	{ "rd", VASI_MAP_READ }, { "wr", VASI_MAP_WRITE },
	{ "ex", VASI_MAP_EXEC }, { "sh", VASI_MAP_SHARED },
	{ "mw", VASI_MAP_MAYWRITE }, { "gd", VASI_MAP_GROWSDOWN },
	{ "ac", VASI_MAP_ACCOUNTED }, { "nr", VASI_MAP_NORESERVE },
	{ "sr", VASI_MAP_SEQUENTIAL }, { "rr", VASI_MAP_RANDOM },
	{ "dc", VASI_MAP_DONTFORK }, { "dd", VASI_MAP_DONTDUMP },
	{ "hg", VASI_MAP_HUGEPAGE }, { "nh", VASI_MAP_NOHUGEPAGE },
	{ "mg", VASI_MAP_MERGEABLE }, { "wf", VASI_MAP_WIPEONFORK },
	{ "lo", VASI_MAP_LOCKED },
};
#define NR_FLAGS (sizeof(flags) / sizeof(flags[0]))

static struct vasi_mapping vec[MAPPINGS];

static void mapping(int prot, int how, int advice)
{
	/* neighbours of one kind would become one mapping */
	char *p = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	must(p != MAP_FAILED);
	p = mmap(p + PAGE, PAGE, prot, how | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(p != MAP_FAILED);
	if (advice >= 0)
		must(!madvise(p, PAGE, advice));
}

static void make_mappings(void)
{
	static const int advice[] = {
		MADV_SEQUENTIAL, MADV_RANDOM, MADV_DONTFORK, MADV_DONTDUMP,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_WIPEONFORK,
	};
	size_t i;
	char *p;

	for (i = 0; i < sizeof(advice) / sizeof(advice[0]); i++)
		mapping(PROT_READ | PROT_WRITE, MAP_PRIVATE, advice[i]);
	mapping(PROT_READ, MAP_PRIVATE, -1);
	mapping(PROT_READ | PROT_WRITE, MAP_SHARED, -1);
	mapping(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, -1);
	mapping(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_GROWSDOWN, -1);
	mapping(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_LOCKED, -1);
	mapping(PROT_EXEC | PROT_READ, MAP_PRIVATE, -1);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(!syscall(SYS_mlock2, p, PAGE, 1 /* MLOCK_ONFAULT */));
}

static int list(int fd, uint32_t room, uint32_t *ret_n)
{
	struct vasi_mappings c = {
		.size = sizeof(c),
		.vec = (uintptr_t)vec,
		.vec_len = room,
	};
	int ret = vasi_cmd(fd, VASI_MAPPINGS, &c);

	*ret_n = c.out_count;
	return ret;
}

static uint32_t flags_of_line(const char *text, uint32_t seen[NR_FLAGS])
{
	uint32_t all = 0;
	size_t i;

	for (i = 0; i < NR_FLAGS; i++) {
		char word[5] = { ' ', flags[i].letters[0], flags[i].letters[1],
				 ' ' };

		if (strstr(text, word)) {
			all |= flags[i].flag;
			seen[i]++;
		}
	}
	return all;
}

/* each mapping of smaps is in the list, in order, with the same flags */
static void compare(pid_t pid, uint32_t n)
{
	uint32_t known = 0, i, at = 0, differ = 0, missing = 0, extra = 0;
	uint32_t seen[NR_FLAGS] = {};
	unsigned long start = 0, end = 0;
	char path[64], line[4096];
	FILE *f;

	for (i = 0; i < NR_FLAGS; i++)
		known |= flags[i].flag;
	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "re");
	must(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2 &&
		    !strstr(line, "[vsyscall]")) {
			start = a;
			end = b;
			continue;
		}
		if (strncmp(line, "VmFlags:", 8) || !start)
			continue;
		while (at < n && vec[at].start < start)
			extra++, at++;
		if (at == n || vec[at].start != start || vec[at].end != end)
			missing++;
		else if ((vec[at].flags & known) != flags_of_line(line, seen)) {
			note("%lx: %x here, %s", start, vec[at].flags, line);
			differ++;
		}
		at++;
		start = 0;
	}
	fclose(f);
	ok(n > 20 && !differ && !missing && !extra && at == n,
	   "%u mappings: %u with other flags, %u missing, %u too many", n,
	   differ, missing, extra);
	for (i = 0; i < NR_FLAGS; i++)
		ok(seen[i], "a mapping has %s", flags[i].letters);
}

int main(void)
{
	uint32_t n, again, i, onfault = 0;
	int fd;
	pid_t pid = fork_guest();

	if (!pid) {
		make_mappings();
		for (;;)
			pause();
	}
	must(wait_until(thread_state(pid, pid) == 'S'));
	fd = attach(pid);
	ok(!list(fd, MAPPINGS, &n), "the list");
	compare(pid, n);
	for (i = 0; i < n; i++)
		onfault += !!(vec[i].flags & VASI_MAP_LOCKONFAULT);
	ok(onfault == 1, "lock on fault, which smaps does not tell everywhere");
	ok(list(fd, n - 1, &again) == -EMSGSIZE && again == n,
	   "too little room: the number there was");
	ok(list(fd, 0, &again) == -EMSGSIZE && again == n, "no room");
	end_guest(pid);
	ok(list(fd, MAPPINGS, &n) == -ESRCH, "of a guest that is gone");
	close(fd);
	return tap_end();
}
