// SPDX-License-Identifier: GPL-2.0
/*
 * Whole text of files in /proc
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "lib/cleanup.h"
#include "state/procfile.h"

#define MAX_BYTES (256UL << 20)

int procfile_read(int dir, const char *name, char **ret, size_t *ret_len)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *buf = NULL;
	size_t room = 0, len = 0;
	ssize_t n;

	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	for (;;) {
		if (room - len < 4096) {
			char *p;

			room = room ? 2 * room : 16384;
			if (room > MAX_BYTES)
				return -EFBIG;
			p = realloc(buf, room);
			if (!p)
				return -ENOMEM;
			buf = p;
		}
		n = read(fd, buf + len, room - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	*ret = steal_ptr(&buf);
	if (ret_len)
		*ret_len = len;
	return 0;
}

const char *procfile_field(const char *text, const char *key)
{
	size_t len = strlen(key);
	const char *p = text;

	while (p) {
		if (!strncmp(p, key, len) && p[len] == ':') {
			p += len + 1;
			return p + strspn(p, " \t");
		}
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	return NULL;
}
