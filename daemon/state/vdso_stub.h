/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vDSO that has left its kernel. Pure.
 */
#ifndef MSPD_STATE_VDSO_STUB_H
#define MSPD_STATE_VDSO_STUB_H

#include <stddef.h>
#include <stdint.h>

/*
 * Overwrites the functions of the vDSO image in @image by system calls: its
 * data pages do not exist elsewhere. Returns how many, -EPROTO if it is no such
 * image.
 */
int vdso_stub(uint8_t *image, size_t len);

#endif /* MSPD_STATE_VDSO_STUB_H */
