/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMs as vmstated's feed tells them, and the facts we tell ourselves. A lost feed keeps the
 * last known facts: guests outlive the supervisor. When it returns, its snapshot replaces them.
 */
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "vmadmd/devices/trans.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/agent.h"
#include "vmadmd/guest/ioerror.h"
#include "vmadmd/guest/leases.h"
#include "vmadmd/guest/metaport.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/stats.h"
#include "vmadmd/vmadmd.h"

static int compare(const void *a, const void *b)
{
	const struct guest *x = a, *y = b;

	return strcmp(x->uuid, y->uuid);
}

struct guest *guest_find(struct vmadmd *d, const char *uuid)
{
	struct guest key = {0};
	struct guest **at;

	if (strlen(uuid) != UUID_LEN)
		return NULL;
	memcpy(key.uuid, uuid, UUID_LEN + 1);
	at = tfind(&key, &d->guests, compare);
	return at ? *at : NULL;
}

struct guest *guest_get(struct vmadmd *d, const char *uuid)
{
	struct guest *g = guest_find(d, uuid);

	if (g || strlen(uuid) != UUID_LEN)
		return g;
	g = xcalloc(1, sizeof(*g));
	memcpy(g->uuid, uuid, UUID_LEN + 1);
	g->d = d;
	g->vnc.fd = g->vnc.staged = -1;
	if (!tsearch(g, &d->guests, compare))
		abort(); /* no memory */
	return g;
}

static void guest_free(struct guest *g)
{
	metaport_close(g);
	agent_close(g);
	trans_late_forget(g);
	monitor_close(g);
	ioerror_end(g);
	vnc_close(g);
	sd_event_source_disable_unref(g->retry);
	sd_event_source_disable_unref(g->vnc.retry);
	json_decref(g->facts);
	sd_event_source_disable_unref(g->repair);
	json_decref(g->leases);
	json_decref(g->provisioning);
	json_decref(g->zfs);
	json_decref(g->snapshots);
	guest_stats_free(g);
	free(g->vnc.waiters);
	free(g);
}

/* Forget it when there is nothing left to know. */
static void drop_if_empty(struct guest *g)
{
	if (g->facts || g->provisioning || g->zfs || g->qmp || g->metaport || g->vnc.fd >= 0 ||
	    g->watches || g->settling || g->snapshots || g->repairing)
		return;
	tdelete(g, &g->d->guests, compare);
	guest_free(g);
}

struct collect {
	struct guest **items;
	size_t count, cap;
};

static void collect(const void *node, VISIT which, void *closure)
{
	struct collect *c = closure;

	if (which != postorder && which != leaf)
		return;
	if (c->count == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 64;
		c->items = xrealloc(c->items, c->cap * sizeof(struct guest *));
	}
	c->items[c->count++] = *(struct guest *const *)node;
}

/* fn may drop the guest it is called for. */
void guests_each(struct vmadmd *d, void (*fn)(struct guest *g, void *ctx), void *ctx)
{
	struct collect c = {0};

	twalk_r(d->guests, collect, &c);
	for (size_t i = 0; i < c.count; i++)
		fn(c.items[i], ctx);
	free(c.items);
}

static void remove_guest(struct guest *g, void *ctx)
{
	tdelete(g, &g->d->guests, compare);
	guest_free(g);
}

void guests_free(struct vmadmd *d)
{
	guests_each(d, remove_guest, NULL);
}

bool guest_runs(const struct guest *g)
{
	return g && g->facts && json_object_get(g->facts, FACT_PID) &&
	       str_eq(json_get_str(g->facts, FACT_ZONE_STATE, ""), "running");
}

const char *guest_state(struct vmadmd *d, const char *uuid)
{
	const struct guest *g = guest_find(d, uuid);
	const char *ours = g ? json_get_str(g->provisioning, FACT_STATE, NULL) : NULL;

	if (ours)
		return ours;
	if (g && g->facts)
		return json_get_str(g->facts, FACT_STATE, "unknown");
	return feed_client_ready(d->states) ? "stopped" : "unknown";
}

/* --- our own facts --- */

json_t *guest_own_facts(const struct guest *g)
{
	json_t *facts = g->provisioning ? json_copy(g->provisioning) : json_object();
	json_t *vnc = vnc_info(g);

	if (json_object_size(vnc) > 0)
		json_object_set(facts, FACT_VNC, vnc);
	if (g->zfs)
		json_object_set(facts, FACT_ZFS, g->zfs);
	if (g->paused)
		json_object_set(facts, FACT_PAUSED, g->paused);
	if (g->leases)
		json_object_set(facts, FACT_LEASES, g->leases);
	agent_facts(g, facts);
	snapshots_facts(g, facts);
	json_decref(vnc);
	return facts;
}

uint64_t guest_publish(struct guest *g)
{
	AUTO_JSON json_t *facts = guest_own_facts(g);

	return feed_vm(g->d->feed, g->uuid, facts);
}

static uint64_t tell(struct guest *g)
{
	uint64_t seq;

	if (g->provisioning || catalog_by_uuid(g->d->catalog, g->uuid))
		seq = guest_publish(g);
	else
		seq = feed_gone(g->d->feed, g->uuid);
	if (!g->provisioning && !catalog_by_uuid(g->d->catalog, g->uuid)) {
		json_decref(g->snapshots);
		g->snapshots = NULL;
	}
	drop_if_empty(g);
	return seq;
}

uint64_t guest_provisioning(struct guest *g, json_t *provisioning)
{
	json_decref(g->provisioning);
	g->provisioning = provisioning;
	return tell(g);
}

uint64_t guest_zfs(struct guest *g, json_t *zfs)
{
	json_decref(g->zfs);
	g->zfs = zfs;
	return tell(g);
}

/* --- vmstated's feed --- */

static void look_at_leases(struct guest *g)
{
	if (leases_update(g) && catalog_by_uuid(g->d->catalog, g->uuid))
		(void)guest_publish(g);
}

static void facts_set(struct guest *g, const json_t *facts)
{
	json_decref(g->facts);
	g->facts = json_deep_copy(facts);
	g->stale = false;
	monitor_update(g);
	metaport_update(g);
	agent_update(g);
	look_at_leases(g);
	transient_look(g);
}

static void facts_gone(struct guest *g)
{
	json_decref(g->facts);
	g->facts = NULL;
	g->stale = false;
	monitor_update(g);
	metaport_update(g);
	agent_update(g);
	look_at_leases(g);
	drop_if_empty(g);
}

static void mark_stale(struct guest *g, void *ctx)
{
	g->stale = g->facts != NULL;
}

static void drop_stale(struct guest *g, void *ctx)
{
	if (g->stale)
		facts_gone(g);
}

void guests_feed_line(void *ctx, const char *type, const json_t *line)
{
	struct vmadmd *d = ctx;
	const char *uuid = json_get_str(line, "uuid", "");
	struct guest *g;

	if (str_eq(type, FEED_VM) && uuid_valid(uuid)) {
		facts_set(guest_get(d, uuid), json_object_get(line, "facts"));
	} else if (str_eq(type, FEED_GONE)) {
		g = guest_find(d, uuid);
		if (g)
			facts_gone(g);
	} else if (str_eq(type, FEED_READY)) {
		guests_each(d, drop_stale, NULL);
	}
	autoboot_poke(d);
}

void guests_feed_link(void *ctx, bool up)
{
	struct vmadmd *d = ctx;

	if (up) {
		log_info("vmstated connected");
		guests_each(d, mark_stale, NULL);
	} else {
		log_warn("vmstated is away: states are the last known ones until it returns");
	}
}
