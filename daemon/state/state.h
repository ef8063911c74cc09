/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The state of a guest that is not the content of its memory
 *
 * Every kind of resource is one file with one struct resource, all in one
 * table (table.c), run in order. Source: check (validation), capture (early,
 * while the guest runs; final, suspended). Target: prepare (while the source
 * runs), finish (inside the pause, only what differs from the early image).
 *
 * All functions return 0 or -errno. Failure text goes to struct findings, so
 * that it reaches the operator with the object it is about.
 */
#ifndef MSPD_STATE_STATE_H
#define MSPD_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/guest.h"
#include "state/image.pb-c.h"

enum finding_level { FINDING_PASS, FINDING_WARNING, FINDING_ERROR };

/**
 * struct finding - result of one check
 * @level: pass, warning or error
 * @check: stable ID of the check, e.g. "fd.kind", "vma.hugetlb"
 * @object: what it is about: "fd 7 (socket:[1234])", "thread 42 (io)", ""
 * @text: what is wrong and what to do, one line
 */
struct finding {
	enum finding_level level;
	char *check;
	char *object;
	char *text;
};

struct findings {
	struct finding *v;
	size_t n;
	size_t errors;
};

void finding_add(struct findings *f, enum finding_level level,
		 const char *check, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void findings_clear(struct findings *f);

/* policy of one migration that state code must know */
enum connections { CONNECTIONS_REFUSE, CONNECTIONS_CLOSE };

/**
 * struct capture - the source's view of a guest
 * @guest: access handle
 * @pid: in mspd's PID namespace
 * @pidfd: of @pid
 * @proc: O_PATH directory fd of /proc/@pid
 * @connections: what to do with established connections
 * @records: last answer of VASI_STATE, owned
 * @records_len: its length
 * @suspended: the guest does not run; set and cleared by the caller, so that
 *	capture_maps() in the pause need not read what costs as much as the
 *	guest has memory (capture_final() knows by itself)
 * @findings: where refusals go
 * @files: what is remembered of its files, of resource_files
 * @maps: what is remembered of its mappings, of resource_maps
 * @exe: identity of its program, of resource_mm
 */
struct capture {
	struct guest *guest;
	pid_t pid;
	int pidfd;
	int proc;
	enum connections connections;
	void *records;
	size_t records_len;
	bool suspended;
	struct findings *findings;
	struct files_source *files;
	struct maps_source *maps;
	Mspd__FileId *exe;
};

int capture_open(struct capture *c, struct guest *g, pid_t pid,
		 enum connections connections, struct findings *f);
void capture_close(struct capture *c);
/* refuses by findings (->errors), touches nothing of the guest */
int capture_check(struct capture *c);
/* free the image with image_free() */
int capture_early(struct capture *c, Mspd__Image **ret);
int capture_maps(struct capture *c, Mspd__Maps **ret);
int capture_final(struct capture *c, Mspd__Image **ret);
/* what the guest wrote goes to the shared storage: each round, and before
 * capture_final(), after which the target opens the files */
int files_sync(struct capture *c);
void image_free(Mspd__Image *img);
void maps_free(Mspd__Maps *maps);

/**
 * struct restore_options - how the target shall build the guest
 * @name: for the cgroup and the messages
 * @cgroup: path of the cgroup that takes the guest, NULL = leave
 * @stream_id: of the migration
 * @access: how the target reaches the guest
 * @timens_monotonic_ns: offset for the new time namespace
 * @timens_boottime_ns: offset for the new time namespace
 */
struct restore_options {
	const char *name;
	const char *cgroup;
	uint64_t stream_id;
	const struct guest_access *access;
	int64_t timens_monotonic_ns;
	int64_t timens_boottime_ns;
};

struct restore;

/*
 * All restore_*() of one guest are called by one thread, the tracer. The pages
 * are written by other threads through restore_guest() handles (joined) at the
 * same time as long as no restore_*() call runs that changes mappings.
 */
/* can this host take the guest? (files, room, CPU, PIDs): findings say */
int restore_check(const struct restore_options *opt, const Mspd__Image *early,
		  struct findings *f);
/* namespaces, reaper, shell process, all that the early image tells */
int restore_prepare(struct restore **ret, const struct restore_options *opt,
		    const Mspd__Image *early, struct findings *f);
struct guest *restore_guest(struct restore *r);
pid_t restore_pid(const struct restore *r);
/* descriptor of memory object @space (the source's number), -ENOENT; called by
 * the threads that write pages
 */
int restore_object_fd(const struct restore *r, uint32_t space);
/* mapping differences of a round, before its data; not between the next two */
int restore_maps(struct restore *r, const Mspd__Maps *maps);
/*
 * Between these two most pages that are written are new ones: that is cheaper,
 * where the kernel can. Neither may be called while somebody writes.
 */
void restore_fill_begin(struct restore *r);
void restore_fill_end(struct restore *r);
/* holes of a round: content goes, the mapping stays; after its data */
int restore_drop(struct restore *r, const struct vasi_range *vec, size_t n);
/* in the pause: the rest, registers last; the guest stays stopped */
int restore_finish(struct restore *r, const Mspd__Image *final);
/* suspend, seal, detach the tracer, see that every thread is parked */
int restore_park(struct restore *r, unsigned int deadline_ms);
/* kills what was built; after restore_park() too, until it is resumed */
void restore_abort(struct restore *r);
/* forgets about a guest that was resumed; it lives on */
void restore_release(struct restore *r);

#endif /* MSPD_STATE_STATE_H */
