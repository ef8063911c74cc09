/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Virtual Asynchronous Services Interface: the mover's door into a guest
 *
 * One open of /dev/vasi takes part in one *stream*: one high-level operation
 * (a migration) on one *guest* (a process with all its threads), named by a
 * 64-bit stream ID that is the same on the source and on the target host.
 */
#ifndef _UAPI_LINUX_VASI_H
#define _UAPI_LINUX_VASI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: General rules of the interface
 *
 * Every command takes a structure that starts with its own ``size`` as known
 * to the caller. A structure may grow: a shorter one (not shorter than the
 * first published version) means zero in the new members, a longer one is
 * taken when its tail is zero. The command number does not encode the size.
 *
 * Flags and reserved members are checked. Outputs are named ``out_*`` and are
 * written on success and where an error below says so. All addresses and
 * lengths of guest memory are in bytes and multiples of the page size, times
 * are in nanoseconds unless the name says otherwise.
 *
 * ============ ==============================================================
 * errno        meaning, for every command
 * ============ ==============================================================
 * ENOTTY       unknown command
 * EINVAL       size below the minimum, or an argument that is understood and
 *              wrong (not aligned, empty, end before start)
 * E2BIG        a nonzero tail beyond the size known to the module
 * EOPNOTSUPP   unknown flag, nonzero reserved member, unsupported value
 * EPERM        no CAP_SYS_PTRACE over the guest's memory
 * ENODEV       this open is not attached to a stream
 * EISCONN      this open is attached already
 * ENOENT       no such stream, object or member
 * EEXIST       the stream ID is in use for another guest or service
 * ESRCH        the guest is gone (exited or killed)
 * ECANCELED    the stream was aborted: by exec, or by a signal
 * EBUSY        wrong state for this command (not suspended, not tracked,
 *              sealed)
 * EOVERFLOW    start plus length wraps
 * EMSGSIZE     output too small, the needed size is in an ``out_`` member
 * ETIMEDOUT    a deadline passed; nothing changed, the culprit is named
 * EFAULT       caller's memory, or the first page of a vector is not mapped
 * ENOSPC       a limit of the module is reached (streams, opens, objects)
 * EINTR        a fatal signal ended the wait
 * ============ ==============================================================
 */

#define VASI_ABI_VERSION	1

/* claimed: type 0xBD, numbers 0x00-0x3f */
#define VASI_TYPE		0xBD
enum {
	VASI_CMD_BASE = 0x00,
	VASI_CMD_QUERY = VASI_CMD_BASE,
	VASI_CMD_ATTACH,
	VASI_CMD_TRACK,
	VASI_CMD_HARVEST,
	VASI_CMD_MARK,
	VASI_CMD_OBJECTS,
	VASI_CMD_PAGES_READ,
	VASI_CMD_PAGES_WRITE,
	VASI_CMD_SUSPEND,
	VASI_CMD_RESUME,
	VASI_CMD_STATE,
	VASI_CMD_SEAL,
	VASI_CMD_STREAMS,
	VASI_CMD_DESTROY,
	VASI_CMD_SIGNAL,
	VASI_CMD_INFO,
	VASI_CMD_PROGRESS,
	VASI_CMD_MAPPINGS,
	VASI_CMD_END,
};

/* enum vasi_feature - bits of vasi_query.out_features */
#define VASI_FEATURE_DBIT	(1ULL << 0) /* tracking by hardware dirty bits */
#define VASI_FEATURE_OBJECTS	(1ULL << 1) /* memory objects */
#define VASI_FEATURE_SUSPEND	(1ULL << 2) /* suspend by task work */
#define VASI_FEATURE_SEAL	(1ULL << 3) /* seal and list */
#define VASI_FEATURE_URING	(1ULL << 4) /* uring_cmd harvest, suspend */
#define VASI_FEATURE_GENL	(1ULL << 5) /* netlink family "vasi" */
#define VASI_FEATURE_MAPPINGS	(1ULL << 6) /* list of mappings' flags */

/**
 * struct vasi_uring - payload of an IORING_OP_URING_CMD on an open
 * @arg: user address of the command's structure, as for ioctl()
 * @__reserved: must be 0
 *
 * The command is in the SQE's cmd_op: VASI_HARVEST or VASI_SUSPEND (others give
 * EOPNOTSUPP). It runs in a worker of the ring, so that the submitter does not
 * wait; the structure and what it points to stay in place until the CQE, whose
 * res is what ioctl() would return (an errno negative). It can't be cancelled,
 * but it is bounded in time, by its deadline or by its range.
 */
struct vasi_uring {
	__aligned_u64 arg;
	__aligned_u64 __reserved;
};

/**
 * struct vasi_query - ioctl(VASI_QUERY): what this module is and can do
 * @size: sizeof(struct vasi_query)
 * @flags: must be 0
 * @out_abi: VASI_ABI_VERSION the module was built with
 * @out_page_size: bytes of a page
 * @out_features: VASI_FEATURE_* bits
 * @out_max_streams: most streams at one time
 * @out_max_opens: most opens of one stream
 * @out_max_vec: most ranges of one vector
 * @out_max_batch: most bytes of one PAGES_READ or PAGES_WRITE
 * @out_xfeatures: state components that a guest may have in XSTATE (XCR0)
 * @out_xstate_size: bytes of the largest XSTATE register set
 * @__reserved: written as 0
 *
 * Needs no attach and no privilege beyond opening the device.
 */
