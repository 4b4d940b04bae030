/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Autoboot: once per boot of the host, every VM with autoboot that is stopped is started, a few at
 * once, in the order of `after`. What is left to be started is kept in a file of the run
 * directory together with the boot's id, so that our own end in the middle loses nothing and
 * repeats nothing. Source: smartos facts 5.8, design section 4.
 */
#include <errno.h>
#include <inttypes.h>
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
#include "net/feed.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/bootorder.h"
#include "vmadmd/guest.h"
#include "vmadmd/vmadmd.h"

#define AT_ONCE       8u
#define STATE_VERSION 1
#define BOOT_ID_LEN   40
#define POLL_MS       1000u /* readytimeout has no event of its own */

enum item_state { ITEM_PENDING, ITEM_STARTING, ITEM_OVER };

struct item {
	struct autoboot *boot;
	char uuid[UUID_LEN + 1];
	enum item_state state;
	bool failed;
	uint32_t tries;       /* that failed */
	uint64_t not_before;  /* clock_ms of the next try */
	uint64_t counts_from; /* clock_ms since it waits for readiness only, 0: does not */
};

struct autoboot {
	struct vmadmd *d;
	char *path;
	char boot_id[BOOT_ID_LEN];
	bool begun;
	struct item *items;
	size_t count, starting;
	sd_event_source *timer, *defer;
};

/* --- the file --- */

static char *state_path(const struct vmadmd *d)
{
	const char *slash = strrchr(d->paths->vmadmd, '/');

	return xasprintf("%.*s/vmadmd.autoboot", (int)(slash - d->paths->vmadmd), d->paths->vmadmd);
}

static void save(const struct autoboot *b)
{
	AUTO_JSON json_t *state = json_object();
	json_t *left = json_array();
	struct err err = {0};

	for (size_t i = 0; i < b->count; i++) {
		if (b->items[i].state != ITEM_OVER)
			json_array_append_new(left, json_string(b->items[i].uuid));
	}
	json_put_str(state, "boot_id", b->boot_id);
	json_object_set_new(state, "left", left);
	if (state_write(b->path, STATE_VERSION, state, FILE_NO_SYNC, &err) < 0)
		log_error("autoboot: progress not kept: %s", err.msg);
}

static void add_item(struct autoboot *b, const char *uuid)
{
	struct item *item = &b->items[b->count++];

	*item = (struct item){.boot = b};
	memcpy(item->uuid, uuid, UUID_LEN + 1);
}

static void load_left(struct autoboot *b, const json_t *left)
{
	json_t *one;
	size_t i;

	b->items = xcalloc(json_array_size(left) + 1, sizeof(struct item));
	json_array_foreach (left, i, one) {
		const char *uuid = json_string_value(one);

		if (uuid && uuid_valid(uuid))
			add_item(b, uuid);
	}
}

static void collect_all(struct autoboot *b)
{
	size_t count = catalog_count(b->d->catalog);

	b->items = xcalloc(count + 1, sizeof(struct item));
	for (size_t i = 0; i < count; i++) {
		const struct catalog_entry *e = catalog_at(b->d->catalog, i);

		if (e->vm->autoboot && !e->vm->transient)
			add_item(b, e->uuid);
	}
}

/* --- judging --- */

static struct item *item_of(struct autoboot *b, const char *uuid)
{
	for (size_t i = 0; i < b->count; i++) {
		if (strcmp(b->items[i].uuid, uuid) == 0)
			return &b->items[i];
	}
	return NULL;
}

static enum dep_state lookup(void *ctx, const char *name)
{
	struct autoboot *b = ctx;
	struct catalog_entry *e = NULL;
	const struct guest *g;
	const struct item *item;

	if (catalog_find(b->d->catalog, name, &e, NULL) < 0)
		return DEP_UNKNOWN;
	g = guest_find(b->d, e->uuid);
	if (guest_runs(g))
		return json_get_bool(g->facts, FACT_READY, false) ? DEP_READY : DEP_RUNNING;
	item = item_of(b, e->uuid);
	return item && item->state != ITEM_OVER ? DEP_COMING : DEP_NEVER;
}

static void item_over(struct item *item)
{
	struct autoboot *b = item->boot;

	item->state = ITEM_OVER;
	save(b);
	autoboot_poke(b->d);
}

/*
 * Whether a start that failed is tried again, by the VM's policy: onfailure = restart, at most
 * maxrestart times, with growing delays. A VM vmstated calls failed wants a person; one it
 * restarts by itself is passed over. A vmstated that went away carried nothing out: no failure.
 */
static bool try_again(struct item *item, int r)
{
	struct vmadmd *d = item->boot->d;
	const struct catalog_entry *e = catalog_by_uuid(d->catalog, item->uuid);
	bool away = r == -ECONNREFUSED || r == -ECONNRESET || r == -ENOENT;
	uint64_t delay = UINT64_C(1000) << (item->tries < 6 ? item->tries : 6);

	if (!e || str_eq(guest_state(d, item->uuid), "failed"))
		return false;
	if (!away && (e->vm->onfailure != ON_FAILURE_RESTART || item->tries >= e->vm->maxrestart))
		return false;
	item->tries += !away;
	item->not_before = clock_ms() + (away ? UINT64_C(1000) : delay);
	item->state = ITEM_PENDING;
	autoboot_poke(d);
	return true;
}

