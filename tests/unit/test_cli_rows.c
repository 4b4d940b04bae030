/* SPDX-License-Identifier: Apache-2.0 */
/* Fields, filters, sorting, finding: the pure half of list and lookup. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/fields.h"
#include "cli/find.h"
#include "cli/js.h"
#include "cli/rows.h"
#include "model/props.h"

static struct slice of(const char *text)
{
	return js_value(text, strlen(text));
}

/* Every column of the table is a field, with its header and width. */
static void test_columns(void **state)
{
	(void)state;
	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];
		struct field f;

		assert_int_equal(field_parse(row->name, &f), row->column ? 0 : -EINVAL);
		if (!row->column)
			continue;
		assert_string_equal(f.header, row->column);
		assert_int_equal(f.width, row->width);
		field_done(&f);
	}
}

static const char *const bad_fields[] = {
	"",
	".",
	"bogus",
	"disks",
	"disks.",
	"disks.0",
	"disks.0.",
	"disks.0.bogus",
	"disks.x.size",
	"disks.-1.size",
	"disks.99999.size",
	"tags.",
	"ram.x",
	"disks.**.size",
	"nics.0.size.",
};

static void test_bad_fields(void **state)
{
	struct field f;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_fields); i++)
		assert_int_equal(field_parse(bad_fields[i], &f), -EINVAL);
}

static void test_nested_field(void **state)
{
	struct field f;

	(void)state;
	assert_int_equal(field_parse("tags.a.b", &f), 0);
	assert_string_equal(f.header, "TAGS.A.B");
	assert_int_equal(f.width, 20);
	assert_int_equal(js_type(field_value(&f, of("{\"a.b\":true}"))), 't');
	field_done(&f);
	assert_int_equal(field_parse("disks.1.size", &f), 0);
	assert_int_equal(js_type(field_value(&f, of("[{\"size\":1},{\"size\":2}]"))), '2');
	assert_null(field_value(&f, of("[]")).p);
	field_done(&f);
}

static const struct {
	const char *json, *cell, *text;
} cells[] = {
	{"\"a\"", "a", "a"},
	{"0", "0", "0"},
	{"false", "", "false"},
	{"null", "", "null"},
	{"true", "true", "true"},
	{"[]", "", ""},
	{"[1,\"b\",null]", "1,b,", "1,b,"},
	{"{\"a\": 1}", "{\"a\":1}", "{\"a\":1}"},
	{"1.5", "1.5", "1.5"},
};

static void test_cells(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cells); i++) {
		AUTO_FREE char *cell = field_cell(of(cells[i].json));
		AUTO_FREE char *text = field_text(of(cells[i].json));

		assert_string_equal(cell, cells[i].cell);
		assert_string_equal(text, cells[i].text);
	}
}

static void test_order(void **state)
{
	/* ascending; the falsy ones are equal */
	static const char *const ordered[] = {"-3",    "2.5",    "10",           "1000",
					      "\"A\"", "\"Ab\"", "\"a\\u0062\"", "\"b\""};
	static const char *const falsy[] = {"0", "false", "null", "\"\""};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ordered); i++)
		for (size_t j = 0; j < ARRAY_SIZE(ordered); j++) {
			int r = field_compare(of(ordered[i]), of(ordered[j]));

			assert_int_equal((r > 0) - (r < 0), (i > j) - (i < j));
		}
	for (size_t i = 0; i < ARRAY_SIZE(falsy); i++) {
		assert_true(field_compare(of(falsy[i]), of("\"z\"")) > 0);
		assert_true(field_compare(of("-1"), of(falsy[i])) < 0);
		assert_int_equal(field_compare(of(falsy[i]), (struct slice){0}), 0);
	}
}

static const struct {
	const char *filter, *member;
	bool want;
} filters[] = {
	{"ram=512", "512", true},
	{"ram=51", "512", false},
	{"ram=~^5", "512", true},
	{"alias=~EB", "\"web0\"", true},
	{"alias=", "\"\"", true},
	{"autoboot=false", "false", true},
	{"autoboot=~.", "null", false},
	{"tags.x=1", "{\"x\":\"1\"}", true},
	{"tags.x=~.*", "{}", false},
	{"tags.*=1", "{\"a\":0,\"b\":1}", true},
	{"disks.*.size=2", "[{\"size\":1},{\"size\":2}]", true},
	{"disks.0.size=2", "[{\"size\":1},{\"size\":2}]", false},
	{"nics.0.mac=2:0:0:0:0:A", "[{\"mac\":\"02:00:00:00:00:0a\"}]", true},
	{"nics.0.mac=nonsense", "[{\"mac\":\"nonsense\"}]", true},
	{"nics.*.mac=~0A$", "[{\"mac\":\"02:00:00:00:00:0a\"}]", true},
};

