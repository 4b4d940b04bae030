/* SPDX-License-Identifier: Apache-2.0 */
/* What a confined process can still do, and what not; each in a child, as nothing goes back. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "vminfod/confine.h"

static char root[64];

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1u) >= 0;
}

/* Run in a child; its exit status. No output, no leak check: _exit. */
static int in_child(int (*fn)(const char *run), const char *user)
{
	AUTO_FREE char *run = path_join(root, "run");
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct confine_user who = {0};

		if (user && confine_find_user(user, &who, NULL) < 0)
			_exit(99);
		if (confine(&who, run, NULL) < 0)
			_exit(98);
		_exit(fn(run));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int reads(const char *run)
{
	AUTO_FREE char *path = path_join(root, "secret/file");
	AUTO_FREE char *text = NULL;
	int fd = inotify_init1(IN_NONBLOCK);

	if (file_read(path, 100, &text, NULL, NULL, NULL) < 0)
		return 1;
	return inotify_add_watch(fd, root, IN_CREATE) < 0 ? 2 : 0;
}

static int writes(const char *run)
{
	static char program[] = "/bin/true";
	char *const argv[] = {program, NULL};
	AUTO_FREE char *file = path_join(root, "secret/file");
	AUTO_FREE char *new = path_join(run, "new");

	if (has_landlock() &&
	    (open(file, O_WRONLY) >= 0 || open(new, O_CREAT | O_RDWR, 0600) >= 0 ||
	     mkdir(new, 0700) == 0 || unlink(file) == 0 || rename(file, new) == 0))
		return 1;
	if (chmod(file, 0777) == 0 || symlink("x", new) == 0 || link(file, new) == 0)
		return 2;
	if (execv(argv[0], argv) == 0 || errno != EPERM)
		return 3;
	if (mount("x", root, "tmpfs", 0, NULL) == 0 || setuid(0) == 0)
		return 4;
	return 0;
}

static int removes_own(const char *run)
{
	AUTO_FREE char *socket = path_join(run, "socket");

	return unlink(socket) < 0;
}

static int has_given_up(const char *run)
{
	AUTO_FREE char *text = NULL;
	const char *caps;

	if (file_read("/proc/self/status", 65536, &text, NULL, NULL, NULL) < 0)
		return 1;
	caps = strstr(text, "CapEff:");
	if (!caps || (strtoull(caps + 7, NULL, 16) & ~4ull))
		return 2;
	if (!strstr(text, "NoNewPrivs:\t1") || !strstr(text, "Seccomp:\t2"))
		return 3;
	return geteuid() == 0 ? 4 : 0;
}

static void test_reads(void **state)
{
	assert_int_equal(in_child(reads, NULL), 0);
	if (geteuid() == 0)
		assert_int_equal(in_child(reads, "nobody"), 0);
}

static void test_changes_nothing(void **state)
{
	assert_int_equal(in_child(writes, NULL), 0);
	assert_int_equal(in_child(removes_own, NULL), 0);
}

static void test_user(void **state)
{
	struct confine_user who;
	struct err err = {0};

	assert_int_equal(confine_find_user("no-such-user", &who, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no-such-user"));
	if (geteuid() != 0)
		skip();
	assert_int_equal(in_child(has_given_up, "nobody"), 0);
	assert_int_equal(in_child(writes, "nobody"), 0);
}

static void put(const char *folder, const char *name)
{
	AUTO_FREE char *dir = path_join(root, folder);
	AUTO_FREE char *path = path_join(dir, name);

	assert_int_equal(dir_make(dir, 0700, NULL), 0);
	assert_int_equal(file_write(path, "x", 1, 0600, FILE_NO_SYNC, NULL), 0);
}

static int setup(void **state)
{
	(void)snprintf(root, sizeof(root), "/tmp/test_confine.XXXXXX");
	assert_non_null(mkdtemp(root));
	put("secret", "file");
	put("run", "socket");
	return 0;
}

static int teardown(void **state)
{
	(void)dir_remove_tree(root, NULL);
	return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {T(test_reads), T(test_changes_nothing),
						  T(test_user)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
