/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of changes, see change.h: requests in, one change per VM at a time, steps in order,
 * undo on failure, one answer. The kinds are in create.c, update.c and delete.c.
 */
#include "vmadmd/change/change.h"
#include "vmadmd/change/update.h"
#include "vmadmd/disks/disks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/auth.h"
#include "vmadmd/devices/plug.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/worker.h"

#define GRACE_STEP_MS 20u

static void change_free(struct change *c)
{
	if (c->wait)
		feed_wait_cancel(c->wait);
	if (c->child)
		child_forget(c->child);
	sd_event_source_disable_unref(c->grace);
	sd_event_source_disable_unref(c->progress);
	free(c->command);
	free(c->dataset);
	free(c->start_error);
	json_decref(c->payload);
	vm_free(c->old);
	vm_free(c->new);
	vm_changes_done(&c->changes);
	problems_done(&c->problems);
	for (size_t i = 0; i < c->njobs; i++)
		disk_job_done(&c->jobs[i]);
	if (c->lock >= 0) {
		lock_forget(c->d, c->uuid);
		(void)close(c->lock);
	}
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	live_free(c->live);
	plug_free(c->plug);
	update_how_free(c->how);
	free(c);
}

void change_free_all(struct vmadmd *d)
{
	struct change *c;

	while ((c = d->changes) != NULL) {
		d->changes = c->next;
		change_free(c);
	}
}

static void change_go(struct change *c);

