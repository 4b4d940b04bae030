/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON in place; see js.h. Nothing here recurses: nesting is counted, so that no depth of a
 * foreign text can exhaust the stack. Scalars are taken as they are written; only strings and
 * brackets are understood.
 */
#include "cli/js.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

static const char *blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* p is at the opening quote; returns behind the closing one, NULL when there is none. */
static const char *string_end(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		p = memchr(p, '"', (size_t)(end - p));
		if (!p)
			return NULL;
		size_t slashes = 0;

		while (p[-1 - (ptrdiff_t)slashes] == '\\')
			slashes++;
		if (slashes % 2 == 0)
			return p + 1;
	}
	return NULL;
}

static bool ends_scalar(char c)
{
	return c == ',' || c == ']' || c == '}' || c == ':' || c == '"' || c == '[' || c == '{' ||
	       (unsigned char)c <= ' ';
}

static const char *scalar_end(const char *p, const char *end)
{
	const char *from = p;

	while (p < end && !ends_scalar(*p))
		p++;
	return p > from ? p : NULL;
}

/* Behind a bracketed value whose opening bracket is at p. */
static const char *nested_end(const char *p, const char *end)
{
	size_t depth = 0;

	while (p && p < end) {
		if (*p == '"') {
			p = string_end(p, end);
			continue;
		}
		depth += *p == '{' || *p == '[';
		if (*p == '}' || *p == ']')
			depth--;
		p++;
		if (depth == 0)
			return p;
	}
	return NULL;
}

static const char *value_end(const char *p, const char *end)
{
	if (p >= end)
		return NULL;
	if (*p == '"')
		return string_end(p, end);
	if (*p == '{' || *p == '[')
		return nested_end(p, end);
	return scalar_end(p, end);
}

struct slice js_value(const char *text, size_t len)
{
	const char *end = text + len, *p = blanks(text, end), *q = value_end(p, end);

	if (!q || blanks(q, end) != end)
		return (struct slice){0};
	return (struct slice){p, (size_t)(q - p)};
}

char js_type(struct slice v)
{
	return v.p && v.len ? *v.p : '\0';
}

void js_iter_init(struct js_iter *it, struct slice v)
{
	*it = (struct js_iter){.object = js_type(v) == '{'};
	if ((it->object || js_type(v) == '[') && v.len >= 2) {
		it->p = v.p + 1;
		it->end = v.p + v.len - 1;
	}
}

static bool stop(struct js_iter *it)
{
	it->bad = true;
	it->p = it->end;
	return false;
}

bool js_next(struct js_iter *it, struct slice *ret_key, struct slice *ret_value)
{
	struct slice key = {0};
	const char *q;

	it->p = blanks(it->p, it->end);
	if (it->p >= it->end)
		return false;
	if (it->object) {
		q = *it->p == '"' ? string_end(it->p, it->end) : NULL;
		if (!q)
			return stop(it);
		key = (struct slice){it->p, (size_t)(q - it->p)};
		it->p = blanks(q, it->end);
		if (it->p >= it->end || *it->p != ':')
			return stop(it);
		it->p = blanks(it->p + 1, it->end);
	}
	q = value_end(it->p, it->end);
	if (!q)
		return stop(it);
	*ret_value = (struct slice){it->p, (size_t)(q - it->p)};
	if (ret_key)
		*ret_key = key;
	it->p = blanks(q, it->end);
	if (it->p < it->end && *it->p++ != ',')
		(void)stop(it); /* this value still counts */
	return true;
}

bool js_is(struct slice s, const char *text)
{
	size_t len = strlen(text);
	char *plain;
	bool same;

	if (js_type(s) != '"')
		return false;
	if (!memchr(s.p, '\\', s.len))
		return s.len == len + 2 && memcmp(s.p + 1, text, len) == 0;
	plain = js_string(s);
	same = str_eq(plain, text);
	free(plain);
	return same;
}

struct slice js_member(struct slice object, const char *key)
{
	struct slice k, v;
	struct js_iter it;

	if (js_type(object) != '{')
		return (struct slice){0};
	js_iter_init(&it, object);
	while (js_next(&it, &k, &v))
		if (js_is(k, key))
			return v;
	return (struct slice){0};
}

struct slice js_element(struct slice array, size_t index)
{
	struct js_iter it;
	struct slice v;

	if (js_type(array) != '[')
		return (struct slice){0};
	js_iter_init(&it, array);
	for (size_t i = 0; js_next(&it, NULL, &v); i++)
		if (i == index)
			return v;
	return (struct slice){0};
}

size_t js_count(struct slice v)
{
	struct js_iter it;
	size_t n = 0;

	js_iter_init(&it, v);
	while (js_next(&it, NULL, &v))
		n++;
	return n;
}

