/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata service's two protocols; frames were made with another program's zlib and base64. */
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
#include "model/vm.h"
#include "vmadmd/guest/metadata.h"

static struct vm *make_vm(void)
{
	struct vm *vm = vm_new();

	vm->customer_metadata =
		json_pack("{s:s, s:i, s:b, s:s, s:s}", "user-data", "#!/bin/sh\n.x\n..y", "count",
			  5, "flag", 1, "empty", "", "root_pw", "wrong");
	vm->internal_metadata =
		json_pack("{s:s, s:s, s:s, s:s}", "root_pw", "secret", "ns:a", "of the operator",
			  "operator-script", "run me", "hidden", "unseen");
	str_list_add(&vm->internal_metadata_namespaces, "ns");
	return vm;
}

/* What the guest reads when it sent these bytes. */
static char *talk(const struct vm *vm, const char *bytes, size_t len)
{
	AUTO_JSON json_t *object = json_pack("{s:s, s:[{s:s}], s:s}", "uuid", "u-1", "nics", "mac",
					     "02:00:00:00:00:01", "vnc_password", "no");
	struct metadata_in in = {0};
	struct metadata_request r;
	struct strbuf out = {0};

	metadata_feed(&in, bytes, len);
	while (metadata_next(&in, &r)) {
		AUTO_STRBUF struct strbuf body = {0};
		AUTO_JSON json_t *payload = NULL;
		enum metadata_code code = METADATA_FAILURE;
		struct err err = {0};

		if (r.command == METADATA_GET && r.key) {
			code = metadata_get(vm, object, r.key, &body);
		} else if (r.command == METADATA_KEYS) {
			metadata_keys(vm, &body);
			code = METADATA_SUCCESS;
		} else if (r.command == METADATA_PUT || r.command == METADATA_DELETE) {
			AUTO_FREE char *text = NULL;

			if (metadata_payload(vm, &r, &payload, &err) == 0)
				code = METADATA_SUCCESS;
			text = payload ? json_text(payload) : xstrdup(err.msg);
			strbuf_puts(&body, text);
		}
		metadata_answer(&r, code, body.data, &out);
		metadata_request_done(&r);
	}
	metadata_in_done(&in);
	return strbuf_steal(&out);
}

static void check(const char *bytes, const char *want)
{
	AUTO_VM struct vm *vm = make_vm();
	AUTO_FREE char *out = talk(vm, bytes, strlen(bytes));

	assert_string_equal(out, want);
}

static void test_lines(void **state)
{
	check("\n", "invalid command\n");
	check("GET user-data\r\n", "SUCCESS\n#!/bin/sh\n..x\n...y\n.\n");
	check("GET count\nGET flag\n", "SUCCESS\n5\n.\nSUCCESS\ntrue\n.\n");
	check("GET empty\n", "SUCCESS\n\n.\n");
	check("GET nothing\n", "NOTFOUND\n");
	check("GET\n", "FAILURE\n");
	check("FETCH x\n", "FAILURE\n");
	check("PUT a b\nDELETE a\n", "FAILURE\nFAILURE\n"); /* of protocol 2 only */
	check("NEGOTIATE V2\nNEGOTIATE V3\n", "V2_OK\nFAILURE\n");
	check("KEYS\n", "SUCCESS\nuser-data\ncount\nflag\nempty\nroot_pw\nns:a\n.\n");
	check("GET user-data", "");
}

static void test_where_keys_live(void **state)
{
	check("GET root_pw\n", "SUCCESS\nsecret\n.\n");
	check("GET ns:a\n", "SUCCESS\nof the operator\n.\n");
	check("GET operator-script\n", "SUCCESS\nrun me\n.\n");
	check("GET sdc:operator-script\n", "SUCCESS\nrun me\n.\n");
	check("GET hidden\n", "NOTFOUND\n");
	check("GET sdc:uuid\n", "SUCCESS\nu-1\n.\n");
	check("GET sdc:nics.0.mac\n", "SUCCESS\n02:00:00:00:00:01\n.\n");
	check("GET sdc:nics\n", "SUCCESS\n[{\"mac\":\"02:00:00:00:00:01\"}]\n.\n");
	check("GET sdc:vnc_password\n", "NOTFOUND\n");
	check("GET sdc:nics.1.mac\nGET sdc:uuid.x\nGET sdc:\n", "NOTFOUND\nNOTFOUND\nNOTFOUND\n");
}

static void test_frames(void **state)
{
	check("V2 41 418feb3a dc4fae17 GET cm9vdF9hdXRob3JpemVkX2tleXM=\n",
	      "V2 17 11525eac dc4fae17 NOTFOUND\n");
	check("V2 6 1c7a2ceb 1 KEYS\n",
	      "V2 62 fd8f9efc 1 SUCCESS dXNlci1kYXRhCmNvdW50CmZsYWcKZW1wdHkKcm9vdF9wdwpuczph\n");
	check("V2 30 215c3f0c 9 PUT YzJSak9uVjFhV1E9IGVBPT0=\n",
	      "V2 58 cee653d0 9 FAILURE Q2Fubm90IHVwZGF0ZSB0aGUgInNkYyIgTmFtZXNwYWNlLg==\n");
}

