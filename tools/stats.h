/* SPDX-License-Identifier: GPL-2.0 */
/*
 * State and counters of the streams of /dev/vasi, by generic netlink
 *
 * The only caller of libnl here; everything returns -errno.
 */
#ifndef MSPCTL_STATS_H
#define MSPCTL_STATS_H

#include <linux/vasi.h>
#include <linux/vasi_genl.h>
#include <stddef.h>
#include <stdint.h>

struct nl_sock;

/**
 * struct stats - the netlink socket
 * @sock: connected
 * @family: number of the family
 */
struct stats {
	struct nl_sock *sock;
	int family;
};

/* -ENOENT: the module is not loaded */
int stats_open(struct stats *s);
void stats_close(struct stats *s);
/* all streams; @ret is to be freed */
int stats_dump(struct stats *s, struct vasi_info **ret, size_t *ret_n);
/* sets the counters of one stream to zero */
int stats_reset(struct stats *s, uint64_t stream_id, uint32_t service);

#endif /* MSPCTL_STATS_H */
