/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of findings about one input, so that validation reports all of them at once. Each names
 * where (FILE:LINE:COLUMN or a JSON path), what, and what would be right.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;

/* The three lists of vmadm(8) "validate", and warnings, which refuse nothing. */
enum problem_kind {
	PROBLEM_BAD_VALUE,
	PROBLEM_BAD_PROPERTY, /* unknown, or not allowed here */
	PROBLEM_MISSING,
	PROBLEM_WARNING,
};

struct problem {
	enum problem_kind kind;
	char *where; /* "web0/config:3:9", "nics[1].mac" or "" */
	char *key;   /* property as validate names it: "nics.*.mac"; may be NULL */
	char *text;  /* without `where` */
};

struct problems {
	struct problem *items;
	size_t count;
	size_t errors; /* items that are not warnings */
};

#define AUTO_PROBLEMS __attribute__((cleanup(problems_done)))

void problems_done(struct problems *p);
/* where and key are copied and may be NULL. */
void problems_add(struct problems *p, enum problem_kind kind, const char *where, const char *key,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Move all of from to the end of p. */
void problems_join(struct problems *p, struct problems *from);
/* One finding: "where: text", with the property where the place does not tell it. */
struct strbuf;
void problem_print(struct strbuf *sb, const struct problem *item);
/* "where: text" lines joined by "; ", errors first; caller frees. "" when there are none. */
char *problems_text(const struct problems *p);
/* -EINVAL with the errors of problems_text() in err when there is any error, else 0. */
int problems_to_err(const struct problems *p, struct err *err);
