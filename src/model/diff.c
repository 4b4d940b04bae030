/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differences of two VM objects as the change entries of vminfod's events.
 *
 * Objects: the old one's members in its order (removed, changed, or compared within), then those
 * only the new one has. Arrays compare as sets: what was removed, then, in arrays whose elements
 * have a key, what changed within elements of equal key, then what was added. Values are compared
 * by structure, so an order of keys is never a change, and null beside an object is a change like
 * any other. Source: vminfod's event stream; examples E1-E14 in test_model_diff.c.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/props.h"

#define DIFF_DEPTH_MAX 64 /* deeper values are compared as a whole */

struct diff {
	json_t *out;
	const char *path[DIFF_DEPTH_MAX + 2]; /* NULL: some element of this array */
	size_t depth;
	const json_t *ident; /* of the keyed element we are in; NULL outside or without key */
};

static bool is_object_kind(const json_t *j)
{
	return json_is_object(j) || json_is_array(j) || json_is_null(j);
}

static bool same(const json_t *a, const json_t *b, unsigned depth);

static bool same_objects(const json_t *a, const json_t *b, unsigned depth)
{
	const char *key;
	json_t *value;

	if (json_object_size(a) != json_object_size(b))
		return false;
	json_object_foreach ((json_t *)a, key, value) {
		const json_t *other = json_object_get(b, key);

		if (!other || !same(value, other, depth + 1))
			return false;
	}
	return true;
}

/* As json_equal, but 1 and 1.0 are the same number, as they are to readers of the stream. */
static bool same(const json_t *a, const json_t *b, unsigned depth)
{
	if (a == b)
		return true;
	if (json_is_number(a) && json_is_number(b))
		return json_is_integer(a) && json_is_integer(b)
			       ? json_integer_value(a) == json_integer_value(b)
			       : json_number_value(a) == json_number_value(b);
	if (json_typeof(a) != json_typeof(b))
		return false;
	if (depth > DIFF_DEPTH_MAX)
		return json_equal(a, b);
	if (json_is_object(a))
		return same_objects(a, b, depth);
	if (!json_is_array(a))
		return json_equal(a, b);
	if (json_array_size(a) != json_array_size(b))
		return false;
	for (size_t i = 0; i < json_array_size(a); i++) {
		if (!same(json_array_get(a, i), json_array_get(b, i), depth + 1))
			return false;
	}
	return true;
}

static void put_pretty(struct strbuf *sb, const char *part)
{
	if (!part)
		part = "*";
	if (!strpbrk(part, ".[]")) {
		if (sb->len)
			strbuf_putc(sb, '.');
		strbuf_puts(sb, part);
		return;
	}
	strbuf_putc(sb, '[');
	for (; *part; part++) {
		if (*part == '[' || *part == ']')
			strbuf_putc(sb, '\\');
		strbuf_putc(sb, *part);
	}
	strbuf_putc(sb, ']');
}

/* One change entry at the current path; old or new may be NULL. */
static void emit(struct diff *d, const char *action, const json_t *old, const json_t *new)
{
	AUTO_STRBUF struct strbuf pretty = {0};
	json_t *entry = json_object(), *path = json_array();

	for (size_t i = 0; i < d->depth; i++) {
		put_pretty(&pretty, d->path[i]);
		(void)json_array_append_new(path,
					    d->path[i] ? json_string(d->path[i]) : json_null());
	}
	(void)json_object_set_new(entry, "prettyPath", json_string(pretty.len ? pretty.data : ""));
	(void)json_object_set_new(entry, "path", path);
	(void)json_object_set_new(entry, "action", json_string(action));
	if (old)
		(void)json_object_set(entry, "oldValue", (json_t *)old);
	if (new)
		(void)json_object_set(entry, "newValue", (json_t *)new);
	if (d->ident)
		(void)json_object_set(entry, "ident", (json_t *)d->ident);
	(void)json_array_append_new(d->out, entry);
}

static void walk(struct diff *d, const json_t *old, const json_t *new);

/* The identifying member of elements of this array, NULL where elements have none. */
static const char *key_here(const struct diff *d)
{
	if (d->depth != 1 || !d->path[0])
		return NULL;
	if (strcmp(d->path[0], disk_props.what) == 0)
		return disk_props.key;
	return strcmp(d->path[0], nic_props.what) == 0 ? nic_props.key : NULL;
}

