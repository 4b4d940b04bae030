/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table printer of the tools: left-aligned, padded to a fixed width, never cut, two spaces
 * between columns, lines right-trimmed; or parseable with a separator. Control characters in
 * values are escaped. Source: vmadm(8), "list".
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct table_column {
	const char *header;
	int width; /* in screen cells */
};

struct table {
	const struct table_column *columns;
	size_t count;
	bool parseable; /* -p: ':' between values, no padding, missing is empty, else "-" */
	FILE *out;
};

void table_header(const struct table *t);
/* values[count]; NULL or "" prints "-" (or nothing when parseable). */
void table_row(const struct table *t, const char *const *values);