struct vasi_query {
	__u32 size;
	__u32 flags;
	__u32 out_abi;
	__u32 out_page_size;
	__aligned_u64 out_features;
	__u32 out_max_streams;
	__u32 out_max_opens;
	__u32 out_max_vec;
	__u32 out_max_batch;
	__aligned_u64 out_xfeatures;
	__u32 out_xstate_size;
	__u32 __reserved;
};
#define VASI_QUERY	_IO(VASI_TYPE, VASI_CMD_QUERY)

/* services of an open, as in LoPAR */
#define VASI_SERVICE_SOURCE	1
#define VASI_SERVICE_TARGET	2

/* vasi_attach.flags */
#define VASI_ATTACH_JOIN	(1U << 0) /* a further open of a live stream */
#define VASI_ATTACH_SEALED	(1U << 1) /* take over a sealed stream */

/**
 * struct vasi_attach - ioctl(VASI_ATTACH): open a stream on a guest
 * @size: sizeof(struct vasi_attach)
 * @flags: 0, VASI_ATTACH_JOIN or VASI_ATTACH_SEALED
 * @pid: the guest's process ID in the caller's PID namespace; 0 with
 *	VASI_ATTACH_JOIN and VASI_ATTACH_SEALED
 * @service: VASI_SERVICE_SOURCE or VASI_SERVICE_TARGET
 * @stream_id: 64-bit ID, nonzero, the same on both hosts
 * @out_pid: the guest's process ID in the caller's PID namespace
 * @__reserved: must be 0
 *
 * Without flags a new stream is opened. Its ID must not be in use for this
 * service (EEXIST), nor may the guest be in another stream (EBUSY).
 * VASI_ATTACH_JOIN makes this open one more of an existing stream, so that
 * several threads can work on it. VASI_ATTACH_SEALED takes a sealed stream
 * that has no open left; the guest stays sealed.
 *
 * A PID may be recycled between look-up and attach: hold a pidfd, and check
 * that it is alive after the attach.
 *
 * Kernel threads, the caller's own process and PID 1 of any PID namespace are
 * refused (EINVAL). Needs CAP_SYS_PTRACE in the user namespace of the guest's
 * memory. An exec of the guest aborts the stream.
 */
struct vasi_attach {
	__u32 size;
	__u32 flags;
	__s32 pid;
	__u32 service;
	__aligned_u64 stream_id;
	__s32 out_pid;
	__u32 __reserved;
};
#define VASI_ATTACH	_IO(VASI_TYPE, VASI_CMD_ATTACH)

/* vasi_track.op */
#define VASI_TRACK_STOP		0
#define VASI_TRACK_START	1
/* vasi_track.tracker */
#define VASI_TRACKER_DBIT	1

/**
 * struct vasi_track - ioctl(VASI_TRACK): start or stop dirty-page tracking
 * @size: sizeof(struct vasi_track)
 * @flags: must be 0
 * @op: VASI_TRACK_START or VASI_TRACK_STOP
 * @tracker: VASI_TRACKER_DBIT
 *
 * After a start the first harvest reports everything. Starting a started
 * tracker begins anew. The state is one per stream.
 */
struct vasi_track {
	__u32 size;
	__u32 flags;
	__u32 op;
	__u32 tracker;
};
#define VASI_TRACK	_IO(VASI_TYPE, VASI_CMD_TRACK)

/* vasi_range.kind: what is at the address now */
#define VASI_KIND_DATA		0 /* content to be copied */
#define VASI_KIND_ZERO		1 /* reads as zero, is populated */
#define VASI_KIND_HOLE		2 /* nothing private: drop what is there */

/* vasi_range.reason bits: why it is reported */
#define VASI_REASON_FIRST	(1U << 0) /* not reported since the start */
#define VASI_REASON_DIRTY	(1U << 1) /* hardware dirty bit */
#define VASI_REASON_EVENT	(1U << 2) /* the mapping changed */
#define VASI_REASON_FOLIO	(1U << 3) /* folio dirtied by a kernel write */
#define VASI_REASON_PINNED	(1U << 4) /* may be written by DMA any time */
#define VASI_REASON_MARK	(1U << 5) /* given back by VASI_MARK */
#define VASI_REASON_SHADOW	(1U << 6) /* shadow stack: always */

/**
 * struct vasi_range - a run of pages of one kind
 * @start: address (space 0) or offset in the object, bytes, page aligned
 * @pages: number of pages, at least 1
 * @space: 0 = the guest's address space, n = memory object n
 * @member: process of the guest, 0
 * @kind: VASI_KIND_*
 * @shift: log2 of the mapping's size (12, 21), a hint for huge pages
 * @reason: VASI_REASON_* bits of any page in the run
 * @__reserved: 0
 */
struct vasi_range {
	__aligned_u64 start;
	__aligned_u64 pages;
	__u32 space;
	__u16 member;
	__u8 kind;
	__u8 shift;
	__u32 reason;
	__u32 __reserved;
};

