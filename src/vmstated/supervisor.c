/* SPDX-License-Identifier: Apache-2.0 */
/* The guests of this host: made and dropped as definitions come and go, found by any id. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "net/feed.h"
#include "qemu/recorder.h"
#include "store/catalog.h"
#include "vmstated/cgroup.h"
#include "vmstated/hardware.h"
#include "vmstated/neigh.h"
#include "vmstated/net.h"
#include "vmstated/order.h"
#include "vmstated/parts.h"
#include "vmstated/supervisor.h"

struct guest *guest_by_uuid(struct supervisor *sup, const char *uuid)
{
	struct catalog_entry *e = catalog_by_uuid(sup->catalog, uuid);

	if (e && e->data)
		return e->data;
	/* With ten thousand definitions most of a start was spent here. */
	for (struct guest *g = sup->guests; g && sup->undefined > 0; g = g->next) {
		if (!g->def && str_eq(g->uuid, uuid))
			return g;
	}
	return NULL;
}

struct guest *guest_add(struct supervisor *sup, const char *uuid, const char *name)
{
	struct guest *g = xcalloc(1, sizeof(*g)), **at = &sup->guests;

	g->sup = sup;
	sup->undefined++;
	g->state = SUP_INIT;
	g->settled = true;
	g->recorder_fd = -1;
	(void)snprintf(g->uuid, sizeof(g->uuid), "%s", uuid);
	g->name = xstrdup(name);
	if (sup->last_guest)
		at = &sup->last_guest->next;
	*at = g;
	sup->last_guest = g;
	return g;
}

static void guest_free(struct guest *g)
{
	sd_event_source **timers[] = {&g->launch_timer,  &g->stop_timer,  &g->again_timer,
				      &g->restart_timer, &g->ready_timer, &g->monitor_timer};

	g->sup->undefined -= g->def == NULL;
	waiters_fail(g, -ENOENT, "VM %s is gone", g->uuid);
	order_forget(g);
	hooks_free(g);
	hookout_free(g);
	net_free(g);
	neigh_forget(g);
	monitor_close(g);
	if (g->qemu)
		child_forget(g->qemu);
	guest_launch_cleanup(g);
	for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
		sd_event_source_disable_unref(*timers[i]);
	hardware_free(g);
	vm_free(g->started);
	free(g->name);
	free(g->failed);
	free(g->published);
	json_decref(g->once);
	json_decref(g->found);
	free(g);
}

void guest_drop(struct guest *g)
{
	struct supervisor *sup = g->sup;
	struct guest **at = &sup->guests, *before = NULL;

	while (*at != g) {
		before = *at;
		at = &(*at)->next;
	}
	*at = g->next;
	if (sup->last_guest == g)
		sup->last_guest = before;
	log_info("vm=%s forgotten name=%s", g->uuid, g->name);
	if (sup->feed)
		(void)feed_gone(sup->feed, g->uuid);
	guest_forget_files(g);
	guest_free(g);
}

void supervisor_free_guests(struct supervisor *sup)
{
	while (sup->guests) {
		struct guest *g = sup->guests;

		sup->guests = g->next;
		console_close(g);
		guest_free(g);
	}
}

const struct vm *guest_vm(const struct guest *g)
{
	if (g->started)
		return g->started;
	return g->def ? g->def->vm : NULL;
}

int supervisor_find(struct supervisor *sup, const char *id, struct guest **ret, struct err *err)
{
	struct catalog_entry *e;
	int r = catalog_find(sup->catalog, id, &e, err);

	if (r == 0) {
		*ret = e->data;
		return 0;
	}
	if (r != -ENOENT)
		return r;
	/* A guest that runs on without its definition is still there to be stopped. */
	for (struct guest *g = sup->guests; g; g = g->next) {
		if (!g->def && (str_eq(g->uuid, id) || str_eq(g->name, id))) {
			*ret = g;
			return 0;
		}
	}
	return r;
}

/* --- definitions --- */

static bool at_rest(const struct guest *g)
{
	return g->settled && g->pid <= 0 && g->state != SUP_FAILED;
}

static void definition_changed(struct supervisor *sup, struct catalog_entry *e)
{
	struct guest *g = guest_by_uuid(sup, e->uuid);

	if (!g) {
		g = guest_add(sup, e->uuid, e->vm->name);
		guest_load_exit(g);
		if (sup->serving)
			guest_check_mark(g);
	}
	sup->undefined -= g->def == NULL;
	g->def = e;
	e->data = g;
	if (at_rest(g) || str_eq(g->name, g->uuid))
		replace_str(&g->name, xstrdup(e->vm->name));
	if (e->error)
		log_warn("vm=%s definition not taken over: %s", e->uuid, e->error);
	else if (g->started)
		vm_take_live(g->started, e->vm);
	net_change(g);
	cgroup_change(g);
	monitor_update_action(g);
	if (sup->serving)
		guest_publish(g);
}

static void definition_gone(struct supervisor *sup, struct catalog_entry *e)
{
	struct guest *g = e->data;

	if (!g)
		return;
	g->def = NULL;
	sup->undefined++;
	if (g->settled && g->pid <= 0) {
		guest_drop(g);
		return;
	}
	log_warn("vm=%s its definition vanished; it goes on as started", g->uuid);
	guest_publish(g);
}

void supervisor_on_change(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
	if (what == CATALOG_GONE)
		definition_gone(ctx, e);
	else
		definition_changed(ctx, e);
}

void supervisor_on_problem(void *ctx, const char *file, const char *text)
{
	if (text)
		log_warn("definition refused: %s", text);
	else
		log_info("definition in order again: %s", file);
}

void supervisor_snapshot(struct feed_server *feed, void *ctx)
{
	struct supervisor *sup = ctx;

	for (struct guest *g = sup->guests; g; g = g->next) {
		json_t *facts = guest_facts(g);

		feed_snapshot_vm(feed, g->uuid, facts);
		json_decref(facts);
	}
}

void supervisor_trim_records(struct supervisor *sup)
{
	for (struct guest *g = sup->guests; g; g = g->next) {
		AUTO_FREE char *dir = g->pid > 0 ? path_of_run(&sup->paths, g->uuid, NULL) : NULL;

		if (dir)
			recorder_trim(dir);
	}
}
