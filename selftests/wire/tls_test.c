// SPDX-License-Identifier: GPL-2.0
/*
 * TLS takes in whom it shall and nobody else, says why, and never waits for
 * longer than it was told to.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "lib/clock.h"
#include "tap.h"
#include "wire/ring.h"
#include "wire/sock.h"

#define TOTAL		(8 << 20)
#define PATIENCE_MS	10000

static char top[] = "/tmp/tls-test.XXXXXX";
static char why[500];

static struct keys_place place(const char *name)
{
	struct keys_place p = { 0 };

	snprintf(p.dir, sizeof(p.dir), "%s/%s", top, name);
	return p;
}

static void make(const char *name, long from, long to)
{
	must(!keys_make(place(name).dir, from, to, false, why, sizeof(why)));
}

/* host @name trusts the key of @whom */
static void trust(const char *name, const char *whom)
{
	struct keys_cert c;
	FILE *f = tmpfile();

	must(f && !keys_export(place(whom).dir, f, why, sizeof(why)));
	rewind(f);
	must(!keys_trust(place(name).dir, whom, f, &c, why, sizeof(why)));
	fclose(f);
}

/**
 * struct end - one side of a connection
 * @fd: socket
 * @place: its keys
 * @side: of the handshake
 * @bulk: as a data connection
 * @ms: deadline
 * @ret: of the handshake, then of a read
 */
struct end {
	int fd;
	struct keys_place place;
	enum tls_side side;
	bool bulk;
	unsigned int ms;
	int ret;
	pthread_t thread;
};

static struct end client, server;

static void connect_both(void)
{
	uint16_t port;
	int listener = sock_listen("127.0.0.1", 0, 0, &port);

	must(listener >= 0);
	client = (struct end){ .side = TLS_CONNECT, .ms = PATIENCE_MS };
	server = (struct end){ .side = TLS_ACCEPT, .ms = PATIENCE_MS };
	client.fd = sock_connect("127.0.0.1", port, deadline_in(PATIENCE_MS));
	server.fd = sock_accept(listener, deadline_in(PATIENCE_MS));
	must(client.fd >= 0 && server.fd >= 0);
	close(listener);
}

static void close_both(void)
{
	sock_close(&client.fd);
	sock_close(&server.fd);
}

/* handshake, and a byte each way: the first read tells what the other thinks */
static void *shake(void *arg)
{
	struct end *e = arg;
	struct tls_context *c;
	char byte = 'x';

	must(!tls_context_new(&c, &e->place, why, sizeof(why)));
	e->ret = sock_secure(e->fd, c, e->side, e->bulk, deadline_in(e->ms));
	if (!e->ret)
		e->ret = sock_send(e->fd, &byte, 1, deadline_in(e->ms));
	if (!e->ret)
		e->ret = sock_recv(e->fd, &byte, 1, deadline_in(e->ms));
	/* as mspd does: or what was said would be lost with the rest */
	if (e->ret) {
		shutdown(e->fd, SHUT_WR);
		sock_drain(e->fd, deadline_in(1000));
	}
	tls_context_free(c);
	return NULL;
}

static void shake_start(struct end *e, const char *name)
{
	e->place = place(name);
	must(!pthread_create(&e->thread, NULL, shake, e));
}

static void shake_both(const char *c, const char *s)
{
	connect_both();
	shake_start(&client, c);
	shake_start(&server, s);
	pthread_join(client.thread, NULL);
	pthread_join(server.thread, NULL);
}

static bool says(const struct end *e, int err, const char *text)
{
	const char *told = tls_why(e->fd) ?: "nothing";

	if (e->ret == err && strstr(told, text))
		return true;
	note("%d: %s", e->ret, told);
	return false;
}

