/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datasets we make: ZPOOL/UUID for a VM created with `zpool`, mounted at `disks` in its data
 * directory, where its new disks lie. A user property says that one is ours; a dataset without it
 * is never changed or removed here. Marks name the dataset (MARK_DATASET), so that after a sudden
 * end the next start removes or mounts it again. docs/zfs.md.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmadmd/vmadmd.h"

#define DATASET_DISKS "disks"   /* in the data directory */
#define MARK_DATASET  "dataset" /* member of a mark */

/* Step, the first: does the pool that the payload names exist? Sets c->dataset and c->room. */
int dataset_step_pool(struct change *c, struct err *err);
/* New disks whose path nobody gave go to the dataset, if there is one. True: some did. */
bool dataset_place(struct change *c);
/* Step: make c->dataset, if any. */
int dataset_step_make(struct change *c, struct err *err);

/* The rest blocks: for workers, and before the loop. None of them is bad when it is done again. */

/* *ret: the dataset of ours that the VM has, NULL: none. It is asked for: -EIO when ZFS fails. */
int dataset_of(const struct vmadmd *d, const struct vm *vm, char **ret, struct err *err);
/* Make it, mounted for the VM; quota_gib 0: none, compression NULL: the pool's. */
int dataset_make(const struct vmadmd *d, const char *name, const char *uuid, uint32_t quota_gib,
		 const char *compression, struct err *err);
int dataset_unmount(const char *name, struct err *err);
int dataset_mount(const char *name, const char *uuid, struct err *err);
/* With its snapshots; 0 when it is not there. -EEXIST when it is not ours. */
int dataset_destroy(const char *name, const char *uuid, struct err *err);
/* marks.c: call fn with the dataset that the VM's mark names, if there is a mark and it names one.
 */
int mark_dataset(struct vmadmd *d, const char *uuid, enum mark mark,
		 int (*fn)(const char *name, const char *uuid, struct err *err), struct err *err);
