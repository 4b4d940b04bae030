/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a VM as one set: what is known of them (snapshot_index.c), taking one (snapshot.c),
 * back to one and away with one (snapshot_back.c). docs/live-operations.md.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "vmadmd/live/live.h"

struct http_request;

#define SNAP_TAG "vmsnap-" /* before a snapshot's name in an image; other tags are not ours */
#define SNAP_MAX 256       /* of one VM */

/* --- snapshot_index.c --- */
int snap_name_check(const char *name, struct err *err);
json_t *snap_index(struct vmadmd *d, const char *uuid, struct err *err); /* NULL: broken */
int snap_index_write(struct vmadmd *d, const char *uuid, const json_t *index, struct err *err);
json_t *snap_find(const json_t *index, const char *name); /* borrowed, or NULL */
void snap_add(json_t *index, json_t *entry);              /* entry is taken */
void snap_remove(json_t *index, const char *name);
/* Newest first: for the VM object, or (whole) with what only the list tells. */
json_t *snap_told(const json_t *index, bool whole);
char *snap_vars_path(const char *vars, const char *name);
/* What memory depends on: the machine as it was started (NULL with err), and as it would be. */
json_t *snap_machine_of(const struct vm *vm);
json_t *snap_machine(struct vmadmd *d, const char *uuid, struct err *err);
int snap_same_machine(const json_t *was, const json_t *is, struct err *err);
void snapshots_facts(const struct guest *g, json_t *facts); /* into the facts of ours */
void snapshots_read(struct vmadmd *d, const char *uuid);

/* --- snapshot.c and its parts --- */
void handle_snapshots(struct http_request *req, void *ctx);
/* -EINVAL: no list of snapshots that could be ours. */
int snap_check_index(const json_t *index, struct err *err);
void handle_snapshot_import(struct http_request *req, void *ctx); /* change.c */
void handle_snapshot_create(struct http_request *req, void *ctx);
void handle_snapshot_rollback(struct http_request *req, void *ctx);
void handle_snapshot_delete(struct http_request *req, void *ctx);
extern const struct change_kind change_snapshot, change_snapundo, change_rollback,
	change_snapdelete, change_snapimport;
/* Steps and parts they share. */
int snap_step_entry(struct change *c, struct err *err); /* index and entry of l->name */
int snap_step_busy(struct change *c, struct err *err);  /* where QEMU will be silent */
int snap_step_calm(struct change *c, struct err *err);  /* no longer */
int snap_step_answer(struct change *c, struct err *err);
json_t *snap_nodes(const struct live *l, const json_t *paths);
char *snap_tag(const struct live *l);
int snap_image(const char *deed, const char *tag, const char *path, struct err *err);
json_t *snap_journal(struct change *c, const char *op);
/* Steps that may be left out return this instead of a branch around them. */
#define SNAP_SKIP 0
const json_t *snap_paths(const struct live *l); /* of the snapshot's disks; borrowed */
/* Taken up again: our job in QEMU ends first, sets l->done when well; and a name for another. */
int snap_await_job(struct change *c, struct err *err);
int snap_another_job(struct change *c, struct err *err);
/* Steps: a snapshot of the disks alone of a VM that runs; and away with it. */
int snap_take_disks(struct change *c, struct err *err);
int snap_drop_nodes(struct change *c, struct err *err);
int snap_record(struct change *c, struct err *err); /* write the index */
