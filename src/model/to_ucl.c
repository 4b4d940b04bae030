/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM as a definition: a whole new file, or the edits that turn one definition into another.
 * Values are written so that reading them gives exactly the member again.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/rows.h"
#include "ucl/edit.h"

/* Rows that a definition file may hold. */
static bool is_stored(const struct prop *row)
{
	return row->type < PROP_DISKS && row->type != PROP_MAP && !(row->set & PAYLOAD_ONLY) &&
	       (row->set & (ON_CREATE | BY_HAND));
}

static void put_quoted(struct strbuf *sb, const char *text)
{
	AUTO_FREE char *quoted = ucl_quote(text);

	strbuf_puts(sb, quoted);
}

static void put_list(struct strbuf *sb, const struct str_list *list)
{
	strbuf_putc(sb, '[');
	for (size_t i = 0; i < list->count; i++) {
		strbuf_puts(sb, i ? ", " : " ");
		put_quoted(sb, list->items[i]);
	}
	strbuf_puts(sb, " ]");
}

static void put_time(struct strbuf *sb, uint64_t ms)
{
	if (ms % 1000 == 0)
		strbuf_printf(sb, "%" PRIu64 "s", ms / 1000);
	else
		strbuf_printf(sb, "%" PRIu64 "ms", ms);
}

static void put_value(struct strbuf *sb, const struct prop *row, const void *el)
{
	AUTO_FREE char *text = NULL;

	if (row->type == PROP_LIST) {
		put_list(sb, row_at(row, el));
	} else if (row->type == PROP_MS) {
		put_time(sb, *(const uint64_t *)row_at(row, el));
	} else if (row->type == PROP_BOOL) {
		strbuf_puts(sb, *(const bool *)row_at(row, el) ? "yes" : "no");
	} else {
		text = prop_text(row, el);
		if (row->type == PROP_STR || row->type == PROP_ENUM)
			put_quoted(sb, text);
		else
			strbuf_puts(sb, text);
	}
}

/* Keys that are not plain words are quoted: a uuid may look like a number. */
static void put_key(struct strbuf *sb, const char *key)
{
	bool bare = isalpha((unsigned char)*key);

	for (const char *c = key; *c && bare; c++)
		bare = isalnum((unsigned char)*c) || *c == '_' || *c == '-';
	if (bare)
		strbuf_puts(sb, key);
	else
		put_quoted(sb, key);
}

/* The section is folded to lower case when read. */
static bool needs_name(const struct prop_table *t, const struct prop *row, const void *el)
{
	const char *name = *(char *const *)row_at(row, el);

	if (!str_eq(row->name, "name") || !name)
		return false;
	for (const char *c = name; *c; c++) {
		if (isupper((unsigned char)*c))
			return true;
	}
	return false;
}

/* Each member between before and after. */
static void put_members(struct strbuf *sb, const struct prop_table *t, const void *el,
			const char *before, const char *after)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];

		if (!is_stored(row))
			continue;
		if (str_eq(row->name, "name") ? !needs_name(t, row, el)
					      : !prop_given(t, elem_given(t, el), row))
			continue;
		if (row->type == PROP_STR && !*(char *const *)row_at(row, el))
			continue;
		strbuf_printf(sb, "%s%s = ", before, row->name);
		put_value(sb, row, el);
		strbuf_puts(sb, after);
	}
}

char *vm_to_ucl(const struct vm *vm)
{
	struct strbuf sb = {0};

	put_key(&sb, vm->name);
	strbuf_puts(&sb, " {\n");
	put_members(&sb, &vm_props, vm, "\t", ";\n");
	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];
		const struct prop_table *t = row_elements(row);
		struct elem_list list = {0};

		if (t)
			list = vm_elements(vm, t);
		for (size_t k = 0; k < list.count; k++) {
			strbuf_printf(&sb, "\t%s ", row->ucl);
			put_key(&sb, *elem_name(t, list.items[k]));
			strbuf_puts(&sb, " {\n");
			put_members(&sb, t, list.items[k], "\t\t", ";\n");
			strbuf_puts(&sb, "\t}\n");
		}
	}
	strbuf_puts(&sb, "}\n");
	return strbuf_steal(&sb);
}

/* --- edits --- */

#define PATH_MAX_KEYS 5

/* Takes value. keys: up to three below the section, NULL where the path ends. */
static void add_edit(struct vm_edits *e, enum ucl_edit_op op, const char *section,
		     const char *const keys[3], char *value)
{
	char **path = xcalloc(PATH_MAX_KEYS, sizeof(*path));

	path[0] = xstrdup(section);
	for (size_t i = 0; i < 3 && keys[i]; i++)
		path[i + 1] = xstrdup(keys[i]);
	e->items = xrealloc(e->items, (e->count + 1) * sizeof(*e->items));
	e->items[e->count++] =
		(struct ucl_edit){.op = op, .path = (const char *const *)path, .value = value};
}

