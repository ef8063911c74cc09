// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking by soft-dirty bits, on a folder that looks like one of /proc: what
 * its entries are is the test's to say, and no kernel has to have the bits
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tap.h"
#include "usertrack.h"

#define BASE	0x10000000UL
#define PAGES	64UL
#define FILE_AT	(BASE + PAGES * PAGE)

static int dir;
static int stops, goes;
static struct tracker *t;

static int stop(void *arg)
{
	(void)arg;
	stops++;
	return 0;
}

static void go(void *arg)
{
	(void)arg;
	goes++;
}

static int make(const char *name)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
			0600);

	must(fd >= 0);
	return fd;
}

static void maps(const char *text)
{
	int fd = make("maps");

	must(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void entries(uint64_t at, size_t n, uint64_t entry)
{
	int fd = openat(dir, "pagemap", O_WRONLY | O_CLOEXEC);

	must(fd >= 0);
	for (size_t i = 0; i < n; i++)
		must(pwrite(fd, &entry, sizeof(entry),
			    (off_t)((at / PAGE + i) * sizeof(entry))) ==
		     sizeof(entry));
	close(fd);
}

/* as the kernel does it when "4" is written to clear_refs */
static bool cleared(void)
{
	int fd = openat(dir, "clear_refs", O_RDWR | O_CLOEXEC);
	char c = 0;
	bool good = read(fd, &c, 1) == 1 && c == '4';

	must(!ftruncate(fd, 0));
	close(fd);
	fd = openat(dir, "pagemap", O_RDWR | O_CLOEXEC);
	for (size_t i = 0; i < 2 * PAGES; i++) {
		off_t pos = (off_t)((BASE / PAGE + i) * sizeof(uint64_t));
		uint64_t entry;

		must(pread(fd, &entry, sizeof(entry), pos) == sizeof(entry));
		entry &= ~PAGEMAP_SOFT_DIRTY;
		must(pwrite(fd, &entry, sizeof(entry), pos) == sizeof(entry));
	}
	close(fd);
	return good;
}

static void row(const char *name, uint64_t data, uint64_t hole,
		uint64_t ranges)
{
	struct vasi_range vec[32];
	uint64_t d = 0, h = 0, end;
	size_t n = 0;
	int ret;

	ret = tracker_harvest(t, 0, 0, 0, vec, 32, &n, &end);
	for (size_t i = 0; i < n && !ret; i++) {
		d += vec[i].kind == VASI_KIND_DATA ? vec[i].pages : 0;
		h += vec[i].kind == VASI_KIND_HOLE ? vec[i].pages : 0;
	}
	if (!ok(!ret && d == data && h == hole && n == ranges, "%s", name))
		note("ret %d data %llu hole %llu ranges %zu", ret,
		     (unsigned long long)d, (unsigned long long)h, n);
	if (!ok(cleared(), "%s: the bits are cleared", name))
		note("nothing was written to clear_refs");
}

static const char both[] =
	"10000000-10040000 rw-p 00000000 00:00 0 \n"
	"10040000-10080000 rw-p 00000000 08:01 77   /usr/lib/x\n"
	"20000000-20001000 rw-s 00000000 00:01 5    /memfd:x (deleted)\n"
	"7ffe00000000-7ffe00002000 r--p 00000000 00:00 0 [vvar]\n";
static const char first_gone[] =
	"10040000-10080000 rw-p 00000000 08:01 77   /usr/lib/x\n";

static void rows(void)
{
	const uint64_t page = PAGEMAP_PRESENT | 0x55;

	entries(BASE, 2 * PAGES, 0);
	entries(BASE, 10, page);
	entries(FILE_AT, 4, page | PAGEMAP_FILE);
	entries(FILE_AT + 4 * PAGE, 1, page);
	maps(both);
	row("everything", 11, PAGES - 10 + PAGES - 1, 4);
	row("an idle guest", 0, 0, 0);
	entries(BASE + 3 * PAGE, 2, page | PAGEMAP_SOFT_DIRTY);
	entries(BASE + 20 * PAGE, 1, page | PAGEMAP_SOFT_DIRTY);
	row("written pages", 3, 0, 2);
	row("once", 0, 0, 0);
	entries(BASE + 3 * PAGE, 2, 0);
	row("pages that are gone", 0, 2, 1);
	entries(FILE_AT + 4 * PAGE, 1, page | PAGEMAP_FILE);
	row("a file's page in the place of a private one", 0, 1, 1);
	entries(BASE + 30 * PAGE, 5, PAGEMAP_SWAPPED | PAGEMAP_SOFT_DIRTY | 1);
	row("written and swapped out", 5, 0, 1);
	/* a mapping at the place of another has the bit everywhere */
	maps(first_gone);
	row("a mapping that is gone", 0, 0, 0);
	maps(both);
	entries(BASE, PAGES, PAGEMAP_SOFT_DIRTY);
	entries(BASE + PAGE, 1, page | PAGEMAP_SOFT_DIRTY);
	row("a new one at its place", 1, PAGES - 1, 3);
	/* mremap() leaves what was never populated without it */
	maps(first_gone);
	row("gone again", 0, 0, 0);
	maps(both);
	entries(BASE, PAGES, 0);
	entries(BASE + 7 * PAGE, 1, page | PAGEMAP_SOFT_DIRTY);
	row("one that was moved there", 1, 1, 2);
	ok(stops == goes && stops == 11, "stopped once a pass");
}

static void pieces(void)
{
	const uint64_t page = PAGEMAP_PRESENT | PAGEMAP_SOFT_DIRTY | 0x55;
	struct vasi_range vec[2];
	uint64_t at = 0, pages = 0;
	size_t n, calls = 0;
	int before = stops;

	for (size_t i = 0; i < PAGES; i += 4)
		entries(BASE + i * PAGE, 1, page);
	do {
		must(!tracker_harvest(t, at, 0, 0, vec, 2, &n, &at));
		for (size_t i = 0; i < n; i++)
			pages += vec[i].kind == VASI_KIND_DATA ? vec[i].pages :
								 0;
		calls++;
	} while (n);
	ok(pages == PAGES / 4 && calls > PAGES / 8 && stops == before + 1,
	   "a pass in pieces stops the guest once");
	must(cleared());
}

int main(void)
{
	struct track_host host = { .stop = stop, .go = go };
	char path[] = "/tmp/softdirty.XXXXXX";

	if (!track_chosen()) {
		printf("1..0 # SKIP no tracker works on this host\n");
		return 4;
	}
	must(mkdtemp(path));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(dir >= 0);
	close(make("pagemap"));
	close(make("clear_refs"));
	host.proc = dir;
	must(!tracker_new(&t, &host));
	t->ops = &track_softdirty;
	ok(!tracker_track(t, true), "start");
	rows();
	pieces();
	tracker_free(t);
	for (size_t i = 0; i < 3; i++)
		unlinkat(dir, (const char *[]){ "maps", "pagemap",
						"clear_refs" }[i], 0);
	rmdir(path);
	return tap_end();
}
