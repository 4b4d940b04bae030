/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One value from outside into one member, whatever it was written in: text, JSON or UCL. Types
 * are judged here, bounds and names of enums from the row, what lies beyond by the row's check.
 * Coercions of JSON and text follow vmadm(8); UCL is strict about booleans.
 */
#include "model/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/checks.h"
#include "model/rows.h"
#include "ucl/ucl.h"

#define SHOWN_MAX   80   /* bytes of a foreign value in a message */
#define STRING_MAX  4096 /* bytes of a string whose row gives no limit */
#define MAP_KEY_MAX 256
#define MAP_MAX     4096 /* keys of one map */

char *shown(const char *text)
{
	struct strbuf sb = {0};
	AUTO_FREE char *cut = xstrndup(text, SHOWN_MAX);

	strbuf_put_escaped(&sb, cut);
	if (strlen(text) > SHOWN_MAX)
		strbuf_puts(&sb, "...");
	return strbuf_steal(&sb);
}

char *shown_json(const json_t *j)
{
	AUTO_FREE char *text = json_text(j);

	return shown(json_is_string(j) ? json_string_value(j) : text);
}

void problem_value(struct problems *p, const char *where, const char *key, const char *value,
		   const char *text)
{
	AUTO_FREE char *v = shown(value);

	problems_add(p, PROBLEM_BAD_VALUE, where, key, "'%s' %s", v, text);
}

static const char *slot_key(const struct slot *s)
{
	return s->key ? s->key : s->row->name;
}

static void mark(const struct slot *s, bool given)
{
	given_set(elem_given(s->t, s->el), row_index(s->t, s->row), given);
}

static int refuse(const struct slot *s, const char *value, const char *fault, const char *want)
{
	AUTO_FREE char *text = xasprintf("%s (want %s)", fault, want);

	problem_value(s->p, s->where, slot_key(s), value, text);
	return -EINVAL;
}

void slot_unset(const struct slot *s)
{
	prop_reset(s->row, s->el);
	mark(s, false);
}

/* --- strings, lists, enums --- */

static bool is_utf8(const char *text)
{
	AUTO_JSON json_t *j = json_string(text);

	return j != NULL;
}

static int check_text(const struct slot *s, const char *text)
{
	size_t max = s->row->type == PROP_STR && s->row->max ? (size_t)s->row->max : STRING_MAX;
	size_t before = s->p->errors;

	if (!is_utf8(text))
		return refuse(s, text, "is not UTF-8", "UTF-8 text");
	if (strlen(text) > max) {
		AUTO_FREE char *want = xasprintf("at most %zu bytes", max);

		return refuse(s, text, "is too long", want);
	}
	if (s->row->check)
		s->row->check(text, s->where, slot_key(s), s->p);
	return s->p->errors == before ? 0 : -EINVAL;
}

char *mac_normal(const char *text)
{
	struct strbuf sb = {0};
	const char *c = text;

	while (*c) {
		char *end;

		strbuf_printf(&sb, "%s%02lx", sb.len ? ":" : "", strtoul(c, &end, 16) & 0xff);
		c = *end ? end + 1 : end;
	}
	return strbuf_steal(&sb);
}

/* MACs and uuids are compared as text. */
static char *normal(const struct prop *row, const char *text)
{
	char *copy;

	if (row->check == check_mac)
		return mac_normal(text);
	copy = xstrdup(text);
	for (char *c = copy; row->check == check_uuid && *c; c++)
		*c = *c >= 'A' && *c <= 'F' ? (char)(*c + 32) : *c;
	return copy;
}

static int put_string(const struct slot *s, const char *text)
{
	if (check_text(s, text) < 0)
		return -EINVAL;
	replace_str(row_at(s->row, s->el), normal(s->row, text));
	return 0;
}

