/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of an update that touch what is there already; see update_live.c. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct change;
struct err;

/* What a verb asks for beside its payload. */
struct update_how {
	bool force;   /* a CD drive the guest has locked is opened */
	char *drive;  /* name of a CD drive that is to have another medium, NULL: none is */
	char *medium; /* NULL: none */
};
void update_how_free(struct update_how *how); /* NULL is fine */

/* Does a running machine take part of it? */
bool update_is_live(const struct change *c);
/* c->new: the drive c->how->drive with another medium. */
int update_medium(struct change *c, struct err *err);
int step_grow(struct change *c, struct err *err); /* disks of a stopped VM, one each time */
/* The running machine: what is to be done, the journal of it (plug_back.c), done. */
int step_plug_plan(struct change *c, struct err *err);
int step_plug_mark(struct change *c, struct err *err);
int step_plug(struct change *c, struct err *err);
int step_tell(struct change *c, struct err *err);   /* vmstated, of that */
int step_unmark(struct change *c, struct err *err); /* the journal has done its service */
/* The same of these names (plug_names). STEP_WAIT, or 0: there are none. */
int update_tell(struct change *c, const json_t *names);
extern const struct change_kind change_plug_back; /* one that was cut short */
