/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The structure of UCL: file, items, keys, named keys, objects, arrays. Every fault ends the
 * parse; recursion is bounded by UCL_DEPTH_MAX and UCL_INCLUDE_DEPTH.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "ucl/parse.h"

struct ucl_value *ucl_new(struct ucl_parser *ps, enum ucl_type type, const char *at)
{
	struct ucl_value *v = ucl_alloc(ps->doc, sizeof(*v));

	v->type = type;
	v->pos = v->key = ucl_pos_at(ps->src, at);
	v->start = v->end = (size_t)(at - ps->src->text);
	return v;
}

static void finish(struct ucl_parser *ps, struct ucl_value *v)
{
	v->end = (size_t)(ps->src->p - ps->src->text);
}

static int enter(struct ucl_parser *ps, const char *at)
{
	if (++ps->depth > UCL_DEPTH_MAX)
		return ucl_fault(ps, E2BIG, at, "nested deeper than %d levels", UCL_DEPTH_MAX);
	return 0;
}

static int parse_bare_key(struct ucl_parser *ps, const char **ret, size_t *ret_len)
{
	struct ucl_source *src = ps->src;
	const char *from = src->p;
	char name[8];
	int c = ucl_peek(src);

	if (!ucl_is_key_start(c))
		return ucl_fault(ps, EINVAL, from,
				 "key must begin with a letter, digit, '_', '/' or '\"', not %s",
				 ucl_char_name(src, from, name));
	while (ucl_is_key_char(ucl_peek(src)))
		src->p++;
	c = ucl_peek(src);
	if (c >= 0 && !ucl_is_blank(c) && !ucl_is_eol(c) && c != '=' && c != ':')
		return ucl_fault(ps, EINVAL, src->p, "invalid character in a key: %s%s",
				 ucl_char_name(src, src->p, name),
				 c == '{' || c == '[' ? " (put a blank before it)" : "");
	*ret = from;
	*ret_len = (size_t)(src->p - from);
	return 0;
}

static int parse_key(struct ucl_parser *ps, const char **ret)
{
	const char *text = NULL;
	char *key = NULL;
	size_t len = 0;
	int r;

	if (ucl_peek(ps->src) == '"') {
		r = ucl_parse_quoted_key(ps, &key, &len);
	} else {
		r = parse_bare_key(ps, &text, &len);
		if (r == 0)
			key = ucl_strndup(ps->doc, text, len);
	}
	if (r < 0)
		return r;
	for (size_t i = 0; ps->opt->fold_keys && i < len; i++)
		if (key[i] >= 'A' && key[i] <= 'Z')
			key[i] = (char)(key[i] - 'A' + 'a');
	*ret = key;
	return 0;
}

/* Past a quoted text at p that ends on its line, else NULL. */
static const char *past_quoted(const char *p, const char *end)
{
	for (p++; p < end && !ucl_is_eol(*p); p++) {
		if (*p == '"')
			return p + 1;
		if (*p == '\\' && p + 1 < end)
			p++;
	}
	return NULL;
}

/*
 * Does the key just read name an object or array further on, as in `disk "root" {`? Only keys,
 * blanks and comments may stand between. libucl looks for any brace on the line and then fails
 * on what is no key; we take such a line as a plain value. Only `a b = {` is left to fail, being
 * a likely slip.
 */
static bool brace_follows(struct ucl_parser *ps)
{
	struct ucl_source ahead = *ps->src;
	struct ucl_parser look = {.src = &ahead, .opt = ps->opt};
	bool commented = false, assigned = false;

	/*
	 * Comments end bare values, so a line may hold many items, each looking ahead over the
	 * rest: then not further than names can be nested.
	 */
	for (int keys = 0; keys <= UCL_DEPTH_MAX || !commented; keys++) {
		int r = ucl_skip(&look, UCL_SKIP_BLANKS);
		int c = ucl_peek(&ahead);

		if (c == '{' || c == '[')
			return true;
		if (r < 0 || assigned)
			break;
		commented |= r > 0;
		if (c == '=' || c == ':') {
			assigned = true;
			ahead.p++;
		} else if (c == '"') {
			ahead.p = past_quoted(ahead.p, ahead.end);
			if (!ahead.p)
				break;
		} else if (ucl_is_key_start(c)) {
			while (ucl_is_key_char(ucl_peek(&ahead)))
				ahead.p++;
		} else {
			break;
		}
	}
	return false;
}

int ucl_need_separator(struct ucl_parser *ps)
{
	struct ucl_source *src = ps->src;
	int r = ucl_skip(ps, UCL_SKIP_BLANKS);
	int c = ucl_peek(src);

	if (r != 0)
		return r < 0 ? r : 0;
	if (c < 0 || ucl_is_eol(c) || c == ';' || c == ',' || c == '}' || c == ']')
		return 0;
	return ucl_fault(ps, EINVAL, src->p,
			 "delimiter is missing (want ';' or a line end after the value)");
}

static int parse_array(struct ucl_parser *ps, struct ucl_value **ret);

