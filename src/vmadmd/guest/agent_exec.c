/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in the guest, by its agent: started, looked at until it has ended, its exit code and
 * what it wrote. At the deadline the caller is told; the program goes on, since an agent has no
 * way to end it. With wait false the answer is its number in the guest, which exec-status takes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/agent_call.h"
#include "vmadmd/jobs.h"
#include "vmadmd/vmadmd.h"

#define WORDS_MAX     256
#define TIMEOUT_S     60
#define TIMEOUT_MAX_S 3600
#define LOOK_MS       50u /* the first pause between two looks; each is longer, up to: */
#define LOOK_MAX_MS   1000u
#define KEPT_MAX      65536u /* of each output, in base64, with a job: it lies in a state file */

/* What a job notes of it, for the vmadmd after this one. */
#define NOTE_PID   "guest_pid"
#define NOTE_START "zoneid"
#define NOTE_UNTIL "until_ms" /* wall clock */

struct execution {
	struct vmadmd *d;
	char uuid[UUID_LEN + 1];
	struct agent_call *call; /* who waits; NULL: a job's */
	struct job *job;         /* NULL: a request's */
	json_int_t start;        /* of the VM, by number */
	json_int_t pid;          /* the guest's; -1: not told yet */
	json_int_t seconds;
	uint64_t until_ms, look_ms;
	bool asked; /* the agent, just now */
	int ended;  /* why the job is to end, 0: it is not */
	struct err why;
	sd_event_source *timer;
};

static void end(struct execution *x, int r, json_t *value, const struct err *err)
{
	static const struct err none;
	struct agent_call *call = x->call;

	if (x->job && r == 0)
		job_result(x->job, value);
	if (x->job)
		job_end(x->job, r == -EREMOTEIO ? -EIO : r, err ? err : &none);
	sd_event_source_disable_unref(x->timer);
	free(x);
	if (call)
		agent_call_end(call, r, value ? value : json_object(), err);
	else
		json_decref(value);
}

static const char *const passed_on[] = {"exitcode",      "signal",        "out-data",
					"out-truncated", "err-truncated", "err-data"};

static json_t *result(const json_t *value)
{
	json_t *out = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(passed_on); i++) {
		json_t *member = json_object_get(value, passed_on[i]);

		if (member)
			(void)json_object_set(out, passed_on[i], member);
	}
	return out;
}

/* What a job keeps of an output: its beginning. */
static void cut_short(json_t *out, const char *data, const char *flag)
{
	const char *text = json_get_str(out, data, "");

	if (strlen(text) <= KEPT_MAX)
		return;
	(void)json_object_set_new(out, data, json_stringn(text, KEPT_MAX));
	json_put_bool(out, flag, true);
}

static json_t *result_of(const struct execution *x, const json_t *value)
{
	json_t *out = result(value);

	if (x->job) {
		cut_short(out, "out-data", "out-truncated");
		cut_short(out, "err-data", "err-truncated");
		json_put_str(out, "uuid", x->uuid);
	}
	return out;
}

static int on_look(sd_event_source *source, uint64_t usec, void *ctx);

static void look_again(struct execution *x)
{
	x->look_ms = x->look_ms * 2 < LOOK_MAX_MS ? x->look_ms * 2 : LOOK_MAX_MS;
	(void)timer_set(x->d->event, &x->timer, x->look_ms, on_look, x);
}

/* The program cannot be ended from here: whoever waits is told that it goes on. */
static void give_up(struct execution *x, int r, const struct err *why)
{
	struct err text = {0};

	if (x->pid < 0)
		(void)err_set(&text, -r, "%.200s: whether the program began is not known",
			      err_text(why, r));
	else
		(void)err_set(&text, -r,
			      "%.200s: the program goes on in the guest of VM %s as process %lld",
			      err_text(why, r), x->uuid, (long long)x->pid);
	end(x, r, NULL, &text);
}

static int exec_cancel(void *ctx, int r, const struct err *why, struct err *err)
{
	struct execution *x = ctx;

	x->ended = r;
	x->why = *why;
	if (!x->asked)
		give_up(x, r, why);
	return 0;
}

