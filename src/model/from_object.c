/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM from the VM object, the inverse of vm_to_json: for tools, which see objects only. An object
 * does not say which of its members a person gave; those that would be the same if nobody had
 * given them count as not given, so that they follow when others change.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/rows.h"
#include "model/value.h"

static void read_element(struct vm *vm, const struct prop_table *t, const json_t *object,
			 const char *where, struct problems *p)
{
	void *el = vm_add_element(vm, t);
	const char *name;
	json_t *value;

	if (!el) {
		problems_add(p, PROBLEM_BAD_VALUE, where, NULL, "is one %s too many", t->one);
		return;
	}
	json_object_foreach ((json_t *)object, name, value) {
		const struct prop *row = prop_find(t, name, false);
		AUTO_FREE char *at = xasprintf("%s.%s", where, name);

		if (row && row->type < PROP_DISKS)
			(void)slot_json(&(struct slot){t, row, el, at, NULL, p}, value);
	}
}

static void read_elements(struct vm *vm, const struct prop *row, const json_t *array,
			  struct problems *p)
{
	size_t i;
	json_t *object;

	json_array_foreach ((json_t *)array, i, object) {
		AUTO_FREE char *where = xasprintf("%s[%zu]", row->name, i);

		read_element(vm, row_elements(row), object, where, p);
	}
}

/* An element of a VM, or with t == &vm_props the VM itself. */
static void *element_at(const struct vm *vm, const struct prop_table *t, size_t index)
{
	return t == &vm_props ? (void *)vm : vm_elements(vm, t).items[index];
}

/* Would the member be as it is, had nobody given it? */
static bool follows(const struct vm *vm, const struct prop_table *t, size_t index,
		    const struct prop *row)
{
	AUTO_VM struct vm *without = vm_copy(vm);
	void *el = element_at(without, t, index);

	slot_unset(&(struct slot){.t = t, .row = row, .el = el});
	vm_finish(without, vm->data_dir);
	return prop_same(row, el, element_at(vm, t, index));
}

static void forget_what_follows(struct vm *vm, const struct prop_table *t, size_t index)
{
	void *el = element_at(vm, t, index);

	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];

		if (row->type < PROP_MAP && prop_given(t, elem_given(t, el), row) &&
		    follows(vm, t, index, row))
			given_set(elem_given(t, el), i, false);
	}
}

static void forget_in_elements(struct vm *vm)
{
	static const struct prop_table *const lists[] = {&disk_props, &nic_props, &console_props};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (size_t k = 0; k < vm_elements(vm, lists[i]).count; k++)
			forget_what_follows(vm, lists[i], k);
}

struct vm *vm_from_object(const json_t *object, const char *data_dir, struct problems *p)
{
	struct vm *vm = vm_new();
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)object, name, value) {
		const struct prop *row = prop_find(&vm_props, name, false);

		if (!row || row->type == PROP_RUNTIME)
			continue;
		if (row_elements(row))
			read_elements(vm, row, value, p);
		else
			(void)slot_json(&(struct slot){&vm_props, row, vm, name, name, p}, value);
	}
	vm_finish(vm, data_dir);
	forget_in_elements(vm);
	forget_what_follows(vm, &vm_props, 0);
	return vm;
}
