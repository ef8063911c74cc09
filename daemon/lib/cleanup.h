/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Scope-bound ownership: a variable declared with one of these gives its
 * resource back when it goes out of scope; steal_*() hands it on.
 */
#ifndef MSPD_LIB_CLEANUP_H
#define MSPD_LIB_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

static inline void cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define _cleanup_close_ _cleanup_(cleanup_close)
#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose)
#define _cleanup_closedir_ _cleanup_(cleanup_closedir)

static inline int steal_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

#define steal_ptr(p) ({ __typeof__(*(p)) _r = *(p); *(p) = NULL; _r; })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif /* MSPD_LIB_CLEANUP_H */
