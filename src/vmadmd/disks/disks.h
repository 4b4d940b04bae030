/* SPDX-License-Identifier: Apache-2.0 */
/* Disks of a VM that a change makes: what is looked for before, made, and undone; see disks.c. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct change;
struct disk;
struct err;
struct guest;
struct vm;
struct vmadmd;

/* A disk image to be made before the change. */
struct disk_job {
	struct disk *disk; /* of the new VM, borrowed */
	char *base;        /* owned, NULL: an empty disk */
	char *temp;        /* owned: it is made here; NULL: at the disk's path */
};

/*
 * Look at every disk of c->new that c->old does not have: fill c->jobs with images to be made,
 * refuse what is missing. Nothing is changed.
 */
int disks_plan(struct change *c, struct err *err);
/* The same for disk i of c->new alone, whatever c->old has; findings are in c->problems. */
void disks_plan_one(struct change *c, size_t i);
/* The VM has a disk of this path. vm may be NULL. */
bool disks_known(const struct vm *vm, const char *path);
void disk_job_done(struct disk_job *job);
/* Does the definition give the disk this property? */
void disk_set_given(struct disk *disk, const char *key, bool given);
/* Disks that are there by now, and new: what they are is written into the definition. */
void disks_settle_formats(struct change *c);
/* Sizes of the images that disks of a create payload name by uuid, where it does not give them. */
void disks_fill(const struct vmadmd *d, struct vm *vm);
/* A running guest with a user of its own must be able to open what was made for it. */
void disks_give(const struct guest *g, const char *path);
/* Free bytes where path is to be: in the nearest folder that is there. */
uint64_t disks_room_at(const char *path);
/* Start making the image of c->jobs[c->jobs_done]; change_again or change_fail follows. */
int disks_make(struct change *c, struct err *err);
/* Ends the making of an image, if one is being made. */
void disks_stop(struct change *c);
void disks_undo(struct change *c);
/* undo_files of an update: the same, and its mark. */
int disks_undo_update(struct change *c, struct err *err);
/* Files of the data directory that disks of old name, and none of new does. */
void disks_drop_removed(const struct vmadmd *d, const char *uuid, const struct vm *old,
			const struct vm *new);
/* Paths of the images to be made. New reference. */
json_t *disks_paths(const struct change *c);