/* Elements of a that are nowhere in b; the caller frees. Linear when little changed. */
static const json_t **only_in(const json_t *a, const json_t *b, size_t *ret_count)
{
	size_t na = json_array_size(a), nb = json_array_size(b), n = 0;
	const json_t **list = xcalloc(na + 1, sizeof(*list));

	for (size_t i = 0; i < na; i++) {
		const json_t *item = json_array_get(a, i);
		bool found = i < nb && same(item, json_array_get(b, i), 0);

		for (size_t j = 0; j < nb && !found; j++)
			found = same(item, json_array_get(b, j), 0);
		if (!found)
			list[n++] = item;
	}
	*ret_count = n;
	return list;
}

static bool same_key(const json_t *a, const json_t *b, const char *key)
{
	const json_t *ka = json_object_get(a, key), *kb = json_object_get(b, key);

	if (!json_is_object(a) || !json_is_object(b))
		return false;
	return ka && kb ? same(ka, kb, 0) : ka == kb;
}

/* Pair elements of equal key: partner[i] is the index in added, or SIZE_MAX. */
static void pair_up(const json_t *const *removed, size_t nremoved, const json_t *const *added,
		    size_t nadded, const char *key, size_t *partner)
{
	bool *taken = xcalloc(nadded + 1, sizeof(*taken));

	for (size_t i = 0; i < nremoved; i++) {
		partner[i] = SIZE_MAX;
		for (size_t j = 0; key && j < nadded && partner[i] == SIZE_MAX; j++) {
			if (!taken[j] && same_key(removed[i], added[j], key)) {
				taken[j] = true;
				partner[i] = j;
			}
		}
	}
	free(taken);
}

static void walk_arrays(struct diff *d, const json_t *old, const json_t *new)
{
	const char *key = key_here(d);
	size_t nremoved, nadded;
	AUTO_FREE const json_t **removed = only_in(old, new, &nremoved);
	AUTO_FREE const json_t **added = only_in(new, old, &nadded);
	AUTO_FREE size_t *partner = xcalloc(nremoved + 1, sizeof(*partner));

	pair_up(removed, nremoved, added, nadded, key, partner);
	d->path[d->depth++] = NULL;
	for (size_t i = 0; i < nremoved; i++) {
		if (partner[i] == SIZE_MAX)
			emit(d, "removed", removed[i], NULL);
	}
	for (size_t i = 0; i < nremoved; i++) {
		if (partner[i] == SIZE_MAX)
			continue;
		d->ident = json_object_get(removed[i], key);
		walk(d, removed[i], added[partner[i]]);
		d->ident = NULL;
		added[partner[i]] = NULL;
	}
	for (size_t i = 0; i < nadded; i++) {
		if (added[i])
			emit(d, "added", NULL, added[i]);
	}
	d->depth--;
}

static void compare_member(struct diff *d, const char *key, const json_t *old, const json_t *new)
{
	d->path[d->depth++] = key;
	if (!new)
		emit(d, "removed", old, NULL);
	else if (!old)
		emit(d, "added", NULL, new);
	else
		walk(d, old, new);
	d->depth--;
}

static void walk_objects(struct diff *d, const json_t *old, const json_t *new)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)old, key, value)
		compare_member(d, key, value, json_object_get(new, key));
	json_object_foreach ((json_t *)new, key, value) {
		if (!json_object_get(old, key))
			compare_member(d, key, NULL, value);
	}
}

/* An array as the object of its indices, for an array beside an object. Caller owns it. */
static json_t *as_object(const json_t *j)
{
	json_t *object = json_object();

	for (size_t i = 0; i < json_array_size(j); i++) {
		AUTO_FREE char *index = xasprintf("%zu", i);

		(void)json_object_set(object, index, json_array_get(j, i));
	}
	return object;
}

static void walk(struct diff *d, const json_t *old, const json_t *new)
{
	if (same(old, new, 0))
		return;
	if (!is_object_kind(old) || !is_object_kind(new) || json_is_null(old) ||
	    json_is_null(new) || d->depth >= DIFF_DEPTH_MAX) {
		emit(d, "changed", old, new);
	} else if (json_is_array(old) && json_is_array(new)) {
		walk_arrays(d, old, new);
	} else if (json_is_object(old) && json_is_object(new)) {
		walk_objects(d, old, new);
	} else if (json_is_array(old)) {
		AUTO_JSON json_t *object = as_object(old);

		walk_objects(d, object, new);
	} else {
		AUTO_JSON json_t *object = as_object(new);

		walk_objects(d, old, object);
	}
}

json_t *vm_diff(const json_t *old, const json_t *new)
{
	struct diff d = {.out = json_array()};

	if (old && new)
		walk(&d, old, new);
	return d.out;
}
