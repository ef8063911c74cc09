/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How many may knock, and how often
 *
 * Whoever connects costs a worker until it has shown that it may: so there are
 * places for a few strangers, fewer for those of one address, and no address may
 * come again and again at any pace. Who is refused is closed without a word.
 */
#ifndef MSPD_CONTROL_DOOR_H
#define MSPD_CONTROL_DOOR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* strangers at one time; of one address as many as it can have migrations */
#define DOOR_PLACES	32
#define DOOR_PER_HOST	16
/* an address may come so often at once, and then so often in a second */
#define DOOR_BURST	32
#define DOOR_PER_S	8
/* addresses that are remembered, those of whom the least is known give way */
#define DOOR_HOSTS	64

/**
 * struct door_host - an address
 * @host: as text
 * @full_ns: when its allowance is whole again
 */
struct door_host {
	char host[INET6_ADDRSTRLEN];
	int64_t full_ns;
};

/**
 * struct door - the addresses that came last
 * @v: of them
 * @told_ns: when the log was told that some are refused
 * @refused: since then
 */
struct door {
	struct door_host v[DOOR_HOSTS];
	int64_t told_ns;
	unsigned int refused;
};

/*
 * Whether one more connection of @host may be taken at @now, when there are
 * @same strangers of that address. The caller makes room if all places are taken.
 */
bool door_open(struct door *d, const char *host, unsigned int same,
	       int64_t now);

#endif /* MSPD_CONTROL_DOOR_H */
