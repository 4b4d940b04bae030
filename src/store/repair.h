/* SPDX-License-Identifier: Apache-2.0 */
/* Doubt and its repair, see repair.c; private to src/store. */
#pragma once

#include <stdbool.h>

struct catalog;
struct err;
struct unit;

/* Doubt a unit, or no longer (it is about to be read, or freed). */
void unit_doubt(struct catalog *c, struct unit *u);
void unit_trust(struct catalog *c, struct unit *u);
/* Events were lost: everything is doubted, and the directory listed. */
void catalog_doubt_all(struct catalog *c);
/* List the configuration directory: new and gone units are doubted. -errno when it cannot be
 * listed (also a problem then). */
int catalog_list_begin(struct catalog *c, struct err *err);
void catalog_list_end(struct catalog *c);
/* One step of listing or of reading what is doubted, or everything. Is there more? */
bool catalog_repair_some(struct catalog *c, bool all);
