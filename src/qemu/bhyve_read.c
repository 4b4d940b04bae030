/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variables read with their types during a walk; what is wrong with one is said at its line, what
 * is missing at the line of the device it is missing from. Source: bhyve_config(5), types.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/bhyve_map.h"

/* --- findings --- */

static void say(struct map *m, enum problem_kind kind, const char *at, const char *name,
		const char *text)
{
	const struct bhyve_var *var = bhyve_find(m->vars, at, name);
	AUTO_FREE char *full = xasprintf("%s%s", at, name);
	struct bhyve_var nowhere = {.name = full, .file = m->vars->path};

	if (!var && m->anchor)
		nowhere = (struct bhyve_var){
			.name = full, .file = m->anchor->file, .line = m->anchor->line};
	if (var || m->anchor) {
		bhyve_say(m->p, kind, var ? var : &nowhere, "%s", text);
	} else {
		problems_add(m->p, kind, m->vars->path, full, "%s: %s", full, text);
	}
}

void map_error(struct map *m, const char *at, const char *name, const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	say(m, map_has(m, at, name) ? PROBLEM_BAD_VALUE : PROBLEM_MISSING, at, name, text);
}

void map_warn(struct map *m, const char *at, const char *name, const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	say(m, PROBLEM_WARNING, at, name, text);
}

/* --- values --- */

bool map_has(const struct map *m, const char *at, const char *name)
{
	return bhyve_find(m->vars, at, name) != NULL;
}

const char *map_str(struct map *m, const char *at, const char *name)
{
	struct bhyve_var *var = bhyve_find(m->vars, at, name);

	return var ? bhyve_value(m->vars, var, m->p) : NULL;
}

bool map_bool(struct map *m, const char *at, const char *name, bool fallback)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"true", true},   {"on", true},   {"yes", true}, {"1", true},
		     {"false", false}, {"off", false}, {"no", false}, {"0", false}};
	const char *text = map_str(m, at, name);
	AUTO_FREE char *shown = NULL;

	if (!text)
		return fallback;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcasecmp(text, words[i].word) == 0)
			return words[i].value;
	}
	shown = bhyve_show(text);
	map_error(m, at, name, "'%s' is not a boolean (want true, on, yes, 1, false, off, no or 0)",
		  shown);
	return fallback;
}

long map_int(struct map *m, const char *at, const char *name, struct bhyve_range range,
	     long fallback)
{
	const char *text = map_str(m, at, name);
	AUTO_FREE char *shown = NULL;
	char *end;
	long n;

	if (!text)
		return fallback;
	errno = 0;
	n = strtol(text, &end, range.base);
	if (errno == 0 && end > text && !*end && n >= range.min && n <= range.max &&
	    strchr("-0123456789", text[0]))
		return n;
	shown = bhyve_show(text);
	map_error(m, at, name, "'%s' is not a number from %ld to %ld", shown, range.min, range.max);
	return fallback;
}

const char *map_keep(struct map *m, char *text)
{
	argv_add(&m->hw->pool, "%s", text);
	free(text);
	return m->hw->pool.items[m->hw->pool.count - 1];
}

const char *map_path(struct map *m, const char *at, const char *name)
{
	const char *text = map_str(m, at, name);
	const char *slash = strrchr(m->vars->path, '/');
	AUTO_FREE char *shown = NULL;

	if (!text || text[0] == '/')
		return text;
	if (m->vars->path[0] == '/')
		return map_keep(
			m, xasprintf("%.*s/%s", (int)(slash - m->vars->path), m->vars->path, text));
	shown = bhyve_show(text);
	map_error(m, at, name, "'%s' is not an absolute path", shown);
	return NULL;
}

void map_need(struct map *m, const char *at, const char *name, const struct bhyve_need *need)
{
	struct bhyve_hw *hw = m->hw;

	hw->needs = xrealloc(hw->needs, (hw->nneeds + 1) * sizeof(hw->needs[0]));
	hw->needs[hw->nneeds] = *need;
	hw->needs[hw->nneeds].var = bhyve_find(m->vars, at, name);
	if (hw->needs[hw->nneeds].var && need->value)
		hw->nneeds++;
}

void map_bootindex(struct map *m, const char *at, json_t *j)
{
	long n = map_int(m, at, "bootindex", (struct bhyve_range){0, INT32_MAX, 0}, -1);

	if (n < 0)
		return;
	for (size_t i = 0; i < m->nboot; i++) {
		if (m->boot[i] == n) {
			map_error(m, at, "bootindex", "another device has number %ld already", n);
			return;
		}
	}
	if (m->nboot < ARRAY_SIZE(m->boot))
		m->boot[m->nboot++] = n;
	json_put_int(j, "bootindex", n);
}
