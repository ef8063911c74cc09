/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mappings: as /proc tells them, as the image tells them, and the way from one
 * list to another
 */
#ifndef MSPD_STATE_MAPS_H
#define MSPD_STATE_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "state/state.h"

/* Vma.special */
enum vma_special {
	VMA_PLAIN, VMA_STACK, VMA_HEAP, VMA_VDSO, VMA_VVAR, VMA_VVAR_VCLOCK,
};

/* Vma.advice */
#define ADVICE_SEQUENTIAL	(1u << 0)
#define ADVICE_RANDOM		(1u << 1)
#define ADVICE_DONTFORK		(1u << 2)
#define ADVICE_DONTDUMP		(1u << 3)
#define ADVICE_HUGEPAGE		(1u << 4)
#define ADVICE_NOHUGEPAGE	(1u << 5)
#define ADVICE_MERGEABLE	(1u << 6)
#define ADVICE_WIPEONFORK	(1u << 7)
#define ADVICE_LOCKED		(1u << 8)
#define ADVICE_LOCKONFAULT	(1u << 9)
#define ADVICE_NORESERVE	(1u << 10)
#define ADVICE_ACCOUNTED	(1u << 11) /* was writable once */
#define ADVICE_ALL		((1u << 12) - 1)

/* -- pure: maps_text.c */

/* more of a mapping's flags than its advice */
#define VMFLAG_MAYWRITE		(1u << 16)
#define VMFLAG_GROWSDOWN	(1u << 17)

/**
 * struct map_line - one mapping of /proc/PID/maps
 * @start: first address
 * @end: first address behind
 * @prot: PROT_*
 * @shared: MAP_SHARED
 * @offset: of the file
 * @dev: major << 20 | minor of the file
 * @ino: of the file
 * @flags: ADVICE_* and VMFLAG_*
 * @refused: VmFlags mnemonic that cannot be moved, "" if none
 * @name: path or [name], unescaped; in the text's memory
 */
struct map_line {
	uint64_t start, end;
	uint32_t prot;
	bool shared;
	uint64_t offset;
	uint64_t dev;
	uint64_t ino;
	uint32_t flags;
	char refused[4];
	char *name;
};

/**
 * struct map_text - a parsed file
 * @text: its bytes, changed by parsing
 * @v: lines in order of addresses
 * @n: how many
 */
struct map_text {
	char *text;
	struct map_line *v;
	size_t n;
};

/*
 * Takes the text (malloc, with a NUL at its end) of maps over, also on
 * failure. -EPROTO: not such a text. Mappings that changed while they were read
 * may overlap in it, they do not in what is returned.
 */
int map_text_parse(struct map_text *ret, char *text);
void map_text_free(struct map_text *t);
/*
 * Gives lines of @t the flags that the guest access lists. A mapping may have
 * been taken apart or away between the two looks: a line becomes as many as it
 * has parts with flags of their own, and what is not listed any more goes.
 * Returns 1 if there was such a line, 0 if not, -ENOMEM.
 */
int map_text_flags(struct map_text *t, const struct vasi_mapping *v, size_t n);

/* is @link, as readlink() tells it, what the line names? @link is changed */
bool map_line_names(const struct map_line *line, char *link);

/* -- pure: maps_diff.c */

enum map_op { MAP_OP_UNMAP, MAP_OP_MAP, MAP_OP_PROTECT, MAP_OP_ADVISE };

/**
 * struct map_change - one step from one list of mappings to another
 * @op: what
 * @start: where
 * @end: where
 * @vma: mapping of the new list it is about; NULL of an unmap
 * @advice_off: advice that goes
 * @advice_on: advice that comes
 */
struct map_change {
	enum map_op op;
	uint64_t start, end;
	const Mspd__Vma *vma;
	uint32_t advice_off, advice_on;
};

/*
 * Steps from @from (NULL: nothing) to @to: first all unmaps, then the rest by
 * address. Special mappings of the kernel are passed over.
 */
int maps_diff(const Mspd__Maps *from, const Mspd__Maps *to,
	      struct map_change **ret, size_t *ret_n);
/* lists are in order, do not overlap, are aligned and below @top */
int maps_valid(const Mspd__Maps *maps, uint64_t top);
/* lowest hole of @len bytes, at @low or above, that is in no list; 0 = none */
uint64_t maps_hole(const Mspd__Maps *const *lists, size_t n, uint64_t low,
		   uint64_t len);
/* the mapping that holds @addr, NULL */
const Mspd__Vma *maps_find(const Mspd__Maps *maps, uint64_t addr);
const Mspd__Vma *maps_special(const Mspd__Maps *maps, enum vma_special what);
bool vma_is_kernels(const Mspd__Vma *vma);

/* -- maps.c: the source */

int maps_capture(struct capture *c, Mspd__Maps **ret);

/* -- maps_restore.c: the target */

struct restore;
struct map_job;

/* one more remote call of @job; @of: what it is for, NULL if it may fail */
int map_job_call(struct map_job *job, const struct map_change *of, long nr,
		 const uint64_t *arg);
/* maps what @change says; its file was opened by map_job_open() */
int map_job_map(struct map_job *job, const struct map_change *change);
int map_job_advise(struct map_job *job, const struct map_change *change);
int map_job_open(struct map_job *job, const Mspd__Vma *vma);
struct restore *map_job_restore(struct map_job *job);
/* makes the calls, and forgets them */
int map_job_run(struct map_job *job);

/* -- maps_unite.c: makes each mapping one that the kernel has in pieces */
int maps_unite(struct map_job *job, const Mspd__Maps *maps);
/* brings the guest's mappings to @maps, which is copied */
int maps_apply(struct restore *r, const Mspd__Maps *maps);
int maps_target_check(const struct restore_options *opt,
		      const Mspd__Image *early, struct findings *f);
int maps_prepare(struct restore *r, const Mspd__Image *early);
int maps_finish(struct restore *r, const Mspd__Image *final);

/* top of user addresses (4 levels of page tables) */
#define USER_TOP	0x7ffffffff000ULL
#define MAPS_PAGE	4096ULL

#endif /* MSPD_STATE_MAPS_H */
