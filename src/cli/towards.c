/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way from one VM object to another as an update payload; see now.h. Only what differs is in
 * it, so that two people who edit different members at once do not undo each other.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/now.h"
#include "model/props.h"

/* Put value as "<op>_<name>" unless it is empty. Takes value. */
static void put_op(json_t *out, const char *op, const char *name, json_t *value)
{
	AUTO_JSON json_t *owned = value;
	AUTO_FREE char *key = xasprintf("%s_%s", op, name);

	if (json_is_array(owned) ? json_array_size(owned) : json_object_size(owned))
		(void)json_object_set(out, key, owned);
}

static void map_towards(json_t *out, const char *name, const json_t *now, const json_t *wanted)
{
	json_t *set = json_object(), *removed = json_array(), *value;
	const char *key;

	json_object_foreach ((json_t *)wanted, key, value)
		if (!json_equal(json_object_get(now, key), value))
			(void)json_object_set(set, key, value);
	json_object_foreach ((json_t *)now, key, value)
		if (!json_object_get(wanted, key))
			(void)json_array_append_new(removed, json_string(key));
	put_op(out, "set", name, set);
	put_op(out, "remove", name, removed);
}

/* The element of array with the same key; NULL. */
static json_t *same_element(const json_t *array, const char *key, const json_t *like)
{
	const char *want = json_get_str(like, key, NULL);
	json_t *one;
	size_t i;

	json_array_foreach ((json_t *)array, i, one)
		if (want && str_eq(json_get_str(one, key, NULL), want))
			return one;
	return NULL;
}

/* Members that differ, and the key; all: those that went as null. NULL when nothing differs. */
static json_t *element_towards(const char *key, const json_t *now, const json_t *wanted, bool all)
{
	json_t *out = json_object(), *value;
	const char *name;

	json_object_foreach ((json_t *)wanted, name, value)
		if (!json_equal(json_object_get(now, name), value))
			(void)json_object_set(out, name, value);
	json_object_foreach ((json_t *)now, name, value)
		if (all && !json_object_get(wanted, name))
			(void)json_object_set_new(out, name, json_null());
	if (json_object_size(out) == 0) {
		json_decref(out);
		return NULL;
	}
	json_put_str(out, key, json_get_str(now, key, ""));
	return out;
}

static void elements_towards(json_t *out, const struct prop_table *t, const json_t *now,
			     const json_t *wanted, bool all)
{
	json_t *add = json_array(), *update = json_array(), *removed = json_array(), *one;
	size_t i;

	json_array_foreach ((json_t *)wanted, i, one) {
		const json_t *old = same_element(now, t->key, one);
		json_t *change = old ? element_towards(t->key, old, one, all) : NULL;

		if (!old)
			(void)json_array_append(add, one);
		else if (change)
			(void)json_array_append_new(update, change);
	}
	json_array_foreach ((json_t *)now, i, one)
		if (!same_element(wanted, t->key, one))
			(void)json_array_append(removed, json_object_get(one, t->key));
	put_op(out, "remove", t->what, removed);
	put_op(out, "update", t->what, update);
	put_op(out, "add", t->what, add);
}

/* Only computed: a payload made of a whole object repeats them, whatever they were then. */
static bool is_computed(const struct prop *row)
{
	return row && row->type == PROP_RUNTIME;
}

static void member_towards(json_t *out, const json_t *now, const char *name, const json_t *value,
			   bool all)
{
	const struct prop *row = prop_find(&vm_props, name, false);
	const json_t *old = json_object_get(now, name);

	if (is_computed(row) || json_equal(old, value))
		return;
	if (row && row->type == PROP_MAP && json_is_object(value))
		map_towards(out, name, old, value);
	else if (row && row_elements(row) && row_elements(row)->key && json_is_array(value))
		elements_towards(out, row_elements(row), old, value, all);
	else
		(void)json_object_set(out, name, (json_t *)value);
}

json_t *now_towards(const json_t *now, const json_t *wanted, bool all)
{
	json_t *out = json_object(), *value;
	const char *name;

	json_object_foreach ((json_t *)wanted, name, value)
		member_towards(out, now, name, value, all);
	if (!all)
		return out;
	json_object_foreach ((json_t *)now, name, value) {
		AUTO_JSON json_t *nothing = json_is_array(value)    ? json_array()
					    : json_is_object(value) ? json_object()
								    : json_null();

		if (!json_object_get(wanted, name))
			member_towards(out, now, name, nothing, all);
	}
	return out;
}

/* Members of one element that may be changed, and what tells it apart. */
static json_t *settable_elements(const struct prop_table *t, const json_t *array)
{
	json_t *list = json_array(), *one, *value;
	const char *name;
	size_t i;

	json_array_foreach ((json_t *)array, i, one) {
		json_t *out = json_object();

		json_object_foreach (one, name, value) {
			const struct prop *row = prop_find(t, name, false);

			if (str_eq(name, t->key) || (row && (row->set & ON_UPDATE)))
				(void)json_object_set(out, name, value);
		}
		(void)json_array_append_new(list, out);
	}
	return list;
}

json_t *now_settable(const json_t *now)
{
	json_t *out = json_object(), *value;
	const char *name;

	json_object_foreach ((json_t *)now, name, value) {
		const struct prop *row = prop_find(&vm_props, name, false);

		if (!row || !(row->set & ON_UPDATE))
			continue;
		if (row_elements(row))
			(void)json_object_set_new(out, name,
						  settable_elements(row_elements(row), value));
		else
			(void)json_object_set(out, name, value);
	}
	return out;
}