static void test_trust(void)
{
	struct keys_cert own;

	shake_both("a", "b");
	must(!keys_own(place("a").dir, &own, why, sizeof(why)));
	ok(!client.ret && !server.ret && tls_on(server.fd),
	   "hosts that trust each other");
	ok(!memcmp(tls_peer(server.fd)->fingerprint, own.fingerprint,
		   KEYS_FINGERPRINT) && !strcmp(tls_peer(server.fd)->name, "a"),
	   "and who it is is known");
	note("the kernel %s what is sent",
	     tls_kernel_sends(client.fd) ? "encrypts" : "does not encrypt");
	close_both();

	shake_both("stranger", "b");
	ok(says(&server, -ENOKEY, "not trusted here"), "a stranger is refused");
	ok(says(&client, -EKEYREJECTED, "does not trust this host"),
	   "and told why");
	close_both();
	shake_both("a", "stranger");
	ok(says(&client, -ENOKEY, "not trusted here"),
	   "a stranger that listens is refused");
	ok(says(&server, -EKEYREJECTED, "does not trust this host"),
	   "and told why");
	close_both();
	shake_both("old", "b");
	ok(says(&server, -EKEYEXPIRED, "valid until"), "an expired certificate");
	ok(says(&client, -EKEYEXPIRED, "has expired"), "its host is told");
	close_both();
	shake_both("early", "b");
	ok(says(&server, -EKEYEXPIRED, "not yet"), "one that is not valid yet");
	close_both();
}

static void add_extension(X509 *x, int nid, const char *value)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	must(e && X509_add_ext(x, e, -1));
	X509_EXTENSION_free(e);
}

static void *read_pem(const char *dir, const char *file, bool key)
{
	char path[300];
	void *ret;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "r");
	must(f);
	ret = key ? (void *)PEM_read_PrivateKey(f, NULL, NULL, NULL) :
		    (void *)PEM_read_X509(f, NULL, NULL, NULL);
	must(ret);
	fclose(f);
	return ret;
}

static void write_pem(const char *dir, X509 *x)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cert.pem", dir);
	f = fopen(path, "w");
	must(f && PEM_write_X509(f, x));
	fclose(f);
}

/* what an authority would do with the certificates of its hosts */
static void sign(const char *name, X509 *issuer, EVP_PKEY *key)
{
	char *dir = strdup(place(name).dir);
	X509 *x = read_pem(dir, "cert.pem", false);
	X509_NAME *n = X509_NAME_new();

	if (!issuer)
		add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
	X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	must(X509_set_subject_name(x, n));
	must(X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) :
				  n));
	must(X509_sign(x, key, NULL));
	write_pem(dir, x);
	X509_NAME_free(n);
	X509_free(x);
	free(dir);
}

static void test_ca(void)
{
	static const char * const names[] = { "ca", "ca-a", "ca-b" };
	EVP_PKEY *key;
	X509 *ca;

	for (int i = 0; i < 3; i++)
		make(names[i], -3600, KEYS_LIFE);
	key = read_pem(place("ca").dir, "key.pem", true);
	sign("ca", NULL, key);
	ca = read_pem(place("ca").dir, "cert.pem", false);
	sign("ca-a", ca, key);
	sign("ca-b", ca, key);

	for (int trusted = 0; trusted < 2; trusted++) {
		connect_both();
		client.place = place("ca-a");
		server.place = place(trusted ? "ca-b" : "b");
		snprintf(client.place.ca, sizeof(client.place.ca),
			 "%s/ca/cert.pem", top);
		strcpy(server.place.ca, client.place.ca);
		must(!pthread_create(&client.thread, NULL, shake, &client));
		must(!pthread_create(&server.thread, NULL, shake, &server));
		pthread_join(client.thread, NULL);
		pthread_join(server.thread, NULL);
		if (trusted)
			ok(!client.ret && !server.ret && !*tls_peer(server.fd)->name,
			   "hosts of one authority");
		else
			ok(says(&client, -ENOKEY, "not trusted here: "),
			   "one that is not of it");
		close_both();
	}
	X509_free(ca);
	EVP_PKEY_free(key);
}

/* what is no mspd, or an old one: OpenSSL alone */
static void test_foreign(int version, bool cert, int err, const char *text,
			 const char *what)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	char file[300];
	SSL *ssl;

	connect_both();
	shake_start(&server, "b");
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_max_proto_version(ctx, version);
	if (cert) {
		snprintf(file, sizeof(file), "%s/a/cert.pem", top);
		must(SSL_CTX_use_certificate_file(ctx, file, SSL_FILETYPE_PEM));
		snprintf(file, sizeof(file), "%s/a/key.pem", top);
		must(SSL_CTX_use_PrivateKey_file(ctx, file, SSL_FILETYPE_PEM));
	}
	ssl = SSL_new(ctx);
	must(SSL_set_fd(ssl, client.fd));
	while (SSL_get_error(ssl, SSL_connect(ssl)) == SSL_ERROR_WANT_READ)
		sleep_ms(5);
	shutdown(client.fd, SHUT_WR);
	pthread_join(server.thread, NULL);
	ok(says(&server, err, text), "%s", what);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close_both();
}

