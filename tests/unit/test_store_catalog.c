/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog against a directory that people write to in all the ways there are. */
#include "store_world.h"

#define UUID_A "11111111-1111-4111-8111-111111111111"
#define UUID_B "22222222-2222-4222-8222-222222222222"

static bool absent(struct world *w, const char *id)
{
	struct catalog_entry *e;

	return catalog_find(w->c, id, &e, NULL) == -2;
}

static void test_load(void **state)
{
	struct world *w = *state;
	AUTO_FREE char *first = NULL;

	put(w, ETC "b/config", "beta { ram = 128 }\n");
	put(w, ETC "a/config", "alpha { ram = 128 }\ngamma { ram = 64 }\n");
	put(w, ETC ".hidden/config", "hidden { ram = 64 }\n");
	put(w, ETC "README", "not a directory\n");
	put(w, "srv/linked/config", "linked { ram = 64 }\n");
	assert_int_equal(symlink("../../srv/linked", at(w, ETC "z")), 0);
	assert_int_equal(symlink("nowhere", at(w, ETC "y")), 0);
	load(w);
	expect(w, 4, 0, 0);
	no_problem(w);
	assert_string_equal(catalog_at(w->c, 0)->vm->name, "alpha");
	assert_string_equal(catalog_at(w->c, 1)->vm->name, "gamma");
	assert_string_equal(catalog_at(w->c, 2)->vm->name, "beta");
	assert_string_equal(catalog_at(w->c, 3)->vm->name, "linked");
	assert_int_equal(find(w, "beta")->vm->ram_mib, 128);
	assert_int_equal(find(w, "gamma")->vm->line, 2);
	assert_false(find(w, "gamma")->vm->made_by_us);
	first = xstrdup(find(w, "beta")->uuid);
	/* The same uuids next time. */
	catalog_free(w->c);
	w->c = NULL;
	load(w);
	assert_string_equal(find(w, "beta")->uuid, first);
	/* A linked directory is watched where it really is. */
	expect(w, 8 - 4, 0, 0);
	put(w, "srv/linked/config", "linked { ram = 65 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
}

static void test_changes(void **state)
{
	struct world *w = *state;
	struct catalog_entry *e;
	uint64_t reloads;

	put(w, ETC "a/config", "a { ram = 128 }\n");
	load(w);
	expect(w, 1, 0, 0);
	e = find(w, "a");
	put(w, ETC "a/config", "a { ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_int_equal(e->vm->ram_mib, 129);
	put_by_rename(w, ETC "a/config", "a { ram = 130 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_int_equal(e->vm->ram_mib, 130);
	assert_int_equal(e->version, 3);
	/* The same content is no change; other files are not even looked at. */
	put_by_rename(w, ETC "a/config", "a { ram = 130 }\n");
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	reloads = catalog_stats(w->c)->reloads;
	put(w, ETC "a/running", "#!/bin/sh\n");
	catalog_sync(w->c);
	assert_int_equal(catalog_stats(w->c)->reloads, reloads);
	/* truncate(2) and a writer who keeps the file open: seen without a close. */
	assert_int_equal(truncate(at(w, ETC "a/config"), 0), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	assert_int_equal(find(w, "a")->vm->ram_mib, 130);
}

static void test_half_written(void **state)
{
	struct world *w = *state;
	AUTO_FD int fd = -1;

	put(w, ETC "a/config", "a { ram = 128 }\nb { ram = 64 }\n");
	load(w);
	expect(w, 2, 0, 0);
	fd = open(at(w, ETC "a/config"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	catalog_sync(w->c);
	expect(w, 0, 0, 0); /* empty parses, but loses both */
	assert_int_equal(fd_write_all(fd, "a { ram = 129 }\n", 16), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 0); /* parses, but loses b */
	assert_int_equal(fd_write_all(fd, "b { ra", 6), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	assert_null(find(w, "a")->error);
	/* Whole although still open, as with an editor whose child keeps the descriptor. */
	assert_int_equal(fd_write_all(fd, "m = 65 }\n", 9), 0);
	catalog_sync(w->c);
	expect(w, 0, 2, 0);
	assert_int_equal(find(w, "b")->vm->ram_mib, 65);
	/* Closed while broken: now it is an error, and the last good stays in force. */
	assert_int_equal(fd_write_all(fd, "b {", 3), 0);
	close(steal_fd(&fd));
	catalog_sync(w->c);
	expect(w, 0, 2, 0);
	assert_int_equal(find(w, "b")->vm->ram_mib, 65);
	assert_non_null(strstr(find(w, "b")->error, "/a/config:3:"));
	no_problem(w);
	put(w, ETC "a/config", "a { ram = 129 }\nb { ram = 65 }\n");
	catalog_sync(w->c);
	expect(w, 0, 2, 0);
	assert_null(find(w, "b")->error);
}

static void test_come_and_go(void **state)
{
	struct world *w = *state;
	struct catalog_entry *e;

	load(w);
	expect(w, 0, 0, 0);
	put(w, ETC "a/config", "a { uuid = \"" UUID_A "\"; ram = 128 }\n");
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
	e = find(w, "a");
	/* A renamed directory is the same VM. */
	assert_int_equal(rename(at(w, ETC "a"), at(w, ETC "c")), 0);
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_ptr_equal(find(w, UUID_A), e);
	assert_true(str_ends(e->vm->file, "/c/config"));
	put(w, ETC "c/config", "a { uuid = \"" UUID_A "\"; ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	/* So is a renamed section. */
	put(w, ETC "c/config", "aa { uuid = \"" UUID_A "\"; ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	assert_ptr_equal(find(w, "aa"), e);
	assert_true(absent(w, "a"));
	assert_int_equal(unlink(at(w, ETC "c/config")), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 1);
	put_by_rename(w, ETC "c/config", "a { ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
	assert_int_equal(dir_remove_tree(at(w, ETC "c"), NULL), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 1);
	/* Gone and back between two looks: the definition counts, not its history. */
	put(w, ETC "c/config", "a { ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
	assert_int_equal(dir_remove_tree(at(w, ETC "c"), NULL), 0);
	put(w, ETC "c/config", "a { ram = 130 }\n");
	catalog_sync(w->c);
	expect(w, 0, 1, 0);
	/* And all of it. */
	assert_int_equal(dir_remove_tree(at(w, ETC), NULL), 0);
	catalog_sync(w->c);
	expect(w, 0, 0, 1);
	put(w, ETC "d/config", "d { ram = 130 }\n");
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
	put(w, ETC "e/config", "e { ram = 130 }\n");
	catalog_sync(w->c);
	expect(w, 1, 0, 0);
}

static void test_broken_sections(void **state)
{
	struct world *w = *state;

	put(w, ETC "a/config", "good { ram = 128 }\nbad { ramm = 128 }\nworse = 3\n");
	put(w, ETC "b/config", "nothing {\n");
	load(w);
	expect(w, 1, 0, 0);
	{
		const struct catalog_problem *p;

		assert_int_equal(catalog_problems(w->c, &p), 3);
		assert_string_equal(p[0].name, "bad");
		assert_non_null(strstr(p[0].text, "/a/config:2:"));
		assert_non_null(strstr(p[1].text, "/a/config:3:"));
		assert_null(p[2].name);
		assert_non_null(strstr(p[2].text, "/b/config:"));
	}
	strbuf_drop(&w->problems, w->problems.len);
	put(w, ETC "a/config", "good { ram = 128 }\nbad { ram = 128 }\n");
	put(w, ETC "b/config", "");
	catalog_sync(w->c);
	expect(w, 1, 1, 0);
	no_problem(w);
	assert_non_null(strstr(w->problems.data, "/a/config (gone)\n"));
	/* One section breaks: only its VM carries the error. */
	put(w, ETC "a/config", "good { ram = 128 }\nbad { ramm = 128 }\n");
	catalog_sync(w->c);
	assert_null(find(w, "good")->error);
	assert_non_null(strstr(find(w, "bad")->error, "/a/config:2:"));
	assert_int_equal(find(w, "bad")->vm->ram_mib, 128);
}

static void test_duplicates(void **state)
{
	struct world *w = *state;

	put(w, ETC "a/config", "a { uuid = \"" UUID_A "\"; ram = 128 }\n");
	put(w, ETC "b/config", "a { uuid = \"" UUID_B "\"; ram = 129 }\n");
	load(w);
	expect(w, 1, 0, 0);
	assert_non_null(strstr(only_problem(w), "/a/config:1"));
	assert_non_null(strstr(only_problem(w), "/b/config:1"));
	assert_non_null(strstr(only_problem(w), "name 'a'"));
	put(w, ETC "b/config", "b { uuid = \"" UUID_A "\"; ram = 129 }\n");
	catalog_sync(w->c);
	expect(w, 0, 0, 0);
	assert_non_null(strstr(only_problem(w), "uuid '" UUID_A "'"));
	/* The first goes: the second comes into force. */
	assert_int_equal(dir_remove_tree(at(w, ETC "a"), NULL), 0);
	catalog_sync(w->c);
	assert_int_equal(catalog_count(w->c), 1);
	assert_int_equal(find(w, UUID_A)->vm->ram_mib, 129);
	no_problem(w);
}

static void test_find(void **state)
{
	struct world *w = *state;
	struct catalog_entry *e;
	struct err err;

	put(w, ETC "a/config", "a { uuid = \"" UUID_A "\"; alias = same; ram = 128 }\n");
	put(w, ETC "b/config",
	    "b { uuid = \"11112222-1111-4111-8111-111111111111\"; alias = same; "
	    "ram = 64 }\n");
	load(w);
	assert_string_equal(find(w, "11111")->vm->name, "a");
	assert_string_equal(find(w, UUID_A)->vm->name, "a");
	assert_int_equal(catalog_find(w->c, "1111", &e, &err), -17);
	assert_non_null(strstr(err.msg, "ambiguous: matches " UUID_A));
	assert_int_equal(catalog_find(w->c, "same", &e, &err), -17);
	assert_int_equal(catalog_find(w->c, "111", &e, &err), -2);
	assert_string_equal(err.msg, "VM 111 not found");
	assert_int_equal(catalog_find(w->c, "", &e, &err), -2);
}

static void test_owner(void **state)
{
	struct world *w = *state;

	put(w, ETC "a/config", "a { ram = 128; owner = root; group = root }\n");
	put(w, ETC "b/config", "b { ram = 128; owner = nosuchuser }\n");
	load(w);
	assert_int_equal(find(w, "a")->vm->owner_uid, 0);
	assert_int_equal(find(w, "a")->vm->group_gid, 0);
	assert_non_null(strstr(only_problem(w), "'nosuchuser' is not a user"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(test_load),        T(test_changes),         T(test_half_written),
		T(test_come_and_go), T(test_broken_sections), T(test_duplicates),
		T(test_find),        T(test_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
