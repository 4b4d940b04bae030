/* SPDX-License-Identifier: Apache-2.0 */
/* Every row of the property tables, every name of every enum, the states: complete and unique. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/props.h"

static const struct prop_table *const tables[] = {&vm_props, &disk_props, &nic_props,
						  &console_props};

static void test_rows(void **state)
{
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		for (size_t i = 0; i < tables[t]->count; i++) {
			const struct prop *row = &tables[t]->rows[i];

			assert_non_null(row->name);
			if (!row->doc || !row->source)
				fail_msg("%s: no doc or source", row->name);
			if (!str_ends(row->doc, "."))
				fail_msg("%s: doc is no sentence", row->name);
			assert_true(row->min <= row->max || row->max == 0);
			assert_int_equal(row->type == PROP_ENUM, row->names != NULL);
			assert_ptr_equal(prop_find(tables[t], row->name, false), row);
			assert_ptr_equal(prop_find(tables[t], row->name, true), row);
			if (row->column)
				assert_true(row->width > 0);
			if (row->type == PROP_RUNTIME)
				assert_int_equal(row->set & (ON_UPDATE | BY_HAND), 0);
			if (row->compute)
				assert_int_equal(row->type, PROP_RUNTIME);
		}
	}
}

static void test_names_unique(void **state)
{
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		for (size_t i = 0; i < tables[t]->count; i++) {
			const struct prop *row = &tables[t]->rows[i];
			const char *names[] = {row->ucl, row->ucl2};

			for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
				if (!names[k])
					continue;
				assert_null(prop_find(tables[t], names[k], false));
				assert_ptr_equal(prop_find(tables[t], names[k], true), row);
			}
			for (size_t j = 0; j < i; j++)
				assert_string_not_equal(row->name, tables[t]->rows[j].name);
		}
	}
}

static void test_enums_both_ways(void **state)
{
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		for (size_t i = 0; i < tables[t]->count; i++) {
			const struct prop *row = &tables[t]->rows[i];

			for (size_t v = 0; v < row->nnames; v++) {
				const char *name = enum_name(row->names, row->nnames, (int)v);

				assert_non_null(name);
				assert_int_equal(enum_value(row->names, row->nnames, name), v);
			}
			assert_null(enum_name(row->names, row->nnames, (int)row->nnames));
			assert_null(enum_name(row->names, row->nnames, -1));
			assert_int_equal(enum_value(row->names, row->nnames, "no such"), -EINVAL);
		}
	}
}

static void test_states_both_ways(void **state)
{
	for (int i = 0; i < SUP_STATE_COUNT; i++) {
		const struct sup_state_row *row = &sup_states[i];

		assert_int_equal(sup_state_from_label(row->label), i);
		assert_int_equal(strlen(row->code), 4);
		assert_non_null(row->zone_state);
		assert_non_null(row->state);
		assert_int_equal(row->hook == NULL, i == SUP_INIT);
		for (int j = 0; j < i; j++) {
			assert_int_not_equal(row->id, sup_states[j].id);
			assert_string_not_equal(row->code, sup_states[j].code);
		}
	}
	for (int i = 0; i < END_CAUSE_COUNT; i++)
		assert_int_equal(end_cause_from_name(end_cause_names[i]), i);
	assert_int_equal(sup_state_from_label("x"), -EINVAL);
	assert_int_equal(sup_state_from_label(NULL), -EINVAL);
	assert_int_equal(end_cause_from_name(NULL), -EINVAL);
}

/* Headers and widths of vmadm(8), list. */
static void test_columns(void **state)
{
	static const struct {
		const char *name, *header;
		int width;
	} want[] = {
		{"alias", "ALIAS", 10},
		{"autoboot", "AUTOBOOT", 8},
		{"billing_id", "BILLING_ID", 36},
		{"boot_timestamp", "BOOT_TIMESTAMP", 24},
		{"brand", "BRAND", 14},
		{"cpu_cap", "CPU_CAP", 7},
		{"cpu_shares", "CPU_SHARE", 9},
		{"cpu_type", "CPU_TYPE", 8},
		{"create_timestamp", "CREATE_TIMESTAMP", 24},
		{"dns_domain", "DOMAIN", 32},
		{"do_not_inventory", "DNI", 5},
		{"docker", "DOCKER", 6},
		{"exit_status", "EXIT", 4},
		{"exit_timestamp", "EXIT_TIMESTAMP", 24},
		{"firewall_enabled", "FIREWALL_ENABLED", 16},
		{"flexible_disk_size", "FLEX_DISK_SIZE", 14},
		{"free_space", "FREE_SPACE", 14},
		{"hostname", "HOSTNAME", 32},
		{"hvm", "HVM", 5},
		{"image_uuid", "IMAGE_UUID", 36},
		{"indestructible_delegated", "INDESTR_DATA", 12},
		{"indestructible_zoneroot", "INDESTR_ROOT", 12},
		{"ram", "RAM", 7},
		{"max_locked_memory", "MAX_LOCKED", 10},
		{"max_lwps", "MAX_LWP", 7},
		{"max_physical_memory", "MAX_PHYS", 8},
		{"max_swap", "MAX_SWAP", 8},
		{"owner_uuid", "OWNER_UUID", 36},
		{"package_name", "PACKAGE_NAME", 32},
		{"package_version", "PACKAGE_VER", 11},
		{"pid", "PID", 6},
		{"qemu_extra_opts", "QEMU_EXTRA_OPTS", 15},
		{"quota", "QUOTA", 5},
		{"zone_state", "ZONE_STATE", 10},
		{"state", "STATE", 16},
		{"tmpfs", "TMPFS", 5},
		{"type", "TYPE", 4},
		{"uuid", "UUID", 36},
		{"vcpus", "VCPUS", 5},
		{"zfs_io_priority", "IO_PRIORITY", 11},
		{"zpool", "ZPOOL", 12},
		{"zonename", "ZONENAME", 12},
		{"zonepath", "ZONEPATH", 40},
		{"zoneid", "ZONEID", 6},
	};

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		const struct prop *row = prop_find(&vm_props, want[i].name, false);

		assert_non_null(row);
		assert_string_equal(row->column, want[i].header);
		assert_int_equal(row->width, want[i].width);
	}
}

