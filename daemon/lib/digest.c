// SPDX-License-Identifier: GPL-2.0
#include <string.h>
#include <xxhash.h>
#include "lib/byteorder.h"
#include "lib/digest.h"

static const unsigned char zero_page[GUEST_PAGE_SIZE];

bool page_is_zero(const void *page)
{
	return memcmp(page, zero_page, GUEST_PAGE_SIZE) == 0;
}

static uint64_t digest_place(uint32_t space, uint64_t addr, uint64_t content)
{
	unsigned char key[20];
	uint64_t h;

	put_le64(key, content);
	put_le64(key + 8, addr);
	put_le32(key + 16, space);
	h = XXH64(key, sizeof(key), 0);
	return h ? h : 1;
}

uint64_t digest_zero(uint32_t space, uint64_t addr)
{
	return digest_place(space, addr, 0);
}

uint64_t digest_page(uint32_t space, uint64_t addr, const void *page)
{
	if (page_is_zero(page))
		return digest_zero(space, addr);
	return digest_place(space, addr, XXH64(page, GUEST_PAGE_SIZE, 0));
}
