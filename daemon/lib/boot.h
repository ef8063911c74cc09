/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which boot of this host it is: processes, and what is sealed, end with it
 */
#ifndef MSPD_LIB_BOOT_H
#define MSPD_LIB_BOOT_H

#define BOOT_ID_BYTES	37

/* the kernel's ID, a text of 36 characters */
int boot_id(char ret[BOOT_ID_BYTES]);

#endif /* MSPD_LIB_BOOT_H */
