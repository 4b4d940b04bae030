/* SPDX-License-Identifier: Apache-2.0 */
/* The four forms of strings, and what a bare value turns out to be. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "ucl/parse.h"

static int hex4(const char *p, const char *end, unsigned *ret)
{
	unsigned code = 0;

	if (end - p < 4)
		return -EINVAL;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		unsigned digit;

		if (c >= '0' && c <= '9')
			digit = (unsigned)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (unsigned)((c | 0x20) - 'a' + 10);
		else
			return -EINVAL;
		code = code * 16 + digit;
	}
	*ret = code;
	return 0;
}

static size_t put_utf8(char *to, unsigned code)
{
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | code >> 6);
		to[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (char)(0xe0 | code >> 12);
		to[1] = (char)(0x80 | (code >> 6 & 0x3f));
		to[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | code >> 18);
	to[1] = (char)(0x80 | (code >> 12 & 0x3f));
	to[2] = (char)(0x80 | (code >> 6 & 0x3f));
	to[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/*
 * The escape \uXXXX whose digits are at *p. Unlike libucl, halves of surrogate pairs are joined
 * and lonely ones refused, so that no escape makes a string that is no UTF-8.
 */
static int unescape_code(struct ucl_parser *ps, const char **p, const char *end, char **to)
{
	const char *digits = *p;
	unsigned code, low;

	if (hex4(digits, end, &code) < 0)
		return ucl_fault(ps, EINVAL, digits - 2, "invalid utf escape (want \\uXXXX)");
	if (code == 0)
		return ucl_fault(ps, EINVAL, digits - 2, "a zero byte is not allowed");
	*p += 4;
	if (code >= 0xd800 && code < 0xdc00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u' &&
	    hex4(*p + 2, end, &low) == 0 && low >= 0xdc00 && low < 0xe000) {
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
		*p += 6;
	}
	if (code >= 0xd800 && code < 0xe000)
		return ucl_fault(ps, EINVAL, digits - 2,
				 "invalid utf escape: half of a surrogate pair");
	if (code == '$')
		*(*to)++ = UCL_LITERAL_DOLLAR;
	else
		*to += put_utf8(*to, code);
	return 0;
}

/* What \letter stands for: itself, unless it is one of these. */
static char escaped(char letter)
{
	static const char escapes[] = "n\nr\rt\tb\bf\f";

	for (size_t i = 0; i + 1 < sizeof(escapes); i += 2)
		if (escapes[i] == letter)
			return escapes[i + 1];
	if (letter == '$')
		return UCL_LITERAL_DOLLAR;
	return letter;
}

/* [from, end) with escapes resolved; an escaped dollar is marked for ucl_expand. */
static int unescape(struct ucl_parser *ps, const char *from, const char *end, char **ret,
		    size_t *ret_len)
{
	/* No escape is longer than it was written. */
	char *text = ucl_alloc_text(ps->doc, (size_t)(end - from));
	char *to = text;
	const char *p = from;

	while (p < end) {
		int r = 0;

		if (*p != '\\' || p + 1 >= end) {
			*to++ = *p++;
			continue;
		}
		p += 2;
		if (p[-1] == 'u')
			r = unescape_code(ps, &p, end, &to);
		else
			*to++ = escaped(p[-1]);
		if (r < 0)
			return r;
	}
	*to = '\0';
	*ret = text;
	*ret_len = (size_t)(to - text);
	return 0;
}

/* What a stretch of text needs beyond being copied. */
struct traits {
	bool escapes, dollars;
};

static int make_string(struct ucl_parser *ps, const char *from, const char *end, struct traits t,
		       const char **ret)
{
	size_t len = (size_t)(end - from);
	char *text = NULL;
	int r;

	if (!t.escapes) {
		text = ucl_strndup(ps->doc, from, len);
	} else {
		r = unescape(ps, from, end, &text, &len);
		if (r < 0)
			return r;
	}
	*ret = text;
	return t.dollars ? ucl_expand(ps, from, text, len, ret) : 0;
}

