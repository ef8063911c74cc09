// SPDX-License-Identifier: GPL-2.0
/*
 * Flags of mappings without the module, out of smaps
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "guest/user_mem.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "state/maps.h"
#include "state/procfile.h"

/* of the time that goes by, for reading smaps */
#define SHARE	10

static const struct {
	char name[3];
	uint32_t flag;
} names[] = {
	{ "rd", VASI_MAP_READ }, { "wr", VASI_MAP_WRITE },
	{ "ex", VASI_MAP_EXEC }, { "sh", VASI_MAP_SHARED },
	{ "ms", VASI_MAP_SHARED }, { "mw", VASI_MAP_MAYWRITE },
	{ "mr", 0 }, { "me", 0 }, { "sd", 0 },
	{ "gd", VASI_MAP_GROWSDOWN }, { "ac", VASI_MAP_ACCOUNTED },
	{ "nr", VASI_MAP_NORESERVE }, { "sr", VASI_MAP_SEQUENTIAL },
	{ "rr", VASI_MAP_RANDOM }, { "dc", VASI_MAP_DONTFORK },
	{ "dd", VASI_MAP_DONTDUMP }, { "hg", VASI_MAP_HUGEPAGE },
	{ "nh", VASI_MAP_NOHUGEPAGE }, { "mg", VASI_MAP_MERGEABLE },
	{ "wf", VASI_MAP_WIPEONFORK }, { "lo", VASI_MAP_LOCKED },
	/* the kernel has no letters for "lock on fault" */
	{ "??", VASI_MAP_LOCKONFAULT }, { "lf", VASI_MAP_LOCKONFAULT },
	{ "ht", VASI_MAP_HUGETLB }, { "io", VASI_MAP_DEVICE },
	{ "pf", VASI_MAP_DEVICE }, { "mm", VASI_MAP_DEVICE },
	{ "um", VASI_MAP_USERFAULTFD }, { "uw", VASI_MAP_USERFAULTFD },
	{ "ui", VASI_MAP_USERFAULTFD }, { "ss", VASI_MAP_SHADOW_STACK },
	{ "sl", VASI_MAP_SEALED }, { "dp", VASI_MAP_DROPPABLE },
};

