/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a live operation asks of others, each a step that waits: a command of QEMU's monitor, a job
 * in QEMU, an order to vmstated. A change that is gone meanwhile hears nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmadmd/guest/agent.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"

#define JOB_LOOK_MS 1000u
#define CANCELLED   "Operation canceled" /* of QEMU */

/* --- commands of the monitor --- */

struct live_call {
	struct change *c; /* NULL: it is gone */
	live_then then;
	live_answer answer;
	struct live_call *next;
};

void live_calls_forget(struct live *l)
{
	for (struct live_call *call = l->calls; call; call = call->next)
		call->c = NULL;
	l->calls = NULL;
}

static void drop_call(struct live_call *call)
{
	for (struct live_call **at = &call->c->live->calls; *at; at = &(*at)->next) {
		if (*at == call) {
			*at = call->next;
			return;
		}
	}
}

static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct live_call *call = ctx, copy = *call;

	if (call->c)
		drop_call(call);
	free(call);
	if (!copy.c)
		return;
	if (copy.answer)
		copy.answer(copy.c, r, value, err);
	else if (r < 0)
		change_fail(copy.c, r == -EREMOTEIO ? -EIO : r, err);
	else
		copy.then(copy.c, value);
}

static int ask(struct change *c, const char *command, json_t *arguments, int fd,
	       const struct live_call *how, struct err *err)
{
	struct live_call *call = xcalloc(1, sizeof(*call));
	AUTO_JSON json_t *taken = arguments;
	int r;

	*call = *how;
	call->c = c;
	call->next = c->live->calls;
	r = monitor_ask(live_guest(c),
			&(struct monitor_order){.command = command,
						.arguments = taken,
						.fd = fd,
						.timeout_ms = LIVE_ASK_MS},
			on_answer, call, err);
	if (r < 0) {
		free(call);
		return r;
	}
	c->live->calls = call;
	return STEP_WAIT;
}

int live_ask(struct change *c, const char *command, json_t *arguments, live_then then,
	     struct err *err)
{
	const struct live_call how = {.then = then};

	return ask(c, command, arguments, -1, &how, err);
}

int live_try(struct change *c, const char *command, json_t *arguments, int fd, live_answer then,
	     struct err *err)
{
	const struct live_call how = {.answer = then};

	return ask(c, command, arguments, fd, &how, err);
}

/* --- the guest's agent --- */

static int ask_frost(struct change *c, bool freeze, live_answer answer, struct err *err)
{
	struct live_call *call = xcalloc(1, sizeof(*call));
	struct guest *g = live_guest(c);
	int r;

	*call = (struct live_call){.c = c, .answer = answer, .next = c->live->calls};
	r = freeze ? agent_freeze(g, AGENT_FREEZE_MS, on_answer, call, err)
		   : agent_thaw(g, on_answer, call, err);
	if (r < 0) {
		free(call);
		return r;
	}
	c->live->calls = call;
	return STEP_WAIT;
}

static void on_frozen(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0)
		log_warn("vm=%s not frozen, taken as it is: %s", c->uuid, err_text(err, r));
	c->live->frozen = r == 0;
	live_point("frozen");
	change_next(c);
}

int live_step_freeze(struct change *c, struct err *err)
{
	const struct guest *g = live_guest(c);
	int r;

	if (!c->live->running || c->live->memory > 0 || !agent_answers(g) || agent_frozen(g) ||
	    !str_eq(json_get_str(g->facts, FACT_RUN_STATE, ""), "running"))
		return 0;
	r = ask_frost(c, true, on_frozen, NULL);
	return r < 0 ? 0 : r;
}

static void on_thawed(struct change *c, int r, const json_t *value, const struct err *err)
{
	c->live->frozen = false; /* a refusal is repeated by the agent's keeper */
	change_next(c);
}

int live_step_thaw(struct change *c, struct err *err)
{
	int r = c->live->frozen ? ask_frost(c, false, on_thawed, NULL) : 0;

	return r < 0 ? 0 : r;
}

/* --- jobs in QEMU --- */

struct qjob {
	struct change *c;
	struct monitor_watch watch;
	sd_event_source *limit;
	live_failed fail;
	bool asked;  /* query-jobs is under way */
	bool begun;  /* QEMU took the command */
	bool absent; /* QEMU may not have it: nothing was sent by us */
	bool looks;  /* it does not silence QEMU: ask now and then */
	sd_event_source *look;
	json_int_t seen; /* how far it was */
};

