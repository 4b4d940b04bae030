/* SPDX-License-Identifier: Apache-2.0 */
/* Which VM may start now, for every state of what it waits for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "vmadmd/change/bootorder.h"

#define TIMEOUT_MS 1000

/* A dependency is called after the state it is in. */
static enum dep_state lookup(void *ctx, const char *name)
{
	static const char *const names[] = {"unknown", "never", "coming", "running", "ready"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(names[i], name))
			return (enum dep_state)i;
	}
	fail_msg("asked for '%s'", name);
	return DEP_UNKNOWN;
}

static void test_single(void **state)
{
	static const struct {
		const char *after;
		uint64_t waited_ms;
		bool go, counts, note;
	} rows[] = {
		{"unknown", 0, true, false, true},
		{"unknown:ready", 0, true, false, true},
		{"never", 0, true, false, true},
		{"coming", 0, false, false, false},
		{"coming", TIMEOUT_MS, false, false, false},
		{"coming:ready", TIMEOUT_MS, false, false, false},
		{"running", 0, true, false, false},
		{"running:ready", 0, false, true, false},
		{"running:ready", TIMEOUT_MS - 1, false, true, false},
		{"running:ready", TIMEOUT_MS, true, true, true},
		{"ready:ready", 0, true, false, false},
		{"ready", 0, true, false, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char *after[] = {(char *)(uintptr_t)rows[i].after};
		const struct vm vm = {.after = {after, 1}, .readytimeout_ms = TIMEOUT_MS};
		struct boot_verdict v;

		boot_judge(&vm, rows[i].waited_ms, lookup, NULL, &v);
		if (v.go != rows[i].go || v.counts != rows[i].counts ||
		    (v.notes.len > 0) != rows[i].note)
			fail_msg("after %s, %u ms: go=%d counts=%d notes='%s'", rows[i].after,
				 (unsigned)rows[i].waited_ms, v.go, v.counts,
				 v.notes.data ? v.notes.data : "");
		strbuf_done(&v.notes);
	}
}

static void test_all_must_be_there(void **state)
{
	char running[] = "running", coming[] = "coming", never[] = "never";
	char *after[] = {running, coming, never};
	struct vm vm = {.after = {after, 3}, .readytimeout_ms = TIMEOUT_MS};
	struct boot_verdict v;

	boot_judge(&vm, 0, lookup, NULL, &v);
	assert_false(v.go);
	strbuf_done(&v.notes);
	vm.after.count = 0;
	boot_judge(&vm, 0, lookup, NULL, &v);
	assert_true(v.go);
	strbuf_done(&v.notes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_single),
		cmocka_unit_test(test_all_must_be_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
