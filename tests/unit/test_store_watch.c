/* SPDX-License-Identifier: Apache-2.0 */
/* What the catalog watches beside definitions: rights, metadata, includes; holds and scans. */
#include <sys/mman.h>
#include <sys/stat.h>

#include "store_world.h"

#define UUID_A "11111111-1111-4111-8111-111111111111"
#define UUID_B "22222222-2222-4222-8222-222222222222"

static void test_trust(void **state)
{
	struct world *w = *state;

	put(w, ETC "a/config", "a { ram = 128 }\n");
	put(w, ETC "b/config", "b { ram = 128 }\n");
	assert_int_equal(chmod(at(w, ETC "a/config"), 0666), 0);
	assert_int_equal(chmod(at(w, ETC "b"), 0777), 0);
	load(w);
	expect(w, 0, 0, 0);
	assert_int_equal(chmod(at(w, ETC "b"), 0755), 0);
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
	assert_non_null(strstr(only_problem(w), "writable by others"));
	assert_int_equal(chmod(at(w, ETC "a/config"), 0644), 0);
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
	no_problem(w);
	/* In force already: stays, with the reason. */
	assert_int_equal(chmod(at(w, ETC), 0777), 0);
	catalog_sync(w->c);
	expect(w, 0, 2, 0);
	assert_non_null(strstr(find(w, "a")->error, "configuration directory"));
	assert_int_equal(chmod(at(w, ETC), 0755), 0);
	catalog_sync(w->c);
	expect(w, 0, 2, 0);
	assert_null(find(w, "a")->error);
}