/* From the quote at ps->src->p to behind its fellow; *ret_end is at the latter. */
static int scan_quoted(struct ucl_parser *ps, const char **ret_end, struct traits *t)
{
	struct ucl_source *src = ps->src;
	const char *p;

	for (p = src->p + 1; p < src->end && *p != '"'; p++) {
		if (ucl_is_eol(*p))
			return ucl_fault(ps, EINVAL, p,
					 "unexpected newline in a string (close it with '\"')");
		if ((unsigned char)*p < 0x20)
			return ucl_fault(ps, EINVAL, p,
					 "unexpected control character 0x%02x in a string", *p);
		if (*p == '$')
			t->dollars = true;
		if (*p != '\\')
			continue;
		t->escapes = true;
		/* \$ and \u0024 leave a mark that has to be resolved. */
		if (p + 1 < src->end && (p[1] == '$' || p[1] == 'u'))
			t->dollars = true;
		if (p + 1 < src->end && (unsigned char)p[1] >= 0x20)
			p++;
	}
	if (p >= src->end)
		return ucl_fault(ps, EINVAL, src->p,
				 "no quote at the end of the string that begins here");
	*ret_end = p;
	return 0;
}

static int parse_quoted(struct ucl_parser *ps, struct ucl_value *v)
{
	struct ucl_source *src = ps->src;
	struct traits t = {0};
	const char *end = NULL;
	int r = scan_quoted(ps, &end, &t);

	if (r == 0)
		r = make_string(ps, src->p + 1, end, t, &v->string);
	if (r == 0)
		src->p = end + 1;
	return r;
}

int ucl_parse_quoted_key(struct ucl_parser *ps, char **ret, size_t *ret_len)
{
	struct ucl_source *src = ps->src;
	struct traits t = {0};
	const char *end = NULL;
	char name[8];
	int c;
	int r = scan_quoted(ps, &end, &t);

	if (r < 0)
		return r;
	r = unescape(ps, src->p + 1, end, ret, ret_len);
	if (r < 0)
		return r;
	if (*ret_len == 0)
		return ucl_fault(ps, EINVAL, src->p, "empty keys are not allowed");
	for (size_t i = 0; i < *ret_len; i++) /* keys hold no variables */
		if ((*ret)[i] == UCL_LITERAL_DOLLAR)
			(*ret)[i] = '$';
	src->p = end + 1;
	c = ucl_peek(src);
	if (c >= 0 && !strchr(" \t\r\n=:{[#/", c))
		return ucl_fault(ps, EINVAL, src->p,
				 "unexpected %s after a key (want '=', ':' or a blank)",
				 ucl_char_name(src, src->p, name));
	return 0;
}

/* '...': may span lines; only \' and backslash line-end mean something. */
static int parse_single(struct ucl_parser *ps, struct ucl_value *v)
{
	struct ucl_source *src = ps->src;
	const char *p = src->p + 1, *q;
	char *text, *to;

	while (p < src->end && *p != '\'')
		p += *p == '\\' && p + 1 < src->end ? 2 : 1;
	if (p >= src->end)
		return ucl_fault(ps, EINVAL, src->p,
				 "no quote at the end of the string that begins here");
	to = text = ucl_alloc_text(ps->doc, (size_t)(p - src->p));
	for (q = src->p + 1; q < p;) {
		if (*q != '\\') {
			*to++ = *q++;
		} else if (ucl_is_eol(q[1])) {
			q = ucl_past_eol(q + 1, p);
		} else {
			if (q[1] != '\'')
				*to++ = '\\';
			*to++ = q[1];
			q += 2;
		}
	}
	*to = '\0';
	v->string = text;
	src->p = p + 1;
	return 0;
}