static char *enum_refusal(const struct prop *row, const char *value)
{
	AUTO_FREE char *v = shown(value);
	AUTO_STRBUF struct strbuf names = {0};
	struct strbuf sb = {0};

	for (size_t i = 0; i < row->nnames; i++)
		strbuf_printf(&names, "%s%s", i ? "," : "", row->names[i]);
	for (const char *c = row->refusal ? row->refusal : "'$v' is not one of: $n"; *c; c++) {
		if (c[0] == '$' && c[1] == 'v')
			strbuf_puts(&sb, v);
		else if (c[0] == '$' && c[1] == 'n')
			strbuf_puts(&sb, names.data);
		else
			strbuf_putc(&sb, *c);
		if (*c == '$')
			c++;
	}
	return strbuf_steal(&sb);
}

static int put_enum(const struct slot *s, const char *text)
{
	int value = enum_value(s->row->names, s->row->nnames, text);

	if (value < 0) {
		AUTO_FREE char *refusal = enum_refusal(s->row, text);

		problems_add(s->p, PROBLEM_BAD_VALUE, s->where, slot_key(s), "%s", refusal);
		return -EINVAL;
	}
	*(int *)row_at(s->row, s->el) = value;
	return 0;
}

/* Takes the list over when every item is right. */
static int put_list(const struct slot *s, struct str_list *list)
{
	size_t max = s->row->max ? (size_t)s->row->max : VM_LIST_MAX;
	int r = 0;

	if (list->count > max) {
		problems_add(s->p, PROBLEM_BAD_VALUE, s->where, slot_key(s),
			     "has %zu entries (want at most %zu)", list->count, max);
		r = -EINVAL;
	}
	for (size_t i = 0; r == 0 && i < list->count; i++)
		r = check_text(s, list->items[i]);
	if (r < 0) {
		str_list_done(list);
		return r;
	}
	str_list_done(row_at(s->row, s->el));
	*(struct str_list *)row_at(s->row, s->el) = *list;
	return 0;
}

/* Items of comma text, blanks around them dropped. */
static void split(const char *text, struct str_list *list)
{
	while (*text && list->count <= VM_LIST_MAX) {
		size_t len = strcspn(text, ","), skip = strspn(text, " \t");
		size_t end = len;

		while (end > skip && (text[end - 1] == ' ' || text[end - 1] == '\t'))
			end--;
		if (end > skip) {
			AUTO_FREE char *item = xstrndup(text + skip, end - skip);

			str_list_add(list, item);
		}
		text += len + (text[len] == ',');
	}
}

/* --- numbers and times --- */

static void bounds(const struct prop *row, int64_t *min, int64_t *max)
{
	*min = row->min;
	*max = row->max;
	if (*max)
		return;
	if (row->type == PROP_I32) {
		*min = INT32_MIN;
		*max = INT32_MAX;
	} else {
		*max = row->type == PROP_U32 ? UINT32_MAX : INT64_MAX;
	}
}

static int refuse_number(const struct slot *s, const char *value, bool range)
{
	const char *unit = s->row->unit;
	AUTO_FREE char *want = NULL;
	int64_t min, max;

	bounds(s->row, &min, &max);
	if (s->row->type == PROP_MS)
		want = xasprintf("seconds, or a time such as 30s, 3min, 1h%s",
				 range && s->row->min ? ", at least 1s" : "");
	else if (unit && (strcmp(unit, "MiB") == 0 || strcmp(unit, "GiB") == 0))
		want = xasprintf("whole %s from %" PRId64 " to %" PRId64 ", or a size such as 2G",
				 unit, min, max);
	else
		want = xasprintf("a number from %" PRId64 " to %" PRId64, min, max);
	return refuse(s, value,
		      range                     ? "is out of range"
		      : s->row->type == PROP_MS ? "is not a time"
						: "is not a number",
		      want);
}

static int put_number(const struct slot *s, int64_t value, const char *text)
{
	void *at = row_at(s->row, s->el);
	size_t before = s->p->errors;
	int64_t min, max;

	bounds(s->row, &min, &max);
	if (value < min || value > max)
		return refuse_number(s, text, true);
	if (s->row->check)
		s->row->check(text, s->where, slot_key(s), s->p);
	if (s->p->errors != before)
		return -EINVAL;
	if (s->row->type == PROP_U32)
		*(uint32_t *)at = (uint32_t)value;
	else if (s->row->type == PROP_I32)
		*(int32_t *)at = (int32_t)value;
	else
		*(uint64_t *)at = (uint64_t)value;
	return 0;
}

