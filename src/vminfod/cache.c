/* SPDX-License-Identifier: Apache-2.0 */
/* The VM objects and how they change; see cache.h. */
#include "vminfod/cache.h"

#include <errno.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/vm.h"
#include "vminfod/cache_impl.h"
#include "vminfod/disks.h"
#include "vminfod/host.h"

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct cached *)a)->uuid, ((const struct cached *)b)->uuid);
}

struct cached *cache_find(const struct cache *c, const char *uuid)
{
	struct cached key;
	struct cached **node;

	if (strlen(uuid) != UUID_LEN)
		return NULL;
	memcpy(key.uuid, uuid, UUID_LEN + 1);
	node = tfind(&key, &c->by_uuid, compare);
	return node ? *node : NULL;
}

static struct cached *get(struct cache *c, const char *uuid)
{
	struct cached *v = cache_find(c, uuid);

	if (v || !uuid_valid(uuid))
		return v;
	v = xcalloc(1, sizeof(*v));
	memcpy(v->uuid, uuid, UUID_LEN + 1);
	v->owner_uid = v->group_gid = UINT32_MAX;
	if (!tsearch(v, &c->by_uuid, compare))
		abort();
	return v;
}

static void cached_free(struct cached *v)
{
	for (int i = 0; i < FEED_SOURCES; i++)
		free(v->facts[i]);
	vm_free(v->ghost);
	free(v->deferred);
	free(v->cause);
	text_done(&v->full);
	text_done(&v->open);
	free(v->disks);
	free(v);
}

/* Forget it when nothing is known of it any more. Last use of v. */
static void collect(struct cache *c, struct cached *v)
{
	if (v->visible || v->entry || v->ghost || v->held || v->facts[0] || v->facts[1])
		return;
	(void)tdelete(v, &c->by_uuid, compare);
	cached_free(v);
}

struct cache *cache_new(const struct cache_config *config)
{
	struct cache *c = xcalloc(1, sizeof(*c));

	c->config = *config;
	c->born_wall_ms = clock_wall_ms();
	return c;
}

static void free_node(void *v)
{
	cached_free(v);
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	tdestroy(c->by_uuid, free_node);
	cache_drop_bodies(c);
	json_decref(c->scan_vms);
	json_decref(c->scan_changes);
	free(c->vms);
	free(c);
}

/* --- one VM changes --- */

/* by: the cause's kind; text: what a debug line calls it. */
static const struct {
	const char *by, *text;
} whys[WHYS] = {
	[WHY_START] = {CAUSE_SCAN, "start"},
	[WHY_NEW] = {CAUSE_EDITOR, "definition appeared"},
	[WHY_FILES] = {CAUSE_EDITOR, "files changed"},
	[WHY_GONE] = {CAUSE_EDITOR, "definition vanished"},
	[WHY_SUPERVISOR] = {CAUSE_SUPERVISOR, "vmstated's feed"},
	[WHY_GUEST] = {CAUSE_GUEST, "vmstated's feed, of the guest"},
	[WHY_VMADMD] = {CAUSE_COMMAND, "vmadmd's feed"},
	[WHY_SNAPSHOT] = {CAUSE_SUPERVISOR, "a feed's snapshot"},
	[WHY_LOSS] = {CAUSE_SUPERVISOR, "a feed's loss"},
	[WHY_DISK] = {CAUSE_DISK, "a disk's header"},
	[WHY_STORAGE] = {CAUSE_SCAN, "storage"},
	[WHY_HOST] = {CAUSE_EDITOR, "host facts"},
};

static void log_scan(struct cache *c, const struct cached *v, const struct cache_event *ev)
{
	json_t *row = json_object();

	json_put_str(row, "zonename", v->uuid);
	json_put_str(row, "action", ev->type);
	if (ev->open_changes) {
		(void)json_object_set(row, "changes", ev->open_changes);
		(void)json_array_extend(c->scan_changes, ev->open_changes);
	}
	(void)json_array_append_new(c->scan_vms, row);
}

