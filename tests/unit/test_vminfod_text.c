/* SPDX-License-Identifier: Apache-2.0 */
/* Pure parts of vminfod: durations, the member index, secrets, record texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "vminfod/record.h"
#include "vminfod/stamp.h"
#include "vminfod/text.h"

static void test_durations(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
		{0, "0.000000000s (0ns)"},
		{1, "0.000000001s (1ns)"},
		{999, "0.000000999s (999ns)"},
		{1500, "0.000001500s (1.5us)"},
		{500478, "0.000500478s (500.48us)"},
		{1000000, "0.001000000s (1ms)"},
		{1234567, "0.001234567s (1.23ms)"},
		{1000000000, "1.000000000s (1s)"},
		{1250400000, "1.250400000s (1.25s)"},
		{60000000000, "60.000000000s (1m)"},
		{90000000000, "90.000000000s (1.5m)"},
		{3600000000000, "3600.000000000s (1h)"},
		{54632555733604, "54632.555733604s (15.18h)"},
		{86400000000000, "86400.000000000s (1d)"},
		{UINT64_MAX, "18446744073.709551615s (213503.98d)"},
	};
	char buf[DURATION_LEN];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_string_equal(duration_text(rows[i].ns, buf, sizeof(buf)), rows[i].text);
	assert_string_equal(stamp_text(7000000042, buf, sizeof(buf)), "7.000000042");
}

static void expect_fields(const char *object, const char *list, const char *wanted)
{
	struct text t = {0};
	struct fields f;
	AUTO_STRBUF struct strbuf sb = {0};

	text_set(&t, xstrdup(object));
	assert_true(fields_parse(list, &f));
	text_put(&t, &f, &sb);
	assert_string_equal(sb.data, wanted);
	text_done(&t);
}

static void test_members(void **state)
{
	static const char object[] = "{\"a\":1,\"b\":{\"a\":[1,\"}\",{}],\"c\":\"x,\\\"y\"},"
				     "\"a\\\"q\":[],\"c\":\"\\\\\",\"d\":null}";
	struct fields f;
	char many[FIELDS_MAX * 2 + 3];

	expect_fields(object, "a", "{\"a\":1}");
	expect_fields(object, "c,b",
		      "{\"b\":{\"a\":[1,\"}\",{}],\"c\":\"x,\\\"y\"},"
		      "\"c\":\"\\\\\"}");
	expect_fields(object, ",d,,a,", "{\"a\":1,\"d\":null}");
	expect_fields(object, "q,z", "{}");
	expect_fields(object, "", "{}");
	expect_fields("{}", "a", "{}");
	for (size_t i = 0; i < sizeof(many) - 1; i++)
		many[i] = i % 2 ? ',' : 'x';
	many[sizeof(many) - 1] = '\0';
	assert_false(fields_parse(many, &f));
}

static void test_quoted(void **state)
{
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_JSON json_t *j = NULL;
	static const char text[] = "[{\"a\":\"q\\\"\\n\xc3\xa4\"}]";

	put_quoted(&sb, text, strlen(text));
	j = json_loads(sb.data, JSON_DECODE_ANY, NULL);
	assert_string_equal(json_string_value(j), text);
}

static void test_secrets(void **state)
{
	AUTO_JSON json_t *plain = json_loads(
		"{\"uuid\":\"u\",\"internal_metadata\":{},\"customer_metadata\":{\"k\":1}}", 0,
		NULL);
	AUTO_JSON json_t *secret =
		json_loads("{\"uuid\":\"u\",\"vnc_password\":\"p\",\"internal_metadata\":{\"i\":1},"
			   "\"customer_metadata\":{\"root_pw\":\"x\",\"k\":1}}",
			   0, NULL);
	AUTO_JSON json_t *open = object_without_secrets(secret);
	AUTO_FREE char *text = json_text(open);

	assert_null(object_without_secrets(plain));
	assert_string_equal(text, "{\"uuid\":\"u\",\"internal_metadata\":{},"
				  "\"customer_metadata\":{\"k\":1}}");
	assert_non_null(json_object_get(secret, "vnc_password"));
}

/* The line as the original's clients get it, or everybody does; NULL: nothing of it is for them. */
static char *record_text(const struct cache_event *ev, int64_t wall_ms, bool open, unsigned wants)
{
	const struct viewer anybody = {.all = !open};
	struct record *r = record_new(ev, 1, wall_ms);
	struct strbuf sb = {0};

	if (!record_hidden(r, &anybody))
		record_put(r, record_open(r, &anybody), wants, &sb);
	record_unref(r);
	return sb.data;
}

static void test_records(void **state)
{
	struct text full = {0}, open = {0};
	AUTO_JSON json_t *changes = json_loads("[{\"prettyPath\":\"ram\"}]", 0, NULL);
	struct cache_event ev = {.type = "create", .uuid = "U", .full = &full, .open = &open};
	char *text;

	text_set(&full, xstrdup("{\"s\":1}"));
	text_set(&open, xstrdup("{}"));
	text = record_text(&ev, 1523467692046, false, 0);
	assert_string_equal(text, "{\"type\":\"create\",\"date\":\"2018-04-11T17:28:12.046Z\","
				  "\"zonename\":\"U\",\"uuid\":\"U\",\"vm\":{\"s\":1}}\n");
	free(text);
	ev.type = "modify";
	ev.changes = changes;
	ev.cause = "{\"uid\":0}";
	assert_null(record_text(&ev, 0, true, WANT_CAUSE)); /* only secrets changed */
	ev.open_changes = changes;
	text = record_text(&ev, 0, true, WANT_CAUSE);
	assert_string_equal(text,
			    "{\"type\":\"modify\",\"date\":\"1970-01-01T00:00:00.000Z\","
			    "\"zonename\":\"U\",\"uuid\":\"U\",\"vm\":{},"
			    "\"changes\":[{\"prettyPath\":\"ram\"}],\"cause\":{\"uid\":0}}\n");
	free(text);
	ev = (struct cache_event){.type = "delete", .uuid = "U"};
	text = record_text(&ev, 0, true, WANT_CAUSE);
	assert_string_equal(text, "{\"type\":\"delete\",\"date\":\"1970-01-01T00:00:00.000Z\","
				  "\"zonename\":\"U\",\"uuid\":\"U\"}\n");
	free(text);
	text_done(&full);
	text_done(&open);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations), cmocka_unit_test(test_members),
		cmocka_unit_test(test_quoted),    cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
