/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What one side of one migration has promised, in a file that outlives it
 *
 * DIR/STREAM.source and DIR/STREAM.target hold records, one JSON object per
 * line; each says everything, so the last one tells how far it is. A record is
 * on the disk before journal_append() returns. Who has a journal open holds its
 * lock: there is never more than one who decides.
 *
 * JSON, and not protobuf: a record is written three times in a migration, and
 * read by people when things have gone wrong.
 */
#ifndef MSPD_SESSION_JOURNAL_H
#define MSPD_SESSION_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "lib/boot.h"

#define JOURNAL_VERSION	1
/* a record, and a file: more is none of ours */
#define JOURNAL_LINE	2048
#define JOURNAL_BYTES	16384

enum journal_role { JOURNAL_SOURCE, JOURNAL_TARGET };

/**
 * enum journal_type - what is promised from this record on
 * @JOURNAL_BEGIN: nothing. The source owns the guest
 * @JOURNAL_PREPARED: target: its copy stays as it is until Commit or a refusal
 * @JOURNAL_COMMIT: source: its copy stays stopped until the target's word.
 *	Target: it owns the guest
 * @JOURNAL_FORCED: the operator made this side the owner, without the other's
 *	word
 * @JOURNAL_REFUSED: target: it never runs the guest and has no copy
 * @JOURNAL_RETURNED: source: it owns the guest again, the target may not know
 * @JOURNAL_COMPLETED: source: its copy is gone, it asks no more
 */
enum journal_type {
	JOURNAL_BEGIN,
	JOURNAL_PREPARED,
	JOURNAL_COMMIT,
	JOURNAL_FORCED,
	JOURNAL_REFUSED,
	JOURNAL_RETURNED,
	JOURNAL_COMPLETED,
	JOURNAL_TYPES,
};

/**
 * struct journal_record - one record
 * @role: side that wrote it
 * @type: what it promises
 * @boot: boot of that host; copies of another one are gone
 * @stream_id: the migration
 * @guest: name, "" = never learned
 * @uuid: guest
 * @pid: guest on this host, 0 = there is no process yet
 * @access: name of the guest access that has the copy
 * @cgroup: of the guest, "" = none of its own
 * @host: the other side
 * @port: where the target listens for messages; 0 on the target
 * @time: seconds of the epoch
 */
struct journal_record {
	enum journal_role role;
	enum journal_type type;
	char boot[BOOT_ID_BYTES];
	uint64_t stream_id;
	char guest[64];
	char uuid[37];
	pid_t pid;
	char access[16];
	char cgroup[400];
	char host[300];
	uint16_t port;
	int64_t time;
};

/**
 * struct journal - one that is open, and locked
 * @fd: the file, -1 = not open
 * @dir: where it is
 * @end: behind the last good record
 * @last: that record. What it says of the guest may be changed before an
 *	append, which sets type, boot and time
 */
struct journal {
	int fd;
	char dir[256];
	off_t end;
	struct journal_record last;
};

/* pure: a line with its end; its length, -EOVERFLOW */
int journal_encode(const struct journal_record *r, char *buf, size_t len);
/*
 * Pure: the last record of a whole file, and where it ends in @ret_end. A last
 * line that is torn counts as not written. -EBADMSG: what is there was not
 * written by this version, and nothing may be concluded from it.
 */
int journal_parse(const char *text, size_t len, struct journal_record *ret,
		  size_t *ret_end);
/* which type may follow which */
bool journal_follows(enum journal_role role, enum journal_type from,
		     enum journal_type to);
const char *journal_name(enum journal_type type);

/* makes STATE_DIR/journal */
int journal_setup(const char *state_dir, char *ret_dir, size_t len);
/* @first: role, type, stream and guest; -EEXIST: this stream has one */
int journal_create(struct journal *j, const char *dir,
		   const struct journal_record *first);
/* -ENOENT; -EBUSY: somebody has had it for @wait_ms; -EBADMSG */
int journal_open(struct journal *j, const char *dir, enum journal_role role,
		 uint64_t stream_id, unsigned int wait_ms);
/* without a lock; @ret_held: somebody has it */
int journal_peek(const char *dir, enum journal_role role, uint64_t stream_id,
		 struct journal_record *ret, bool *ret_held);
/* durable when it returns 0; nothing is promised when it fails */
int journal_append(struct journal *j, enum journal_type type);
/* of another boot: the copy that it tells of is gone */
bool journal_stale(const struct journal_record *r);
void journal_close(struct journal *j);
/* nothing is promised any more: closes it, and the file goes */
void journal_remove(struct journal *j);
/* all files of @dir; they may be removed meanwhile */
int journal_scan(const char *dir,
		 void (*found)(void *arg, enum journal_role role,
			       uint64_t stream_id), void *arg);

#endif /* MSPD_SESSION_JOURNAL_H */
