/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup of a VM as a stream (backup.c), and a VM received from one (backup_receive.c). The stream
 * goes through a unix socket the caller listens on, so that files and pipes are opened by him.
 * docs/live-operations.md.
 */
#pragma once

struct change;
struct change_kind;
struct err;
struct http_request;
struct saving;

#define BACKUP_PART "backup.part" /* in the data directory: a disk on its way */

void handle_backup(struct http_request *req, void *ctx);
void handle_receive(struct http_request *req, void *ctx);
extern const struct change_kind change_backup, change_receive;

/* In a worker: the caller's socket, blocking; -EPERM when another user listens there. */
int backup_connect(const struct saving *s, struct err *err);
/* A step: fn in a worker that may take its time, and can be cancelled. */
int backup_work(struct change *c, int (*fn)(void *change, struct err *err), struct err *err);
int backup_cancel(struct change *c, int r, const struct err *why, struct err *err);
