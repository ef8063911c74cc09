// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include "lib/cleanup.h"
#include "wire/tls.h"

/* fast where there are AES instructions, and what kernels know */
#define SUITES		"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:" \
			"TLS_CHACHA20_POLY1305_SHA256"
/* nobody who was not authenticated makes us keep more than this */
#define MAX_CERT_BYTES	16384
/* 16 KiB records are read by so many at a time */
#define BULK_BYTES	(256 << 10)
/* first byte of mspd's own preamble, which no record of TLS begins with */
#define PLAIN_BYTE	'V'

struct tls_context {
	SSL_CTX *ctx;
	struct keys_cert *trusted;
	size_t nr_trusted;
	bool ca;
	char own[KEYS_FINGERPRINT_TEXT];
};

/**
 * struct tls - one connection
 * @ssl: of OpenSSL
 * @own: fingerprint of this host, for messages
 * @accepts: the other side began
 * @begun: a step of the handshake was made
 * @looked: it does not speak without TLS
 * @ready: the handshake is done
 * @kernel: encrypts what is sent
 * @peer: the other side, as its certificate was verified
 * @err: -errno of a failure, 0 = none; nothing is read or written any more
 * @why: of it, for the operator
 */
struct tls {
	SSL *ssl;
	char own[KEYS_FINGERPRINT_TEXT];
	bool accepts, begun, looked, ready, kernel;
	struct keys_cert peer;
	int err;
	char why[400];
};

static struct tls *table[TLS_FDS];

static struct tls *tls_of(int fd)
{
	return fd >= 0 && fd < TLS_FDS ? table[fd] : NULL;
}

__attribute__((format(printf, 3, 4)))
static int broken(struct tls *t, int err, const char *fmt, ...)
{
	va_list ap;

	/* the first reason is the cause of all others */
	if (t->err)
		return t->err;
	t->err = err;
	va_start(ap, fmt);
	vsnprintf(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
	return err;
}

/* -- whom to trust */

static bool trusted(const struct tls_context *c, struct keys_cert *cert)
{
	for (size_t i = 0; i < c->nr_trusted; i++) {
		if (memcmp(c->trusted[i].fingerprint, cert->fingerprint,
			   KEYS_FINGERPRINT))
			continue;
		memcpy(cert->name, c->trusted[i].name, sizeof(cert->name));
		return true;
	}
	return false;
}

/* Called for what the other side shows; 1: it is who it may be. */
static int verify(X509_STORE_CTX *store, void *arg)
{
	const struct tls_context *c = arg;
	SSL *ssl = X509_STORE_CTX_get_ex_data(store,
				SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *t = SSL_get_app_data(ssl);
	X509 *cert = X509_STORE_CTX_get0_cert(store);
	bool known;

	if (!cert)
		return 0;
	keys_describe(cert, &t->peer);
	known = trusted(c, &t->peer);
	if (known && t->peer.expired) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_HAS_EXPIRED);
		broken(t, -EKEYEXPIRED,
		       "its certificate (%s) is valid until %s only, or not yet by this host's clock: make a new one there (mspctl keys init --force) and trust it here",
		       t->peer.text, t->peer.until);
		return 0;
	}
	if (known || (c->ca && X509_verify_cert(store) > 0)) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	broken(t, -ENOKEY,
	       "its certificate %s is not trusted here%s%s: if it is the right one, take it from there (mspctl keys export) and trust it here (mspctl keys trust)",
	       t->peer.text, c->ca ? ": " : "", c->ca ?
	       X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)) :
	       "");
	/* what the other side is told: unknown CA */
	X509_STORE_CTX_set_error(store,
				 X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);
	return 0;
}

static int openssl_fail(char *why, size_t len, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	snprintf(why, len, "%s: %s", what, reason ?: "OpenSSL does not say why");
	return -EINVAL;
}

static int context_fill(struct tls_context *c, const struct keys_place *place,
			char *why, size_t len)
{
	struct keys_cert own = { 0 };
	EVP_PKEY *key = NULL;
	char path[300];
	int ret;

	ret = keys_private(place->dir, &key, why, len);
	if (ret)
		return ret;
	ret = keys_own(place->dir, &own, why, len);
	if (!ret)
		ret = keys_trusted(place->dir, &c->trusted, &c->nr_trusted, why,
				   len);
	if (ret) {
		EVP_PKEY_free(key);
		return ret;
	}
	memcpy(c->own, own.text, sizeof(c->own));
	snprintf(path, sizeof(path), "%s/cert.pem", place->dir);
	ret = SSL_CTX_use_certificate_chain_file(c->ctx, path) == 1 &&
	      SSL_CTX_use_PrivateKey(c->ctx, key) == 1;
	EVP_PKEY_free(key);
	if (!ret)
		return openssl_fail(why, len, path);
	if (*place->ca &&
	    SSL_CTX_load_verify_locations(c->ctx, place->ca, NULL) != 1)
		return openssl_fail(why, len, place->ca);
	c->ca = *place->ca;
	return 0;
}

