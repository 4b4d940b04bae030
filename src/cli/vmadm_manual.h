/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the manual pages as mdoc(7), made from the tables the programs work by: `vmadm help
 * PART`. tests/docs keeps the pages in step.
 */
#pragma once

#include <stdbool.h>

struct prop;
struct prop_table;
struct strbuf;

/* Print this part to standard output; false when there is none of that name. */
bool manual_part(const char *name);

/* --- of vmadm_help.c --- */
#define HELP_TABLES 4
extern const struct prop_table *const help_tables[HELP_TABLES];
/* "number, MiB; create, update" */
void help_kind(struct strbuf *sb, const struct prop *row);