static void tell(struct cache *c, struct cached *v, struct cache_event *ev, enum why why)
{
	char by[sizeof("{\"by\":\"\"}") + 16];

	(void)snprintf(by, sizeof(by), "{\"by\":\"%s\"}", c->scanning ? CAUSE_SCAN : whys[why].by);
	ev->uuid = v->uuid;
	ev->full = &v->full;
	ev->open = v->open.data ? &v->open : &v->full;
	ev->cause = v->ending && v->cause ? v->cause : by;
	ev->owner_uid = v->owner_uid;
	ev->group_gid = v->group_gid;
	if (c->scanning)
		log_scan(c, v, ev);
	c->config.event(c->config.ctx, ev);
}

static void set_texts(struct cached *v, const json_t *object, char *text)
{
	AUTO_JSON json_t *open = object_without_secrets(object);
	const struct vm *vm = object_vm(v);

	text_set(&v->full, text);
	text_done(&v->open);
	if (open)
		text_set(&v->open, json_text(open));
	v->owner_uid = vm->owner_uid;
	v->group_gid = vm->group_gid;
}

static void appear(struct cache *c, struct cached *v, const json_t *object, char *text,
		   enum why why)
{
	struct cache_event ev = {.type = EVENT_CREATE};

	v->visible = true;
	c->vms = xrealloc(c->vms, (c->count + 1) * sizeof(struct cached *));
	c->vms[c->count++] = v;
	set_texts(v, object, text);
	tell(c, v, &ev, why);
}

static void disappear(struct cache *c, struct cached *v, enum why why)
{
	struct cache_event ev = {.type = EVENT_DELETE};

	for (size_t i = 0; i < c->count; i++) {
		if (c->vms[i] != v)
			continue;
		c->count--;
		memmove(&c->vms[i], &c->vms[i + 1], (c->count - i) * sizeof(struct cached *));
		break;
	}
	v->visible = false;
	tell(c, v, &ev, why);
	text_done(&v->full);
	text_done(&v->open);
}

static json_t *parse_own(const struct text *t)
{
	return json_loadb(t->data, t->len, 0, NULL);
}

/* NULL when nothing changed that everybody may see. */
static json_t *open_changes(const json_t *old, const json_t *object)
{
	AUTO_JSON json_t *old_open = object_without_secrets(old);
	AUTO_JSON json_t *new_open = object_without_secrets(object);
	json_t *changes = vm_diff(old_open ? old_open : old, new_open ? new_open : object);

	if (json_array_size(changes) > 0)
		return changes;
	json_decref(changes);
	return NULL;
}

static void alter(struct cache *c, struct cached *v, const json_t *object, char *text, enum why why)
{
	struct cache_event ev = {.type = EVENT_MODIFY};
	AUTO_JSON json_t *old = parse_own(&v->full);
	AUTO_JSON json_t *changes = vm_diff(old, object);
	AUTO_JSON json_t *open = NULL;
	bool secrets = v->open.data != NULL;

	set_texts(v, object, text);
	if (json_array_size(changes) == 0)
		return;
	ev.changes = ev.open_changes = changes;
	if (secrets || v->open.data) {
		open = open_changes(old, object);
		ev.open_changes = open;
	}
	tell(c, v, &ev, why);
}

void cache_refresh(struct cache *c, struct cached *v, enum why why)
{
	AUTO_JSON json_t *object = NULL;
	char *text;

	if (!c->started)
		return;
	if (!object_vm(v)) {
		if (v->visible) {
			if (c->disks)
				object_forget_disks(c, v);
			log_debug("vm=%s gone source=\"%s\"", v->uuid, whys[why].text);
			cache_drop_bodies(c);
			disappear(c, v, why);
		}
		return;
	}
	object = object_make(c, v);
	text = json_text(object);
	if (v->visible && strcmp(v->full.data, text) == 0) {
		free(text);
		return;
	}
	log_debug("vm=%s refreshed source=\"%s\"", v->uuid, whys[why].text);
	cache_drop_bodies(c);
	if (!v->visible)
		appear(c, v, object, text, why);
	else if (c->config.listening(c->config.ctx) || c->scanning)
		alter(c, v, object, text, why);
	else
		set_texts(v, object, text);
}

/* A VM that runs without a definition goes on being shown, by the definition it had. */
static void look_for_ghost(struct cache *c, struct cached *v, const struct vm *last)
{
	bool runs = facts_run(v->facts[FEED_OF_VMSTATED]);

	if (v->entry || !runs) {
		vm_free(steal_ptr(v->ghost));
		return;
	}
	if (!v->ghost)
		v->ghost = last ? vm_copy(last) : object_started(c->config.paths, v->uuid);
}

