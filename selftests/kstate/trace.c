// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints: each fires where it should, with the stream's ID
 */
#include <sys/mount.h>

#include "vasi_test.h"

#define TRACEFS "/sys/kernel/tracing"

static bool put(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY);
	bool good;

	if (fd < 0)
		return false;
	good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

/* is there a line with all three? */
static bool traced(const char *event, const char *stream, const char *what)
{
	FILE *f = fopen(TRACEFS "/trace", "r");
	char line[1024];
	bool found = false;

	must(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, event) && strstr(line, stream) &&
			strstr(line, what);
	fclose(f);
	return found;
}

int main(void)
{
	struct vasi_track track = {
		.size = sizeof(track),
		.op = VASI_TRACK_START,
		.tracker = VASI_TRACKER_DBIT,
	};
	static struct vasi_range vec[1024];
	struct vasi_harvest harvest = {
		.size = sizeof(harvest),
		.vec = (uintptr_t)vec,
		.vec_len = 1024,
	};
	uint64_t id = new_stream_id();
	char stream[64];
	pid_t pid;
	int fd = -1;

	mount("tracefs", TRACEFS, "tracefs", 0, NULL);
	if (!put(TRACEFS "/events/vasi/enable", "1")) {
		printf("1..0 # SKIP no tracefs\n");
		return 4;
	}
	pid = fork_guest();
	if (!pid)
		for (;;)
			pause();
	snprintf(stream, sizeof(stream), "stream=%llx ", (unsigned long long)id);
	must(!vasi_attach_as(pid, VASI_SERVICE_SOURCE, id, &fd));
	must(!vasi_cmd(fd, VASI_TRACK, &track));
	must(!vasi_cmd(fd, VASI_HARVEST, &harvest));
	must(!suspend(fd) && !resume(fd));
	close(fd);
	put(TRACEFS "/events/vasi/enable", "0");

	ok(traced("vasi_harvest:", stream, "pages="), "vasi_harvest");
	ok(traced("vasi_suspend:", stream, "threads=1 "), "vasi_suspend");
	ok(traced("vasi_suspend:", stream, "ret=0 tid=0"), "its result");
	ok(traced("vasi_resume:", stream, "ns="), "vasi_resume");
	ok(traced("vasi_state:", stream, "from=3 to=4"), "vasi_state");
	ok(traced("vasi_abort:", stream, "service=1 reason=2000000"),
	   "vasi_abort, when the mover goes");
	end_guest(pid);
	return tap_end();
}
