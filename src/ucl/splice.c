/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of edits: where a new item goes, how it is indented and separated, what leaves with
 * an item that goes. Only appearance is decided here: whether the result means what it should is
 * judged by parsing it.
 */
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/change.h"
#include "ucl/parse.h"

#define INDENT "    " /* in a file that shows no other */

static bool is_eol_at(struct ucl_text t, size_t at)
{
	return at >= t.len || ucl_is_eol(t.data[at]);
}

static size_t skip_blanks(struct ucl_text t, size_t at)
{
	while (at < t.len && ucl_is_blank(t.data[at]))
		at++;
	return at;
}

static size_t line_start(struct ucl_text t, size_t at)
{
	while (at > 0 && !ucl_is_eol(t.data[at - 1]))
		at--;
	return at;
}

static size_t line_end(struct ucl_text t, size_t at)
{
	while (!is_eol_at(t, at))
		at++;
	return at;
}

static size_t past_eol(struct ucl_text t, size_t at)
{
	if (at >= t.len)
		return t.len;
	return (size_t)(ucl_past_eol(t.data + at, t.data + t.len) - t.data);
}

/* The line end this file uses. */
static const char *eol_of(struct ucl_text t)
{
	size_t at = line_end(t, 0);

	if (at < t.len && t.data[at] == '\r')
		return past_eol(t, at) == at + 2 ? "\r\n" : "\r";
	return "\n";
}

size_t ucl_offset_of(struct ucl_text t, const struct ucl_pos *pos)
{
	size_t at = 0;

	for (int line = 1; line < pos->line; line++)
		at = past_eol(t, line_end(t, at));
	return at + (size_t)pos->column - 1;
}

/* Are the bytes before at blank up to the beginning of the line? */
static bool first_on_line(struct ucl_text t, size_t at)
{
	return skip_blanks(t, line_start(t, at)) >= at;
}

/* Behind the item that ends at `end`: over one separator, if there is one. */
static size_t past_separator(struct ucl_text t, size_t end)
{
	size_t at = skip_blanks(t, end);

	return at < t.len && (t.data[at] == ';' || t.data[at] == ',') ? at + 1 : end;
}

/* Is there nothing but blanks and at most one comment from at to the end of the line? */
static bool rest_is_comment(struct ucl_text t, size_t at)
{
	size_t end = line_end(t, at);
	const char *close;

	at = skip_blanks(t, at);
	if (at >= end || t.data[at] == '#')
		return true;
	if (t.data[at] != '/' || at + 4 > end || t.data[at + 1] != '*')
		return false;
	close = memmem(t.data + at + 2, end - at - 2, "*/", 2);
	return close && skip_blanks(t, (size_t)(close + 2 - t.data)) >= end;
}

/* Where the line of item v begins to matter: its key, or itself in an array. */
static size_t item_start(struct ucl_text t, const struct ucl_value *parent,
			 const struct ucl_value *v)
{
	return parent->type == UCL_ARRAY ? v->start : ucl_offset_of(t, &v->key);
}

static void put_indent_of(struct strbuf *sb, struct ucl_text t, size_t at)
{
	size_t from = line_start(t, at);

	strbuf_add(sb, t.data + from, skip_blanks(t, from) - from);
}

/* One step of indentation as this file does it. */
static void put_step(struct strbuf *sb, struct ucl_text t)
{
	for (size_t at = 0; at < t.len; at = past_eol(t, line_end(t, at))) {
		size_t text = skip_blanks(t, at);

		if (text == at || is_eol_at(t, text))
			continue;
		strbuf_add(sb, t.data + at, t.data[at] == '\t' ? 1 : text - at);
		return;
	}
	strbuf_puts(sb, INDENT);
}

/* The indentation of the last sibling that begins a line, else a step more than the closer. */
static void put_indent(struct strbuf *sb, struct ucl_text t, const struct ucl_value *parent,
		       size_t closer)
{
	for (size_t i = parent->count; i-- > 0;) {
		struct ucl_repeats all = ucl_repeats_of(&parent->items[i]);
		const struct ucl_value *v = all.items[all.count - 1];

		if (v->pos.file != parent->pos.file || !first_on_line(t, item_start(t, parent, v)))
			continue;
		put_indent_of(sb, t, item_start(t, parent, v));
		return;
	}
	if (closer < t.len) {
		put_indent_of(sb, t, closer);
		put_step(sb, t);
	}
}

/* Behind the last item of the same key, when that ends its line: sections stay together. */
static bool insert_after_sibling(struct ucl_text t, const struct ucl_change *c, const char *item,
				 struct ucl_splice *ret)
{
	const struct ucl_value *last = NULL;
	struct strbuf sb = {0};
	size_t start, end;