static void test_nearest(void **state)
{
	assert_string_equal(prop_nearest(&vm_props, "memroy", true), "memory");
	assert_string_equal(prop_nearest(&vm_props, "vpcus", false), "vcpus");
	assert_string_equal(prop_nearest(&nic_props, "brigde", true), "bridge");
	assert_null(prop_nearest(&vm_props, "xyzzyplugh", true));
	assert_null(prop_nearest(&vm_props, "", true));
}

static void test_text(void **state)
{
	AUTO_VM struct vm *vm = vm_new();
	static const struct {
		const char *name, *text;
	} want[] = {
		{"ram", "256"},         {"alias", ""},       {"autoboot", "false"},
		{"stoptimeout", "180"}, {"vga", "std"},      {"resolvers", "1.1.1.1,8.8.8.8"},
		{"tags", "{}"},         {"state", ""},       {"disks", ""},
		{"vnc_port", "0"},      {"maxrestart", "3"}, {"maxrestarttime", "30"},
	};

	str_list_add(&vm->resolvers, "1.1.1.1");
	str_list_add(&vm->resolvers, "8.8.8.8");
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		AUTO_FREE char *text = prop_text(prop_find(&vm_props, want[i].name, false), vm);

		assert_string_equal(text, want[i].text);
	}
}

/* Every member with a value of its own: the copy must share nothing and be equal. */
static void test_copy(void **state)
{
	AUTO_VM struct vm *vm = vm_new();
	AUTO_VM struct vm *copy = NULL;

	vm->uuid = xstrdup("54f1cc77-68f1-42ab-acac-5c4f64f5d6e0");
	vm->file = xstrdup("/f");
	vm->tags = json_pack("{s:s}", "a", "b");
	str_list_add(&vm->after, "db0:ready");
	vm_add_disk(vm)->path = xstrdup("/d");
	str_list_add(&vm_add_nic(vm)->ips, "dhcp");
	vm_add_console(vm)->name = xstrdup("serial0");
	copy = vm_copy(vm);
	{
		json_t *a = vm_to_json(vm, NULL, true), *b = vm_to_json(copy, NULL, true);

		assert_true(json_equal(a, b));
		json_decref(a);
		json_decref(b);
	}
	assert_ptr_not_equal(vm->disks[0], copy->disks[0]);
	assert_ptr_not_equal(vm->tags, copy->tags);
	assert_string_equal(copy->nics[0]->ips.items[0], "dhcp");
	for (int i = 1; i < VM_DISKS_MAX; i++)
		assert_non_null(vm_add_disk(vm));
	assert_null(vm_add_disk(vm));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_names_unique),
		cmocka_unit_test(test_enums_both_ways),
		cmocka_unit_test(test_states_both_ways),
		cmocka_unit_test(test_columns),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
