/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes between the items of UCL: blanks, line ends, comments; positions; how faults are told. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "ucl/parse.h"

#include <errno.h>

struct ucl_pos ucl_pos_at(struct ucl_source *src, const char *at)
{
	if (at < src->mark) {
		src->mark = src->bol = src->text;
		src->line = 1;
	}
	for (; src->mark < at; src->mark++) {
		/* The CR of CRLF does not count. */
		if (*src->mark == '\n' ||
		    (*src->mark == '\r' && (src->mark + 1 >= src->end || src->mark[1] != '\n'))) {
			src->line++;
			src->bol = src->mark + 1;
		}
	}
	return (struct ucl_pos){src->file, src->line, (int)(at - src->bol) + 1};
}

int ucl_fault(struct ucl_parser *ps, int code, const char *at, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct ucl_pos pos = ucl_pos_at(ps->src, at);
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	strbuf_printf(&sb, "%s:%d:%d: ", pos.file, pos.line, pos.column);
	strbuf_put_escaped(&sb, text);
	for (const struct ucl_source *s = ps->src; s->parent; s = s->parent)
		strbuf_printf(&sb, " (included from %s:%d)", s->from.file, s->from.line);
	return err_set(ps->err, code, "%s", sb.data);
}

const char *ucl_char_name(const struct ucl_source *src, const char *at, char buf[8])
{
	unsigned char c;

	if (at >= src->end)
		return "the end";
	c = (unsigned char)*at;
	if (ucl_is_eol(c))
		return "a line end";
	(void)snprintf(buf, 8, c > 0x20 && c < 0x7f ? "'%c'" : "0x%02x", c);
	return buf;
}

bool ucl_is_key_start(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '/' || c >= 0x80;
}

bool ucl_is_key_char(int c)
{
	return ucl_is_key_start(c) || c == '-' || c == '.';
}

const char *ucl_past_eol(const char *p, const char *end)
{
	return *p == '\r' && p + 1 < end && p[1] == '\n' ? p + 2 : p + 1;
}

/*
 * Comments nest; a quoted stretch inside hides both marks, as in libucl.
 */
static int skip_comment(struct ucl_parser *ps)
{
	struct ucl_source *src = ps->src;
	const char *p = src->p;
	bool quoted = false;
	unsigned open = 0;

	for (; p < src->end; p++) {
		if (*p == '"' && p[-1] != '\\')
			quoted = !quoted;
		if (quoted || p + 1 >= src->end)
			continue;
		if (p[0] == '/' && p[1] == '*') {
			open++;
			p++;
		} else if (p[0] == '*' && p[1] == '/') {
			p++;
			if (--open == 0) {
				src->p = p + 1;
				return 0;
			}
		}
	}
	return ucl_fault(ps, EINVAL, src->p, "unfinished multiline comment%s",
			 quoted ? " (a quote in it runs to the next quote)" : "");
}

int ucl_skip(struct ucl_parser *ps, enum ucl_skip what)
{
	struct ucl_source *src = ps->src;
	int separated = 0;

	while (src->p < src->end) {
		int c = (unsigned char)*src->p;

		if (ucl_is_blank(c) || (what == UCL_SKIP_ITEMS && (c == '\v' || c == '\f'))) {
			src->p++;
		} else if ((ucl_is_eol(c) && what != UCL_SKIP_BLANKS) ||
			   ((c == ';' || c == ',') && what == UCL_SKIP_ITEMS)) {
			src->p++;
			separated = 1;
		} else if (c == '#') {
			while (src->p < src->end && !ucl_is_eol(*src->p))
				src->p++;
			separated = 1;
		} else if (c == '/' && src->p + 1 < src->end && src->p[1] == '*') {
			int r = skip_comment(ps);

			if (r < 0)
				return r;
			separated = 1;
		} else {
			break;
		}
	}
	return separated;
}
