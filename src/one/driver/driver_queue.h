/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Actions that wait for their turn. The core may send a thousand at once, of ten kilobytes and
 * more each; what is over a small bound lies in an unlinked file, so that the driver stays small.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "one/driver/driver_message.h"

#define QUEUE_MEMORY (128u << 10) /* bytes of messages kept in memory */

struct waiting {
	struct message m; /* without xml when it lies in the file */
	off_t at;         /* there; -1: in memory */
};

struct queue {
	struct waiting *items; /* from first on, in order of arrival */
	size_t first, count, cap;
	size_t in_memory; /* bytes */
	size_t in_file;   /* messages */
	int fd;           /* -1: no file yet, or none can be made */
	off_t end;
	bool no_file;
};

void queue_init(struct queue *q);
void queue_done(struct queue *q);
/* Takes what m owns. */
void queue_push(struct queue *q, struct message *m);
/* Message i of queue_count(); xml may be absent. */
const struct message *queue_at(const struct queue *q, size_t i);
size_t queue_count(const struct queue *q);
/* Take message i out, whole. -EIO when the file cannot be read back: *ret has no xml then. */
int queue_take(struct queue *q, size_t i, struct message *ret);