static int put_number_text(const struct slot *s, const char *text)
{
	AUTO_FREE char *plain = NULL;
	int64_t value;
	int r = number_parse(s->row, text, &value);

	if (r < 0)
		return refuse_number(s, text, r == -ERANGE);
	plain = s->row->check ? xasprintf("%" PRId64, value) : NULL;
	return put_number(s, value, plain ? plain : text);
}

static int put_time(const struct slot *s, const char *text)
{
	uint64_t ms;
	int r = time_parse(s->row, text, &ms);

	if (r < 0)
		return refuse_number(s, text, r == -ERANGE);
	*(uint64_t *)row_at(s->row, s->el) = ms;
	return 0;
}

static int put_bool(const struct slot *s, const char *text)
{
	static const char *const words[] = {"false", "true", "0", "1"};
	int value = enum_value(words, ARRAY_SIZE(words), text);

	if (value < 0)
		return refuse(s, text, "is not a boolean", "true or false");
	*(bool *)row_at(s->row, s->el) = value & 1;
	return 0;
}

/* --- text --- */

static int put_text(const struct slot *s, const char *text)
{
	struct str_list list = {0};

	switch (s->row->type) {
	case PROP_STR:
		return put_string(s, text);
	case PROP_BOOL:
		return put_bool(s, text);
	case PROP_U32:
	case PROP_I32:
	case PROP_U64:
		return put_number_text(s, text);
	case PROP_MS:
		return put_time(s, text);
	case PROP_ENUM:
		return put_enum(s, text);
	case PROP_LIST:
		split(text, &list);
		return put_list(s, &list);
	case PROP_MAP:
		return refuse(s, text, "is not an object", "an object of keys and values");
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
		return refuse(s, text, "is not an array", "an array of objects");
	case PROP_RUNTIME:
		break;
	}
	return refuse(s, text, "cannot be set", "it left out");
}

int slot_text(const struct slot *s, const char *text)
{
	int r = put_text(s, text);

	mark(s, true);
	return r;
}

/* --- JSON --- */

static int put_json_list(const struct slot *s, const json_t *j)
{
	struct str_list list = {0};
	size_t i;
	json_t *item;

	if (!json_is_array(j)) {
		AUTO_FREE char *value = shown_json(j);

		return refuse(s, value, "is not a list", "an array of strings");
	}
	json_array_foreach ((json_t *)j, i, item) {
		AUTO_FREE char *value = json_is_integer(item) ? json_text(item) : NULL;

		if (!value && !json_is_string(item)) {
			AUTO_FREE char *bad = shown_json(item);

			str_list_done(&list);
			return refuse(s, bad, "is not a string", "an array of strings");
		}
		if (list.count <= VM_LIST_MAX)
			str_list_add(&list, value ? value : json_string_value(item));
	}
	return put_list(s, &list);
}

static int put_map(const struct slot *s, const json_t *j)
{
	json_t **at = row_at(s->row, s->el);
	const char *key;
	json_t *value;

	if (!json_is_object(j)) {
		AUTO_FREE char *text = shown_json(j);

		return refuse(s, text, "is not an object", "an object of keys and values");
	}
	if (json_object_size(j) > MAP_MAX)
		return refuse(s, s->row->name, "has too many keys", "at most 4096");
	json_object_foreach ((json_t *)j, key, value) {
		if (json_is_object(value) || json_is_array(value) || json_is_null(value))
			return refuse(s, key, "has no flat value", "a string, number or boolean");
		if (!*key || strlen(key) > MAP_KEY_MAX)
			return refuse(s, key, "is not a key", "1 to 256 bytes");
	}
	json_decref(*at);
	*at = json_deep_copy(j);
	return 0;
}

static bool is_whole(double value)
{
	return value > -1e15 && value < 1e15 && (double)(int64_t)value == value;
}

