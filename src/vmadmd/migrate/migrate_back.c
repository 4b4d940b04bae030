/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration, the side the VM leaves: its two ends. Either the other side has said that it runs
 * there, and nothing is left here; or it goes on here. After a sudden end the journal tells how far
 * it came: before the hand-over was written the VM is ours; after it the other side is asked until
 * it answers, however long that takes, unless a person takes the doubt away.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/change/delete.h"
#include "vmadmd/jobs.h"
#include "vmadmd/migrate/migrate.h"

#define ASK_AGAIN_MS   1000u
#define ASK_MS         30000u
#define TELL_MS        10000u /* a word the other side does not depend on */
#define THANK_AGAIN_MS 500u
#define THANK_TRIES    60

static json_t *who(const struct change *c)
{
	return json_pack("{s:s, s:s}", "session", c->live->migrating->session, "uuid", c->uuid);
}

/* --- asked until it answers --- */

static void on_settled(void *ctx, int r, const json_t *body, const struct err *err);

static int ask_again(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct change *c = ctx;
	struct migrating *m = c->live->migrating;

	if (!m->here) {
		peer_call(m->peer, "/arrivals/settle", who(c), ASK_MS, on_settled, c);
		return 0;
	}
	m->granted = false;
	m->retry = sd_event_source_disable_unref(m->retry);
	change_next(c);
	return 0;
}

static void on_settled(void *ctx, int r, const json_t *body, const struct err *err)
{
	struct change *c = ctx;
	struct migrating *m = c->live->migrating;
	const json_t *granted = json_object_get(body, "granted");
	AUTO_FREE char *text = NULL;

	if (r == 0 && json_is_boolean(granted)) {
		m->granted = json_is_true(granted);
		m->retry = sd_event_source_disable_unref(m->retry);
		log_info("vm=%s %s says that it %s there", c->uuid, m->to,
			 m->granted ? "runs" : "does not run");
		change_next(c);
		return;
	}
	text = xasprintf("asking %s whether it runs there: %.200s", m->to,
			 r < 0 ? err_text(err, r) : "it is busy");
	if (c->job)
		job_progress(c->job, 99, text);
	(void)timer_set(c->d->event, &m->retry, ASK_AGAIN_MS, ask_again, c);
}

int migrate_settle(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;

	log_warn("vm=%s asking %s whether it runs there; until it says, it does not run here",
		 c->uuid, m->to);
	(void)timer_set(c->d->event, &m->retry, 0, ask_again, c);
	return STEP_WAIT;
}

/* --- it runs there --- */

int migrate_step_end(struct change *c, struct err *err)
{
	live_point("leaving");
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return live_vm_stop(c);
}

int migrate_step_old(struct change *c, struct err *err)
{
	const struct catalog_entry *e = change_entry(c, err);

	if (!e)
		return -ENOENT;
	vm_free(c->old);
	c->old = vm_copy(e->vm);
	return delete_check_alone(c, err);
}

static void thank(struct change *c);

static int thank_again(sd_event_source *source, uint64_t usec, void *ctx)
{
	thank(ctx);
	return 0;
}

static void on_thanked(void *ctx, int r, const json_t *body, const struct err *err)
{
	struct change *c = ctx;
	struct migrating *m = c->live->migrating;

	/* It runs there, but that is not written down as a whole yet. */
	if (r == -EBUSY && m->thanked++ < THANK_TRIES) {
		(void)timer_set(c->d->event, &m->retry, THANK_AGAIN_MS, thank_again, c);
		return;
	}
	m->retry = sd_event_source_disable_unref(m->retry);
	if (r < 0)
		log_warn("vm=%s is gone here, but %s could not be told: %s", c->uuid,
			 c->live->migrating->to, err_text(err, r));
	change_next(c);
}

static void thank(struct change *c)
{
	peer_call(c->live->migrating->peer, "/arrivals/forget", who(c), TELL_MS, on_thanked, c);
}

int migrate_step_thank(struct change *c, struct err *err)
{
	c->live->marked = false; /* the journal went with the rest */
	live_point("gone");
	thank(c);
	return STEP_WAIT;
}

/* --- it goes on here --- */

static int look_back(struct change *c, struct err *err)
{
	struct live *l = c->live;
	struct migrating *m = migrating_new();
	const char *session = json_get_str(l->journal, MIGRATE_SESSION, "");

	l->migrating = m;
	m->to = xstrdup(json_get_str(l->journal, "to", ""));
	if (uuid_valid(session))
		memcpy(m->session, session, sizeof(m->session));
	return peer_new(c->d, c->uuid, m->to, &m->peer, err);
}

static bool handed_over(const struct change *c)
{
	return str_eq(json_get_str(c->live->journal, MIGRATE_PHASE, ""), "handing");
}

static int ask_there(struct change *c, struct err *err)
{
	return handed_over(c) ? migrate_settle(c, err) : 0;
}

