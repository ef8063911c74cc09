// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/PID/maps and smaps as lists
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "lib/cleanup.h"
#include "state/maps.h"

/* VmFlags that are carried over, or say what the other columns say */
static const struct flag {
	char name[3];
	uint32_t bit;
} carried[] = {
	{ "rd", 0 }, { "wr", 0 }, { "ex", 0 }, { "sh", 0 },
	{ "mr", 0 }, { "me", 0 }, { "ms", 0 }, { "sd", 0 },
	{ "ac", ADVICE_ACCOUNTED }, { "mw", VMFLAG_MAYWRITE },
	{ "gd", VMFLAG_GROWSDOWN }, { "sr", ADVICE_SEQUENTIAL },
	{ "rr", ADVICE_RANDOM }, { "dc", ADVICE_DONTFORK },
	{ "dd", ADVICE_DONTDUMP }, { "hg", ADVICE_HUGEPAGE },
	{ "nh", ADVICE_NOHUGEPAGE }, { "mg", ADVICE_MERGEABLE },
	{ "wf", ADVICE_WIPEONFORK }, { "lo", ADVICE_LOCKED },
	/* the kernel has no letters for "lock on fault" */
	{ "??", ADVICE_LOCKONFAULT }, { "lf", ADVICE_LOCKONFAULT },
	{ "nr", ADVICE_NORESERVE },
};

/* the same as the module lists it, with the mnemonic of what is refused */
static const struct {
	uint32_t map, bit;
	char refused[3];
} listed[] = {
	{ VASI_MAP_HUGETLB, 0, "ht" },
	{ VASI_MAP_DEVICE, 0, "io" },
	{ VASI_MAP_USERFAULTFD, 0, "um" },
	{ VASI_MAP_PKEY, 0, "pk" },
	{ VASI_MAP_SHADOW_STACK, 0, "ss" },
	{ VASI_MAP_SEALED, 0, "sl" },
	{ VASI_MAP_DROPPABLE, 0, "dp" },
	{ VASI_MAP_OTHER, 0, "??" },
	{ VASI_MAP_MAYWRITE, VMFLAG_MAYWRITE, "" },
	{ VASI_MAP_GROWSDOWN, VMFLAG_GROWSDOWN, "" },
	{ VASI_MAP_ACCOUNTED, ADVICE_ACCOUNTED, "" },
	{ VASI_MAP_NORESERVE, ADVICE_NORESERVE, "" },
	{ VASI_MAP_SEQUENTIAL, ADVICE_SEQUENTIAL, "" },
	{ VASI_MAP_RANDOM, ADVICE_RANDOM, "" },
	{ VASI_MAP_DONTFORK, ADVICE_DONTFORK, "" },
	{ VASI_MAP_DONTDUMP, ADVICE_DONTDUMP, "" },
	{ VASI_MAP_HUGEPAGE, ADVICE_HUGEPAGE, "" },
	{ VASI_MAP_NOHUGEPAGE, ADVICE_NOHUGEPAGE, "" },
	{ VASI_MAP_MERGEABLE, ADVICE_MERGEABLE, "" },
	{ VASI_MAP_WIPEONFORK, ADVICE_WIPEONFORK, "" },
	{ VASI_MAP_LOCKED, ADVICE_LOCKED, "" },
	{ VASI_MAP_LOCKONFAULT, ADVICE_LOCKONFAULT, "" },
};

/* "\012" is how the kernel writes a newline in a path */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (!strncmp(s, "\\012", 4)) {
			*to++ = '\n';
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static int parse_line(struct map_line *ret, char *line)
{
	unsigned int major, minor;
	char perms[5];
	int at = 0;

	*ret = (struct map_line){};
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64
		   " %x:%x %" SCNu64 "%n", &ret->start, &ret->end, perms,
		   &ret->offset, &major, &minor, &ret->ino, &at) != 7)
		return -EPROTO;
	if (ret->start >= ret->end || strlen(perms) != 4)
		return -EPROTO;
	ret->dev = (uint64_t)major << 20 | minor;
	ret->prot = (perms[0] == 'r' ? PROT_READ : 0) |
		    (perms[1] == 'w' ? PROT_WRITE : 0) |
		    (perms[2] == 'x' ? PROT_EXEC : 0);
	ret->shared = perms[3] == 's';
	line += at;
	line += strspn(line, " ");
	unescape(line);
	ret->name = line;
	return 0;
}

