/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest that is being built, as the kinds of resources see it
 */
#ifndef MSPD_STATE_RESTORE_H
#define MSPD_STATE_RESTORE_H

#include "state/ns.h"
#include "state/remote.h"
#include "state/resource.h"

/**
 * struct restore_thread - a thread of the guest
 * @tid: in the guest's PID namespace
 * @host_tid: here
 */
struct restore_thread {
	int32_t tid;
	pid_t host_tid;
};

/**
 * struct restore_object - a memory object of the guest
 * @space: its number on the source
 * @target_space: its number here, 0 = not known yet
 * @fd: the object
 * @bytes: its size
 */
struct restore_object {
	uint32_t space;
	uint32_t target_space;
	int fd;
	uint64_t bytes;
};

/**
 * struct restore - one guest that is being built
 * @opt: how; strings belong to the caller
 * @findings: where failures are explained; belongs to the caller, who keeps it
 *	as long as this
 * @ns: namespaces and process
 * @remote: its side door
 * @guest: access handle
 * @threads: the leader first
 * @nr_threads: how many
 * @maps: its mappings as they are now, in the words of the source
 * @objects: memory objects
 * @nr_objects: how many
 * @vdso_foreign: the source's vDSO is plain memory here
 * @traced: ptrace holds the guest
 * @sealed: the module holds the guest, whoever ends
 * @files: descriptors placed so far, of resource_files
 * @fill: userfaultfd of memory that nothing has touched yet, -1 = none
 */
struct restore {
	struct restore_options opt;
	struct findings *findings;
	struct ns_guest ns;
	struct remote remote;
	struct guest *guest;
	struct restore_thread *threads;
	size_t nr_threads;
	Mspd__Maps *maps;
	struct restore_object *objects;
	size_t nr_objects;
	bool vdso_foreign;
	bool traced;
	bool sealed;
	struct files_target *files;
	int fill;
};

/* host thread ID of guest thread @tid, 0 = none */
pid_t restore_host_tid(const struct restore *r, int32_t tid);
/* a descriptor of memory object @space (of the source), -ENOENT */
int restore_object_fd(const struct restore *r, uint32_t space);
/* nanoseconds of guest time since the final image was captured, >= 0 */
int64_t restore_elapsed_ns(const struct restore *r, const Mspd__Process *p);
/* an error finding of kind @check about @object; returns @err */
int restore_fail(struct restore *r, int err, const char *check,
		 const char *object, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

#endif /* MSPD_STATE_RESTORE_H */
