/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that must survive a power cut are written at once and made durable by a child process:
 * fsync takes milliseconds, and the loop waits for no disk.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "vmstated/parts.h"

#define SYNC_MAX 64 /* paths of one child; more than that waiting is one sync of everything */
#define SYNC_MS  60000u
#define WAIT_MS  20u /* for more to come, and for what is more urgent than to fork */

struct sync_queue {
	struct supervisor *sup;
	struct child *child;
	sd_event_source *timer;
	char *paths[SYNC_MAX];
	size_t count;
	bool all, armed;
};

static void next_batch(struct sync_queue *q);

static void batch_done(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct sync_queue *q = ctx;

	q->child = NULL;
	if (!how->known || how->code != CLD_EXITED || how->status != 0)
		log_debug("sync: %s", errors); /* a file may be gone again by now */
	next_batch(q);
}

static void next_batch(struct sync_queue *q)
{
	const char *argv[SYNC_MAX + 2] = {"sync"};
	struct child_spec spec = {
		.argv = argv, .cwd = "/", .in = -1, .out = -1, .errfd = -1, .timeout_ms = SYNC_MS};
	struct err err = {0};

	if (q->child || (q->count == 0 && !q->all))
		return;
	for (size_t i = 0; i < q->count && !q->all; i++)
		argv[i + 1] = q->paths[i];
	if (child_run(q->sup->event, &spec, 4096, batch_done, q, &q->child, &err) < 0)
		log_warn("cannot make files durable: %s", err.msg);
	while (q->count > 0)
		free(q->paths[--q->count]);
	q->all = false;
}

static void add(struct sync_queue *q, char *path)
{
	if (q->count < SYNC_MAX) {
		q->paths[q->count++] = path;
	} else {
		q->all = true;
		free(path);
	}
}

static int on_wait(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct sync_queue *q = userdata;

	q->armed = false;
	next_batch(q);
	return 0;
}

void sync_later(struct supervisor *sup, const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!sup->sync) {
		sup->sync = xcalloc(1, sizeof(*sup->sync));
		sup->sync->sup = sup;
	}
	add(sup->sync, xstrdup(path));
	if (slash)
		add(sup->sync, xstrndup(path, (size_t)(slash - path)));
	/* Not put off by each further file: a steady stream of them would never become durable. */
	if (!sup->sync->child && !sup->sync->armed)
		sup->sync->armed =
			timer_set(sup->event, &sup->sync->timer, WAIT_MS, on_wait, sup->sync) >= 0;
}

bool sync_busy(const struct supervisor *sup)
{
	return sup->sync && (sup->sync->child || sup->sync->count > 0 || sup->sync->all);
}

void sync_free(struct supervisor *sup)
{
	struct sync_queue *q = sup->sync;

	if (!q)
		return;
	if (!q->child)
		next_batch(q); /* it goes on without us */
	if (q->child)
		child_forget(q->child);
	sd_event_source_disable_unref(q->timer);
	while (q->count > 0)
		free(q->paths[--q->count]);
	free(q);
	sup->sync = NULL;
}
