// SPDX-License-Identifier: GPL-2.0
/*
 * Writes that no page table sees: the kernel's, through get_user_pages
 */
#include <sys/uio.h>

#include "../vasi_test.h"
#include "track.h"

#define PAGES 64

enum what { PREPARE, VM_WRITEV, PROC_MEM, DIRECT, SUM };

static int64_t act(int what, int64_t *arg)
{
	char buf[PAGE];
	struct iovec local = { buf, sizeof(buf) }, remote;
	char *p = (char *)arg[0];
	int64_t i, sum = 0;
	int fd;

	memset(buf, (int)arg[1], sizeof(buf));
	switch (what) {
	case PREPARE:
		p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(p, PAGES * PAGE, MADV_NOHUGEPAGE);
		memset(p, 1, PAGES * PAGE);
		return (int64_t)p;
	case VM_WRITEV:
		remote = (struct iovec) { p, sizeof(buf) };
		return process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	case PROC_MEM:
		fd = open("/proc/self/mem", O_WRONLY | O_CLOEXEC);
		i = pwrite(fd, buf, sizeof(buf), (off_t)p);
		close(fd);
		return i;
	case DIRECT:
		fd = open("/dev/zram1", O_RDONLY | O_DIRECT | O_CLOEXEC);
		i = read(fd, p, 16 * PAGE);
		close(fd);
		return i;
	case SUM:
		for (i = 0; i < (int64_t)(PAGES * PAGE); i++)
			sum += p[i];
		return sum;
	}
	return -1;
}

static struct doer guest;
static uint64_t arena;

/* what the last harvest reported is what the copy gets */
static unsigned char copy[PAGES * PAGE];

static void copy_range(const struct vasi_range *r, void *arg)
{
	(void)arg;
	if (r->kind == VASI_KIND_DATA)
		must(!read_pages(guest.fd, r->start, r->pages,
				 copy + (r->start - arena)));
}

static void row(const char *name, int64_t got, int64_t want, uint64_t pages)
{
	struct tally t = {0};
	int64_t sum = 0;
	size_t i;

	must(!harvest(guest.fd, arena, arena + sizeof(copy), &t, copy_range,
		      NULL));
	for (i = 0; i < sizeof(copy); i++)
		sum += (signed char)copy[i];
	ok(got == want && t.data >= pages && t.data <= PAGES,
	   "%s is reported", name);
	if (got != want || t.data < pages)
		note("result %lld, %llu pages, reasons %x", (long long)got,
		     (unsigned long long)t.data, t.reasons);
	ok(sum == doer_do(&guest, SUM, arena, 0, 0), "%s: the copy is right",
	   name);
}

int main(void)
{
	static char block[16 * PAGE];
	int fd;

	doer_start(&guest, act);
	arena = doer_do(&guest, PREPARE, 0, 0, 0);
	must(!track(guest.fd, VASI_TRACK_START));
	must(!harvest(guest.fd, arena, arena + sizeof(copy), NULL, copy_range,
		      NULL));
	must(!settle(guest.fd, arena, arena + sizeof(copy)));

	row("process_vm_writev", doer_do(&guest, VM_WRITEV, arena + 3 * PAGE, 5,
					 0), PAGE, 1);
	row("a write to /proc/self/mem", doer_do(&guest, PROC_MEM,
						 arena + 9 * PAGE, 6, 0),
	    PAGE, 1);
	if (system("modprobe zram num_devices=2 2>/dev/null") ||
	    (!write_file("/sys/block/zram1/disksize", "1048576") &&
	     access("/dev/zram1", R_OK))) {
		ok(true, "O_DIRECT # SKIP no zram");
	} else {
		memset(block, 7, sizeof(block));
		fd = open("/dev/zram1", O_WRONLY | O_CLOEXEC);
		must(write(fd, block, sizeof(block)) == sizeof(block));
		must(!fsync(fd));
		close(fd);
		row("an O_DIRECT read", doer_do(&guest, DIRECT,
						arena + 20 * PAGE, 7, 0),
		    sizeof(block), 16);
	}
	/* a write by the mover is one of these too */
	memset(block, 9, PAGE);
	must(!write_pages(guest.fd, arena + 50 * PAGE, 1, block));
	row("a write by another mover", 0, 0, 1);
	doer_end(&guest);
	return tap_end();
}
