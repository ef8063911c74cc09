// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "lib/boot.h"
#include "lib/cleanup.h"

int boot_id(char ret[BOOT_ID_BYTES])
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id",
				      O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, ret, BOOT_ID_BYTES - 1);
	if (n != BOOT_ID_BYTES - 1)
		return -EIO;
	ret[n] = '\0';
	return 0;
}
