// SPDX-License-Identifier: GPL-2.0
/* Where threads go on; records that are not whole */
#include <stdint.h>
#include <sys/syscall.h>
#include "state/records.h"
#include "state/regs.h"
#include "tap.h"

static const struct {
	const char *name;
	long orig, ax;
	bool armed;
	long value;		/* of the call made again */
	long want_ax;
	int back;		/* bytes that rip goes back */
} rows[] = {
	{ "in user code", -1, 77, false, 0, 77, 0 },
	{ "in user code, with what looks like a restart", -1, -512, false, 0,
	  -512, 0 },
	{ "call done", __NR_read, 5, false, 0, 5, 0 },
	{ "call failed", __NR_read, -EIO, false, 0, -EIO, 0 },
	{ "ERESTARTSYS", __NR_read, -ERESTARTSYS, false, 0, __NR_read, 2 },
	{ "ERESTARTNOINTR", __NR_clone, -ERESTARTNOINTR, false, 0, __NR_clone,
	  2 },
	{ "ERESTARTNOHAND", __NR_epoll_wait, -ERESTARTNOHAND, false, 0,
	  __NR_epoll_wait, 2 },
	{ "restart block, armed", __NR_nanosleep, -ERESTART_RESTARTBLOCK, true,
	  0, __NR_restart_syscall, 2 },
	{ "restart block of a second hop", __NR_restart_syscall,
	  -ERESTART_RESTARTBLOCK, true, 0, __NR_restart_syscall, 2 },
	{ "restart block, its time was over", __NR_nanosleep,
	  -ERESTART_RESTARTBLOCK, false, 0, 0, 0 },
	{ "restart block, its futex had changed", __NR_futex,
	  -ERESTART_RESTARTBLOCK, false, -EAGAIN, -EAGAIN, 0 },
};

static void test_regs(void)
{
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct user_regs_struct r = {
			.rip = 0x401000, .rax = (unsigned long)rows[i].ax,
			.orig_rax = (unsigned long)rows[i].orig, .rbx = 42,
		};
		const struct rearmed rearmed = { rows[i].armed, rows[i].value };

		regs_fix(&r, &rearmed);
		ok((long)r.rax == rows[i].want_ax &&
		   r.rip == 0x401000UL - (unsigned long)rows[i].back &&
		   (long)r.orig_rax == -1 && r.rbx == 42, "%s", rows[i].name);
	}
}

static void test_records(void)
{
	struct {
		struct vasi_record a;
		uint64_t pa[2];
		struct vasi_record b;
	} buf = {
		.a = { .bytes = 40, .type = 1, .tid = 7, .payload = 13 },
		.b = { .bytes = 24, .type = 2 },
	};
	const struct vasi_record *rec = NULL;
	int n = 0;

	ok(!records_valid(&buf, sizeof(buf)) && !records_valid(&buf, 0),
	   "whole records");
	while ((rec = record_next(&buf, sizeof(buf), rec)))
		n++;
	ok(n == 2 && record_find(&buf, sizeof(buf), 2, 0) == &buf.b &&
	   !record_find(&buf, sizeof(buf), 2, 1), "next and find");
	ok(record_get(&buf, sizeof(buf), 1, 7, 13) == buf.pa &&
	   !record_get(&buf, sizeof(buf), 1, 7, 14), "payload by size");
	ok(records_valid(&buf, sizeof(buf) - 8) == -EPROTO, "cut off");
	buf.b.bytes = 0;
	ok(records_valid(&buf, sizeof(buf)) == -EPROTO, "without end");
	buf.b.bytes = 24;
	buf.b.payload = 8;
	ok(records_valid(&buf, sizeof(buf)) == -EPROTO,
	   "payload behind its record");
}

int main(void)
{
	test_regs();
	test_records();
	return tap_end();
}
