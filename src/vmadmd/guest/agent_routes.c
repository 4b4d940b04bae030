/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /vm/:id/agent/VERB: what people and programs ask of a guest's agent. A row per verb; what
 * is more than one command has a file of its own (agent_freeze.c, agent_exec.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/agent_call.h"
#include "vmadmd/vmadmd.h"

#define SET_TIME_MS 20000u

static void call_free(struct agent_call *call)
{
	json_decref(call->body);
	free(call);
}

static void on_gone(struct http_request *req, void *ctx)
{
	((struct agent_call *)ctx)->req = NULL;
}

void agent_call_end(struct agent_call *call, int r, json_t *value, const struct err *err)
{
	struct err text = {0};

	if (r == -EREMOTEIO) /* the agent's own words */
		r = err_set(&text, EIO, "%s", err_text(err, r));
	else if (r < 0)
		text = *err;
	if (call->req && r < 0) {
		http_reply_err(call->req, r, &text);
	} else if (call->req) {
		json_put_str(value, "uuid", call->uuid);
		http_reply_json(call->req, 200, value);
	}
	json_decref(value);
	call_free(call);
}

void agent_call_accepted(struct agent_call *call, const char *job)
{
	AUTO_JSON json_t *out = json_pack("{s:s, s:s}", "job", job, "uuid", call->uuid);

	http_reply_json(call->req, 202, out);
	call->req = NULL;
}

/* --- verbs that are one command --- */

/* The agent's answer under the verb's name for it. */
static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct agent_call *call = ctx;
	json_t *out = json_object();

	if (r == 0 && call->verb->member)
		(void)json_object_set(out, call->verb->member, (json_t *)(uintptr_t)value);
	agent_call_end(call, r, out, err);
}

static int run_ping(struct agent_call *call, struct guest *g, struct err *err)
{
	return agent_ask(g, "guest-ping", NULL, AGENT_ANSWER_MS, on_answer, call, err);
}

static int run_addresses(struct agent_call *call, struct guest *g, struct err *err)
{
	return agent_ask(g, "guest-network-get-interfaces", NULL, AGENT_ANSWER_MS, on_answer, call,
			 err);
}

static int run_freeze(struct agent_call *call, struct guest *g, struct err *err)
{
	const json_t *limit = json_object_get(call->body, "limit");
	json_int_t seconds = limit ? json_integer_value(limit) : AGENT_FREEZE_MS / 1000;

	if (seconds < 1 || seconds > AGENT_FREEZE_MAX)
		return err_set(err, EINVAL, "body.limit: want 1 to %d seconds", AGENT_FREEZE_MAX);
	return agent_freeze(g, (uint64_t)seconds * 1000, on_answer, call, err);
}

static int run_thaw(struct agent_call *call, struct guest *g, struct err *err)
{
	return agent_thaw(g, on_answer, call, err);
}

/* The host's clock: after a restore the guest's is behind by the time away. */
static int run_set_time(struct agent_call *call, struct guest *g, struct err *err)
{
	AUTO_JSON json_t *args = json_pack("{s:I}", "time", (json_int_t)clock_wall_ms() * 1000000);

	return agent_ask(g, "guest-set-time", args, SET_TIME_MS, on_answer, call, err);
}

static const struct agent_verb verbs[] = {
	/* clang-format off */
	{ "ping",      NULL,          run_ping },
	{ "addresses", "interfaces",  run_addresses },
	{ "freeze",    "filesystems", run_freeze },
	{ "thaw",      "filesystems", run_thaw },
	{ "set-time",  NULL,          run_set_time },
	{ "exec",      NULL,          agent_exec },
	{ "exec-status", NULL,        agent_exec_status },
	/* clang-format on */
};

static const struct agent_verb *verb_of(const char *name, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (str_eq(verbs[i].name, name))
			return &verbs[i];
	}
	(void)err_set(err, ENOENT,
		      "the guest agent is not asked for '%.40s' (want ping, addresses, freeze, "
		      "thaw, set-time, exec or exec-status)",
		      name);
	return NULL;
}

void handle_agent(struct http_request *req, void *ctx)
{
	struct agent_call *call;
	struct target target;
	struct err err = {0};
	struct guest *g;
	size_t len;
	const char *text = http_body_text(req, &len);
	int r = -ENOENT;

	if (!target_find(ctx, req, false, &target))
		return;
	call = xcalloc(1, sizeof(*call));
	*call = (struct agent_call){.d = ctx, .req = req};
	memcpy(call->uuid, target.uuid, sizeof(call->uuid));
	call->verb = verb_of(http_param(req, "verb"), &err);
	if (call->verb)
		r = json_parse_object(len ? text : "{}", len ? len : 2, "body", &call->body, &err);
	g = guest_find(call->d, call->uuid);
	if (r == 0 && !guest_runs(g))
		r = err_set(&err, EBUSY, "VM %s does not run: nobody is there to be asked",
			    call->uuid);
	if (r == 0) {
		log_info("vm=%s agent %s uid=%u", target.uuid, call->verb->name, target.uid);
		r = call->verb->run(call, g, &err);
	}
	if (r < 0) {
		http_reply_err(req, r, &err);
		call_free(call);
		return;
	}
	if (call->req)
		http_on_gone(req, on_gone, call);
	else
		call_free(call); /* a job goes on for it */
}