static void test_metadata(void **state)
{
	struct world *w = *state;
	struct catalog_entry *e;
	AUTO_FD int fd = -1;

	put(w, ETC "a/config", "a { uuid = \"" UUID_A "\"; ram = 128 }\n");
	load(w);
	expect(w, 1, 0, 0);
	e = find(w, "a");
	/* Directory by directory, as they come. */
	assert_int_equal(mkdir(at(w, LIB UUID_A), 0700), 0);
	catalog_sync(w->c);
	assert_int_equal(mkdir(at(w, LIB UUID_A "/config"), 0700), 0);
	put(w, LIB UUID_A "/config/tags.json", "{\"k\":1}");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_int_equal(json_integer_value(json_object_get(e->vm->tags, "k")), 1);
	put_by_rename(w, LIB UUID_A "/config/metadata.json",
		      "{\"customer_metadata\":{\"c\":\"x\"},\"internal_metadata\":{\"i\":true}}");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_true(json_is_true(json_object_get(e->vm->internal_metadata, "i")));
	/* Half a file changes nothing, a broken one leaves the last good with an error. */
	fd = open(at(w, LIB UUID_A "/config/tags.json"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(fd_write_all(fd, "{\"k\":", 5), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	close(steal_fd(&fd));
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_non_null(strstr(e->error, "tags.json:1:"));
	assert_non_null(json_object_get(e->vm->tags, "k"));
	put(w, LIB UUID_A "/config/tags.json", "{\"k\":[1]}");
	catalog_sync(w->c);
	assert_non_null(strstr(e->error, "tags.k"));
	assert_int_equal(dir_remove_tree(at(w, LIB UUID_A), NULL), 0);
	catalog_sync(w->c);
	assert_null(e->error);
	assert_true(json_object_size(e->vm->tags) == 0);
	put(w, LIB UUID_A "/config/routes.json", "{\"10.0.0.0/8\":\"10.1.1.1\"}");
	catalog_sync(w->c);
	assert_int_equal(json_object_size(e->vm->routes), 1);
	/* Disks beside it are nobody's business. */
	catalog_sync(w->c);
	{
		uint64_t events = catalog_stats(w->c)->events;

		put(w, LIB UUID_A "/disk0.qcow2", "disk");
		put(w, LIB UUID_A "/disk0.qcow2", "diskdisk");
		catalog_sync(w->c);
		assert_int_equal(catalog_stats(w->c)->events, events);
	}
}

static void test_includes(void **state)
{
	struct world *w = *state;
	AUTO_FREE char *text = xasprintf("a {\n.include \"%s\"\n}\n", at(w, "srv/common.conf"));

	put(w, "srv/common.conf", "ram = 128\n");
	put(w, ETC "a/config", text);
	put(w, "srv/real.conf", "b { ram = 64 }\n");
	assert_int_equal(mkdir(at(w, ETC "b"), 0755), 0);
	assert_int_equal(symlink(at(w, "srv/real.conf"), at(w, ETC "b/config")), 0);
	put(w, ETC "c/config", "c { ram = 64; configfile = \"bhyve.conf\" }\n");
	put(w, ETC "c/bhyve.conf", "cpus=2\n");
	load(w);
	no_problem(w);
	expect(w, 3, 0, 0);
	assert_int_equal(find(w, "a")->vm->ram_mib, 128);
	put(w, "srv/common.conf", "ram = 129\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	put_by_rename(w, "srv/common.conf", "ram = 130\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_int_equal(find(w, "a")->vm->ram_mib, 130);
	put_by_rename(w, "srv/common.conf", "ram = {\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_non_null(strstr(find(w, "a")->error, "common.conf"));
	put_by_rename(w, "srv/common.conf", "ram = 131\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_null(find(w, "a")->error);
	/* Through the link, in place and by replacing its target. */
	put(w, "srv/real.conf", "b { ram = 65 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	put_by_rename(w, "srv/real.conf", "b { ram = 66 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	put(w, ETC "c/bhyve.conf", "cpus=3\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_true(str_ends(find(w, "c")->vm->configfile, "/c/bhyve.conf"));
}

static void test_hold(void **state)
{
	struct world *w = *state;

	put(w, ETC "a/config", "a { uuid = \"" UUID_A "\"; ram = 128 }\n");
	put(w, LIB UUID_A "/config/tags.json", "{}");
	load(w);
	expect(w, 1, 0, 0);
	catalog_hold(w->c, UUID_A);
	put_by_rename(w, LIB UUID_A "/config/tags.json", "{\"k\":1}");
	catalog_sync(w->c);
	put_by_rename(w, ETC "a/config", "a { uuid = \"" UUID_A "\"; ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	assert_int_equal(find(w, UUID_A)->vm->ram_mib, 128);
	assert_int_equal(catalog_scan(w->c, 100), 0);
	catalog_release(w->c, UUID_A);
	expect(w, 0, 1, 0);
	assert_int_equal(find(w, UUID_A)->vm->ram_mib, 129);
	assert_int_equal(json_object_size(find(w, UUID_A)->vm->tags), 1);
	/* One that is not there yet, and one that goes. */
	catalog_hold(w->c, UUID_B);
	put(w, ETC UUID_B "/config", "b { uuid = \"" UUID_B "\"; ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	catalog_release(w->c, UUID_B);
	expect(w, 1, 0, 0);
	assert_true(find(w, "b")->vm->made_by_us);
	catalog_hold(w->c, UUID_B);
	assert_int_equal(dir_remove_tree(at(w, ETC UUID_B), NULL), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	catalog_release(w->c, UUID_B);
	expect(w, 0, 0, 1);
}

static void test_scan(void **state)
{
	struct world *w = *state;
	AUTO_FD int fd = -1;
	char *map;

	put(w, ETC "a/config", "a { ram = 128 }\n");
	load(w);
	for (int i = 0; i < 4; i++)
		assert_int_equal(catalog_scan(w->c, 100), 0);
	/* A store through mmap makes no event. */
	fd = open(at(w, ETC "a/config"), O_RDWR | O_CLOEXEC);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	(void)memcpy(map, "a { ram = 129", 13);
	assert_int_equal(msync(map, 4096, MS_SYNC), 0);
	catalog_sync(w->c);
	assert_int_equal(find(w, "a")->vm->ram_mib, 128);
	assert_int_equal(catalog_scan(w->c, 100), 1);
	assert_int_equal(catalog_stats(w->c)->lost, 1);
	assert_int_equal(find(w, "a")->vm->ram_mib, 129);
	assert_int_equal(catalog_scan(w->c, 100), 0);
	(void)munmap(map, 4096);
}

static void test_overflow(void **state)
{
	struct world *w = *state;

	put(w, ETC "a/config", "a { ram = 128 }\n");
	put(w, ETC "b/config", "b { ram = 128 }\n");
	load(w);
	expect(w, 2, 0, 0);
	/* More events than the queue takes; alternating, as equal ones are merged. */
	for (int i = 0; i < 17000; i++)
		assert_int_equal(chmod(at(w, i % 2 ? ETC "a/config" : ETC "b/config"), 0644), 0);
	put(w, ETC "b/config", "b { ram = 129 }\n");
	put(w, ETC "c/config", "c { ram = 129 }\n");
	catalog_sync(w->c);
	if (catalog_stats(w->c)->overflows == 0)
		skip();
	expect(w, 1, 1, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(test_trust), T(test_metadata), T(test_includes),
		T(test_hold),  T(test_scan),     T(test_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