static bool goes_on(const struct change *c)
{
	return c->live->running && !c->live->migrating->granted;
}

static void on_any(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r == -ECONNRESET || r == -ETIMEDOUT)
		change_fail(c, r, err); /* again, later */
	else
		change_next(c);
}

static int take_back(struct change *c, struct err *err)
{
	return goes_on(c) ? live_try(c, "migrate_cancel", NULL, -1, on_any, err) : 0;
}

static int judge_over(struct change *c, const json_t *value, struct err *err)
{
	static const char *const over[] = {"none", "completed", "failed", "cancelled"};
	const char *status = json_get_str(value, "status", "none");

	for (size_t i = 0; i < ARRAY_SIZE(over); i++) {
		if (str_eq(status, over[i]))
			return 1;
	}
	return 0;
}

static int wait_over(struct change *c, struct err *err)
{
	return goes_on(c) ? live_until(c, "query-migrate", judge_over, err) : 0;
}

static void on_told(void *ctx, int r, const json_t *body, const struct err *err)
{
	change_next(ctx);
}

/* It would end by itself too: what it waits for does not come. */
static int tell_there(struct change *c, struct err *err)
{
	if (c->live->migrating->granted || handed_over(c))
		return 0;
	peer_call(c->live->migrating->peer, "/arrivals/settle", who(c), TELL_MS, on_told, c);
	return STEP_WAIT;
}

/* A mirror may wait for a server that does not answer any more: it is cut off. */
static void end_copy(struct change *c, const char *id, const char *status)
{
	if (str_eq(status, "concluded")) {
		live_send(live_guest(c), "job-dismiss", json_pack("{s:s}", "id", id));
		return;
	}
	live_send(
		live_guest(c), "yank",
		json_pack("{s:[{s:s, s:s}]}", "instances", "type", "block-node", "node-name", id));
	live_send(live_guest(c), "block-job-cancel",
		  json_pack("{s:s, s:b}", "device", id, "force", 1));
}

static int judge_none(struct change *c, const json_t *jobs, struct err *err)
{
	const json_t *job;
	size_t i;
	int r = 1;

	json_array_foreach (jobs, i, job) {
		const char *id = json_get_str(job, "id", "");

		if (!str_starts(id, MIGRATE_COPY))
			continue;
		r = 0;
		end_copy(c, id, json_get_str(job, "status", ""));
	}
	return r;
}

static int end_copies(struct change *c, struct err *err)
{
	return goes_on(c) ? live_until(c, "query-jobs", judge_none, err) : 0;
}

static void on_going(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0)
		change_fail(c, r, err); /* the other QEMU may hold a disk for a moment yet */
	else
		change_next(c);
}

/* The first try waits for nobody; the second one for the other QEMU's end. */
static void on_tried(struct change *c, int r, const json_t *value, const struct err *err)
{
	change_next(c);
}

static int try_go(struct change *c, struct err *err)
{
	return goes_on(c) ? live_try(c, "cont", NULL, -1, on_tried, err) : 0;
}

static int let_go(struct change *c, struct err *err)
{
	if (!goes_on(c))
		return 0;
	for (size_t i = 0; i < VM_DISKS_MAX; i++) {
		AUTO_FREE char *name = xasprintf(MIGRATE_COPY "%zu", i);

		live_send(live_guest(c), "blockdev-del", json_pack("{s:s}", "node-name", name));
	}
	live_send(live_guest(c), "closefd", json_pack("{s:s}", "fdname", MIGRATE_STREAM));
	migrate_capabilities_off(c);
	return live_try(c, "cont", NULL, -1, on_going, err);
}

static int unmark(struct change *c, struct err *err)
{
	c->live->undone = true;
	return c->live->migrating->granted ? 0 : live_step_unmark(c, err);
}

/* Its QEMU ended while nobody could start it again. */
static int start_anew(struct change *c, struct err *err)
{
	if (c->live->migrating->granted || c->live->running || !handed_over(c))
		return 0;
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return live_vm_start(c);
}

static int tell(struct change *c, struct err *err)
{
	if (c->live->migrating->granted)
		return 0;
	if (c->start_error)
		log_warn("vm=%s not started again: %s", c->uuid, c->start_error);
	log_info("vm=%s goes on here after a migration that did not come to its end", c->uuid);
	err_set(err, ECONNRESET, "cut short: the VM %s",
		c->live->running ? "goes on here" : "does not run there");
	return -ECONNRESET;
}

static const change_step back_steps[] = {
	look_back, live_step_lock, live_step_job, ask_there,          take_back,
	wait_over, end_copies,     try_go,        tell_there,         let_go,
	unmark,    start_anew,     tell,          MIGRATE_STEPS_AWAY,
};

const struct change_kind change_migrate_back = {"migrate", back_steps, ARRAY_SIZE(back_steps), NULL,
						live_undo};
