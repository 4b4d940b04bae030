/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstatedctl's commands that concern all VMs, or vmstated itself: shutdown-all and upgrade; see
 * vmstatedctl.h.
 */
#include "cli/vmstatedctl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define UPGRADE_LIMIT_MS 30000
#define AGAIN_MS         20 /* between connections that a starting vmstated ends at once */

/* clang-format off */
const struct cli_option ctl_shutdown_options[] = {
	{ 't', 't', NULL, "SEC", "how long each guest has; default its stoptimeout" },
	{ 0 },
};
/* clang-format on */

/* --- shutdown-all --- */

/* "NAME: stopped" for each on stdout, "NAME: reason" for the others on stderr. */
static int tell_stopped(struct cli *cli, const struct client_reply *reply)
{
	struct slice json = js_value(reply->body, reply->len), one;
	struct slice failed = js_member(json, "failed");
	AUTO_STRBUF struct strbuf sb = {0};
	struct js_iter it;
	int code;

	js_iter_init(&it, js_member(json, "stopped"));
	while (!cli_flag(cli, OPT_JSON) && js_next(&it, NULL, &one)) {
		AUTO_FREE char *name = js_string(one);

		strbuf_put_escaped(&sb, name ? name : "?");
		strbuf_puts(&sb, ": stopped\n");
	}
	cli_put(sb.data, sb.len);
	code = request_finish(cli, reply, NULL);
	js_iter_init(&it, failed);
	while (js_next(&it, NULL, &one)) {
		AUTO_FREE char *name = js_member_string(one, "name");
		AUTO_FREE char *reason = js_member_string(one, "reason");

		cli_say("%s: %s", name ? name : "?", reason ? reason : "not stopped");
	}
	return js_count(failed) ? EXIT_FAILED : code;
}

int ctl_shutdown_all(struct cli *cli)
{
	int seconds = -1, code = cli_opt_seconds(cli, 't', &seconds);
	bool wait = !cli_flag(cli, OPT_NO_WAIT);
	AUTO_JSON json_t *json = json_object();
	AUTO_FREE char *body = NULL;
	struct client_reply reply;

	if (code)
		return code;
	if (seconds >= 0)
		json_put_int(json, "timeout_ms", (json_int_t)seconds * 1000);
	if (!wait)
		json_put_bool(json, "wait", false);
	body = json_text(json);
	struct request rq = {
		.method = "POST", .target = "/shutdown-all", .body = body, .limit_ms = NO_LIMIT_MS};

	code = ctl_ask(cli, &rq, &reply);
	if (code)
		return code;
	if (wait)
		code = tell_stopped(cli, &reply);
	else
		code = request_finish(cli, &reply, "Accepted the request to stop all VMs");
	client_reply_done(&reply);
	return code;
}

/* --- upgrade --- */

static int left_of(uint64_t deadline)
{
	uint64_t now = clock_ms();

	return deadline > now ? (int)(deadline - now) : 0;
}

/*
 * Until the connection ends, which is when the old program is gone: before that it would be the
 * one that answers.
 */
static int wait_for_end(struct client *c, uint64_t deadline)
{
	char rest[256];

	while (c->fd >= 0) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		int n = poll(&p, 1, left_of(deadline));
		ssize_t got;

		if (n == 0)
			return -ETIMEDOUT;
		got = n > 0 ? read(c->fd, rest, sizeof(rest)) : -1;
		if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
			return 0;
	}
	return 0;
}

/* GET target of a vmstated that may be starting: again and again until the deadline. */
static int ask_new(struct cli *cli, const char *target, uint64_t deadline, struct client_reply *ret)
{
	for (;;) {
		struct client c;
		int r = client_open(&c, cli->paths.vmstated, NULL, left_of(deadline), NULL);

		if (r == 0) {
			r = client_call(&c, "GET", target, NULL, left_of(deadline), ret, NULL);
			client_close(&c);
		}
		if (r == 0 && ret->status == 200)
			return 0;
		if (r == 0) {
			client_reply_done(ret);
			r = -EPROTO;
		}
		if (left_of(deadline) == 0)
			return r == -EPROTO ? r : -ETIMEDOUT;
		(void)poll(NULL, 0, AGAIN_MS);
	}
}

static int tell_upgraded(struct cli *cli, const struct client_reply *status)
{
	struct slice json = js_value(status->body, status->len), pid = js_member(json, "pid");
	AUTO_FREE char *text = NULL;

	if (cli_flag(cli, OPT_JSON)) {
		AUTO_STRBUF struct strbuf sb = {0};

		strbuf_puts(&sb, "{\"pid\":");
		strbuf_add(&sb, pid.p ? pid.p : "null", pid.p ? pid.len : strlen("null"));
		strbuf_puts(&sb, "}");
		cli_put_json(js_value(sb.data, sb.len));
		return EXIT_OK;
	}
	text = xasprintf("vmstated upgraded (pid %.*s)\n", (int)(pid.p ? pid.len : 1),
			 pid.p ? pid.p : "?");
	cli_put(text, strlen(text));
	return EXIT_OK;
}

/* The request itself on a connection that stays open: its end is the news. */
static int request_upgrade(struct cli *cli, struct client *c, uint64_t deadline, struct err *err)
{
	struct client_reply reply = {0};
	int code = request_open(cli, PEER_VMSTATED, NULL, c, err), r;

	if (code)
		return code;
	r = client_call(c, "POST", "/upgrade", "{}", left_of(deadline), &reply, err);
	if (r == 0)
		r = client_reply_error(&reply, err);
	client_reply_done(&reply);
	return r < 0 ? exit_from_errno(r) : 0;
}

int ctl_upgrade(struct cli *cli)
{
	int limit = cli->timeout_ms >= 0 ? cli->timeout_ms : UPGRADE_LIMIT_MS, code, r = 0;
	uint64_t deadline = clock_ms() + (uint64_t)limit;
	struct client c = {.fd = -1};
	struct client_reply reply;
	struct err err = {0};

	ctl_socket(cli);
	code = request_upgrade(cli, &c, deadline, &err);
	if (code == 0 && cli_flag(cli, OPT_NO_WAIT)) {
		client_close(&c);
		return cli_fail(EXIT_OK, "Accepted the request to upgrade vmstated");
	}
	if (code == 0)
		r = wait_for_end(&c, deadline);
	client_close(&c);
	if (code)
		return request_fail(code, NULL, &err);
	if (r == 0)
		r = ask_new(cli, "/ping", deadline, &reply);
	if (r == 0) {
		client_reply_done(&reply);
		r = ask_new(cli, "/status", deadline, &reply);
	}
	if (r < 0)
		return cli_fail(r == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_FAILED,
				"vmstated has not come back within %d s; its guests go on running",
				limit / 1000);
	code = tell_upgraded(cli, &reply);
	client_reply_done(&reply);
	return code;
}
