/* SPDX-License-Identifier: Apache-2.0 */
/* JSON looked at in place: members, strings, writing, and texts that are broken anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/js.h"

static struct slice of(const char *text)
{
	return js_value(text, strlen(text));
}

static char *written(const char *text, int depth)
{
	struct strbuf sb = {0};

	js_write(&sb, of(text), depth);
	return strbuf_steal(&sb);
}

static void test_members(void **state)
{
	struct slice v = of(" {\"a\" : 1, \"b\":[10,\"x,]\",{\"c\":null}] ,\"a\\u0062\":true} ");
	AUTO_FREE char *x = js_string(js_element(js_member(v, "b"), 1));

	(void)state;
	assert_int_equal(js_type(js_member(v, "a")), '1');
	assert_int_equal(js_count(js_member(v, "b")), 3);
	assert_string_equal(x, "x,]");
	assert_int_equal(js_type(js_member(js_element(js_member(v, "b"), 2), "c")), 'n');
	assert_int_equal(js_type(js_member(v, "ab")), 't');
	assert_null(js_member(v, "zz").p);
	assert_null(js_element(js_member(v, "b"), 3).p);
	assert_null(js_member(of("[1]"), "a").p);
	assert_null(js_element(of("{\"a\":1}"), 0).p);
	assert_int_equal(js_count((struct slice){0}), 0);
}

static const struct {
	const char *json, *text;
} strings[] = {
	{"\"\"", ""},
	{"\"a\\\"b\\\\\"", "a\"b\\"},
	{"\"\\n\\t\\/\"", "\n\t/"},
	{"\"\\u00e4\\ud83d\\ude00\"", "\xc3\xa4\xf0\x9f\x98\x80"},
	{"\"\\ud83dx\"", "\xef\xbf\xbdx"},
	{"\"\\udc00\"", "\xef\xbf\xbd"},
	{"\"\\u0000\"", "\\u0000"},
	{"\"\\uzz\"", "\\uzz"},
	{"\"\\u12\"", "\\u12"},
};

static void test_strings(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		AUTO_FREE char *text = js_string(of(strings[i].json));

		assert_string_equal(text, strings[i].text);
		assert_true(js_is(of(strings[i].json), strings[i].text));
	}
	assert_null(js_string(of("1")));
}

static void test_write(void **state)
{
	AUTO_FREE char *pretty = written("{\"a\":[ ],\"b\":{},\"c\":[1,{\"d\":\"e:,\"}]}", 0);
	AUTO_FREE char *compact = written(" { \"a\" : [ 1 , 2 ] } ", JS_COMPACT);
	AUTO_FREE char *safe = written("\"\x7f\xc2\x9b\xc3\xa4\"", 0);

	(void)state;
	assert_string_equal(pretty, "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n"
				    "      \"d\": \"e:,\"\n    }\n  ]\n}");
	assert_string_equal(compact, "{\"a\":[1,2]}");
	assert_string_equal(safe, "\"\\u007f\\u009b\xc3\xa4\"");
}

static void walk(struct slice v)
{
	struct strbuf sb = {0};
	struct slice key, value;
	struct js_iter it;

	js_iter_init(&it, v);
	while (js_next(&it, &key, &value)) {
		js_write(&sb, value, 0);
		js_put_string(&sb, key);
		js_put_string(&sb, value);
	}
	js_write(&sb, v, JS_COMPACT);
	strbuf_done(&sb);
}

/* Every cut and every single changed byte of a text ends quietly; the sanitizers watch. */
static void test_broken(void **state)
{
	static const char text[] =
		"{\"a\\\\\":[1,{\"b\":\"\\ud83d\\ude00\"}],\"c\":null,\"d\":\"\"}";
	static const char bytes[] = "\"\\{}[],:\x01"
				    "0";

	(void)state;
	for (size_t len = 0; len < sizeof(text); len++) {
		char *copy = malloc(len ? len : 1);

		memcpy(copy, text, len);
		walk(js_value(copy, len));
		walk((struct slice){copy, len});
		for (size_t i = 0; i < len; i++)
			for (size_t b = 0; b < sizeof(bytes); b++) {
				copy[i] = bytes[b];
				walk(js_value(copy, len));
				copy[i] = text[i];
			}
		free(copy);
	}
	assert_null(of("{").p);
	assert_null(of("\"").p);
	assert_null(of("1 2").p);
	assert_null(of("").p);
}

static void test_deep(void **state)
{
	size_t depth = 100000;
	AUTO_FREE char *text = malloc(2 * depth);
	AUTO_STRBUF struct strbuf sb = {0};

	(void)state;
	memset(text, '[', depth);
	memset(text + depth, ']', depth);
	js_write(&sb, js_value(text, 2 * depth), JS_COMPACT);
	assert_int_equal(sb.len, 2 * depth);
	assert_null(js_value(text, 2 * depth - 1).p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members), cmocka_unit_test(test_strings),
		cmocka_unit_test(test_write),   cmocka_unit_test(test_broken),
		cmocka_unit_test(test_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