void vm_edits_free(struct vm_edits *e)
{
	for (size_t i = 0; i < e->count; i++) {
		char **path = (char **)e->items[i].path;

		for (size_t k = 0; path[k]; k++)
			free(path[k]);
		free(path);
		free((char *)e->items[i].value);
	}
	free(e->items);
	*e = (struct vm_edits){0};
}

/* prefix: the element's two keys, or NULLs for the VM itself. */
static void edit_members(struct vm_edits *e, const struct prop_table *t, const void *old,
			 const void *new, const char *section, const char *const prefix[2])
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];
		bool was = prop_given(t, elem_given(t, old), row);
		bool is = prop_given(t, elem_given(t, new), row);
		const char *key = elem_spelling(t, old, row);
		const char *const keys[3] = {prefix[0] ? prefix[0] : key, prefix[1],
					     prefix[0] ? key : NULL};
		struct strbuf value = {0};

		if (!is_stored(row) || (!was && !is) || (was && is && prop_same(row, old, new)))
			continue;
		if (prefix[0] && str_eq(row->name, "name") && !needs_name(t, row, new))
			continue; /* the section says it */
		if (is && !(row->type == PROP_STR && !*(char *const *)row_at(row, new))) {
			put_value(&value, row, new);
			add_edit(e, UCL_EDIT_SET, section, keys, strbuf_steal(&value));
		} else if (was) {
			add_edit(e, UCL_EDIT_REMOVE, section, keys, NULL);
		}
	}
}

/* The same element in another copy of the VM: it has the same place in the file. */
static void *at_place(const struct vm *vm, const struct prop_table *t, const struct str_list *place)
{
	struct elem_list list = vm_elements(vm, t);

	for (size_t i = 0; i < list.count; i++) {
		const struct str_list *at = elem_ucl_path(t, list.items[i]);

		if (at->count == 2 && place->count == 2 && str_eq(at->items[0], place->items[0]) &&
		    str_eq(at->items[1], place->items[1]))
			return list.items[i];
	}
	return NULL;
}

/* Last ones first: numbers of those before stay right when an element of an array goes. */
static void edit_old_elements(struct vm_edits *e, const struct prop_table *t, const struct vm *old,
			      const struct vm *new, const char *section)
{
	struct elem_list a = vm_elements(old, t);

	for (size_t i = a.count; i-- > 0;) {
		const struct str_list *at = elem_ucl_path(t, a.items[i]);
		void *other = at_place(new, t, at);

		if (at->count < 2)
			continue;
		if (!other)
			add_edit(e, UCL_EDIT_REMOVE, section,
				 (const char *const[]){at->items[0], at->items[1], NULL}, NULL);
		else
			edit_members(e, t, a.items[i], other, section,
				     (const char *const[]){at->items[0], at->items[1]});
	}
}

/* Elements that came from elsewhere than the definition, a configfile, are in both. */
static bool at_configfile(const struct vm *old, const struct prop_table *t, const char *name)
{
	long index = vm_element_named(old, t, name);

	return index >= 0 && elem_ucl_path(t, vm_elements(old, t).items[index])->count == 0;
}

static void edit_new_elements(struct vm_edits *e, const struct prop *row, const struct vm *old,
			      const struct vm *new, const char *section)
{
	const struct prop_table *t = row_elements(row);
	struct elem_list b = vm_elements(new, t);

	for (size_t i = 0; i < b.count; i++) {
		const char *name = *elem_name(t, b.items[i]);
		struct strbuf value = {0};

		if (elem_ucl_path(t, b.items[i])->count > 0 || at_configfile(old, t, name))
			continue;
		strbuf_putc(&value, '{');
		put_members(&value, t, b.items[i], " ", ";");
		strbuf_puts(&value, " }");
		add_edit(e, UCL_EDIT_SET, section, (const char *const[]){row->ucl, name, NULL},
			 strbuf_steal(&value));
	}
}

void vm_edits(const struct vm *old, const struct vm *new, const char *section, struct vm_edits *ret)
{
	struct vm_edits e = {0};

	edit_members(&e, &vm_props, old, new, section, (const char *const[]){NULL, NULL});
	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];

		if (!row_elements(row))
			continue;
		edit_old_elements(&e, row_elements(row), old, new, section);
		edit_new_elements(&e, row, old, new, section);
	}
	*ret = e;
}
