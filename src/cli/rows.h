/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of many VMs as a matrix of slices over vminfod's answer: what list and lookup pick,
 * filter and sort. Only the members that fields and filters name are asked for and kept.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cli/fields.h"
#include "cli/js.h"

struct err;

#define ROWS_FIELDS_MAX 64u /* columns, sort keys and filters of one command, each */

struct sort_key {
	struct field field;
	bool descending;
};

/* What one command asks: zero it, add to it, rows_query_done. */
struct rows_query {
	char **members; /* top-level members needed, each once */
	size_t nmembers;
	struct field *columns;
	size_t ncolumns;
	struct sort_key *sort;
	size_t nsort;
	struct filter *filters;
	size_t nfilters;
};

/* "a,b,c" as columns; word: how errors call a bad filter key ("filter", "lookup"). */
int rows_add_columns(struct rows_query *q, const char *list, struct err *err);
int rows_add_sort(struct rows_query *q, const char *list, struct err *err);
int rows_add_filter(struct rows_query *q, const char *text, const char *word, struct err *err);
/* Make sure a member is asked for; returns its column in the matrix. */
size_t rows_need(struct rows_query *q, const char *member);
void rows_query_done(struct rows_query *q);
/* "/vms?fields=a,b"; caller frees. */
char *rows_target(const struct rows_query *q);

struct row {
	struct slice object;
	const struct slice *members; /* as q->members */
};

struct rows {
	struct row *items;
	size_t count;
	struct slice *cells;
};

/*
 * Take a JSON array of VM objects apart, keep what all filters match, sort. Slices borrow text.
 * -EPROTO when it is no such array.
 */
int rows_read(const struct rows_query *q, const char *text, size_t len, struct rows *ret,
	      struct err *err);
void rows_done(struct rows *r);

/* The value of a column or filter field in a row. */
struct slice rows_value(const struct row *row, const struct field *f);
