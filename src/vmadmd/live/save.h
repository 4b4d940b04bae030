/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save and restore: a VM's memory and devices in a file, as a stream (store/stream.h), and back.
 * The file is opened by a worker in the name of who asks. docs/live-operations.md.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "vmadmd/change/change.h"
#include "vmadmd/guest.h"

struct change;
struct http_request;
struct sock_peer;
struct vmadmd;
struct worker;

/* Who asks: what he may open, and no more. */
struct caller {
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t ngroups;
};

struct saving {
	struct caller who;
	char *file, *temp; /* what is asked for, and what it is written as */
	json_t *head;
	json_t *disks; /* as they are with the memory: [{path, size, mtime_ns}] */
	bool force;    /* take disks that changed since */
	bool going;    /* it ran, and is to go on when this fails */
	/* Memory on its way between QEMU and a worker: over when both have ended. */
	bool on_way, worker_ended, moved, cancelled;
	int worker_r, move_r;
	struct err worker_why, move_why;
	struct monitor_watch watch;
	struct change *c;
	sd_event_source *look;
	bool looking;
	int pipe[2]; /* read, write; -1 */
};

struct saving *saving_new(void);
void saving_free(struct saving *s); /* NULL is fine */

/* --- save_file.c: in a worker --- */
/* Become who asks, for good; -EPERM where we cannot. */
int caller_become(const struct caller *who, struct err *err);
int caller_take(struct caller *who, const struct sock_peer *peer, struct err *err);
int save_write_memory(void *change, struct err *err); /* WORKER_FD to the temporary file */
int save_finish_file(struct change *c, struct err *err);
int save_verify(struct change *c, struct err *err);
int save_read_memory(void *change, struct err *err); /* the file to WORKER_FD */
json_t *save_disks(const json_t *paths);

/* --- save_move.c: memory between QEMU and a worker --- */
/* QEMU writes ("migrate") or reads ("migrate-incoming") the pipe's other end. Returns STEP_WAIT. */
int save_move(struct change *c, bool out, struct err *err);
int save_cancel(struct change *c, int r, const struct err *why, struct err *err);

/* --- save.c, save_restore.c --- */
void handle_save(struct http_request *req, void *ctx);
void handle_restore(struct http_request *req, void *ctx);
extern const struct change_kind change_save, change_save_undo, change_restore, change_restore_undo;
/* "file" of a request, an absolute path, and "force". */
int save_take_file(const json_t *body, struct saving *s, struct err *err);
/* -EBUSY when the VM is in another state than this one. */
int save_check_state(struct change *c, const char *want, struct err *err);
/* Begin kind with {file, force}; who asks must be root or the VM's owner. */
void save_begin(struct http_request *req, void *ctx, const struct change_kind *kind);