/**
 * struct vasi_harvest - ioctl(VASI_HARVEST): read and clear the dirty set
 * @size: sizeof(struct vasi_harvest)
 * @flags: must be 0
 * @space: 0 = the address space, n = memory object n
 * @member: must be 0
 * @__reserved: must be 0
 * @start: first address (or offset)
 * @end: first address not looked at; 0 = to the end
 * @vec: user array of struct vasi_range
 * @vec_len: its length in entries, 1 to vasi_query.out_max_vec
 * @out_count: entries written
 * @max_pages: stop after so many data pages; 0 = no limit. A huge page is
 *	reported whole, so there may be up to 511 more
 * @out_walk_end: where to go on; equal to the end asked for (or to the top of
 *	the space) when all was looked at
 * @out_pages: data pages in the entries written
 * @out_flushes: TLB flushes made
 *
 * A page is reported when its hardware dirty bit is set, when it was changed
 * by a kernel write, when its mapping changed, or when it was never reported;
 * it is reported as what it is now. Reporting takes the evidence away: ranges
 * that were not delivered must be given back by VASI_MARK. If the copy of the
 * entries to user memory fails (EFAULT), the module gives them back itself.
 *
 * The content of a page may be read only after the harvest that reported it.
 *
 * Mappings without content of their own that the mover handles otherwise are
 * passed over: shared ones (memory objects, files), devices, hugetlb. What is
 * not populated is a hole, told once; only of holes larger than 1 GiB every
 * harvest tells again, in one range each.
 *
 * For a memory object the populated extents are reported as data every time
 * and the rest as holes: writes to an object by write(2) or by another mapping
 * leave no trace in page tables, so the caller compares digests.
 *
 * Takes the guest's mmap lock for reading, killable. Several opens of a stream
 * may harvest disjoint ranges at one time.
 */
struct vasi_harvest {
	__u32 size;
	__u32 flags;
	__u32 space;
	__u16 member;
	__u16 __reserved;
	__aligned_u64 start;
	__aligned_u64 end;
	__aligned_u64 vec;
	__u32 vec_len;
	__u32 out_count;
	__aligned_u64 max_pages;
	__aligned_u64 out_walk_end;
	__aligned_u64 out_pages;
	__aligned_u64 out_flushes;
};
#define VASI_HARVEST	_IO(VASI_TYPE, VASI_CMD_HARVEST)

/**
 * struct vasi_mark - ioctl(VASI_MARK): give harvested ranges back
 * @size: sizeof(struct vasi_mark)
 * @flags: must be 0
 * @vec: user array of struct vasi_range; kind, shift and reason are ignored
 * @vec_len: its length in entries
 * @out_count: entries taken
 *
 * The pages are reported again by the next harvest, as what they are then.
 */
struct vasi_mark {
	__u32 size;
	__u32 flags;
	__aligned_u64 vec;
	__u32 vec_len;
	__u32 out_count;
};
#define VASI_MARK	_IO(VASI_TYPE, VASI_CMD_MARK)

/* vasi_object.flags */
#define VASI_OBJECT_ANON	(1U << 0) /* shared-anonymous, no name */
#define VASI_OBJECT_MEMFD	(1U << 1) /* memfd, or unlinked tmpfs file */
#define VASI_OBJECT_OUTSIDE	(1U << 2) /* mapped by another process too */
#define VASI_OBJECT_HUGETLB	(1U << 3) /* not readable here: refuse */
#define VASI_OBJECT_SYSV	(1U << 4) /* System V segment: refuse */

/**
 * struct vasi_object - one memory object that the guest maps
 * @space: its number for ranges, from 1, stable while the stream lives
 * @flags: VASI_OBJECT_* bits
 * @bytes: size of the object
 * @ino: inode number, as in /proc/PID/maps
 * @dev_major: device, as in /proc/PID/maps
 * @dev_minor: device, as in /proc/PID/maps
 * @populated: bytes of it that are populated
 * @seals: F_GET_SEALS value of a memfd
 * @nr_vmas: mappings of it in the guest
 */
struct vasi_object {
	__u32 space;
	__u32 flags;
	__aligned_u64 bytes;
	__aligned_u64 ino;
	__u32 dev_major;
	__u32 dev_minor;
	__aligned_u64 populated;
	__u32 seals;
	__u32 nr_vmas;
};

/**
 * struct vasi_objects - ioctl(VASI_OBJECTS): list the memory objects
 * @size: sizeof(struct vasi_objects)
 * @flags: must be 0
 * @vec: user array of struct vasi_object
 * @vec_len: its length in entries
 * @out_count: entries written; with EMSGSIZE the number needed
 *
 * Looks through the guest's mappings for shared shmem and gives each object
 * that is new a number. To be called each round before its harvests.
 */
struct vasi_objects {
	__u32 size;
	__u32 flags;
	__aligned_u64 vec;
	__u32 vec_len;
	__u32 out_count;
};
#define VASI_OBJECTS	_IO(VASI_TYPE, VASI_CMD_OBJECTS)

