/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Little-endian integers in byte buffers, whatever their alignment
 */
#ifndef MSPD_LIB_BYTEORDER_H
#define MSPD_LIB_BYTEORDER_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTEORDER_PAIR(bits)						\
static inline void put_le##bits(void *p, uint##bits##_t v)		\
{									\
	v = htole##bits(v);						\
	memcpy(p, &v, sizeof(v));					\
}									\
static inline uint##bits##_t get_le##bits(const void *p)		\
{									\
	uint##bits##_t v;						\
									\
	memcpy(&v, p, sizeof(v));					\
	return le##bits##toh(v);					\
}

BYTEORDER_PAIR(16)
BYTEORDER_PAIR(32)
BYTEORDER_PAIR(64)

#endif /* MSPD_LIB_BYTEORDER_H */
