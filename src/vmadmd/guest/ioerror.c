/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that QEMU stopped because a disk is full or fails: why and which disk goes into the VM
 * object, and it is resumed when its disk works again by the VM's ioretry, or by a person. QEMU
 * repeats the request then; if it fails again the guest stops again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/ioerror.h"
#include "vmadmd/info.h"
#include "vmadmd/vmadmd.h"

static void set_paused(struct guest *g, json_t *paused)
{
	if (!paused && !g->paused)
		return;
	json_decref(g->paused);
	g->paused = paused;
	(void)guest_publish(g);
}

/* --- resumed by itself --- */

static void on_resumed(void *ctx, int r, const json_t *value, const struct err *err)
{
	const struct guest *g = ctx;

	if (r < 0)
		log_warn("vm=%s not resumed: %s", g->uuid, err_text(err, r));
}

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct guest *g = ctx;
	struct err err = {0};

	if (g->paused && monitor_send(g, "cont", NULL, -1, on_resumed, g, &err) < 0)
		log_warn("vm=%s not resumed: %s", g->uuid, err.msg);
	return 0;
}

static void arm(struct guest *g)
{
	const struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);

	if (e && e->vm->ioretry_ms > 0)
		(void)timer_set(g->d->event, &g->ioretry, e->vm->ioretry_ms, on_retry, g);
}

/* --- why --- */

/* The row of query-block that has the node, or (node NULL) whose last request failed. */
static const json_t *row_of(const json_t *block, const char *node)
{
	const json_t *row;
	size_t i;

	json_array_foreach (block, i, row) {
		const json_t *inserted = json_object_get(row, "inserted");
		const char *name = json_get_str(inserted, "node-name", "");
		const char *status = json_get_str(row, "io-status", "ok");
		size_t len = strlen(name);

		/* "disk0", or the node below it: "disk0-file" */
		if (node ? len > 0 && str_starts(node, name) && strchr("-", node[len])
			 : !str_eq(status, "ok"))
			return row;
	}
	return NULL;
}

static void on_block(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct guest *g = ctx;
	json_t *paused = g->paused ? json_copy(g->paused) : NULL;
	const json_t *row;

	if (r < 0 || !paused) {
		json_decref(paused);
		return;
	}
	row = row_of(value, json_get_str(paused, "node", NULL));
	json_put_str(paused, "disk", json_get_str(json_object_get(row, "inserted"), "file", NULL));
	json_object_del(paused, "node");
	set_paused(g, paused);
	log_warn("vm=%s paused: I/O error of disk '%s'", g->uuid,
		 json_get_str(paused, "disk", "?"));
}

static json_t *paused_now(void)
{
	json_t *paused = json_object();
	char now[ISO_TIME_LEN];

	json_put_str(paused, "cause", "io-error");
	json_put_str(paused, "since", clock_iso(clock_wall_ms(), now, sizeof(now)));
	return paused;
}

static void ask_which(struct guest *g)
{
	struct err err = {0};

	if (monitor_send(g, "query-block", NULL, -1, on_block, g, &err) < 0)
		log_warn("vm=%s which disk failed is not known: %s", g->uuid, err.msg);
	arm(g);
}

static void on_error(struct guest *g, const json_t *data)
{
	json_t *paused;

	if (!str_eq(json_get_str(data, "action", ""), "stop"))
		return;
	paused = paused_now();
	json_put_str(paused, "node", json_get_str(data, "node-name", NULL));
	json_put_str(paused, "operation", json_get_str(data, "operation", NULL));
	json_put_str(paused, "reason", json_get_str(data, "reason", NULL));
	json_put_bool(paused, "nospace", json_get_bool(data, "nospace", false));
	set_paused(g, paused);
	ask_which(g);
}

static void on_status(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct guest *g = ctx;

	if (r < 0 || !str_eq(json_get_str(value, "status", ""), "io-error")) {
		if (r == 0)
			set_paused(g, NULL);
		return;
	}
	if (!g->paused)
		set_paused(g, paused_now());
	ask_which(g);
}

static void on_event(void *ctx, const char *name, const json_t *data)
{
	struct guest *g = ctx;

	if (str_eq(name, "BLOCK_IO_ERROR"))
		on_error(g, data);
	else if (str_eq(name, "RESUME") || str_eq(name, MONITOR_GONE))
		set_paused(g, NULL);
	else if (str_eq(name, MONITOR_READY)) /* it may have happened while we were away */
		(void)monitor_send(g, "query-status", NULL, -1, on_status, g, NULL);
}

void ioerror_watch(struct guest *g)
{
	if (g->io_watch.event)
		return;
	g->io_watch = (struct monitor_watch){.event = on_event, .ctx = g};
	monitor_watch(g, &g->io_watch);
}

void ioerror_end(struct guest *g)
{
	if (g->io_watch.event)
		monitor_unwatch(g, &g->io_watch);
	g->io_watch.event = NULL;
	json_decref(g->paused);
	g->paused = NULL;
	sd_event_source_disable_unref(g->ioretry);
	g->ioretry = NULL;
}