/* vasi_mapping.flags: what the mapping is and what was asked for it */
#define VASI_MAP_READ		(1U << 0)
#define VASI_MAP_WRITE		(1U << 1)
#define VASI_MAP_EXEC		(1U << 2)
#define VASI_MAP_SHARED		(1U << 3)
#define VASI_MAP_MAYWRITE	(1U << 4) /* mprotect() may make it writable */
#define VASI_MAP_GROWSDOWN	(1U << 5)
#define VASI_MAP_ACCOUNTED	(1U << 6) /* was writable once */
#define VASI_MAP_NORESERVE	(1U << 7)
#define VASI_MAP_SEQUENTIAL	(1U << 8) /* these by madvise() */
#define VASI_MAP_RANDOM		(1U << 9)
#define VASI_MAP_DONTFORK	(1U << 10)
#define VASI_MAP_DONTDUMP	(1U << 11)
#define VASI_MAP_HUGEPAGE	(1U << 12)
#define VASI_MAP_NOHUGEPAGE	(1U << 13)
#define VASI_MAP_MERGEABLE	(1U << 14)
#define VASI_MAP_WIPEONFORK	(1U << 15)
#define VASI_MAP_LOCKED		(1U << 16) /* these by mlock() */
#define VASI_MAP_LOCKONFAULT	(1U << 17)
/* of these kinds none can be moved */
#define VASI_MAP_HUGETLB	(1U << 24)
#define VASI_MAP_DEVICE		(1U << 25) /* memory that is not pages */
#define VASI_MAP_USERFAULTFD	(1U << 26)
#define VASI_MAP_PKEY		(1U << 27) /* has a protection key */
#define VASI_MAP_SHADOW_STACK	(1U << 28)
#define VASI_MAP_SEALED		(1U << 29) /* by mseal() */
#define VASI_MAP_DROPPABLE	(1U << 30)
#define VASI_MAP_OTHER		(1U << 31) /* a flag unknown to the module */

/**
 * struct vasi_mapping - one mapping of the guest
 * @start: first address
 * @end: first address behind it
 * @flags: VASI_MAP_*
 * @__reserved: 0
 */
struct vasi_mapping {
	__aligned_u64 start;
	__aligned_u64 end;
	__u32 flags;
	__u32 __reserved;
};

/**
 * struct vasi_mappings - ioctl(VASI_MAPPINGS): list the mappings' flags
 * @size: sizeof(struct vasi_mappings)
 * @flags: must be 0
 * @vec: user array of struct vasi_mapping
 * @vec_len: its length in entries; the module writes at most 1048576
 * @out_count: entries written; with EMSGSIZE the number there was
 *
 * In order of addresses and at one moment. What /proc/PID/maps shows is left
 * out; the flags are those that are in smaps alone, where they cost a walk of
 * all page tables. Mappings of the kernel ([vdso], [vvar]) are in the list.
 *
 * Takes the guest's mmap lock for reading, killable.
 */
struct vasi_mappings {
	__u32 size;
	__u32 flags;
	__aligned_u64 vec;
	__u32 vec_len;
	__u32 out_count;
};
#define VASI_MAPPINGS	_IO(VASI_TYPE, VASI_CMD_MAPPINGS)

/**
 * struct vasi_pages - ioctl(VASI_PAGES_READ, VASI_PAGES_WRITE): move content
 * @size: sizeof(struct vasi_pages)
 * @flags: must be 0
 * @vec: user array of struct vasi_range, as VASI_HARVEST wrote it
 * @vec_len: its length in entries
 * @out_count: entries done completely
 * @data: user buffer: the pages of all VASI_KIND_DATA entries, one after
 *	another
 * @data_len: its length in bytes
 * @out_bytes: bytes of data moved
 *
 * Works whatever the protection of the mapping (a page of a PROT_NONE mapping
 * is read and written; a write to a private file mapping makes a private
 * copy). READ passes over entries of other kinds. WRITE clears the pages of
 * VASI_KIND_ZERO entries and passes over VASI_KIND_HOLE ones.
 *
 * Stops at the first page that is not mapped: then out_count is the number of
 * entries before it and out_bytes their data; the call fails with EFAULT only
 * if this is the first entry. A guest that runs may unmap what was harvested;
 * the mover marks such an entry and goes on behind it.
 */
struct vasi_pages {
	__u32 size;
	__u32 flags;
	__aligned_u64 vec;
	__u32 vec_len;
	__u32 out_count;
	__aligned_u64 data;
	__aligned_u64 data_len;
	__aligned_u64 out_bytes;
};
#define VASI_PAGES_READ		_IO(VASI_TYPE, VASI_CMD_PAGES_READ)
#define VASI_PAGES_WRITE	_IO(VASI_TYPE, VASI_CMD_PAGES_WRITE)

/* vasi_suspend.flags */
#define VASI_SUSPEND_PARKED	(1U << 0) /* stopped or traced is not enough */

/* vasi_suspend.out_reason: what the thread in the way was doing */
#define VASI_HOLDUP_NONE	0
#define VASI_HOLDUP_UNINTERRUPTIBLE 1 /* waits in the kernel (storage?) */
#define VASI_HOLDUP_VFORK	2 /* waits for a vforked child */
#define VASI_HOLDUP_RUNNING	3 /* did not come to the kernel in time */
#define VASI_HOLDUP_STORM	4 /* threads are born faster than stopped */
#define VASI_HOLDUP_STOPPED	5 /* stopped or traced, and must not be */

