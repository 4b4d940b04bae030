/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transactions on a running machine; see trans.h. One at a time per guest, since changes of a VM
 * stand in line. A step is a QMP command, then, for a device, the guest's consent; going back is
 * the same list from the last step done, with the other command.
 */
#include "vmadmd/devices/trans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmadmd/guest.h"
#include "vmadmd/live/live.h"
#include "vmadmd/vmadmd.h"

#define VMSTATED_MS 30000u /* more than its own deadlines */

struct step {
	struct trans_step is;
	bool passed; /* it was refused and passed over: nothing to take back */
};

struct trans {
	struct guest *g;
	struct step *steps;
	size_t count, at;
	bool back;    /* taking back */
	bool undoing; /* it was asked for: what is to be told is of that */
	bool running; /* between trans_run or trans_undo and done */
	bool asked;   /* a command is out */
	int failed, not_undone;
	struct err failure, undo_failure;
	const char *waits; /* id of the device that is to be deleted, borrowed of the step */
	bool deleted;      /* it was, before the command was answered */
	sd_event_source *deadline, *later;
	trans_done done;
	void *ctx;
	struct monitor_watch watch;
};

static void on_event(void *ctx, const char *name, const json_t *data);

/* Where a test may end us: "step-0-sent", "step-0-done", and "back-..." on the way back. */
static void point(const struct trans *t, const char *what)
{
	char place[64];

	(void)snprintf(place, sizeof(place), "%s-%zu-%s", t->back ? "back" : "step", t->at, what);
	live_point(place);
}

struct trans *trans_new(struct guest *g)
{
	struct trans *t = xcalloc(1, sizeof(*t));

	t->g = g;
	return t;
}

void trans_add(struct trans *t, const struct trans_step *step)
{
	t->steps = xrealloc(t->steps, (t->count + 1) * sizeof(*t->steps));
	t->steps[t->count++] = (struct step){.is = *step};
}

bool trans_empty(const struct trans *t)
{
	return t->count == 0;
}

json_t *trans_json(const struct trans *t)
{
	json_t *list = json_array();

	for (size_t i = 0; i < t->count; i++) {
		const struct trans_step *s = &t->steps[i].is;
		json_t *one = json_object();

		json_put_str(one, "command", s->command);
		json_put_str(one, "undo", s->undo);
		json_put_str(one, "gone", s->gone);
		json_put_str(one, "what", s->what);
		json_put_bool(one, "of_vmstated", s->of_vmstated);
		json_put_bool(one, "lax", s->lax);
		if (s->args)
			(void)json_object_set(one, "args", s->args);
		if (s->undo_args)
			(void)json_object_set(one, "undo_args", s->undo_args);
		(void)json_array_append_new(list, one);
	}
	return list;
}

void trans_step_of(const json_t *json, struct trans_step *ret)
{
	*ret = (struct trans_step){
		.command = json_get_str(json, "command", ""),
		.undo = json_get_str(json, "undo", NULL),
		.gone = json_get_str(json, "gone", NULL),
		.what = xstrdup(json_get_str(json, "what", "")),
		.of_vmstated = json_get_bool(json, "of_vmstated", false),
		.lax = json_get_bool(json, "lax", false),
		.args = json_incref(json_object_get(json, "args")),
		.undo_args = json_incref(json_object_get(json, "undo_args")),
	};
}

void trans_step_done(struct trans_step *s)
{
	json_decref(s->args);
	json_decref(s->undo_args);
	free(s->what);
}

void trans_free(struct trans *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		trans_step_done(&t->steps[i].is);
	sd_event_source_disable_unref(t->deadline);
	sd_event_source_disable_unref(t->later);
	free(t->steps);
	free(t);
}

static void finish(struct trans *t)
{
	trans_done done = t->done;

	timer_stop(t->deadline);
	monitor_unwatch(t->g, &t->watch);
	t->running = false;
	if (t->undoing)
		done(t->ctx, t->not_undone, &t->undo_failure);
	else
		done(t->ctx, t->failed, &t->failure);
}

static void go_on(struct trans *t);

static void step_done(struct trans *t)
{
	timer_stop(t->deadline);
	t->waits = NULL;
	t->at++;
	go_on(t);
}

