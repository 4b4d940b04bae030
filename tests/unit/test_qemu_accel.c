/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM probe in a child with a deadline, as its callers run it: a figure or a reason. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "qemu/accel.h"

struct answer {
	int r;
	double ns;
	struct err err;
};

static void child(int fd)
{
	struct answer a = {0};

	a.r = accel_measure(&a.ns, &a.err);
	_exit(write(fd, &a, sizeof(a)) == (ssize_t)sizeof(a) ? 0 : 1);
}

static void gives_a_figure_or_a_reason(void **state)
{
	struct answer a = {0};
	struct pollfd p = {.events = POLLIN};
	uint64_t start = clock_us();
	int fds[2], n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child(fds[1]);
	(void)close(fds[1]);
	p.fd = fds[0];
	n = poll(&p, 1, 10 * ACCEL_PROBE_MS);
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	if (n == 0) {
		print_message("# no answer within %d ms: no KVM worth using\n",
			      10 * ACCEL_PROBE_MS);
	} else if (read(fds[0], &a, sizeof(a)) == (ssize_t)sizeof(a) && a.r == 0) {
		print_message("# %.1f ns an iteration, %.1f ms in all\n", a.ns,
			      (double)(clock_us() - start) / 1000);
		assert_true(a.ns > 0.05 && a.ns < 1e6);
	} else {
		print_message("# %s\n", a.err.msg);
		assert_true(a.r < 0 && a.err.msg[0] != '\0');
	}
	(void)close(fds[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(gives_a_figure_or_a_reason)};

	return cmocka_run_group_tests_name("accel", tests, NULL, NULL);
}
