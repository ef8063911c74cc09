// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include "lib/utf8.h"
#include "session/failure.h"

int failure_set(struct failure *f, int err, const char *fmt, ...)
{
	va_list ap;

	if (f->err)
		return err;
	f->err = err;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	utf8_repair(f->text);
	return err;
}