/* A step did not work: back over those before it, or on with the rest when going back already. */
static void step_failed(struct trans *t, int r, const struct err *err)
{
	struct step *s = &t->steps[t->at];

	timer_stop(t->deadline);
	t->waits = NULL;
	if (t->back || s->is.lax) {
		log_warn("vm=%s %s of %s: %s", t->g->uuid, t->back ? s->is.undo : s->is.command,
			 s->is.what, err_text(err, r));
		if (t->back && t->not_undone == 0 && !s->is.lax) {
			t->not_undone = r;
			t->undo_failure = *err;
		}
		s->passed = true;
		t->at = t->back ? t->at - 1 : t->at + 1;
		go_on(t);
		return;
	}
	t->failed = r;
	t->failure = *err;
	t->back = true;
	t->at--;
	go_on(t);
}

/* --- a guest that lets go too late --- */

/*
 * Who was told no finds things as they were: the device is put back. A new attempt to take it out,
 * and the machine's end, forget it; so does our own end: the definition is followed at its start.
 */
struct late {
	struct guest *g;
	char *id;
	json_t *args; /* of device_add */
	struct monitor_watch watch;
	struct late *next;
};

static void late_free(struct late *late)
{
	for (struct late **at = &late->g->late; *at; at = &(*at)->next) {
		if (*at == late) {
			*at = late->next;
			break;
		}
	}
	monitor_unwatch(late->g, &late->watch);
	json_decref(late->args);
	free(late->id);
	free(late);
}

static void late_forget(struct guest *g, const char *id)
{
	for (struct late *late = g->late, *next; late; late = next) {
		next = late->next;
		if (str_eq(late->id, id))
			late_free(late);
	}
}

void trans_late_forget(struct guest *g)
{
	while (g->late)
		late_free(g->late);
}

static void on_back(void *ctx, int r, const json_t *value, const struct err *err)
{
	const struct guest *g = ctx;

	if (r < 0)
		log_error("vm=%s a device its guest let go of too late is not back: %s", g->uuid,
			  err_text(err, r));
}

static void on_late(void *ctx, const char *name, const json_t *data)
{
	struct late *late = ctx;
	struct err err = {0};

	if (str_eq(name, MONITOR_GONE)) {
		late_free(late);
	} else if (str_eq(name, "DEVICE_DELETED") &&
		   str_eq(json_get_str(data, "device", NULL), late->id)) {
		log_warn("vm=%s the guest let go of '%s' after that was given up: put back",
			 late->g->uuid, late->id);
		if (monitor_send(late->g, "device_add", late->args, -1, on_back, late->g, &err) < 0)
			log_error("vm=%s '%s' is not back: %s", late->g->uuid, late->id, err.msg);
		late_free(late);
	}
}

void trans_late_watch(struct guest *g, const struct trans_step *s)
{
	struct late *late;

	if (!s->gone || !s->undo || strcmp(s->undo, "device_add") != 0)
		return;
	late = xcalloc(1, sizeof(*late));
	*late = (struct late){.g = g,
			      .id = xstrdup(s->gone),
			      .args = json_incref(s->undo_args),
			      .watch = {.event = on_late, .ctx = late},
			      .next = g->late};
	g->late = late;
	monitor_watch(g, &late->watch);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct trans *t = ctx;
	struct err err = {0};
	int r = err_set(&err, ETIMEDOUT,
			"the guest of VM %s does not let go of %s: no answer within %u s",
			t->g->uuid, t->steps[t->at].is.what, UNPLUG_MS / 1000);

	if (!t->back)
		trans_late_watch(t->g, &t->steps[t->at].is);
	step_failed(t, r, &err);
	return 0;
}

/* It keeps it, or has let go unseen: the attempt to put it back tells. */
static int on_kept(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct trans *t = ctx;
	struct trans_step *s = &t->steps[t->at].is;

	trans_late_watch(t->g, s);
	s->asked_out = false;
	s->lax = true;
	go_on(t);
	return 0;
}

static bool takes_out(const struct trans *t, const struct step *s)
{
	return s->is.gone && str_eq(t->back ? s->is.undo : s->is.command, "device_del");
}

static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct trans *t = ctx;
	struct step *s = &t->steps[t->at];
	struct err text = {0};

	t->asked = false;
	if (r < 0) {
		r = err_set(&text, r == -EREMOTEIO ? EIO : -r, "%s: %s", s->is.what,
			    r == -ETIMEDOUT ? "QEMU does not answer" : err_text(err, r));
		step_failed(t, r, &text);
	} else if (t->failed && !t->back) { /* stopped meanwhile: this step too is taken back */
		t->back = true;
		if (takes_out(t, s) && !t->deleted)
			t->at--;
		go_on(t);
	} else if (takes_out(t, s) && !t->deleted) {
		(void)timer_set(t->g->d->event, &t->deadline, UNPLUG_MS, on_deadline, t);
	} else if (t->back) {
		point(t, "done");
		t->waits = NULL;
		t->at--;
		go_on(t);
	} else {
		point(t, "done");
		step_done(t);
	}
}