/**
 * struct vasi_suspend - ioctl(VASI_SUSPEND): stop every thread of the guest
 * @size: sizeof(struct vasi_suspend)
 * @flags: 0 or VASI_SUSPEND_PARKED
 * @deadline_ms: milliseconds until it must be done, 1 to 60000
 * @out_threads: threads that are stopped
 * @out_ns: time it took
 * @out_tid: with ETIMEDOUT a thread that did not stop, in the caller's PID
 *	namespace
 * @out_reason: with ETIMEDOUT VASI_HOLDUP_*
 * @out_comm: with ETIMEDOUT the name of that thread
 * @__reserved: must be 0
 *
 * Stops all threads of all processes that share the guest's memory. Each
 * thread captures its own registers. A stopped thread counts as suspended (it
 * parks before its next user instruction), on the target a traced one as well,
 * unless VASI_SUSPEND_PARKED asks for all threads to be parked. On the source a
 * traced thread does not: its tracer may hold it before a system call, which it
 * makes before it parks. When the deadline
 * passes everything that was stopped runs on. Suspending a suspended guest
 * checks again and succeeds.
 *
 * System calls that were interrupted go on after resume without EINTR.
 */
struct vasi_suspend {
	__u32 size;
	__u32 flags;
	__u32 deadline_ms;
	__u32 out_threads;
	__aligned_u64 out_ns;
	__s32 out_tid;
	__u32 out_reason;
	__u8 out_comm[16];
	__aligned_u64 __reserved;
};
#define VASI_SUSPEND	_IO(VASI_TYPE, VASI_CMD_SUSPEND)

/* vasi_resume.flags */
#define VASI_RESUME_UNSEAL	(1U << 0) /* needed when sealed */

/**
 * struct vasi_resume - ioctl(VASI_RESUME): let the guest run
 * @size: sizeof(struct vasi_resume)
 * @flags: 0 or VASI_RESUME_UNSEAL
 *
 * On a source the state goes back to Enabled (a roll-back), on a target on to
 * Resumed. Nothing in it can fail once the arguments are right and the guest
 * is suspended.
 */
struct vasi_resume {
	__u32 size;
	__u32 flags;
};
#define VASI_RESUME	_IO(VASI_TYPE, VASI_CMD_RESUME)

/* vasi_record.type; the payload behind the header is named with each */
#define VASI_REC_PROCESS	1  /* struct vasi_rec_process */
#define VASI_REC_THREAD		2  /* struct vasi_rec_thread */
#define VASI_REC_REGSET		3  /* ELF note content, note type in .note */
#define VASI_REC_RESTART	4  /* struct vasi_rec_restart */
#define VASI_REC_SIGACTION	5  /* 64 struct vasi_rec_sigaction */
#define VASI_REC_SIGPENDING	6  /* array of siginfo_t; tid 0 = shared */
#define VASI_REC_ITIMER		7  /* 3 struct vasi_rec_itimer */
#define VASI_REC_AUXV		8  /* auxiliary vector, as in /proc/PID/auxv */

/**
 * struct vasi_record - header of a state record
 * @bytes: header and payload, a multiple of 8
 * @type: VASI_REC_*
 * @member: process of the guest, 0
 * @tid: thread ID in the guest's innermost PID namespace; 0 = the process
 * @note: ELF note type of a VASI_REC_REGSET
 * @payload: bytes of payload without padding
 * @__reserved: 0
 */
struct vasi_record {
	__u32 bytes;
	__u16 type;
	__u16 member;
	__s32 tid;
	__u32 note;
	__u32 payload;
	__u32 __reserved;
};

/*
 * vasi_rec_process.unmovable, vasi_rec_thread.unmovable: held resources that
 * no /proc file shows; one bit set means: refuse, naming it
 */
#define VASI_HELD_POSIX_TIMERS	(1ULL << 0)
#define VASI_HELD_IO_URING	(1ULL << 1)
#define VASI_HELD_AIO		(1ULL << 2)
#define VASI_HELD_PERF		(1ULL << 3)
#define VASI_HELD_DEBUGREGS	(1ULL << 4)
#define VASI_HELD_LDT		(1ULL << 5)
#define VASI_HELD_PKEYS		(1ULL << 6)
#define VASI_HELD_AMX		(1ULL << 7)
#define VASI_HELD_UPROBES	(1ULL << 8)
#define VASI_HELD_USERFAULTFD	(1ULL << 9)
#define VASI_HELD_SECCOMP	(1ULL << 10)
#define VASI_HELD_TRACED	(1ULL << 11)
#define VASI_HELD_STOPPED	(1ULL << 12)
#define VASI_HELD_MM_SHARED	(1ULL << 13) /* another process on this mm */
#define VASI_HELD_FILES_SHARED	(1ULL << 14) /* fd table shared outside, or */
					     /* not shared by all threads */
#define VASI_HELD_FS_SHARED	(1ULL << 15) /* likewise cwd, root, umask */
#define VASI_HELD_SYSV_UNDO	(1ULL << 16)
#define VASI_HELD_CHILD		(1ULL << 17) /* has child processes */
#define VASI_HELD_SHSTK		(1ULL << 18)
#define VASI_HELD_KEYRING	(1ULL << 19) /* own thread/process keyring */
#define VASI_HELD_IOPORTS	(1ULL << 20)
#define VASI_HELD_CREDS_DIFFER	(1ULL << 21) /* threads differ in creds */
#define VASI_HELD_SYSCALL_DISPATCH (1ULL << 22)

