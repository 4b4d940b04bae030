/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that wait: until the guest is where it was sent, then until vminfod has seen it. A
 * waiter hangs on its guest until the goal is reached, then on the feed; whoever asks and leaves
 * takes it along.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "net/http.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

/* A request whose answer waits for a goal; then, off the guest's list, for vminfod. */
struct waiter {
	struct supervisor *sup;
	struct guest *guest; /* NULL once the goal is reached */
	struct http_request *req;
	enum goal goal;
	uint32_t least;         /* of what the goal counts */
	sd_event_source *timer; /* GOAL_RESET: until it is too late */
	json_t *answer;
	struct feed_wait *wait;
	struct waiter *next;
};

static void waiter_free(struct waiter *w)
{
	if (w->wait)
		feed_wait_cancel(w->wait);
	sd_event_source_disable_unref(w->timer);
	json_decref(w->answer);
	free(w);
}

static void detach(struct waiter *w)
{
	struct waiter **at;

	if (!w->guest)
		return;
	for (at = &w->guest->waiters; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	w->guest = NULL;
	w->timer = sd_event_source_disable_unref(w->timer);
}

static void on_gone(struct http_request *req, void *ctx)
{
	struct waiter *w = ctx;

	detach(w);
	waiter_free(w);
}

static void seen(void *ctx, bool confirmed)
{
	struct waiter *w = ctx;

	w->wait = NULL;
	json_put_bool(w->answer, "confirmed", confirmed);
	http_reply_json(w->req, 200, w->answer);
	waiter_free(w);
}

static json_t *answer_of(const struct guest *g)
{
	const struct sup_state_row *row = &sup_states[g->state];

	return json_pack("{s:s, s:s, s:s, s:s, s:s}", "uuid", g->uuid, "name", g->name, "state",
			 row->state, "zone_state", row->zone_state, "supervisor_state", row->label);
}

static void reached(struct waiter *w)
{
	struct guest *g = w->guest;

	detach(w);
	w->answer = answer_of(g);
	w->wait = feed_when_seen(w->sup->feed, feed_seq(w->sup->feed), seen, w);
}

static void fail_waiter(struct waiter *w, int r, const char *text)
{
	struct err err = {0};

	(void)err_set(&err, -r, "%s", text);
	detach(w);
	http_reply_err(w->req, r, &err);
	waiter_free(w);
}

void waiters_fail(struct guest *g, int r, const char *fmt, ...)
{
	struct waiter *w, *next;
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	for (w = g->waiters; w; w = next) {
		next = w->next;
		fail_waiter(w, r, text);
	}
	free(text);
}

static bool at_end(const struct guest *g)
{
	return g->settled &&
	       (g->state == SUP_STOPPED || g->state == SUP_INIT || g->state == SUP_FAILED);
}

static void check(struct guest *g, struct waiter *w)
{
	bool up = g->state == SUP_RUNNING && g->settled;
	AUTO_FREE char *text = NULL;

	if (w->goal == GOAL_STOPPED && at_end(g)) {
		reached(w);
	} else if (w->goal == GOAL_RUNNING && up && g->zoneid >= w->least) {
		reached(w);
	} else if (w->goal == GOAL_RESET && g->resets >= w->least) {
		reached(w);
	} else if (w->goal == GOAL_RESET && g->pid <= 0) {
		fail_waiter(w, -EIO, "the guest ended before it was reset");
	} else if (w->goal == GOAL_RUNNING && at_end(g) && g->target != TARGET_START) {
		text = xasprintf("Unable to start VM %s: %s", g->uuid,
				 g->state == SUP_FAILED && g->failed ? g->failed
				 : g->end.set                        ? g->end.detail
								     : "it was stopped");
		fail_waiter(w, -EIO, text);
	}
}

void waiters_check(struct guest *g)
{
	struct waiter *w, *next;

	for (w = g->waiters; w; w = next) {
		next = w->next;
		check(g, w);
	}
}

static int too_late(sd_event_source *source, uint64_t usec, void *ctx)
{
	fail_waiter(ctx, -ETIMEDOUT, "QEMU did not reset the machine");
	return 0;
}

void answer_when(struct guest *g, struct http_request *req, enum goal goal, uint32_t least)
{
	struct waiter *w = xcalloc(1, sizeof(*w));

	*w = (struct waiter){.sup = g->sup,
			     .guest = g,
			     .req = req,
			     .goal = goal,
			     .least = least,
			     .next = g->waiters};
	g->waiters = w;
	if (goal == GOAL_RESET)
		(void)timer_set(g->sup->event, &w->timer, RESET_MS, too_late, w);
	http_on_gone(req, on_gone, w);
	check(g, w);
}
