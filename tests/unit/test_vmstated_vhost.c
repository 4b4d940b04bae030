/* SPDX-License-Identifier: Apache-2.0 */
/* What is no vhost device is not handed to QEMU; what is one, where the host has it, works. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "vmstated/vhost.h"

static void test_others(void **state)
{
	AUTO_FREE char *fifo = xasprintf("/tmp/vhost-fifo-%d", (int)getpid());

	assert_int_equal(vhost_open("/no/such"), -ENOENT);
	assert_int_equal(vhost_open("/dev/null"), -ENOTTY);
	assert_int_equal(vhost_open("/"), -EISDIR);
	assert_int_equal(mkfifo(fifo, 0600), 0); /* one that nobody reads does not hang us */
	assert_true(vhost_open(fifo) < 0);
	assert_int_equal(unlink(fifo), 0);
}

/* Where the host has it, it answers; where not, so does vhost_open. */
static void test_real(void **state)
{
	int fd = vhost_open(VHOST_NET);

	if (access(VHOST_NET, R_OK | W_OK) < 0) {
		assert_true(fd < 0);
		return;
	}
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_others),
					   cmocka_unit_test(test_real)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
