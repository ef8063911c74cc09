/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the configuration file and the command line say
 */
#ifndef MSPD_CONFIG_H
#define MSPD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include "guest/choose.h"
#include "lib/compress.h"
#include "state/state.h"

#define CONFIG_PATH		"/etc/mspd/mspd.conf"
#define CONFIG_PORT		7700
#define CONFIG_SOCKET		"/run/mspd/control.sock"
#define CONFIG_STATE_DIR	"/var/lib/mspd"
#define CONFIG_KEYS		"/etc/mspd/keys"

/* TLS with other hosts */
enum tls_wish { TLS_REQUIRED, TLS_OFF };

/**
 * struct config - all settings, with their defaults after config_init()
 * @listen: address for peers
 * @port: port for peers
 * @socket: control socket
 * @state_dir: where the registry of guests and the journals live
 * @group: members may use the control socket as root may, "" = only root
 * @log_level: LOG_*
 * @tls: on all connections with other hosts, or on none
 * @keys: directory of this host's key and of the hosts it trusts
 * @ca: whose certificates are trusted, too, "" = nobody's
 * @max_migrations: concurrent migrations, each direction for itself
 * @streams: default of a migration
 * @max_rounds: default of a migration
 * @pause_limit_ms: default of a migration
 * @suspend_ms: default of a migration
 * @pause_max_ms: default of a migration
 * @child_wait_ms: default of a migration
 * @connections: default of a migration
 * @access: default of a migration; of one that comes in, unless it wishes
 * @tracker: default of a migration
 * @compression: default of a migration
 * @port_low: lowest port for data connections, 0 = any
 * @port_high: highest port for data connections
 * @handshake_ms: a new peer that says nothing for so long is dropped
 * @idle_ms: a known peer that says nothing for so long is dropped
 * @max_streams: most data connections a peer may ask for
 * @cgroup_root: cgroup below which each guest gets its own, "" = none
 */
struct config {
	char listen[256];
	uint16_t port;
	char socket[108];
	char state_dir[200];
	char group[64];
	int log_level;
	enum tls_wish tls;
	char keys[200];
	char ca[200];
	unsigned int max_migrations;

	unsigned int streams;
	unsigned int max_rounds;
	unsigned int pause_limit_ms;
	unsigned int suspend_ms;
	unsigned int pause_max_ms;
	unsigned int child_wait_ms;
	enum connections connections;
	enum access_wish access;
	enum tracker_wish tracker;
	enum compression compression;

	uint16_t port_low, port_high;
	unsigned int handshake_ms;
	unsigned int idle_ms;
	unsigned int max_streams;
	char cgroup_root[256];
};

/* the words of enum connections */
extern const char *const connections_words[];
/* of enum tls_wish */
extern const char *const tls_words[];

void config_init(struct config *c);
/*
 * Reads @path over what @c holds. -ENOENT without a message when there is no
 * such file; for every other error @err gets "FILE:LINE: what is wrong".
 */
int config_read(struct config *c, const char *path, char *err, size_t len);
/* relations between settings; @err likewise, without a place */
int config_check(const struct config *c, char *err, size_t len);
/* splits HOST, HOST:PORT, [HOST]:PORT; @ret_port keeps its value without one */
int config_split_host(const char *text, char *ret_host, size_t len,
		      uint16_t *ret_port);

#endif /* MSPD_CONFIG_H */
