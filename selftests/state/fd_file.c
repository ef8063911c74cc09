// SPDX-License-Identifier: GPL-2.0
/* Files, directories, devices, memory files; tokens and identity of content */
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bare.h"
#include "lib/cleanup.h"

static struct bare m;
static char dir[] = "/tmp/vasi-files-XXXXXX";
static char path[8][64];

static void name(int i, const char *base)
{
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, base);
}

static void put(const char *file, const char *text, int flags)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void files(void)
{
	guest_must(open("/dev/null", O_RDWR) == 0);
	guest_must(open("/dev/urandom", O_RDONLY | O_CLOEXEC) == 1);
	guest_must(open(path[0], O_RDWR | O_CREAT | O_APPEND, 0600) == 2);
	guest_must(open(path[0], O_RDONLY | O_NONBLOCK) == 3);
	guest_must(open(dir, O_RDONLY | O_DIRECTORY) == 4);
	guest_must(memfd_create("small", MFD_ALLOW_SEALING) == 5);
	guest_must(dup2(2, 9) == 9);
	guest_must(open(path[1], O_PATH) == 6);
	guest_must(write(2, "0123456789", 10) == 10);
	guest_must(open("/proc/self/fd/5", O_RDONLY) == 7);
}

static void files_second(void)
{
	char c[4];

	guest_must(write(9, "abc", 3) == 3);
	guest_must(read(3, c, 4) == 4);
	guest_must(write(5, "memory", 6) == 6);
	guest_must(!fcntl(5, F_ADD_SEALS, F_SEAL_GROW));
	guest_must(!fcntl(3, F_SETFL, O_NONBLOCK | O_NOATIME));
}

static int count_tokens(void)
{
	char cmd[128];
	FILE *f;
	int n = -1;

	snprintf(cmd, sizeof(cmd), "ls -a %s | grep -c vasi-token", dir);
	f = popen(cmd, "re");
	must(f && fscanf(f, "%d", &n) == 1);
	pclose(f);
	return n;
}

static bool is(int nr, int flags, off_t pos)
{
	int fd = bare_fd(&m, nr);
	bool good;

	good = fd >= 0 && (fcntl(fd, F_GETFL) & ~0100000) == flags &&
		(pos < 0 || lseek(fd, 0, SEEK_CUR) == pos);
	if (!good)
		note("fd %d: flags %o, offset %lld", nr, fcntl(fd, F_GETFL),
		     (long long)lseek(fd, 0, SEEK_CUR));
	close(fd);
	return good;
}

static void test_files(void)
{
	char buf[16];
	int fd, r;

	r = bare_all(&m, files, files_second);
	if (!ok(!r, "files: moved")) {
		bare_print(&m);
		return;
	}
	ok(count_tokens() == 1, "one token beside the written file");
	ok(is(0, O_RDWR, -1) && is(1, O_RDONLY, -1), "devices");
	ok(is(2, O_RDWR | O_APPEND, 13) && is(9, O_RDWR | O_APPEND, 13),
	   "a written file with the offset of the end");
	ok(is(3, O_RDONLY | O_NONBLOCK | O_NOATIME, 4), "its reader");
	ok(is(4, O_RDONLY | O_DIRECTORY, 0), "a directory");
	ok(is(6, O_PATH, -1), "an O_PATH descriptor");
	fd = bare_fd(&m, 2);
	ok(write(fd, "d", 1) == 1 && is(9, O_RDWR | O_APPEND, 14),
	   "duplicates share the offset");
	close(fd);
	fd = bare_fd(&m, 7);
	memset(buf, 0, sizeof(buf));
	r = (int)pread(fd, buf, sizeof(buf), 0);
	ok(r == 6 && !memcmp(buf, "memory", 6) && write(fd, "x", 1) < 0,
	   "a memory file through two descriptions");
	close(fd);
	fd = bare_fd(&m, 5);
	ok(fcntl(fd, F_GET_SEALS) == F_SEAL_GROW && is(5, O_RDWR, 6),
	   "with its seals and offset");
	close(fd);
	bare_end(&m);
	ok(count_tokens() == 0, "no token is left");
}

/* -- what is not the same on the target */

static void reader(void)
{
	guest_must(open(path[1], O_RDONLY) == 0);
}

static void writer(void)
{
	guest_must(open(path[2], O_RDWR) == 0);
}

static void nested(void)
{
	guest_must(open(path[2], O_RDWR) == 0);
	guest_must(open(path[5], O_RDWR) == 1);
}

