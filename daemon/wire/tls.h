/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TLS 1.3 on connected sockets, both sides by certificate
 *
 * TLS is a property of a descriptor here, as it is in the kernel: whoever has
 * the descriptor uses wire/sock.h and wire/ring.h as without it. Where the
 * kernel encrypts (kTLS) even send() on it is right. Nothing here waits: who
 * gets -EAGAIN waits for the events that are told, and calls again. A connection
 * is used by one thread at a time.
 *
 * An end without TLS's own goodbye is an end: lengths and totals of what is
 * sent over it tell what is missing.
 */
#ifndef MSPD_WIRE_TLS_H
#define MSPD_WIRE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "wire/keys.h"

/* descriptors above have none */
#define TLS_FDS		4096

/* own key and whom to trust, as the files say now */
struct tls_context;

int tls_context_new(struct tls_context **ret, const struct keys_place *place,
		    char *why, size_t len);
/* connections that were begun with it live on; NULL is fine */
void tls_context_free(struct tls_context *c);

enum tls_side { TLS_CONNECT, TLS_ACCEPT };

/*
 * Makes @fd one with TLS; @bulk: it carries much, and is only read by one who
 * does not poll.
 */
int tls_begin(int fd, struct tls_context *c, enum tls_side side, bool bulk);
/*
 * A step of the handshake; 0: it is done, -EAGAIN: wait for @ret_events first.
 * Other errors are told by tls_why(): -ENOKEY, the other side is not trusted
 * here; -EKEYREJECTED, this host is not trusted there; -EKEYEXPIRED;
 * -EPROTONOSUPPORT, an older TLS; -EPROTOTYPE, mspd without TLS, and @fd is
 * without it again; -EPROTO, something else; -ECONNRESET. What is wrong with
 * this side in the other's eyes may be told by the first read only.
 */
int tls_step(int fd, short *ret_events);
/* frees what belongs to @fd, which stays open; harmless without TLS */
void tls_end(int fd);

bool tls_on(int fd);
/* the kernel encrypts what is sent */
bool tls_kernel_sends(int fd);
/* there is something that poll() does not know of */
bool tls_pending(int fd);
/* bytes, 0 at the end of it, -EAGAIN as above, -errno */
ssize_t tls_read(int fd, void *buf, size_t len, short *ret_events);
ssize_t tls_write(int fd, const void *buf, size_t len, short *ret_events);
/* what was wrong, for the operator; NULL: nothing was, with TLS */
const char *tls_why(int fd);
/* of the other side, NULL before the handshake; without a name if by a CA */
const struct keys_cert *tls_peer(int fd);

#endif /* MSPD_WIRE_TLS_H */
