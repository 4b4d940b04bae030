/* SPDX-License-Identifier: Apache-2.0 */
/* The VM object with facts, secrets, conflicts between VMs, updates: wholly or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"

#define UUID_A "54f1cc77-68f1-42ab-acac-5c4f64f5d6e0"
#define UUID_B "aaaaaaaa-68f1-42ab-acac-5c4f64f5d6e0"

/* Quotes are written as ' in the cases. */
static json_t *load(const char *text)
{
	AUTO_FREE char *copy = xstrdup(text);
	json_error_t err;
	json_t *j;

	for (char *c = copy; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	j = json_loads(copy, JSON_DECODE_ANY, &err);
	if (!j)
		fail_msg("%s: %s", text, err.text);
	return j;
}

static struct vm *make(const char *payload)
{
	AUTO_JSON json_t *j = load(payload);
	AUTO_PROBLEMS struct problems p = {0};
	struct vm *vm = vm_from_payload(j, &p);

	vm_finish(vm, "/data");
	vm_validate(vm, &p);
	if (p.errors)
		fail_msg("%s", problems_text(&p));
	return vm;
}

/* Without facts, and what facts and their order of precedence make of state. Source: 7.4. */
static void test_states(void **state)
{
	static const struct {
		const char *facts, *zone_state, *state;
	} cases[] = {
		{"{}", "installed", "stopped"},
		{"{'zone_state':'running'}", "running", "running"},
		{"{'zone_state':'running','state':'stopping'}", "running", "stopping"},
		{"{'zone_state':'installed','provisioning':true}", "installed", "provisioning"},
		{"{'zone_state':'running','failed':'hook'}", "running", "failed"},
		{"{'zone_state':'running','failed':false}", "running", "running"},
		{"{'zone_state':'running','failed':''}", "running", "running"},
		{"{'zone_state':'installed','provisioning':true,'failed':'x'}", "installed",
		 "failed"},
		{"{'zone_state':'down'}", "down", "down"},
		{"{'zone_state':5,'state':[],'failed':null}", "installed", "stopped"},
	};
	AUTO_VM struct vm *vm = make("{'brand':'kvm'}");

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_JSON json_t *facts = load(cases[i].facts);
		AUTO_JSON json_t *j = vm_to_json(vm, facts, false);

		assert_string_equal(json_get_str(j, "state", ""), cases[i].state);
		assert_string_equal(json_get_str(j, "zone_state", ""), cases[i].zone_state);
	}
}

static void test_facts(void **state)
{
	AUTO_VM struct vm *vm = make("{'brand':'kvm','ram':512}");
	AUTO_JSON json_t *facts = load("{'pid':7,'zoneid':3,'ram':1024,'snapshots':[{'name':'s'}],"
				       "'bogus':1,'pending':false,'last_exit':{'cause':'guest'},"
				       "'docker':true}");
	AUTO_JSON json_t *j = vm_to_json(vm, facts, false);
	AUTO_JSON json_t *bare = vm_to_json(vm, NULL, false);

	assert_int_equal(json_get_int(j, "pid", 0), 7);
	assert_int_equal(json_get_int(j, "zoneid", 0), 3);
	assert_int_equal(json_get_int(j, "ram", 0), 1024);
	assert_int_equal(json_array_size(json_object_get(j, "snapshots")), 1);
	assert_non_null(json_object_get(j, "last_exit"));
	assert_null(json_object_get(j, "bogus"));
	assert_null(json_object_get(j, "docker"));
	assert_null(json_object_get(j, "pending"));
	assert_true(json_is_null(json_object_get(bare, "zoneid")));
	assert_null(json_object_get(bare, "pid"));
	assert_string_equal(json_get_str(bare, "zonename", ""), vm->uuid);
}

/* Before installation and after removal: no storage. */
static void test_configured(void **state)
{
	AUTO_VM struct vm *vm = make("{'brand':'kvm'}");
	AUTO_JSON json_t *facts = load("{'zone_state':'configured'}");
	AUTO_JSON json_t *j = vm_to_json(vm, facts, false);
	AUTO_JSON json_t *full = vm_to_json(vm, NULL, false);
	static const char *const names[] = {"quota", "zpool", "zfs_filesystem"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_null(json_object_get(j, names[i]));
		assert_non_null(json_object_get(full, names[i]));
	}
}

static void test_secrets(void **state)
{
	AUTO_VM struct vm *vm =
		make("{'brand':'kvm','vnc_password':'x','internal_metadata':{'a_pw':'b'}}");
	AUTO_JSON json_t *open = vm_to_json(vm, NULL, false);
	AUTO_JSON json_t *whole = vm_to_json(vm, NULL, true);
	AUTO_JSON json_t *facts = load("{'vnc_password':'y'}");
	AUTO_JSON json_t *fact = vm_to_json(vm, facts, false);

	assert_null(json_object_get(open, "vnc_password"));
	assert_null(json_object_get(open, "internal_metadata"));
	assert_null(json_object_get(fact, "vnc_password"));
	assert_string_equal(json_get_str(whole, "vnc_password", ""), "x");
	assert_non_null(json_object_get(whole, "internal_metadata"));
}

