/* SPDX-License-Identifier: Apache-2.0 */
/* Actions of vmadmd and their jobs; see act.h. */
#include "cli/act.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/request.h"

#define BAR_WIDTH 24
#define LINE_MAX  80

/* --- a job --- */

/* "[######      ]  50% disk0.qcow2" in place of the line before; step as the daemon calls it. */
void bar_put(long percent, const char *step)
{
	AUTO_STRBUF struct strbuf sb = {0};
	int filled = (int)(percent < 0 ? 0 : percent > 100 ? BAR_WIDTH : percent * BAR_WIDTH / 100);

	strbuf_puts(&sb, "[");
	for (int i = 0; i < BAR_WIDTH; i++)
		strbuf_putc(&sb, i < filled ? '#' : ' ');
	strbuf_printf(&sb, "] %3ld%% ", percent);
	strbuf_put_escaped(&sb, step ? step : "");
	(void)fprintf(stderr, "\r%.*s\033[K", LINE_MAX - 1, sb.data);
	(void)fflush(stderr);
}

static void put_bar(struct slice job)
{
	AUTO_FREE char *step = js_member_string(job, "step");
	struct slice percent = js_member(job, "percent");

	bar_put(percent.p ? strtol(percent.p, NULL, 10) : 0, step);
}

static void put_line(struct slice job)
{
	AUTO_STRBUF struct strbuf sb = {0};

	js_write(&sb, job, JS_COMPACT);
	(void)fprintf(stderr, "%s\n", sb.data);
	(void)fflush(stderr);
}

void bar_clear(void)
{
	(void)fputs("\r\033[K", stderr);
	(void)fflush(stderr);
}

/* What is left of --timeout; READ_LIMIT_MS at most, since the daemon answers sooner. */
static int time_left(const struct cli *cli, uint64_t begun_ms)
{
	uint64_t gone = clock_ms() - begun_ms;

	if (cli->timeout_ms < 0)
		return READ_LIMIT_MS;
	return gone >= (uint64_t)cli->timeout_ms ? 0 : (int)((uint64_t)cli->timeout_ms - gone);
}

static int job_look(const struct cli *cli, struct client *c, const char *target, int limit_ms,
		    struct client_reply *ret, struct err *err)
{
	int r = client_call(c, "GET", target, NULL, limit_ms, ret, err);

	if (r < 0)
		return exit_from_errno(r);
	r = client_reply_error(ret, err);
	if (r == 0)
		return 0;
	client_reply_done(ret);
	return exit_from_errno(r);
}

static int timed_out(const struct cli *cli, const char *id, struct err *err)
{
	(void)err_set(err, ETIMEDOUT,
		      "not done within %d s; it goes on as job %s (vmadm jobs watch %s)",
		      cli->timeout_ms / 1000, id, id);
	return EXIT_TIMED_OUT;
}

/* One connection; each look waits in the daemon until there is something new. */
static int follow(const struct cli *cli, struct client *c, const char *id, enum job_show show,
		  struct client_reply *ret, struct err *err)
{
	AUTO_FREE char *revision = xstrdup("0");
	uint64_t begun_ms = clock_ms();

	for (;;) {
		AUTO_FREE char *query = xasprintf("?after=%s", revision);
		AUTO_FREE char *target = request_target("/jobs/", id, query);
		int left = time_left(cli, begun_ms), code;
		struct slice job, number;

		code = left ? job_look(cli, c, target, left, ret, err) : EXIT_TIMED_OUT;
		if (code == EXIT_TIMED_OUT)
			return timed_out(cli, id, err);
		if (code)
			return code;
		job = js_value(ret->body, ret->len);
		if (!js_is(js_member(job, "state"), "running"))
			return 0;
		if (show == JOB_SHOW_BAR)
			put_bar(job);
		if (show == JOB_SHOW_LINES)
			put_line(job);
		number = js_member(job, "revision");
		replace_str(&revision, number.p ? xstrndup(number.p, number.len) : xstrdup("0"));
		client_reply_done(ret);
	}
}

int job_follow(const struct cli *cli, const char *id, enum job_show show, struct client_reply *ret,
	       struct err *err)
{
	struct client c;
	int code = request_open(cli, PEER_VMADMD, NULL, &c, err);

	if (code)
		return code;
	code = follow(cli, &c, id, show, ret, err);
	client_close(&c);
	if (show == JOB_SHOW_BAR)
		bar_clear();
	if (code == EXIT_UNKNOWN_VM)
		code = EXIT_FAILED; /* the job is unknown, not a VM */
	return code;
}

