/* SPDX-License-Identifier: Apache-2.0 */
/* Edits in place: what changes, what must not, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/edit.h"
#include "ucl/ucl.h"

#define PATH_MAX_KEYS 8

/* One edit by a path written with slashes. */
struct one {
	char *copy;
	const char *keys[PATH_MAX_KEYS];
	struct ucl_edit edit;
};

static void one_init(struct one *one, const char *path, const char *value)
{
	char *rest;
	size_t n = 0;

	one->copy = rest = xstrdup(path);
	while (rest && n < PATH_MAX_KEYS - 1)
		one->keys[n++] = strsep(&rest, "/");
	one->keys[n] = NULL;
	one->edit = (struct ucl_edit){value ? UCL_EDIT_SET : UCL_EDIT_REMOVE, one->keys, value};
}

static int edit_text(const char *text, const char *path, const char *value, char **ret,
		     struct err *err)
{
	struct one one;
	int r;

	one_init(&one, path, value);
	r = ucl_edit("web0/config", text, strlen(text), &one.edit, 1, ret, err);
	free(one.copy);
	return r;
}

/* value NULL removes. */
static void check(const char *text, const char *path, const char *value, const char *want)
{
	AUTO_FREE char *got = NULL;
	struct err err = {0};
	int r = edit_text(text, path, value, &got, &err);

	if (r < 0)
		print_error("%s = %s: %s\n", path, value ? value : "(removed)", err.msg);
	assert_int_equal(r, 0);
	assert_string_equal(got, want);
}

static void refuses(const char *text, const char *path, const char *value, int code,
		    const char *message)
{
	AUTO_FREE char *got = NULL;
	struct err err = {0};
	int r = edit_text(text, path, value, &got, &err);

	if (r != -code || !strstr(err.msg, message))
		print_error("%s: %d %s\n", path, r, r < 0 ? err.msg : got);
	assert_int_equal(r, -code);
	assert_non_null(strstr(err.msg, message));
	assert_null(got);
}

static const char web0[] = "# my shop\n"
			   "web0 {\n"
			   "\tdescription = \"shop front\"; # words\n"
			   "\tMemory = 2G;  cpus = 2;  autoboot = yes;\n"
			   "\n"
			   "\tdisk root { size = 20G; boot = yes; }\n"
			   "\tnic net0 { bridge = br0 }  /* the only one */\n"
			   "\tafter = [ \"db0\", web1, \"x\" ];\n"
			   "}\n";

/* web0 with one line replaced. */
static char *web0_with(const char *line, const char *by)
{
	const char *at = strstr(web0, line);

	assert_non_null(at);
	return xasprintf("%.*s%s%s", (int)(at - web0), web0, by, at + strlen(line));
}

static void check_web0(const char *path, const char *value, const char *line, const char *by)
{
	AUTO_FREE char *want = web0_with(line, by);

	check(web0, path, value, want);
}

static void test_replace(void **state)
{
	check_web0("web0/memory", "4G", "2G", "4G");
	check_web0("web0/autoboot", "false", "yes;\n", "false;\n");
	check_web0("web0/description", "\"a b\"", "\"shop front\"", "\"a b\"");
	check_web0("web0/disk/root/size", " 30G ", "20G", "30G");
	check_web0("web0/after/1", "\"web2\"", "web1", "\"web2\"");
	check_web0("web0/after", "[]", "[ \"db0\", web1, \"x\" ]", "[]");
	check_web0("web0/disk/root", "{ size = 1G }", "{ size = 20G; boot = yes; }",
		   "{ size = 1G }");
	check("a = 5# note\n", "a", "\"x\"", "a = \"x\"# note\n");
	check("a { b = 1 } c = 2\n", "a", "7", "a 7; c = 2\n");
	check("\"a\"{ b = 1 }\n", "a", "7", "\"a\" = 7\n");
	check("a =", "a", "7", "a =7");
}

