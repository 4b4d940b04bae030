/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM from its section of a definition file. Elements are written as `disk NAME { }`, once or
 * several times, as `disks { NAME { } }` or as `disks [ { } ]`; where each was found is kept for
 * edits in place. Every finding carries FILE:LINE:COLUMN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/checks.h"
#include "model/model.h"
#include "model/rows.h"
#include "model/value.h"
#include "ucl/ucl.h"

#define ROWS_MAX (64 * ARRAY_SIZE(((struct prop_set *)0)->bits))

/* One object whose keys are properties. */
struct reader {
	struct vm *vm;
	const struct prop_table *t;
	void *el;
	struct problems *p;
	const struct ucl_value *seen[ROWS_MAX]; /* where each row was first given */
};

static void problem_at(struct problems *p, const struct ucl_pos *pos, const char *key,
		       const char *text)
{
	AUTO_FREE char *where = ucl_where(pos);

	problems_add(p, PROBLEM_BAD_VALUE, where, key, "%s", text);
}

/* 'name' stands at `second`, and stood at `first` before. */
static void problem_twice(struct problems *p, const char *name, const struct ucl_pos *first,
			  const struct ucl_pos *second)
{
	AUTO_FREE char *before = ucl_where(first);
	AUTO_FREE char *v = shown(name);
	AUTO_FREE char *text =
		xasprintf("'%s' is given more than once, first at %s (want it once)", v, before);

	problem_at(p, second, v, text);
}

static bool settable(const struct prop *row)
{
	return row->type != PROP_MAP && row->type != PROP_RUNTIME && !(row->set & PAYLOAD_ONLY) &&
	       (row->set & (ON_CREATE | BY_HAND));
}

static void read_value(struct reader *r, const struct prop *row, const char *key,
		       const struct ucl_value *v)
{
	size_t bit = row_index(r->t, row);
	AUTO_FREE char *where = ucl_where(&v->pos);

	given_set(elem_given(r->t, r->el), bit, true);
	if (v->type == UCL_ARRAY && v->implicit && row->type != PROP_LIST) {
		problem_twice(r->p, key, &v->items[0]->key, &v->items[1]->key);
		return;
	}
	if (r->seen[bit]) {
		problem_twice(r->p, key, &r->seen[bit]->key, &v->key);
		return;
	}
	r->seen[bit] = v;
	elem_spelled(r->t, r->el, row, key);
	(void)slot_ucl(&(struct slot){r->t, row, r->el, where, key, r->p}, v); /* as written */
	if (row->at == offsetof(struct nic, primary) && r->t == &nic_props &&
	    !((struct nic *)r->el)->primary && v->type == UCL_BOOL)
		problem_value(r->p, where, row->name, v->raw ? v->raw : "no",
			      "says nothing (want yes on the primary NIC, nothing on the others)");
}

static void read_elements(struct reader *r, const struct prop *row, const char *key,
			  const struct ucl_value *v);

static void read_members(struct reader *r, const struct ucl_value *v)
{
	for (size_t i = 0; i < v->count; i++) {
		const char *key = v->keys[i];
		const struct prop *row = prop_find(r->t, key, true);

		if (!row || !settable(row)) {
			AUTO_FREE char *where = ucl_where(&v->items[i]->key);

			problem_unknown(r->t, key, true, where, key, r->p);
		} else if (row_elements(row)) {
			read_elements(r, row, key, v->items[i]);
		} else {
			read_value(r, row, key, v->items[i]);
		}
	}
}

/* --- elements --- */

/*
 * In `disks [ ... ]` only the place would be left to tell disks apart: removing the first would
 * hand its file to the second.
 */
static void check_identity(const struct disk *d, const struct ucl_value *v, struct problems *p)
{
	AUTO_FREE char *where = ucl_where(&v->pos);

	if (!DISK_GIVEN(d, name) && !DISK_GIVEN(d, path))
		problems_add(p, PROBLEM_MISSING, where, disk_props.what,
			     "this disk has neither name nor path (want one of them)");
}