/* @e sees what does not speak TLS; it says @data */
static void test_plain(struct end *e, struct end *other, const char *name,
		       const char *data, int err, const char *what)
{
	shake_start(e, name);
	must(!sock_send(other->fd, data, strlen(data),
			deadline_in(PATIENCE_MS)));
	shutdown(other->fd, SHUT_WR);
	pthread_join(e->thread, NULL);
	ok(e->ret == err && tls_on(e->fd) == (err != -EPROTOTYPE), "%s (%d)",
	   what, e->ret);
	close_both();
}

static void test_slow(bool drip)
{
	int64_t begin = now_ns(), ms;

	connect_both();
	server.ms = 400;
	shake_start(&server, "b");
	must(send(client.fd, "\x16", 1, MSG_NOSIGNAL) == 1);
	/* the length of a record, and then as little of it at a time */
	for (int i = 0; drip && i < 100; i++) {
		sleep_ms(10);
		if (send(client.fd, i < 2 ? "\x03" : "\x01", 1,
			 MSG_NOSIGNAL) != 1)
			break;
	}
	pthread_join(server.thread, NULL);
	/* and a second to hear what was wrong */
	ms = (now_ns() - begin) / NSEC_PER_MSEC;
	ok(server.ret == -ETIMEDOUT && ms < 5000,
	   "a handshake that takes its time ends, drip %d (%d, %d ms)", drip,
	   server.ret, (int)ms);
	close_both();
}

static unsigned char *sent, *got;

static void *ring_reader(void *arg)
{
	struct end *e = arg;
	struct ring r;

	must(!ring_init(&r, e->fd, true));
	e->ret = ring_recv(&r, got, TOTAL / 2 + 777);
	if (!e->ret)
		e->ret = ring_recv(&r, got + TOTAL / 2 + 777,
				   TOTAL / 2 - 777);
	if (!e->ret)
		e->ret = ring_recv(&r, got, 1);
	ring_exit(&r);
	return NULL;
}

static void secure_both(bool bulk)
{
	connect_both();
	client.bulk = bulk;
	server.bulk = bulk;
	shake_start(&client, "a");
	shake_start(&server, "b");
	pthread_join(client.thread, NULL);
	pthread_join(server.thread, NULL);
	must(!client.ret && !server.ret);
}

static void test_ring(void)
{
	struct iovec iov[3];
	struct ring r;
	int err;

	secure_both(true);
	memset(got, 0, TOTAL);
	must(!pthread_create(&server.thread, NULL, ring_reader, &server));
	must(!ring_init(&r, client.fd, true));
	iov[0] = (struct iovec){ sent, 64 };
	iov[1] = (struct iovec){ sent + 64, TOTAL - 100 };
	iov[2] = (struct iovec){ sent + TOTAL - 36, 36 };
	err = ring_send_start(&r, iov, 3);
	if (!err)
		err = ring_send_wait(&r);
	ring_exit(&r);
	sock_close(&client.fd);
	pthread_join(server.thread, NULL);
	ok(!err && server.ret == -ENODATA && !memcmp(sent, got, TOTAL),
	   "a ring carries what it is given, and its end is seen (%d, %d)",
	   err, server.ret);
	close_both();
}

static void test_messages(void)
{
	char buf[100];

	secure_both(false);
	must(!sock_send(client.fd, sent, 100, deadline_in(PATIENCE_MS)));
	ok(!sock_recv(server.fd, buf, 40, deadline_in(PATIENCE_MS)) &&
	   tls_pending(server.fd), "what is left of a record is no secret");
	ok(!sock_recv(server.fd, buf + 40, 60, deadline_in(PATIENCE_MS)) &&
	   !memcmp(buf, sent, 100) && !tls_pending(server.fd), "until it is read");
	ok(sock_recv(server.fd, buf, 1, deadline_in(50)) == -ETIMEDOUT,
	   "silence ends at the deadline");
	must(send(client.fd, "\x17\x03\x03\x00\x20" "12345678901234567890123456789012",
		  37, MSG_NOSIGNAL) == 37);
	ok(sock_recv(server.fd, buf, 1, deadline_in(PATIENCE_MS)) == -EPROTO,
	   "what was put into the connection by somebody else is found out");
	ok(sock_send(server.fd, buf, 1, deadline_in(PATIENCE_MS)) == -EPROTO,
	   "and the connection is of no use any more");
	close_both();
}