static int parse_object(struct ucl_parser *ps, struct ucl_value **ret)
{
	const char *open = ps->src->p;
	struct ucl_value *v = ucl_new(ps, UCL_OBJECT, open);
	int r = enter(ps, open);

	if (r < 0)
		return r;
	ps->src->p++;
	r = ucl_parse_body(ps, v, open);
	finish(ps, v);
	ps->depth--;
	*ret = v;
	return r;
}

static int parse_value(struct ucl_parser *ps, struct ucl_value **ret)
{
	int c = ucl_peek(ps->src);
	int r;

	if (ps->doc->bytes > UCL_BYTES_MAX)
		return ucl_fault(ps, E2BIG, ps->src->p,
				 "too much text (more than %u MiB in memory)", UCL_BYTES_MAX >> 20);
	if (c == '{')
		return parse_object(ps, ret);
	if (c == '[')
		return parse_array(ps, ret);
	r = ucl_parse_scalar(ps, ret);
	if (r == 0 && (c == '"' || c == '\''))
		r = ucl_need_separator(ps);
	return r;
}

static int wrong_closer(struct ucl_parser *ps, const char *open, char want)
{
	struct ucl_pos from;

	if (!open)
		return ucl_fault(ps, EINVAL, ps->src->p, "'%c' without '%c' before it", *ps->src->p,
				 *ps->src->p == '}' ? '{' : '[');
	from = ucl_pos_at(ps->src, open);
	return ucl_fault(ps, EINVAL, ps->src->p,
			 "unexpected terminating symbol '%c' (want '%c' for the '%c' of line %d)",
			 *ps->src->p, want, *open, from.line);
}

static int unclosed(struct ucl_parser *ps, const char *open)
{
	return ucl_fault(ps, EINVAL, open, "unmatched open %s: nothing closes this '%c'",
			 *open == '{' ? "brace" : "bracket", *open);
}

static int parse_array(struct ucl_parser *ps, struct ucl_value **ret)
{
	struct ucl_source *src = ps->src;
	const char *open = src->p;
	struct ucl_value *v = ucl_new(ps, UCL_ARRAY, open);
	struct ucl_value *item;
	int r = enter(ps, open);

	if (r < 0)
		return r;
	src->p++;
	while ((r = ucl_skip(ps, UCL_SKIP_ITEMS)) >= 0) {
		int c = ucl_peek(src);

		if (c < 0)
			return unclosed(ps, open);
		if (c == '}')
			return wrong_closer(ps, open, ']');
		if (c == ']')
			break;
		r = parse_value(ps, &item);
		if (r < 0)
			return r;
		ucl_array_add(ps->doc, v, item);
	}
	if (r < 0)
		return r;
	src->p++;
	finish(ps, v);
	ps->depth--;
	*ret = v;
	return 0;
}

/* After `key =`: the value, perhaps on a later line; null at the end of the file. */
static int parse_assigned(struct ucl_parser *ps, struct ucl_value **ret)
{
	struct ucl_source *src = ps->src;
	int r;

	src->p++;
	r = ucl_skip(ps, UCL_SKIP_LINES);
	if (r < 0)
		return r;
	if (src->p >= src->end) {
		*ret = ucl_new(ps, UCL_NULL, src->p);
		return 0;
	}
	if (*src->p == '=' || *src->p == ':')
		return ucl_fault(ps, EINVAL, src->p, "unexpected '%c' (one '=' or ':' is enough)",
				 *src->p);
	return parse_value(ps, ret);
}

static int parse_item(struct ucl_parser *ps, struct ucl_value *obj, bool named);

/* `key name { ... }`: the value of key is an object with one member, name. */
static int parse_named(struct ucl_parser *ps, struct ucl_value **ret)
{
	struct ucl_value *v = ucl_new(ps, UCL_OBJECT, ps->src->p);
	int r = enter(ps, ps->src->p);

	if (r < 0)
		return r;
	r = parse_item(ps, v, true);
	/* It ends where its only member does, before comments that were skipped since. */
	if (r == 0)
		v->end = v->items[0]->end;
	ps->depth--;
	*ret = v;
	return r;
}

static int parse_item_value(struct ucl_parser *ps, bool named, struct ucl_value **ret)
{
	struct ucl_source *src = ps->src;
	int r = ucl_skip(ps, UCL_SKIP_BLANKS);
	int c = ucl_peek(src);

	if (r < 0)
		return r;
	if ((c == '=' || c == ':') && named)
		return ucl_fault(ps, EINVAL, src->p,
				 "unexpected '%c' after a second key (want '{' or '[')", c);
	if (c == '=' || c == ':')
		return parse_assigned(ps, ret);
	if (c < 0 || ucl_is_eol(c))
		return ucl_fault(ps, EINVAL, src->p, "key without a value (want '=' and a value%s)",
				 c < 0 ? "" : " on the line of the key");
	if (c != '{' && c != '[' && brace_follows(ps))
		return parse_named(ps, ret);
	return parse_value(ps, ret);
}