static void read_element(struct reader *parent, const struct prop *row, const char *name,
			 const struct ucl_value *v, const char *const path[2])
{
	const struct prop_table *t = row_elements(row);
	struct reader r = {.vm = parent->vm, .t = t, .p = parent->p};
	AUTO_FREE char *text = NULL;

	if (v->type != UCL_OBJECT) {
		text = xasprintf("has %s (want %s NAME { ... })", ucl_type_name(v->type), row->ucl);
		problem_at(parent->p, &v->pos, row->name, text);
		return;
	}
	r.el = vm_add_element(parent->vm, t);
	if (!r.el) {
		text = xasprintf("one %s too many (want at most %zu)", t->one,
				 vm_elements(parent->vm, t).count);
		problem_at(parent->p, &v->key, row->name, text);
		return;
	}
	for (int i = 0; i < 2; i++)
		str_list_add(elem_ucl_path(t, r.el), path[i]);
	if (name) {
		AUTO_FREE char *where = ucl_where(&v->key);

		check_name(name, where, "name", parent->p);
		*elem_name(t, r.el) = xstrdup(name);
	}
	read_members(&r, v);
	if (!name && t == &disk_props)
		check_identity(r.el, v, parent->p);
}

/* `disk NAME { }`: the members of the value are the elements. */
static void read_named(struct reader *r, const struct prop *row, const char *key,
		       const struct ucl_value *v)
{
	const struct prop_table *t = row_elements(row);

	for (size_t i = 0; i < v->count; i++) {
		const struct ucl_value *item = v->items[i];
		long before = vm_element_named(r->vm, t, v->keys[i]);
		AUTO_FREE char *text = NULL;

		if (item->type == UCL_ARRAY && item->implicit) {
			problem_twice(r->p, v->keys[i], &item->items[0]->key, &item->items[1]->key);
		} else if (before >= 0) {
			text = xasprintf("'%s' is the name of another %s of this VM (want another)",
					 v->keys[i], t->one);
			problem_at(r->p, &item->key, row->name, text);
		} else if (item->type != UCL_OBJECT) {
			text = xasprintf(
				"'%s' stands in a %s without a name (want %s NAME { %s ... })",
				v->keys[i], t->one, row->ucl, v->keys[i]);
			problem_at(r->p, &item->key, row->name, text);
		} else {
			read_element(r, row, v->keys[i], item,
				     (const char *const[]){key, v->keys[i]});
		}
	}
}

static void read_elements(struct reader *r, const struct prop *row, const char *key,
			  const struct ucl_value *v)
{
	if (v->type == UCL_OBJECT) {
		read_named(r, row, key, v);
	} else if (v->type == UCL_ARRAY && v->implicit) {
		for (size_t i = 0; i < v->count; i++)
			read_elements(r, row, key, v->items[i]);
	} else if (v->type == UCL_ARRAY) {
		for (size_t i = 0; i < v->count; i++) {
			AUTO_FREE char *index = xasprintf("%zu", i);

			read_element(r, row, NULL, v->items[i], (const char *const[]){key, index});
		}
	} else {
		AUTO_FREE char *text = xasprintf("'%s' has %s (want %s NAME { ... })", key,
						 ucl_type_name(v->type), row->ucl);

		problem_at(r->p, &v->pos, row->name, text);
	}
}

/* --- the VM --- */

static const char *base_name(const char *dir)
{
	const char *slash = strrchr(dir, '/');

	return slash ? slash + 1 : dir;
}

static void identify(struct vm *vm, const char *section, const struct ucl_value *value,
		     const char *ns, struct problems *p)
{
	if (!vm->name) {
		AUTO_FREE char *where = ucl_where(&value->key);

		check_name(section, where, "name", p);
		vm->name = xstrdup(section);
	}
	if (!vm->uuid) {
		AUTO_FREE char *seed =
			xasprintf("%s/%s", vm->dir ? base_name(vm->dir) : "", section);
		char uuid[UUID_LEN + 1];

		uuid_derive(ns, seed, uuid);
		vm->uuid = xstrdup(uuid);
	}
	vm->made_by_us = vm->dir && str_eq(base_name(vm->dir), vm->uuid);
}

struct vm *vm_from_ucl(const char *section, const struct ucl_value *value, const char *ns,
		       const char *dir, struct problems *p)
{
	struct vm *vm = vm_new();
	struct reader r = {.vm = vm, .t = &vm_props, .el = vm, .p = p};

	vm->file = xstrdup(value->key.file);
	vm->line = value->key.line;
	vm->dir = xstrdup(dir);
	if (value->type == UCL_OBJECT) {
		read_members(&r, value);
	} else if (value->type == UCL_ARRAY && value->implicit) {
		problem_twice(p, section, &value->items[0]->key, &value->items[1]->key);
	} else {
		AUTO_FREE char *v = shown(section);
		AUTO_FREE char *text = xasprintf("'%s' is %s (want a section: %s { ... })", v,
						 ucl_type_name(value->type), v);

		problem_at(p, &value->key, v, text);
	}
	identify(vm, section, value, ns, p);
	return vm;
}