static void parse_flags(struct map_line *line, char *text)
{
	char *save, *word;

	line->flags = VMFLAG_KNOWN;
	for (word = strtok_r(text, " ", &save); word;
	     word = strtok_r(NULL, " ", &save)) {
		size_t i;

		for (i = 0; i < ARRAY_SIZE(carried); i++)
			if (!strcmp(word, carried[i].name))
				break;
		if (i < ARRAY_SIZE(carried))
			line->flags |= carried[i].bit;
		else if (!line->refused[0] || !strcmp(word, "ht"))
			/* huge pages explain the other flags that they have */
			snprintf(line->refused, sizeof(line->refused), "%s",
				 word);
	}
	/* something unknown, unless it goes with a locked mapping */
	if ((line->flags & ADVICE_LOCKONFAULT) &&
	    !(line->flags & ADVICE_LOCKED) && !line->refused[0])
		strcpy(line->refused, "??");
}

/*
 * The kernel writes the text piece by piece: of a guest that runs, a mapping
 * may have grown downwards, or have become one with its neighbour, behind the
 * piece that tells of it already. Only what is new is taken.
 */
static int cut(struct map_line *line, uint64_t behind)
{
	if (line->start >= behind)
		return 0;
	if (line->end <= behind)
		return -EPROTO;
	if (line->ino)
		line->offset += behind - line->start;
	line->start = behind;
	return 0;
}

int map_text_parse(struct map_text *ret, char *text)
{
	struct map_text t = { .text = text };
	size_t room = 0;
	char *p = text, *end;
	int r = 0;

	for (; *p && !r; p = end + 1) {
		end = strchr(p, '\n');
		if (!end) {
			r = -EPROTO;
			break;
		}
		*end = '\0';
		/* attributes of smaps begin with a capital letter */
		if (isupper((unsigned char)*p)) {
			if (!t.n)
				r = -EPROTO;
			else if (!strncmp(p, "VmFlags:", 8))
				parse_flags(&t.v[t.n - 1], p + 8);
			else if (!strncmp(p, "ProtectionKey:", 14) &&
				 strtoul(p + 14, NULL, 10))
				strcpy(t.v[t.n - 1].refused, "pk");
			continue;
		}
		if (t.n == room) {
			struct map_line *v;

			room = room ? 2 * room : 64;
			v = reallocarray(t.v, room, sizeof(*v));
			if (!v) {
				r = -ENOMEM;
				break;
			}
			t.v = v;
		}
		r = parse_line(&t.v[t.n], p);
		if (!r && t.n)
			r = cut(&t.v[t.n], t.v[t.n - 1].end);
		if (!r)
			t.n++;
	}
	if (r) {
		map_text_free(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void map_text_free(struct map_text *t)
{
	free(t->text);
	free(t->v);
	*t = (struct map_text){};
}

static void set_flags(struct map_line *line, uint32_t map)
{
	size_t i;

	line->flags = VMFLAG_KNOWN;
	line->refused[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(listed); i++) {
		if (!(map & listed[i].map))
			continue;
		line->flags |= listed[i].bit;
		if (!line->refused[0])
			strcpy(line->refused, listed[i].refused);
	}
}

size_t map_text_flags(struct map_text *t, const struct vasi_mapping *v,
		      size_t n)
{
	size_t i, at = 0, unknown = 0;

	for (i = 0; i < t->n; i++) {
		struct map_line *line = &t->v[i];

		while (at < n && v[at].end <= line->start)
			at++;
		if (at < n && v[at].start <= line->start &&
		    v[at].end >= line->end)
			set_flags(line, v[at].flags);
		else if (strcmp(line->name, "[vsyscall]"))
			unknown++;
	}
	return unknown;
}

/*
 * Neighbours with different flags never become one mapping, so a mapping that
 * grew, shrank or was split has the flags of whatever it overlaps, if that is
 * of one kind.
 */
static bool inherit(struct map_line *line, const struct map_text *from,
		    size_t *hint)
{
	const struct map_line *found = NULL;
	size_t i;

	while (*hint < from->n && from->v[*hint].end <= line->start)
		(*hint)++;
	for (i = *hint; i < from->n && from->v[i].start < line->end; i++) {
		const struct map_line *o = &from->v[i];

		if (!(o->flags & VMFLAG_KNOWN) || o->shared != line->shared ||
		    o->dev != line->dev || o->ino != line->ino)
			return false;
		if (found && (found->flags != o->flags ||
			      strcmp(found->refused, o->refused)))
			return false;
		found = o;
	}
	if (!found)
		return false;
	line->flags = found->flags;
	memcpy(line->refused, found->refused, sizeof(line->refused));
	return true;
}

size_t map_text_inherit(struct map_text *t, const struct map_text *from)
{
	size_t i, hint = 0, unknown = 0;

	for (i = 0; i < t->n; i++)
		if (!inherit(&t->v[i], from, &hint) &&
		    strcmp(t->v[i].name, "[vsyscall]"))
			unknown++;
	return unknown;
}
