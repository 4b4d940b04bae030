/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM as it is now, and what a payload would make of it, worked out here with the daemons' own
 * rules: for validate, diff, edit and --dry-run.
 */
#pragma once

#include <jansson.h>

#include "base/problems.h"
#include "cli/cli.h"
#include "model/model.h"

/* What a payload would do; would_done() in any case. */
struct would {
	struct vm *vm; /* as it would be; NULL when that cannot be */
	struct vm_changes changes;
	struct problems problems;
};

#define AUTO_WOULD __attribute__((cleanup(would_done)))
void would_done(struct would *w);

/* The VM's object from vminfod, to free: 0, or the exit code, told. */
int now_fetch(struct cli *cli, const char *id, json_t **ret);

/* An update payload applied to the VM of that object: 0, or EXIT_FAILED with problems. */
int now_update(const struct cli *cli, const json_t *now, const json_t *payload, struct would *ret);
/* A create payload. The name and the image's size, which vmadmd finds out, are missing. */
int now_create(const struct cli *cli, const json_t *payload, struct would *ret);
/*
 * Also look for conflicts of w->vm with all other VMs: 0, EXIT_FAILED with problems, or another
 * exit code, told.
 */
int now_conflicts(struct cli *cli, struct would *w);

/*
 * An object with members of the VM object into the update payload that brings now there: disks,
 * nics and maps as add_, update_, remove_, set_; members that are as they are left out. Keys of
 * update payloads pass as they are. all: members that wanted lacks are to go (null).
 */
json_t *now_towards(const json_t *now, const json_t *wanted, bool all);

/* The members of the VM object a person may change. */
json_t *now_settable(const json_t *now);

/* {path, old, new, live} for each, and lines "path: old -> new (live)" of that. */
json_t *now_changes_json(const struct vm_changes *changes);
struct strbuf;
void now_put_changes(struct strbuf *sb, struct slice changes);

/* Tell all findings, a line each. */
void now_tell(const struct problems *p);
