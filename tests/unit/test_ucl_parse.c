/* SPDX-License-Identifier: Apache-2.0 */
/* The parser beyond what the golden pairs show: positions, raw texts, files, includes, limits. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/ucl.h"

static struct ucl_doc *parse(const char *text)
{
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	int r = ucl_parse("dir/file", text, strlen(text), NULL, &doc, &err);

	if (r < 0)
		print_error("%s\n", err.msg);
	assert_int_equal(r, 0);
	return doc;
}

static void fails(const char *text, size_t len, const struct ucl_options *opt, int code,
		  const char *message)
{
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	int r = ucl_parse("f", text, len, opt, &doc, &err);

	if (r != -code || !strstr(err.msg, message))
		print_error("%d %s\n", r, err.msg);
	assert_int_equal(r, -code);
	assert_non_null(strstr(err.msg, message));
	assert_null(doc);
}

static void test_positions(void **state)
{
	static const char text[] = "\xef\xbb\xbf# c\r\na = 2G;  b { c = 'x' }\r\n\td [ 1,\r  yes ]";
	struct ucl_doc *doc = parse(text);
	const struct ucl_value *a = ucl_get(ucl_root(doc), "a");
	const struct ucl_value *c = ucl_get(ucl_get(ucl_root(doc), "b"), "c");
	const struct ucl_value *d = ucl_get(ucl_root(doc), "d");
	AUTO_FREE char *where = ucl_where(&c->pos);

	assert_string_equal(where, "dir/file:2:18");
	assert_int_equal(a->key.line, 2);
	assert_int_equal(a->key.column, 1);
	assert_int_equal(a->pos.column, 5);
	assert_string_equal(a->raw, "2G");
	assert_int_equal(strncmp(text + a->start, "2G", a->end - a->start), 0);
	assert_int_equal(c->end - c->start, 3);
	assert_null(c->raw);
	assert_int_equal(d->key.line, 3);
	assert_int_equal(d->key.column, 2);
	assert_int_equal(d->end, strlen(text));
	assert_int_equal(d->items[1]->pos.line, 4);
	assert_int_equal(d->items[1]->pos.column, 3);
	assert_string_equal(d->items[1]->raw, "yes");
	ucl_free(doc);
}

static void test_named_and_implicit(void **state)
{
	static const char text[] = "disk root { a = 1 } # x\ndisk swap { a = 2 }";
	struct ucl_doc *doc = parse(text);
	const struct ucl_value *disk = ucl_get(ucl_root(doc), "disk");

	assert_true(disk->type == UCL_ARRAY && disk->implicit);
	assert_int_equal(disk->count, 2);
	/* The object that the second key makes spans from that key to the end of the section. */
	assert_int_equal(disk->items[0]->start, strlen("disk "));
	assert_int_equal(disk->items[0]->end, strlen("disk root { a = 1 }"));
	assert_int_equal(disk->items[1]->key.line, 2);
	assert_int_equal(disk->items[1]->key.column, 1);
	assert_string_equal(disk->items[1]->keys[0], "swap");
	ucl_free(doc);
}

static void test_equal(void **state)
{
	struct ucl_doc *a = parse("t = 3min; n = nan; l = 1; l = 2; o { x = y }");
	struct ucl_doc *b = parse("t = 3min; n = nan; l = 1; l = 2; o { x = z }");
	struct ucl_doc *c = parse("{\"l\":[1,2],\"o\":{\"x\":\"y\"},\"t\":180.0,\"n\":nan}");

	assert_true(ucl_equal(ucl_root(a), ucl_root(c)));
	assert_false(ucl_equal(ucl_root(a), ucl_root(b)));
	ucl_free(a);
	ucl_free(b);
	ucl_free(c);
}

