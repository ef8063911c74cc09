/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who this host is to others, and whom it trusts: files
 *
 *	DIR/key.pem		private key, nobody else may read it
 *	DIR/cert.pem		its certificate, with those it was signed by, if any
 *	DIR/trusted/NAME.pem	certificate of another host, or an older one of it
 *
 * As in SSH a certificate is known by its fingerprint, the SHA-256 of it, and
 * what it says of names and issuers is of no account. Where a CA is named, what
 * it has signed is trusted as well.
 *
 * Functions return 0 or -errno with a line for the operator in @why.
 */
#ifndef MSPD_WIRE_KEYS_H
#define MSPD_WIRE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <openssl/types.h>

#define KEYS_NAME		64
#define KEYS_FINGERPRINT	32
#define KEYS_FINGERPRINT_TEXT	56
#define KEYS_TRUSTED_MAX	1024
/* how long a certificate lasts, in seconds: 10 years */
#define KEYS_LIFE		(3650L * 86400)

/**
 * struct keys_place - where they are
 * @dir: as above
 * @ca: file with certificates of a CA, "" = none
 */
struct keys_place {
	char dir[200];
	char ca[200];
};

/**
 * struct keys_cert - what is to be known of a certificate
 * @name: of its file
 * @fingerprint: SHA-256
 * @text: the same for eyes
 * @until: last day it is valid, YYYY-MM-DD
 * @expired: or not valid yet
 */
struct keys_cert {
	char name[KEYS_NAME];
	unsigned char fingerprint[KEYS_FINGERPRINT];
	char text[KEYS_FINGERPRINT_TEXT];
	char until[16];
	bool expired;
};

/*
 * Makes key and certificate, valid from @from to @to, seconds from now. -EEXIST
 * when there is a key, unless @anew.
 */
int keys_make(const char *dir, long from, long to, bool anew, char *why,
	      size_t len);
/* this host's */
int keys_own(const char *dir, struct keys_cert *ret, char *why, size_t len);
/* writes this host's certificate to @out */
int keys_export(const char *dir, FILE *out, char *why, size_t len);
/* takes the first certificate in @in as that of host @name */
int keys_trust(const char *dir, const char *name, FILE *in,
	       struct keys_cert *ret, char *why, size_t len);
/* all that are trusted, to be freed; none is no error */
int keys_trusted(const char *dir, struct keys_cert **ret, size_t *ret_n,
		 char *why, size_t len);
/* letters, digits, dots, dashes and underscores */
bool keys_name_valid(const char *name);
/* everything but the name */
void keys_describe(X509 *cert, struct keys_cert *ret);
/* the private key, which must be for its owner's eyes only */
int keys_private(const char *dir, EVP_PKEY **ret, char *why, size_t len);

#endif /* MSPD_WIRE_KEYS_H */
