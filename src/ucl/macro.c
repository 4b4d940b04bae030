/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Macros: `.name(arguments) value`. Only .include and .try_include are done; what libucl has
 * beyond them is refused by name, never ignored. Relative paths start from the folder of the
 * including file (libucl: from the working directory).
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/parse.h"

static const char *const refused_macros[] = {"includes", "inherit", "load", "priority"};
static const char *const refused_options[] = {"duplicate", "glob", "key",    "path", "prefix",
					      "priority",  "sign", "target", "url"};

static bool among(const char *word, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(word, words[i]) == 0)
			return true;
	return false;
}

/* The ')' that closes the '(' at p; quoted stretches do not count. NULL without one. */
static const char *closing_paren(const char *p, const char *end)
{
	unsigned open = 0;

	for (; p < end; p++) {
		if (*p == '"') {
			for (p++; p < end && *p != '"'; p++)
				if (*p == '\\' && p + 1 < end)
					p++;
		} else if (*p == '(') {
			open++;
		} else if (*p == ')' && --open == 0) {
			return p;
		}
	}
	return NULL;
}

static int check_option(struct ucl_parser *ps, const char *name, const struct ucl_value *v,
			bool *try)
{
	const char *at = ps->src->text + v->start;

	if (among(name, refused_options, ARRAY_SIZE(refused_options)))
		return ucl_fault(ps, EINVAL, at, "include option \"%s\" is not supported", name);
	if (strcmp(name, "try") != 0)
		return ucl_fault(ps, EINVAL, at, "unknown include option \"%s\" (want try)", name);
	if (v->type != UCL_BOOL)
		return ucl_fault(ps, EINVAL, at,
				 "include option \"try\" is %s (want true or false)",
				 ucl_type_name(v->type));
	*try = v->boolean;
	return 0;
}

/* The arguments in parentheses, if any, are a UCL object. */
static int parse_arguments(struct ucl_parser *ps, bool *try)
{
	struct ucl_source *src = ps->src;
	const char *end = src->end, *close;
	struct ucl_value *args;
	int r;

	if (ucl_peek(src) != '(')
		return 0;
	close = closing_paren(src->p, end);
	if (!close)
		return ucl_fault(ps, EINVAL, src->p, "nothing closes this '('");
	args = ucl_new(ps, UCL_OBJECT, src->p++);
	src->end = close;
	ps->in_arguments = true;
	r = ucl_parse_body(ps, args, NULL);
	ps->in_arguments = false;
	src->end = end;
	for (size_t i = 0; r == 0 && i < args->count; i++)
		r = check_option(ps, args->keys[i], args->items[i], try);
	src->p = close + 1;
	return r < 0 ? r : ucl_skip(ps, UCL_SKIP_BLANKS);
}

/* `{ text }`: up to the first brace; blanks around are not part (libucl keeps trailing ones). */
static int parse_braced_path(struct ucl_parser *ps, const char **ret)
{
	struct ucl_source *src = ps->src;
	const char *from = src->p + 1;
	const char *end = memchr(from, '}', (size_t)(src->end - from));

	if (!end)
		return ucl_fault(ps, EINVAL, src->p,
				 "unmatched open brace: nothing closes this '{'");
	src->p = end + 1;
	while (from < end && isspace((unsigned char)*from))
		from++;
	while (end > from && isspace((unsigned char)end[-1]))
		end--;
	return ucl_expand(ps, from, ucl_strndup(ps->doc, from, (size_t)(end - from)),
			  (size_t)(end - from), ret);
}

static int parse_path(struct ucl_parser *ps, const char **ret)
{
	struct ucl_source *src = ps->src;
	const char *at = src->p;
	struct ucl_value *v = NULL;
	int c = ucl_peek(src);
	int r;

	if (c < 0 || ucl_is_eol(c))
		return ucl_fault(ps, EINVAL, at, "include without a path");
	if (c == '{') {
		r = parse_braced_path(ps, ret);
	} else {
		r = ucl_parse_scalar(ps, &v);
		if (r < 0)
			return r;
		*ret = v->type == UCL_STRING ? v->string : v->raw;
		r = ucl_need_separator(ps);
	}
	if (r < 0)
		return r;
	if (**ret == '\0')
		return ucl_fault(ps, EINVAL, at, "include without a path");
	return 0;
}

