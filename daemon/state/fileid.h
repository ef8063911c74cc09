/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Identity of a file on two hosts
 *
 * A path says nothing. A file that is only read is the same when its size and
 * its content (digest, or build ID of an ELF file) are the same; a file that is
 * written must be on storage that both hosts share, which a token proves: one
 * mover writes a small file of random name beside it, the other reads it.
 */
#ifndef MSPD_STATE_FILEID_H
#define MSPD_STATE_FILEID_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include "state/process.pb-c.h"

#define FILEID_TOKEN_SIZE 16

enum fileid_content {
	FILEID_NO_CONTENT,	/* path, size, time and mode only */
	FILEID_CONTENT,		/* also build ID or digest; cached */
};

/*
 * Identity of the file that @fd has open (for reading when content is wanted,
 * O_PATH is enough otherwise) and that the guest knows as @path. @deleted is
 * set when @path does not lead to it any more. -EFBIG: too big for a digest.
 * Free with mspd__file_id__free_unpacked(id, NULL).
 */
int fileid_capture(const char *path, int fd, enum fileid_content content,
		   Mspd__FileId **ret);
/* 1: the file of @fd (O_PATH is enough) has still the size and time of @id */
int fileid_still(const Mspd__FileId *id, int fd);
/*
 * Does @id->path lead to the same file here? 0, or -errno with a line for the
 * operator in @why. -ENOENT: no such file, -ESTALE: another one.
 */
int fileid_check(const Mspd__FileId *id, char *why, size_t len);
/* Opens it with @flags (O_CREAT, O_EXCL and O_TRUNC are taken out), checked. */
int fileid_open(const Mspd__FileId *id, int flags, int *ret_fd, char *why,
		size_t len);
/* the 20 bytes (or so) after NT_GNU_BUILD_ID of an ELF file, -ENOENT */
int fileid_build_id(int fd, uint8_t *id, size_t *len);

/* writes a token into @dir; @ret_path to be unlinked and freed by the caller */
int fileid_token_make(const char *dir, char **ret_path,
		      uint8_t nonce[FILEID_TOKEN_SIZE]);
/* 0 if the token is readable here; @ret_dev is the device it is on */
int fileid_token_check(const char *path, const uint8_t *nonce, size_t len,
		       dev_t *ret_dev);

#endif /* MSPD_STATE_FILEID_H */