static void test_add(void **state)
{
	check_web0("web0/vnc_port", "5901", "];\n}", "];\n\tvnc_port = 5901;\n}");
	check_web0("web0/disk/root/image", "debian", "boot = yes; }",
		   "boot = yes; image = debian; }");
	check_web0("web0/nic/net0/vlan_id", "12", "br0 }", "br0; vlan_id = 12 }");
	check_web0("web0/disk/data", "{ size = 1G; }", "boot = yes; }\n",
		   "boot = yes; }\n\tdisk data { size = 1G; }\n");
	check_web0("web0/disk/data/size", "1G", "boot = yes; }\n",
		   "boot = yes; }\n\tdisk data { size = 1G; }\n");
	check_web0("web0/nic/net1", "{}", "only one */\n", "only one */\n\tnic net1 {}\n");
	check_web0("web0/console/serial0", "{ }", "];\n}", "];\n\tconsole serial0 { }\n}");
	check_web0("web0/after/3", "y", "\"x\" ]", "\"x\", y ]");
	check_web0("db0/memory", "1G", "];\n}\n", "];\n}\ndb0 { memory = 1G; }\n");
	check("web0 { memory = 2G; cpus = 2 }\n", "web0/autoboot", "true",
	      "web0 { memory = 2G; cpus = 2; autoboot = true }\n");
	check("web0 { memory = 2G; }\n", "web0/a b", "1", "web0 { memory = 2G; \"a b\" = 1; }\n");
	check("web0 { disk a { } }\n", "web0/cpus", "1", "web0 { disk a { } cpus = 1; }\n");
	check("web0 {}\n", "web0/cpus", "1", "web0 { cpus = 1; }\n");
	check("web0 {\n}\n", "web0/cpus", "1", "web0 {\n    cpus = 1;\n}\n");
	check("web0 {\n  a {\n  }\n}\n", "web0/a/b", "1", "web0 {\n  a {\n    b = 1;\n  }\n}\n");
	check("", "a", "1", "a = 1;\n");
	check("# end", "a/b", "1", "# end\na { b = 1; }\n");
	check("{\"a\": 1}", "b", "2", "{\"a\": 1; b = 2}");
	check("a [ ]\n", "a/0", "x", "a [ x ]\n");
	check("a [\n  x\n  y\n]\n", "a/2", "z", "a [\n  x\n  y\n  z\n]\n");
	check("a [ ]\n", "a/0/size", "1", "a [ { size = 1; } ]\n");
}

static void test_named_sections(void **state)
{
	static const char two[] = "w {\n disk root { size = 1; }\n disk swap { size = 2; }\n}\n";

	check(two, "w/disk/swap/size", "3",
	      "w {\n disk root { size = 1; }\n disk swap { size = 3; }\n}\n");
	check(two, "w/disk/data", "{ size = 4; }",
	      "w {\n disk root { size = 1; }\n disk swap { size = 2; }\n"
	      " disk data { size = 4; }\n}\n");
	check(two, "w/disk/root", NULL, "w {\n disk swap { size = 2; }\n}\n");
	check(two, "w/disk/1", NULL, "w {\n disk root { size = 1; }\n}\n");
	check("host a b { x = 1 }\n", "host/a/c/y", "2",
	      "host a b { x = 1 }\nhost a c { y = 2; }\n");
	check("host a b { x = 1 }\nk = 1\n", "host/a/b", NULL, "k = 1\n");
	check("d { a { x = 1 } }\n", "d/b", "{ x = 2 }", "d { a { x = 1 } b { x = 2 } }\n");
	check("d { a { x = 1 } }\n", "d/a", NULL, "d { }\n");
}

static void test_remove(void **state)
{
	check_web0("web0/description", NULL, "\tdescription = \"shop front\"; # words\n", "");
	check_web0("web0/memory", NULL, "Memory = 2G;  cpus", "cpus");
	check_web0("web0/cpus", NULL, "cpus = 2;  ", "");
	check_web0("web0/autoboot", NULL, "  autoboot = yes;\n", "\n");
	check_web0("web0/nic/net0", NULL, "\tnic net0 { bridge = br0 }  /* the only one */\n", "");
	check_web0("web0/after/0", NULL, "\"db0\", ", "");
	check_web0("web0/after/1", NULL, "web1, ", "");
	check_web0("web0/after/2", NULL, ", \"x\"", "");
	check("web0 { memory = 2G; cpus = 2 }\n", "web0/cpus", NULL, "web0 { memory = 2G; }\n");
	check("web0 { memory = 2G; cpus = 2 }\n", "web0/memory", NULL, "web0 { cpus = 2 }\n");
	check("a = 1; b = 2 # c\n", "b", NULL, "a = 1; # c\n");
	check("a = 1\nb {\n  c = 1\n}\n# end\n", "b", NULL, "a = 1\n# end\n");
	check("a = 1", "a", NULL, "");
	check("a = [\n  x,\n  y # last\n]\n", "a/1", NULL, "a = [\n  x,\n]\n");
	check("a [ x ]\n", "a/0", NULL, "a [ ]\n");
	check("nic = a; b = 1; nic = c\n", "nic/0", NULL, "b = 1; nic = c\n");
}

static void test_crlf(void **state)
{
	check("a {\r\n  b = 1\r\n}\r\n", "a/c", "2", "a {\r\n  b = 1\r\n  c = 2;\r\n}\r\n");
	check("a {\r\n  b = 1 # x\r\n}\r\n", "a/b", NULL, "a {\r\n}\r\n");
	check("a = 1\r\nb = 2", "c", "3", "a = 1\r\nb = 2\r\nc = 3;\r\n");
}

