/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The other side of a migration, and waiting for it
 *
 * Every wait ends: by what is awaited, by a deadline, by the other side's end
 * or its word that it failed, by the end of the guest, or by a cancel. The
 * reason is kept in the failure, as a line for the operator.
 */
#ifndef MSPD_SESSION_PEER_H
#define MSPD_SESSION_PEER_H

#include "session/failure.h"
#include "session/session.h"
#include "wire/control.h"
#include "wire/sock.h"

#define PEER_MESSAGE	(1 << 0)	/* something to be received */
#define PEER_EXTRA	(1 << 1)	/* the further descriptor is readable */

/**
 * struct peer - the control connection
 * @fd: socket
 * @name: for messages: "target HOST", "source"
 * @failure: where reasons go
 * @findings: where the findings of a Failed message go
 * @rep: asked for cancels, NULL when it is too late for them
 * @guest_fd: of guest access, -1 = not watched
 * @guest: whose @guest_fd it is, NULL = not watched
 * @refused: it said Failed: what it had of the guest is destroyed
 * @tls: own key and whom to trust, NULL = without TLS
 */
struct peer {
	int fd;
	char name[300];
	struct failure *failure;
	struct findings *findings;
	struct reporter *rep;
	int guest_fd;
	struct guest *guest;
	bool refused;
	struct tls_context *tls;
};

/*
 * From here on all that is said is secret, and who says it is trusted; without
 * @place nothing happens. -EPROTOTYPE: the other side speaks, without TLS.
 */
int peer_secure(struct peer *p, const struct keys_place *place,
		enum tls_side side, int64_t deadline);
/* both connections are the same host's: for data connections */
bool peer_same(const struct peer *p, int fd);
/* the reason for a failed call on the control connection; returns @err */
int peer_lost(struct peer *p, int err);
void peer_release(struct peer *p);

/* 0 on a tick (every 250 ms) without news, else PEER_*, or -errno */
int peer_wait(struct peer *p, int extra_fd, int64_t deadline);
/* lets @ms pass, 0; -errno when the other side has something to say, too */
int peer_pause(struct peer *p, unsigned int ms);
int peer_send(struct peer *p, enum control_type type,
	      const ProtobufCMessage *m, unsigned int ms);
/* next message; Failed and Abort end in -errno */
int peer_recv(struct peer *p, int64_t deadline, struct control_message *ret);
/* only @type is right */
int peer_expect(struct peer *p, enum control_type type, int64_t deadline,
		struct control_message *ret);
/* if the peer says within a second why it failed, that is the reason */
void peer_last_words(struct peer *p);

void findings_to_wire(const struct findings *f, Mspd__Finding ***ret_v,
		      size_t *ret_n);
void findings_wire_free(Mspd__Finding **v, size_t n);
void findings_from_wire(struct findings *f, Mspd__Finding *const *v,
			size_t n);
/* the first error of @f as text */
const char *findings_first_error(const struct findings *f, char *buf,
				 size_t len);

#endif /* MSPD_SESSION_PEER_H */
