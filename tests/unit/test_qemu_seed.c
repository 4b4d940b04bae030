/* SPDX-License-Identifier: Apache-2.0 */
/* The NoCloud seed: which VMs have one, what is in it, and the CD image's parts where they belong.
 */
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
#include "model/model.h"
#include "model/vm.h"
#include "qemu/iso.h"
#include "qemu/seed.h"

#define SECTOR 2048

static struct vm *make_vm(void)
{
	struct vm *vm = vm_new();

	replace_str(&vm->uuid, xstrdup("54f1cc77-68f1-42ab-acac-5c4f64f5d6e0"));
	replace_str(&vm->name, xstrdup("web0"));
	vm_finish(vm, "/d");
	return vm;
}

static bool wanted(const char *internal, const char *customer)
{
	AUTO_VM struct vm *vm = make_vm();

	vm->internal_metadata = json_loads(internal, 0, NULL);
	vm->customer_metadata = json_loads(customer, 0, NULL);
	return seed_wanted(vm);
}

static void test_who_has_one(void **state)
{
	assert_true(wanted("{\"cloudinit_datasource\":\"nocloud\"}", "{}"));
	assert_true(wanted("{}", "{\"cloud-init:user-data\":\"x\"}"));
	assert_false(wanted("{\"cloudinit_datasource\":\"smartos\"}", "{\"user-data\":\"x\"}"));
	assert_false(wanted("{}", "{}"));
}

/* Where the text is in the volume, for what a reader finds there. */
static const char *find(const char *data, size_t len, const char *text)
{
	return memmem(data, len, text, strlen(text));
}

static void test_content(void **state)
{
	AUTO_VM struct vm *vm = make_vm();
	AUTO_FREE char *data = NULL, *again = NULL;
	size_t len, again_len;
	struct err err;

	vm->customer_metadata =
		json_pack("{s:s, s:s, s:s}", "user-data", "plain", "cloud-init:user-data",
			  "#!/bin/sh", "cloud-init:network-config", "version: 2");
	assert_int_equal(seed_build(vm, &data, &len, &err), 0);
	assert_int_equal(len % SECTOR, 0);
	assert_memory_equal(data + 16 * SECTOR, "\1CD001\1", 7);
	assert_memory_equal(data + 16 * SECTOR + 40, "CIDATA    ", 10);
	assert_memory_equal(data + 17 * SECTOR, "\2CD001\1", 7);
	assert_memory_equal(data + 18 * SECTOR, "\377CD001\1", 7);
	assert_non_null(find(data, len, "USER_DAT.;1"));
	assert_non_null(find(data, len, "NM\xe\1\0user-data"));
	assert_non_null(find(data, len, "#!/bin/sh"));
	assert_non_null(find(data, len, "version: 2"));
	assert_non_null(find(data, len, "\"local-hostname\": \"web0\""));
	assert_null(find(data, len, "plain"));
	assert_int_equal(seed_build(vm, &again, &again_len, &err), 0);
	assert_int_equal(len, again_len);
	assert_memory_equal(data, again, len);
}

static void test_files_at_sector_bounds(void **state)
{
	AUTO_FREE char *data = NULL, *full = xcalloc(1, SECTOR);
	struct iso_file files[] = {{"a", "", 0}, {"b", full, SECTOR}, {"c", "end", 3}};
	size_t len;
	struct err err;

	memset(full, 'b', SECTOR);
	assert_int_equal(iso_build("X", files, 3, &data, &len, &err), 0);
	assert_memory_equal(data + len - 2 * SECTOR, full, SECTOR);
	assert_memory_equal(data + len - SECTOR, "end", 4);
	files[1].len = ISO_FILE_MAX + 1;
	assert_int_equal(iso_build("X", files, 3, &data, &len, &err), -E2BIG);
	assert_int_equal(iso_build("X", files, ISO_FILES_MAX + 1, &data, &len, &err), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_has_one),
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_files_at_sector_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
