/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promise of exact reads, with two processes: the writer changes a file in turn by rename,
 * by writing in place, and by removing and making it anew, and tells only after the call
 * returned. The reader then syncs once and must see it. docs/decisions/0006.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "model/vm.h"
#include "store/catalog.h"

static void nothing(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
}

static void write_in_place(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	/* Two writes: the file is half there for a moment. */
	if (fd < 0 || fd_write_all(fd, text, 4) < 0 ||
	    fd_write_all(fd, text + 4, strlen(text) - 4) < 0)
		_exit(1);
	(void)close(fd);
}

static void writer(const char *path, uint32_t rounds, int say, int hear)
{
	char c;

	for (uint32_t i = 0; i < rounds; i++) {
		AUTO_FREE char *text = xasprintf("web { ram = %u }\n", 64 + i);

		if (i % 3 == 2 && unlink(path) < 0)
			_exit(1);
		if (i % 3 == 0 && file_write(path, text, strlen(text), 0644, FILE_NO_SYNC, NULL))
			_exit(1);
		if (i % 3 != 0)
			write_in_place(path, text);
		if (write(say, "x", 1) != 1 || read(hear, &c, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

/* Write and read that many times below a folder of that file system. */
static void run(const char *base, uint32_t rounds)
{
	AUTO_FREE char *root = xasprintf("%s/test_exact.XXXXXX", base);
	char c;
	AUTO_PATHS struct paths paths = {0};
	struct catalog_config config = {.paths = &paths, .changed = nothing};
	struct catalog *catalog = NULL;
	int to_us[2], to_writer[2], status;
	unsigned late = 0;
	pid_t pid;

	assert_non_null(mkdtemp(root));
	assert_int_equal(paths_init(&paths, root, NULL), 0);
	assert_int_equal(catalog_new(&config, &catalog, NULL), 0);
	AUTO_FREE char *dir = path_join(paths.etc, "web");
	AUTO_FREE char *path = path_join(dir, "config");
	assert_int_equal(dir_make(dir, 0755, NULL), 0);
	assert_int_equal(catalog_load(catalog, NULL), 0);
	assert_int_equal(pipe(to_us) | pipe(to_writer), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		writer(path, rounds, to_us[1], to_writer[0]);
	for (uint32_t i = 0; i < rounds; i++) {
		struct catalog_entry *e = NULL;

		assert_int_equal(read(to_us[0], &c, 1), 1);
		catalog_sync(catalog);
		if (catalog_find(catalog, "web", &e, NULL) < 0 || e->error ||
		    e->vm->ram_mib != 64 + i)
			late++;
		assert_int_equal(write(to_writer[1], "x", 1), 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(late, 0);
	assert_int_equal(catalog_stats(catalog)->lost, 0);
	catalog_free(catalog);
	(void)dir_remove_tree(root, NULL);
	for (int i = 0; i < 2; i++)
		(void)(close(to_us[i]) | close(to_writer[i]));
}

static void test_on_disk(void **state)
{
	/* ext4 writes out on each such rename and truncation: fewer rounds. */
	run("/tmp", 900);
}

static void test_in_memory(void **state)
{
	if (access("/dev/shm", W_OK) < 0)
		skip();
	run("/dev/shm", 9000);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_on_disk),
		cmocka_unit_test(test_in_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
