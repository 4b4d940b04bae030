/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON text looked at in place, without a tree: `vmadm list` of a thousand VMs must not cost more
 * than reading its bytes. A slice is one value inside a text that its owner keeps alive. Texts
 * come from daemons; a malformed one ends an iteration early (bad is set), never runs over.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct strbuf;

/* One JSON value as written, without blanks around it; p NULL: there is none. */
struct slice {
	const char *p;
	size_t len;
};

struct js_iter {
	const char *p, *end;
	bool object;
	bool bad;
};

/* The one value of a whole text; p NULL when it is no balanced JSON value. */
struct slice js_value(const char *text, size_t len);

/* Walk the members of an object or elements of an array; anything else has none. */
void js_iter_init(struct js_iter *it, struct slice v);
/* ret_key: the key with its quotes, may be NULL for arrays. False at the end or when bad. */
bool js_next(struct js_iter *it, struct slice *ret_key, struct slice *ret_value);

/* A member or element; absent when there is none. */
struct slice js_member(struct slice object, const char *key);
struct slice js_element(struct slice array, size_t index);
size_t js_count(struct slice v);

/* Whether a string (or a key) reads as text. */
bool js_is(struct slice string, const char *text);
/* First character tells the type: '{', '[', '"', 't', 'f', 'n', a digit or '-'; '\0' absent. */
char js_type(struct slice v);

/* Append a string without quotes and escapes; NUL stays as the six characters \u0000. */
void js_put_string(struct strbuf *sb, struct slice string);
/* The same as a new text; NULL when v is no string. */
char *js_string(struct slice v);
/* Text of a member that is a string, NULL otherwise; caller frees. */
char *js_member_string(struct slice object, const char *key);

/*
 * Append a value as text written anew: compact, or indented by two below `depth` levels. Control
 * characters that JSON allows raw (DEL, C1) are escaped, so the text is safe for a terminal.
 */
#define JS_COMPACT (-1)
void js_write(struct strbuf *sb, struct slice v, int depth);
