/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in the guest, by its agent: started, looked at until it has ended, its exit code and
 * what it wrote. At the deadline the caller is told; the program goes on, since an agent has no
 * way to end it. With wait false the answer is its number in the guest, which exec-status takes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "vmadmd/agent_call.h"
#include "vmadmd/guest.h"
#include "vmadmd/vmadmd.h"

#define WORDS_MAX     256
#define TIMEOUT_S     60
#define TIMEOUT_MAX_S 3600
#define LOOK_MS       50u /* the first pause between two looks; each is longer, up to: */
#define LOOK_MAX_MS   1000u

struct execution {
	struct agent_call *call;
	json_int_t pid; /* the guest's */
	json_int_t seconds;
	uint64_t until_ms, look_ms;
	sd_event_source *timer;
};

static void end(struct execution *x, int r, json_t *value, const struct err *err)
{
	struct agent_call *call = x->call;

	sd_event_source_disable_unref(x->timer);
	free(x);
	agent_call_end(call, r, value ? value : json_object(), err);
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

static int on_look(sd_event_source *source, uint64_t usec, void *ctx);

static void on_status(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct execution *x = ctx;
	struct err text = {0};

	if (r < 0) {
		end(x, r, NULL, err);
	} else if (json_get_bool(value, "exited", false)) {
		end(x, 0, result(value), NULL);
	} else if (clock_ms() >= x->until_ms) {
		r = err_set(&text, ETIMEDOUT,
			    "the program did not end within %lld s: it goes on in the guest of VM "
			    "%s as process %lld",
			    (long long)x->seconds, x->call->uuid, (long long)x->pid);
		end(x, r, NULL, &text);
	} else {
		x->look_ms = x->look_ms * 2 < LOOK_MAX_MS ? x->look_ms * 2 : LOOK_MAX_MS;
		(void)timer_set(x->call->d->event, &x->timer, x->look_ms, on_look, x);
	}
}

static int on_look(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct execution *x = ctx;
	struct guest *g = guest_find(x->call->d, x->call->uuid);
	AUTO_JSON json_t *args = json_pack("{s:I}", "pid", x->pid);
	struct err err = {0};
	int r;

	if (!g)
		r = err_set(&err, ECONNRESET, "VM %s stopped running", x->call->uuid);
	else
		r = agent_ask(g, "guest-exec-status", args, AGENT_ANSWER_MS, on_status, x, &err);
	if (r < 0)
		end(x, r, NULL, &err);
	return 0;
}

static void on_started(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct execution *x = ctx;
	struct err text = {0};

	x->pid = json_get_int(value, "pid", -1);
	if (r == 0 && x->pid < 0)
		r = err_set(&text, EPROTO, "the guest agent of VM %s named no process",
			    x->call->uuid);
	if (r < 0)
		end(x, r, NULL, text.code ? &text : err);
	else if (!json_get_bool(x->call->body, "wait", true))
		end(x, 0, json_pack("{s:I}", "pid", x->pid), NULL);
	else
		(void)timer_set(x->call->d->event, &x->timer, x->look_ms, on_look, x);
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
	struct execution *x;
	int r = words_of(json_object_get(call->body, "command"), args, err);

	if (r == 0)
		r = input_of(call->body, args, err);
	if (r == 0 && (seconds < 1 || seconds > TIMEOUT_MAX_S))
		r = err_set(err, EINVAL, "body.timeout: want 1 to %d seconds", TIMEOUT_MAX_S);
	if (r < 0)
		return r;
	x = xcalloc(1, sizeof(*x));
	*x = (struct execution){.call = call,
				.seconds = seconds,
				.until_ms = clock_ms() + (uint64_t)seconds * 1000,
				.look_ms = LOOK_MS};
	r = agent_ask(g, "guest-exec", args, AGENT_ANSWER_MS, on_started, x, err);
	if (r < 0)
		free(x);
	return r;
}