int tls_context_new(struct tls_context **ret, const struct keys_place *place,
		    char *why, size_t len)
{
	struct tls_context *c = calloc(1, sizeof(*c));
	int err;

	ERR_clear_error();
	if (c)
		c->ctx = SSL_CTX_new(TLS_method());
	if (!c || !c->ctx) {
		snprintf(why, len, "no memory for TLS");
		free(c);
		return -ENOMEM;
	}
	SSL_CTX_set_min_proto_version(c->ctx, TLS1_3_VERSION);
	SSL_CTX_set_ciphersuites(c->ctx, SUITES);
	SSL_CTX_set_options(c->ctx, SSL_OP_ENABLE_KTLS |
			    SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_TICKET |
			    SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
			 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* every connection shows its certificate: nothing is resumed */
	SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(c->ctx, 0);
	SSL_CTX_set_max_cert_list(c->ctx, MAX_CERT_BYTES);
	SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER |
			   SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(c->ctx, verify, c);
	err = context_fill(c, place, why, len);
	if (err) {
		tls_context_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void tls_context_free(struct tls_context *c)
{
	if (!c)
		return;
	SSL_CTX_free(c->ctx);
	free(c->trusted);
	free(c);
}

/* -- one connection */

int tls_begin(int fd, struct tls_context *c, enum tls_side side, bool bulk)
{
	struct tls *t;

	if (fd < 0 || fd >= TLS_FDS)
		return -EMFILE;
	tls_end(fd);
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->ssl = SSL_new(c->ctx);
	if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1) {
		SSL_free(t->ssl);
		free(t);
		return -ENOMEM;
	}
	memcpy(t->own, c->own, sizeof(t->own));
	t->accepts = side == TLS_ACCEPT;
	SSL_set_app_data(t->ssl, t);
	if (t->accepts)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	if (bulk) {
		SSL_set_read_ahead(t->ssl, 1);
		SSL_set_default_read_buffer_len(t->ssl, BULK_BYTES);
	}
	table[fd] = t;
	return 0;
}

void tls_end(int fd)
{
	struct tls *t = tls_of(fd);

	if (!t)
		return;
	table[fd] = NULL;
	SSL_free(t->ssl);
	free(t);
}

/* what OpenSSL found, in words that say what to do */
static int explain(struct tls *t, unsigned long e)
{
	const char *reason = ERR_reason_error_string(e);

	switch (ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0) {
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
		return broken(t, -EKEYREJECTED,
			      "it does not trust this host's certificate %s: take that from here (mspctl keys export) and trust it there (mspctl keys trust)",
			      t->own);
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return broken(t, -EKEYEXPIRED,
			      "it says that this host's certificate has expired, or is not valid yet by its clock: make a new one (mspctl keys init --force) and trust it there");
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return broken(t, -ENOKEY, "it shows no certificate");
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return broken(t, -EPROTONOSUPPORT,
			      "it speaks an older TLS than 1.3");
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_UNEXPECTED_MESSAGE:
		if (!t->ready)
			return broken(t, -EPROTO, "what it sends is not TLS");
		break;
	}
	return broken(t, -EPROTO, "TLS: %s", reason ?: "no reason given");
}

/* a call that got nowhere */
static int stopped(struct tls *t, int n, short *ret_events)
{
	int err = errno;

	switch (SSL_get_error(t->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		*ret_events = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*ret_events = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_SSL:
		return explain(t, ERR_peek_error());
	}
	/* what was sent before it went may still be there to be read */
	if (t->ready)
		return err && err != EPIPE ? -err : -ECONNRESET;
	return broken(t, -ECONNRESET, t->accepts ?
		      "it closed the connection in the handshake" :
		      "it closed the connection in the handshake of TLS (has it a key? The log of mspd there says why)");
}

/* true: the other side has said something, and it is not TLS */
static bool speaks_plain(struct tls *t, int fd)
{
	char first;

	if (t->looked || recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
		return false;
	t->looked = true;
	return first == PLAIN_BYTE;
}

int tls_step(int fd, short *ret_events)
{
	struct tls *t = tls_of(fd);
	int n;

	if (!t)
		return -EBADF;
	if (t->err)
		return t->err;
	if (speaks_plain(t, fd)) {
		/* the other side's log shall tell, too: who connects begins */
		if (!t->accepts && !t->begun)
			SSL_do_handshake(t->ssl);
		tls_end(fd);
		return -EPROTOTYPE;
	}
	t->begun = true;
	ERR_clear_error();
	errno = 0;
	n = SSL_do_handshake(t->ssl);
	if (n != 1)
		return stopped(t, n, ret_events);
	t->ready = true;
	t->kernel = BIO_get_ktls_send(SSL_get_wbio(t->ssl));
	return 0;
}

bool tls_on(int fd)
{
	return tls_of(fd);
}

bool tls_kernel_sends(int fd)
{
	const struct tls *t = tls_of(fd);

	return t && t->kernel;
}

bool tls_pending(int fd)
{
	const struct tls *t = tls_of(fd);

	return t && t->ready && !t->err && SSL_pending(t->ssl) > 0;
}

const char *tls_why(int fd)
{
	const struct tls *t = tls_of(fd);

	return t && t->err ? t->why : NULL;
}

const struct keys_cert *tls_peer(int fd)
{
	const struct tls *t = tls_of(fd);

	return t && t->ready ? &t->peer : NULL;
}

/* 0: go on */
static int usable(struct tls *t)
{
	ERR_clear_error();
	errno = 0;
	if (t->err)
		return t->err;
	return t->ready ? 0 : broken(t, -ENOTCONN, "the handshake is not done");
}

ssize_t tls_read(int fd, void *buf, size_t len, short *ret_events)
{
	struct tls *t = tls_of(fd);
	int ret = usable(t), n;

	if (ret)
		return ret;
	n = SSL_read(t->ssl, buf, len < INT32_MAX ? len : INT32_MAX);
	if (n > 0)
		return n;
	if (SSL_get_error(t->ssl, n) == SSL_ERROR_ZERO_RETURN)
		return 0;
	return stopped(t, n, ret_events);
}

ssize_t tls_write(int fd, const void *buf, size_t len, short *ret_events)
{
	struct tls *t = tls_of(fd);
	int ret = usable(t), n;

	if (ret)
		return ret;
	n = SSL_write(t->ssl, buf, len < INT32_MAX ? len : INT32_MAX);
	return n > 0 ? n : stopped(t, n, ret_events);
}
