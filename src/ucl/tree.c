/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of objects while they are read: the rule of repeated keys, and an index that keeps
 * objects with very many keys from taking quadratic time.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "ucl/parse.h"

#define INDEX_FROM 16u /* members; fewer are searched one by one */

struct ucl_index_entry {
	const struct ucl_value *obj; /* NULL: free */
	size_t member;
};

static size_t hash_of(const struct ucl_value *obj, const char *key)
{
	uint64_t h = 14695981039346656037u ^ ((uintptr_t)obj >> 4);

	for (const unsigned char *p = (const unsigned char *)key; *p; p++)
		h = (h ^ *p) * 1099511628211u;
	return (size_t)(h ^ (h >> 32));
}

/* The entry of obj's key, or the free one where it belongs. */
static struct ucl_index_entry *entry_of(const struct ucl_index *index, const struct ucl_value *obj,
					const char *key)
{
	size_t at = hash_of(obj, key);

	for (;; at++) {
		struct ucl_index_entry *e = &index->entries[at & (index->size - 1)];

		if (!e->obj || (e->obj == obj && strcmp(obj->keys[e->member], key) == 0))
			return e;
	}
}

static void index_add(struct ucl_index *index, const struct ucl_value *obj, size_t member)
{
	struct ucl_index old = *index;

	if (2 * (old.used + 1) > old.size) {
		index->size = old.size ? 2 * old.size : (size_t)8 * INDEX_FROM;
		index->entries = xcalloc(index->size, sizeof(*index->entries));
		for (size_t i = 0; i < old.size; i++) {
			const struct ucl_index_entry *e = &old.entries[i];

			if (e->obj)
				*entry_of(index, e->obj, e->obj->keys[e->member]) = *e;
		}
		free(old.entries);
	}
	*entry_of(index, obj, obj->keys[member]) = (struct ucl_index_entry){obj, member};
	index->used++;
}

void ucl_index_done(struct ucl_index *index)
{
	free(index->entries);
	*index = (struct ucl_index){0};
}

static struct ucl_value **find(const struct ucl_index *index, const struct ucl_value *obj,
			       const char *key)
{
	const struct ucl_index_entry *e;

	if (obj->count >= INDEX_FROM) {
		e = entry_of(index, obj, key);
		return e->obj ? &obj->items[e->member] : NULL;
	}
	for (size_t i = 0; i < obj->count; i++)
		if (strcmp(obj->keys[i], key) == 0)
			return &obj->items[i];
	return NULL;
}

static bool is_list(const struct ucl_value *v)
{
	return v->type == UCL_ARRAY && !v->implicit;
}

/* libucl keeps both of `a = [1]; a = [2]` but shows the first only; we refuse to guess. */
static int repeat(struct ucl_parser *ps, struct ucl_value **at, const char *key,
		  struct ucl_value *v)
{
	struct ucl_value *old = *at;
	struct ucl_value *all = old;

	if (is_list(old) || is_list(v))
		return ucl_fault(ps, EINVAL, ps->src->text + v->start,
				 "key '%s' is given again, and one of the values is an array "
				 "(first at %s:%d); write one array",
				 key, old->key.file, old->key.line);
	if (!old->implicit) {
		all = ucl_alloc(ps->doc, sizeof(*all));
		all->type = UCL_ARRAY;
		all->implicit = true;
		all->pos = old->pos;
		all->key = old->key;
		all->start = old->start;
		all->end = old->end;
		ucl_array_add(ps->doc, all, old);
		*at = all;
	}
	ucl_array_add(ps->doc, all, v);
	return 0;
}

int ucl_add_member(struct ucl_parser *ps, struct ucl_value *obj, const char *key,
		   struct ucl_value *v)
{
	struct ucl_value **old = find(&ps->index, obj, key);

	if (old)
		return repeat(ps, old, key, v);
	obj->keys = ucl_grow(ps->doc, obj->keys, obj->count);
	obj->items = ucl_grow(ps->doc, obj->items, obj->count);
	obj->keys[obj->count] = key;
	obj->items[obj->count++] = v;
	if (obj->count == INDEX_FROM)
		for (size_t i = 0; i < INDEX_FROM; i++)
			index_add(&ps->index, obj, i);
	else if (obj->count > INDEX_FROM)
		index_add(&ps->index, obj, obj->count - 1);
	return 0;
}
