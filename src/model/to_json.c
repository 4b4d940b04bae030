/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM object as others see it: one walk over the table, each row from the struct, from the
 * facts of the daemons, or computed. Called for every VM of the host at a start, so no row is
 * looked up by name here.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/checks.h"
#include "model/model.h"
#include "model/rows.h"

/* --- computed members --- */

json_t *compute_zonename(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return vm->uuid ? json_string(vm->uuid) : NULL;
}

json_t *compute_brand(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_string("kvm");
}

json_t *compute_type(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_string("KVM");
}

json_t *compute_true(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_true();
}

json_t *compute_true_only(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_is_true(fact) ? json_true() : NULL;
}

json_t *compute_null(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return fact ? json_incref((json_t *)fact) : json_null();
}

json_t *compute_v(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_integer(1);
}

json_t *compute_snapshots(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_is_array(fact) ? json_incref((json_t *)fact) : json_array();
}

json_t *compute_last_modified(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	const char *snapshots = json_get_str(facts, "snapshots_changed", "");
	char buf[ISO_TIME_LEN];

	if (fact)
		return json_incref((json_t *)fact);
	(void)clock_iso(vm->mtime_ms, buf, sizeof(buf));
	return json_string(strcmp(snapshots, buf) > 0 ? snapshots : buf);
}

/* FNV-1a over the uuid, positive in 31 bits: the same on every start of every daemon. */
json_t *compute_zonedid(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	uint32_t hash = 2166136261u;

	for (const char *c = vm->uuid ? vm->uuid : ""; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	return json_integer(hash >> 1);
}

json_t *compute_zonepath(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	if (fact)
		return json_incref((json_t *)fact);
	return vm->data_dir ? json_string(vm->data_dir) : NULL;
}

json_t *compute_zfs_filesystem(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	AUTO_FREE char *text =
		xasprintf("%s/%s", vm->zpool ? vm->zpool : "zones", vm->uuid ? vm->uuid : "");

	return json_string(text);
}

static const char *zone_state_of(const json_t *facts)
{
	return json_get_str(facts, "zone_state", "installed");
}

static bool is_failed(const json_t *fact)
{
	return fact && !json_is_false(fact) && !json_is_null(fact) &&
	       !(json_is_string(fact) && !*json_string_value(fact));
}

json_t *compute_zone_state(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return json_string(zone_state_of(facts));
}

json_t *compute_failed(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	return is_failed(fact) ? json_incref((json_t *)fact) : NULL;
}

/*
 * The supervisor's word, or what zone_state means; provisioning goes over it and failed over all.
 * Source: vmadm(8), state.
 */
json_t *compute_state(const struct vm *vm, const json_t *facts, const json_t *fact)
{
	const char *zone_state = zone_state_of(facts);

	if (is_failed(json_object_get(facts, "failed")))
		return json_string("failed");
	if (json_is_true(json_object_get(facts, "provisioning")))
		return json_string("provisioning");
	if (json_is_string(fact))
		return json_incref((json_t *)fact);
	return json_string(strcmp(zone_state, "installed") == 0 ? "stopped" : zone_state);
}

/* --- the walk --- */

static bool shows(const struct prop *row, const void *element, bool secrets)
{
	switch (row->show) {
	case SHOW_ALWAYS:
		return true;
	case SHOW_SET:
		return !prop_is_default(row, element);
	case SHOW_TRUE:
		return *(const bool *)row_at(row, element);
	case SHOW_NEVER:
		return false;
	case SHOW_SECRET:
		return secrets && (row->type == PROP_MAP || !prop_is_default(row, element));
	}
	return false;
}

json_t *props_json(const struct prop_table *t, const void *element, bool secrets)
{
	json_t *object = json_object();

	for (size_t i = 0; i < t->count; i++) {
		json_t *value = NULL;

		if (shows(&t->rows[i], element, secrets))
			value = prop_json(&t->rows[i], element);
		if (value)
			(void)json_object_set_new_nocheck(object, t->rows[i].name, value);
	}
	return object;
}

static json_t *elements_json(const struct vm *vm, const struct prop *row, bool secrets)
{
	const struct prop_table *t = row_elements(row);
	struct elem_list list = vm_elements(vm, t);
	json_t *array;

	if (list.count == 0 && row->show == SHOW_SET)
		return NULL;
	array = json_array();
	for (size_t i = 0; i < list.count; i++)
		(void)json_array_append_new(array, props_json(t, list.items[i], secrets));
	return array;
}

static json_t *member(const struct vm *vm, const struct prop *row, const json_t *facts,
		      bool secrets)
{
	const json_t *fact = facts ? json_object_get(facts, row->name) : NULL;

	if (row->show == SHOW_NEVER || (row->show == SHOW_SECRET && !secrets))
		return NULL;
	if (row->compute)
		return row->compute(vm, facts, fact);
	if (fact)
		return json_incref((json_t *)fact);
	if (row_elements(row))
		return elements_json(vm, row, secrets);
	if (row->type == PROP_RUNTIME || !shows(row, vm, secrets))
		return NULL;
	return prop_json(row, vm);
}

json_t *vm_to_json(const struct vm *vm, const json_t *facts, bool secrets)
{
	bool configured = strcmp(zone_state_of(facts), "configured") == 0;
	json_t *object = json_object();

	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];
		json_t *value;

		if (configured && (row->set & NOT_CONFIGURED))
			continue;
		value = member(vm, row, facts, secrets);
		if (value)
			(void)json_object_set_new_nocheck(object, row->name, value);
	}
	return object;
}
