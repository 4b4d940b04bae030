/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's file systems held still, and let go: always. From the moment the freeze is sent the
 * limit runs; after it a thaw is sent until one is answered or the agent has gone. A guest found
 * frozen by who connects anew (we were killed) is thawed at once: nothing needs to be remembered.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "vmadmd/guest/agent_private.h"
#include "vmadmd/vmadmd.h"

#define THAW_AGAIN_MS 1000u

bool agent_frozen(const struct guest *g)
{
	return g && g->agent && g->agent->frozen;
}

void agent_freeze_forget(struct agent *a)
{
	a->frozen = a->unsure = false;
	timer_stop(a->thaw);
}

/* --- a caller's command, and what we learn by it --- */

struct frost {
	struct guest *g;
	json_int_t pid; /* of the QEMU meant */
	monitor_done done;
	void *ctx;
};

static struct frost *frost_new(struct guest *g, monitor_done done, void *ctx)
{
	struct frost *f = xcalloc(1, sizeof(*f));

	*f = (struct frost){.g = g, .pid = g->agent->pid, .done = done, .ctx = ctx};
	return f;
}

static struct agent *agent_of(const struct frost *f)
{
	return f->g->agent && f->g->agent->pid == f->pid ? f->g->agent : NULL;
}

static int on_limit(sd_event_source *source, uint64_t usec, void *ctx);

static void on_thawed(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct frost *f = ctx;
	struct agent *a = agent_of(f);

	if (a && (r == 0 || (r == -EREMOTEIO && a->unsure))) {
		log_info("vm=%s thawed", f->g->uuid);
		agent_freeze_forget(a);
		(void)guest_publish(f->g);
	} else if (a && a->frozen) {
		log_warn("vm=%s not thawed yet: %s", f->g->uuid, err_text(err, r));
		(void)timer_set(f->g->d->event, &a->thaw, THAW_AGAIN_MS, on_limit, a);
	}
	if (f->done)
		f->done(f->ctx, r, value, err);
	free(f);
}

static int thaw(struct agent *a, monitor_done done, void *ctx, struct err *err)
{
	struct frost *f = frost_new(a->g, done, ctx);
	int r = agent_ask(a->g, "guest-fsfreeze-thaw", NULL, AGENT_ANSWER_MS, on_thawed, f, err);

	if (r < 0)
		free(f);
	return r;
}

static int on_limit(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct agent *a = ctx;
	struct err err = {0};

	if (!a->frozen)
		return 0;
	log_warn("vm=%s frozen for too long: thawed", a->g->uuid);
	if (thaw(a, NULL, NULL, &err) < 0)
		(void)timer_set(a->g->d->event, &a->thaw, THAW_AGAIN_MS, on_limit, a);
	return 0;
}

static void on_frozen(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct frost *f = ctx;
	struct agent *a = agent_of(f);

	/* Refused, or not answered: part of it may be frozen all the same. */
	if (a)
		a->unsure = r == -EREMOTEIO;
	if (r < 0 && a && thaw(a, NULL, NULL, NULL) < 0)
		(void)timer_set(f->g->d->event, &a->thaw, THAW_AGAIN_MS, on_limit, a);
	if (r == 0)
		log_info("vm=%s frozen filesystems=%lld", f->g->uuid,
			 (long long)json_integer_value(value));
	f->done(f->ctx, r, value, err);
	free(f);
}

int agent_freeze(struct guest *g, uint64_t limit_ms, monitor_done done, void *ctx, struct err *err)
{
	struct frost *f;
	int r;

	if (agent_frozen(g))
		return err_set(err, EALREADY, "VM %s is frozen already", g->uuid);
	f = g->agent ? frost_new(g, done, ctx) : NULL;
	r = agent_ask(g, "guest-fsfreeze-freeze", NULL, limit_ms, on_frozen, f, err);
	if (r < 0) {
		free(f);
		return r;
	}
	g->agent->frozen = true;
	(void)timer_set(g->d->event, &g->agent->thaw, limit_ms, on_limit, g->agent);
	(void)guest_publish(g);
	return 0;
}

int agent_thaw(struct guest *g, monitor_done done, void *ctx, struct err *err)
{
	if (!g->agent)
		return agent_ask(g, "guest-fsfreeze-thaw", NULL, AGENT_ANSWER_MS, done, ctx, err);
	return thaw(g->agent, done, ctx, err);
}

/* --- found frozen --- */

static void on_status(void *ctx, int r, const json_t *value, const struct err *err)
{
	const struct guest *g = ctx;
	struct agent *a = g->agent;

	if (r < 0 || !a || a->frozen || !str_eq(json_string_value(value), "frozen"))
		return;
	log_warn("vm=%s found frozen, by nobody that is there: thawed", g->uuid);
	a->frozen = true;
	(void)on_limit(NULL, 0, a);
}

void agent_thaw_found(struct agent *a)
{
	if (!a->frozen)
		(void)agent_ask(a->g, "guest-fsfreeze-status", NULL, AGENT_ANSWER_MS, on_status,
				a->g, NULL);
}