static void test_limits(void **state)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct ucl_doc *doc;

	strbuf_puts(&sb, "k = ");
	for (int i = 0; i < UCL_DEPTH_MAX; i++)
		strbuf_putc(&sb, '[');
	for (int i = 0; i < UCL_DEPTH_MAX; i++)
		strbuf_putc(&sb, ']');
	doc = parse(sb.data);
	ucl_free(doc);
	fails("k = [[", 6, NULL, EINVAL, "f:1:6: unmatched open bracket");
	sb.len = strlen("k = ");
	for (int i = 0; i <= UCL_DEPTH_MAX; i++)
		strbuf_putc(&sb, '[');
	fails(sb.data, sb.len, NULL, E2BIG, "nested deeper than 64 levels");
	sb.len = 0;
	for (int i = 0; i <= UCL_DEPTH_MAX + 1; i++)
		strbuf_puts(&sb, "a ");
	doc = parse(sb.data); /* a text of many words */
	ucl_free(doc);
	strbuf_puts(&sb, "{}");
	fails(sb.data, sb.len, NULL, E2BIG, "nested deeper than 64 levels");
	sb.len = 0;
	for (size_t i = 0; i < UCL_TEXT_MAX / 2; i++)
		strbuf_puts(&sb, i ? "1," : "[ ");
	fails(sb.data, sb.len, NULL, E2BIG, "too much text");
	strbuf_putc(&sb, ' ');
	fails(sb.data, sb.len, NULL, E2BIG, "larger than 1048576 bytes");
	fails("a = b\0c", 7, NULL, EINVAL, "f:1:6: a zero byte");
	fails("\0", 1, NULL, EINVAL, "f:1:1: a zero byte");
}

/* Many keys, many references: time must stay linear; 90 000 keys one by one would show. */
static void test_many_keys(void **state)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct ucl_doc *doc;

	for (int i = 0; i < 90000; i++)
		strbuf_printf(&sb, "k%d=1\n", i);
	strbuf_puts(&sb, "k7=2\n");
	doc = parse(sb.data);
	assert_int_equal(ucl_root(doc)->count, 90000);
	assert_true(ucl_get(ucl_root(doc), "k7")->implicit);
	ucl_free(doc);
	sb.len = 0;
	while (sb.len < UCL_TEXT_MAX - 64)
		strbuf_puts(&sb, "k \"x\"/**/");
	doc = parse(sb.data);
	ucl_free(doc);
}

static void test_variables_bomb(void **state)
{
	static const char *const big[][2] = {
		{"V", "0123456789012345678901234567890123456789012345678901234567890123456789"}};
	const struct ucl_options opt = {.vars = big, .nvars = 1};
	AUTO_STRBUF struct strbuf sb = {0};

	strbuf_puts(&sb, "a = ");
	while (sb.len < UCL_TEXT_MAX / 2)
		strbuf_puts(&sb, "$V");
	fails(sb.data, sb.len, &opt, E2BIG, "f:1:5: larger than");
}

struct folder {
	char dir[32];
};

static void put(const struct folder *f, const char *name, const char *text)
{
	AUTO_FREE char *path = path_join(f->dir, name);
	struct err err = {0};

	assert_int_equal(file_write(path, text, strlen(text), 0600, FILE_NO_SYNC, &err), 0);
}

static int parse_in(const struct folder *f, const char *name, struct ucl_doc **doc, struct err *err)
{
	AUTO_FREE char *path = path_join(f->dir, name);

	*doc = NULL;
	return ucl_parse_file(path, NULL, doc, err);
}

