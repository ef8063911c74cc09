// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/PID/maps as a list, with flags from elsewhere
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "lib/cleanup.h"
#include "state/maps.h"

/* flags as they are listed, with the mnemonic of what is refused */
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

/* a name that has "\012" in itself cannot be told from one with a newline */
bool map_line_names(const struct map_line *line, char *link)
{
	unescape(link);
	return !strcmp(line->name, link);
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

	line->flags = 0;
	line->refused[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(listed); i++) {
		if (!(map & listed[i].map))
			continue;
		line->flags |= listed[i].bit;
		if (!line->refused[0])
			strcpy(line->refused, listed[i].refused);
	}
}

/* takes the part of @line from @start to @end over, with what is listed of it */
static void take_part(struct map_text *t, const struct map_line *line,
		      uint64_t start, uint64_t end, uint32_t map)
{
	struct map_line *last = t->n ? &t->v[t->n - 1] : NULL;
	struct map_line part = *line;

	part.start = start;
	part.end = end;
	if (line->ino)
		part.offset += start - line->start;
	set_flags(&part, map);
	if (last && last->name == part.name && last->end == start &&
	    last->flags == part.flags && !strcmp(last->refused, part.refused))
		last->end = end;
	else
		t->v[t->n++] = part;
}

int map_text_flags(struct map_text *t, const struct vasi_mapping *v, size_t n)
{
	struct map_text parts = { .text = t->text };
	size_t i, at = 0, lines = t->n;
	uint64_t listed = 0, told = 0;

	parts.v = calloc(t->n + n, sizeof(*parts.v));
	if (!parts.v)
		return -ENOMEM;
	for (i = 0; i < t->n; i++) {
		const struct map_line *line = &t->v[i];
		size_t j;

		if (!strcmp(line->name, "[vsyscall]")) {
			parts.v[parts.n++] = *line;
			continue;
		}
		told += line->end - line->start;
		while (at < n && v[at].end <= line->start)
			at++;
		for (j = at; j < n && v[j].start < line->end; j++) {
			uint64_t start = v[j].start, end = v[j].end;

			if (start < line->start)
				start = line->start;
			if (end > line->end)
				end = line->end;

			take_part(&parts, line, start, end, v[j].flags);
			listed += end - start;
		}
	}
	free(t->v);
	*t = parts;
	return listed != told || parts.n != lines;
}
