/* SPDX-License-Identifier: Apache-2.0 */
/* Growing text; see strbuf.h. */
#include "base/strbuf.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NEAREST_MAX 64 /* longer words get no suggestion */

void strbuf_done(struct strbuf *sb)
{
	free(sb->data);
	*sb = (struct strbuf){0};
}

void strbuf_reserve(struct strbuf *sb, size_t extra)
{
	size_t want = sb->len + extra + 1;

	if (want <= sb->cap)
		return;
	if (want < sb->cap * 2)
		want = sb->cap * 2;
	if (want < 64)
		want = 64;
	sb->data = xrealloc(sb->data, want);
	sb->cap = want;
}

void strbuf_add(struct strbuf *sb, const void *data, size_t len)
{
	strbuf_reserve(sb, len);
	if (len)
		memcpy(sb->data + sb->len, data, len);
	sb->len += len;
	sb->data[sb->len] = '\0';
}

void strbuf_puts(struct strbuf *sb, const char *text)
{
	strbuf_add(sb, text, strlen(text));
}

void strbuf_putc(struct strbuf *sb, char c)
{
	strbuf_add(sb, &c, 1);
}

void strbuf_printf(struct strbuf *sb, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	strbuf_reserve(sb, (size_t)n);
	va_start(ap, fmt);
	(void)vsnprintf(sb->data + sb->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	sb->len += (size_t)n;
}

void strbuf_drop(struct strbuf *sb, size_t len)
{
	if (len >= sb->len) {
		sb->len = 0;
	} else {
		memmove(sb->data, sb->data + len, sb->len - len);
		sb->len -= len;
	}
	if (sb->data)
		sb->data[sb->len] = '\0';
}

char *strbuf_steal(struct strbuf *sb)
{
	char *text;

	strbuf_reserve(sb, 0);
	sb->data[sb->len] = '\0';
	text = sb->data;
	*sb = (struct strbuf){0};
	return text;
}

bool str_eq(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool str_starts(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *text, const char *suffix)
{
	size_t len = strlen(text), n = strlen(suffix);

	return len >= n && memcmp(text + len - n, suffix, n) == 0;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Damerau-Levenshtein with adjacent transpositions, on three rolling rows. */
static unsigned distance(const char *a, size_t alen, const char *b, size_t blen)
{
	unsigned rows[3][NEAREST_MAX + 1];
	unsigned *before = rows[0], *prev = rows[1], *cur = rows[2], *spare;

	for (size_t j = 0; j <= blen; j++)
		prev[j] = (unsigned)j;
	for (size_t i = 1; i <= alen; i++) {
		cur[0] = (unsigned)i;
		for (size_t j = 1; j <= blen; j++) {
			unsigned cost = a[i - 1] != b[j - 1];

			cur[j] = min3(prev[j] + 1, cur[j - 1] + 1, prev[j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    before[j - 2] + 1 < cur[j])
				cur[j] = before[j - 2] + 1;
		}
		spare = before;
		before = prev;
		prev = cur;
		cur = spare;
	}
	return prev[blen];
}

const char *str_nearest(const char *text, const char *const *words, size_t count)
{
	size_t len = strlen(text);
	unsigned best = (unsigned)(len < 3 ? 1 : len / 3) + 1;
	const char *found = NULL;

	if (len == 0 || len > NEAREST_MAX)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		size_t wlen = words[i] ? strlen(words[i]) : 0;
		unsigned d;

		if (wlen == 0 || wlen > NEAREST_MAX)
			continue;
		d = distance(text, len, words[i], wlen);
		if (d < best) {
			best = d;
			found = words[i];
		}
	}
	return found;
}

void strbuf_put_escaped(struct strbuf *sb, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '\n')
			strbuf_puts(sb, "\\n");
		else if (*p == '\t')
			strbuf_puts(sb, "\\t");
		else if (*p < 0x20 || *p == 0x7f)
			strbuf_printf(sb, "\\x%02x", *p);
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) /* C1 controls in UTF-8 */
			strbuf_printf(sb, "\\x%02x", *++p);
		else
			strbuf_putc(sb, (char)*p);
	}
}

/* One or two hex digits at *at as two lower-case ones; false when there are none, or more. */
static bool put_octet(struct strbuf *sb, const char **at)
{
	size_t n = strspn(*at, "0123456789abcdefABCDEF");

	if (n < 1 || n > 2)
		return false;
	if (n == 1)
		strbuf_putc(sb, '0');
	for (; n > 0; n--)
		strbuf_putc(sb, (char)tolower((unsigned char)*(*at)++));
	return true;
}

void strbuf_put_quoted(struct strbuf *sb, const char *text)
{
	strbuf_putc(sb, '\'');
	for (; *text; text++) {
		if (*text == '\'')
			strbuf_puts(sb, "'\\''");
		else
			strbuf_putc(sb, *text);
	}
	strbuf_putc(sb, '\'');
}

void str_normalise_mac(char **at)
{
	AUTO_STRBUF struct strbuf sb = {0};
	const char *p = *at;

	for (int octet = 0; octet < 6; octet++) {
		if (octet > 0 && *p != ':' && *p != '-')
			return;
		if (octet > 0) {
			strbuf_putc(&sb, ':');
			p++;
		}
		if (!put_octet(&sb, &p))
			return;
	}
	if (!*p)
		replace_str(at, strbuf_steal(&sb));
}
