// SPDX-License-Identifier: GPL-2.0
/*
 * The census: no attribute twice, each in the hands of a resource that runs,
 * and the page in Documentation/design says the same. --print writes the table
 * of that page.
 */
#include "state/census.h"
#include "tap.h"

#define PAGE "Documentation/design/census.rst"

static const char *const table_head =
	".. list-table::\n"
	"   :header-rows: 1\n"
	"   :widths: 45 10 12 33\n"
	"\n"
	"   * - attribute\n"
	"     - outcome\n"
	"     - by\n"
	"     - how\n";

static char *make_table(void)
{
	char *text = NULL;
	size_t len, i;
	FILE *f = open_memstream(&text, &len);

	must(f);
	fputs(table_head, f);
	for (i = 0; i < nr_census; i++)
		fprintf(f, "   * - %s\n     - %s\n     - %s\n     -%s%s\n",
			census[i].attribute,
			census_outcome_name(census[i].outcome),
			census[i].by->name, *census[i].how ? " " : "",
			census[i].how);
	fclose(f);
	return text;
}

static char *read_page(void)
{
	char *text = calloc(1, 1 << 20);
	FILE *f = fopen(PAGE, "re");

	if (!f) {
		free(text);
		return NULL;
	}
	must(text && fread(text, 1, (1 << 20) - 1, f));
	fclose(f);
	return text;
}

static bool runs(const struct resource *by)
{
	size_t i;

	for (i = 0; i < nr_resources; i++)
		if (resources[i] == by)
			return true;
	return false;
}

static void test_rows(void)
{
	size_t i, j, twice = 0, orphans = 0, idle = 0;

	for (i = 0; i < nr_census; i++) {
		const struct census_row *row = &census[i];

		for (j = 0; j < i; j++)
			if (!strcmp(census[j].attribute, row->attribute)) {
				note("twice: %s", row->attribute);
				twice++;
			}
		if (!runs(row->by)) {
			note("by nobody: %s", row->attribute);
			orphans++;
		}
		if (row->outcome == CENSUS_RESTORED && !row->by->finish &&
		    !row->by->prepare && !row->by->target_check) {
			note("not restored by %s: %s", row->by->name,
			     row->attribute);
			idle++;
		}
		if (row->outcome != CENSUS_RESTORED &&
		    row->outcome != CENSUS_NEW && !row->check &&
		    !row->by->check) {
			note("not looked at by %s: %s", row->by->name,
			     row->attribute);
			idle++;
		}
	}
	ok(nr_census > 60 && !twice, "%zu attributes, each once", nr_census);
	ok(!orphans, "each is the business of a resource in the table");
	ok(!idle, "which does something about it");
}

int main(int argc, char **argv)
{
	char *table = make_table(), *page;

	if (argc > 1 && !strcmp(argv[1], "--print")) {
		fputs(table, stdout);
		return 0;
	}
	test_rows();
	page = read_page();
	if (!page)
		ok(false, "%s is there (run from the top folder)", PAGE);
	else
		ok(strstr(page, table), "%s has this table", PAGE);
	free(table);
	free(page);
	return tap_end();
}