static void on_started(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct item *item = ctx;
	struct err text = *err;

	item->boot->starting--;
	if (r == 0 && status >= 300)
		r = ask_error(status, body, &text);
	feed_client_drain(item->boot->d->states); /* it told the state before it answered */
	item->failed = r < 0 && r != -EALREADY;
	if (item->failed && try_again(item, r)) {
		log_warn("vm=%s autoboot failed, tried again: %s", item->uuid, err_text(&text, r));
		return;
	}
	if (item->failed)
		log_error("vm=%s autoboot failed: %s", item->uuid, err_text(&text, r));
	else
		log_info("vm=%s autobooted", item->uuid);
	item_over(item);
}

static void item_start(struct item *item, const char *notes)
{
	struct autoboot *b = item->boot;
	struct ask_spec spec = {.uuid = item->uuid, .verb = "start", .uid = b->d->uid};

	if (*notes)
		log_warn("vm=%s autoboot does not wait any longer: %s", item->uuid, notes);
	item->state = ITEM_STARTING;
	b->starting++;
	spec.command = "autoboot";
	spec.body = json_pack("{s:b}", "wait", 1);
	ask_start(b->d, &spec, on_started, item);
}

/* Whether the item is still to be started; one that is not is over. */
static const struct vm *still_wanted(struct item *item)
{
	struct vmadmd *d = item->boot->d;
	const struct catalog_entry *e = catalog_by_uuid(d->catalog, item->uuid);
	const char *state = guest_state(d, item->uuid);

	if (e && str_eq(state, "stopped"))
		return e->vm;
	if (!e || !str_eq(state, "unknown")) {
		log_info("vm=%s autoboot passed over: %s", item->uuid,
			 e ? state : "it is defined no more");
		item->state = ITEM_OVER;
	}
	return NULL;
}

static uint64_t waited(struct item *item, bool counts)
{
	if (!counts)
		item->counts_from = 0;
	else if (item->counts_from == 0)
		item->counts_from = clock_ms();
	return counts ? clock_ms() - item->counts_from : 0;
}

/* Start what may go. Returns whether anything is still pending; *ret_stuck: and nothing that is
 * under way can ever change that. */
static bool pass(struct autoboot *b, bool force, bool *ret_stuck)
{
	bool pending = false;

	*ret_stuck = true;
	for (size_t i = 0; i < b->count && b->starting < AT_ONCE; i++) {
		struct item *item = &b->items[i];
		const struct vm *vm = item->state == ITEM_PENDING ? still_wanted(item) : NULL;
		struct boot_verdict v;

		if (!vm)
			continue;
		if (clock_ms() < item->not_before) {
			pending = true;
			*ret_stuck = false;
			continue;
		}
		boot_judge(vm, item->counts_from ? waited(item, true) : 0, lookup, b, &v);
		(void)waited(item, v.counts && !v.go);
		if (v.counts)
			*ret_stuck = false;
		if (v.go || force)
			item_start(item, v.notes.data ? v.notes.data : "");
		else
			pending = true;
		force = false;
		strbuf_done(&v.notes);
	}
	if (b->starting > 0)
		*ret_stuck = false;
	return pending;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	autoboot_poke(((struct autoboot *)ctx)->d);
	return 0;
}

static bool all_over(const struct autoboot *b)
{
	for (size_t i = 0; i < b->count; i++) {
		if (b->items[i].state != ITEM_OVER)
			return false;
	}
	return true;
}

static void go_on(struct autoboot *b)
{
	bool stuck;
	bool pending = pass(b, false, &stuck);

	if (pending && stuck) {
		log_warn("autoboot: VMs wait for each other in a circle: the first of them goes");
		pending = pass(b, true, &stuck);
	}
	if (pending)
		(void)timer_set(b->d->event, &b->timer, POLL_MS, on_timer, b);
	if (all_over(b)) {
		timer_stop(b->timer);
		save(b);
		log_info("autoboot done vms=%zu", b->count);
		b->count = 0;
	}
}

static void begin(struct autoboot *b)
{
	AUTO_JSON json_t *state = NULL;
	struct err err = {0};
	int r = state_read(b->path, STATE_VERSION, &state, &err);

	b->begun = true;
	if (r < 0 && r != -ENOENT)
		log_warn("autoboot: %s", err.msg);
	if (r == 0 && str_eq(json_get_str(state, "boot_id", ""), b->boot_id))
		load_left(b, json_object_get(state, "left"));
	else
		collect_all(b);
	if (b->count > 0)
		log_info("autoboot begins vms=%zu", b->count);
	save(b);
}

/* From the loop, not from inside the feed's line: a whole snapshot is taken first. */
static int on_defer(sd_event_source *source, void *ctx)
{
	struct autoboot *b = ctx;

	if (!feed_client_ready(b->d->states))
		return 0;
	if (!b->begun)
		begin(b);
	if (b->count > 0)
		go_on(b);
	return 0;
}

void autoboot_begin(struct vmadmd *d)
{
	struct autoboot *b = xcalloc(1, sizeof(*b));

	b->d = d;
	b->path = state_path(d);
	if (clock_boot_id(b->boot_id, sizeof(b->boot_id)) < 0)
		log_warn("autoboot: this boot's id cannot be told");
	d->autoboot = b;
	(void)sd_event_add_defer(d->event, &b->defer, on_defer, b);
	autoboot_poke(d);
}

void autoboot_poke(struct vmadmd *d)
{
	struct autoboot *b = d->autoboot;

	if (b && (!b->begun || b->count > 0))
		(void)sd_event_source_set_enabled(b->defer, SD_EVENT_ONESHOT);
}

void autoboot_free(struct vmadmd *d)
{
	struct autoboot *b = d->autoboot;

	if (!b)
		return;
	sd_event_source_disable_unref(b->timer);
	sd_event_source_disable_unref(b->defer);
	free(b->items);
	free(b->path);
	free(b);
	d->autoboot = NULL;
}