void cache_on_catalog(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
	static const enum why why[] = {
		[CATALOG_NEW] = WHY_NEW, [CATALOG_CHANGED] = WHY_FILES, [CATALOG_GONE] = WHY_GONE};
	struct cache *c = ctx;
	struct cached *v = get(c, e->uuid);

	v->entry = what == CATALOG_GONE ? NULL : e;
	look_for_ghost(c, v, e->vm);
	cache_refresh(c, v, why[what]);
	collect(c, v);
}

/* --- all VMs --- */

struct pointers {
	struct cached **items;
	size_t count;
};

/* A walk that may remove: over a copy. */
static void add_pointer(const void *node, VISIT which, void *closure)
{
	struct pointers *p = closure;

	if (which != postorder && which != leaf)
		return;
	p->items = xrealloc(p->items, (p->count + 1) * sizeof(struct cached *));
	p->items[p->count++] = *(struct cached *const *)node;
}

static struct pointers all_of(const struct cache *c)
{
	struct pointers p = {0};

	twalk_r(c->by_uuid, add_pointer, &p);
	return p;
}

static int by_number(const void *a, const void *b)
{
	const struct catalog_entry *x = (*(struct cached *const *)a)->entry;
	const struct catalog_entry *y = (*(struct cached *const *)b)->entry;
	uint64_t nx = x ? x->number : UINT64_MAX, ny = y ? y->number : UINT64_MAX;

	return nx < ny ? -1 : nx > ny;
}

void cache_start(struct cache *c)
{
	struct pointers all = all_of(c);

	c->started = true;
	if (all.count)
		qsort(all.items, all.count, sizeof(struct cached *), by_number);
	for (size_t i = 0; i < all.count; i++)
		cache_refresh(c, all.items[i], WHY_START);
	free(all.items);
}

/* --- disks and host --- */

void cache_use(struct cache *c, struct disks *disks, struct host *host)
{
	c->disks = disks;
	c->host = host;
}

void cache_drop_sources(struct cache *c)
{
	struct pointers all = all_of(c);

	for (size_t i = 0; i < all.count; i++)
		object_forget_disks(c, all.items[i]);
	free(all.items);
	disks_free(steal_ptr(c->disks));
	host_free(steal_ptr(c->host));
	c->started = false;
}

static bool has_disk(const struct cached *v, const struct seen_disk *d)
{
	for (size_t i = 0; i < v->ndisks; i++) {
		if (v->disks[i] == d)
			return true;
	}
	return false;
}

void cache_on_disk(void *ctx, struct seen_disk *d)
{
	struct cache *c = ctx;

	for (size_t i = 0; i < c->count; i++) {
		struct cached *v = c->vms[i];

		if (!has_disk(v, d))
			continue;
		/* Until the change is complete the object stays as it was. */
		if (v->held)
			v->disks_changed = true;
		else
			cache_refresh(c, v, WHY_DISK);
	}
}

void cache_on_host(void *ctx)
{
	struct cache *c = ctx;

	for (size_t i = 0; i < c->count; i++)
		cache_refresh(c, c->vms[i], WHY_HOST);
}

/* --- facts --- */

static void set_facts(struct cache *c, struct cached *v, enum feed_source from, char *text)
{
	replace_str(&v->facts[from], text);
	if (from == FEED_OF_VMSTATED)
		look_for_ghost(c, v, NULL);
}

/* The guest reset itself, or ended. */
static bool by_guest(const char *before, const json_t *facts)
{
	const json_t *end = json_object_get(facts, FACT_LAST_EXIT);
	json_int_t resets = json_get_int(facts, FACT_RESETS, 0);
	AUTO_JSON json_t *old = before ? json_loads(before, 0, NULL) : NULL;

	if (!old)
		return false;
	if (resets > json_get_int(old, FACT_RESETS, 0))
		return true;
	return end && str_eq(json_get_str(end, "cause", NULL), "guest") &&
	       !json_equal(end, json_object_get(old, FACT_LAST_EXIT));
}

