/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup of a VM as a stream: the change (backup.c), the copies that are the point in time of a VM
 * that runs (backup_copy.c), what goes into the stream (backup_send.c); and a VM received from one
 * (backup_receive.c). The stream goes through a unix socket the caller listens on, so that files
 * and pipes are opened by him. docs/live-operations.md.
 */
#pragma once

#include <stddef.h>

struct change;
struct change_kind;
struct err;
struct http_request;
struct image_info;
struct saving;

/* In the data directory: disks on their way. */
#define BACKUP_PART "backup.part"
#define BACKUP_COPY "backup%zu.part"

void handle_backup(struct http_request *req, void *ctx);
void handle_receive(struct http_request *req, void *ctx);
extern const struct change_kind change_backup, change_backup_undo, change_receive;

/* In a worker: the caller's socket, blocking; -EPERM when another user listens there. */
int backup_connect(const struct saving *s, struct err *err);
/* A step: fn in a worker that may take its time, and can be cancelled. */
int backup_work(struct change *c, int (*fn)(void *change, struct err *err), struct err *err);
int backup_cancel(struct change *c, int r, const struct err *why, struct err *err);

/* --- backup_copy.c: steps; nothing to do when the VM is stopped or has no disks --- */
char *backup_copy_path(const struct change *c, size_t i); /* caller frees */
int backup_copy_targets(struct change *c, struct err *err);
int backup_copy_attach(struct change *c, struct err *err);
int backup_copy_begin(struct change *c, struct err *err); /* the point in time */
int backup_copy_await(struct change *c, struct err *err);
void backup_copy_cancel(struct change *c); /* backup_copy_await hears of it */
int backup_copy_detach(struct change *c, struct err *err);
int backup_copy_remove(struct change *c, struct err *err); /* also what a sending left */
/* Room for `bytes` of copies in the data directory? -ENOSPC naming both. */
int backup_room(const struct change *c, unsigned long long bytes, struct err *err);

/* Bytes a copy of the image takes at most, but for what it is on. */
unsigned long long backup_bytes(const struct image_info *info);

/* --- backup_send.c --- */
int backup_send_all(void *change, struct err *err); /* in a worker */
