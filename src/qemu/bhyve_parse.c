/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bhyve_config(5) text as a sorted table of variables, and the values with their references
 * replaced. Nothing is trimmed, nothing is quoted; the last line of a name wins.
 * Source: bhyve_config(5); where manual and program differ (%% and \%) both are taken.
 */
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/bhyve_vars.h"

#define SHOWN_MAX 80
#define DEPTH_MAX 16  /* Source: bhyve_config(5) */
#define PARTS_MAX 16  /* of a name; bhyve has none beyond 7 */
#define REFS_MAX  256 /* references replaced for one value, nested ones included */

/* --- messages --- */

char *bhyve_show(const char *text)
{
	AUTO_FREE char *cut = xstrndup(text, SHOWN_MAX);
	struct strbuf sb = {0};

	/* Not in the middle of a UTF-8 sequence. */
	if (strlen(text) > SHOWN_MAX)
		for (size_t n = SHOWN_MAX; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
			cut[n - 1] = '\0';
	strbuf_put_escaped(&sb, cut);
	if (strlen(text) > SHOWN_MAX)
		strbuf_puts(&sb, "...");
	return strbuf_steal(&sb);
}

static bool said(const struct problems *p, const char *where, const char *text)
{
	for (size_t i = 0; i < p->count; i++) {
		if (str_eq(p->items[i].where, where) && str_eq(p->items[i].text, text))
			return true;
	}
	return false;
}

void bhyve_say(struct problems *p, enum problem_kind kind, const struct bhyve_var *var,
	       const char *fmt, ...)
{
	AUTO_FREE char *where = xasprintf("%s:%d", var->file, var->line);
	AUTO_FREE char *name = var->name ? bhyve_show(var->name) : NULL;
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *full = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	full = name ? xasprintf("%s: %s", name, text) : xstrdup(text);
	if (!said(p, where, full))
		problems_add(p, kind, where, var->name, "%s", full);
}

/* --- the table --- */

static int by_name(const void *a, const void *b)
{
	const struct bhyve_var *va = a, *vb = b;
	int r = strcmp(va->name, vb->name);

	return r ? r : va->order - vb->order;
}

static void var_done(struct bhyve_var *var)
{
	free(var->name);
	free(var->value);
	free(var->expanded);
}

void bhyve_vars_done(struct bhyve_vars *vars)
{
	for (size_t i = 0; i < vars->count; i++)
		var_done(&vars->items[i]);
	free(vars->items);
	free(vars->path);
	free(vars->definition);
	*vars = (struct bhyve_vars){0};
}

/* Index of the first variable that is not before name. */
static size_t lower_bound(const struct bhyve_vars *vars, const char *name)
{
	size_t low = 0, high = vars->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(vars->items[mid].name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct bhyve_var *bhyve_find(const struct bhyve_vars *vars, const char *at, const char *name)
{
	AUTO_FREE char *full = xasprintf("%s%s", at, name);
	size_t i = lower_bound(vars, full);

	return i < vars->count && str_eq(vars->items[i].name, full) ? &vars->items[i] : NULL;
}

struct bhyve_var *bhyve_first(const struct bhyve_vars *vars, const char *prefix)
{
	size_t i = lower_bound(vars, prefix);

	return i < vars->count && str_starts(vars->items[i].name, prefix) ? &vars->items[i] : NULL;
}

static void keep_last(struct bhyve_vars *vars)
{
	size_t n = 0;

	if (vars->count > 1)
		qsort(vars->items, vars->count, sizeof(vars->items[0]), by_name);
	for (size_t i = 0; i < vars->count; i++) {
		if (i + 1 < vars->count && str_eq(vars->items[i].name, vars->items[i + 1].name))
			var_done(&vars->items[i]);
		else
			vars->items[n++] = vars->items[i];
	}
	vars->count = n;
}

/* A name is a variable or a node that holds others, never both. */
static void check_clashes(const struct bhyve_vars *vars, struct problems *p)
{
	for (size_t i = 0; i < vars->count; i++) {
		const struct bhyve_var *var = &vars->items[i];

		for (const char *dot = strchr(var->name, '.'); dot; dot = strchr(dot + 1, '.')) {
			AUTO_FREE char *node = xstrndup(var->name, (size_t)(dot - var->name));
			const struct bhyve_var *other = bhyve_find(vars, "", node);

			if (other)
				bhyve_say(p, PROBLEM_BAD_VALUE, var,
					  "'%s' has a value itself (%s:%d) and cannot hold others",
					  node, other->file, other->line);
		}
	}
}

/* --- lines --- */

static bool is_utf8(const char *text, size_t len)
{
	json_t *j = json_stringn(text, len);

	json_decref(j);
	return j != NULL;
}

static bool bad_name(const char *name, size_t len)
{
	bool doubled = false;

	for (size_t i = 1; i < len; i++)
		doubled |= name[i] == '.' && name[i - 1] == '.';
	return len == 0 || doubled || name[0] == '.' || name[len - 1] == '.';
}

static size_t dots(const char *name, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += name[i] == '.';
	return n;
}

static const char *line_fault(const char *line, size_t len)
{
	const char *eq = memchr(line, '=', len);
	size_t name = eq ? (size_t)(eq - line) : len;

	if (!is_utf8(line, len))
		return "is not UTF-8";
	if (!eq)
		return "has no '=' (want NAME=VALUE)";
	if (name + 1 == len)
		return "has no value (want NAME=VALUE; a value cannot be empty)";
	if (bad_name(line, name))
		return "has an empty part in its name (want NAME or NAME.NAME...)";
	if (name > BHYVE_NAME_MAX)
		return "has a name longer than 255 bytes";
	if (dots(line, name) >= PARTS_MAX)
		return "has a name of more than 16 parts";
	if (len - name - 1 > BHYVE_TEXT_MAX)
		return "has a value longer than 4096 bytes";
	return NULL;
}

static void warn_of_blanks(const struct bhyve_var *var, struct problems *p)
{
	size_t len = strlen(var->name);

	if (var->name[len - 1] == ' ' || var->name[len - 1] == '\t')
		bhyve_say(p, PROBLEM_WARNING, var, "the blank before '=' is part of the name");
	if (var->value[0] == ' ' || var->value[0] == '\t')
		bhyve_say(p, PROBLEM_WARNING, var, "the blank after '=' is part of the value");
	if (str_ends(var->value, "\r"))
		bhyve_say(p, PROBLEM_WARNING, var,
			  "the carriage return at its end is part of the value (a DOS file?)");
}

static void take_line(struct bhyve_vars *vars, const char *line, size_t len, struct bhyve_var *at,
		      struct problems *p)
{
	const char *fault = line_fault(line, len);
	const char *eq = memchr(line, '=', len);
	size_t name = eq ? (size_t)(eq - line) : len;

	if (fault) {
		/* What follows the '=' may be a password. */
		size_t shown_len = name < len ? name + 1 : len;
		AUTO_FREE char *text = xstrndup(line, is_utf8(line, len) ? shown_len : 0);
		AUTO_FREE char *shown = bhyve_show(text);

		bhyve_say(p, PROBLEM_BAD_VALUE, at, "'%s%s' %s", shown,
			  shown_len < len ? "..." : "", fault);
		return;
	}
	if (vars->count % 64 == 0)
		vars->items = xrealloc(vars->items, (vars->count + 64) * sizeof(vars->items[0]));
	at->name = xstrndup(line, name);
	at->value = xstrndup(line + name + 1, len - name - 1);
	warn_of_blanks(at, p);
	vars->items[vars->count++] = *at;
}

void bhyve_parse(const struct bhyve_source *source, struct bhyve_vars *vars, struct problems *p)
{
	const char *line = source->text;

	for (int number = 1; *line; number++) {
		size_t len = strcspn(line, "\n");
		bool own = number <= source->own_lines;
		struct bhyve_var at = {.file = own ? vars->path : vars->definition,
				       .line = own ? number : source->definition_line,
				       .order = number};

		if (vars->count >= BHYVE_VARS_MAX) {
			bhyve_say(p, PROBLEM_BAD_VALUE, &at, "more than %d variables",
				  BHYVE_VARS_MAX);
			break;
		}
		if (len > 0 && line[0] != '#')
			take_line(vars, line, len, &at, p);
		line += len + (line[len] == '\n');
	}
	keep_last(vars);
	check_clashes(vars, p);
}

/* --- references --- */

struct expansion {
	const struct bhyve_vars *vars;
	const struct bhyve_var *used; /* the variable whose value is made */
	struct problems *p;
	struct strbuf out;
	unsigned refs;
	bool bad;
};

/* Nothing of a password is shown. */
static void refuse(struct expansion *x, const char *text, const char *what)
{
	AUTO_FREE char *shown = bhyve_show(str_ends(x->used->name, "password") ? "***" : what);

	if (!x->bad)
		bhyve_say(x->p, PROBLEM_BAD_VALUE, x->used, "'%s' %s", shown, text);
	x->bad = true;
}

static void expand(struct expansion *x, const char *value, int depth);

/* p at "%("; returns what follows the reference. */
static const char *take_reference(struct expansion *x, const char *p, int depth)
{
	const char *close = strchr(p, ')');
	AUTO_FREE char *name = NULL;
	const struct bhyve_var *var;

	if (!close) {
		bhyve_say(x->p, PROBLEM_WARNING, x->used, "'%%(' without ')' is kept as it is");
		strbuf_puts(&x->out, "%(");
		return p + 2;
	}
	name = xstrndup(p + 2, (size_t)(close - p - 2));
	var = bhyve_find(x->vars, "", name);
	if (name[0] == '\0')
		bhyve_say(x->p, PROBLEM_WARNING, x->used, "'%%()' names nothing and is dropped");
	else if (!var)
		refuse(x, "is referred to and not set", name);
	else if (depth >= DEPTH_MAX)
		refuse(x, "is referred to through more than 16 others (a circle?)", name);
	else if (++x->refs > REFS_MAX)
		refuse(x, "is one reference too many (want at most 256)", name);
	else
		expand(x, var->value, depth + 1);
	return close + 1;
}

static void expand(struct expansion *x, const char *value, int depth)
{
	if (!strchr(value, '%')) { /* a backslash means something beside a percent sign only */
		strbuf_puts(&x->out, value);
		return;
	}
	for (const char *p = value; *p && !x->bad;) {
		if (str_starts(p, "%(")) {
			p = take_reference(x, p, depth);
			continue;
		}
		if ((*p == '\\' && p[1]) || str_starts(p, "%%"))
			p++;
		else if (*p == '%')
			bhyve_say(x->p, PROBLEM_WARNING, x->used,
				  "a single '%%' is kept (want '%%%%')");
		strbuf_putc(&x->out, *p++);
		if (x->out.len > BHYVE_TEXT_MAX)
			refuse(x, "gets longer than 4096 bytes", value);
	}
}

const char *bhyve_value(const struct bhyve_vars *vars, struct bhyve_var *var, struct problems *p)
{
	struct expansion x = {.vars = vars, .used = var, .p = p};

	if (var->expanded)
		return var->expanded;
	expand(&x, var->value, 0);
	if (x.out.len > BHYVE_TEXT_MAX)
		refuse(&x, "gets longer than 4096 bytes", var->value);
	if (!x.bad && (!x.out.data || !x.out.len)) {
		bhyve_say(p, PROBLEM_BAD_VALUE, var, "is empty after its references are replaced");
		x.bad = true;
	}
	if (!x.bad)
		var->expanded = strbuf_steal(&x.out);
	strbuf_done(&x.out);
	return var->expanded;
}