/* The end of the tag when `<<TAG` and a line end stand at p, else NULL: then it is a bare value. */
static const char *heredoc_tag(const struct ucl_source *src)
{
	const char *p = src->p;

	if (src->end - p < 4 || p[0] != '<' || p[1] != '<')
		return NULL;
	for (p += 2; p < src->end && *p >= 'A' && *p <= 'Z'; p++)
		;
	return p > src->p + 2 && p < src->end && ucl_is_eol(*p) ? p : NULL;
}

static bool ends_heredoc(const char *line, const char *end, const char *tag, size_t len)
{
	if ((size_t)(end - line) < len || memcmp(line, tag, len) != 0)
		return false;
	line += len;
	return line == end || ucl_is_eol(*line) || *line == ';' || *line == ',';
}

static int parse_heredoc(struct ucl_parser *ps, const char *tag_end, struct ucl_value *v)
{
	struct ucl_source *src = ps->src;
	const char *tag = src->p + 2;
	size_t len = (size_t)(tag_end - tag);
	const char *from = ucl_past_eol(tag_end, src->end);
	const char *line = from, *text_end = from;
	struct traits t = {0};

	while (line < src->end && !ends_heredoc(line, src->end, tag, len)) {
		text_end = line;
		while (text_end < src->end && !ucl_is_eol(*text_end)) {
			t.dollars |= *text_end == '$';
			text_end++;
		}
		line = text_end < src->end ? ucl_past_eol(text_end, src->end) : src->end;
	}
	/* A text that ends with the file has had no chance to hold the tag behind its end. */
	if (!ends_heredoc(line, src->end, tag, len))
		return ucl_fault(ps, EINVAL, src->p,
				 "unterminated multiline value (want a line of just %.*s)",
				 len > 40 ? 40 : (int)len, tag);
	src->p = line + len;
	return make_string(ps, from, text_end, t, &v->string);
}

/* The end of the bare value at src->p, trailing blanks cut; src->p moves behind the blanks. */
static const char *scan_bare(struct ucl_source *src, struct traits *t)
{
	const char *p, *last = src->p;
	unsigned braces = 0, brackets = 0;

	for (p = src->p; p < src->end && !ucl_is_eol(*p); p++) {
		char c = *p;

		if (c == ',' || c == ';' || c == '#' ||
		    (c == '/' && p + 1 < src->end && p[1] == '*'))
			break;
		if ((c == '}' && braces == 0) || (c == ']' && brackets == 0))
			break;
		braces += (unsigned)(c == '{') - (unsigned)(c == '}');
		brackets += (unsigned)(c == '[') - (unsigned)(c == ']');
		t->dollars |= c == '$';
		if (c == '\\') {
			t->escapes = t->dollars = true;
			if (p + 1 < src->end)
				p++;
		}
		if (!ucl_is_blank(c))
			last = p + 1;
	}
	src->p = p;
	return last;
}

static int parse_bare(struct ucl_parser *ps, struct ucl_value *v)
{
	struct ucl_source *src = ps->src;
	const char *from = src->p;
	struct traits t = {0};
	const char *end = scan_bare(src, &t);
	int r = 0;

	if (end == from)
		return ucl_fault(ps, EINVAL, from,
				 "string value must not be empty (write \"\" for that)");
	v->end = (size_t)(end - src->text);
	if (!t.escapes)
		r = ucl_parse_word(ps, from, (size_t)(end - from), v);
	if (r == 0)
		return make_string(ps, from, end, t, &v->string);
	return r < 0 ? r : 0;
}

int ucl_parse_scalar(struct ucl_parser *ps, struct ucl_value **ret)
{
	struct ucl_source *src = ps->src;
	struct ucl_value *v = ucl_new(ps, UCL_STRING, src->p);
	const char *tag_end;
	int r;

	*ret = v;
	if (*src->p != '"' && *src->p != '\'') {
		tag_end = heredoc_tag(src);
		if (!tag_end)
			return parse_bare(ps, v);
		r = parse_heredoc(ps, tag_end, v);
	} else {
		r = *src->p == '"' ? parse_quoted(ps, v) : parse_single(ps, v);
	}
	v->end = (size_t)(src->p - src->text);
	return r;
}