/* Take it out of the line, end it, and let the next one of this VM begin. */
static void change_end(struct change *c)
{
	struct vmadmd *d = c->d;
	char uuid[UUID_LEN + 1];

	memcpy(uuid, c->uuid, sizeof(uuid));
	for (struct change **at = &d->changes; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	change_free(c);
	for (c = d->changes; c; c = c->next) {
		if (strcmp(c->uuid, uuid) == 0) {
			if (!c->running)
				change_go(c);
			return;
		}
	}
}

static int work_of(void *arg, struct err *err)
{
	struct change *c = arg;

	return c->work(c, err);
}

static void on_worked(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;
	change_step after = c->after;
	struct err text = *err;

	c->worker = NULL;
	c->work = c->after = NULL;
	if (r >= 0)
		r = after ? after(c, &text) : 0;
	if (r < 0)
		change_fail(c, r, &text);
	else if (r != STEP_WAIT)
		change_next(c);
}

int change_work(struct change *c, change_step work, change_step after, struct err *err)
{
	int r;

	if (c->d->sync == FILE_NO_SYNC) { /* nothing waits for a disk */
		r = work(c, err);
		return r < 0 || !after ? r : after(c, err);
	}
	c->work = work;
	c->after = after;
	r = worker_run(c->d, work_of, c, on_worked, c, &c->worker, err);
	return r < 0 ? r : STEP_WAIT;
}

static void change_go(struct change *c)
{
	struct err err = {0};
	int r = 0;

	if (!c->running) { /* it may have stood in line: judge by what is so now */
		feed_client_drain(c->d->states);
		catalog_sync(c->d->catalog);
	}
	c->running = true;
	while (c->step < c->kind->nsteps) {
		if (c->ended && !c->begun && !c->stored) {
			change_fail(c, c->ended, &c->end_why);
			return;
		}
		err = (struct err){0};
		r = c->kind->steps[c->step](c, &err);
		if (r < 0) {
			change_fail(c, r, &err);
			return;
		}
		if (r == STEP_WAIT)
			return;
		c->step = r == STEP_LAST ? c->kind->nsteps - 1 : c->step + 1;
	}
	if (c->job && c->start_error)
		err_set(&err, EIO, "done, but the VM did not start: %s", c->start_error);
	if (c->job)
		job_end(c->job, c->start_error ? -EIO : 0, &err);
	if (c->done)
		c->done(c->done_ctx, 0, NULL);
	change_end(c);
}

void change_next(struct change *c)
{
	c->step++;
	change_go(c);
}

void change_again(struct change *c)
{
	change_go(c);
}

/* Who may ask was settled before, and whether the VM is there: what files say is not that. */
static int error_of_change(const struct change *c, int r)
{
	bool there = c->kind == &change_create || catalog_by_uuid(c->d->catalog, c->uuid);

	return r == -EPERM || r == -EACCES || (r == -ENOENT && there) ? -EIO : r;
}

/* All that was done is undone. */
static void change_failed(struct change *c)
{
	if (c->kind->undo)
		c->kind->undo(c);
	if (c->begun)
		(void)feed_commit(c->d->feed, c->uuid);
	if (c->job)
		job_end(c->job, c->failed, &c->failure);
	if (c->done)
		c->done(c->done_ctx, c->failed, &c->failure);
	else if (c->req && c->problems.errors > 0)
		change_reply_problems(c, c->failed);
	else if (c->req)
		http_reply_err(c->req, c->failed, &c->failure);
	change_end(c);
}

static int undo_work(void *arg, struct err *err)
{
	struct change *c = arg;

	return c->kind->undo_files(c, err);
}

static void on_undone(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;

	c->worker = NULL;
	if (r < 0)
		log_error("vm=%s %s not undone as a whole: %s", c->uuid, c->command,
			  err_text(err, r));
	change_failed(c);
}

/* What it did to files and in memory; the running machine is as it was already. */
static void undo_rest(struct change *c)
{
	struct err text = {0};
	int r;

	if (c->kind->undo_files && c->touched) {
		r = worker_run(c->d, undo_work, c, on_undone, c, &c->worker, &text);
		if (r == 0)
			return;
		(void)c->kind->undo_files(c, &text);
	}
	change_failed(c);
}

static void on_unplugged(void *ctx, int r, const struct err *err)
{
	undo_rest(ctx);
}

void change_fail(struct change *c, int r, const struct err *err)
{
	c->failed = error_of_change(c, r);
	c->failure = *err;
	log_info("vm=%s %s failed uid=%u: %s", c->uuid, c->command, c->uid, err_text(err, r));
	if (c->plug)
		plug_undo(c->plug, on_unplugged, c);
	else
		undo_rest(c);
}

/* --- steps --- */

int change_problems(struct change *c, struct err *err)
{
	return problems_to_err(&c->problems, err);
}

struct catalog_entry *change_entry(struct change *c, struct err *err)
{
	struct catalog_entry *e = catalog_by_uuid(c->d->catalog, c->uuid);

	if (!e)
		err_set(err, ENOENT, "VM %s not found", c->uuid);
	return e;
}

int change_conflicts(struct change *c, struct err *err)
{
	struct problems AUTO_PROBLEMS found = {0};
	int r;

	for (size_t i = 0; i < catalog_count(c->d->catalog); i++) {
		const struct catalog_entry *e = catalog_at(c->d->catalog, i);

		if (strcmp(e->uuid, c->uuid) != 0)
			vm_conflicts(c->new, e->vm, &found);
	}
	for (const struct change *other = c->d->changes; other; other = other->next) {
		if (other != c && other->new && other->running &&strcmp(other->uuid, c->uuid) != 0)
			vm_conflicts(c->new, other->new, &found);
	}
	r = problems_to_err(&found, err);
	problems_join(&c->problems, &found);
	return r < 0 ? -EEXIST : 0;
}

int step_lock(struct change *c, struct err *err)
{
	return store_lock(c->d->paths, c->uuid, &c->lock, err);
}

/* --- its job --- */

/* A change can be ended until it is about to be written; a disk in the making goes at once. */
static int change_cancel(void *ctx, int r, const struct err *why, struct err *err)
{
	struct change *c = ctx;

	if (c->live && c->live->cancellable && !c->failed)
		return c->kind->cancel(c, r, why, err);
	if (c->begun || c->stored || c->failed)
		return err_set(err, EBUSY,
			       "VM %s: the change is being written, it is too late to "
			       "end it",
			       c->uuid);
	c->ended = r;
	c->end_why = *why;
	disks_stop(c);
	if (c->plug)
		plug_stop(c->plug, r, why);
	return 0;
}

int change_job(struct change *c, const json_t *images, struct err *err)
{
	AUTO_JSON json_t *out = json_object();
	const struct job_spec spec = {.kind = c->kind->verb,
				      .uuid = c->uuid,
				      .command = c->command,
				      .uid = c->uid,
				      .timeout_ms = c->limit_ms,
				      .images = images,
				      .cancel = change_cancel,
				      .ctx = c};
	int r = job_begin(c->d, &spec, &c->job, err);

	if (r < 0 || !c->detached || !c->req)
		return r;
	json_put_str(out, "job", job_id(c->job));
	json_put_str(out, "uuid", c->uuid);
	http_reply_json(c->req, 202, out);
	c->req = NULL;
	return 0;
}

int step_job(struct change *c, struct err *err)
{
	AUTO_JSON json_t *images = NULL;

	/* What is only written is over before anybody could ask. */
	if (c->njobs == 0 && !(c->detached && c->kind != &change_updating) &&
	    !(c->kind == &change_updating && update_is_live(c)))
		return 0;
	images = disks_paths(c);
	return change_job(c, images, err);
}

int step_images(struct change *c, struct err *err)
{
	int r;

	if (c->jobs_done == c->njobs)
		return 0;
	r = disks_make(c, err);
	return r < 0 ? r : STEP_WAIT;
}

static int on_grace(sd_event_source *source, uint64_t usec, void *ctx)
{
	(void)step_seen(ctx, NULL);
	return 0;
}

static void on_seen(void *ctx, bool confirmed)
{
	struct change *c = ctx;

	c->wait = NULL;
	/* A vminfod that lost us with our restart is about to come back: it is to see this whole.
	 */
	if (!confirmed && clock_ms() < c->d->started_ms + GRACE_MS) {
		(void)timer_set(c->d->event, &c->grace, GRACE_STEP_MS, on_grace, c);
		return;
	}
	c->confirmed = confirmed;
	change_next(c);
}

int step_seen(struct change *c, struct err *err)
{
	c->wait = feed_when_seen(c->d->feed, c->seq, on_seen, c);
	return STEP_WAIT;
}

int step_told(struct change *c, struct err *err)
{
	c->seq = feed_seq(c->d->feed);
	return step_seen(c, err);
}

int step_begin(struct change *c, struct err *err)
{
	AUTO_JSON json_t *cause = json_object();

	json_put_str(cause, "by", c->by);
	json_put_str(cause, "command", c->command);
	json_put_int(cause, "uid", c->uid);
	c->seq = feed_begin(c->d->feed, c->uuid, cause);
	c->begun = true;
	return step_seen(c, err);
}

int step_commit(struct change *c, struct err *err)
{
	c->seq = feed_commit(c->d->feed, c->uuid);
	c->begun = false;
	return step_seen(c, err);
}

/* --- requests --- */

static void on_gone(struct http_request *req, void *ctx)
{
	((struct change *)ctx)->req = NULL;
}

static struct change *change_new(struct vmadmd *d, const struct change_kind *kind, const char *uuid,
				 const struct change_by *by)
{
	struct change *c = xcalloc(1, sizeof(*c));

	*c = (struct change){
		.d = d, .kind = kind, .uid = by->uid, .by = by->kind, .lock = -1, .guest_lock = -1};
	c->command = xstrdup(by->command);
	if (uuid)
		memcpy(c->uuid, uuid, UUID_LEN + 1);
	return c;
}

/* Last in line; begins at once when no other change of this VM is under way. */
static void change_start(struct change *c)
{
	struct change **at = &c->d->changes;
	bool first = true;

	for (; *at; at = &(*at)->next) {
		if (strcmp((*at)->uuid, c->uuid) == 0)
			first = false;
	}
	*at = c;
	if (first)
		change_go(c);
}

/* wait=0 asks for a job in place of an answer, deadline=SECONDS bounds it. */
static bool attach(struct change *c, struct http_request *req)
{
	const char *wait = http_query(req, "wait"), *deadline = http_query(req, "deadline");
	struct err err = {0};
	char *end = NULL;
	long seconds = deadline ? strtol(deadline, &end, 10) : 0;

	if (deadline && (!*deadline || *end || seconds < 1 || seconds > JOB_DEADLINE_S)) {
		err_set(&err, EINVAL, "deadline: '%.40s' is not a number of seconds (want 1 to %d)",
			deadline, JOB_DEADLINE_S);
		http_reply_err(req, -EINVAL, &err);
		change_free(c);
		return false;
	}
	c->limit_ms = (uint64_t)seconds * 1000;
	c->detached = wait && strcmp(wait, "0") == 0;
	c->req = req;
	http_on_gone(req, on_gone, c);
	return true;
}

static bool take_payload(struct http_request *req, json_t **ret)
{
	struct err err = {0};
	size_t len;
	const char *text = http_body_text(req, &len);
	int r = json_parse_object(text, len, "payload", ret, &err);

	if (r < 0)
		http_reply_err(req, r, &err);
	return r == 0;
}

void handle_create(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	const struct change_by by = {request_uid(d, req), "vmadm create"};
	AUTO_JSON json_t *payload = NULL;
	const char *given;
	struct err err = {0};
	struct change *c;
	int r = auth_check(http_peer(req), NULL, true, "create VMs", &err);

	if (r < 0) {
		log_warn("create refused uid=%u: %s", by.uid, err.msg);
		http_reply_err(req, r, &err);
		return;
	}
	if (!take_payload(req, &payload))
		return;
	c = change_new(d, &change_create, NULL, &by);
	given = json_get_str(payload, "uuid", "");
	if (uuid_valid(given))
		memcpy(c->uuid, given, UUID_LEN + 1);
	else
		uuid_random(c->uuid); /* a bad one is refused by the check */
	c->payload = steal_ptr(payload);
	if (attach(c, req))
		change_start(c);
}

void change_update_how(struct vmadmd *d, struct http_request *req, const char *uuid,
		       json_t *payload, const struct change_by *by, struct update_how *how)
{
	struct change *c = change_new(d, &change_updating, uuid, by);

	c->payload = payload;
	c->how = how;
	if (attach(c, req))
		change_start(c);
}

/* An admin's order about the VM of the request. */
static void order(struct http_request *req, struct vmadmd *d, const struct change_kind *kind,
		  bool has_payload)
{
	AUTO_FREE char *command = xasprintf("vmadm %s", kind->verb);
	AUTO_JSON json_t *payload = NULL;
	struct change_by by = {.command = command};
	struct target target;
	struct change *c;

	if (!target_find(d, req, true, &target) || (has_payload && !take_payload(req, &payload)))
		return;
	by.uid = target.uid;
	c = change_new(d, kind, target.uuid, &by);
	c->payload = steal_ptr(payload);
	if (attach(c, req))
		change_start(c);
}

void handle_update(struct http_request *req, void *ctx)
{
	order(req, ctx, &change_updating, true);
}

void handle_delete(struct http_request *req, void *ctx)
{
	order(req, ctx, &change_delete, false);
}

void handle_reprovision(struct http_request *req, void *ctx)
{
	order(req, ctx, &change_reprovision, true);
}

void handle_snapshot_import(struct http_request *req, void *ctx)
{
	order(req, ctx, &change_snapimport, true);
}

void handle_install(struct http_request *req, void *ctx)
{
	order(req, ctx, &change_install, false);
}

void change_update(struct vmadmd *d, const char *uuid, json_t *payload, const struct change_by *by,
		   change_done done, void *ctx)
{
	struct change *c = change_new(d, &change_updating, uuid, by);

	c->payload = payload;
	c->done = done;
	c->done_ctx = ctx;
	change_start(c);
}

void change_order(struct vmadmd *d, const struct change_kind *kind, const char *uuid,
		  const struct change_by *by, struct live *live, struct http_request *req)
{
	struct change *c = change_new(d, kind, uuid, by);

	c->live = live;
	if (live)
		live->c = c;
	if (!req || attach(c, req))
		change_start(c);
}