/**
 * struct vasi_rec_process - what belongs to the process
 * @unmovable: VASI_HELD_* bits
 * @start_code: mm layout, as PR_SET_MM_MAP takes it
 * @end_code: mm layout
 * @start_data: mm layout
 * @end_data: mm layout
 * @start_brk: mm layout
 * @brk: mm layout
 * @start_stack: mm layout
 * @arg_start: mm layout
 * @arg_end: mm layout
 * @env_start: mm layout
 * @env_end: mm layout
 * @vdso: address of the vDSO
 * @mmap_base: where top-down mapping starts
 * @def_flags: VM flags of new mappings (mlockall)
 * @dumpable: PR_GET_DUMPABLE value
 * @nr_threads: threads
 * @pid: process ID in the guest's innermost PID namespace
 * @exit_signal: signal to the parent
 * @oom_score_adj: as in /proc
 * @thp_disable: PR_GET_THP_DISABLE value
 * @child_subreaper: PR_GET_CHILD_SUBREAPER value
 * @membarrier: registered membarrier commands (mm->membarrier_state)
 * @xfeatures: components of this process's XSTATE in use
 * @nr_children: child processes
 * @securebits: PR_GET_SECUREBITS value of the leader
 * @clock_monotonic: CLOCK_MONOTONIC of the *host* at capture
 * @clock_boottime: CLOCK_BOOTTIME of the host at capture
 * @timens_monotonic: offset of the guest's time namespace
 * @timens_boottime: offset of the guest's time namespace
 */
struct vasi_rec_process {
	__aligned_u64 unmovable;
	__aligned_u64 start_code;
	__aligned_u64 end_code;
	__aligned_u64 start_data;
	__aligned_u64 end_data;
	__aligned_u64 start_brk;
	__aligned_u64 brk;
	__aligned_u64 start_stack;
	__aligned_u64 arg_start;
	__aligned_u64 arg_end;
	__aligned_u64 env_start;
	__aligned_u64 env_end;
	__aligned_u64 vdso;
	__aligned_u64 mmap_base;
	__aligned_u64 def_flags;
	__u32 dumpable;
	__u32 nr_threads;
	__s32 pid;
	__u32 exit_signal;
	__s32 oom_score_adj;
	__u32 thp_disable;
	__u32 child_subreaper;
	__u32 membarrier;
	__aligned_u64 xfeatures;
	__u32 nr_children;
	__u32 securebits;
	__s64 clock_monotonic;
	__s64 clock_boottime;
	__s64 timens_monotonic;
	__s64 timens_boottime;
};

/* vasi_rec_thread.where: where the thread was stopped */
#define VASI_WHERE_RUNNING	0 /* not suspended: registers are missing */
#define VASI_WHERE_USER		1 /* in user code */
#define VASI_WHERE_SYSCALL	2 /* leaving a system call */
#define VASI_WHERE_IN_SYSCALL	3 /* in one (io_uring, tracer), or ENOSYS */
#define VASI_WHERE_STOPPED	4 /* stopped or traced: registers missing */
#define VASI_WHERE_VFORK	5 /* waits for a vforked child */

/**
 * struct vasi_rec_thread - what belongs to one thread
 * @unmovable: VASI_HELD_* bits
 * @where: VASI_WHERE_*
 * @syscall: number of the system call being left, -1 if none
 * @comm: name
 * @sigmask: blocked signals (the saved mask where one is to be restored)
 * @sas_sp: alternate stack base
 * @sas_size: alternate stack size, 0 = none
 * @sas_flags: SS_* flags
 * @pdeath_signal: PR_GET_PDEATHSIG value
 * @robust_list: head of the robust futex list
 * @robust_len: its length as registered
 * @rseq_len: registered rseq length, 0 = none
 * @clear_child_tid: address cleared at exit
 * @rseq: address of the rseq area
 * @rseq_sig: its signature
 * @rseq_abort: nonzero: stopped inside a critical section, and the registers
 *	in the record continue at its abort handler
 * @timer_slack_ns: PR_GET_TIMERSLACK value
 * @xstate_in_use: XSTATE components in use
 * @fixup: nonzero: an interrupted call was turned into one that restarts
 * @__reserved: 0
 */
struct vasi_rec_thread {
	__aligned_u64 unmovable;
	__u32 where;
	__s32 syscall;
	__u8 comm[16];
	__aligned_u64 sigmask;
	__aligned_u64 sas_sp;
	__aligned_u64 sas_size;
	__u32 sas_flags;
	__u32 pdeath_signal;
	__aligned_u64 robust_list;
	__u32 robust_len;
	__u32 rseq_len;
	__aligned_u64 clear_child_tid;
	__aligned_u64 rseq;
	__u32 rseq_sig;
	__u32 rseq_abort;
	__aligned_u64 timer_slack_ns;
	__aligned_u64 xstate_in_use;
	__u32 fixup;
	__u32 __reserved;
};

/* vasi_rec_restart.kind */
#define VASI_RESTART_NONE	0
#define VASI_RESTART_NANOSLEEP	1 /* nanosleep, clock_nanosleep relative */
#define VASI_RESTART_POLL	2
#define VASI_RESTART_FUTEX	3
#define VASI_RESTART_CPUSLEEP	4 /* clock_nanosleep on a CPU clock */
#define VASI_RESTART_UNKNOWN	5 /* refuse */

/* vasi_rec_restart.user4 of a futex */
#define VASI_RESTART_FUTEX_SHARED	(1U << 0) /* not FUTEX_PRIVATE_FLAG */
#define VASI_RESTART_FUTEX_CLOCKRT	(1U << 1) /* FUTEX_CLOCK_REALTIME */