static void test_conflicts(void **state)
{
	static const struct {
		const char *a, *b, *key;
	} cases[] = {
		{"", "'uuid':'" UUID_A "'", "uuid"},
		{"'name':'x'", "'name':'x'", "name"},
		{"'vnc_port':5901", "'vnc_port':5901", "vnc_port"},
		{"'nics':[{'model':'virtio','nic_tag':'a','mac':'52:54:00:00:00:01'}]",
		 "'nics':[{'model':'virtio','nic_tag':'b','mac':'52:54:00:00:00:01'}]",
		 "nics.*.mac"},
		{"'nics':[{'model':'virtio','nic_tag':'a','ips':['10.0.0.1/24']}]",
		 "'nics':[{'model':'virtio','nic_tag':'a','ips':['10.0.0.1/16']}]", "nics.*.ip"},
		/* none */
		{"'vnc_port':-1", "'vnc_port':-1", NULL},
		{"'alias':'x'", "'alias':'x'", NULL},
		{"'nics':[{'model':'virtio','nic_tag':'a','ip':'dhcp'}]",
		 "'nics':[{'model':'virtio','nic_tag':'a','ip':'dhcp'}]", NULL},
		{"'nics':[{'model':'virtio','nic_tag':'a','vlan_id':1,'ips':['10.0.0.1/24']}]",
		 "'nics':[{'model':'virtio','nic_tag':'a','vlan_id':2,'ips':['10.0.0.1/24']}]",
		 NULL},
		{"'nics':[{'model':'virtio','nic_tag':'user','ips':['10.0.2.15/24']}]",
		 "'nics':[{'model':'virtio','nic_tag':'user','ips':['10.0.2.15/24']}]", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool own = strstr(cases[i].b, "uuid") != NULL;
		AUTO_FREE char *one = xasprintf("{'brand':'kvm','uuid':'" UUID_A "'%s%s}",
						*cases[i].a ? "," : "", cases[i].a);
		AUTO_FREE char *two = xasprintf("{'brand':'kvm'%s,%s}",
						own ? "" : ",'uuid':'" UUID_B "'", cases[i].b);
		AUTO_VM struct vm *a = make(one);
		AUTO_VM struct vm *b = make(two);
		AUTO_PROBLEMS struct problems p = {0};

		vm_conflicts(b, a, &p);
		if (!cases[i].key) {
			assert_int_equal(p.count, 0);
			continue;
		}
		assert_true(p.count >= 1);
		assert_string_equal(p.items[0].key, cases[i].key);
		assert_non_null(strstr(p.items[0].text, UUID_A));
	}
}

/* One bad member: nothing is returned, and the old VM is as it was. */
static void test_update_whole_or_nothing(void **state)
{
	AUTO_VM struct vm *vm = make("{'brand':'kvm','ram':512,'tags':{'a':'b'}}");
	AUTO_JSON json_t *before = vm_to_json(vm, NULL, true);
	AUTO_JSON json_t *payload =
		load("{'ram':1024,'set_tags':{'a':'c'},'remove_tags':['a'],'vnc_port':99999}");
	AUTO_PROBLEMS struct problems p = {0};
	struct vm_changes changes;
	struct vm *new = vm_update(vm, payload, "stopped", &changes, &p);
	AUTO_JSON json_t *after = vm_to_json(vm, NULL, true);

	assert_null(new);
	assert_int_equal(changes.count, 0);
	assert_int_equal(p.errors, 1);
	assert_true(json_equal(before, after));
}

/* Each simple property can be set, and unset by "" so that it disappears again. */
static void test_update_unset(void **state)
{
	static const char *const names[] = {"alias",          "billing_id",     "hostname",
					    "owner_uuid",     "package_name",   "package_version",
					    "virtio_txtimer", "virtio_txburst", "cpu_cap"};
	AUTO_VM struct vm *vm = make("{'brand':'kvm'}");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		bool id = strstr(names[i], "_id") || strstr(names[i], "uuid");
		AUTO_JSON json_t *set = json_pack("{s:s}", names[i], id ? UUID_B : "77");
		AUTO_JSON json_t *unset = json_pack("{s:s}", names[i], "");
		AUTO_PROBLEMS struct problems p = {0};
		struct vm_changes changes;
		AUTO_VM struct vm *with = vm_update(vm, set, "running", &changes, &p);
		AUTO_VM struct vm *without = NULL;
		AUTO_JSON json_t *j = NULL, *k = NULL;

		assert_non_null(with);
		assert_int_equal(changes.count, 1);
		vm_changes_done(&changes);
		j = vm_to_json(with, NULL, true);
		assert_non_null(json_object_get(j, names[i]));
		if (str_starts(names[i], "virtio"))
			assert_int_equal(json_get_int(j, names[i], 0), 77);
		without = vm_update(with, unset, "running", &changes, &p);
		assert_non_null(without);
		assert_int_equal(changes.count, 1);
		vm_changes_done(&changes);
		k = vm_to_json(without, NULL, true);
		assert_null(json_object_get(k, names[i]));
	}
}

