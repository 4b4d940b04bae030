/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of a NIC's filter against golden files; that nft takes them is tests/system/test_net.py. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "vmstated/filter.h"

#define FILE_MAX 65536

static struct vm *vm_with(json_t *nic)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_JSON json_t *payload = json_pack("{s:s, s:[o]}", "brand", "kvm", "nics", nic);
	struct vm *vm = vm_from_payload(payload, &p);
	AUTO_FREE char *found = problems_text(&p);

	assert_string_equal(found, "");
	vm_finish(vm, "/data");
	return vm;
}

static void judge(const char *dir, const char *name)
{
	AUTO_FREE char *path = path_join(dir, name);
	AUTO_FREE char *golden = xasprintf("%.*s.nft", (int)(strlen(path) - 5), path);
	AUTO_FREE char *text = NULL, *want = NULL;
	AUTO_STRBUF struct strbuf got = {0};
	json_t *nic = NULL;

	assert_int_equal(file_read(path, FILE_MAX, &text, NULL, NULL, NULL), 0);
	assert_int_equal(json_parse_object(text, strlen(text), name, &nic, NULL), 0);
	AUTO_VM struct vm *vm = vm_with(nic);

	filter_nic(&got, "vmgolden", vm->nics[0]);
	if (getenv("REWRITE_GOLDEN"))
		assert_int_equal(file_write(golden, got.data, got.len, 0644, FILE_NO_SYNC, NULL),
				 0);
	assert_int_equal(file_read(golden, FILE_MAX, &want, NULL, NULL, NULL), 0);
	assert_string_equal(got.data, want);
}

static void golden_files(void **state)
{
	AUTO_FREE char *dir =
		path_join(getenv("GOLDEN") ? getenv("GOLDEN") : "tests/golden", "filter");
	struct dirent **list;
	int n = scandir(dir, &list, NULL, alphasort), cases = 0;

	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		if (str_ends(list[i]->d_name, ".json")) {
			judge(dir, list[i]->d_name);
			cases++;
		}
		free(list[i]);
	}
	free(list);
	assert_true(cases > 0);
}

/* The name of a tap follows from uuid and MAC alone, and fits an interface. */
static void tap_names(void **state)
{
	struct nic nic = {.nic_tag = (char[]){"br0"}, .mac = (char[]){"52:54:00:12:34:56"}};
	struct vm vm = {.uuid = (char[]){"5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11"}};
	char name[NIC_TAP_MAX], other[NIC_TAP_MAX];

	assert_true(vm_nic_tap(&vm, &nic, name));
	assert_int_equal(strlen(name), 14);
	assert_true(str_starts(name, "vm"));
	nic.mac[16] = '7';
	assert_true(vm_nic_tap(&vm, &nic, other));
	assert_string_not_equal(name, other);
	nic.tap = (char[]){"tap0"};
	assert_true(vm_nic_tap(&vm, &nic, name));
	assert_string_equal(name, "tap0");
	nic.tap = NULL;
	nic.nic_tag = (char[]){"user"};
	assert_false(vm_nic_tap(&vm, &nic, name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_files),
		cmocka_unit_test(tap_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
