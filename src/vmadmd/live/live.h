/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live operations: snapshots, save and restore, backup. Each is a change (change.h), so that one
 * at a time works on a VM, with a job and a durable journal in the VM's data directory. The
 * journal is written before the first step that leaves something behind; what it names is undone
 * or finished at our next start, or as soon as it can be done. docs/live-operations.md.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/vm.h"
#include "vmadmd/change/change.h"
#include "vmadmd/guest.h"

struct live_call;
struct qjob;
struct saving;
struct arriving;
struct migrating;
struct until;

#define SNAP_NAME_MAX 64
#define LIVE_LAST     "operation.last" /* the journal of the last one that ended well */
#define LIVE_ASK_MS   20000u  /* for an answer of QEMU: another long command may be before it */
#define LIVE_AGAIN_MS 3000u   /* until what was cut short is tried again */
#define LIVE_JOB_MS   600000u /* for a job that blocks QEMU's monitors */

struct live_disk {
	char *path;
	char format[16]; /* "qcow2", "raw", ... */
	char node[64];   /* of QEMU; "" when it does not run */
};

struct live {
	struct change *c;
	char name[SNAP_NAME_MAX + 1];
	int memory;                           /* -1: as the VM is */
	bool again;                           /* taken up from the journal */
	bool running;                         /* QEMU is there; else c->guest_lock keeps it away */
	bool paused;                          /* by us: to go on when this ends */
	bool frozen;                          /* by us: to be thawed when this ends */
	struct live_disk disks[VM_DISKS_MAX]; /* that can be written */
	size_t ndisks;
	char *vars;     /* file of the firmware's variables, NULL: none */
	json_t *blocks; /* QEMU's query-block */
	json_t *index;  /* content of the index file, as it is to be */
	json_t *entry;  /* of the snapshot meant */
	bool own_entry; /* it is not (yet) in the index */
	json_t *journal;
	bool cancellable;  /* now, by its kind's cancel */
	bool marked;       /* the journal is written */
	size_t targets;    /* of a backup: nodes of ours that QEMU may have */
	char qemu_job[64]; /* id of our job in QEMU */
	struct qjob *job;
	struct live_call *calls;
	struct saving *saving;       /* save.h; NULL: another operation */
	struct migrating *migrating; /* migrate.h; NULL: another operation */
	struct arriving *arriving;   /* likewise */
	struct until *until;         /* a step waits for QEMU */
	bool undone;                 /* cut short, and taken back */
	bool done;                   /* what was cut short had come to its end */
	bool goes;                   /* taken up, and it goes on by our word already */
	bool left_alone;             /* a rollback of what somebody has started since */
};

struct live *live_new(void);
void live_free(struct live *l); /* NULL is fine */

/* --- live.c: what the operations share --- */
void live_start(struct vmadmd *d); /* at our start: take up what is in journals */
/* At the start: does a journal name this job; and did it come to its good end? */
bool live_repairs(struct vmadmd *d, const char *uuid, const char *job);
bool live_done(struct vmadmd *d, const char *uuid, const char *job);
/* Finish or undo what the VM's journal says, after delay_ms. */
void live_repair(struct vmadmd *d, const char *uuid, uint64_t delay_ms);
/* The command that keeps this VM stopped while it works on its images; NULL: none. */
const char *live_keeps_stopped(const struct vmadmd *d, const char *uuid);
/* The undo of every kind: let the guest go on, and work the journal off. */
void live_undo(struct change *c);
/* Ends or stops us when a test asks for it here: DROVER_TEST_KILL_AT, DROVER_TEST_STOP_AT. */
void live_point(const char *place);
void live_point_worker(const char *place); /* in a worker: us and it */

/* Steps. Lock refuses while a journal waits to be worked off. */
int live_step_lock(struct change *c, struct err *err);  /* sets running */
int live_step_nodes(struct change *c, struct err *err); /* sets disks, vars, blocks */
/* Where the firmware's variables are, or would be; caller frees. */
char *live_vars_path(const struct change *c);
int live_step_job(struct change *c, struct err *err);
int live_step_mark(struct change *c, struct err *err);          /* writes l->journal */
int live_journal_write(struct change *c, struct err *err);      /* the same, in a worker */
int live_journal_remove(struct change *c, struct err *err);     /* likewise */
int live_nothing_waits(struct change *c, struct err *err);      /* -EBUSY: a journal does */
json_t *live_journal(const struct vmadmd *d, const char *uuid); /* NULL: none */
/* -EBUSY while the journal says that the VM is not to run here. */
int live_kept_away(const struct vmadmd *d, const char *uuid, struct err *err);
int live_step_unmark(struct change *c, struct err *err);
int live_step_publish(struct change *c, struct err *err);
/*
 * A guest that runs with an agent writes out what it holds and keeps still; one that will not is
 * taken as it is. Thaw: it goes on; the agent's own limit sees to it in any case.
 */
int live_step_freeze(struct change *c, struct err *err);
int live_step_thaw(struct change *c, struct err *err);
/* -ENOTSUP naming the disk that holds no snapshots. */
int live_qcow2_only(const struct change *c, struct err *err);
const struct live_disk *live_disk_by_path(const struct live *l, const char *path);
struct guest *live_guest(struct change *c);

/* --- live_ask.c: steps that wait for others; each returns STEP_WAIT or an error --- */
/* Ask QEMU; arguments are taken. A failure fails the change, else then(c, value) goes on. */
typedef void (*live_then)(struct change *c, const json_t *value);
int live_ask(struct change *c, const char *command, json_t *arguments, live_then then,
	     struct err *err);
/* The same with a descriptor (-1: none), and failures are answer's too. */
typedef void (*live_answer)(struct change *c, int r, const json_t *value, const struct err *err);
int live_try(struct change *c, const char *command, json_t *arguments, int fd, live_answer answer,
	     struct err *err);
/* Nobody waits for the answer. */
void live_send(struct guest *g, const char *command, json_t *arguments);
void live_calls_forget(struct live *l);
/*
 * Start a job in QEMU under l->qemu_job and go on at its good end. command NULL: only wait for the
 * one that is there, or those ("ID.0", "ID.1" ...); -ENOENT when there is none. fail (NULL:
 * change_fail) hears of a bad end.
 */
typedef void (*live_failed)(struct change *c, int r, const struct err *err);
int live_job(struct change *c, const char *command, json_t *arguments, live_failed fail,
	     struct err *err);
void live_job_free(struct qjob *job);
/* Tell vmstated that QEMU's monitors may be silent for at most ms (0: no longer). */
int live_busy(struct change *c, uint64_t ms);
int live_vm_stop(struct change *c);  /* at once */
int live_vm_start(struct change *c); /* a failure is kept in c->start_error */
/* It stays as it is before its first instruction. hold: "paused" or "incoming" (-incoming defer) */
int live_vm_start_held(struct change *c, const char *hold);
int live_vm_try_held(struct change *c, const char *hold); /* a failure as of live_vm_start */
/* In a worker: run a program and wait for it; err has the first line of what it said. */
int live_tool(const char *const *argv, struct err *err);
/* The same, ended after limit_s (0: never); what it says on both outputs is kept, also when it
 * fails. */
int live_tool_text(const char *const *argv, unsigned limit_s, struct strbuf *out, struct err *err);
/* The same, its lines given to fn as they come; a line that fn refuses is the error. */
typedef int (*live_tool_line)(void *ctx, const char *line, struct err *err);
int live_tool_lines(const char *const *argv, live_tool_line fn, void *ctx, struct err *err);
/* In a worker: copy a small file, durably. */
int live_copy(const char *from, const char *to, struct err *err);
