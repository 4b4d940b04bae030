/* SPDX-License-Identifier: Apache-2.0 */
/* Callbacks that main() connects to the catalog and the feed. */
#pragma once

#include "store/catalog.h"

struct feed_server;
struct supervisor;

void supervisor_on_change(void *ctx, struct catalog_entry *e, enum catalog_change what);
void supervisor_on_problem(void *ctx, const char *file, const char *text);
void supervisor_snapshot(struct feed_server *feed, void *ctx);
/* Frees what we hold of the guests; the guests themselves run on. */
void supervisor_free_guests(struct supervisor *sup);
/* Bound the recorders' files of running guests. */
void supervisor_trim_records(struct supervisor *sup);
