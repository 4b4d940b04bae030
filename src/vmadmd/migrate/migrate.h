/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live migration: a VM that runs goes on elsewhere, with its memory, and with its disks where they
 * are not shared. migrate*.c is the side it leaves, arrive*.c the one it comes to. At no instant
 * do two copies run: what both sides write down before what they do is in docs/migration.md.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/uuid.h"
#include "vmadmd/change/delete.h"
#include "vmadmd/live/live.h"

struct http_request;
struct peer;
struct until;

#define MIGRATE_INCOMING "vm.incoming" /* sockets in the run directory of the VM that comes: */
#define MIGRATE_NBD      "vm.nbd"      /* its memory, and its disks */
#define MIGRATE_PHASE    "phase"       /* members of the journal */
#define MIGRATE_SESSION  "session"
#define MIGRATE_STREAM   "drover-migration" /* descriptor of the stream of memory, at both ends */
#define MIGRATE_COPY     "drover-copy-" /* + number: descriptor, node, export and job of a disk */

/* The side it leaves. */
struct migrating {
	char session[UUID_LEN + 1];
	char *to; /* as asked for */
	struct peer *peer;
	json_t *options; /* {to, bandwidth_mib, downtime_ms, copy_disks} */
	json_t *offer;   /* what the other side is asked */
	bool copy[VM_DISKS_MAX];
	size_t at; /* of the disks */
	json_t *figures;
	bool here; /* a person takes the doubt away: it does not run there */
	sd_event_source *retry;
	bool stopped; /* the guest stands still */
	bool granted;
	unsigned thanked; /* how often it was too early for that */
};

/* The side it comes to. */
struct arriving {
	char session[UUID_LEN + 1];
	json_t *offer;
	json_t *images; /* [{path, size, format}] that are copied, in order */
	int listener;   /* -1 */
	sd_event_source *source, *limit;
	struct monitor_watch watch;
	bool serving;               /* disks */
	bool waiting;               /* for the grant, and watching QEMU */
	bool asked;                 /* for the grant */
	bool granting;              /* it may be written down */
	struct http_request *order; /* to be answered; NULL: none, or it is gone */
	size_t at;
};

/* --- migrate_until.c --- */
/* 1: it is so; 0: not yet; or why it will not be. */
typedef int (*until_judge)(struct change *c, const json_t *value, struct err *err);
/* Ask QEMU command again and again, at its events and now and then, until judge is content. */
int live_until(struct change *c, const char *command, until_judge judge, struct err *err);
void until_free(struct until *u); /* NULL is fine */
/* Whether a step waits for one, which then ends with the reason. */
bool until_end(struct change *c, int r, const struct err *why);
/* Switch capabilities of migration; NULL at the end of names. Goes on with the next step. */
int migrate_capabilities(struct change *c, const char *const *names, bool on, struct err *err);
void migrate_capabilities_off(struct change *c); /* all of them; nobody waits */
extern const char *const migrate_both[], *const migrate_source[];

/* --- migrate_peer.c: the vmadmd of the other side --- */
/* to: "unix:ROOT", "tls://HOST:PORT" or "ssh://[USER@]HOST[:PORT][/ROOT]". -EINVAL. */
int peer_new(struct vmadmd *d, const char *uuid, const char *to, struct peer **ret,
	     struct err *err);
void peer_free(struct peer *p); /* NULL is fine; nothing runs any more */
/* body: of the reply, borrowed; only with r == 0, which is a status of 2xx. */
typedef void (*peer_done)(void *ctx, int r, const json_t *body, const struct err *err);
/* One at a time; it is reached first where it is not. body is taken. done never runs inside. */
void peer_call(struct peer *p, const char *target, json_t *body, uint64_t timeout_ms,
	       peer_done done, void *ctx);
/* A stream to a socket in the VM's run directory there. */
int peer_stream(const struct peer *p, const char *name, int *ret_fd, struct err *err);

/* --- migrate.c, migrate_move.c, migrate_back.c --- */
void handle_migrate(struct http_request *req, void *ctx);
extern const struct change_kind change_migrate, change_migrate_back;
struct migrating *migrating_new(void);
void migrating_free(struct migrating *m);
int migrate_step_connect(struct change *c, struct err *err);
int migrate_step_copy(struct change *c, struct err *err);
int migrate_step_memory(struct change *c, struct err *err);
int migrate_step_copied(struct change *c, struct err *err);
int migrate_step_switch(struct change *c, struct err *err);
int migrate_step_continue(struct change *c, struct err *err);
/* Ask the other side whether it runs there until it says: m->granted, then the next step. */
int migrate_settle(struct change *c, struct err *err);
/* It runs there: nothing is left here. The steps of both ways to that end. */
#define MIGRATE_STEPS_AWAY                                                                         \
	migrate_step_end, step_lock, migrate_step_old, step_guest_lock, delete_mark,               \
		delete_announce, step_seen, step_begin, delete_store, step_commit, delete_forget,  \
		step_seen, migrate_step_thank, migrate_step_answer
int migrate_step_end(struct change *c, struct err *err);
int migrate_step_old(struct change *c, struct err *err); /* sets c->old */
int migrate_step_thank(struct change *c, struct err *err);
int migrate_step_answer(struct change *c, struct err *err);

/* --- arrive.c, arrive_qemu.c, arrive_back.c --- */
void handle_arrive(struct http_request *req, void *ctx);
void handle_arrive_order(struct http_request *req, void *ctx);
extern const struct change_kind change_arrive, change_arrive_back;
struct arriving *arriving_new(void);
void arriving_free(struct arriving *a);
int arrive_step_export(struct change *c, struct err *err);
int arrive_step_listen(struct change *c, struct err *err);
void arrive_close(struct change *c);
void arrive_unwatch(struct change *c);
bool arrive_granted(const struct vmadmd *d, const char *session);
int arrive_record(struct change *c, struct err *err); /* durably, in a worker */
void arrive_remove_images(const json_t *images);
void arrive_forget(const struct vmadmd *d, const char *session);