/* A frame that does not add up; the connection goes on. */
static void test_bad_frames(void **state)
{
	static const char *const bad[] = {
		"V2\n",
		"V2 6\n",
		"V2 6 1c7a2cec 1 KEYS\n", /* checksum */
		"V2 7 1c7a2ceb 1 KEYS\n", /* length */
		"V2 -6 1c7a2ceb 1 KEYS\n",
		"V2 99999999999 1c7a2ceb 1 KEYS\n",
		"V2 6 1c7a2cebff0 1 KEYS\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check(bad[i], "invalid command\n");
}

/* What the body of a PUT or DELETE asks for, or why not. */
static void check_payload(enum metadata_command command, const char *key, const char *value,
			  const char *want)
{
	AUTO_VM struct vm *vm = make_vm();
	AUTO_JSON json_t *payload = NULL;
	AUTO_FREE char *text = NULL;
	struct metadata_request r = {.command = command,
				     .key = (char *)(uintptr_t)key,
				     .value = (char *)(uintptr_t)value};
	struct err err = {0};

	if (metadata_payload(vm, &r, &payload, &err) == 0)
		text = json_text(payload);
	assert_string_equal(text ? text : err.msg, want);
}

static void test_changes(void **state)
{
	check_payload(METADATA_PUT, "k", "v", "{\"set_customer_metadata\":{\"k\":\"v\"}}");
	check_payload(METADATA_PUT, "x_pw", "v", "{\"set_internal_metadata\":{\"x_pw\":\"v\"}}");
	check_payload(METADATA_DELETE, "k", NULL, "{\"remove_customer_metadata\":[\"k\"]}");
	check_payload(METADATA_DELETE, "x_pw", NULL, "{\"remove_internal_metadata\":[\"x_pw\"]}");
	check_payload(METADATA_PUT, "ns:b", "v", "Cannot update the \"ns\" Namespace.");
	check_payload(METADATA_DELETE, "sdc:uuid", NULL, "Cannot update the \"sdc\" Namespace.");
	check_payload(METADATA_PUT, "operator-script", "v", "Cannot update \"operator-script\".");
	check_payload(METADATA_PUT, "a\nb", "v", "A key holds no control characters");
	check_payload(METADATA_PUT, "k", NULL, "Invalid PUT Request");
	check_payload(METADATA_DELETE, NULL, NULL, "Invalid DELETE Request");
}

static void test_guest_cannot_fill_the_host(void **state)
{
	AUTO_FREE char *value = xmalloc(METADATA_TOTAL_MAX + 1);
	AUTO_VM struct vm *vm = make_vm();
	AUTO_JSON json_t *payload = NULL;
	struct metadata_request r = {.command = METADATA_PUT, .key = (char *)(uintptr_t) "k"};
	struct err err = {0};

	memset(value, '\1', METADATA_TOTAL_MAX); /* six bytes each in a JSON text */
	value[METADATA_TOTAL_MAX / 6] = '\0';
	r.value = value;
	assert_int_equal(metadata_payload(vm, &r, &payload, &err), -E2BIG);
	value[METADATA_TOTAL_MAX / 7] = '\0';
	assert_int_equal(metadata_payload(vm, &r, &payload, &err), 0);
	for (unsigned i = 0; i < METADATA_KEYS_MAX; i++) {
		AUTO_FREE char *key = xasprintf("key%u", i);

		json_put_str(vm->customer_metadata, key, "");
	}
	r.value = (char *)(uintptr_t) "v";
	json_decref(steal_ptr(payload));
	assert_int_equal(metadata_payload(vm, &r, &payload, &err), -E2BIG);
	r.key = (char *)(uintptr_t) "key7"; /* there already */
	assert_int_equal(metadata_payload(vm, &r, &payload, &err), 0);
}

/* Megabytes without a newline cost one line's room and one answer. */
static void test_endless_line(void **state)
{
	struct metadata_in in = {0};
	struct metadata_request r;
	char piece[4096];

	memset(piece, 'A', sizeof(piece));
	for (int i = 0; i < 2048; i++) {
		metadata_feed(&in, piece, sizeof(piece));
		assert_false(metadata_next(&in, &r));
		assert_true(in.data.len <= METADATA_LINE_MAX + sizeof(piece));
	}
	metadata_feed(&in, "A\nKEYS\n", 7);
	assert_true(metadata_next(&in, &r));
	assert_int_equal(r.command, METADATA_INVALID);
	metadata_request_done(&r);
	assert_true(metadata_next(&in, &r));
	assert_int_equal(r.command, METADATA_KEYS);
	metadata_request_done(&r);
	assert_false(metadata_next(&in, &r));
	metadata_in_done(&in);
}

static void test_bytes_one_by_one(void **state)
{
	static const char text[] = "V2 6 1c7a2ceb 1 KEYS\n";
	struct metadata_in in = {0};
	struct metadata_request r;

	for (size_t i = 0; i + 2 < sizeof(text); i++) {
		metadata_feed(&in, &text[i], 1);
		assert_false(metadata_next(&in, &r));
	}
	metadata_feed(&in, "\n", 1);
	assert_true(metadata_next(&in, &r));
	assert_string_equal(r.id, "1");
	metadata_request_done(&r);
	metadata_in_done(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_where_keys_live),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_guest_cannot_fill_the_host),
		cmocka_unit_test(test_endless_line),
		cmocka_unit_test(test_bytes_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
