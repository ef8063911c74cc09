// SPDX-License-Identifier: GPL-2.0
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "lib/cleanup.h"
#include "wire/keys.h"

#define PATH_BYTES	400

static void cleanup_x509(X509 **x)
{
	X509_free(*x);
}

static void cleanup_pkey(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

#define _cleanup_x509_ _cleanup_(cleanup_x509)
#define _cleanup_pkey_ _cleanup_(cleanup_pkey)

__attribute__((format(printf, 4, 5)))
static int fail(int err, char *why, size_t len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, len, fmt, ap);
	va_end(ap);
	return err;
}

static const char *path_of(const char *dir, const char *file, char *buf)
{
	snprintf(buf, PATH_BYTES, "%s/%s", dir, file);
	return buf;
}

bool keys_name_valid(const char *name)
{
	if (!*name || *name == '.' || strlen(name) >= KEYS_NAME)
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("._-", *name))
			return false;
	return true;
}

void keys_describe(X509 *cert, struct keys_cert *ret)
{
	char base64[KEYS_FINGERPRINT * 2];
	const ASN1_TIME *until = X509_get0_notAfter(cert);
	unsigned int n = KEYS_FINGERPRINT;
	struct tm tm = { 0 };

	memset(ret->fingerprint, 0, sizeof(ret->fingerprint));
	X509_digest(cert, EVP_sha256(), ret->fingerprint, &n);
	EVP_EncodeBlock((unsigned char *)base64, ret->fingerprint,
			KEYS_FINGERPRINT);
	/* 32 bytes end in one character of padding, which says nothing */
	snprintf(ret->text, sizeof(ret->text), "SHA256:%.43s", base64);
	ASN1_TIME_to_tm(until, &tm);
	strftime(ret->until, sizeof(ret->until), "%F", &tm);
	ret->expired = X509_cmp_current_time(until) < 0 ||
		       X509_cmp_current_time(X509_get0_notBefore(cert)) > 0;
}

/* -- making them */

/* @mode of the last part; what is above it is nothing to be hidden */
static int make_dir(const char *dir, mode_t mode, char *why, size_t len)
{
	char path[PATH_BYTES], *slash;
	struct stat st;

	if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
		return fail(-ENAMETOOLONG, why, len, "%s: too long", dir);
	for (slash = strchr(path + 1, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	if (mkdir(dir, mode) && (errno != EEXIST || stat(dir, &st) ||
				 !S_ISDIR(st.st_mode)))
		return fail(-errno, why, len, "%s: %m", dir);
	return 0;
}

/* a new file, complete on the disk before it has its name */
static int write_file(const char *path, mode_t mode,
		      int (*write)(FILE *f, void *arg), void *arg, char *why,
		      size_t len)
{
	char temp[PATH_BYTES + KEYS_NAME + 8];
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_close_ int fd = -1;

	snprintf(temp, sizeof(temp), "%s.new", path);
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!f)
		return fail(-errno, why, len, "%s: %m", temp);
	steal_fd(&fd);
	errno = EIO;
	if (write(f, arg) != 1 || fflush(f) || fsync(fileno(f)) ||
	    rename(temp, path)) {
		int err = -errno;

		unlink(temp);
		return fail(err, why, len, "%s cannot be written: %s", path,
			    strerror(-err));
	}
	return 0;
}

static int write_cert(FILE *f, void *cert)
{
	return PEM_write_X509(f, cert);
}

static int write_key(FILE *f, void *key)
{
	return PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
}

/* self-signed: whom it is of says who trusts it, not what is in it */
static X509 *certificate(EVP_PKEY *key, long from, long to)
{
	_cleanup_x509_ X509 *x = X509_new();
	unsigned char host[65] = "";
	X509_NAME *name;
	uint64_t serial;

	gethostname((char *)host, sizeof(host) - 1);
	if (!x || getrandom(&serial, sizeof(serial), 0) != sizeof(serial))
		return NULL;
	name = X509_get_subject_name(x);
	if (!X509_set_version(x, X509_VERSION_3) ||
	    !ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) ||
	    !X509_gmtime_adj(X509_getm_notBefore(x), from) ||
	    !X509_gmtime_adj(X509_getm_notAfter(x), to) ||
	    !X509_set_pubkey(x, key) ||
	    !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
					*host ? host : (unsigned char *)"mspd",
					-1, -1, 0) ||
	    !X509_set_issuer_name(x, name) || !X509_sign(x, key, NULL))
		return NULL;
	return steal_ptr(&x);
}

int keys_make(const char *dir, long from, long to, bool anew, char *why,
	      size_t len)
{
	_cleanup_pkey_ EVP_PKEY *key = NULL;
	_cleanup_x509_ X509 *cert = NULL;
	_cleanup_close_ int lock = -1;
	char path[PATH_BYTES];
	int ret;

	ret = make_dir(dir, 0700, why, len);
	if (ret)
		return ret;
	/* two at once must not leave the key of one, the certificate of the other */
	lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		return fail(-errno, why, len, "%s: %m", dir);
	if (!anew && !access(path_of(dir, "key.pem", path), F_OK))
		return fail(-EEXIST, why, len, "%s exists", path);
	key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	cert = key ? certificate(key, from, to) : NULL;
	if (!cert)
		return fail(-ENOTRECOVERABLE, why, len,
			    "no key can be made by this host's OpenSSL");
	/* the key last: there is one where its certificate is */
	ret = write_file(path_of(dir, "cert.pem", path), 0644, write_cert, cert,
			 why, len);
	if (!ret)
		ret = write_file(path_of(dir, "key.pem", path), 0600, write_key,
				 key, why, len);
	return ret;
}

