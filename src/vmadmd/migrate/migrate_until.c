/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for QEMU to come to something: a query is asked again at every event that may have
 * changed its answer, and now and then for the progress. Also the switching of capabilities, which
 * outlive a migration and would spoil the next operation.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmadmd/migrate/migrate.h"

#define LOOK_MS 300u

const char *const migrate_both[] = {"events", "return-path", NULL};
const char *const migrate_source[] = {"events", "return-path", "pause-before-switchover", NULL};

struct until {
	struct change *c;
	const char *command;
	until_judge judge;
	struct monitor_watch watch;
	sd_event_source *timer;
	bool asked, again;
};

void until_free(struct until *u)
{
	struct guest *g;

	if (!u)
		return;
	g = guest_find(u->c->d, u->c->uuid);
	if (g)
		monitor_unwatch(g, &u->watch);
	sd_event_source_disable_unref(u->timer);
	free(u);
}

static void over(struct change *c, int r, const struct err *err)
{
	until_free(steal_ptr(c->live->until));
	c->live->cancellable = false;
	if (r < 0)
		change_fail(c, r, err);
	else
		change_next(c);
}

bool until_end(struct change *c, int r, const struct err *why)
{
	if (!c->live->until)
		return false;
	over(c, r, why);
	return true;
}

static void look(struct until *u);

static void on_value(struct change *c, int r, const json_t *value, const struct err *why)
{
	struct until *u = c->live->until;
	struct err err = {0};

	if (!u)
		return;
	u->asked = false;
	if (r == -ECONNRESET || r == -ETIMEDOUT)
		return; /* the watch tells when QEMU is gone, the timer asks again */
	if (r < 0) {
		over(c, -EIO, why);
		return;
	}
	r = u->judge(c, value, &err);
	if (r != 0)
		over(c, r < 0 ? r : 0, &err);
	else if (u->again)
		look(u);
}

static void look(struct until *u)
{
	struct err err = {0};

	u->again = u->asked;
	if (!u->asked)
		u->asked = live_try(u->c, u->command, NULL, -1, on_value, &err) >= 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct until *u = ctx;

	(void)timer_set(u->c->d->event, &u->timer, LOOK_MS, on_timer, u);
	look(u);
	return 0;
}

static void on_event(void *ctx, const char *name, const json_t *data)
{
	static const char *const names[] = {MONITOR_READY, "MIGRATION", "JOB_STATUS_CHANGE"};
	struct until *u = ctx;
	struct err err = {0};

	if (str_eq(name, MONITOR_GONE)) {
		over(u->c, err_set(&err, ECONNRESET, "the VM stopped running meanwhile"), &err);
		return;
	}
	/* QEMU 7.2 goes on with such a mirror, and for ever, when the other side is gone. */
	if (str_eq(name, "BLOCK_JOB_ERROR") && !u->c->live->again &&
	    str_starts(json_get_str(data, "device", ""), MIGRATE_COPY)) {
		over(u->c,
		     err_set(&err, EIO, "a disk could not be copied: %s failed",
			     json_get_str(data, "operation", "it")),
		     &err);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(name, names[i])) {
			look(u);
			return;
		}
	}
}

int live_until(struct change *c, const char *command, until_judge judge, struct err *err)
{
	struct until *u = xcalloc(1, sizeof(*u));

	*u = (struct until){.c = c, .command = command, .judge = judge};
	u->watch = (struct monitor_watch){.event = on_event, .ctx = u};
	c->live->until = u;
	c->live->cancellable = c->kind->cancel != NULL;
	monitor_watch(live_guest(c), &u->watch);
	(void)timer_set(c->d->event, &u->timer, LOOK_MS, on_timer, u);
	look(u);
	return STEP_WAIT;
}

/* --- capabilities --- */

static json_t *capabilities(const char *const *names, bool on)
{
	json_t *list = json_array();

	for (; *names; names++)
		(void)json_array_append_new(
			list, json_pack("{s:s, s:b}", "capability", *names, "state", on));
	return json_pack("{s:o}", "capabilities", list);
}

static void on_set(struct change *c, const json_t *value)
{
	change_next(c);
}

int migrate_capabilities(struct change *c, const char *const *names, bool on, struct err *err)
{
	return live_ask(c, "migrate-set-capabilities", capabilities(names, on), on_set, err);
}

void migrate_capabilities_off(struct change *c)
{
	live_send(live_guest(c), "migrate-set-capabilities", capabilities(migrate_source, false));
}