static int setup(void **state)
{
	struct folder *f = xcalloc(1, sizeof(*f));
	AUTO_FREE char *sub = NULL;
	struct err err;

	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/drover-ucl-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	sub = path_join(f->dir, "sub");
	assert_int_equal(dir_make(sub, 0700, &err), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct folder *f = *state;
	struct err err;

	(void)dir_remove_tree(f->dir, &err);
	free(f);
	return 0;
}

static void test_include(void **state)
{
	const struct folder *f = *state;
	const char *const *files;
	struct ucl_doc *doc;
	struct err err = {0};
	AUTO_FREE char *json = NULL;

	put(f, "main", "a = 1; s {\n.include \"sub/one\" \n}\n.try_include gone.conf; z = 2\n");
	put(f, "sub/one", "{ b = 2; .include { two } c = $CURDIR }\n");
	put(f, "sub/two", "d = 4; b = 5");
	assert_int_equal(parse_in(f, "main", &doc, &err), 0);
	json = ucl_to_json(ucl_get(ucl_root(doc), "s"));
	assert_true(str_starts(json, "{\"b\":[2,5],\"d\":4,\"c\":\"/tmp/drover-ucl-"));
	assert_true(str_ends(json, "/sub\"}"));
	assert_int_equal(ucl_files(doc, &files), 4);
	assert_true(str_ends(files[0], "/main") && str_ends(files[1], "/sub/one"));
	assert_true(str_ends(files[2], "/sub/two") && str_ends(files[3], "/gone.conf"));
	assert_ptr_equal(ucl_get(ucl_get(ucl_root(doc), "s"), "d")->pos.file, files[2]);
	assert_int_equal(ucl_get(ucl_root(doc), "z")->integer, 2);
	ucl_free(doc);
}

static void include_fails(const struct folder *f, const char *text, int code, const char *message)
{
	struct ucl_doc *doc;
	struct err err = {0};
	int r;

	put(f, "main", text);
	r = parse_in(f, "main", &doc, &err);
	if (r != -code || !strstr(err.msg, message))
		print_error("%d %s\n", r, err.msg);
	assert_int_equal(r, -code);
	assert_non_null(strstr(err.msg, message));
}

static void test_include_faults(void **state)
{
	const struct folder *f = *state;
	AUTO_FREE char *fifo = path_join(f->dir, "fifo");
	AUTO_FREE char *big = path_join(f->dir, "big");

	put(f, "sub/bad", "\n\nx = ;\n");
	put(f, "sub/outer", "\n.include bad\n");
	put(f, "list", "[1]");
	put(f, "loop", ".include main");
	assert_int_equal(mkfifo(fifo, 0600), 0);
	put(f, "big", "");
	assert_int_equal(truncate(big, UCL_TEXT_MAX + 1), 0);
	include_fails(f, ".include sub/outer", EINVAL, "sub/bad:3:5: string value");
	include_fails(f, "\n.include sub/outer", EINVAL, "/sub/outer:2) (included from ");
	include_fails(f, "\n.include sub/outer", EINVAL, "/main:2)");
	include_fails(f, ".include(try=true) sub/bad", EINVAL, "sub/bad:3:5: string value");
	include_fails(f, ".include gone", EINVAL, "/gone': No such file");
	include_fails(f, "k { .include sub }", EINVAL, "sub' is not a regular file");
	include_fails(f, ".include fifo", EINVAL, "fifo' is not a regular file");
	include_fails(f, ".include big", E2BIG, "big' is larger than");
	include_fails(f, ".include loop", EINVAL, "/main' is including itself (included from");
	include_fails(f, ".include list", EINVAL, "/list:1:1: an included file must hold keys");
	include_fails(f, ".include", EINVAL, "/main:1:9: include without a path");
	include_fails(f, ".include \"\"", EINVAL, "include without a path");
	include_fails(f, ".include(try=1) x", EINVAL, "\"try\" is a number (want true or false)");
	include_fails(f, ".include(try=true x", EINVAL, "main:1:9: nothing closes this '('");
	include_fails(f, ".include(.include x) y", EINVAL, "not supported in arguments");
	include_fails(f, ".include({) y", EINVAL, "main:1:10: key must begin");
	include_fails(f, ".include { x", EINVAL, "main:1:10: unmatched open brace");
}

/* Sixteen levels of two includes each would be 65 536 files. */
static void test_include_bomb(void **state)
{
	const struct folder *f = *state;

	for (int i = 0; i < 20; i++) {
		AUTO_FREE char *name = xasprintf("n%d", i);
		AUTO_FREE char *deep = xasprintf(".include n%d\n", i + 1);
		AUTO_FREE char *wide = xasprintf("%s%s", deep, i < 14 ? deep : "");

		put(f, name, i == 15 ? "" : wide);
	}
	include_fails(f, ".include n0", E2BIG, "more than 64 includes");
	put(f, "n15", ".include n16");
	for (int i = 0; i < 14; i++) {
		AUTO_FREE char *name = xasprintf("n%d", i);
		AUTO_FREE char *deep = xasprintf(".include n%d\n", i + 1);

		put(f, name, deep);
	}
	include_fails(f, ".include n0", E2BIG, "includes nested deeper than 16");
}

static void test_no_includes(void **state)
{
	static const struct ucl_options opt = {.no_includes = true};
	static const char text[] = ".try_include /etc/hostname";

	fails(text, strlen(text), &opt, EINVAL, "f:1:1: includes are not allowed here");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_positions),
		cmocka_unit_test(test_named_and_implicit),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_variables_bomb),
		cmocka_unit_test_setup_teardown(test_include, setup, teardown),
		cmocka_unit_test_setup_teardown(test_include_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_include_bomb, setup, teardown),
		cmocka_unit_test(test_no_includes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
