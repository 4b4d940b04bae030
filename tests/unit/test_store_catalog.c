/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog against a directory that people write to in all the ways there are. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/vm.h"
#include "store/catalog.h"

#define UUID_A "11111111-1111-4111-8111-111111111111"
#define UUID_B "22222222-2222-4222-8222-222222222222"

struct world {
	char root[64];
	struct paths paths;
	struct catalog *c;
	int news, changes, gones;
	struct strbuf problems; /* "FILE TEXT\n" */
};

static void on_change(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
	struct world *w = ctx;

	assert_non_null(e->vm);
	w->news += what == CATALOG_NEW;
	w->changes += what == CATALOG_CHANGED;
	w->gones += what == CATALOG_GONE;
	if (what == CATALOG_GONE)
		assert_null(catalog_by_uuid(w->c, e->uuid));
	else if (w->c)
		assert_ptr_equal(catalog_by_uuid(w->c, e->uuid), e);
}

static void on_problem(void *ctx, const char *file, const char *text)
{
	struct world *w = ctx;

	strbuf_printf(&w->problems, "%s %s\n", file, text ? text : "(gone)");
}

static char *at(struct world *w, const char *rel)
{
	static char buf[4][512];
	static int n;
	char *p = buf[n++ % 4];

	(void)snprintf(p, sizeof(buf[0]), "%s/%s", w->root, rel);
	return p;
}

static void put(struct world *w, const char *rel, const char *text)
{
	AUTO_FREE char *dir = xstrdup(at(w, rel));
	AUTO_FD int fd = -1;

	*strrchr(dir, '/') = '\0';
	assert_int_equal(dir_make(dir, 0755, NULL), 0);
	fd = open(at(w, rel), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

static void put_by_rename(struct world *w, const char *rel, const char *text)
{
	struct err err;

	assert_int_equal(file_write(at(w, rel), text, strlen(text), 0644, FILE_NO_SYNC, &err), 0);
}

static void expect(struct world *w, int news, int changes, int gones)
{
	if (w->news != news || w->changes != changes || w->gones != gones)
		fail_msg("new %d changed %d gone %d, expected %d %d %d", w->news, w->changes,
			 w->gones, news, changes, gones);
	w->news = w->changes = w->gones = 0;
}

static void load(struct world *w)
{
	struct catalog_config config = {.paths = &w->paths,
					.metadata = true,
					.changed = on_change,
					.problem = on_problem,
					.ctx = w};
	struct err err = {0};

	if (catalog_new(&config, &w->c, &err) < 0 || catalog_load(w->c, &err) < 0)
		fail_msg("%s", err.msg);
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	(void)strcpy(w->root, "/tmp/test_store.XXXXXX");
	assert_non_null(mkdtemp(w->root));
	assert_int_equal(paths_init(&w->paths, w->root, NULL), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	catalog_free(w->c);
	(void)dir_remove_tree(w->root, NULL);
	paths_done(&w->paths);
	strbuf_done(&w->problems);
	free(w);
	return 0;
}

static struct catalog_entry *find(struct world *w, const char *id)
{
	struct catalog_entry *e = NULL;
	struct err err = {0};

	if (catalog_find(w->c, id, &e, &err) < 0)
		fail_msg("%s", err.msg);
	return e;
}

static bool absent(struct world *w, const char *id)
{
	struct catalog_entry *e;

	return catalog_find(w->c, id, &e, NULL) == -2;
}

static const char *only_problem(struct world *w)
{
	const struct catalog_problem *p;

	assert_int_equal(catalog_problems(w->c, &p), 1);
	return p[0].text;
}

static void no_problem(struct world *w)
{
	const struct catalog_problem *p;

	if (catalog_problems(w->c, &p) != 0)
		fail_msg("%s: %s", p[0].file, p[0].text);
}

#define ETC "etc/vmstated/"
#define LIB "var/lib/vmstated/"

static void test_load(void **state)
{
	struct world *w = *state;
	char first[37];

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
	(void)strcpy(first, find(w, "beta")->uuid);
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
		T(test_load),        T(test_changes),    T(test_half_written),
		T(test_come_and_go), T(test_duplicates), T(test_broken_sections),
		T(test_trust),       T(test_metadata),   T(test_includes),
		T(test_hold),        T(test_scan),       T(test_overflow),
		T(test_find),        T(test_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
