// SPDX-License-Identifier: GPL-2.0
/*
 * Journals: what is read is what was promised, or nothing is read
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "engine/fault.h"
#include "session/journal.h"
#include "tap.h"

#define STREAM	0x1122334455667788

static char dir[] = "/tmp/journal-test.XXXXXX";

static struct journal_record record(enum journal_role role,
				    enum journal_type type)
{
	return (struct journal_record){
		.role = role, .type = type, .boot = "a boot",
		.stream_id = STREAM, .guest = "web",
		.uuid = "01234567-89ab-cdef-0123-456789abcdef", .pid = 4711,
		.access = "user", .cgroup = "/sys/fs/cgroup/mspd.guests/web",
		.host = "2001:db8::1", .port = 7700, .time = 1700000000,
	};
}

/* so many records of a target, one after the other */
static size_t text_of(char *buf, size_t len, const enum journal_type *types,
		      size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		struct journal_record r = record(JOURNAL_TARGET, types[i]);
		int add = journal_encode(&r, buf + at, len - at);

		must(add > 0);
		at += add;
	}
	return at;
}

static const enum journal_type course[] = {
	JOURNAL_BEGIN, JOURNAL_PREPARED, JOURNAL_COMMIT,
};

static void test_text(void)
{
	struct journal_record r = record(JOURNAL_SOURCE, JOURNAL_BEGIN), got;
	char text[4096];
	size_t end = 0, len;
	int n;

	n = journal_encode(&r, text, sizeof(text));
	ok(n > 0 && text[n - 1] == '\n' && !memchr(text, '\n', n - 1),
	   "a record is a line");
	ok(!journal_parse(text, n, &got, &end) && end == (size_t)n &&
	   got.role == r.role && got.type == r.type &&
	   got.stream_id == STREAM && got.pid == 4711 && got.port == 7700 &&
	   got.time == r.time && !strcmp(got.boot, r.boot) &&
	   !strcmp(got.guest, r.guest) && !strcmp(got.uuid, r.uuid) &&
	   !strcmp(got.access, r.access) && !strcmp(got.cgroup, r.cgroup) &&
	   !strcmp(got.host, r.host), "and says the same when it is read");
	len = text_of(text, sizeof(text), course, 3);
	ok(!journal_parse(text, len, &got, &end) && end == len &&
	   got.type == JOURNAL_COMMIT, "the last record counts");
}

/* wherever the last record is cut it was not written; the others were */
static void test_torn(void)
{
	char text[4096], zeros[4096];
	struct journal_record got;
	size_t end, two, three, bad = 0;

	two = text_of(text, sizeof(text), course, 2);
	three = text_of(text, sizeof(text), course, 3);
	for (size_t len = two; len < three; len++)
		if (journal_parse(text, len, &got, &end) || end != two ||
		    got.type != JOURNAL_PREPARED)
			bad++;
	ok(!bad, "a torn last record counts as not written (%zu cuts)",
	   three - two);
	/* the file was longer already, its content had not come */
	memcpy(zeros, text, three);
	memset(zeros + two + 10, 0, three - two - 11);
	ok(!journal_parse(zeros, three, &got, &end) && end == two,
	   "also if its blocks came in another order");
	ok(journal_parse(text, two / 4, &got, &end) == -EBADMSG &&
	   journal_parse(text, 0, &got, &end) == -EBADMSG,
	   "a journal without a record is none");
}

static bool refused(const char *text, size_t len)
{
	struct journal_record got;
	size_t end;

	return journal_parse(text, len, &got, &end) == -EBADMSG;
}

/* replaces the first @from; the lengths are the same */
static void change(char *text, const char *from, const char *to)
{
	char *at = strstr(text, from);

	must(at && strlen(from) == strlen(to));
	memcpy(at, to, strlen(to));
}

static void test_unknown(void)
{
	static const char *const changes[][2] = {
		{ "\"version\":1", "\"version\":2" },
		{ "\"type\":\"prepared\"", "\"type\":\"pretense\"" },
		{ "\"role\":\"target\"", "\"role\":\"tarnet\"" },
		{ "\"guest\"", "\"ghost\"" },
		{ "1122334455667788", "1122334455667xyz" },
		{ "\"pid\":4711", "\"pid\":-711" },
		{ "\"port\":7700", "\"port\":\"770" },
	};
	enum journal_type twice[] = { JOURNAL_BEGIN, JOURNAL_BEGIN };
	enum journal_type back[] = {
		JOURNAL_BEGIN, JOURNAL_PREPARED, JOURNAL_REFUSED,
		JOURNAL_COMMIT,
	};
	enum journal_type late[] = { JOURNAL_COMMIT };
	char text[8192];
	size_t len;

	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		len = text_of(text, sizeof(text) - 1, course, 3);
		text[len] = '\0';
		change(text, changes[i][0], changes[i][1]);
		ok(refused(text, len), "%s is refused", changes[i][1]);
	}
	len = text_of(text, sizeof(text), twice, 2);
	ok(refused(text, len), "two beginnings");
	len = text_of(text, sizeof(text), back, 4);
	ok(refused(text, len), "a commit of what was refused");
	len = text_of(text, sizeof(text), late, 1);
	ok(refused(text, len), "a commit of what was never begun");
	len = text_of(text, sizeof(text), course, 2);
	text[len] = '\n';
	text[len + 1] = '\n';
	ok(refused(text, len + 2), "an empty line in the middle");
}

