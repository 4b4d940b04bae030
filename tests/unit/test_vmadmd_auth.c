/* SPDX-License-Identifier: Apache-2.0 */
/* Who may do what: every kind of caller against every kind of deed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/sock.h"
#include "model/vm.h"
#include "vmadmd/auth.h"

#define OWNER 61001
#define GROUP 61002
#define OTHER 61003

static struct vm vm = {.owner_uid = OWNER, .group_gid = GROUP};

static int judge(const struct sock_peer *peer, bool admin_only)
{
	struct err err = {0};
	int r = auth_check(peer, &vm, admin_only, "stop", &err);

	assert_true(r == 0 || err.msg[0]);
	return r;
}

static void test_admins(void **state)
{
	const struct sock_peer root = {.uid = 0, .gid = 0};
	const struct sock_peer own = {.uid = geteuid(), .gid = OTHER};

	assert_int_equal(judge(&root, true), 0);
	assert_int_equal(judge(&root, false), 0);
	assert_int_equal(judge(&own, true), 0);
	assert_int_equal(auth_check(&own, NULL, false, "stop", NULL), 0);
}

static void test_owner_and_group(void **state)
{
	gid_t groups[] = {5, GROUP};
	const struct sock_peer owner = {.uid = OWNER, .gid = OTHER};
	const struct sock_peer main_group = {.uid = OTHER, .gid = GROUP};
	const struct sock_peer more = {.uid = OTHER, .gid = OTHER, .groups = groups, .ngroups = 2};

	assert_int_equal(judge(&owner, false), 0);
	assert_int_equal(judge(&main_group, false), 0);
	assert_int_equal(judge(&more, false), 0);
	assert_int_equal(judge(&owner, true), -EPERM);
	assert_int_equal(judge(&more, true), -EPERM);
	assert_int_equal(auth_check(&owner, NULL, false, "stop", NULL), -EPERM);
}

static void test_others(void **state)
{
	const struct vm nobodys = {.owner_uid = UINT32_MAX, .group_gid = UINT32_MAX};
	const struct sock_peer other = {.uid = OTHER, .gid = OTHER};
	const struct sock_peer odd = {.uid = UINT32_MAX, .gid = UINT32_MAX};
	struct err err = {0};

	assert_int_equal(judge(&other, false), -EPERM);
	assert_int_equal(judge(NULL, false), -EPERM);
	assert_int_equal(auth_check(&odd, &nobodys, false, "stop", &err), -EPERM);
	assert_int_equal(auth_check(&other, &nobodys, false, "stop", &err), -EPERM);
	assert_non_null(strstr(err.msg, "uid 61003"));
}

static void test_lookers(void **state)
{
	const struct sock_peer root = {.uid = 0}, other = {.uid = OTHER, .gid = OTHER};
	const struct sock_peer odd = {.uid = UINT32_MAX, .gid = UINT32_MAX};

	assert_true(auth_may_look(&root, (uid_t)-1));
	assert_true(auth_may_look(&other, OTHER));
	assert_false(auth_may_look(&other, (uid_t)-1));
	assert_false(auth_may_look(&odd, (uid_t)-1));
	assert_false(auth_may_look(NULL, (uid_t)-1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admins),
		cmocka_unit_test(test_owner_and_group),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_lookers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
