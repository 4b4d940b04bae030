/* SPDX-License-Identifier: Apache-2.0 */
/* A growing text or byte buffer. Initialise with {0}; always NUL-terminated once written to. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct strbuf {
	char *data;
	size_t len;
	size_t cap;
};

#define AUTO_STRBUF __attribute__((cleanup(strbuf_done)))

void strbuf_done(struct strbuf *sb);
/* Make room for extra bytes beyond len (and the NUL). */
void strbuf_reserve(struct strbuf *sb, size_t extra);
void strbuf_add(struct strbuf *sb, const void *data, size_t len);
void strbuf_puts(struct strbuf *sb, const char *text);
void strbuf_putc(struct strbuf *sb, char c);
void strbuf_printf(struct strbuf *sb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Forget the first len bytes. */
void strbuf_drop(struct strbuf *sb, size_t len);
/* Hand the text over (never NULL); the buffer is empty afterwards. */
char *strbuf_steal(struct strbuf *sb);

bool str_eq(const char *a, const char *b); /* NULL equals NULL only */
bool str_starts(const char *text, const char *prefix);
bool str_ends(const char *text, const char *suffix);

/*
 * The word in words[count] nearest to text, for "did you mean"; NULL when none is near
 * (distance over a third of the length, transposition counts one).
 */
const char *str_nearest(const char *text, const char *const *words, size_t count);

/* Append text with control characters as \n, \t, \xHH: for terminals and logs. */
void strbuf_put_escaped(struct strbuf *sb, const char *text);

/* Append 'text' in single quotes, as one word for a POSIX shell whatever is in it. */
void strbuf_put_quoted(struct strbuf *sb, const char *text);

/* Replace *at (malloc): "2:8:20:A:B:C" by "02:08:20:0a:0b:0c"; anything else stays. */
void str_normalise_mac(char **at);
