// SPDX-License-Identifier: GPL-2.0
/*
 * Text that JSON does not take: nothing that is to be told may vanish
 */
#include <string.h>
#include <jansson.h>
#include "lib/utf8.h"
#include "session/failure.h"
#include "state/state.h"
#include "tap.h"

static bool json_takes(const char *text)
{
	json_t *v = json_string(text);

	json_decref(v);
	return v;
}

static void test_repair(void)
{
	static const struct {
		const char *from, *to;
	} t[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80" },
		{ "cut \xc3", "cut ?" },
		{ "cut \xe2\x82", "cut ??" },
		{ "cut \xe2\x82 on", "cut ?? on" },
		{ "\x80\xff", "??" },
		{ "long \xc0\xaf", "long ??" },
		{ "half \xed\xa0\x80", "half ???" },
		{ "high \xf4\x90\x80\x80", "high ????" },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		char text[32];

		strcpy(text, t[i].from);
		utf8_repair(text);
		ok(!strcmp(text, t[i].to) && json_takes(text), "text %zu: %s",
		   i, text);
	}
}

int main(void)
{
	struct failure failure = { 0 };
	struct findings f = { 0 };

	test_repair();
	failure_set(&failure, -1, "child (%s)", "\xc3");
	ok(json_takes(failure.text), "a failure can be told");
	finding_add(&f, FINDING_ERROR, "x", "\xe2\x82", "a file %s", "\xff");
	ok(json_takes(f.v[0].object) && json_takes(f.v[0].text),
	   "and so can a finding");
	findings_clear(&f);
	return tap_end();
}