int job_outcome(struct slice job, struct err *err)
{
	struct slice error = js_member(job, "error");
	AUTO_FREE char *name = js_member_string(error, "code");
	AUTO_FREE char *message = js_member_string(error, "message");
	int errnum, code;

	if (js_is(js_member(job, "state"), "done"))
		return 0;
	errnum = name ? status_errno_from_name(name) : EIO;
	(void)err_set(err, errnum > 0 ? errnum : EIO, "%s", message ? message : "the job failed");
	code = (int)exit_from_errno(-err->code);
	return code == EXIT_OK || code == EXIT_UNKNOWN_VM ? EXIT_FAILED : code;
}

/* --- an action --- */

static void put_object(const json_t *object)
{
	AUTO_FREE char *text = json_text(object);

	cli_put_json(js_value(text, strlen(text)));
}

static int accepted(const struct cli *cli, const struct act *a, const char *uuid, const char *job)
{
	AUTO_JSON json_t *json = json_object();

	if (cli_flag(cli, OPT_JSON)) {
		json_put_str(json, "uuid", uuid);
		json_put_bool(json, "accepted", true);
		if (job)
			json_put_str(json, "job", job);
		put_object(json);
	}
	(void)cli_flush();
	if (job)
		return cli_fail(EXIT_OK, "Accepted the request to %s %s as job %s", a->word, uuid,
				job);
	return cli_fail(EXIT_OK, "Accepted the request to %s %s", a->word, uuid);
}

static int finished(struct cli *cli, const struct act *a, const struct client_reply *reply,
		    const char *uuid)
{
	AUTO_FREE char *text = cli_fill_in(a->success, uuid);

	if (a->tell)
		a->tell(cli, js_value(reply->body ? reply->body : "", reply->len));
	return request_finish(cli, reply, "%s", text);
}

/* The job's result takes the place of the answer that named the job. */
static int finish_job(const struct cli *cli, const struct act *a, const char *id,
		      struct client_reply *reply, struct err *err)
{
	struct client_reply end = {0};
	struct slice job, result;
	enum job_show show = isatty(STDERR_FILENO) ? JOB_SHOW_BAR
			     : a->lines            ? JOB_SHOW_LINES
						   : JOB_SHOW_NOTHING;
	int code = job_follow(cli, id, show, &end, err);

	if (code)
		return code;
	job = js_value(end.body, end.len);
	code = job_outcome(job, err);
	result = js_member(job, "result");
	if (code == 0 && result.p) {
		char *text = xstrndup(result.p, result.len);

		replace_str(&reply->body, text);
		reply->len = result.len;
	}
	client_reply_done(&end);
	return code;
}

static int failed(const struct act *a, const char *id, int code, const struct err *err)
{
	AUTO_FREE char *prefix = a->failure ? cli_fill_in(a->failure, id) : NULL;
	bool already = err->code == EALREADY && a->already_ok;

	return request_fail(already ? EXIT_OK : code, prefix, err);
}

/* A terminal is shown a bar, which only a job has; others have their answer from one request. */
static char *target_of(const struct cli *cli, const struct act *a, const char *id)
{
	bool as_job = cli_flag(cli, OPT_NO_WAIT) || a->lines || (a->job && isatty(STDERR_FILENO));
	const char *query = a->query ? a->query : "";
	AUTO_FREE char *wait = a->word ? xasprintf("%c"
						   "wait=%d",
						   *query ? '&' : '?', !as_job)
				       : xstrdup("");
	AUTO_FREE char *whole = xasprintf("%s%s", query, wait);

	return a->target ? xasprintf("%s%s", a->target, whole) : request_target("/vm/", id, whole);
}

int act_run(struct cli *cli, const struct act *a)
{
	const char *id = cli->nargs ? cli->args[0] : "";
	AUTO_FREE char *target = target_of(cli, a, id), *uuid = NULL, *job = NULL;
	const struct request rq = {.peer = PEER_VMADMD,
				   .method = a->method ? a->method : "POST",
				   .target = target,
				   .body = a->body,
				   .limit_ms = a->limit_ms ? a->limit_ms : NO_LIMIT_MS};
	struct client_reply reply;
	struct err err = {0};
	int code = request_run(cli, &rq, &reply, &err);

	if (code)
		return failed(a, id, code, &err);
	uuid = request_uuid(&reply, id);
	job = js_member_string(js_value(reply.body, reply.len), "job");
	if (a->word && cli_flag(cli, OPT_NO_WAIT) && (job || reply.status == 202)) {
		code = accepted(cli, a, uuid, job);
	} else {
		code = job ? finish_job(cli, a, job, &reply, &err) : 0;
		code = code ? failed(a, id, code, &err) : finished(cli, a, &reply, uuid);
	}
	client_reply_done(&reply);
	return code;
}
