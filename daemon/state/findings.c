// SPDX-License-Identifier: GPL-2.0
/*
 * What checks found, kept until it is shown
 */
#include <stdarg.h>
#include <string.h>
#include "lib/cleanup.h"
#include "lib/utf8.h"
#include "state/state.h"

void finding_add(struct findings *f, enum finding_level level,
		 const char *check, const char *object, const char *fmt, ...)
{
	struct finding *v;
	struct finding one = { .level = level };
	va_list ap;

	if (level == FINDING_ERROR)
		f->errors++;	/* counts even if there is no room to say it */
	va_start(ap, fmt);
	if (vasprintf(&one.text, fmt, ap) < 0)
		one.text = NULL;
	va_end(ap);
	one.check = strdup(check);
	one.object = strdup(object ? object : "");
	v = reallocarray(f->v, f->n + 1, sizeof(*v));
	if (v)
		f->v = v;
	if (!v || !one.text || !one.check || !one.object) {
		free(one.text);
		free(one.check);
		free(one.object);
		return;
	}
	utf8_repair(one.text);
	utf8_repair(one.check);
	utf8_repair(one.object);
	f->v[f->n++] = one;
}

void findings_clear(struct findings *f)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		free(f->v[i].check);
		free(f->v[i].object);
		free(f->v[i].text);
	}
	free(f->v);
	*f = (struct findings){};
}