static void on_reply(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct err text = *err;

	if (r == 0 && status >= 300)
		r = ask_error(status, body, &text);
	on_answer(ctx, r, NULL, &text);
}

static int send_step(struct trans *t, const struct trans_step *s, struct err *err)
{
	const char *command = t->back ? s->undo : s->command;
	json_t *args = t->back ? s->undo_args : s->args;
	const struct ask_spec spec = {.uuid = t->g->uuid,
				      .verb = command,
				      .body = s->of_vmstated ? json_deep_copy(args) : NULL,
				      .uid = geteuid(),
				      .command = "vmadmd",
				      .timeout_ms = VMSTATED_MS};

	if (!s->of_vmstated)
		return monitor_send(t->g, command, args, -1, on_answer, t, err);
	ask_start(t->g->d, &spec, on_reply, t);
	return 0;
}

/* Steps are few and short: QEMU answers each before the next is sent. */
static int on_later(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct trans *t = ctx;
	struct step *s;
	struct err err = {0};
	int r;

	while (t->back && t->at < t->count && (!t->steps[t->at].is.undo || t->steps[t->at].passed))
		t->at--; /* below 0 it is beyond count */
	if (t->at >= t->count) {
		finish(t);
		return 0;
	}
	s = &t->steps[t->at];
	t->deleted = false;
	if (t->back && s->is.asked_out) {
		t->waits = s->is.gone;
		(void)timer_set(t->g->d->event, &t->deadline, LATE_MS, on_kept, t);
		return 0;
	}
	t->waits = takes_out(t, s) ? s->is.gone : NULL;
	if (t->waits)
		late_forget(t->g, t->waits);
	r = send_step(t, &s->is, &err);
	t->asked = r == 0;
	if (r == 0)
		point(t, "sent");
	else
		step_failed(t, r, &err);
	return 0;
}

/* By way of the loop: callers and QMP's call-backs have returned by then. */
static void go_on(struct trans *t)
{
	(void)timer_set(t->g->d->event, &t->later, 0, on_later, t);
}

static void begin(struct trans *t, trans_done done, void *ctx)
{
	t->done = done;
	t->ctx = ctx;
	t->running = true;
	t->watch = (struct monitor_watch){.event = on_event, .ctx = t};
	monitor_watch(t->g, &t->watch);
	go_on(t);
}

void trans_run(struct trans *t, trans_done done, void *ctx)
{
	t->at = 0;
	begin(t, done, ctx);
}

void trans_undo(struct trans *t, trans_done done, void *ctx)
{
	t->back = t->undoing = true;
	t->at--; /* the last that was done */
	begin(t, done, ctx);
}

void trans_undo_all(struct trans *t, trans_done done, void *ctx)
{
	t->at = t->count;
	trans_undo(t, done, ctx);
}

bool trans_half(const struct trans *t)
{
	return t->not_undone != 0;
}

void trans_stop(struct trans *t, int r, const struct err *why)
{
	if (!t->running || t->back)
		return;
	t->failed = r;
	t->failure = *why;
	if (t->asked)
		return; /* its answer turns us round */
	if (t->waits) {
		trans_late_watch(t->g, &t->steps[t->at].is);
		step_failed(t, r, why);
	} else {
		t->back = true;
		t->at--;
		go_on(t);
	}
}

/* virtio devices are told twice: their back end, without an id, first. */
static void on_event(void *ctx, const char *name, const json_t *data)
{
	static const struct err gone = {ECONNRESET, "the VM stopped running"};
	struct trans *t = ctx;

	if (!t->waits)
		return;
	if (str_eq(name, "DEVICE_DELETED") &&
	    str_eq(json_get_str(data, "device", NULL), t->waits)) {
		t->deleted = true;
		if (t->back && t->steps[t->at].is.asked_out) {
			t->steps[t->at].is.asked_out = false;
			timer_stop(t->deadline);
			go_on(t);
			return;
		}
		if (t->asked)
			return; /* the answer is about to come */
		timer_stop(t->deadline);
		on_answer(t, 0, NULL, NULL);
	} else if (str_eq(name, MONITOR_GONE) && !t->asked) {
		step_failed(t, -ECONNRESET, &gone);
	}
}
