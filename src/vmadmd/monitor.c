/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadmd's monitor of each running VM: one connection to vm.qmp, opened when vmstated says that
 * QEMU is there, opened again when it was lost while the VM still runs, closed when the VM left
 * running. Every command's caller hears exactly once, also when we close.
 */
#include <errno.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "qemu/qmp.h"
#include "vmadmd/devices/plug.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/ioerror.h"
#include "vmadmd/stats.h"
#include "vmadmd/vmadmd.h"

struct monitor_command {
	struct guest *g;
	monitor_done done;
	void *ctx;
	struct monitor_command *next;
};

static int monitor_open(struct guest *g, struct err *err);

/* --- watches --- */

void monitor_watch(struct guest *g, struct monitor_watch *w)
{
	w->next = g->watches;
	g->watches = w;
}

void monitor_unwatch(struct guest *g, struct monitor_watch *w)
{
	for (struct monitor_watch **at = &g->watches; *at; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			return;
		}
	}
}

static bool is_watching(const struct guest *g, const struct monitor_watch *w)
{
	const struct monitor_watch *at = g->watches;

	while (at && at != w)
		at = at->next;
	return at != NULL;
}

/* A watch may take itself or others away: then what follows is asked for anew. */
static void tell_watches(struct guest *g, const char *name, const json_t *data)
{
	struct monitor_watch *next;

	for (struct monitor_watch *w = g->watches; w; w = next) {
		next = w->next;
		w->event(w->ctx, name, data);
		if (next && !is_watching(g, next))
			return;
	}
}

static void on_event(void *ctx, struct qmp *q, const char *name, const json_t *data, int64_t wall)
{
	tell_watches(ctx, name, data);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct guest *g = ctx;
	struct err err = {0};

	if (!g->qmp && guest_runs(g) && monitor_open(g, &err) < 0) {
		log_debug("vm=%s monitor not reached: %s", g->uuid, err.msg);
		(void)timer_set(g->d->event, &g->retry, MONITOR_RETRY_MS, on_retry, g);
	}
	return 0;
}

static void on_ready(void *ctx, struct qmp *q)
{
	struct guest *g = ctx;

	log_debug("vm=%s monitor ready", g->uuid);
	g->qmp_silent = false;
	vnc_apply(g);
	plug_settle(g);
	tell_watches(g, MONITOR_READY, NULL);
}

static void on_closed(void *ctx, struct qmp *q, int r, const struct err *err)
{
	struct guest *g = ctx;

	if (r == -ETIMEDOUT && !g->qmp_silent)
		log_warn("vm=%s monitor did not greet: QEMU hangs or talks to another client",
			 g->uuid);
	else
		log_debug("vm=%s monitor closed: %s", g->uuid, err_text(err, r));
	g->qmp_silent = r == -ETIMEDOUT;
	g->qmp = NULL;
	qmp_free(q);
	vnc_close(g);
	if (guest_runs(g))
		(void)timer_set(g->d->event, &g->retry, MONITOR_RETRY_MS, on_retry, g);
}

static int monitor_open(struct guest *g, struct err *err)
{
	const struct qmp_config config = {
		.ready = on_ready, .event = on_event, .closed = on_closed, .ctx = g};
	AUTO_FREE char *path = path_of_run(g->d->paths, g->uuid, "vm.qmp");

	g->qmp_pid = json_get_int(g->facts, FACT_PID, 0);
	return qmp_open(g->d->event, path, &config, &g->qmp, err);
}

void monitor_close(struct guest *g)
{
	static const struct err closed = {ECONNRESET, "the VM stopped running"};
	struct monitor_command *c;

	timer_stop(g->retry);
	if (g->qmp)
		qmp_free(g->qmp);
	g->qmp = NULL;
	while ((c = g->commands) != NULL) {
		g->commands = c->next;
		c->done(c->ctx, -ECONNRESET, NULL, &closed);
		free(c);
	}
}

void monitor_update(struct guest *g)
{
	bool runs = guest_runs(g);

	if (g->qmp && runs && json_get_int(g->facts, FACT_PID, 0) == g->qmp_pid)
		return;
	monitor_close(g);
	vnc_close(g);
	guest_stats_free(g);
	if (runs) {
		ioerror_watch(g);
		(void)on_retry(NULL, 0, g);
	} else {
		tell_watches(g, MONITOR_GONE, NULL);
		ioerror_end(g);
	}
}

bool monitor_ready(const struct guest *g)
{
	return g->qmp && qmp_is_ready(g->qmp);
}

/* --- commands --- */

static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct monitor_command *c = ctx;

	for (struct monitor_command **at = &c->g->commands; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	c->done(c->ctx, r, value, err);
	free(c);
}

int monitor_send(struct guest *g, const char *command, const json_t *arguments, int fd,
		 monitor_done done, void *ctx, struct err *err)
{
	return monitor_ask(g,
			   &(struct monitor_order){.command = command,
						   .arguments = arguments,
						   .fd = fd,
						   .timeout_ms = QMP_ANSWER_MS},
			   done, ctx, err);
}

int monitor_ask(struct guest *g, const struct monitor_order *order, monitor_done done, void *ctx,
		struct err *err)
{
	struct monitor_command *c;
	int r;

	if (!g->qmp) {
		r = monitor_open(g, err);
		if (r < 0)
			return err_wrap(err, r, "cannot reach QEMU's monitor");
	}
	c = xcalloc(1, sizeof(*c));
	*c = (struct monitor_command){.g = g, .done = done, .ctx = ctx, .next = g->commands};
	r = qmp_send(g->qmp, order->command, order->arguments, order->fd, order->timeout_ms,
		     on_answer, c);
	if (r < 0) {
		free(c);
		return err_set(err, -r, "%zu QMP commands wait for an answer already",
			       qmp_pending(g->qmp, &(uint64_t){0}));
	}
	g->commands = c;
	return 0;
}