/* Its VM runs on: an agent that is silent for a while may know of the program yet. */
static bool is_there(const struct execution *x)
{
	const struct guest *g = guest_find(x->d, x->uuid);

	if (!feed_client_ready(x->d->states))
		return true; /* nobody says otherwise */
	return guest_runs(g) && json_get_int(g->facts, FACT_ZONEID, -1) == x->start;
}

static void on_status(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct execution *x = ctx;
	struct err text = {0};

	x->asked = false;
	if (r == 0 && json_get_bool(value, "exited", false)) {
		end(x, 0, result_of(x, value), NULL);
	} else if (x->ended) {
		give_up(x, x->ended, &x->why);
	} else if (r < 0 && !(x->job && r != -EREMOTEIO && is_there(x))) {
		end(x, r, NULL, err);
	} else if (clock_ms() >= x->until_ms) {
		r = err_set(&text, ETIMEDOUT, "the program did not end within %lld s",
			    (long long)x->seconds);
		give_up(x, r, &text);
	} else {
		look_again(x);
	}
}

static int on_look(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct execution *x = ctx;
	struct guest *g = guest_find(x->d, x->uuid);
	AUTO_JSON json_t *args = json_pack("{s:I}", "pid", x->pid);
	struct err err = {0};
	int r = is_there(x) ? 0 : err_set(&err, ECONNRESET, "VM %s stopped running", x->uuid);

	if (r == 0)
		r = g ? agent_ask(g, "guest-exec-status", args, AGENT_ANSWER_MS, on_status, x, &err)
		      : -ENOTCONN;
	if (r < 0)
		on_status(x, r, NULL, &err);
	else
		x->asked = true;
	return 0;
}

static void on_started(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct execution *x = ctx;
	struct err text = {0};

	x->asked = false;
	x->pid = json_get_int(value, "pid", -1);
	if (r == 0 && x->pid < 0)
		r = err_set(&text, EPROTO, "the guest agent of VM %s named no process", x->uuid);
	if (r == 0 && x->job)
		job_note(x->job, NOTE_PID, x->pid);
	if (r < 0)
		end(x, r, NULL, text.code ? &text : err);
	else if (x->ended)
		give_up(x, x->ended, &x->why);
	else if (x->call && !json_get_bool(x->call->body, "wait", true))
		end(x, 0, json_pack("{s:I}", "pid", x->pid), NULL);
	else
		(void)timer_set(x->d->event, &x->timer, x->look_ms, on_look, x);
}

/* --- as a job --- */

static int as_job(struct execution *x, struct err *err)
{
	const struct job_spec spec = {.kind = "exec",
				      .uuid = x->uuid,
				      .command = "vmadm agent exec",
				      .uid = request_uid(x->d, x->call->req),
				      .timeout_ms = (uint64_t)x->seconds * 1000,
				      .cancel = exec_cancel,
				      .ctx = x};
	int r = job_begin(x->d, &spec, &x->job, err);

	if (r < 0)
		return r;
	job_note(x->job, NOTE_START, x->start);
	job_note(x->job, NOTE_UNTIL, (json_int_t)clock_wall_ms() + (json_int_t)x->seconds * 1000);
	return 0;
}

/* The job answers for it from here. */
static void answer_job(struct execution *x)
{
	struct agent_call *call = steal_ptr(x->call);

	agent_call_accepted(call, job_id(x->job));
}

bool agent_exec_again(struct vmadmd *d, const char *uuid, struct job *j)
{
	json_int_t left = job_noted(j, NOTE_UNTIL) - (json_int_t)clock_wall_ms();
	struct execution *x;

	if (job_noted(j, NOTE_PID) < 0)
		return false;
	x = xcalloc(1, sizeof(*x));
	*x = (struct execution){.d = d,
				.start = job_noted(j, NOTE_START),
				.pid = job_noted(j, NOTE_PID),
				.until_ms = clock_ms() + (uint64_t)(left > 0 ? left : 0),
				.look_ms = LOOK_MS};
	(void)snprintf(x->uuid, sizeof(x->uuid), "%s", uuid);
	x->job = job_adopt(d, job_id(j), exec_cancel, x);
	x->seconds = job_noted(j, "deadline_s");
	(void)timer_set(d->event, &x->timer, x->look_ms, on_look, x);
	return true;
}

