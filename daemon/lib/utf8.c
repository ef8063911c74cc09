// SPDX-License-Identifier: GPL-2.0
#include <stddef.h>
#include <stdint.h>
#include "lib/utf8.h"

/* bytes of the character at @s, 0: it is none */
static size_t character(const unsigned char *s)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 :
		     *s >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (len < 2)
		return len;
	c = *s & (0x7f >> len);
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)	/* the end is none, too */
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ?
	       0 : len;
}

void utf8_repair(char *text)
{
	unsigned char *s = (unsigned char *)text;

	while (*s) {
		size_t len = character(s);

		if (!len) {
			*s = '?';
			len = 1;
		}
		s += len;
	}
}