static void test_refusals(void **state)
{
	refuses("a = 1; a = 2\n", "a", "3", ENOTSUP,
		"web0/config:1: 'a' cannot be changed in place: it is given more than once "
		"(lines 1 and 1)");
	refuses("a = 1; a = 2\n", "a", NULL, ENOTSUP, "more than once");
	refuses("v { m = 1 }\nv { m = 2 }\n", "v/m", "3", ENOTSUP, "(lines 1 and 2)");
	refuses("\na = <<EOT\nx\nEOT\n", "a", "3", ENOTSUP, "web0/config:2: 'a' cannot be");
	refuses("a = 1\n", "a/b", "3", ENOTSUP, "a part of it is a plain value");
	refuses("a = 1\n", "b", NULL, ENOENT, "web0/config: there is no 'b'");
	refuses("a [ 1 ]\n", "a/7", "3", EINVAL, "the array has 1 elements");
	refuses("a [ 1 ]\n", "a/7", NULL, ENOENT, "there is no 'a.7'");
	refuses("a = }\n", "a", "3", EINVAL, "web0/config:1:5: ");
	refuses("a = 1\n", "a", "3; b = 4", EINVAL, "not one UCL value");
	refuses("a = 1\n", "a", "3 # four", EINVAL, "not one UCL value");
	refuses("a = 1\n", "a", "{ .include x }", EINVAL, "not one UCL value");
	refuses("a = 1\n", "a", "", EINVAL, "not one UCL value");
	refuses("a = # not here", "a", "1", ENOTSUP, "the text around it does not allow that");
	refuses("a = 1\n", "", "1", ENOTSUP, "the path cannot be written");
}

static void test_include(void **state)
{
	char dir[] = "/tmp/drover-ucl-XXXXXX";
	AUTO_FREE char *inner = NULL, *name = NULL, *got = NULL;
	static const char text[] = "a = 1\n.include \"inner.conf\"\nw { c = 1 }\n";
	const char *theirs[] = {"b", NULL}, *deep[] = {"s", "x", NULL}, *ours[] = {"a", NULL};
	struct ucl_edit edit = {UCL_EDIT_SET, theirs, "5"};
	struct err err = {0};

	assert_non_null(mkdtemp(dir));
	inner = path_join(dir, "inner.conf");
	name = path_join(dir, "config");
	assert_int_equal(file_write(inner, "\nb = 2\ns { y = 1 }\n", 19, 0600, FILE_NO_SYNC, &err),
			 0);
	assert_int_equal(ucl_edit(name, text, strlen(text), &edit, 1, &got, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "inner.conf:2: 'b' cannot be changed in place: "
					"it stands in an included file"));
	edit.path = deep;
	assert_int_equal(ucl_edit(name, text, strlen(text), &edit, 1, &got, &err), -ENOTSUP);
	edit.path = ours;
	assert_int_equal(ucl_edit(name, text, strlen(text), &edit, 1, &got, &err), 0);
	assert_string_equal(got, "a = 5\n.include \"inner.conf\"\nw { c = 1 }\n");
	assert_int_equal(dir_remove_tree(dir, &err), 0);
}

static void test_several(void **state)
{
	const char *a[] = {"w", "a", NULL}, *b[] = {"w", "b", NULL}, *c[] = {"w", "c", NULL};
	const struct ucl_edit edits[] = {
		{UCL_EDIT_SET, a, "2"}, {UCL_EDIT_REMOVE, b, NULL}, {UCL_EDIT_SET, c, "3"}};
	static const char text[] = "w { a = 1; b = 1; }\n";
	AUTO_FREE char *got = NULL;
	AUTO_FREE char *none = NULL;
	struct err err = {0};

	assert_int_equal(ucl_edit("f", text, strlen(text), edits, 3, &got, &err), 0);
	assert_string_equal(got, "w { a = 2; c = 3; }\n");
	/* All or nothing: b is gone the second time. */
	assert_int_equal(ucl_edit("f", got, strlen(got), edits, 3, &none, &err), -ENOENT);
	assert_null(none);
}

static void test_quote(void **state)
{
	static const char *const texts[] = {"",
					    "plain",
					    "a \"b\" c\\",
					    "two\nlines\ttab\r",
					    "$CURDIR ${FILENAME} $$",
					    "\x01\x1f\x7f",
					    "\xc3\xa4",
					    "{ } [ ] ; #"};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		AUTO_FREE char *quoted = ucl_quote(texts[i]);
		AUTO_FREE char *text = xasprintf("k = %s", quoted);
		struct ucl_doc *doc = NULL;
		struct err err = {0};

		assert_int_equal(ucl_parse("f", text, strlen(text), NULL, &doc, &err), 0);
		assert_string_equal(ucl_get(ucl_root(doc), "k")->string, texts[i]);
		ucl_free(doc);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replace),        cmocka_unit_test(test_add),
		cmocka_unit_test(test_named_sections), cmocka_unit_test(test_remove),
		cmocka_unit_test(test_crlf),           cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_include),        cmocka_unit_test(test_several),
		cmocka_unit_test(test_quote),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