	for (size_t i = 0; c->key && i < c->target->count; i++) {
		struct ucl_repeats all = ucl_repeats_of(&c->target->items[i]);

		if (str_eq(c->target->keys[i], c->key))
			last = all.items[all.count - 1];
	}
	if (!last || last->pos.file != c->target->pos.file)
		return false;
	start = ucl_offset_of(t, &last->key);
	end = past_separator(t, last->end);
	if (!first_on_line(t, start) || !rest_is_comment(t, end) || line_end(t, end) >= t.len)
		return false;
	put_indent_of(&sb, t, start);
	strbuf_puts(&sb, item);
	strbuf_puts(&sb, eol_of(t));
	ret->from = ret->to = past_eol(t, line_end(t, end));
	ret->text = strbuf_steal(&sb);
	return true;
}

static void insert_at_end_of_file(struct ucl_text t, const struct ucl_change *c, const char *item,
				  struct ucl_splice *ret)
{
	struct strbuf sb = {0};

	if (t.len > 0 && line_start(t, t.len) != t.len)
		strbuf_puts(&sb, eol_of(t));
	put_indent(&sb, t, c->target, t.len);
	strbuf_puts(&sb, item);
	strbuf_puts(&sb, eol_of(t));
	ret->from = ret->to = t.len;
	ret->text = strbuf_steal(&sb);
}

/* Before a closer that shares its line with other things: `{ memory = 2G; cpus = 2 }`. */
static void insert_before_closer(struct ucl_text t, const struct ucl_change *c, const char *item,
				 struct ucl_splice *ret)
{
	size_t closer = c->target->end - 1, at = closer, len = strlen(item);
	struct strbuf sb = {0};
	char before;

	while (at > c->target->start + 1 && ucl_is_blank(t.data[at - 1]))
		at--;
	before = t.data[at - 1];
	if (at == c->target->start + 1) {
		strbuf_printf(&sb, " %s ", item);
	} else if (strchr(";,}]", before) && (c->key || strchr(";,", before))) {
		strbuf_printf(&sb, " %s", item);
	} else {
		/* As it was, nothing separates the last item from the closer. */
		if (c->key && item[len - 1] == ';')
			len--;
		strbuf_puts(&sb, c->key ? "; " : ", ");
		strbuf_add(&sb, item, len);
	}
	if (at > c->target->start + 1)
		strbuf_add(&sb, t.data + at, closer - at);
	ret->from = at;
	ret->to = closer;
	ret->text = strbuf_steal(&sb);
}

void ucl_splice_insert(struct ucl_text t, const struct ucl_change *change, const char *item,
		       struct ucl_splice *ret)
{
	const struct ucl_value *target = change->target;
	struct strbuf sb = {0};
	size_t closer, line;

	if (insert_after_sibling(t, change, item, ret))
		return;
	if (target->start >= t.len || !strchr("{[", t.data[target->start])) {
		insert_at_end_of_file(t, change, item, ret);
		return;
	}
	closer = target->end - 1;
	line = line_start(t, closer);
	if (!first_on_line(t, closer) || line <= target->start) {
		insert_before_closer(t, change, item, ret);
		return;
	}
	put_indent(&sb, t, target, closer);
	strbuf_puts(&sb, item);
	strbuf_puts(&sb, eol_of(t));
	ret->from = ret->to = line;
	ret->text = strbuf_steal(&sb);
}

void ucl_splice_replace(struct ucl_text t, const struct ucl_change *change, const char *value,
			struct ucl_splice *ret)
{
	size_t from = change->target->start, to = change->target->end;
	size_t next = skip_blanks(t, to);
	bool glued = from > 0 && t.data[from - 1] == '"'; /* "key"{...} */
	bool open = !is_eol_at(t, next) && !strchr(";,}]#/", t.data[next]);

	ret->from = from;
	ret->to = to;
	ret->text = xasprintf("%s%s%s", glued ? " = " : "", value, open ? ";" : "");
}

/* The last of several elements goes with the comma before it. */
static size_t comma_before(struct ucl_text t, size_t at)
{
	size_t p = at;

	while (p > 0 && ucl_is_blank(t.data[p - 1]))
		p--;
	return p > 0 && t.data[p - 1] == ',' ? p - 1 : at;
}

void ucl_splice_remove(struct ucl_text t, const struct ucl_change *change, struct ucl_splice *ret)
{
	const struct ucl_value *v = change->target;
	size_t start = item_start(t, change->parent, v);
	size_t end = past_separator(t, v->end);
	size_t next = skip_blanks(t, end);

	ret->text = xstrdup("");
	ret->from = start;
	ret->to = next;
	if (first_on_line(t, start) && rest_is_comment(t, end)) {
		ret->from = line_start(t, start);
		ret->to = past_eol(t, line_end(t, end));
	} else if (change->parent->type == UCL_ARRAY && end == v->end &&
		   comma_before(t, start) != start) {
		ret->from = comma_before(t, start);
		ret->to = end;
	} else if (is_eol_at(t, next)) {
		while (ret->from > 0 && ucl_is_blank(t.data[ret->from - 1]))
			ret->from--;
	}
}