/**
 * struct vasi_rec_restart - an interrupted call that knows its remaining time
 * @kind: VASI_RESTART_*
 * @clock: clock ID of the sleep
 * @expiry_ns: absolute expiry on that clock as the *host* counts it, -1 = none
 * @remaining_ns: from capture to expiry, >= 0, -1 = no timeout
 * @user1: nanosleep: address of rmtp; poll: address of the pollfd array;
 *	futex: its address
 * @user2: poll: number of entries; futex: expected value
 * @user3: futex: bitset
 * @user4: futex: VASI_RESTART_FUTEX_* bits
 */
struct vasi_rec_restart {
	__u32 kind;
	__s32 clock;
	__s64 expiry_ns;
	__s64 remaining_ns;
	__aligned_u64 user1;
	__aligned_u64 user2;
	__aligned_u64 user3;
	__aligned_u64 user4;
};

/**
 * struct vasi_rec_sigaction - disposition of one signal, 1 to 64 in order
 * @handler: address, 0 = default, 1 = ignore
 * @flags: SA_* bits
 * @restorer: address
 * @mask: blocked while it runs
 */
struct vasi_rec_sigaction {
	__aligned_u64 handler;
	__aligned_u64 flags;
	__aligned_u64 restorer;
	__aligned_u64 mask;
};

/**
 * struct vasi_rec_itimer - interval timer ITIMER_REAL, _VIRTUAL, _PROF in order
 * @value_ns: to the next expiry; of an expired one whose signal is pending the
 *	interval; 0 = disarmed
 * @interval_ns: period, 0 = once
 */
struct vasi_rec_itimer {
	__s64 value_ns;
	__s64 interval_ns;
};

/**
 * struct vasi_state - ioctl(VASI_STATE): process state as typed records
 * @size: sizeof(struct vasi_state)
 * @flags: must be 0
 * @member: must be 0
 * @out_records: records written
 * @buf: user buffer for struct vasi_record and payloads, 8-byte aligned
 * @buf_len: its length in bytes
 * @out_len: bytes written; with EMSGSIZE the number needed
 *
 * Of a suspended guest everything; of a running one a snapshot for validation
 * and preparation: VASI_REC_THREAD with VASI_WHERE_RUNNING and no registers.
 */
struct vasi_state {
	__u32 size;
	__u32 flags;
	__u32 member;
	__u32 out_records;
	__aligned_u64 buf;
	__aligned_u64 buf_len;
	__aligned_u64 out_len;
};
#define VASI_STATE	_IO(VASI_TYPE, VASI_CMD_STATE)

/**
 * struct vasi_seal - ioctl(VASI_SEAL): keep the guest parked without its mover
 * @size: sizeof(struct vasi_seal)
 * @flags: must be 0
 *
 * A sealed guest stays suspended when its stream's opens are closed and their
 * owners die. Only VASI_RESUME with VASI_RESUME_UNSEAL, or VASI_DESTROY, ends
 * it. The guest must be suspended (threads that are still stopped by a tracer
 * count: they park when let go).
 */
struct vasi_seal {
	__u32 size;
	__u32 flags;
};
#define VASI_SEAL	_IO(VASI_TYPE, VASI_CMD_SEAL)

/* states of a stream, as in LoPAR */
#define VASI_STATE_INVALID	0
#define VASI_STATE_ENABLED	1
#define VASI_STATE_ABORTED	2
#define VASI_STATE_SUSPENDING	3
#define VASI_STATE_SUSPENDED	4
#define VASI_STATE_RESUMED	5
#define VASI_STATE_COMPLETED	6
#define VASI_STATE_FAILOVER	7

/* vasi_stream_info.flags */
#define VASI_STREAM_SEALED	(1U << 0)
#define VASI_STREAM_SUSPENDED	(1U << 1)
#define VASI_STREAM_TRACKED	(1U << 2)
#define VASI_STREAM_DEAD	(1U << 3) /* the guest is gone */

/**
 * struct vasi_stream_info - one stream
 * @stream_id: its ID
 * @service: VASI_SERVICE_*
 * @state: VASI_STATE_*
 * @reason: entity that aborted in bits 31..24, detail below; 0 = none
 * @flags: VASI_STREAM_* bits
 * @pid: the guest in the caller's PID namespace, 0 if not visible there
 * @opens: opens that are attached
 * @threads: threads at the last suspend
 * @__reserved: 0
 * @bytes_left: progress, as last told by VASI_PROGRESS
 * @suspended_ns: how long it has been suspended, 0 = is not
 */
struct vasi_stream_info {
	__aligned_u64 stream_id;
	__u32 service;
	__u32 state;
	__u32 reason;
	__u32 flags;
	__s32 pid;
	__u32 opens;
	__u32 threads;
	__u32 __reserved;
	__aligned_u64 bytes_left;
	__aligned_u64 suspended_ns;
};

/* vasi_streams.flags */
#define VASI_STREAMS_SEALED	(1U << 0) /* only sealed ones */

/**
 * struct vasi_streams - ioctl(VASI_STREAMS): list streams, attached or not
 * @size: sizeof(struct vasi_streams)
 * @flags: 0 or VASI_STREAMS_SEALED
 * @vec: user array of struct vasi_stream_info
 * @vec_len: its length in entries
 * @out_count: entries written; with EMSGSIZE the number needed
 *
 * Needs CAP_SYS_PTRACE, but no attach: this is how a restarted mover finds the
 * guests that its predecessor sealed.
 */
