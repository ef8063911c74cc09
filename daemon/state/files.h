/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Descriptors of a guest: a table of kinds, one file each in fd/
 *
 * Source: a look reads all that /proc shows of the descriptors and gives the
 * same number to those that share a description; each description goes to the
 * kind that knows it. Target: each description is opened by the daemon itself,
 * under the guest's file system identity, passed into the guest, and from then
 * on changed through the daemon's copy of it, which costs no remote call.
 */
#ifndef MSPD_STATE_FILES_H
#define MSPD_STATE_FILES_H

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include "state/fileid.h"
#include "state/resource.h"
#include "state/restore.h"

struct fd_kind;

/**
 * struct fd_entry - a descriptor of the guest
 * @fd: its number
 * @link: what /proc/PID/fd shows
 * @st: of the file
 * @info: text of /proc/PID/fdinfo
 * @flags: O_*, without O_CLOEXEC
 * @cloexec: of the descriptor
 * @pos: offset
 * @first: entry with the same description, this one if it is the first
 * @id: number of the description, from 1
 * @kind: who knows it, NULL = nobody
 * @family: socket: AF_*, 0 = not a socket
 * @type: socket: SOCK_*
 * @protocol: socket
 * @listening: socket
 * @tcp_state: TCP socket: as in TCP_INFO
 * @addr: socket: what it is bound to
 * @addr_len: its length
 * @has_peer: socket: connected
 * @outside: a process outside of the guest has the description too
 */
struct fd_entry {
	int fd;
	char link[PATH_MAX];
	struct stat st;
	char *info;
	uint32_t flags;
	bool cloexec;
	int64_t pos;
	struct fd_entry *first;
	uint32_t id;
	const struct fd_kind *kind;
	int family, type, protocol;
	bool listening, has_peer, outside;
	unsigned int tcp_state;
	struct sockaddr_storage addr;
	socklen_t addr_len;
};

/**
 * struct fd_look - all descriptors at one time
 * @c: the guest
 * @when: early or final
 * @checking: for validation: nothing is kept, everything is looked at
 * @v: descriptors by number
 * @n: how many
 */
struct fd_look {
	struct capture *c;
	enum capture_when when;
	bool checking;
	struct fd_entry *v;
	size_t n;
};

