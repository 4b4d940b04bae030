/* SPDX-License-Identifier: Apache-2.0 */
/* The table of errors, statuses and exit codes, both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "api/status.h"

static void statuses_of_errors(void **state)
{
	assert_int_equal(status_from_errno(-ENOENT), 404);
	assert_int_equal(status_from_errno(-EPERM), 403);
	assert_int_equal(status_from_errno(-EACCES), 403);
	assert_int_equal(status_from_errno(-EINVAL), 400);
	assert_int_equal(status_from_errno(-E2BIG), 413);
	assert_int_equal(status_from_errno(-EEXIST), 409);
	assert_int_equal(status_from_errno(-EBUSY), 409);
	assert_int_equal(status_from_errno(-EALREADY), 409);
	assert_int_equal(status_from_errno(-ETIMEDOUT), 504);
	assert_int_equal(status_from_errno(-ELOOP), 500);
}

static void names_go_both_ways(void **state)
{
	for (int code = 1; code < 200; code++) {
		const char *name = status_errno_name(-code);

		if (strcmp(name, "EIO") != 0)
			assert_int_equal(status_errno_from_name(name), code);
	}
	assert_string_equal(status_errno_name(-ELOOP), "EIO");
	assert_int_equal(status_errno_from_name("EWHAT"), 0);
	assert_int_equal(status_errno_from_name(NULL), 0);
}

static void exit_codes(void **state)
{
	assert_int_equal(exit_from_errno(0), EXIT_OK);
	assert_int_equal(exit_from_errno(-ENOENT), EXIT_UNKNOWN_VM);
	assert_int_equal(exit_from_errno(-EPERM), EXIT_DENIED);
	assert_int_equal(exit_from_errno(-EBUSY), EXIT_CONFLICT);
	assert_int_equal(exit_from_errno(-ETIMEDOUT), EXIT_TIMED_OUT);
	assert_int_equal(exit_from_errno(-ECONNREFUSED), EXIT_UNREACHABLE);
	assert_int_equal(exit_from_errno(-ELOOP), EXIT_FAILED);
	assert_int_equal(exit_from_status(0), EXIT_OK);
	assert_int_equal(exit_from_status(204), EXIT_OK);
	assert_int_equal(exit_from_status(404), EXIT_UNKNOWN_VM);
	assert_int_equal(exit_from_status(409), EXIT_CONFLICT);
	assert_int_equal(exit_from_status(503), EXIT_UNREACHABLE);
	assert_int_equal(exit_from_status(418), EXIT_FAILED);
	for (int i = EXIT_OK; i <= EXIT_UNREACHABLE; i++)
		assert_true(strlen(exit_code_doc((enum exit_code)i)) > 5);
}

static void errors_of_statuses(void **state)
{
	assert_int_equal(status_to_errno(200), 0);
	assert_int_equal(status_to_errno(404), ENOENT);
	assert_int_equal(status_to_errno(409), EBUSY);
	assert_int_equal(status_to_errno(500), EIO);
	assert_int_equal(status_to_errno(599), EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statuses_of_errors),
		cmocka_unit_test(names_go_both_ways),
		cmocka_unit_test(exit_codes),
		cmocka_unit_test(errors_of_statuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