/* --- what is to be run --- */

static int words_of(const json_t *command, json_t *args, struct err *err)
{
	const json_t *word;
	json_t *rest = json_array();
	size_t i;

	(void)json_object_set_new(args, "arg", rest);
	if (json_array_size(command) < 1 || json_array_size(command) > WORDS_MAX)
		return err_set(err, EINVAL,
			       "body.command: want 1 to %d words, the first the program's path",
			       WORDS_MAX);
	json_array_foreach (command, i, word) {
		if (!json_is_string(word))
			return err_set(err, EINVAL, "body.command[%zu]: want a string", i);
		if (i == 0)
			json_put_str(args, "path", json_string_value(word));
		else
			(void)json_array_append(rest, (json_t *)(uintptr_t)word);
	}
	return 0;
}

static int input_of(const json_t *body, json_t *args, struct err *err)
{
	const json_t *input = json_object_get(body, "input");
	const char *bytes = json_get_str(body, "input_base64", NULL);
	AUTO_FREE char *coded = NULL;
	size_t len;

	if (bytes) { /* what is no text */
		json_put_str(args, "input-data", bytes);
		return err_wrap(err, base64_decode(bytes, strlen(bytes), &coded, &len, err),
				"body.input_base64");
	}
	if (!input)
		return 0;
	if (!json_is_string(input))
		return err_set(err, EINVAL, "body.input: want a string");
	coded = base64_encode(json_string_value(input), json_string_length(input));
	json_put_str(args, "input-data", coded);
	return 0;
}

static void on_asked(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct agent_call *call = ctx;
	json_t *out = r == 0 ? result(value) : json_object();

	json_put_bool(out, "exited", json_get_bool(value, "exited", false));
	agent_call_end(call, r, out, err);
}

/* An agent tells of an end once, and then forgets it. */
int agent_exec_status(struct agent_call *call, struct guest *g, struct err *err)
{
	AUTO_JSON json_t *args = json_pack("{s:I}", "pid", json_get_int(call->body, "pid", -1));

	if (json_get_int(call->body, "pid", -1) < 0)
		return err_set(err, EINVAL, "body.pid: want the number exec gave");
	return agent_ask(g, "guest-exec-status", args, AGENT_ANSWER_MS, on_asked, call, err);
}

int agent_exec(struct agent_call *call, struct guest *g, struct err *err)
{
	const json_t *timeout = json_object_get(call->body, "timeout");
	json_int_t seconds = timeout ? json_integer_value(timeout) : TIMEOUT_S;
	AUTO_JSON json_t *args = json_pack("{s:b}", "capture-output", 1);
	bool detached = str_eq(http_query(call->req, "wait"), "0");
	struct execution *x;
	int r = words_of(json_object_get(call->body, "command"), args, err);

	if (r == 0)
		r = input_of(call->body, args, err);
	if (r == 0 && (seconds < 1 || seconds > TIMEOUT_MAX_S))
		r = err_set(err, EINVAL, "body.timeout: want 1 to %d seconds", TIMEOUT_MAX_S);
	if (r < 0)
		return r;
	x = xcalloc(1, sizeof(*x));
	*x = (struct execution){.d = call->d,
				.call = call,
				.start = json_get_int(g->facts, FACT_ZONEID, -1),
				.pid = -1,
				.seconds = seconds,
				.until_ms = clock_ms() + (uint64_t)seconds * 1000,
				.look_ms = LOOK_MS};
	memcpy(x->uuid, call->uuid, sizeof(x->uuid));
	r = detached ? as_job(x, err) : 0;
	if (r == 0)
		r = agent_ask(g, "guest-exec", args, AGENT_ANSWER_MS, on_started, x, err);
	x->asked = r == 0;
	if (r == 0 && x->job)
		answer_job(x);
	if (r < 0 && x->job)
		job_end(x->job, r, err);
	if (r < 0)
		free(x);
	return r;
}