static int count(int add)
{
	static int n;

	n += add;
	return n;
}

static void found(void *arg, enum journal_role role, uint64_t stream_id)
{
	(void)arg;
	must(stream_id == STREAM && role <= JOURNAL_TARGET);
	count(1);
}

static int files(void)
{
	count(-count(0));
	must(!journal_scan(dir, found, NULL));
	return count(0);
}

static void test_file(void)
{
	struct journal_record r = record(JOURNAL_TARGET, JOURNAL_BEGIN), seen;
	struct journal j, other;
	char path[64];
	bool held;
	int fd;

	ok(!journal_create(&j, dir, &r) && files() == 1, "a file");
	ok(journal_create(&other, dir, &r) == -EEXIST, "is made once");
	ok(journal_open(&other, dir, JOURNAL_TARGET, STREAM, 0) == -EBUSY,
	   "and is one process's alone");
	ok(!journal_peek(dir, JOURNAL_TARGET, STREAM, &seen, &held) && held &&
	   seen.type == JOURNAL_BEGIN, "others may read it, and see that");
	ok(journal_append(&j, JOURNAL_COMMIT) == -EPROTO &&
	   !journal_append(&j, JOURNAL_PREPARED) &&
	   !journal_append(&j, JOURNAL_COMMIT), "records in their order only");
	journal_close(&j);

	snprintf(path, sizeof(path), "%s/%016llx.target", dir,
		 (unsigned long long)STREAM);
	fd = open(path, O_WRONLY | O_APPEND);
	must(fd >= 0 && write(fd, "{\"version\":1,\"ro", 16) == 16);
	close(fd);
	ok(!journal_open(&j, dir, JOURNAL_TARGET, STREAM, 0) &&
	   j.last.type == JOURNAL_COMMIT && !journal_stale(&j.last),
	   "a torn tail is cut off");
	ok(!journal_append(&j, JOURNAL_REFUSED), "and written over");
	journal_close(&j);
	ok(!journal_open(&j, dir, JOURNAL_TARGET, STREAM, 0) &&
	   j.last.type == JOURNAL_REFUSED, "which is read again");
	strcpy(j.last.boot, "another boot");
	ok(journal_stale(&j.last), "another boot is noticed");
	ok(journal_open(&other, dir, JOURNAL_SOURCE, STREAM, 0) == -ENOENT,
	   "the other side's is another file");
	journal_remove(&j);
	ok(!files() && journal_open(&j, dir, JOURNAL_TARGET, STREAM, 0) ==
	   -ENOENT, "and it goes");

	fd = open(path, O_WRONLY | O_CREAT, 0600);
	must(fd >= 0 && write(fd, "no journal\nat all\n", 18) == 18);
	close(fd);
	ok(journal_open(&j, dir, JOURNAL_TARGET, STREAM, 0) == -EBADMSG,
	   "what nobody wrote is not read");
	unlink(path);
}

/* one who waits for the lock gets a file that is gone: none */
static void test_removed(void)
{
	struct journal_record r = record(JOURNAL_TARGET, JOURNAL_BEGIN);
	struct journal j, other;
	int status;
	pid_t pid;

	must(!journal_create(&j, dir, &r));
	fflush(stdout);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		/* the lock is of the open file, which is the parent's too */
		close(j.fd);
		_exit(journal_open(&other, dir, JOURNAL_TARGET, STREAM,
				   5000) == -ENOENT ? 0 : 1);
	}
	usleep(200000);
	journal_remove(&j);
	must(waitpid(pid, &status, 0) == pid);
	ok(WIFEXITED(status) && !WEXITSTATUS(status),
	   "a file that goes while one waits for it is not there");
}

static void test_full(void)
{
	struct journal_record r = record(JOURNAL_TARGET, JOURNAL_BEGIN);
	struct journal j;
	off_t end;

	must(!journal_create(&j, dir, &r));
	end = j.end;
	setenv("MSPD_FAULT", "journal=target.prepared", 1);
	fault_init();
	ok(journal_append(&j, JOURNAL_PREPARED) == -ENOSPC && j.end == end &&
	   j.last.type == JOURNAL_BEGIN, "a full disk promises nothing");
	unsetenv("MSPD_FAULT");
	fault_init();
	ok(!journal_append(&j, JOURNAL_REFUSED), "and the next record may do");
	journal_remove(&j);
}

int main(void)
{
	must(mkdtemp(dir));
	test_text();
	test_torn();
	test_unknown();
	test_file();
	test_removed();
	test_full();
	rmdir(dir);
	return tap_end();
}