static void captured(guest_part part)
{
	bare_start(&m, part, NULL);
	must(!bare_check(&m) && !bare_capture_early(&m));
	bare_kill(&m);
}

static void refused_by_target(const char *check, const char *object,
			      const char *what)
{
	ok(bare_target_check(&m) && bare_found(&m, check, object), "%s", what);
	if (!bare_found(&m, check, object))
		bare_print(&m);
	bare_end(&m);
}

static void test_differences(void)
{
	captured(reader);
	ok(!bare_target_check(&m), "a file with the same content passes");
	bare_end(&m);

	captured(reader);
	put(path[1], "other text of it", 0);
	refused_by_target("fd.file.same", path[1], "other content is refused");

	captured(reader);
	put(path[1], "longer", O_APPEND);
	refused_by_target("fd.file.same", path[1], "another size is refused");

	captured(reader);
	must(!unlink(path[1]));
	refused_by_target("fd.file.same", path[1], "a missing file is refused");
	put(path[1], "the text it has", 0);

	captured(writer);
	ok(!bare_target_check(&m), "a written file beside a token passes");
	bare_end(&m);

	captured(writer);
	put(path[2], "more", O_APPEND);
	ok(!bare_target_check(&m), "so it does when it grows");
	bare_end(&m);

	/* as on a host where something else is mounted there */
	captured(nested);
	must(!mount("none", path[4], "tmpfs", 0, NULL));
	put(path[5], "", 0);
	refused_by_target("fd.file.shared", path[5],
			  "a file of another mount than its token is refused");
	must(!umount(path[4]));

	/* as on another host, whose directory is another one */
	captured(writer);
	must(m.c.files && m.c.files->nr_tokens == 1);
	must(!unlink(m.c.files->tokens[0].path));
	refused_by_target("fd.file.shared", path[2],
			  "a written file that is not on shared storage is refused");

	captured(writer);
	put(m.c.files->tokens[0].path, "0123456789abcdef", O_TRUNC);
	refused_by_target("fd.file.shared", path[2],
			  "a token of other content proves nothing");
}

/* -- the size in the pause is the one that the source had */
static void test_incoherent(void)
{
	bare_start(&m, writer, NULL);
	must(!bare_capture_early(&m) && !bare_capture_final(&m));
	bare_kill(&m);
	must(!bare_prepare(&m));
	put(path[2], "more", O_APPEND);
	ok(bare_finish(&m) && bare_found(&m, "fd.restore", path[2]),
	   "storage that shows another size in the pause is refused");
	bare_end(&m);
}

/* -- identities */

static void test_fileid(void)
{
	_cleanup_close_ int fd = open("/proc/self/exe", O_RDONLY);
	uint8_t id[64];
	size_t len = sizeof(id);
	Mspd__FileId *file;
	char why[256], real[256];
	ssize_t n = readlink("/proc/self/exe", real, sizeof(real) - 1);

	must(n > 0);
	real[n] = '\0';
	ok(!fileid_build_id(fd, id, &len) && len == 20,
	   "an ELF file has a build ID");
	must(!fileid_capture(real, fd, FILEID_CONTENT, &file));
	ok(file->has_build_id && !file->has_digest && !file->deleted &&
	   !fileid_check(file, why, sizeof(why)), "and is known by it");
	file->build_id.data[3] ^= 1;
	ok(fileid_check(file, why, sizeof(why)) == -ESTALE &&
	   strstr(why, "build ID"), "another build ID is another file");
	mspd__file_id__free_unpacked(file, NULL);
	must(!fileid_capture(path[1], fd, FILEID_CONTENT, &file));
	ok(file->deleted, "a path that leads elsewhere is told");
	mspd__file_id__free_unpacked(file, NULL);
	put(path[3], "not an ELF file, but long enough to have had a header of its own........", 0);
	close(fd);
	fd = open(path[3], O_RDONLY);
	ok(fileid_build_id(fd, id, &len) == -ENOENT,
	   "another file has no build ID");
}

int main(void)
{
	char cmd[64];

	must(mkdtemp(dir));
	name(0, "journal");
	name(1, "data");
	name(2, "log");
	name(3, "text");
	name(4, "nested");
	name(5, "nested/file");
	must(!unshare(CLONE_NEWNS));
	must(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(!mkdir(path[4], 0755));
	put(path[5], "", 0);
	put(path[1], "the text it has", 0);
	put(path[2], "log", 0);
	test_files();
	test_differences();
	test_incoherent();
	test_fileid();
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	must(!system(cmd));
	return tap_end();
}
