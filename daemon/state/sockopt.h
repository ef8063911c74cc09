/* SPDX-License-Identifier: GPL-2.0 */
/* Options of sockets that have no connection */
#ifndef MSPD_STATE_SOCKOPT_H
#define MSPD_STATE_SOCKOPT_H

#include "state/files.h"

/* adds those that are not as a new socket has them to @of; refuses filters */
int sockopt_capture(struct fd_look *look, const struct fd_entry *e, int fd,
		    Mspd__OpenFile *of);
/* sets them; 0, or -errno with the option that failed in @ret_name */
int sockopt_restore(int fd, const Mspd__OpenFile *of, const char **ret_name);
bool sockopt_equal(const Mspd__OpenFile *a, const Mspd__OpenFile *b);
/* family, type, protocol, address */
int socket_capture(const struct fd_entry *e, Mspd__OpenFile *of);
bool socket_equal(const Mspd__OpenFile *a, const Mspd__OpenFile *b);

#endif /* MSPD_STATE_SOCKOPT_H */