/* Is st the file being read, or one that includes it? The first may be known by name only. */
static bool in_chain(const struct ucl_source *src, const struct stat *st)
{
	for (const struct ucl_source *s = src; s; s = s->parent) {
		struct stat own = {.st_dev = s->dev, .st_ino = s->ino};

		if (!s->identified && stat(s->file, &own) < 0)
			continue;
		if (own.st_dev == st->st_dev && own.st_ino == st->st_ino)
			return true;
	}
	return false;
}

static int check_limits(struct ucl_parser *ps, const char *at)
{
	int level = 0;

	if (ps->opt->no_includes)
		return ucl_fault(ps, EINVAL, at, "includes are not allowed here");
	if (++ps->includes > UCL_INCLUDES_MAX)
		return ucl_fault(ps, E2BIG, at, "more than %d includes", UCL_INCLUDES_MAX);
	for (const struct ucl_source *s = ps->src; s->parent; s = s->parent)
		level++;
	if (level >= UCL_INCLUDE_DEPTH)
		return ucl_fault(ps, E2BIG, at, "includes nested deeper than %d",
				 UCL_INCLUDE_DEPTH);
	return 0;
}

/* Read the file inner->file, whose content is text[len], into obj. */
static int read_included(struct ucl_parser *ps, struct ucl_value *obj, struct ucl_source *inner,
			 const char *text, size_t len)
{
	struct ucl_source *outer = ps->src;
	int r;

	inner->parent = outer;
	inner->dir = ucl_doc_folder(ps->doc, inner->file);
	inner->text = inner->p = inner->mark = inner->bol = text;
	inner->end = text + len;
	inner->line = 1;
	ps->src = inner;
	r = ucl_parse_source(ps, obj);
	ps->src = outer;
	return r;
}

static int include(struct ucl_parser *ps, struct ucl_value *obj, const char *path, const char *at,
		   bool try)
{
	struct ucl_source *outer = ps->src;
	bool as_is = *path == '/' || str_eq(outer->dir, ".");
	AUTO_FREE char *full = as_is ? xstrdup(path) : path_join(outer->dir, path);
	struct ucl_source inner = {.from = ucl_pos_at(outer, at), .identified = true};
	AUTO_FREE char *text = NULL;
	struct err why = {0};
	struct stat st;
	size_t len;
	int r = check_limits(ps, at);

	if (r < 0)
		return r;
	inner.file = ucl_doc_file(ps->doc, full);
	r = file_read(full, UCL_TEXT_MAX, &text, &len, &st, &why);
	if (try && (r == -ENOENT || r == -ENOTDIR))
		return 0;
	if (r < 0)
		return ucl_fault(ps, r == -E2BIG ? E2BIG : EINVAL, at, "%s", err_text(&why, r));
	if (in_chain(outer, &st))
		return ucl_fault(ps, EINVAL, at, "'%s' is including itself", full);
	inner.dev = st.st_dev;
	inner.ino = st.st_ino;
	return read_included(ps, obj, &inner, text, len);
}

int ucl_parse_macro(struct ucl_parser *ps, struct ucl_value *obj)
{
	struct ucl_source *src = ps->src;
	const char *at = src->p++;
	const char *path = NULL;
	char name[32];
	size_t len = 0;
	bool try;
	int r;

	while (isalnum(ucl_peek(src)) || ucl_peek(src) == '_' || ucl_peek(src) == '-') {
		if (len + 1 < sizeof(name))
			name[len++] = *src->p;
		src->p++;
	}
	name[len] = '\0';
	if (ps->in_arguments || among(name, refused_macros, ARRAY_SIZE(refused_macros)))
		return ucl_fault(ps, EINVAL, at, "macro \".%s\" is not supported%s", name,
				 ps->in_arguments ? " in arguments" : "");
	try = strcmp(name, "try_include") == 0;
	if (!try && strcmp(name, "include") != 0)
		return ucl_fault(ps, EINVAL, at, "unknown macro \".%s\"", name);
	r = ucl_skip(ps, UCL_SKIP_BLANKS);
	if (r >= 0)
		r = parse_arguments(ps, &try);
	if (r >= 0)
		r = parse_path(ps, &path);
	return r < 0 ? r : include(ps, obj, path, at, try);
}