/* -- reading them */

static int read_cert(const char *path, X509 **ret, char *why, size_t len)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");

	if (!f)
		return fail(-errno, why, len, "%s: %m", path);
	*ret = PEM_read_X509(f, NULL, NULL, NULL);
	if (!*ret)
		return fail(-EINVAL, why, len, "%s has no certificate", path);
	return 0;
}

/* a hint where there would only be "no such file" */
static int no_key(const char *dir, int err, char *why, size_t len)
{
	if (err != -ENOENT)
		return err;
	return fail(-ENOENT, why, len,
		    "this host has no key in %s: make one with mspctl keys init",
		    dir);
}

int keys_own(const char *dir, struct keys_cert *ret, char *why, size_t len)
{
	_cleanup_x509_ X509 *cert = NULL;
	char path[PATH_BYTES];
	int err = read_cert(path_of(dir, "cert.pem", path), &cert, why, len);

	if (err)
		return no_key(dir, err, why, len);
	strcpy(ret->name, "");
	keys_describe(cert, ret);
	return 0;
}

int keys_export(const char *dir, FILE *out, char *why, size_t len)
{
	_cleanup_x509_ X509 *cert = NULL;
	char path[PATH_BYTES];
	int err = read_cert(path_of(dir, "cert.pem", path), &cert, why, len);

	if (err)
		return no_key(dir, err, why, len);
	if (!PEM_write_X509(out, cert) || fflush(out))
		return fail(-EIO, why, len, "the certificate cannot be written");
	return 0;
}

int keys_private(const char *dir, EVP_PKEY **ret, char *why, size_t len)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[PATH_BYTES];
	struct stat st;

	f = fopen(path_of(dir, "key.pem", path), "re");
	if (!f || fstat(fileno(f), &st)) {
		int err = -errno;

		fail(err, why, len, "%s: %m", path);
		return no_key(dir, err, why, len);
	}
	if (st.st_mode & 077)
		return fail(-EPERM, why, len,
			    "%s can be read by others: make a new key (mspctl keys init --force), or chmod 600 if nobody has",
			    path);
	*ret = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	if (!*ret)
		return fail(-EINVAL, why, len, "%s has no private key", path);
	return 0;
}

int keys_trust(const char *dir, const char *name, FILE *in,
	       struct keys_cert *ret, char *why, size_t len)
{
	_cleanup_x509_ X509 *cert = NULL;
	char trusted[PATH_BYTES], path[PATH_BYTES + KEYS_NAME];
	int err;

	if (!keys_name_valid(name))
		return fail(-EINVAL, why, len,
			    "\"%s\" is no name: letters, digits, dots, dashes and underscores, not a dot first, at most %d",
			    name, KEYS_NAME - 1);
	cert = PEM_read_X509(in, NULL, NULL, NULL);
	if (!cert)
		return fail(-EINVAL, why, len,
			    "there is no certificate (of mspctl keys export) in it");
	err = make_dir(dir, 0700, why, len);
	if (!err)
		err = make_dir(path_of(dir, "trusted", trusted), 0700, why,
			       len);
	if (err)
		return err;
	strcpy(ret->name, name);
	keys_describe(cert, ret);
	snprintf(path, sizeof(path), "%s/%s.pem", trusted, name);
	return write_file(path, 0644, write_cert, cert, why, len);
}

/* NAME of NAME.pem, else false */
static bool name_of(const char *file, char *ret)
{
	size_t n = strlen(file);

	if (n <= 4 || n - 4 >= KEYS_NAME || strcmp(file + n - 4, ".pem"))
		return false;
	memcpy(ret, file, n - 4);
	ret[n - 4] = '\0';
	return keys_name_valid(ret);
}

int keys_trusted(const char *dir, struct keys_cert **ret, size_t *ret_n,
		 char *why, size_t len)
{
	_cleanup_free_ struct keys_cert *v = calloc(KEYS_TRUSTED_MAX,
						    sizeof(*v));
	char trusted[PATH_BYTES], path[PATH_BYTES + 256];
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *de;
	size_t n = 0;

	if (!v)
		return fail(-ENOMEM, why, len, "out of memory");
	d = opendir(path_of(dir, "trusted", trusted));
	if (!d && errno != ENOENT)
		return fail(-errno, why, len, "%s: %m", trusted);
	while (d && (de = readdir(d))) {
		_cleanup_x509_ X509 *cert = NULL;
		int err;

		if (!name_of(de->d_name, v[n].name))
			continue;
		snprintf(path, sizeof(path), "%s/%s", trusted, de->d_name);
		err = read_cert(path, &cert, why, len);
		if (err)
			return err;
		keys_describe(cert, &v[n]);
		if (++n == KEYS_TRUSTED_MAX)
			return fail(-E2BIG, why, len,
				    "%s has more than %d certificates", trusted,
				    KEYS_TRUSTED_MAX - 1);
	}
	*ret = steal_ptr(&v);
	*ret_n = n;
	return 0;
}
