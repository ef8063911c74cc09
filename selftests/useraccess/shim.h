/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The module's tests, run on the access that needs no module
 *
 * A test of the module speaks to /dev/vasi. Included first, this has it speak
 * to an access in its own process instead: open(), ioctl() and close() of that
 * device are calls of struct guest_access.
 */
#ifndef USERACCESS_SHIM_H
#define USERACCESS_SHIM_H

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int shim_open(const char *path, int flags, ...);
int shim_ioctl(int fd, unsigned long nr, void *arg);
int shim_close(int fd);
/* there is no module: whoever would remove it finds it busy */
long shim_syscall(long nr, ...);
/* no root, or no cgroup2: prints a plan that says so */
int shim_usable(void);

#ifndef SHIM_ITSELF
#define open shim_open
#define ioctl shim_ioctl
#define close shim_close
#define syscall shim_syscall
#define main module_test
#endif

#endif /* USERACCESS_SHIM_H */
