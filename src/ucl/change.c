/* SPDX-License-Identifier: Apache-2.0 */
/* Did an edit do what was meant, and nothing else? See change.h. */
#include "ucl/change.h"

#include <string.h>

static bool same(const struct ucl_value *old, const struct ucl_value *new,
		 const struct ucl_change *c);

struct ucl_repeats ucl_repeats_of(struct ucl_value *const *at)
{
	const struct ucl_value *v = *at;

	if (v->type == UCL_ARRAY && v->implicit)
		return (struct ucl_repeats){v->items, v->count};
	return (struct ucl_repeats){at, 1};
}

/* extra: what new has to hold behind everything of old; may be NULL. */
static bool same_list(struct ucl_repeats old, struct ucl_repeats new, const struct ucl_change *c,
		      const struct ucl_value *extra)
{
	size_t j = 0;

	for (size_t i = 0; i < old.count; i++) {
		if (c->kind == UCL_CHANGE_REMOVE && old.items[i] == c->target)
			continue;
		if (j >= new.count || !same(old.items[i], new.items[j++], c))
			return false;
	}
	if (extra && (j >= new.count || !ucl_equal(extra, new.items[j++])))
		return false;
	return j == new.count;
}

/* The member of obj; most likely number i. */
static struct ucl_value *const *member(const struct ucl_value *obj, size_t i, const char *key)
{
	if (i < obj->count && strcmp(obj->keys[i], key) == 0)
		return &obj->items[i];
	for (i = 0; i < obj->count; i++)
		if (strcmp(obj->keys[i], key) == 0)
			return &obj->items[i];
	return NULL;
}

static bool same_object(const struct ucl_value *old, const struct ucl_value *new,
			const struct ucl_change *c)
{
	bool add = c->kind == UCL_CHANGE_ADD && c->target == old;
	struct ucl_value *const *other;
	size_t seen = 0;

	for (size_t i = 0; i < old->count; i++) {
		struct ucl_repeats repeats = ucl_repeats_of(&old->items[i]);
		const struct ucl_value *extra = NULL;

		if (c->kind == UCL_CHANGE_REMOVE && repeats.count == 1 &&
		    repeats.items[0] == c->target)
			continue;
		if (add && strcmp(c->key, old->keys[i]) == 0) {
			extra = c->value;
			add = false;
		}
		other = member(new, seen++, old->keys[i]);
		if (!other || !same_list(repeats, ucl_repeats_of(other), c, extra))
			return false;
	}
	if (add) {
		other = member(new, seen++, c->key);
		if (!other || !ucl_equal(*other, c->value))
			return false;
	}
	return seen == new->count;
}

static bool same(const struct ucl_value *old, const struct ucl_value *new,
		 const struct ucl_change *c)
{
	bool append = c->kind == UCL_CHANGE_APPEND && c->target == old;

	if (c->kind == UCL_CHANGE_REPLACE && c->target == old)
		return ucl_equal(new, c->value);
	if (old->type != UCL_OBJECT && old->type != UCL_ARRAY)
		return ucl_equal(old, new);
	if (old->type != new->type)
		return false;
	if (old->type == UCL_OBJECT)
		return same_object(old, new, c);
	return same_list((struct ucl_repeats){old->items, old->count},
			 (struct ucl_repeats){new->items, new->count}, c, append ? c->value : NULL);
}

bool ucl_change_is(const struct ucl_value *old, const struct ucl_value *new,
		   const struct ucl_change *change)
{
	return same(old, new, change);
}
