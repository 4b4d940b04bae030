/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of struct vm and its elements: made with every member at its default, copied and freed by
 * walking the property tables, so that a new property needs no line here.
 */
#include "model/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/rows.h"

void str_list_add(struct str_list *list, const char *text)
{
	list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
	list->items[list->count++] = xstrdup(text);
}

void str_list_done(struct str_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct str_list){0};
}

void str_list_copy(struct str_list *dst, const struct str_list *src)
{
	struct str_list copy = {0};

	for (size_t i = 0; i < src->count; i++)
		str_list_add(&copy, src->items[i]);
	*dst = copy;
}

/* How the lists of elements lie in struct vm. */
struct elem_kind {
	const struct prop_table *table;
	size_t items_at, count_at, size, max, name_at, path_at;
};

static const struct elem_kind kinds[] = {
	{&disk_props, offsetof(struct vm, disks), offsetof(struct vm, ndisks), sizeof(struct disk),
	 VM_DISKS_MAX, offsetof(struct disk, name), offsetof(struct disk, ucl_path)},
	{&nic_props, offsetof(struct vm, nics), offsetof(struct vm, nnics), sizeof(struct nic),
	 VM_NICS_MAX, offsetof(struct nic, name), offsetof(struct nic, ucl_path)},
	{&console_props, offsetof(struct vm, consoles), offsetof(struct vm, nconsoles),
	 sizeof(struct console), VM_CONSOLES_MAX, offsetof(struct console, name),
	 offsetof(struct console, ucl_path)},
};

static const struct elem_kind *kind_of(const struct prop_table *t)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (kinds[i].table == t)
			return &kinds[i];
	}
	return NULL;
}

/* The arrays have element types of their own, but all are arrays of object pointers. */
static void **items_of(const struct vm *vm, const struct elem_kind *k)
{
	void **items;

	memcpy(&items, (const char *)vm + k->items_at, sizeof(items));
	return items;
}

static size_t *count_of(const struct vm *vm, const struct elem_kind *k)
{
	return (size_t *)(void *)((char *)vm + k->count_at);
}

static void items_put(struct vm *vm, const struct elem_kind *k, void **items, size_t count)
{
	memcpy((char *)vm + k->items_at, &items, sizeof(items));
	*count_of(vm, k) = count;
}

const struct prop_table *row_elements(const struct prop *row)
{
	if (row->type == PROP_DISKS)
		return &disk_props;
	if (row->type == PROP_NICS)
		return &nic_props;
	return row->type == PROP_CONSOLES ? &console_props : NULL;
}

struct elem_list vm_elements(const struct vm *vm, const struct prop_table *t)
{
	const struct elem_kind *k = kind_of(t);

	return (struct elem_list){.items = items_of(vm, k), .count = *count_of(vm, k)};
}

char **elem_name(const struct prop_table *t, void *element)
{
	return (char **)(void *)((char *)element + kind_of(t)->name_at);
}

struct str_list *elem_ucl_path(const struct prop_table *t, void *element)
{
	return (struct str_list *)(void *)((char *)element + kind_of(t)->path_at);
}

static void append(struct vm *vm, const struct elem_kind *k, void *element)
{
	size_t count = *count_of(vm, k);
	void **items = xrealloc(items_of(vm, k), (count + 1) * sizeof(*items));

	items[count] = element;
	items_put(vm, k, items, count + 1);
}

void *vm_add_element(struct vm *vm, const struct prop_table *t)
{
	const struct elem_kind *k = kind_of(t);
	void *element;

	if (*count_of(vm, k) >= k->max)
		return NULL;
	element = xcalloc(1, k->size);
	prop_defaults(t, element);
	append(vm, k, element);
	return element;
}

static void element_free(const struct prop_table *t, void *element)
{
	props_done(t, element);
	str_list_done(elem_ucl_path(t, element));
	free(element);
}

void vm_drop_element(struct vm *vm, const struct prop_table *t, size_t index)
{
	const struct elem_kind *k = kind_of(t);
	void **items = items_of(vm, k);
	size_t count = *count_of(vm, k);

	element_free(t, items[index]);
	memmove(items + index, items + index + 1, (count - index - 1) * sizeof(*items));
	items_put(vm, k, items, count - 1);
}

