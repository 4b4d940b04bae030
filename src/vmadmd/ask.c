/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to vmstated. A vmstated that is not there is waited for a little, since daemons may be
 * restarted at any moment; one that was reached and broke off is not asked twice, since the order
 * may have been carried out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "net/call.h"
#include "vmadmd/vmadmd.h"

#define RETRY_MS 100u

struct ask {
	struct vmadmd *d;
	char *target, *body;
	uint64_t timeout_ms, give_up_ms;
	ask_done done;
	void *ctx;
	struct call *call;
	sd_event_source *retry;
	struct ask *next;
};

static void ask_free(struct ask *a)
{
	for (struct ask **at = &a->d->asks; *at; at = &(*at)->next) {
		if (*at == a) {
			*at = a->next;
			break;
		}
	}
	if (a->call)
		call_cancel(a->call);
	sd_event_source_disable_unref(a->retry);
	free(a->target);
	free(a->body);
	free(a);
}

static void ask_again(struct ask *a);

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	ask_again(ctx);
	return 0;
}

static void on_reply(void *ctx, int r, int status, const char *body, size_t len,
		     const struct err *err)
{
	struct ask *a = ctx;
	struct err text = {0};

	a->call = NULL;
	if ((r == -ECONNREFUSED || r == -ENOENT) && clock_ms() < a->give_up_ms) {
		(void)timer_set(a->d->event, &a->retry, RETRY_MS, on_retry, a);
		return;
	}
	if (r == -ECONNREFUSED || r == -ENOENT)
		r = err_set(&text, ECONNREFUSED, "vmstated cannot be reached at %s",
			    a->d->paths->vmstated);
	else if (r < 0)
		r = err_set(&text, -r, "vmstated: %s", err_text(err, r));
	a->done(a->ctx, r, status, body ? body : "", &text);
	ask_free(a);
}

static void ask_again(struct ask *a)
{
	struct call_request request = {.socket = a->d->paths->vmstated,
				       .method = "POST",
				       .target = a->target,
				       .body = a->body,
				       .timeout_ms = a->timeout_ms};

	a->call = call_start(a->d->event, &request, on_reply, a);
}

void ask_start(struct vmadmd *d, const struct ask_spec *spec, ask_done done, void *ctx)
{
	AUTO_JSON json_t *body = spec->body ? spec->body : json_object();
	json_t *caller = json_object();
	struct ask *a = xcalloc(1, sizeof(*a));

	json_put_int(caller, "uid", spec->uid);
	json_put_str(caller, "command", spec->command);
	json_object_set_new(body, "caller", caller);
	*a = (struct ask){.d = d,
			  .target = xasprintf("/vms/%s/%s", spec->uuid, spec->verb),
			  .body = json_text(body),
			  .timeout_ms = spec->timeout_ms ? spec->timeout_ms : ASK_LIMIT_MS,
			  .give_up_ms = clock_ms() + ASK_WAIT_MS,
			  .done = done,
			  .ctx = ctx,
			  .next = d->asks};
	d->asks = a;
	ask_again(a);
}

void ask_free_all(struct vmadmd *d)
{
	while (d->asks)
		ask_free(d->asks);
}

int ask_error(int status, const char *body, struct err *err)
{
	AUTO_JSON json_t *reply = NULL;
	const json_t *error;
	int code;

	if (json_parse_object(body, strlen(body), "vmstated's reply", &reply, NULL) < 0)
		return err_set(err, EPROTO, "vmstated answered %d without a reason", status);
	error = json_object_get(reply, "error");
	code = status_errno_from_name(json_get_str(error, "code", ""));
	if (code == 0)
		code = status_to_errno(status);
	return err_set(err, code ? abs(code) : EIO, "%s",
		       json_get_str(error, "message", "no reason"));
}