static int on_job_limit(sd_event_source *source, uint64_t usec, void *ctx);

void live_job_free(struct qjob *job)
{
	struct guest *g;

	if (!job)
		return;
	g = guest_find(job->c->d, job->c->uuid);
	if (g)
		monitor_unwatch(g, &job->watch);
	sd_event_source_disable_unref(job->limit);
	sd_event_source_disable_unref(job->look);
	free(job);
}

static void end_job(struct change *c, int r, const struct err *err)
{
	struct qjob *job = steal_ptr(c->live->job);
	live_failed fail = job->fail ? job->fail : change_fail;

	live_job_free(job);
	if (r < 0)
		fail(c, r, err);
	else
		change_next(c);
}

/* Of several jobs that are one to us, each has our id and a number: "ID.2". */
static bool is_ours(const struct change *c, const char *id)
{
	const char *ours = c->live->qemu_job;
	size_t len = strlen(ours);

	return id && strncmp(id, ours, len) == 0 && (id[len] == '\0' || id[len] == '.');
}

static void on_ignored(void *ctx, int r, const json_t *value, const struct err *err)
{
	if (r < 0)
		log_debug("answer not needed: %s", err_text(err, r));
}

void live_send(struct guest *g, const char *command, json_t *arguments)
{
	AUTO_JSON json_t *taken = arguments;

	(void)monitor_send(g, command, taken, -1, on_ignored, NULL, NULL);
}

static void look_at_jobs(struct change *c);

/* Concluded jobs stay until they are dismissed: their answer is durable. */
static void judge_jobs(struct change *c, const json_t *jobs)
{
	const char *error = NULL, *text;
	struct err err = {0};
	const json_t *one;
	size_t i;

	json_array_foreach (jobs, i, one) {
		if (!is_ours(c, json_get_str(one, "id", NULL)))
			continue;
		live_send(live_guest(c), "job-dismiss",
			  json_pack("{s:s}", "id", json_get_str(one, "id", "")));
		text = json_get_str(one, "error", NULL);
		/* Those of a group that did not fail are cancelled. */
		if (!error || (text && strcmp(error, CANCELLED) == 0))
			error = text ? text : error;
	}
	if (error)
		end_job(c, err_set(&err, EIO, "QEMU: %s", error), &err);
	else
		end_job(c, 0, NULL);
}

struct tally {
	size_t jobs, concluded;
	json_int_t now, total;
};

static struct tally count_jobs(const struct change *c, const json_t *jobs)
{
	struct tally t = {0};
	const json_t *one;
	size_t i;

	json_array_foreach (jobs, i, one) {
		if (!is_ours(c, json_get_str(one, "id", NULL)))
			continue;
		t.jobs++;
		t.concluded += str_eq(json_get_str(one, "status", ""), "concluded");
		t.now += json_get_int(one, "current-progress", 0);
		t.total += json_get_int(one, "total-progress", 0);
	}
	return t;
}

static int on_job_look(sd_event_source *source, uint64_t usec, void *ctx)
{
	look_at_jobs(ctx);
	return 0;
}

/* Its limit is for one that does not move. */
static void job_moves(struct change *c, const struct tally *t)
{
	struct qjob *job = c->live->job;

	if (t->total > 0 && t->now != job->seen) {
		job->seen = t->now;
		(void)timer_set(c->d->event, &job->limit, LIVE_JOB_MS, on_job_limit, c);
	}
	if (t->total > 0 && c->job)
		job_progress(c->job, t->now < t->total ? (unsigned)(t->now * 100 / t->total) : 99,
			     NULL);
	if (job->looks)
		(void)timer_set(c->d->event, &job->look, JOB_LOOK_MS, on_job_look, c);
}

static void on_jobs(struct change *c, int r, const json_t *value, const struct err *err)
{
	struct qjob *job = c->live->job;
	struct tally t;
	struct err text = {0};

	if (!job)
		return;
	job->asked = false;
	if (r == -ECONNRESET) /* it comes again, or QEMU is gone: the watch tells */
		return;
	if (r == -ETIMEDOUT) { /* the job silences QEMU; its own limit counts */
		look_at_jobs(c);
		return;
	}
	if (r < 0) {
		end_job(c, -EIO, err);
		return;
	}
	t = count_jobs(c, value);
	if (t.jobs == 0 && (job->absent || job->begun))
		end_job(c, err_set(&text, ENOENT, "QEMU does not know the job any more"), &text);
	else if (t.jobs > 0 && t.concluded == t.jobs)
		judge_jobs(c, value);
	else
		job_moves(c, &t);
}

