/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vminfo: what vminfod knows. Data on stdout, one line of talk on stderr.
 * Called zoneevent it is that. Source: smartos facts 4.1, 4.6, 4.7; exit codes are those of
 * api/status.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/events.h"
#include "cli/find.h"
#include "cli/request.h"
#include "cli/zoneevent.h"

#define AGENT_NAME "Vminfod CLI"

/* --- asking --- */

static char *agent(void)
{
	const char *given = getenv("VMINFOD_NAME");
	AUTO_FREE char *name =
		given && *given ? xasprintf("%s (" AGENT_NAME ")", given) : xstrdup(AGENT_NAME);

	return request_agent(name);
}

/* An error of the transport as it is; any status but 200 by its number. */
static int failed(int code, const struct client_reply *reply, const struct err *err)
{
	if (reply->status)
		return cli_fail(code, "bad statusCode: %d", reply->status);
	return request_fail(code, NULL, err);
}

/* 0 and a reply with JSON to free, or the exit code, told. */
static int get(struct cli *cli, const char *target, struct client_reply *ret,
	       struct slice *ret_json)
{
	AUTO_FREE char *user_agent = agent();
	struct request rq = {.peer = PEER_VMINFOD,
			     .method = "GET",
			     .target = target,
			     .agent = user_agent,
			     .limit_ms = READ_LIMIT_MS};
	struct err err = {0};
	int code = request_run(cli, &rq, ret, &err);

	if (code)
		return failed(code, ret, &err);
	*ret_json = js_value(ret->body, ret->len);
	if (ret_json->p)
		return 0;
	client_reply_done(ret);
	return cli_fail(EXIT_FAILED, "vminfod's answer is no JSON");
}

static int print(struct cli *cli, const char *target)
{
	struct client_reply reply;
	struct slice json;
	int code = get(cli, target, &reply, &json);

	if (code)
		return code;
	cli_put_json(json);
	client_reply_done(&reply);
	return EXIT_OK;
}

static int cmd_ping(struct cli *cli)
{
	struct client_reply reply;
	struct slice json;
	int code = get(cli, "/ping", &reply, &json);
	AUTO_FREE char *pong = code ? NULL : js_member_string(json, "ping");

	if (code)
		return code;
	client_reply_done(&reply);
	if (!str_eq(pong, "pong"))
		return cli_fail(EXIT_FAILED, "vminfod did not answer pong");
	cli_put("pong\n", 5);
	return EXIT_OK;
}

static int cmd_vms(struct cli *cli)
{
	return print(cli, "/vms");
}

static int cmd_vm(struct cli *cli)
{
	struct client_reply reply;
	struct err err = {0};
	int code = find_vm(cli, cli->args[0], "", &reply, &err);

	if (code == EXIT_UNKNOWN_VM)
		return cli_fail(code, "bad statusCode: 404");
	if (code)
		return failed(code, &reply, &err);
	cli_put_json(js_value(reply.body, reply.len));
	client_reply_done(&reply);
	return EXIT_OK;
}

static int cmd_events(struct cli *cli)
{
	AUTO_FREE char *user_agent = agent();
	struct events_request rq = {.agent = user_agent};

	return events_run(cli, &rq);
}

/* --- status --- */

/* A scalar as it reads; what is missing as null. */
static void put_plain(struct strbuf *sb, struct slice v)
{
	AUTO_FREE char *text = js_string(v);

	if (text)
		strbuf_put_escaped(sb, text);
	else if (v.p)
		js_write(sb, v, JS_COMPACT);
	else
		strbuf_puts(sb, "null");
}

static void put_line(struct strbuf *sb, const char *label, struct slice v)
{
	strbuf_puts(sb, label);
	put_plain(sb, v);
	strbuf_putc(sb, '\n');
}

/* How many things a list, an object or a plain number stand for. */
static void put_count(struct strbuf *sb, const char *label, struct slice v)
{
	if (js_type(v) == '[' || js_type(v) == '{')
		strbuf_printf(sb, "%s%zu\n", label, js_count(v));
	else if (v.p)
		put_line(sb, label, v);
	else
		strbuf_printf(sb, "%s0\n", label);
}

static void put_head(struct strbuf *sb, struct slice s)
{
	struct slice rss = js_member(js_member(s, "memory"), "rss");
	AUTO_FREE char *bytes = rss.p ? xstrndup(rss.p, rss.len) : xstrdup("0");

	strbuf_puts(sb, "state: ");
	put_plain(sb, js_member(s, "state"));
	strbuf_puts(sb, " (");
	put_plain(sb, js_member(s, "status"));
	strbuf_puts(sb, ")\n");
	put_line(sb, "pid: ", js_member(s, "pid"));
	put_line(sb, "uptime: ", js_member(s, "uptime"));
	strbuf_printf(sb, "rss: %.2fmb\n", strtod(bytes, NULL) / (1024 * 1024));
	put_line(sb, "numVms: ", js_member(s, "numVms"));
}

static void put_queue(struct strbuf *sb, struct slice queue)
{
	struct slice inner = js_member(queue, "vasync_queue");

	strbuf_puts(sb, "queue\n");
	put_line(sb, "  paused: ", js_member(queue, "paused"));
	put_line(sb, "  idle: ", js_member(queue, "idle"));
	put_line(sb, "  npending: ", js_member(inner, "npending"));
	put_line(sb, "  nqueued: ", js_member(inner, "nqueued"));
}

