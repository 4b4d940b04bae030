/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM from a create payload. Unlike the original, which drops what it does not know, every
 * property that is unknown or not allowed here is reported. Source: vmadm(8), create.
 */
#include "model/payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/rows.h"
#include "model/value.h"

#define ADD_PREFIX "add_"

char *payload_key(const char *list, size_t index, const struct prop *row, const char *name)
{
	return row && (row->set & KEY_BY_INDEX) ? xasprintf("%s.%zu.%s", list, index, name)
						: xasprintf("%s.*.%s", list, name);
}

/* "nics[1].mac" names the list and the index; the key is made of both. */
static char *key_of(const char *where, const struct prop *row, const char *name)
{
	AUTO_FREE char *list = xstrndup(where, strcspn(where, "["));
	const char *bracket = strchr(where, '[');

	return payload_key(list, bracket ? strtoul(bracket + 1, NULL, 10) : 0, row, name);
}

void payload_member(const struct prop_table *t, void *el, const char *name, const json_t *value,
		    unsigned allowed, const char *where, struct problems *p)
{
	const struct prop *row = prop_find(t, name, false);
	AUTO_FREE char *at = xasprintf("%s.%s", where, name);
	AUTO_FREE char *key = key_of(where, row, name);

	if (row && str_eq(row->name, "block_size") && !(row->set & allowed))
		problems_add(p, PROBLEM_BAD_PROPERTY, at, key,
			     "cannot change .block_size for a disk after creation");
	else if (row && !(row->set & allowed) && (row->set & ON_CREATE))
		problems_add(p, PROBLEM_BAD_PROPERTY, at, key,
			     "'%s' cannot be changed after creation", name);
	else if (!row || !(row->set & allowed))
		problem_unknown(t, name, false, at, key, p);
	else if (t == &nic_props && row->at == offsetof(struct nic, primary) &&
		 json_is_false(value))
		problem_value(p, at, key, "false",
			      "is not allowed (want true on the NIC that is to be primary)");
	else
		(void)slot_json(&(struct slot){t, row, el, at, key, p}, value);
}

/* disk_driver or nic_driver, else the model of the first element, else a finding. */
static void inherit_model(struct vm *vm, const struct prop_table *t, void *el, const json_t *j,
			  const char *where, struct problems *p)
{
	bool disk = t == &disk_props;
	const struct prop *row =
		prop_at(t, disk ? offsetof(struct disk, model) : offsetof(struct nic, model));
	const char *driver = disk ? vm->disk_driver : vm->nic_driver;
	struct elem_list list = vm_elements(vm, t);
	int value = enum_value(row->names, row->nnames, driver);
	AUTO_FREE char *text = NULL;

	if (t == &console_props || prop_given(t, elem_given(t, el), row))
		return;
	if (value < 0 && list.items[0] != el)
		value = *(int *)row_at(row, list.items[0]);
	if (value >= 0) {
		*(int *)row_at(row, el) = value;
		given_set(elem_given(t, el), row_index(t, row), true);
		return;
	}
	text = shown_json(j);
	problems_add(p, PROBLEM_MISSING, where, disk ? "disks.*.model" : "nics.*.model",
		     "missing .model option for %s: %s", t->one, text);
}

static void add_element(struct vm *vm, const struct prop_table *t, const json_t *j,
			const char *where, struct problems *p)
{
	const char *name;
	json_t *value;
	void *el;

	if (!json_is_object(j)) {
		problems_add(p, PROBLEM_BAD_VALUE, where, t->what,
			     "is not an object (want { ... } for each %s)", t->one);
		return;
	}
	el = vm_add_element(vm, t);
	if (!el) {
		problems_add(p, PROBLEM_BAD_VALUE, where, NULL,
			     "is one %s too many (want at most %zu)", t->one,
			     vm_elements(vm, t).count);
		return;
	}
	json_object_foreach ((json_t *)j, name, value)
		payload_member(t, el, name, value, ON_CREATE, where, p);
	inherit_model(vm, t, el, j, where, p);
	if (t == &disk_props) {
		const struct disk *d = el;
		AUTO_FREE char *at = xasprintf("%s.path", where);

		if (DISK_GIVEN(d, path) && !d->nocreate && d->media == MEDIA_DISK)
			problems_add(p, PROBLEM_BAD_VALUE, at, "disks.*.path",
				     "you cannot specify a path for a disk unless you set "
				     "nocreate=true");
	}
}

