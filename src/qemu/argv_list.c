/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector itself: grow, free, show to people, and split the words of a property into arguments.
 * No shell reads any of it, ever.
 */
#include "qemu/argv.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/argv_private.h"

#define WORDS_MAX 256 /* arguments out of one property */

/* Takes text. */
static void push(struct argv *a, char *text)
{
	a->items = xrealloc(a->items, (a->count + 2) * sizeof(a->items[0]));
	a->items[a->count++] = text;
	a->items[a->count] = NULL;
}

void argv_add(struct argv *a, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort(); /* as xmalloc does */
	va_end(ap);
	push(a, text);
}

void argv_done(struct argv *a)
{
	for (size_t i = 0; i < a->count; i++)
		free(a->items[i]);
	free(a->items);
	*a = (struct argv){0};
}

void argv_join(struct argv *a, struct argv *from)
{
	for (size_t i = 0; i < from->count; i++)
		push(a, from->items[i]);
	free(from->items);
	*from = (struct argv){0};
}

static bool plain(const char *text)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789-_=+,./:@%";

	return *text && text[strspn(text, safe)] == '\0';
}

static void put_word(struct strbuf *sb, const char *text)
{
	if (plain(text))
		strbuf_puts(sb, text);
	else
		strbuf_put_quoted(sb, text);
}

char *argv_text(const struct argv *a)
{
	struct strbuf sb = {0};

	for (size_t i = 0; i < a->count; i++) {
		if (i > 0)
			strbuf_puts(&sb, a->items[i][0] == '-' ? " \\\n\t" : " ");
		put_word(&sb, a->items[i]);
	}
	strbuf_putc(&sb, '\n');
	return strbuf_steal(&sb);
}

/* --- words of a property --- */

/* One quoted part, p behind the opening quote; returns the closing one or NULL. */
static const char *take_quoted(const char *p, char quote, struct strbuf *word)
{
	for (; *p && *p != quote; p++) {
		if (quote == '"' && *p == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		strbuf_putc(word, *p);
	}
	return *p ? p : NULL;
}

/* One word; returns where it ended, or NULL for an open quote or a backslash at the end. */
static const char *take_word(const char *p, struct strbuf *word)
{
	strbuf_puts(word, ""); /* '' is an empty argument */
	while (*p && !strchr(" \t\r\n", *p)) {
		if (*p == '\'' || *p == '"') {
			p = take_quoted(p + 1, *p, word);
			if (!p)
				return NULL;
			p++;
			continue;
		}
		if (*p == '\\' && *++p == '\0')
			return NULL;
		strbuf_putc(word, *p++);
	}
	return p;
}

int argv_split(const char *text, const char *what, struct argv *ret, struct err *err)
{
	struct argv words = {0};
	const char *p = text + strspn(text, " \t\r\n");

	while (*p) {
		AUTO_STRBUF struct strbuf word = {0};
		const char *start = p;

		p = words.count < WORDS_MAX ? take_word(p, &word) : NULL;
		if (!p) {
			size_t n = words.count;

			argv_done(&words);
			if (n >= WORDS_MAX)
				return err_set(err, E2BIG, "%s: more than %d arguments", what,
					       WORDS_MAX);
			return err_set(err, EINVAL,
				       "%s: the word at character %zu has no closing quote", what,
				       (size_t)(start - text) + 1);
		}
		push(&words, strbuf_steal(&word));
		p += strspn(p, " \t\r\n");
	}
	argv_join(ret, &words);
	return 0;
}
