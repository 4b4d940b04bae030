/* SPDX-License-Identifier: Apache-2.0 */
/* Filters of /vms; see filter.h. */
#include "vminfod/filter.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pattern.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "vminfod/text.h"

#define ANY       SIZE_MAX
#define NAMES_MAX 256
#define NEAR_MIN  4 /* characters: anything is near to a shorter name */

struct filter {
	char *name;
	char *member; /* of the object */
	size_t index; /* of an element, ANY: any */
	char *key;    /* in an element or map, NULL: the member itself; "*" in a map: any */
	bool element;
	struct pattern want;
};

struct filters {
	struct filter items[FILTERS_MAX];
	size_t count;
};

static void filter_done(struct filter *f)
{
	pattern_done(&f->want);
	free(f->name);
	free(f->member);
	free(f->key);
}

void filters_free(struct filters *f)
{
	for (size_t i = 0; f && i < f->count; i++)
		filter_done(&f->items[i]);
	free(f);
}

/* --- names --- */

/* "N.prop" or "*.prop" */
static bool parse_element(struct filter *f, const struct prop_table *table, const char *rest)
{
	size_t digits = strspn(rest, "0123456789");
	const char *dot = strchr(rest, '.');

	if (!dot || !prop_find(table, dot + 1, false))
		return false;
	if (dot == rest + 1 && *rest == '*')
		f->index = ANY;
	else if (digits > 0 && digits <= 4 && rest + digits == dot)
		f->index = strtoul(rest, NULL, 10);
	else
		return false;
	f->element = true;
	f->key = xstrdup(dot + 1);
	return true;
}

/* The nearest name, also of members that nobody may set. */
static const char *nearest(const char *name)
{
	const char *words[NAMES_MAX];
	size_t n = 0;

	if (strlen(name) < NEAR_MIN)
		return NULL;
	for (size_t i = 0; i < vm_props.count && n < NAMES_MAX; i++)
		words[n++] = vm_props.rows[i].name;
	return str_nearest(name, words, n);
}

/* 0; -ENOENT: this is no field, nor meant to be one; -EINVAL: it is meant to be one. */
static int parse_name(struct filter *f, const char *name, struct err *err)
{
	const char *dot = strchr(name, '.');
	const struct prop *row;
	const char *near;
	bool ok;

	f->name = xstrdup(name);
	f->member = dot ? xstrndup(name, (size_t)(dot - name)) : xstrdup(name);
	row = prop_find(&vm_props, f->member, false);
	if (!row) {
		near = nearest(f->member);
		if (!near)
			return -ENOENT;
		return err_set(err, EINVAL, "Invalid filter key: \"%s\" (did you mean %s?)", name,
			       near);
	}
	if (!dot) {
		ok = row->show != SHOW_NEVER;
	} else if (row_elements(row)) {
		ok = parse_element(f, row_elements(row), dot + 1);
	} else {
		ok = row->type == PROP_MAP && dot[1];
		f->key = xstrdup(dot + 1);
	}
	return ok ? 0 : err_set(err, EINVAL, "Invalid filter key: \"%s\"", name);
}

static int parse(struct filter *f, const char *name, const char *value, struct err *err)
{
	int r = parse_name(f, name, err);

	if (r < 0)
		return r;
	r = pattern_init(&f->want, value,
			 &(struct pattern_spec){name, FILTER_REGEX_MAX, .cheap = true}, err);
	if (r == 0 && !f->want.regex && f->element && str_eq(f->key, nic_props.key))
		str_normalise_mac(&f->want.want);
	return r;
}

int filters_add(struct filters **at, const char *name, const char *value, struct err *err)
{
	struct filter f = {0};
	size_t i = 0;
	int r = parse(&f, name, value, err);

	if (r == 0 && !*at)
		*at = xcalloc(1, sizeof(**at));
	while (r == 0 && i < (*at)->count && !str_eq((*at)->items[i].name, name))
		i++;
	if (r == 0 && i == FILTERS_MAX)
		r = err_set(err, E2BIG, "too many filters (at most %u)", FILTERS_MAX);
	if (r < 0) {
		filter_done(&f);
		return r;
	}
	/* Of two with one name the last wins. */
	if (i < (*at)->count)
		filter_done(&(*at)->items[i]);
	else
		(*at)->count++;
	(*at)->items[i] = f;
	return 0;
}

/* --- matching --- */

/* As JavaScript's String(): arrays joined by commas, null in them is nothing. */
static char *value_text(const json_t *v)
{
	struct strbuf sb = {0};
	json_t *item;
	size_t i;

	if (json_is_string(v))
		return xstrdup(json_string_value(v));
	if (!json_is_array(v))
		return json_text(v);
	json_array_foreach (v, i, item) {
		AUTO_FREE char *one = json_is_string(item) ? xstrdup(json_string_value(item))
				      : json_is_null(item) ? xstrdup("")
							   : json_text(item);

		strbuf_printf(&sb, "%s%s", i ? "," : "", one);
	}
	return sb.data ? strbuf_steal(&sb) : xstrdup("");
}

static bool fits(const struct filter *f, const json_t *v)
{
	AUTO_FREE char *text = v ? value_text(v) : NULL;

	if (!text)
		return false;
	return pattern_matches(&f->want, text);
}

static bool matches(const struct filter *f, const json_t *member)
{
	const char *key;
	json_t *v;
	size_t i;

	if (!f->key)
		return fits(f, member);
	if (f->element && f->index != ANY)
		return fits(f, json_object_get(json_array_get(member, f->index), f->key));
	if (f->element) {
		json_array_foreach (member, i, v) {
			if (fits(f, json_object_get(v, f->key)))
				return true;
		}
		return false;
	}
	if (!str_eq(f->key, "*"))
		return fits(f, json_object_get(member, f->key));
	json_object_foreach ((json_t *)(uintptr_t)member, key, v) {
		if (fits(f, v))
			return true;
	}
	return false;
}

bool filters_match(const struct filters *f, const struct text *vm)
{
	for (size_t i = 0; f && i < f->count; i++) {
		size_t len;
		const char *data = text_value(vm, f->items[i].member, &len);
		AUTO_JSON json_t *member =
			data ? json_loadb(data, len, JSON_DECODE_ANY, NULL) : NULL;

		if (!member || !matches(&f->items[i], member))
			return false;
	}
	return true;
}