static void put_errors(struct strbuf *sb, struct slice errors)
{
	struct slice one;
	struct js_iter it;

	if (js_count(errors) == 0)
		return;
	strbuf_printf(sb, "  refreshErrors: (%zu items)\n", js_count(errors));
	js_iter_init(&it, errors);
	while (js_next(&it, NULL, &one)) {
		strbuf_puts(sb, "    - ");
		put_plain(sb, js_member(one, "err"));
		strbuf_puts(sb, " (");
		put_plain(sb, js_member(one, "ago"));
		strbuf_puts(sb, ")\n");
	}
}

static void put_log(struct strbuf *sb, struct slice log)
{
	struct slice one;
	struct js_iter it;

	if (js_count(log) == 0)
		return;
	strbuf_printf(sb, "  refreshLog: (%zu items)\n", js_count(log));
	js_iter_init(&it, log);
	while (js_next(&it, NULL, &one)) {
		strbuf_printf(sb, "    - %zu cacheChanges / %zu vmChanges - ",
			      js_count(js_member(one, "cacheChanges")),
			      js_count(js_member(one, "vmChanges")));
		put_plain(sb, js_member(one, "endedAgo"));
		strbuf_puts(sb, " ago\n");
	}
}

static void put_watcher(struct strbuf *sb, struct slice watcher)
{
	strbuf_puts(sb, "fswatcher\n");
	put_line(sb, "  running: ", js_member(watcher, "running"));
	put_line(sb, "  pid: ", js_member(watcher, "watcher_pid"));
	put_count(sb, "  watching: ", js_member(watcher, "watching"));
	put_count(sb, "  tryingToWatch: ", js_member(watcher, "not_yet_watching"));
	put_count(sb, "  pendingActions: ", js_member(watcher, "pending_actions"));
}

static void put_listeners(struct strbuf *sb, struct slice listeners)
{
	struct slice id, one;
	struct js_iter it;

	strbuf_printf(sb, "eventsListeners: (%zu listeners)\n", js_count(listeners));
	js_iter_init(&it, listeners);
	while (js_next(&it, &id, &one)) {
		AUTO_STRBUF struct strbuf text = {0};

		js_write(&text, js_member(one, "userAgent"), JS_COMPACT);
		strbuf_puts(sb, "  - ");
		if (text.len > 2) /* JSON's escapes stay, its quotes go */
			strbuf_add(sb, text.data + 1, text.len - 2);
		strbuf_puts(sb, "\n    ");
		put_plain(sb, id);
		strbuf_puts(sb, " created ");
		put_plain(sb, js_member(one, "createdAgo"));
		strbuf_puts(sb, " ago\n");
	}
}

static void put_status(struct strbuf *sb, struct slice s, bool full)
{
	put_head(sb, s);
	put_queue(sb, js_member(s, "queue"));
	strbuf_puts(sb, "fullRefresh\n");
	put_line(sb, "  lastRefresh: ", js_member(s, "lastRefresh"));
	put_errors(sb, js_member(s, "refreshErrors"));
	if (full) {
		put_log(sb, js_member(s, "refreshLog"));
		put_watcher(sb, js_member(s, "fswatcher"));
	}
	put_listeners(sb, js_member(s, "eventsListeners"));
	strbuf_putc(sb, '\n');
}

static int cmd_status(struct cli *cli)
{
	bool full = cli_flag(cli, 'f');
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	struct slice json;
	int code = get(cli, full ? "/status?full=1" : "/status", &reply, &json);

	if (code)
		return code;
	if (cli_flag(cli, 'j')) {
		cli_put_json(json);
	} else {
		put_status(&sb, json, full);
		cli_put(sb.data, sb.len);
	}
	client_reply_done(&reply);
	return EXIT_OK;
}

/* clang-format off */
static const struct cli_option status_options[] = {
	{ 'j', 'j', "json", NULL, "print the status object as JSON" },
	{ 'f', 'f', "full", NULL, "with the log of refreshes and the file watcher" },
	{ 0 },
};

static const struct command commands[] = {
	{ "ping", NULL, cmd_ping, 0, 0, NULL, false, "",
	  "Print pong when vminfod answers." },
	{ "status", NULL, cmd_status, 0, 0, status_options, false, "[-jf]",
	  "Print how vminfod is doing and who listens to its events." },
	{ "vms", NULL, cmd_vms, 0, 0, NULL, false, "",
	  "Print all VM objects as JSON." },
	{ "vm", NULL, cmd_vm, 1, 1, NULL, false, "VM",
	  "Print one VM object as JSON." },
	{ "events", NULL, cmd_events, 0, 0, event_options, false, "[-jfr]",
	  "Print changes of VMs as they happen." },
	{ "help", NULL, cli_help, 0, 1, NULL, false, "[COMMAND]",
	  "Print help." },
};

static const struct tool vminfo = {
	.name = "vminfo",
	.doc = "Look at what vminfod knows of the virtual machines of this host.",
	.commands = commands,
	.ncommands = ARRAY_SIZE(commands),
	.texts = {
		.no_command = "Command must be specified as the first argument",
		.unknown_command = "Unknown command: @",
		.missing = "vm zonename must be specified",
		.blank_line = true,
	},
};
/* clang-format on */

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;

	if (argc > 0 && str_eq(slash ? slash + 1 : argv[0], "zoneevent"))
		return zoneevent_main(argc, argv);
	return cli_main(&vminfo, argc, argv);
}
