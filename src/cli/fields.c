/* SPDX-License-Identifier: Apache-2.0 */
/* Fields and filters of lists; see fields.h. */
#include "cli/fields.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/js.h"
#include "model/props.h"

#define NESTED_WIDTH 20 /* of columns inside disks, nics and maps */
#define INDEX_DIGITS 4

/* Members with elements, by the type of their row. */
static const struct {
	enum prop_type type;
	const struct prop_table *table;
} element_tables[] = {
	{PROP_DISKS, &disk_props},
	{PROP_NICS, &nic_props},
	{PROP_CONSOLES, &console_props},
};

static const struct prop_table *table_of(const struct prop *row)
{
	for (size_t i = 0; i < ARRAY_SIZE(element_tables); i++)
		if (element_tables[i].type == row->type)
			return element_tables[i].table;
	return NULL;
}

static char *upper(const char *text)
{
	char *copy = xstrdup(text);

	for (char *p = copy; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	return copy;
}

/* "N.prop" or "*.prop" below a list of elements. */
static int parse_element(const char *rest, const struct prop_table *table, struct field *f)
{
	const char *dot = strchr(rest, '.');
	size_t digits = strspn(rest, "0123456789");

	if (!dot)
		return -EINVAL;
	if (dot == rest + 1 && *rest == '*')
		f->index = FIELD_ANY;
	else if (digits > 0 && digits <= INDEX_DIGITS && rest + digits == dot)
		f->index = strtoul(rest, NULL, 10);
	else
		return -EINVAL;
	if (!prop_find(table, dot + 1, false))
		return -EINVAL;
	f->key = xstrdup(dot + 1);
	return 0;
}

static int parse_nested(const struct prop *row, const char *rest, struct field *f)
{
	const struct prop_table *table = table_of(row);

	f->kind = table ? FIELD_ELEMENT : FIELD_MAP;
	f->width = NESTED_WIDTH;
	f->header = upper(f->text);
	if (table)
		return parse_element(rest, table, f);
	if (row->type != PROP_MAP || !*rest)
		return -EINVAL;
	f->key = xstrdup(rest);
	return 0;
}

int field_parse(const char *text, struct field *ret)
{
	const char *dot = strchr(text, '.');
	struct field f = {.text = xstrdup(text)};
	const struct prop *row;
	int r = -EINVAL;

	f.member = dot ? xstrndup(text, (size_t)(dot - text)) : xstrdup(text);
	row = prop_find(&vm_props, f.member, false);
	if (row && dot) {
		r = parse_nested(row, dot + 1, &f);
	} else if (row && row->column) {
		f.header = xstrdup(row->column);
		f.width = row->width;
		r = 0;
	}
	if (r < 0)
		field_done(&f);
	else
		*ret = f;
	return r;
}

void field_done(struct field *f)
{
	free(f->text);
	free(f->member);
	free(f->key);
	free(f->header);
	*f = (struct field){0};
}

bool field_is_wild(const struct field *f)
{
	return (f->kind == FIELD_ELEMENT && f->index == FIELD_ANY) ||
	       (f->kind == FIELD_MAP && str_eq(f->key, "*"));
}

struct slice field_value(const struct field *f, struct slice member)
{
	switch (f->kind) {
	case FIELD_TOP:
		return member;
	case FIELD_ELEMENT:
		return js_member(js_element(member, f->index), f->key);
	case FIELD_MAP:
		return js_member(member, f->key);
	}
	return (struct slice){0};
}

static bool is_word(struct slice v, const char *word)
{
	return v.p && v.len == strlen(word) && memcmp(v.p, word, v.len) == 0;
}

static void put_text(struct strbuf *sb, struct slice v);

/* As JavaScript's String([..]): joined by commas, null is nothing. */
static void put_joined(struct strbuf *sb, struct slice array)
{
	struct js_iter it;
	struct slice v;
	bool first = true;

	js_iter_init(&it, array);
	while (js_next(&it, NULL, &v)) {
		if (!first)
			strbuf_putc(sb, ',');
		first = false;
		if (js_type(v) == '[')
			js_write(sb, v, JS_COMPACT); /* not walked: depth is foreign */
		else if (!is_word(v, "null"))
			put_text(sb, v);
	}
}

static void put_text(struct strbuf *sb, struct slice v)
{
	switch (js_type(v)) {
	case '\0':
		break;
	case '"':
		js_put_string(sb, v);
		break;
	case '[':
		put_joined(sb, v);
		break;
	case '{':
		js_write(sb, v, JS_COMPACT);
		break;
	default:
		strbuf_add(sb, v.p, v.len);
	}
}

char *field_text(struct slice v)
{
	struct strbuf sb = {0};

	put_text(&sb, v);
	return strbuf_steal(&sb);
}

char *field_cell(struct slice v)
{
	if (is_word(v, "false") || is_word(v, "null"))
		v = (struct slice){0};
	return field_text(v);
}

static bool is_number(struct slice v)
{
	char c = js_type(v);

	return c == '-' || (c >= '0' && c <= '9');
}

static double number_of(struct slice v)
{
	char buf[64] = {0};
	int64_t whole = 0;
	size_t i = 0;

	/* Nearly all are short whole numbers, and sorting asks often. */
	while (i < v.len && i < 15 && v.p[i] >= '0' && v.p[i] <= '9')
		whole = whole * 10 + (v.p[i++] - '0');
	if (i == v.len)
		return (double)whole;
	memcpy(buf, v.p, v.len < sizeof(buf) - 1 ? v.len : sizeof(buf) - 1);
	return strtod(buf, NULL);
}

static bool is_falsy(struct slice v)
{
	return !v.p || is_word(v, "false") || is_word(v, "null") || is_word(v, "\"\"") ||
	       (is_number(v) && number_of(v) == 0);
}

/* Text by bytes; plain strings are compared where they lie. */
static int compare_text(struct slice a, struct slice b)
{
	AUTO_FREE char *ta = NULL, *tb = NULL;
	size_t len = a.len < b.len ? a.len : b.len;
	int r;

	if (js_type(a) == '"' && js_type(b) == '"' && !memchr(a.p, '\\', a.len) &&
	    !memchr(b.p, '\\', b.len)) {
		r = memcmp(a.p + 1, b.p + 1, len - 2);
		return r ? r : (a.len > b.len) - (a.len < b.len);
	}
	ta = field_text(a);
	tb = field_text(b);
	return strcmp(ta, tb);
}

int field_compare(struct slice a, struct slice b)
{
	bool fa = is_falsy(a), fb = is_falsy(b), na, nb;

	if (fa || fb)
		return fa - fb;
	na = is_number(a);
	nb = is_number(b);
	if (na && nb)
		return (number_of(a) > number_of(b)) - (number_of(a) < number_of(b));
	if (na != nb)
		return nb - na;
	return compare_text(a, b);
}

int filter_parse(const char *text, struct filter *ret, struct err *err)
{
	const char *eq = strchr(text, '=');
	struct filter f = {0};
	int r;

	if (!eq || eq == text)
		return err_set(err, EBADMSG,
			       "Invalid filter: \"%s\" (want key=value or key=~regex)", text);
	AUTO_FREE char *key = xstrndup(text, (size_t)(eq - text));

	r = field_parse(key, &f.field);
	if (r < 0)
		return r;
	r = pattern_init(&f.want, eq + 1, &(struct pattern_spec){key, FILTER_REGEX_MAX, false},
			 err);
	if (r < 0) {
		filter_done(&f);
		return -EBADMSG;
	}
	if (!f.want.regex && f.field.kind == FIELD_ELEMENT && str_eq(f.field.key, nic_props.key))
		str_normalise_mac(&f.want.want);
	*ret = f;
	return 0;
}

void filter_done(struct filter *f)
{
	field_done(&f->field);
	pattern_done(&f->want);
	*f = (struct filter){0};
}

static bool value_matches(const struct filter *f, struct slice v)
{
	AUTO_FREE char *text = NULL;

	if (!v.p || is_word(v, "null"))
		return false;
	text = field_text(v);
	return pattern_matches(&f->want, text);
}

bool filter_match(const struct filter *f, struct slice member)
{
	struct js_iter it;
	struct slice v;

	if (!field_is_wild(&f->field))
		return value_matches(f, field_value(&f->field, member));
	js_iter_init(&it, member);
	while (js_next(&it, NULL, &v)) {
		if (f->field.kind == FIELD_ELEMENT)
			v = js_member(v, f->field.key);
		if (value_matches(f, v))
			return true;
	}
	return false;
}