static void test_filters(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		struct filter f;

		assert_int_equal(filter_parse(filters[i].filter, &f, NULL), 0);
		assert_int_equal(filter_match(&f, of(filters[i].member)), filters[i].want);
		assert_false(filter_match(&f, (struct slice){0}));
		filter_done(&f);
	}
}

static void test_bad_filters(void **state)
{
	char *longest = malloc(FILTER_REGEX_MAX + 16);
	struct filter f;
	struct err err;

	(void)state;
	assert_int_equal(filter_parse("bogus=1", &f, &err), -EINVAL);
	assert_int_equal(filter_parse("alias", &f, &err), -EBADMSG);
	assert_int_equal(filter_parse("=x", &f, &err), -EBADMSG);
	assert_int_equal(filter_parse("alias=~[", &f, &err), -EBADMSG);
	memset(longest, '(', FILTER_REGEX_MAX + 15);
	longest[FILTER_REGEX_MAX + 15] = '\0';
	memcpy(longest, "alias=~", 7);
	assert_int_equal(filter_parse(longest, &f, &err), -EBADMSG);
	free(longest);
}

static void test_rows(void **state)
{
	static const char text[] =
		"[{\"uuid\":\"a\",\"ram\":2,\"brand\":\"kvm\"},"
		"{\"ram\":1,\"uuid\":\"b\",\"x\":{}},{\"uuid\":\"c\",\"ram\":1}]";
	struct rows_query q = {0};
	struct rows rows;

	(void)state;
	assert_int_equal(rows_add_columns(&q, "uuid,type", NULL), 0);
	assert_int_equal(rows_add_sort(&q, "+ram,-uuid", NULL), 0);
	assert_int_equal(rows_add_filter(&q, "ram=~[12]", "filter", NULL), 0);
	AUTO_FREE char *target = rows_target(&q);

	assert_string_equal(target, "/vms?fields=uuid,type,brand,ram");
	assert_int_equal(rows_read(&q, text, strlen(text), &rows, NULL), 0);
	assert_int_equal(rows.count, 3);
	assert_true(js_is(rows_value(&rows.items[0], &q.columns[0]), "c"));
	assert_true(js_is(rows_value(&rows.items[1], &q.columns[0]), "b"));
	assert_true(js_is(rows_value(&rows.items[2], &q.columns[0]), "a"));
	assert_true(js_is(rows_value(&rows.items[2], &q.columns[1]), "KVM"));
	assert_true(js_is(rows_value(&rows.items[1], &q.columns[1]), "OS"));
	rows_done(&rows);
	assert_int_equal(rows_read(&q, "{}", 2, &rows, NULL), -EPROTO);
	rows_query_done(&q);
}

#define U1 "aaaa0000-0000-4000-8000-000000000001"
#define U2 "aaaa0000-0000-4000-8000-000000000002"
#define U3 "bbbb0000-0000-4000-8000-000000000003"

static const struct {
	const char *id;
	int want;
	const char *uuid;
} finds[] = {
	{U2, 0, U2},
	{"AAAA0000-0000-4000-8000-000000000001", 0, U1},
	{"one", 0, U1},
	{"bbbb", 0, U3},
	{"bbb", -ENOENT, NULL},
	{"aaaa", -EEXIST, NULL},
	{"same", -EEXIST, NULL},
	{"three", 0, U3},
	{"", -ENOENT, NULL},
};

static void test_find(void **state)
{
	struct slice vms = of("[{\"uuid\":\"" U1 "\",\"name\":\"one\",\"alias\":\"same\"},"
			      "{\"uuid\":\"" U2 "\",\"name\":\"two\",\"alias\":\"same\"},"
			      "{\"uuid\":\"" U3 "\",\"alias\":\"three\"},{\"name\":\"one\"},7]");
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(finds); i++) {
		char uuid[UUID_LEN + 1];

		assert_int_equal(find_in(vms, finds[i].id, uuid, &err), finds[i].want);
		if (finds[i].uuid)
			assert_string_equal(uuid, finds[i].uuid);
	}
	assert_int_equal(find_in(vms, "nobody", (char[UUID_LEN + 1]){0}, &err), -ENOENT);
	assert_string_equal(err.msg, "VM nobody not found");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_columns),      cmocka_unit_test(test_bad_fields),
		cmocka_unit_test(test_nested_field), cmocka_unit_test(test_cells),
		cmocka_unit_test(test_order),        cmocka_unit_test(test_filters),
		cmocka_unit_test(test_bad_filters),  cmocka_unit_test(test_rows),
		cmocka_unit_test(test_find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
