/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A change of a definition under way: create, update, delete. Each is a list of steps; a step
 * that waits returns STEP_WAIT and its call-back goes on with change_next (or change_fail). One
 * change per VM at a time, the others wait in line. What a step did is undone by its change's
 * undo function, so that a change is wholly there or wholly gone; what SIGKILL leaves behind is
 * told by a durable mark (marks.c).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/problems.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/vm.h"
#include "vmadmd/disks/disks.h"
#include "vmadmd/vmadmd.h"

struct child;
struct feed_wait;
struct job;
struct live;
struct plug;
struct update_how;

#define STEP_WAIT 1
#define STEP_LAST 2 /* go on with the last step: the answer */

struct change;
typedef int (*change_step)(struct change *c, struct err *err);

struct change_kind {
	const char *verb;         /* "create" */
	const change_step *steps; /* NULL at the end; the one before it answers */
	size_t nsteps;
	int (*undo_files)(struct change *c, struct err *err); /* first, in a worker; may be NULL */
	void (*undo)(struct change *c); /* then what is in memory; may be NULL */
	int (*cancel)(struct change *c, int r, const struct err *why,
		      struct err *err); /* where the engine would say too late; may be NULL */
};

struct change {
	struct vmadmd *d;
	const struct change_kind *kind;
	struct change *next;
	char uuid[UUID_LEN + 1];
	bool running;
	size_t step;

	struct http_request *req; /* NULL: the client left, or an update of our own */
	change_done done;         /* of our own */
	void *done_ctx;
	uid_t uid;
	char *command;
	const char *by; /* kind of the cause, NULL: a command */
	json_t *payload;

	struct vm *old, *new;
	struct vm_changes changes;
	struct problems problems;
	struct disk_job jobs[VM_DISKS_MAX];
	size_t njobs, jobs_done; /* images [0, jobs_done) are made */
	bool job_begun;          /* image jobs_done may be half made */

	int lock, guest_lock; /* -1 */
	bool marked, data_made, begun, stored;
	bool ran;     /* before it was stopped for this */
	uint64_t seq; /* of the last line of ours on the feed */
	bool confirmed;
	int64_t expire_wall_ms; /* of a creation, 0: not told yet */
	char *start_error;      /* the VM is there but did not start */

	struct job *job;   /* NULL: it takes no time to speak of */
	bool detached;     /* wait=0: answered with the job's id */
	uint64_t room;     /* of the pool of a dataset to be made, bytes; 0: unknown */
	uint64_t limit_ms; /* deadline asked for, 0: the usual one */
	int ended;         /* why the job is to end, 0: it is not */
	struct err end_why;
	sd_event_source *progress;

	int failed; /* why it is being undone */
	struct err failure;
	struct feed_wait *wait;
	struct worker *worker;
	change_step work, after; /* of the worker */
	char *dataset;           /* made by a creation, or gone with a deletion; NULL: none */
	bool touched;            /* a step that writes has begun: undo_files is to run */
	sd_event_source *grace;
	struct child *child;
	struct plug *plug;      /* what the running machine takes of an update; NULL: nothing */
	struct update_how *how; /* of an update by a verb (update.h), else NULL */
	size_t grown;           /* disks [0, grown) of a stopped VM have their new size */
	struct live *live;      /* of a live operation (live.h), else NULL */
};

extern const struct change_kind change_create, change_updating, change_delete, change_reprovision,
	change_install;

/* From a call-back of a waiting step: on with the following one, or the same one again. */
void change_next(struct change *c);
void change_again(struct change *c);
void change_fail(struct change *c, int r, const struct err *err);

/*
 * Put a change of ours in line, as change_update does; live is taken. live and req may be NULL.
 * With req its wait and deadline count; it may have been answered with a refusal when this returns.
 */
void change_order(struct vmadmd *d, const struct change_kind *kind, const char *uuid,
		  const struct change_by *by, struct live *live, struct http_request *req);
/* An update by a verb; payload and how are taken. */
void change_update_how(struct vmadmd *d, struct http_request *req, const char *uuid,
		       json_t *payload, const struct change_by *by, struct update_how *how);
int change_job(struct change *c, const json_t *images, struct err *err); /* answers if detached */

/*
 * A step whose files wait for a disk: work runs in a worker (no change of memory survives), then
 * after (may be NULL) here, as a step's rest; its result is the step's. Returns STEP_WAIT.
 */
int change_work(struct change *c, change_step work, change_step after, struct err *err);

/* --- steps shared by the kinds --- */
int step_lock(struct change *c, struct err *err);
int step_job(struct change *c, struct err *err);    /* after the check, before the first deed */
int step_images(struct change *c, struct err *err); /* once per image */
int step_begin(struct change *c, struct err *err);  /* and waits until vminfod withholds */
int step_commit(struct change *c, struct err *err); /* and waits until vminfod has published */
int step_seen(struct change *c, struct err *err);   /* waits for c->seq */
int step_told(struct change *c, struct err *err);   /* waits for all that our feed has told */

/* Rules between c->new and every other VM, those being made included. -EEXIST or -EINVAL. */
int change_conflicts(struct change *c, struct err *err);
void change_reply_problems(struct change *c, int r); /* all of c->problems */
/* For job and request; with c->start_error "VM was DEED but did not start". Returns 0. */
int change_answer(struct change *c, json_t *out, const char *deed);
/* c->problems as an error; 0 when there are none. */
int change_problems(struct change *c, struct err *err);
struct catalog_entry *change_entry(struct change *c, struct err *err);

/* --- delete.c --- */
int step_stop(struct change *c, struct err *err);       /* by force */
int step_guest_lock(struct change *c, struct err *err); /* QEMU's lock, held; -EBUSY: it runs */

/* --- reprovision.c --- */
/* At the start: finish or undo it by its mark; false: it is not of one. runs: leave the disk. */
bool reprovision_recover(struct vmadmd *d, const char *uuid, const json_t *mark, bool runs);
