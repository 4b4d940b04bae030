/* SPDX-License-Identifier: Apache-2.0 */
/* Event lines; the examples are those of smartos facts 4.7. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/events.h"
#include "cli/js.h"

#define ZONE "\"zonename\":\"54f1cc77-68f1-42ab-acac-5c4f64f5d6e0\""
#define DATE "\"date\":\"2026-11-22T12:42:12.489Z\""
#define READY                                                                                      \
	"{\"type\":\"ready\"," DATE ",\"uuid\":\"a027\",\"vms\":\"[{\\\"zonename\\\":\\\"z\\\"}]"  \
	"\"}"

static const struct event_view plain = {0}, full = {.full = true, .ready = true},
			       ready = {.ready = true}, json = {.json = true, .ready = true},
			       decoded = {.json = true, .ready = true, .decoded = true};

static const struct {
	const struct event_view *view;
	const char *event, *want;
} cases[] = {
	{&plain, READY, ""},
	{&ready, READY, "[12:42:12.489Z] ready\n"},
	{&full, READY, "[2026-11-22T12:42:12.489Z] ready (uuid a027)\n"},
	{&json, READY, READY "\n"},
	{&decoded, READY,
	 "{\"type\":\"ready\"," DATE ",\"uuid\":\"a027\",\"vms\":{\"z\":{\"zonename\":\"z\"}}}\n"},
	{&plain,
	 "{\"type\":\"modify\"," DATE "," ZONE ",\"vm\":{\"alias\":\"a\"},\"changes\":["
	 "{\"prettyPath\":\"ram\",\"action\":\"changed\",\"oldValue\":512,\"newValue\":256}]}",
	 "[12:42:12.489Z] 54f1cc77 a modify: ram changed :: 512 -> 256\n"},
	{&full,
	 "{\"type\":\"modify\"," DATE "," ZONE ",\"vm\":{\"alias\":\"a\"},\"changes\":["
	 "{\"prettyPath\":\"nics.*\",\"action\":\"removed\",\"oldValue\":{\"mac\": \"m\"}},"
	 "{\"prettyPath\":\"nics.*\",\"action\":\"added\",\"newValue\":null}]}",
	 "[2026-11-22T12:42:12.489Z] 54f1cc77-68f1-42ab-acac-5c4f64f5d6e0 a modify: nics.* removed "
	 ":: {\"mac\":\"m\"} -> undefined\n"
	 "[2026-11-22T12:42:12.489Z] 54f1cc77-68f1-42ab-acac-5c4f64f5d6e0 a modify: nics.* added "
	 ":: undefined -> null\n"},
	{&plain, "{\"type\":\"create\"," DATE "," ZONE ",\"vm\":{}}",
	 "[12:42:12.489Z] 54f1cc77 - create\n"},
	{&plain, "{\"type\":\"delete\"," DATE "," ZONE "}", "[12:42:12.489Z] 54f1cc77 - delete\n"},
	{&plain, "{\"type\":\"later\"}", "[-] - - later\n"},
	{&plain,
	 "{\"type\":\"create\"," DATE "," ZONE
	 ",\"vm\":{\"alias\":\"123456789012345678901234567890\"}}",
	 "[12:42:12.489Z] 54f1cc77 123456789012345678901234567890 create\n"},
	{&plain,
	 "{\"type\":\"create\"," DATE "," ZONE
	 ",\"vm\":{\"alias\":\"12345678901234567890123456\xc3\xa4 8901\"}}",
	 "[12:42:12.489Z] 54f1cc77 12345678901234567890123456\xc3\xa4... create\n"},
	{&plain, "{\"type\":\"create\"," DATE "," ZONE ",\"vm\":{\"alias\":\"a\\u001b[2J\\n\"}}",
	 "[12:42:12.489Z] 54f1cc77 a\\x1b[2J\\n create\n"},
};

static void test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct slice event = js_value(cases[i].event, strlen(cases[i].event));
		AUTO_STRBUF struct strbuf sb = {0};

		assert_int_equal(event_lines(&sb, event, cases[i].view, NULL), 0);
		assert_string_equal(sb.data ? sb.data : "", cases[i].want);
	}
}

static void test_no_event(void **state)
{
	static const char *const bad[] = {"{}", "[]", "7", "{\"type\":1}"};
	AUTO_STRBUF struct strbuf sb = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(event_lines(&sb, js_value(bad[i], strlen(bad[i])), &plain, NULL),
				 -EPROTO);
	assert_int_equal(event_lines(&sb, (struct slice){0}, &plain, NULL), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines),
					   cmocka_unit_test(test_no_event)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