void payload_add_elements(struct vm *vm, const struct prop_table *t, const json_t *array,
			  const char *where, struct problems *p)
{
	size_t i;
	json_t *j;

	if (!json_is_array(array)) {
		problems_add(p, PROBLEM_BAD_VALUE, where, where, "%s must be an array.", where);
		return;
	}
	json_array_foreach ((json_t *)array, i, j) {
		AUTO_FREE char *at = xasprintf("%s[%zu]", where, i);

		add_element(vm, t, j, at, p);
	}
}

/* --- the VM --- */

/* brand and zonename: accepted, because they can only say what is so anyway. */
static void read_fixed(const json_t *payload, const char *name, const json_t *value,
		       struct problems *p)
{
	const char *text = json_string_value(value);
	AUTO_FREE char *v = shown_json(value);

	if (strcmp(name, "brand") == 0) {
		if (!text || strcmp(text, "kvm") != 0)
			problems_add(p, PROBLEM_BAD_VALUE, name, name,
				     "Invalid brand while validating payload: \"%s\"", v);
		return;
	}
	if (!text || !str_eq(text, json_get_str(payload, "uuid", NULL)))
		problem_value(p, name, name, v, "is not the uuid (want it left out)");
}

static void read_member(struct vm *vm, const json_t *payload, const char *name, const json_t *value,
			struct problems *p)
{
	bool add = str_starts(name, ADD_PREFIX);
	const struct prop *row =
		prop_find(&vm_props, add ? name + strlen(ADD_PREFIX) : name, false);

	if (!row || !(row->set & ON_CREATE) || (add && !row_elements(row)))
		problem_unknown(&vm_props, name, false, name, name, p);
	else if (row->type == PROP_RUNTIME)
		read_fixed(payload, name, value, p);
	else if (row_elements(row))
		payload_add_elements(vm, row_elements(row), value, name, p);
	else
		(void)slot_json(&(struct slot){&vm_props, row, vm, name, name, p}, value);
}

/* Both "disks" and "add_disks". */
static void check_doubled(const json_t *payload, struct problems *p)
{
	static const struct prop_table *const lists[] = {&disk_props, &nic_props};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		AUTO_FREE char *add = xasprintf(ADD_PREFIX "%s", lists[i]->what);

		if (json_object_get(payload, lists[i]->what) && json_object_get(payload, add))
			problems_add(p, PROBLEM_BAD_VALUE, NULL, add,
				     "Cannot specify both \"%s\" and \"%s\"", lists[i]->what, add);
	}
}

/* What creation stores when the payload says nothing. */
static void store_defaults(struct vm *vm, struct problems *p)
{
	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];

		if (row->create && !prop_given(&vm_props, &vm->given, row))
			(void)slot_text(&(struct slot){&vm_props, row, vm, row->name, NULL, p},
					row->create);
	}
	if (!VM_GIVEN(vm, uuid)) {
		char uuid[UUID_LEN + 1];
		const struct prop *row = prop_at(&vm_props, offsetof(struct vm, uuid));

		uuid_random(uuid);
		(void)slot_text(&(struct slot){&vm_props, row, vm, row->name, NULL, p}, uuid);
	}
}

struct vm *vm_from_payload(const json_t *payload, struct problems *p)
{
	struct vm *vm = vm_new();
	const char *name;
	json_t *value;

	if (!json_is_object(payload)) {
		problems_add(p, PROBLEM_BAD_VALUE, NULL, NULL,
			     "the payload is not an object (want { \"alias\": ..., ... })");
		return vm;
	}
	/* Drivers first: models of disks and NICs are inherited from them. */
	for (int elements = 0; elements < 2; elements++) {
		json_object_foreach ((json_t *)payload, name, value) {
			bool add = str_starts(name, ADD_PREFIX);
			const struct prop *row =
				prop_find(&vm_props, add ? name + strlen(ADD_PREFIX) : name, false);

			if ((row && row_elements(row)) == (elements == 1))
				read_member(vm, payload, name, value, p);
		}
	}
	check_doubled(payload, p);
	store_defaults(vm, p);
	return vm;
}