static void put_utf8(struct strbuf *sb, uint32_t c)
{
	if (c < 0x80) {
		strbuf_putc(sb, (char)c);
	} else if (c < 0x800) {
		strbuf_putc(sb, (char)(0xc0 | c >> 6));
		strbuf_putc(sb, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		strbuf_putc(sb, (char)(0xe0 | c >> 12));
		strbuf_putc(sb, (char)(0x80 | (c >> 6 & 0x3f)));
		strbuf_putc(sb, (char)(0x80 | (c & 0x3f)));
	} else {
		strbuf_putc(sb, (char)(0xf0 | c >> 18));
		strbuf_putc(sb, (char)(0x80 | (c >> 12 & 0x3f)));
		strbuf_putc(sb, (char)(0x80 | (c >> 6 & 0x3f)));
		strbuf_putc(sb, (char)(0x80 | (c & 0x3f)));
	}
}

/* Four hex digits at p; -1 when they are not. */
static int hex4(const char *p, const char *end)
{
	int value = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int d = c >= '0' && c <= '9'   ? c - '0'
			: c >= 'a' && c <= 'f' ? c - 'a' + 10
			: c >= 'A' && c <= 'F' ? c - 'A' + 10
					       : -1;

		if (d < 0)
			return -1;
		value = value * 16 + d;
	}
	return value;
}

/* p is behind "\u"; returns behind what was understood. Half a surrogate becomes U+FFFD. */
static const char *put_unicode(struct strbuf *sb, const char *p, const char *end)
{
	int high = hex4(p, end), low = -1;

	if (high < 0) {
		strbuf_puts(sb, "\\u");
		return p;
	}
	if (high == 0) {
		strbuf_puts(sb, "\\u0000");
		return p + 4;
	}
	if (high < 0xd800 || high > 0xdfff) {
		put_utf8(sb, (uint32_t)high);
		return p + 4;
	}
	if (high < 0xdc00 && end - p >= 10 && p[4] == '\\' && p[5] == 'u')
		low = hex4(p + 6, end);
	if (low < 0xdc00 || low > 0xdfff) {
		put_utf8(sb, 0xfffd);
		return p + 4;
	}
	put_utf8(sb, 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
	return p + 10;
}

void js_put_string(struct strbuf *sb, struct slice s)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *p, *end, *q;

	if (js_type(s) != '"' || s.len < 2)
		return;
	p = s.p + 1;
	end = s.p + s.len - 1;
	while (p < end) {
		q = memchr(p, '\\', (size_t)(end - p));
		if (!q || q + 1 >= end)
			q = end;
		strbuf_add(sb, p, (size_t)(q - p));
		p = q;
		if (p >= end)
			break;
		if (p[1] == 'u') {
			p = put_unicode(sb, p + 2, end);
			continue;
		}
		q = strchr(from, p[1]);
		strbuf_putc(sb, q && *q ? to[q - from] : p[1]);
		p += 2;
	}
}

char *js_string(struct slice v)
{
	struct strbuf sb = {0};

	if (js_type(v) != '"')
		return NULL;
	js_put_string(&sb, v);
	return strbuf_steal(&sb);
}

char *js_member_string(struct slice object, const char *key)
{
	return js_string(js_member(object, key));
}

static void put_safe(struct strbuf *sb, const char *p, const char *end)
{
	const char *from = p;

	for (; p < end; p++) {
		unsigned char c = (unsigned char)*p, next = p + 1 < end ? (unsigned char)p[1] : 0;
		bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0;

		if (c >= 0x20 && c != 0x7f && !c1)
			continue;
		strbuf_add(sb, from, (size_t)(p - from));
		strbuf_printf(sb, "\\u%04x", c1 ? next : c);
		p += c1;
		from = p + 1;
	}
	if (end > from)
		strbuf_add(sb, from, (size_t)(end - from));
}

static void newline(struct strbuf *sb, int depth)
{
	static const char pad[] = "                                ";

	if (depth < 0)
		return;
	strbuf_putc(sb, '\n');
	for (size_t left = (size_t)depth * 2; left > 0;) {
		size_t n = left < sizeof(pad) - 1 ? left : sizeof(pad) - 1;

		strbuf_add(sb, pad, n);
		left -= n;
	}
}

/* One bracket or separator at p; returns behind it (an empty pair is taken whole). */
static const char *put_mark(struct strbuf *sb, const char *p, const char *end, int *depth)
{
	bool pretty = *depth >= 0;
	const char *next;

	switch (*p) {
	case '{':
	case '[':
		next = blanks(p + 1, end);
		strbuf_putc(sb, *p);
		if (next < end && (*next == '}' || *next == ']')) {
			strbuf_putc(sb, *next);
			return next + 1;
		}
		newline(sb, pretty ? ++*depth : JS_COMPACT);
		break;
	case '}':
	case ']':
		newline(sb, pretty && *depth > 0 ? --*depth : *depth);
		strbuf_putc(sb, *p);
		break;
	case ',':
		strbuf_putc(sb, ',');
		newline(sb, *depth);
		break;
	default:
		strbuf_puts(sb, pretty ? ": " : ":");
	}
	return p + 1;
}

void js_write(struct strbuf *sb, struct slice v, int depth)
{
	const char *p = v.p, *end = v.p + v.len, *q;

	strbuf_reserve(sb, depth < 0 ? v.len : v.len + v.len / 2);
	while (p && p < end) {
		p = blanks(p, end);
		if (p >= end)
			break;
		if (memchr("{}[],:", *p, 6)) {
			p = put_mark(sb, p, end, &depth);
			continue;
		}
		q = *p == '"' ? string_end(p, end) : scalar_end(p, end);
		if (!q)
			q = end;
		put_safe(sb, p, q);
		p = q;
	}
}
