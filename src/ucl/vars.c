/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variables in strings: $NAME, taken as a prefix of what follows, and ${NAME}. Unknown ones
 * stay. $$ is a dollar only where a known variable occurs in the same string, as in libucl.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "ucl/parse.h"

/* The value of the variable whose name stands at p; *ret_len: of the name. */
static const char *lookup(const struct ucl_parser *ps, const char *p, const char *end,
			  size_t *ret_len)
{
	const char *const own[][2] = {{"CURDIR", ps->src->dir}, {"FILENAME", ps->src->file}};
	const char *found = NULL;

	*ret_len = 0;
	for (size_t i = 0; i < 2 + ps->opt->nvars; i++) {
		const char *const *var = i < 2 ? own[i] : ps->opt->vars[i - 2];
		size_t len = strlen(var[0]);

		if (len > *ret_len && (size_t)(end - p) >= len && memcmp(p, var[0], len) == 0) {
			*ret_len = len;
			found = var[1];
		}
	}
	return found;
}

/* As lookup, for the dollar at p, with or without braces; *ret_len: of all that it replaces. */
static const char *reference(const struct ucl_parser *ps, const char *p, const char *end,
			     size_t *ret_len)
{
	bool braced = p + 1 < end && p[1] == '{';
	const char *value = lookup(ps, p + 1 + braced, end, ret_len);

	if (!value)
		return NULL;
	*ret_len += 1 + 2 * (size_t)braced;
	return !braced || (p + *ret_len <= end && p[*ret_len - 1] == '}') ? value : NULL;
}

static bool has_variable(const struct ucl_parser *ps, const char *text, const char *end)
{
	size_t len;

	for (const char *p = text; p < end; p++) {
		if (*p != '$')
			continue;
		if (p + 1 < end && p[1] == '$')
			p++;
		else if (reference(ps, p, end, &len))
			return true;
	}
	return false;
}

int ucl_expand(struct ucl_parser *ps, const char *at, char *text, size_t len, const char **ret)
{
	AUTO_STRBUF struct strbuf sb = {0};
	const char *p = text, *end = text + len;
	bool replace = has_variable(ps, text, end);

	while (replace && p < end) {
		const char *value;
		size_t taken = 1;

		if (*p != '$') {
			strbuf_putc(&sb, *p++);
			continue;
		}
		if (p + 1 < end && p[1] == '$') {
			strbuf_putc(&sb, '$');
			p += 2;
			continue;
		}
		value = reference(ps, p, end, &taken);
		if (value)
			strbuf_puts(&sb, value);
		else
			strbuf_putc(&sb, '$');
		p += value ? taken : 1;
		if (sb.len > UCL_TEXT_MAX)
			return ucl_fault(ps, E2BIG, at, "larger than %u bytes with its variables",
					 UCL_TEXT_MAX);
	}
	if (replace) {
		text = ucl_strndup(ps->doc, sb.data, sb.len);
		len = sb.len;
	}
	for (size_t i = 0; i < len; i++)
		if (text[i] == UCL_LITERAL_DOLLAR)
			text[i] = '$';
	*ret = text;
	return 0;
}