static int parse_item(struct ucl_parser *ps, struct ucl_value *obj, bool named)
{
	struct ucl_pos at = ucl_pos_at(ps->src, ps->src->p);
	struct ucl_value *v = NULL;
	const char *key = NULL;
	int r;

	r = parse_key(ps, &key);
	if (r < 0)
		return r;
	r = parse_item_value(ps, named, &v);
	if (r < 0)
		return r;
	v->key = at;
	return ucl_add_member(ps, obj, key, v);
}

int ucl_parse_body(struct ucl_parser *ps, struct ucl_value *obj, const char *open)
{
	struct ucl_source *src = ps->src;
	int r;

	while ((r = ucl_skip(ps, UCL_SKIP_ITEMS)) >= 0) {
		int c = ucl_peek(src);

		if (c < 0 && open)
			return unclosed(ps, open);
		if (c < 0)
			return 0;
		if (c == ']' || (c == '}' && !open))
			return wrong_closer(ps, open, '}');
		if (c == '}') {
			src->p++;
			return 0;
		}
		if (c == '.')
			r = ucl_parse_macro(ps, obj);
		else
			r = parse_item(ps, obj, false);
		if (r < 0)
			break;
	}
	return r;
}

static int expect_end(struct ucl_parser *ps, char closed)
{
	int r = ucl_skip(ps, UCL_SKIP_ITEMS);
	char name[8];

	if (r < 0)
		return r;
	if (ps->src->p < ps->src->end)
		return ucl_fault(ps, EINVAL, ps->src->p,
				 "unexpected %s after the closing '%c' of the whole file",
				 ucl_char_name(ps->src, ps->src->p, name), closed);
	return 0;
}

static int parse_root_array(struct ucl_parser *ps, bool included)
{
	int r;

	if (included)
		return ucl_fault(ps, EINVAL, ps->src->p,
				 "an included file must hold keys, not an array");
	r = parse_array(ps, &ps->doc->root);
	return r < 0 ? r : expect_end(ps, ']');
}

int ucl_parse_source(struct ucl_parser *ps, struct ucl_value *obj)
{
	struct ucl_source *src = ps->src;
	const char *nul = memchr(src->text, '\0', (size_t)(src->end - src->text));
	const char *begin;
	int r;

	if (nul)
		return ucl_fault(ps, EINVAL, nul, "a zero byte is not allowed");
	if (src->end - src->text >= 3 && memcmp(src->text, "\xef\xbb\xbf", 3) == 0)
		src->p += 3;
	begin = src->p;
	r = ucl_skip(ps, UCL_SKIP_ITEMS);
	if (r < 0)
		return r;
	if (ucl_peek(src) == '[')
		return parse_root_array(ps, obj != NULL);
	if (ucl_peek(src) == '{')
		begin = src->p;
	if (!obj)
		obj = ps->doc->root = ucl_new(ps, UCL_OBJECT, begin);
	if (ucl_peek(src) != '{') {
		r = ucl_parse_body(ps, obj, NULL);
		if (obj == ps->doc->root && !src->parent)
			finish(ps, obj);
		return r;
	}
	src->p++;
	r = ucl_parse_body(ps, obj, begin);
	if (r < 0)
		return r;
	if (obj == ps->doc->root && !src->parent)
		finish(ps, obj);
	return expect_end(ps, '}');
}

static int parse_text(const char *name, const char *text, size_t len, const struct stat *st,
		      struct ucl_parser *ps)
{
	struct ucl_source src = {
		.text = text, .end = text + len, .p = text, .mark = text, .bol = text, .line = 1};

	if (len > UCL_TEXT_MAX)
		return err_set(ps->err, E2BIG, "%s: larger than %u bytes", name, UCL_TEXT_MAX);
	src.file = ucl_doc_file(ps->doc, name);
	src.dir = ucl_doc_folder(ps->doc, src.file);
	if (st) {
		src.identified = true;
		src.dev = st->st_dev;
		src.ino = st->st_ino;
	}
	ps->src = &src;
	return ucl_parse_source(ps, NULL);
}

static int parse(const char *name, const char *text, size_t len, const struct stat *st,
		 const struct ucl_options *opt, struct ucl_doc **ret_doc, struct err *err)
{
	static const struct ucl_options defaults;
	struct ucl_parser ps = {.opt = opt ? opt : &defaults, .err = err};
	int r;

	ps.doc = ucl_doc_new(len);
	r = parse_text(name, text, len, st, &ps);
	ucl_index_done(&ps.index);
	if (r < 0)
		ucl_free(ps.doc);
	else
		*ret_doc = ps.doc;
	return r < 0 ? r : 0;
}

int ucl_parse(const char *name, const char *text, size_t len, const struct ucl_options *opt,
	      struct ucl_doc **ret_doc, struct err *err)
{
	return parse(name, text, len, NULL, opt, ret_doc, err);
}

int ucl_parse_file(const char *path, const struct ucl_options *opt, struct ucl_doc **ret_doc,
		   struct err *err)
{
	AUTO_FREE char *text = NULL;
	struct stat st;
	size_t len;
	int r = file_read(path, UCL_TEXT_MAX, &text, &len, &st, err);

	return r < 0 ? r : parse(path, text, len, &st, opt, ret_doc, err);
}
