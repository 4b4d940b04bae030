/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of ucl_edit: one edit is one change of the tree (what must come out) and one splice of
 * the text (how). edit.c finds where, splice.c lays out the text, change.c judges the result.
 * Private to src/ucl.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "ucl/ucl.h"

enum ucl_change_kind {
	UCL_CHANGE_REPLACE, /* target becomes value */
	UCL_CHANGE_ADD,     /* the object target gets value under key, once more if it has it */
	UCL_CHANGE_APPEND,  /* the array target gets value at its end */
	UCL_CHANGE_REMOVE,  /* target goes */
};

struct ucl_change {
	enum ucl_change_kind kind;
	const struct ucl_value *target;
	const struct ucl_value *parent; /* REMOVE: the object or array written around it */
	const char *key;                /* ADD: as the parser folds it */
	const struct ucl_value *value;
};

/* Is new exactly old with the change? Implicit arrays count as the repeats they stand for. */
bool ucl_change_is(const struct ucl_value *old, const struct ucl_value *new,
		   const struct ucl_change *change);

/* The values given under one key. */
struct ucl_repeats {
	struct ucl_value *const *items;
	size_t count;
};

struct ucl_repeats ucl_repeats_of(struct ucl_value *const *at);

/* Bytes [from, to) of the old text give way to text, which the splice owns. */
struct ucl_splice {
	size_t from, to;
	char *text;
};

struct ucl_text {
	const char *data;
	size_t len;
};

/* Byte offset of a position in its text. */
size_t ucl_offset_of(struct ucl_text t, const struct ucl_pos *pos);

/* item: the new member or element as text; a member may end with ';'. */
void ucl_splice_insert(struct ucl_text t, const struct ucl_change *change, const char *item,
		       struct ucl_splice *ret);
void ucl_splice_replace(struct ucl_text t, const struct ucl_change *change, const char *value,
			struct ucl_splice *ret);
void ucl_splice_remove(struct ucl_text t, const struct ucl_change *change, struct ucl_splice *ret);
