/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transaction on a running machine: QMP commands one after the other, each with the command that
 * takes it back. It is wholly done or wholly taken back, as far as the guest lets go: a device
 * that was asked out of the machine is gone when QEMU says DEVICE_DELETED.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct err;
struct guest;
struct trans;

#define UNPLUG_MS 20000u /* how long a guest has to let go of a device */
#define LATE_MS   2000u  /* ... of one it was asked out by who is gone; then it is only watched */

struct trans_step {
	const char *command, *undo; /* undo NULL: nothing to take back */
	json_t *args, *undo_args;   /* taken; may be NULL */
	bool of_vmstated;           /* the commands are verbs of vmstated's POST /vms/UUID/VERB */
	bool lax;                   /* a refusal is logged and passed over */
	bool asked_out;             /* by who is gone: on the way back the guest may yet let go */
	const char *gone;           /* id of the device that is to be DELETED then, or NULL */
	char *what;                 /* taken: how messages call it ("disk1 ('/srv/a.raw')") */
};

/* r: 0, or why it failed; then all is taken back. Runs once, from the loop. */
typedef void (*trans_done)(void *ctx, int r, const struct err *err);

struct trans *trans_new(struct guest *g);
void trans_add(struct trans *l, const struct trans_step *step);
bool trans_empty(const struct trans *l);
/* All steps, for a journal, and back: what the words of json are borrowed of has to stay. */
json_t *trans_json(const struct trans *l);
void trans_step_of(const json_t *json, struct trans_step *ret);
void trans_step_done(struct trans_step *step); /* of one that was not added */
void trans_run(struct trans *l, trans_done done, void *ctx);
/* Take back what was run: all of it that can be. r: the first that could not. */
void trans_undo(struct trans *l, trans_done done, void *ctx);
/* The same, as if all had been run (by who is gone). */
void trans_undo_all(struct trans *l, trans_done done, void *ctx);
bool trans_half(const struct trans *l); /* not all of it could be taken back */
/* End it: done hears r and why when all is taken back. */
void trans_stop(struct trans *l, int r, const struct err *why);
/* Not while it runs. */
void trans_free(struct trans *l);
/* A device that was asked out and given up is put back should its guest let go of it later. */
void trans_late_watch(struct guest *g, const struct trans_step *step);
/* Not any more. */
void trans_late_forget(struct guest *g);