int fd_look(struct fd_look *look);
void fd_look_close(struct fd_look *look);
/* "fd 7 (socket:[1234], unix stream connected)" */
const char *fd_object(const struct fd_entry *e, char *buf, size_t len);
/* adds an error finding about @e; returns -EOPNOTSUPP */
int fd_refuse(struct fd_look *look, const struct fd_entry *e,
	      const char *check, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* name of its file system if what is there is this host's kernel, else NULL */
const char *fd_host_file_system(const struct fd_look *look,
				const struct fd_entry *e);
/* a copy of the descriptor in this process, or -errno; close it soon */
int fd_copy(struct fd_look *look, const struct fd_entry *e);
/* value of line "@name:" in fdinfo, NULL = none; ends at a newline */
const char *fd_info(const struct fd_entry *e, const char *name);
/* is it the first description of its file? */
bool fd_first_of_file(const struct fd_look *look, const struct fd_entry *e);
bool fd_info_u64(const struct fd_entry *e, const char *name, int base,
		 uint64_t *ret);

/* descriptions that processes outside of the guest have too */
int outside_check(struct fd_look *look);

/**
 * struct files_source - what the source remembers between its captures
 * @tokens: token files made, in the order of FileTable.tokens
 * @nr_tokens: how many
 */
struct files_source {
	struct files_token {
		char *path;
		uint8_t nonce[FILEID_TOKEN_SIZE];
		dev_t dev;
	} *tokens;
	size_t nr_tokens;
};

/* index, from 1, of a token on the file system of @path; -errno */
int files_token(struct capture *c, const char *path, dev_t dev);

/**
 * struct placed_epoll - an entry of an epoll set that is in place
 * @fd: as the guest has it
 * @events: likewise
 * @data: likewise
 * @serial: of the description that @fd stood for
 */
struct placed_epoll {
	int32_t fd;
	uint32_t events;
	uint64_t data;
	uint64_t serial;
};

/**
 * struct placed_file - a description on the target
 * @file: as the image that is being put back tells it
 * @early: as the early image told it; a copy, NULL = it was not there
 * @kind: who makes it
 * @serial: different for each description ever made
 * @copy: this process's copy, -1 = not opened yet
 * @fds: the guest's descriptors of it, sorted by number
 * @nr_fds: how many
 * @placed: they are in the guest
 * @epoll: entries in place
 * @nr_epoll: how many
 * @path: what @kind left on the file system, to be taken back; owned
 * @saved: name under which what @path replaced is kept; owned
 * @temp: folder that is removed in the end; owned
 */
struct placed_file {
	const Mspd__OpenFile *file;
	Mspd__OpenFile *early;
	const struct fd_kind *kind;
	uint64_t serial;
	int copy;
	struct remote_fd *fds;
	size_t nr_fds;
	bool placed;
	struct placed_epoll *epoll;
	size_t nr_epoll;
	char *path, *saved, *temp;
};

/**
 * struct placed_shared - what several descriptions lead to
 * @peer: OpenFile.peer of them
 * @end: here: a pipe's ends for reading and for writing; a memory file
 * @taken: the description of the end is in use
 */
struct placed_shared {
	uint64_t peer;
	int end[2];
	bool taken[2];
};

/**
 * struct files_target - what is placed in the guest
 * @r: the guest
 * @v: descriptions
 * @n: how many
 * @shared: pipes and memory files
 * @nr_shared: how many
 * @serial: last one given to a description
 * @image: being put back
 * @final: it is the final one
 * @as_guest: what is refused now is tried again by the daemon itself
 * @token_dev: per token of the image the device it is on here, 0 = not readable
 * @nr_tokens: how many
 */
struct files_target {
	struct restore *r;
	struct placed_file *v;
	size_t n;
	struct placed_shared *shared;
	size_t nr_shared;
	uint64_t serial;
	const Mspd__Image *image;
	bool final;
	bool as_guest;
	dev_t *token_dev;
	size_t nr_tokens;
};

/* that of @peer; NULL = not there */
struct placed_shared *files_shared(struct files_target *t, uint64_t peer);
/* a new one, which owns the descriptors of @end (-1: none) */
int files_share(struct files_target *t, uint64_t peer, const int end[2]);
/* whose descriptor is @fd in the image being put back? NULL = nobody's */
struct placed_file *files_by_nr(struct files_target *t, int fd);
/* the description being opened for @of leaves folder @temp */
int files_temp(struct files_target *t, const Mspd__OpenFile *of,
	       const char *temp);
/* an error finding about @of; returns @err */
int files_fail(struct files_target *t, const Mspd__OpenFile *of, int err,
	       const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/**
 * struct files_check - can the target take it?
 * @f: findings
 * @table: of the image
 * @token_dev: per token the device it is on here, 0 = not readable
 */
struct files_check {
	struct findings *f;
	const Mspd__FileTable *table;
	dev_t *token_dev;
};

/**
 * struct fd_kind - one kind of descriptor
 * @name: stored in the image
 * @match: is it this kind?
 * @capture: fills @of, which has id, kind and flags; adds findings
 * @check: on the target, before anything is built; NULL = nothing to check
 * @late: to be opened in the pause only
 * @open: on the target: makes the description, in this process
 * @same: is what can't be changed after open the same? (path, clock...)
 * @settle: in the pause: puts what changes (counters, content) into @p->copy
 *	after all are placed; of an epoll set also before the pause
 * @done: on the target, when the restore ends, with @alive as in struct resource
 */
struct fd_kind {
	const char *name;
	bool (*match)(const struct fd_entry *e);
	int (*capture)(struct fd_look *look, struct fd_entry *e,
		       Mspd__OpenFile *of);
	int (*check)(struct files_check *t, const Mspd__OpenFile *of);
	bool (*late)(const Mspd__OpenFile *of);
	int (*open)(struct files_target *t, const Mspd__OpenFile *of,
		    int *ret_fd);
	bool (*same)(const Mspd__OpenFile *a, const Mspd__OpenFile *b);
	int (*settle)(struct files_target *t, struct placed_file *p);
	void (*done)(struct files_target *t, struct placed_file *p, bool alive);
};

extern const struct fd_kind *const fd_kinds[];
extern const size_t nr_fd_kinds;
extern const struct fd_kind fd_kind_file, fd_kind_directory, fd_kind_chardev,
	fd_kind_pipe, fd_kind_eventfd, fd_kind_epoll, fd_kind_timerfd,
	fd_kind_memfd, fd_kind_tcp, fd_kind_unix, fd_kind_closed;

const struct fd_kind *fd_kind_of(const struct fd_entry *e);
const struct fd_kind *fd_kind_named(const char *name);

/* descriptor of a message, for the findings of the target */
const char *file_object(const Mspd__FileTable *table, const Mspd__OpenFile *of,
			char *buf, size_t len);

/* flags that fcntl(F_SETFL) changes */
#define SETTABLE_FLAGS	((uint32_t)(O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME))

#endif /* MSPD_STATE_FILES_H */