struct vasi_streams {
	__u32 size;
	__u32 flags;
	__aligned_u64 vec;
	__u32 vec_len;
	__u32 out_count;
};
#define VASI_STREAMS	_IO(VASI_TYPE, VASI_CMD_STREAMS)

/**
 * struct vasi_destroy - ioctl(VASI_DESTROY): end a guest and its stream
 * @size: sizeof(struct vasi_destroy)
 * @flags: must be 0
 * @stream_id: the stream
 * @service: VASI_SERVICE_*
 * @deadline_ms: how long to wait for the guest's end, 1 to 60000
 *
 * Kills every process that shares the guest's memory and waits until the
 * memory is gone (ETIMEDOUT: it is still going, ask again). The guest must be
 * suspended. The state becomes Completed on a source whose target resumed,
 * else Aborted. Works on an attached stream from one of its opens, and by ID
 * on a sealed one from any open.
 */
struct vasi_destroy {
	__u32 size;
	__u32 flags;
	__aligned_u64 stream_id;
	__u32 service;
	__u32 deadline_ms;
};
#define VASI_DESTROY	_IO(VASI_TYPE, VASI_CMD_DESTROY)

/* vasi_signal.code; 1, 2 and 6 as in LoPAR. Suspend is VASI_SUSPEND. */
#define VASI_SIGNAL_CANCEL	1 /* graceful; refused once suspended */
#define VASI_SIGNAL_ABORT	2 /* at once, and resumes; not if sealed */
#define VASI_SIGNAL_FAILOVER	6 /* one mover pair failed; an event only */
#define VASI_SIGNAL_RESUMED	16 /* sealed source: the target said it runs */
#define VASI_SIGNAL_COMPLETE	17 /* target: all is done */

/* entity in bits 31..24 of a reason */
#define VASI_ENTITY_ORCHESTRATOR 1
#define VASI_ENTITY_SOURCE_MOVER 2
#define VASI_ENTITY_FIRMWARE	3
#define VASI_ENTITY_PLATFORM	4
#define VASI_ENTITY_TARGET_MOVER 5
#define VASI_ENTITY_GUEST	6

/**
 * struct vasi_signal - ioctl(VASI_SIGNAL): tell the stream what happened
 * @size: sizeof(struct vasi_signal)
 * @flags: must be 0
 * @code: VASI_SIGNAL_*
 * @reason: VASI_ENTITY_* << 24 and a detail below; kept with an abort
 *
 * A code that the state does not allow gives EBUSY and changes nothing.
 */
struct vasi_signal {
	__u32 size;
	__u32 flags;
	__u32 code;
	__u32 reason;
};
#define VASI_SIGNAL	_IO(VASI_TYPE, VASI_CMD_SIGNAL)

/* index of vasi_info.out_count */
enum vasi_counter {
	VASI_COUNT_HARVESTS,	/* harvest calls */
	VASI_COUNT_REPORTED,	/* pages reported as data or zero */
	VASI_COUNT_DIRTY,	/* of these for their dirty bit */
	VASI_COUNT_EVENT,	/* of these for an event alone (over-report) */
	VASI_COUNT_FOLIO,	/* of these for a kernel write */
	VASI_COUNT_PINNED,	/* of these for a pin */
	VASI_COUNT_MARKED,	/* pages given back */
	VASI_COUNT_FLUSHES,	/* TLB flushes */
	VASI_COUNT_HARVEST_NS,	/* time in harvest */
	VASI_COUNT_READ_BYTES,	/* bytes read out of the guest */
	VASI_COUNT_WRITE_BYTES,	/* bytes written into the guest */
	VASI_COUNT_SUSPENDS,	/* suspends that succeeded */
	VASI_COUNT_SUSPEND_FAILS, /* suspends that timed out */
	VASI_COUNT_SUSPEND_NS,	/* time in suspend */
	VASI_COUNT_EVENTS,	/* mmu notifier events taken */
	VASI_COUNT_ERRORS,	/* commands that failed */
	VASI_COUNT_MAX,
};

/**
 * struct vasi_info - ioctl(VASI_INFO): state and counters of this stream
 * @size: sizeof(struct vasi_info)
 * @flags: must be 0
 * @out_stream: the stream
 * @out_count: counters, index VASI_COUNT_*
 *
 * Takes the pending state change that poll() shows as EPOLLPRI. poll() shows
 * EPOLLHUP when the guest is gone and EPOLLERR when the stream was aborted.
 */
struct vasi_info {
	__u32 size;
	__u32 flags;
	struct vasi_stream_info out_stream;
	__aligned_u64 out_count[VASI_COUNT_MAX];
};
#define VASI_INFO	_IO(VASI_TYPE, VASI_CMD_INFO)

/**
 * struct vasi_progress - ioctl(VASI_PROGRESS): tell how much is left
 * @size: sizeof(struct vasi_progress)
 * @flags: must be 0
 * @bytes_left: on a source what is dirty, on a target what is expected
 */
struct vasi_progress {
	__u32 size;
	__u32 flags;
	__aligned_u64 bytes_left;
};
#define VASI_PROGRESS	_IO(VASI_TYPE, VASI_CMD_PROGRESS)

#endif /* _UAPI_LINUX_VASI_H */
