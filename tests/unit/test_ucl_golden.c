/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks tests/golden/ucl: NAME.conf is parsed with folded keys and ABI=unknown and must give the
 * JSON of NAME.json (pass-*) or the message of NAME.err (fail-*). A new pair needs no code;
 * REWRITE_GOLDEN=1 writes the expected files anew, for review by diff. Included parts are in
 * folders, so that they are no cases themselves.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/ucl.h"

static const char *const vars[][2] = {{"ABI", "unknown"}};
static const struct ucl_options options = {.fold_keys = true, .vars = vars, .nvars = 1};

/* What the case gives: JSON or message, a line each. */
static char *outcome(const char *path, bool *ret_passed)
{
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	AUTO_FREE char *json = NULL;
	int r = ucl_parse_file(path, &options, &doc, &err);

	*ret_passed = r == 0;
	if (r < 0) {
		assert_int_equal(r, -err.code);
		return xasprintf("%s\n", err.msg);
	}
	json = ucl_to_json(ucl_root(doc));
	ucl_free(doc);
	return xasprintf("%s\n", json);
}

static unsigned check_case(const char *name)
{
	bool want_pass = str_starts(name, "pass-");
	AUTO_FREE char *stem = xstrndup(name, strlen(name) - strlen(".conf"));
	AUTO_FREE char *expected = xasprintf("%s.%s", stem, want_pass ? "json" : "err");
	AUTO_FREE char *want = NULL;
	bool passed;
	AUTO_FREE char *got = outcome(name, &passed);
	struct err err = {0};

	if (passed != want_pass) {
		print_error("%s: %s", name, got);
		return 1;
	}
	if (getenv("REWRITE_GOLDEN")) {
		assert_int_equal(file_write(expected, got, strlen(got), 0644, FILE_NO_SYNC, &err),
				 0);
		return 0;
	}
	if (file_read(expected, 1 << 20, &want, NULL, NULL, &err) < 0) {
		print_error("%s\n", err.msg);
		return 1;
	}
	if (str_eq(got, want))
		return 0;
	print_error("%s:\n  got  %s  want %s", name, got, want);
	return 1;
}

static void test_golden(void **state)
{
	struct dirent **list;
	unsigned failed = 0, cases = 0;
	int n = scandir(".", &list, NULL, alphasort);

	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		if (str_ends(list[i]->d_name, ".conf")) {
			failed += check_case(list[i]->d_name);
			cases++;
		}
		free(list[i]);
	}
	free(list);
	assert_true(cases >= 90);
	assert_int_equal(failed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};
	const char *golden = getenv("GOLDEN");
	AUTO_FREE char *dir = path_join(golden ? golden : "tests/golden", "ucl");

	if (chdir(dir) < 0) {
		print_error("no folder '%s' (set GOLDEN)\n", dir);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