static void test_files(void)
{
	struct keys_place p = place("a");
	struct tls_context *c;
	struct keys_cert *list, own, again;
	char path[300];
	FILE *f;
	size_t n;

	ok(keys_make(p.dir, 0, 1, false, why, sizeof(why)) == -EEXIST,
	   "a key is not replaced by accident");
	must(!keys_own(p.dir, &own, why, sizeof(why)));
	ok(!strncmp(own.text, "SHA256:", 7) && strlen(own.text) == 50 &&
	   !own.expired, "a fingerprint reads as that of SSH");
	ok(!keys_trusted(p.dir, &list, &n, why, sizeof(why)) && n == 1 &&
	   !strcmp(list[0].name, "b"), "who is trusted is listed");
	free(list);
	must((f = fopen("/dev/null", "r")));
	ok(keys_trust(p.dir, "x", f, &again, why, sizeof(why)) == -EINVAL,
	   "nothing is no certificate");
	ok(keys_trust(p.dir, "../x", f, &again, why, sizeof(why)) == -EINVAL &&
	   strstr(why, "no name"), "a path is no name");
	fclose(f);
	snprintf(path, sizeof(path), "%s/key.pem", p.dir);
	must(!chmod(path, 0640));
	ok(tls_context_new(&c, &p, why, sizeof(why)) == -EPERM &&
	   strstr(why, "by others"), "a key that others can read is refused");
	must(!chmod(path, 0600));
	p = place("nobody");
	ok(tls_context_new(&c, &p, why, sizeof(why)) == -ENOENT &&
	   strstr(why, "mspctl keys init"), "no key, and how to make one");
	p = place("a");
	must(!keys_make(p.dir, 0, 3600, true, why, sizeof(why)));
	must(!keys_own(p.dir, &again, why, sizeof(why)));
	ok(memcmp(own.fingerprint, again.fingerprint, KEYS_FINGERPRINT),
	   "by force there is a new one");
}

int main(void)
{
	char command[100];

	signal(SIGPIPE, SIG_IGN);
	sent = malloc(TOTAL);
	got = malloc(TOTAL);
	must(sent && got && mkdtemp(top));
	for (size_t i = 0; i < TOTAL; i++)
		sent[i] = i * 2654435761u >> 13;
	make("a", -3600, KEYS_LIFE);
	make("b", -3600, KEYS_LIFE);
	make("stranger", -3600, KEYS_LIFE);
	make("old", -7200, -3600);
	make("early", 3600, 7200);
	trust("a", "b");
	trust("b", "a");
	trust("b", "old");
	trust("b", "early");
	trust("old", "b");
	trust("early", "b");
	trust("stranger", "b");
	trust("stranger", "a");

	test_trust();
	test_ca();
	test_foreign(TLS1_2_VERSION, true, -EPROTONOSUPPORT, "older TLS",
		     "an older TLS");
	test_foreign(TLS1_3_VERSION, false, -ENOKEY, "no certificate",
		     "who shows nothing");
	connect_both();
	test_plain(&server, &client, "b", "VSIC\1\0\1\0", -EPROTOTYPE,
		   "mspd without TLS that connects");
	connect_both();
	test_plain(&client, &server, "a", "VSIC\1\0\1\0", -EPROTOTYPE,
		   "mspd without TLS that listens");
	connect_both();
	test_plain(&server, &client, "b", "GET / HTTP/1.0\r\n\r\n", -EPROTO,
		   "something else that connects");
	connect_both();
	test_plain(&client, &server, "a", "220 mail\r\n", -EPROTO,
		   "something else that listens");
	connect_both();
	test_plain(&server, &client, "b", "", -ECONNRESET, "nothing at all");
	test_slow(false);
	test_slow(true);
	test_messages();
	test_ring();
	test_files();

	snprintf(command, sizeof(command), "rm -rf %s", top);
	must(!system(command));
	free(sent);
	free(got);
	return tap_end();
}