void cache_facts(struct cache *c, enum feed_source from, const char *uuid, const json_t *facts)
{
	struct cached *v = facts ? get(c, uuid) : cache_find(c, uuid);
	AUTO_FREE char *text = facts ? json_text(facts) : NULL;
	enum why why = from == FEED_OF_VMSTATED ? WHY_SUPERVISOR : WHY_VMADMD;

	if (!v)
		return;
	v->generation[from] = c->feeds[from].generation;
	if (from == FEED_OF_VMADMD && v->held) {
		replace_str(&v->deferred, steal_ptr(text));
		v->has_deferred = true;
		return;
	}
	if (v->facts[from] && text && strcmp(v->facts[from], text) == 0)
		return;
	if (from == FEED_OF_VMSTATED && facts && by_guest(v->facts[from], facts))
		why = WHY_GUEST;
	set_facts(c, v, from, steal_ptr(text));
	cache_refresh(c, v, why);
	collect(c, v);
}

void cache_feed_up(struct cache *c, enum feed_source from)
{
	c->feeds[from].up = true;
	c->feeds[from].generation++;
}

/* Only those whose object depends on it; after a quick restart that is none. */
void cache_feed_ready(struct cache *c, enum feed_source from)
{
	struct feed_state *feed = &c->feeds[from];
	struct pointers all = all_of(c);
	bool first = !feed->ever;

	feed->ready = feed->ever = true;
	feed->said = false;
	for (size_t i = 0; i < all.count; i++) {
		struct cached *v = all.items[i];
		bool stale = v->facts[from] && v->generation[from] != feed->generation;

		if (stale)
			set_facts(c, v, from, NULL);
		if (stale || v->shows_unknown || first)
			cache_refresh(c, v, WHY_SNAPSHOT);
		collect(c, v);
	}
	free(all.items);
}

void cache_feed_lost(struct cache *c, enum feed_source from, int64_t wall_ms, bool say)
{
	struct feed_state *feed = &c->feeds[from];
	struct pointers all;

	feed->up = feed->ready = false;
	feed->lost_wall_ms = wall_ms;
	if (!say || !feed->ever)
		return;
	feed->said = true;
	all = all_of(c);
	for (size_t i = 0; i < all.count; i++)
		cache_refresh(c, all.items[i], WHY_LOSS);
	free(all.items);
}

/* --- mutations --- */

void cache_begin(struct cache *c, const char *uuid, const json_t *cause)
{
	struct cached *v = get(c, uuid);
	AUTO_JSON json_t *by = NULL;

	if (!v)
		return;
	if (!v->held)
		v->pending = facts_pending(v->facts[FEED_OF_VMSTATED]);
	v->held = true;
	by = json_pack("{s:s}", "by", json_get_str(cause, "by", CAUSE_COMMAND));
	if (cause)
		(void)json_object_update_missing(by, (json_t *)(uintptr_t)cause);
	replace_str(&v->cause, json_text(by));
}

void cache_ending(struct cache *c, const char *uuid)
{
	struct cached *v = cache_find(c, uuid);

	if (!v)
		return;
	v->ending = true;
	/* A running guest's disk is enlarged by its QEMU, which goes on holding it open. */
	for (size_t i = 0; i < v->ndisks; i++)
		v->disks_changed |= v->disks[i] && disk_look_again(v->disks[i]);
	if (v->has_deferred)
		set_facts(c, v, FEED_OF_VMADMD, steal_ptr(v->deferred));
}

void cache_end(struct cache *c, const char *uuid)
{
	struct cached *v = cache_find(c, uuid);

	if (!v)
		return;
	cache_refresh(c, v, WHY_VMADMD);
	v->disks_changed = false;
	v->held = v->ending = false;
	v->has_deferred = false;
	replace_str(&v->cause, NULL);
	collect(c, v);
}

/* --- scans --- */

void cache_scan_begin(struct cache *c)
{
	c->scanning = true;
	c->scan_vms = json_array();
	c->scan_changes = json_array();
}

json_t *cache_scan_end(struct cache *c)
{
	json_t *j = json_object();

	c->scanning = false;
	(void)json_object_set_new(j, "cacheChanges", steal_ptr(c->scan_changes));
	(void)json_object_set_new(j, "vmChanges", steal_ptr(c->scan_vms));
	return j;
}

size_t cache_count(const struct cache *c)
{
	return c->count;
}
