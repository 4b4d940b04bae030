/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order that `after` gives: starting what has autostart, each VM once those before it run (or
 * are ready), and stopping all in reverse, in parallel where nobody waits for another.
 */
#include "vmstated/order.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "store/catalog.h"
#include "vmstated/parts.h"

#define LOOK_MS 1000u /* deadlines of waiting VMs are looked at this often */

struct waiting {
	struct guest *guest;
	uint64_t until_ms;
	struct waiting *next;
};

struct order {
	struct supervisor *sup;
	struct waiting *waiting;
	sd_event_source *timer;
	bool busy;
};

/* The guest that one entry of `after` names: "db0" or "db0:ready". */
static const struct guest *named(const struct supervisor *sup, const char *entry, bool *ret_ready)
{
	size_t len = strcspn(entry, ":");

	*ret_ready = strcmp(entry + len, ":ready") == 0;
	for (const struct guest *g = sup->guests; g; g = g->next) {
		if (strlen(g->name) == len && strncmp(g->name, entry, len) == 0)
			return g;
	}
	return NULL;
}

static bool may_start(const struct guest *g)
{
	const struct str_list *after = &g->def->vm->after;

	for (size_t i = 0; i < after->count; i++) {
		bool ready;
		const struct guest *other = named(g->sup, after->items[i], &ready);

		if (!other || other->state != SUP_RUNNING || (ready && !other->ready))
			return false;
	}
	return true;
}

static void start_one(struct guest *g, bool late)
{
	struct err err = {0};

	if (late) {
		log_warn("vm=%s started although those before it are not there yet", g->uuid);
		guestlog_printf(g, "vmstated", "started without waiting longer for `after`");
	}
	if (guest_start(g, NULL, "autostart", &err) < 0)
		log_warn("vm=%s not started: %s", g->uuid, err.msg);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	order_check(((struct order *)userdata)->sup);
	return 0;
}

void order_check(struct supervisor *sup)
{
	struct order *o = sup->order;
	struct waiting **at;

	if (!o || o->busy)
		return;
	o->busy = true; /* a start changes states, which asks again */
	for (at = &o->waiting; *at;) {
		struct waiting *w = *at;
		bool gone = !w->guest->def || w->guest->pid > 0;
		bool late = clock_ms() >= w->until_ms;

		if (!gone && !late && !may_start(w->guest)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		if (!gone)
			start_one(w->guest, late && !may_start(w->guest));
		free(w);
	}
	o->busy = false;
	if (o->waiting)
		(void)timer_set(sup->event, &o->timer, LOOK_MS, on_look, o);
}

void order_forget(struct guest *g)
{
	struct waiting **at = g->sup->order ? &g->sup->order->waiting : NULL;

	while (at && *at) {
		struct waiting *w = *at;

		if (w->guest != g) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
}

void order_autostart(struct supervisor *sup)
{
	struct waiting **at;

	sup->order = xcalloc(1, sizeof(*sup->order));
	sup->order->sup = sup;
	at = &sup->order->waiting;
	for (struct guest *g = sup->guests; g; g = g->next) {
		if (!g->def || !g->def->vm->autoboot || g->pid > 0 || g->state == SUP_FAILED)
			continue;
		*at = xcalloc(1, sizeof(**at));
		(*at)->guest = g;
		(*at)->until_ms = clock_ms() + g->def->vm->readytimeout_ms;
		at = &(*at)->next;
	}
	order_check(sup);
}

void order_free(struct supervisor *sup)
{
	struct order *o = sup->order;

	if (!o)
		return;
	while (o->waiting) {
		struct waiting *next = o->waiting->next;

		free(o->waiting);
		o->waiting = next;
	}
	sd_event_source_disable_unref(o->timer);
	free(o);
	sup->order = NULL;
}

/* What runs, or is on its way up. */
static bool is_up(const struct guest *g)
{
	return g->state != SUP_INIT && g->state != SUP_FAILED &&
	       !(g->state == SUP_STOPPED && g->settled);
}

/* Does a running guest wait for g, so that it must be stopped first? */
static bool needed(const struct guest *g)
{
	for (const struct guest *other = g->sup->guests; other; other = other->next) {
		const struct vm *vm = guest_vm(other);
		bool ready;

		if (other == g || !is_up(other) || !vm)
			continue;
		for (size_t i = 0; i < vm->after.count; i++) {
			if (named(g->sup, vm->after.items[i], &ready) == g)
				return true;
		}
	}
	return false;
}

static size_t stop_those(struct supervisor *sup, int64_t grace_ms, bool all, size_t *ret_stopping)
{
	size_t left = 0;

	*ret_stopping = 0;

	for (struct guest *g = sup->guests; g; g = g->next) {
		const struct vm *vm = guest_vm(g);

		if (!is_up(g))
			continue;
		left++;
		if (g->target == TARGET_NONE && (all || !needed(g))) {
			g->for_shutdown = true;
			(void)guest_stop(g, TARGET_STOPPED,
					 grace_ms >= 0 ? (uint64_t)grace_ms
					 : vm          ? vm->stoptimeout_ms
						       : 0,
					 false, "host shutdown", NULL);
		}
		*ret_stopping += g->target != TARGET_NONE;
	}
	return left;
}

size_t order_stop_next(struct supervisor *sup, int64_t grace_ms)
{
	size_t stopping, left = stop_those(sup, grace_ms, false, &stopping);

	/* A circle in `after`: somebody has to be first. */
	if (left > 0 && stopping == 0)
		left = stop_those(sup, grace_ms, true, &stopping);
	return left;
}
