/* SPDX-License-Identifier: Apache-2.0 */
/* A bhyve_config file as a sorted table of variables; only the translator's files include this. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/problems.h"

struct vm;

#define BHYVE_VARS_MAX 8192 /* variables of a file */
#define BHYVE_NAME_MAX 255
#define BHYVE_TEXT_MAX 4096 /* bytes of a value, before and after expansion */

/* --- variables (bhyve_parse.c) --- */

struct bhyve_var {
	char *name, *value;
	char *expanded;   /* NULL: not used yet */
	const char *file; /* borrowed: struct bhyve_vars */
	int line;         /* in file */
	int order;        /* among all lines; the last of a name wins */
};

struct bhyve_vars {
	char *path, *definition; /* what the variables' file points at */
	struct bhyve_var *items; /* by name, each name once */
	size_t count;
};

/*
 * Lines of text as variables; those after line own_lines are the definition's, at its own line.
 * Everything that is wrong with lines, names and values goes to p.
 */
struct bhyve_source {
	const char *text;
	int own_lines, definition_line;
};
void bhyve_parse(const struct bhyve_source *source, struct bhyve_vars *vars, struct problems *p);
void bhyve_vars_done(struct bhyve_vars *vars);

/* Variable at + name; at may be "". NULL when not set. */
struct bhyve_var *bhyve_find(const struct bhyve_vars *vars, const char *at, const char *name);
/* First variable whose name starts with prefix, NULL for none; those that follow are behind it. */
struct bhyve_var *bhyve_first(const struct bhyve_vars *vars, const char *prefix);
/* Value with references replaced; borrowed. NULL when that failed, which p says. */
const char *bhyve_value(const struct bhyve_vars *vars, struct bhyve_var *var, struct problems *p);
/* "FILE:LINE" and "NAME: text"; the same finding twice is one. */
void bhyve_say(struct problems *p, enum problem_kind kind, const struct bhyve_var *var,
	       const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Text for messages: control characters escaped, at most 80 bytes. Caller frees. */
char *bhyve_show(const char *text);

/* --- the definition's lines (bhyve_write.c) --- */

/* What vm gave as lines of a bhyve_config file; "" when it gave nothing. Caller frees. */
char *bhyve_overrides(const struct vm *vm, const struct bhyve_vars *vars);
