/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the UCL parser: one recursive descent over bytes, cut into files by what is read:
 * scan.c blanks and positions, parse.c structure, text.c strings, number.c numbers, vars.c
 * variables, macro.c includes, tree.c members. Private to src/ucl.
 *
 * Functions return 0 (or a count) or a negative errno with ps->err filled, once, by ucl_fault.
 */
#pragma once

#include <sys/types.h>

#include "ucl/doc.h"
#include "ucl/ucl.h"

struct err;
struct stat;

#define UCL_BYTES_MAX (32u << 20) /* memory of one document, so that no input takes more */

/* One file being read. */
struct ucl_source {
	const struct ucl_source *parent; /* the file that includes this one */
	struct ucl_pos from;             /* where it does */
	const char *file;                /* the document's copy of the name */
	const char *dir;                 /* the name's folder */
	const char *text, *end;
	const char *p; /* next byte */
	/* A position known so far; positions are asked for in rising order. */
	const char *mark, *bol;
	int line;
	bool identified; /* dev and ino are known */
	dev_t dev;
	ino_t ino;
};

/* Members of large objects by name; see tree.c. */
struct ucl_index {
	struct ucl_index_entry *entries;
	size_t used, size;
};

struct ucl_parser {
	struct ucl_doc *doc;
	const struct ucl_options *opt;
	struct ucl_source *src;
	struct ucl_index index;
	unsigned depth;    /* nested objects and arrays */
	unsigned includes; /* files read or tried so far, the first not counted */
	bool in_arguments; /* of a macro */
	struct err *err;
};

/* scan.c */

/* Fail with "FILE:LINE:COLUMN: text" of byte `at` and the chain of includes. */
int ucl_fault(struct ucl_parser *ps, int code, const char *at, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
struct ucl_pos ucl_pos_at(struct ucl_source *src, const char *at);
/* 'c' or 0xNN, for messages; the text lives in buf. "the end" at the end of the source. */
const char *ucl_char_name(const struct ucl_source *src, const char *at, char buf[8]);

enum ucl_skip {
	UCL_SKIP_BLANKS, /* blanks and comments of this line (a comment may span lines) */
	UCL_SKIP_LINES,  /* and line ends */
	UCL_SKIP_ITEMS,  /* and ; , VT FF */
};

/* Returns 1 when anything skipped separates items, else 0. */
int ucl_skip(struct ucl_parser *ps, enum ucl_skip what);
/* The byte at ps->src->p, or -1 at the end. */
static inline int ucl_peek(const struct ucl_source *src)
{
	return src->p < src->end ? (unsigned char)*src->p : -1;
}
static inline bool ucl_is_eol(int c)
{
	return c == '\n' || c == '\r';
}
static inline bool ucl_is_blank(int c)
{
	return c == ' ' || c == '\t';
}
/* May a bare key start with, or go on with c? */
bool ucl_is_key_start(int c);
bool ucl_is_key_char(int c);
/* Past the line end at p (CRLF is one), which must be one. */
const char *ucl_past_eol(const char *p, const char *end);

/* parse.c */

/* Read ps->src as a whole file: its members go to obj, or, when obj is NULL, to a new root. */
int ucl_parse_source(struct ucl_parser *ps, struct ucl_value *obj);
/* Items up to the end of ps->src or, if open is set, up to the brace that closes it. */
int ucl_parse_body(struct ucl_parser *ps, struct ucl_value *obj, const char *open);
/* A value of that type that begins at byte `at`. */
struct ucl_value *ucl_new(struct ucl_parser *ps, enum ucl_type type, const char *at);
/* After a quoted value there must be something that separates it from the next item. */
int ucl_need_separator(struct ucl_parser *ps);

/* text.c */

/* A quoted, bare or multi-line value; bare ones may turn out to be numbers and so on. */
int ucl_parse_scalar(struct ucl_parser *ps, struct ucl_value **ret);
/* A key in double quotes; as written but for escapes. */
int ucl_parse_quoted_key(struct ucl_parser *ps, char **ret, size_t *ret_len);

/* number.c */

/*
 * text[len] as number, time, boolean, null, nan or inf: 1 and v->type and value are set, 0 when
 * it is none of them, -EINVAL (reported) when it is a number beyond the range.
 */
int ucl_parse_word(struct ucl_parser *ps, const char *text, size_t len, struct ucl_value *v);

/* vars.c */

/* Stands for a dollar that was escaped: no zero byte occurs in any text we take. */
#define UCL_LITERAL_DOLLAR '\0'

/* Replace variables in text[len]; *ret is the document's, or text itself when nothing changes. */
int ucl_expand(struct ucl_parser *ps, const char *at, char *text, size_t len, const char **ret);

/* macro.c */

int ucl_parse_macro(struct ucl_parser *ps, struct ucl_value *obj);

/* tree.c */

/* Add a member; a key given before makes an implicit array. */
int ucl_add_member(struct ucl_parser *ps, struct ucl_value *obj, const char *key,
		   struct ucl_value *v);
void ucl_index_done(struct ucl_index *index);