static void look_at_jobs(struct change *c)
{
	struct err err = {0};

	if (c->live->job->asked)
		return;
	c->live->job->asked = true;
	if (live_try(c, "query-jobs", NULL, -1, on_jobs, &err) < 0)
		c->live->job->asked = false; /* MONITOR_READY asks again */
}

static void on_job_event(void *ctx, const char *name, const json_t *data)
{
	struct change *c = ctx;
	struct err err = {0};

	if (str_eq(name, MONITOR_GONE))
		end_job(c, err_set(&err, ECONNRESET, "the VM stopped running meanwhile"), &err);
	else if (str_eq(name, MONITOR_READY) ||
		 (str_eq(name, "JOB_STATUS_CHANGE") && is_ours(c, json_get_str(data, "id", NULL)) &&
		  str_eq(json_get_str(data, "status", NULL), "concluded")))
		look_at_jobs(c);
}

static int on_job_limit(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct err err = {0};

	end_job(ctx,
		err_set(&err, ETIMEDOUT, "QEMU did not get on with the job within %u s",
			LIVE_JOB_MS / 1000),
		&err);
	return 0;
}

static void on_begun(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (!c->live->job)
		return;
	c->live->job->begun = true; /* or may be */
	if (r == -ECONNRESET)
		return; /* the watch tells what became of it */
	if (r < 0) {
		end_job(c, r == -EREMOTEIO ? -EIO : r, err);
		return;
	}
	live_point("begun");
	look_at_jobs(c);
}

int live_job(struct change *c, const char *command, json_t *arguments, live_failed fail,
	     struct err *err)
{
	struct qjob *job = xcalloc(1, sizeof(*job));
	int r;

	*job = (struct qjob){.c = c,
			     .watch = {.event = on_job_event, .ctx = c},
			     .fail = fail,
			     .absent = command == NULL,
			     .looks = command == NULL};
	c->live->job = job;
	monitor_watch(live_guest(c), &job->watch);
	(void)timer_set(c->d->event, &job->limit, LIVE_JOB_MS, on_job_limit, c);
	if (command)
		r = live_try(c, command, arguments, -1, on_begun, err);
	else
		r = live_try(c, "query-jobs", NULL, -1, on_jobs, err);
	if (r < 0) {
		live_job_free(job);
		c->live->job = NULL;
	}
	return r;
}

/* --- vmstated --- */

static int judge_order(int r, int status, const char *body, struct err *err)
{
	if (r == 0 && status >= 300)
		r = ask_error(status, body, err);
	return r == -EALREADY ? 0 : r;
}

static void on_must(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct err text = *err;

	r = judge_order(r, status, body, &text);
	if (r < 0)
		change_fail(ctx, r, &text);
	else
		change_next(ctx);
}

static void on_may(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct change *c = ctx;
	struct err text = *err;

	r = judge_order(r, status, body, &text);
	if (r < 0)
		log_warn("vm=%s vmstated: %s", c->uuid, err_text(&text, r));
	change_next(c);
}

static void on_start(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct change *c = ctx;
	struct err text = *err;

	r = judge_order(r, status, body, &text);
	if (r < 0)
		replace_str(&c->start_error, xstrdup(err_text(&text, r)));
	change_next(c);
}

static int order(struct change *c, const char *verb, json_t *body, ask_done done)
{
	const struct ask_spec spec = {
		.uuid = c->uuid, .verb = verb, .body = body, .uid = c->uid, .command = c->command};

	ask_start(c->d, &spec, done, c);
	return STEP_WAIT;
}

int live_busy(struct change *c, uint64_t ms)
{
	return order(c, "busy",
		     json_pack("{s:I, s:s}", "ms", (json_int_t)ms, "what", c->kind->verb), on_may);
}

int live_vm_stop(struct change *c)
{
	return order(c, "stop", json_pack("{s:b, s:b}", "wait", 1, "force", 1), on_must);
}

int live_vm_start(struct change *c)
{
	return order(c, "start", json_pack("{s:b}", "wait", 1), on_start);
}

int live_vm_start_held(struct change *c, const char *hold)
{
	return order(c, "start", json_pack("{s:b, s:s}", "wait", 1, "hold", hold), on_must);
}

int live_vm_try_held(struct change *c, const char *hold)
{
	return order(c, "start", json_pack("{s:b, s:s}", "wait", 1, "hold", hold), on_start);
}
