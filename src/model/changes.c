/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two finished VMs, row by row; see model.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/rows.h"
#include "model/vm.h"

void vm_changes_done(struct vm_changes *c)
{
	for (size_t i = 0; i < c->count; i++) {
		free(c->items[i].path);
		free(c->items[i].old_text);
		free(c->items[i].new_text);
	}
	free(c->items);
	*c = (struct vm_changes){0};
}

/* Takes path; old and new are borrowed and may be NULL. */
static void add(struct vm_changes *c, const struct prop *row, char *path, const json_t *old,
		const json_t *new)
{
	c->items = xrealloc(c->items, (c->count + 1) * sizeof(*c->items));
	c->items[c->count++] = (struct vm_change){
		.row = row,
		.path = path,
		.old_text = old ? json_text(old) : NULL,
		.new_text = new ? json_text(new) : NULL,
		.live = row->set &LIVE || row->type == PROP_MAP,
		.metadata = row->type == PROP_MAP,
	};
}

/* Keys of one map: removed and changed in the old order, then added. */
static void maps(struct vm_changes *c, const struct prop *row, const json_t *old, const json_t *new)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)old, key, value) {
		const json_t *other = json_object_get(new, key);

		if (!other || !json_equal(value, other))
			add(c, row, xasprintf("%s.%s", row->name, key), value, other);
	}
	json_object_foreach ((json_t *)new, key, value) {
		if (!json_object_get(old, key))
			add(c, row, xasprintf("%s.%s", row->name, key), NULL, value);
	}
}

static void members(struct vm_changes *c, const struct prop_table *t, const void *old,
		    const void *new, const char *prefix)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];
		AUTO_JSON json_t *a = prop_json(row, old);
		AUTO_JSON json_t *b = prop_json(row, new);

		if (row->type >= PROP_DISKS || (row->set & PAYLOAD_ONLY))
			continue;
		if (row->type == PROP_MAP)
			maps(c, row, a, b);
		else if (a && b ? !json_equal(a, b) : a != b)
			add(c, row, xasprintf("%s%s", prefix, row->name), a, b);
	}
}

/* The path or MAC of an element, its name where it has none. */
static const char *key_of(const struct prop_table *t, void *el)
{
	const char *key = *(char **)row_at(prop_find(t, t->key, false), el);

	return key ? key : *elem_name(t, el);
}

static void *by_key(const struct elem_list *list, const struct prop_table *t, const char *key)
{
	for (size_t i = 0; i < list->count; i++) {
		if (str_eq(key_of(t, list->items[i]), key))
			return list->items[i];
	}
	return NULL;
}

static void whole(struct vm_changes *c, const struct prop *row, void *el, bool added)
{
	const struct prop_table *t = row_elements(row);
	AUTO_JSON json_t *j = props_json(t, el, true);
	char *path = xasprintf("%s[%s]", row->name, key_of(t, el));

	add(c, row, path, added ? NULL : j, added ? j : NULL);
}

static void elements(struct vm_changes *c, const struct prop *row, const struct vm *old,
		     const struct vm *new)
{
	const struct prop_table *t = row_elements(row);
	struct elem_list a = vm_elements(old, t), b = vm_elements(new, t);

	for (size_t i = 0; i < a.count; i++) {
		const char *key = key_of(t, a.items[i]);
		void *other = by_key(&b, t, key);
		AUTO_FREE char *prefix = xasprintf("%s[%s].", row->name, key);

		if (other)
			members(c, t, a.items[i], other, prefix);
		else
			whole(c, row, a.items[i], false);
	}
	for (size_t i = 0; i < b.count; i++) {
		if (!by_key(&a, t, key_of(t, b.items[i])))
			whole(c, row, b.items[i], true);
	}
}

void vm_changes_of(const struct vm *old, const struct vm *new, struct vm_changes *ret)
{
	struct vm_changes c = {0};

	members(&c, &vm_props, old, new, "");
	for (size_t i = 0; i < vm_props.count; i++) {
		if (row_elements(&vm_props.rows[i]))
			elements(&c, &vm_props.rows[i], old, new);
	}
	*ret = c;
}

static size_t size_of(const struct prop *row)
{
	switch (row->type) {
	case PROP_STR:
		return sizeof(char *);
	case PROP_BOOL:
		return sizeof(bool);
	case PROP_U32:
	case PROP_I32:
		return sizeof(uint32_t);
	case PROP_U64:
	case PROP_MS:
		return sizeof(uint64_t);
	case PROP_ENUM:
		return sizeof(enum vm_accel);
	case PROP_LIST:
		return sizeof(struct str_list);
	case PROP_MAP:
		return sizeof(json_t *);
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
	case PROP_RUNTIME:
		return 0;
	}
	return 0;
}

static void swap_bytes(char *a, char *b, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char kept = a[i];

		a[i] = b[i];
		b[i] = kept;
	}
}

/* Each value goes over from a copy, which takes the old one with it to its end. */
static void take_rows(const struct prop_table *t, void *el, void *from)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];

		if (row->set & LIVE)
			swap_bytes(row_at(row, el), row_at(row, from), size_of(row));
	}
}

void vm_take_live(struct vm *vm, const struct vm *now)
{
	AUTO_VM struct vm *from = vm_copy(now);

	take_rows(&vm_props, vm, from);
	for (size_t i = 0; i < vm->nnics; i++) {
		for (size_t k = 0; k < from->nnics; k++) {
			if (str_eq(vm->nics[i]->mac, from->nics[k]->mac))
				take_rows(&nic_props, vm->nics[i], from->nics[k]);
		}
	}
	vm->owner_uid = now->owner_uid;
	vm->group_gid = now->group_gid;
}