/* Strings of numbers, booleans, lists: "a string is converted by declared type" (vmadm(8)). */
static int put_json(const struct slot *s, const json_t *j)
{
	AUTO_FREE char *text = shown_json(j);

	switch (s->row->type) {
	case PROP_STR:
	case PROP_ENUM:
		if (json_is_string(j))
			return put_text(s, json_string_value(j));
		return refuse(s, text, "is not text", "a string");
	case PROP_BOOL:
		if (json_is_boolean(j) || json_is_string(j) || json_is_integer(j))
			return put_bool(s, text);
		break;
	case PROP_U32:
	case PROP_I32:
	case PROP_U64:
		if (json_is_integer(j))
			return put_number(s, json_integer_value(j), text);
		if (json_is_real(j) && is_whole(json_real_value(j)))
			return put_number(s, (int64_t)json_real_value(j), text);
		if (json_is_string(j))
			return put_number_text(s, json_string_value(j));
		return refuse_number(s, text, json_is_real(j));
	case PROP_MS:
		if (json_is_number(j) || json_is_string(j))
			return put_time(s, text);
		return refuse_number(s, text, false);
	case PROP_LIST:
		if (json_is_string(j))
			return put_text(s, json_string_value(j));
		return put_json_list(s, j);
	case PROP_MAP:
		return put_map(s, j);
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
	case PROP_RUNTIME:
		return put_text(s, text);
	}
	return refuse(s, text, "is not a boolean", "true or false");
}

int slot_json(const struct slot *s, const json_t *j)
{
	int r;

	if (json_is_null(j) || (json_is_string(j) && !*json_string_value(j))) {
		slot_unset(s);
		return 0;
	}
	r = put_json(s, j);
	mark(s, true);
	return r;
}

/* --- UCL --- */

static const char *ucl_text(const struct ucl_value *v)
{
	return v->type == UCL_STRING ? v->string : v->raw;
}

/* Items of arrays and of keys given more than once; a string is split at commas. */
static int collect(const struct slot *s, const struct ucl_value *v, struct str_list *list)
{
	if (v->type == UCL_ARRAY) {
		for (size_t i = 0; i < v->count && list->count <= VM_LIST_MAX; i++) {
			const struct ucl_value *item = v->items[i];
			const char *text = ucl_text(item);

			if (item->type == UCL_ARRAY && v->implicit) {
				if (collect(s, item, list) < 0)
					return -EINVAL;
			} else if (item->type >= UCL_ARRAY || !text) {
				return refuse(s, ucl_type_name(item->type), "is not a string",
					      "a list of strings");
			} else {
				str_list_add(list, text);
			}
		}
		return 0;
	}
	if (v->type == UCL_OBJECT || !ucl_text(v))
		return refuse(s, ucl_type_name(v->type), "is not a list", "[ \"a\", \"b\" ]");
	split(ucl_text(v), list);
	return 0;
}

static int put_ucl(const struct slot *s, const struct ucl_value *v)
{
	struct str_list list = {0};

	if (s->row->type == PROP_LIST) {
		if (collect(s, v, &list) < 0) {
			str_list_done(&list);
			return -EINVAL;
		}
		return put_list(s, &list);
	}
	if (v->type == UCL_OBJECT || v->type == UCL_ARRAY || !ucl_text(v)) {
		problems_add(s->p, PROBLEM_BAD_VALUE, s->where, slot_key(s),
			     "'%s' has %s (want a single value)", slot_key(s),
			     ucl_type_name(v->type));
		return -EINVAL;
	}
	if (s->row->type == PROP_BOOL) {
		if (v->type != UCL_BOOL)
			return refuse(s, ucl_text(v), "is not a boolean",
				      "yes or no, without quotes");
		*(bool *)row_at(s->row, s->el) = v->boolean;
		return 0;
	}
	return put_text(s, ucl_text(v));
}

int slot_ucl(const struct slot *s, const struct ucl_value *v)
{
	int r = put_ucl(s, v);

	mark(s, true);
	return r;
}