long vm_element_named(const struct vm *vm, const struct prop_table *t, const char *name)
{
	struct elem_list list = vm_elements(vm, t);

	for (size_t i = 0; i < list.count; i++) {
		const char *other = *elem_name(t, list.items[i]);

		if (name && other && strcmp(name, other) == 0)
			return (long)i;
	}
	return -1;
}

struct disk *vm_add_disk(struct vm *vm)
{
	return vm_add_element(vm, &disk_props);
}

void disk_keep_path(struct disk *d)
{
	given_set(&d->given, row_index(&disk_props, prop_find(&disk_props, disk_props.key, false)),
		  true);
}

struct nic *vm_add_nic(struct vm *vm)
{
	return vm_add_element(vm, &nic_props);
}

struct console *vm_add_console(struct vm *vm)
{
	return vm_add_element(vm, &console_props);
}

struct vm *vm_new(void)
{
	struct vm *vm = xcalloc(1, sizeof(*vm));

	prop_defaults(&vm_props, vm);
	vm->owner_uid = UINT32_MAX;
	vm->group_gid = UINT32_MAX;
	return vm;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct elem_list list = vm_elements(vm, kinds[i].table);

		for (size_t j = 0; j < list.count; j++)
			element_free(kinds[i].table, list.items[j]);
		free(items_of(vm, &kinds[i]));
	}
	props_done(&vm_props, vm);
	free(vm->file);
	free(vm->dir);
	free(vm->data_dir);
	free(vm);
}

static void *copy_element(const struct elem_kind *k, void *from)
{
	void *element = xmalloc(k->size);

	memcpy(element, from, k->size);
	props_copy(k->table, element, from);
	str_list_copy(elem_ucl_path(k->table, element), elem_ucl_path(k->table, from));
	return element;
}

void vm_take_element(struct vm *to, const struct vm *from, const struct prop_table *t,
		     const char *name)
{
	long at = vm_element_named(to, t, name), source = vm_element_named(from, t, name);
	const struct elem_kind *k = kind_of(t);
	void **items = (void **)vm_elements(to, t).items;

	if (source < 0) {
		if (at >= 0)
			vm_drop_element(to, t, (size_t)at);
	} else if (at < 0) {
		append(to, k, copy_element(k, vm_elements(from, t).items[source]));
	} else {
		element_free(t, items[at]);
		items[at] = copy_element(k, vm_elements(from, t).items[source]);
	}
}

static void copy_elements(struct vm *copy, const struct vm *vm, const struct elem_kind *k)
{
	struct elem_list list = vm_elements(vm, k->table);

	items_put(copy, k, NULL, 0);
	for (size_t i = 0; i < list.count; i++)
		append(copy, k, copy_element(k, list.items[i]));
}

struct vm *vm_copy(const struct vm *vm)
{
	struct vm *copy = xmalloc(sizeof(*copy));

	memcpy(copy, vm, sizeof(*copy));
	props_copy(&vm_props, copy, vm);
	copy->file = xstrdup(vm->file);
	copy->dir = xstrdup(vm->dir);
	copy->data_dir = xstrdup(vm->data_dir);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		copy_elements(copy, vm, &kinds[i]);
	return copy;
}

/* --- names that follow --- */

bool vm_nic_tap(const struct vm *vm, const struct nic *nic, char name[NIC_TAP_MAX])
{
	char hash[UUID_LEN + 1];

	name[0] = '\0';
	if (!nic->tap && str_eq(nic->nic_tag, "user"))
		return false;
	if (nic->tap || nic->ifname) {
		(void)snprintf(name, NIC_TAP_MAX, "%s", nic->tap ? nic->tap : nic->ifname);
		return true;
	}
	/* Of the MAC, not of the place: NICs before it may come and go. */
	uuid_derive(vm->uuid, nic->mac, hash);
	(void)snprintf(name, NIC_TAP_MAX, "vm%.8s%.4s", hash, hash + 9);
	return true;
}