static uint32_t flag_of(const char *word, bool tracked)
{
	/* ours: protection against writes, without anybody being asked */
	if (tracked && !strcmp(word, "uw"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(word, names[i].name))
			return names[i].flag;
	return VASI_MAP_OTHER;
}

static uint32_t flags_of(char *text, bool tracked)
{
	uint32_t flags = 0;
	char *save, *word;

	for (word = strtok_r(text, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		flags |= flag_of(word, tracked);
	/* no letters are many unknown flags' */
	if (flags & VASI_MAP_LOCKONFAULT && !(flags & VASI_MAP_LOCKED))
		flags = (flags & ~VASI_MAP_LOCKONFAULT) | VASI_MAP_OTHER;
	return flags;
}

static int add(struct user_mem *m, size_t *room, uint64_t start, uint64_t end)
{
	if (m->nr_flags == *room) {
		size_t max = *room ? 2 * *room : 256;
		struct vasi_mapping *v = reallocarray(m->flags, max,
						      sizeof(*v));

		if (!v)
			return -ENOMEM;
		m->flags = v;
		*room = max;
	}
	m->flags[m->nr_flags++] = (struct vasi_mapping){ start, end, 0, 0 };
	return 0;
}

/* a mapping may grow over one that was told before: only what is new counts */
static void add_cut(struct user_mem *m)
{
	struct vasi_mapping *v = &m->flags[m->nr_flags - 1];

	if (m->nr_flags > 1 && v->start < v[-1].end)
		v->start = v[-1].end;
	if (v->start >= v->end)
		m->nr_flags--;
}

static int parse(struct user_mem *m, char *text, bool tracked)
{
	size_t room = 0;
	char *save, *line;
	int r = 0;

	free(m->flags);
	m->flags = NULL;
	m->nr_flags = 0;
	for (line = strtok_r(text, "\n", &save); line && !r;
	     line = strtok_r(NULL, "\n", &save)) {
		uint64_t start, end;
		unsigned int key;

		if (!strncmp(line, "VmFlags:", 8) && m->nr_flags) {
			struct vasi_mapping *v = &m->flags[m->nr_flags - 1];

			v->flags |= flags_of(line + 8, tracked);
			add_cut(m);
		} else if (!strncmp(line, "ProtectionKey:", 14) &&
			   sscanf(line + 14, "%u", &key) == 1 && key &&
			   m->nr_flags) {
			m->flags[m->nr_flags - 1].flags |= VASI_MAP_PKEY;
		} else if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start,
				  &end) == 2 && start < end) {
			r = add(m, &room, start, end);
		}
	}
	return r;
}

static int read_smaps(struct user_mem *m, bool tracked)
{
	_cleanup_free_ char *text = NULL;
	int64_t begun = now_ns();
	int r = procfile_read(m->proc, "smaps", &text, NULL);

	if (!r)
		r = parse(m, text, tracked);
	m->flags_ns = now_ns();
	m->flags_cost_ns = m->flags_ns - begun;
	return r;
}

void user_mem_mappings_free(struct user_mem *m)
{
	free(m->flags);
	free(m->flags_text);
	m->flags = NULL;
	m->flags_text = NULL;
	m->nr_flags = 0;
}

static uint32_t with_protection(uint32_t flags, const struct map_line *line)
{
	flags &= ~(VASI_MAP_READ | VASI_MAP_WRITE | VASI_MAP_EXEC);
	return flags | (line->prot & PROT_READ ? VASI_MAP_READ : 0) |
	       (line->prot & PROT_WRITE ? VASI_MAP_WRITE : 0) |
	       (line->prot & PROT_EXEC ? VASI_MAP_EXEC : 0);
}

/*
 * Gives the mappings of @t the flags of what they were part of, or grew from.
 * Returns how many of them there are: the others are new, only smaps knows.
 */
static size_t derive(const struct user_mem *m, const struct map_text *t,
		     struct vasi_mapping *vec, size_t len)
{
	size_t k = 0, n = 0;

	for (size_t i = 0; i < t->n; i++) {
		const struct map_line *line = &t->v[i];

		while (k < m->nr_flags && m->flags[k].end <= line->start)
			k++;
		if (k == m->nr_flags || m->flags[k].start >= line->end)
			continue;
		if (n < len)
			vec[n] = (struct vasi_mapping){
				line->start, line->end,
				with_protection(m->flags[k].flags, line), 0,
			};
		n++;
	}
	return n;
}

static bool is_due(const struct user_mem *m, const char *text)
{
	if (!m->flags_text || strcmp(text, m->flags_text))
		return true;
	return now_ns() - m->flags_ns >= SHARE * m->flags_cost_ns;
}

static int list(struct user_mem *m, bool suspended, bool tracked,
		struct vasi_mapping *vec, size_t len, size_t *ret_n)
{
	char *text, *kept;
	struct map_text t;
	int r;

	r = procfile_read(m->proc, "maps", &text, NULL);
	if (r)
		return r;
	kept = strdup(text);
	if (!kept) {
		free(text);
		return -ENOMEM;
	}
	if (!suspended && is_due(m, text))
		r = read_smaps(m, tracked);
	free(m->flags_text);
	m->flags_text = kept;
	if (r) {
		free(text);
		return r;
	}
	r = map_text_parse(&t, text);
	if (r)
		return r;
	*ret_n = derive(m, &t, vec, len);
	if (*ret_n < t.n)
		r = read_smaps(m, tracked);
	if (!r && *ret_n < t.n)
		*ret_n = derive(m, &t, vec, len);
	/* what smaps has not any more either was unmapped in between */
	if (!r && suspended && *ret_n < t.n)
		r = -EAGAIN;
	else if (!r && !*ret_n)
		r = -ESRCH;
	map_text_free(&t);
	return r;
}

int user_mem_mappings(struct user_mem *m, bool suspended, bool tracked,
		      struct vasi_mapping *vec, size_t len, size_t *ret_n)
{
	int r;

	pthread_mutex_lock(&m->lock);
	r = list(m, suspended, tracked, vec, len, ret_n);
	pthread_mutex_unlock(&m->lock);
	if (!r && *ret_n > len)
		r = -EMSGSIZE;
	return r;
}