/* Three NICs: the middle one goes and comes back. */
static void test_update_nic_count(void **state)
{
	static const struct {
		const char *payload;
		size_t count;
	} steps[] = {
		{"{'add_nics':[{'nic_tag':'b','mac':'52:54:00:00:00:02'},"
		 "{'nic_tag':'c','mac':'52:54:00:00:00:03'}]}",
		 3},
		{"{'remove_nics':['52:54:00:00:00:02']}", 2},
		{"{'add_nics':[{'nic_tag':'b','mac':'52:54:00:00:00:02'}]}", 3},
		{"{'update_nics':[{'mac':'52:54:0:0:0:2','model':'e1000'}]}", 3},
		{"{'remove_nics':['52:54:00:00:00:01','52:54:00:00:00:02','52:54:00:00:00:03']}",
		 0},
	};
	struct vm *vm = make("{'brand':'kvm','nics':[{'nic_tag':'a','model':'virtio',"
			     "'mac':'52:54:00:00:00:01'}]}");

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		AUTO_JSON json_t *payload = load(steps[i].payload);
		AUTO_PROBLEMS struct problems p = {0};
		struct vm_changes changes;
		struct vm *new = vm_update(vm, payload, "stopped", &changes, &p);
		AUTO_FREE char *text = problems_text(&p);

		vm_changes_done(&changes);
		if (!new)
			fail_msg("%s", text);
		assert_int_equal(new->nnics, steps[i].count);
		if (new->nnics)
			assert_string_equal(new->nics[0]->mac, "52:54:00:00:00:01");
		vm_free(vm);
		vm = new;
	}
	vm_free(vm);
}

static void test_derived_is_stable(void **state)
{
	const char *payload = "{'brand':'kvm','uuid':'" UUID_A "','nics':[{'nic_tag':'a',"
			      "'model':'virtio'},{'nic_tag':'a'}],'disks':[{'size':5,"
			      "'model':'virtio'}]}";
	AUTO_VM struct vm *a = make(payload);
	AUTO_VM struct vm *b = make(payload);

	vm_finish(b, "/data");
	assert_string_equal(a->nics[0]->mac, b->nics[0]->mac);
	assert_string_equal(a->nics[1]->mac, b->nics[1]->mac);
	assert_string_not_equal(a->nics[0]->mac, a->nics[1]->mac);
	assert_true(str_starts(a->nics[0]->mac, "52:54:00:"));
	assert_string_equal(a->disks[0]->path, "/data/disk0.qcow2");
	assert_string_equal(b->disks[0]->path, "/data/disk0.qcow2");
}

static void test_macs_of_ours_give_way(void **state)
{
	static const char *const payload =
		"{\"uuid\": \"5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11\", \"brand\": \"kvm\","
		" \"nics\": [{\"nic_tag\": \"br0\", \"model\": \"virtio\"},"
		"            {\"nic_tag\": \"br0\", \"model\": \"virtio\"}]}";
	AUTO_VM struct vm *vm = make(payload), *other = make(payload), *third = make(payload);
	AUTO_FREE char *first = NULL;

	vm_finish(vm, "/data");
	vm_finish(other, "/data");
	vm_finish(third, "/data");
	first = xstrdup(vm->nics[0]->mac);
	assert_true(vm_avoid_macs(vm, NULL, other));
	assert_string_not_equal(vm->nics[0]->mac, first);
	assert_string_not_equal(vm->nics[0]->mac, vm->nics[1]->mac);
	assert_false(vm_avoid_macs(vm, NULL, other));
	/* They count as given now, and stay. */
	replace_str(&third->nics[0]->mac, xstrdup(vm->nics[0]->mac));
	assert_false(vm_avoid_macs(vm, NULL, third));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_facts),
		cmocka_unit_test(test_configured),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_conflicts),
		cmocka_unit_test(test_update_whole_or_nothing),
		cmocka_unit_test(test_update_unset),
		cmocka_unit_test(test_update_nic_count),
		cmocka_unit_test(test_derived_is_stable),
		cmocka_unit_test(test_macs_of_ours_give_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
