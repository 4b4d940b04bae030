/* SPDX-License-Identifier: Apache-2.0 */
/* VM objects as text; see text.h. */
#include "vminfod/text.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/props.h"

/* p is at a quote; returns what follows the closing one. */
static const char *past_string(const char *p)
{
	for (p++; *p && *p != '"'; p++) {
		if (*p == '\\' && p[1])
			p++;
	}
	return *p ? p + 1 : p;
}

/* Behind the value at p: at a comma or closing brace of its own level. */
static const char *past_value(const char *p)
{
	int depth = 0;

	while (*p) {
		if (*p == '"') {
			p = past_string(p);
			continue;
		}
		if (depth == 0 && (*p == ',' || *p == '}' || *p == ']'))
			return p;
		if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
			depth--;
		p++;
	}
	return p;
}

static size_t scan_members(const char *data, struct member *members)
{
	const char *p = data + 1;
	size_t n = 0;

	while (*p == '"' && n < UINT16_MAX) {
		const char *key = p;

		p = past_string(p);
		if (members)
			members[n] = (struct member){.start = (uint32_t)(key - data),
						     .key_len = (uint16_t)(p - key - 2)};
		p = past_value(*p ? p + 1 : p);
		if (members)
			members[n].end = (uint32_t)(p - data);
		n++;
		if (*p == ',')
			p++;
	}
	return n;
}

void text_done(struct text *t)
{
	free(t->data);
	free(t->members);
	*t = (struct text){0};
}

void text_set(struct text *t, char *data)
{
	size_t n = scan_members(data, NULL);

	text_done(t);
	t->data = data;
	t->len = (uint32_t)strlen(data);
	t->members = xcalloc(n ? n : 1, sizeof(*t->members));
	t->nmembers = (uint16_t)scan_members(data, t->members);
}

bool fields_parse(const char *list, struct fields *ret)
{
	*ret = (struct fields){0};
	while (*list) {
		size_t len = strcspn(list, ",");

		if (len > 0 && ret->count == FIELDS_MAX)
			return false;
		if (len > 0) {
			ret->names[ret->count] = list;
			ret->lens[ret->count++] = len;
		}
		list += len + (list[len] == ',');
	}
	return true;
}

static bool wanted(const struct fields *f, const char *key, size_t len)
{
	for (size_t i = 0; i < f->count; i++) {
		if (f->lens[i] == len && memcmp(f->names[i], key, len) == 0)
			return true;
	}
	return false;
}

void text_put(const struct text *t, const struct fields *fields, struct strbuf *to)
{
	bool first = true;

	if (!fields) {
		strbuf_add(to, t->data, t->len);
		return;
	}
	strbuf_putc(to, '{');
	for (size_t i = 0; i < t->nmembers; i++) {
		const struct member *m = &t->members[i];

		if (!wanted(fields, t->data + m->start + 1, m->key_len))
			continue;
		if (!first)
			strbuf_putc(to, ',');
		first = false;
		strbuf_add(to, t->data + m->start, m->end - m->start);
	}
	strbuf_putc(to, '}');
}

const char *text_value(const struct text *t, const char *name, size_t *ret_len)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < t->nmembers; i++) {
		const struct member *m = &t->members[i];
		const char *key = t->data + m->start + 1;

		if (m->key_len != len || memcmp(key, name, len) != 0)
			continue;
		*ret_len = m->end - m->start - len - 3;
		return key + len + 2;
	}
	return NULL;
}

static bool is_secret_key(const char *key)
{
	return str_ends(key, "_pw");
}

static json_t *without_passwords(const json_t *map)
{
	json_t *copy = NULL, *v;
	const char *key;

	json_object_foreach ((json_t *)(uintptr_t)map, key, v) {
		if (!is_secret_key(key))
			continue;
		if (!copy)
			copy = json_copy((json_t *)(uintptr_t)map);
		(void)json_object_del(copy, key);
	}
	return copy;
}

static void replace_member(json_t **copy, const json_t *object, const char *name, json_t *value)
{
	if (!*copy)
		*copy = json_copy((json_t *)(uintptr_t)object);
	if (value)
		(void)json_object_set_new(*copy, name, value);
	else
		(void)json_object_del(*copy, name);
}

json_t *object_without_secrets(const json_t *object)
{
	json_t *copy = NULL;

	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];
		const json_t *v = json_object_get(object, row->name);
		json_t *clean = NULL;

		if (!v)
			continue;
		if (row->show == SHOW_SECRET && row->type != PROP_MAP) {
			replace_member(&copy, object, row->name, NULL);
		} else if (row->show == SHOW_SECRET) {
			if (json_object_size(v) > 0)
				replace_member(&copy, object, row->name, json_object());
		} else if (row->type == PROP_MAP) {
			clean = without_passwords(v);
			if (clean)
				replace_member(&copy, object, row->name, clean);
		}
	}
	return copy;
}

void put_quoted(struct strbuf *to, const char *text, size_t len)
{
	const char *p = text, *end = text + len;

	strbuf_reserve(to, len + len / 4 + 2);
	strbuf_putc(to, '"');
	while (p < end) {
		const char *from = p;

		while (p < end && *p != '"' && *p != '\\')
			p++;
		strbuf_add(to, from, (size_t)(p - from));
		if (p == end)
			break;
		strbuf_putc(to, '\\');
		strbuf_putc(to, *p++);
	}
	strbuf_putc(to, '"');
}
