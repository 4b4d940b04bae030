/* SPDX-License-Identifier: Apache-2.0 */
/* The members of "vmadm info" from answers as QEMU 7.2 gives them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/info.h"

static size_t type_of(const char *name)
{
	for (size_t i = 0; i < INFO_TYPE_COUNT; i++) {
		if (str_eq(info_types[i].name, name))
			return i;
	}
	fail_msg("no info type %s", name);
	return 0;
}

/* What QEMU says, in, becomes what people read. */
static void check(const char *type, const char *in, const char *want)
{
	AUTO_JSON json_t *value = json_loads(in, JSON_DECODE_ANY, NULL);
	AUTO_JSON json_t *out = NULL;
	AUTO_FREE char *text = NULL;

	assert_non_null(value);
	out = info_map(type_of(type), value);
	text = json_dumps(out, JSON_COMPACT | JSON_ENCODE_ANY);
	assert_string_equal(text, want);
}

static void test_order_and_names(void **state)
{
	static const char *const order[] = {"status", "version", "chardev", "block", "blockstats",
					    "cpus",   "pci",     "kvm",     "vnc",   "spice"};

	for (size_t i = 0; i < INFO_TYPE_COUNT; i++)
		assert_string_equal(info_types[i].name, order[i]);
}

static void test_block_device_from_qdev(void **state)
{
	check("block",
	      "[{\"device\":\"\",\"qdev\":\"/machine/peripheral/disk0/virtio-backend\","
	      "\"locked\":false,\"type\":\"unknown\"}]",
	      "[{\"device\":\"disk0\",\"qdev\":\"/machine/peripheral/disk0/virtio-backend\","
	      "\"locked\":false,\"type\":\"unknown\"}]");
	check("block", "[{\"device\":\"\",\"qdev\":\"disk1\"}]",
	      "[{\"device\":\"disk1\",\"qdev\":\"disk1\"}]");
	check("block", "[{\"device\":\"ide0\",\"qdev\":\"x\"}]",
	      "[{\"device\":\"ide0\",\"qdev\":\"x\"}]");
	check("block", "[{\"device\":\"\"}]", "[{\"device\":\"\"}]");
}

static void test_blockstats_highest_offset(void **state)
{
	check("blockstats",
	      "[{\"device\":\"\",\"qdev\":\"/machine/peripheral/disk0/virtio-backend\","
	      "\"stats\":{\"rd_bytes\":7,\"wr_highest_offset\":0},"
	      "\"parent\":{\"stats\":{\"wr_highest_offset\":4096}}}]",
	      "[{\"device\":\"disk0\",\"stats\":{\"rd_bytes\":7,\"wr_highest_offset\":4096},"
	      "\"qdev\":\"/machine/peripheral/disk0/virtio-backend\","
	      "\"parent\":{\"stats\":{\"wr_highest_offset\":4096}}}]");
}

static void test_cpus_fast(void **state)
{
	check("cpus",
	      "[{\"cpu-index\":0,\"thread-id\":11,\"qom-path\":\"/machine/"
	      "a\",\"target\":\"x86_64\"},"
	      "{\"cpu-index\":1,\"thread-id\":12}]",
	      "[{\"CPU\":0,\"current\":true,\"thread_id\":11,\"qom-path\":\"/machine/a\","
	      "\"target\":\"x86_64\"},{\"CPU\":1,\"current\":false,\"thread_id\":12}]");
}

static void test_spice_absent(void **state)
{
	check("spice", "{\"enabled\":false,\"migrated\":false,\"mouse-mode\":\"client\"}", "{}");
}

static void test_raw_and_odd(void **state)
{
	check("status", "{\"running\":true}", "{\"running\":true}");
	check("block", "{\"not\":\"a list\"}", "null");
	check("cpus", "7", "null");
	check("kvm", "null", "null");
	check("block", "[7,null]", "[{\"device\":\"\"},{\"device\":\"\"}]");
	assert_true(json_is_null(info_map(type_of("pci"), NULL)));
}

static void test_parse_lists(void **state)
{
	struct err err = {0};
	unsigned mask = 0, all = (1u << INFO_TYPE_COUNT) - 1;

	assert_int_equal(info_parse(NULL, &mask, &err), 0);
	assert_int_equal(mask, all);
	assert_int_equal(info_parse("", &mask, &err), 0);
	assert_int_equal(mask, all);
	assert_int_equal(info_parse("block,vnc", &mask, &err), 0);
	assert_int_equal(mask, 1u << type_of("block") | 1u << type_of("vnc"));
	assert_int_equal(info_parse(", vnc ,,", &mask, &err), 0);
	assert_int_equal(mask, 1u << type_of("vnc"));
	assert_int_equal(info_parse("vnc,all", &mask, &err), 0);
	assert_int_equal(mask, all);
	assert_int_equal(info_parse("vnc,cpu", &mask, &err), -EINVAL);
	assert_int_equal(strncmp(err.msg, "unknown info type cpu ", 22), 0);
	assert_int_equal(info_parse("cpuss", &mask, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_names),
		cmocka_unit_test(test_block_device_from_qdev),
		cmocka_unit_test(test_blockstats_highest_offset),
		cmocka_unit_test(test_cpus_fast),
		cmocka_unit_test(test_spice_absent),
		cmocka_unit_test(test_raw_and_odd),
		cmocka_unit_test(test_parse_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
