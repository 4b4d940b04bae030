/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstatedctl: talk to vmstated alone: no other daemon has to run.
 * Source: facts/vmstated section 10, with its defects mended: -h and -s work, exit codes tell.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/request.h"

#define RULE_WIDTH 79

/* clang-format off */
static const struct cli_option tool_options[] = {
	{ 's', 's', "socket", "PATH", "vmstated's socket; default run/vmstated.sock below the root" },
	{ 0 },
};
static const struct cli_option kill_options[] = {
	{ 'S', 'S', "signal", "NAME", "signal for the VM's process; default KILL" },
	{ 0 },
};
/* clang-format on */

static int ask(struct cli *cli, const struct request *like, struct client_reply *ret)
{
	const char *socket = cli_opt(cli, 's');
	struct request rq = *like;
	struct err err = {0};
	int code;

	if (socket)
		replace_str(&cli->paths.vmstated, xstrdup(socket));
	rq.peer = PEER_VMSTATED;
	code = request_run(cli, &rq, ret, &err);
	return code ? request_fail(code, NULL, &err) : 0;
}

/* --- start, stop and the like --- */

/* "NAME: STATE" of the reply on stdout; with --json the reply itself. */
static int tell(struct cli *cli, const struct client_reply *reply, const char *accepted)
{
	struct slice json = js_value(reply->body, reply->len);
	AUTO_FREE char *name = js_member_string(json, "name");
	AUTO_FREE char *state = js_member_string(json, "state");
	AUTO_STRBUF struct strbuf sb = {0};

	if (!cli_flag(cli, OPT_JSON)) {
		strbuf_put_escaped(&sb, name ? name : cli->args[0]);
		strbuf_puts(&sb, ": ");
		strbuf_put_escaped(&sb, state ? state : accepted);
		strbuf_putc(&sb, '\n');
		cli_put(sb.data, sb.len);
	}
	return request_finish(cli, reply, NULL);
}

/* POST /vms/NAME/<verb> with body, which is taken over. */
static int command_vm(struct cli *cli, const char *verb, json_t *body, const char *accepted)
{
	AUTO_JSON json_t *json = body;
	AUTO_FREE char *text = NULL, *suffix = xasprintf("/%s", verb);
	AUTO_FREE char *target = request_target("/vms/", cli->args[0], suffix);
	struct client_reply reply;
	int code;

	if (cli_flag(cli, OPT_NO_WAIT))
		json_put_bool(json, "wait", false);
	text = json_text(json);
	struct request rq = {
		.method = "POST", .target = target, .body = text, .limit_ms = NO_LIMIT_MS};

	code = ask(cli, &rq, &reply);
	if (code)
		return code;
	code = tell(cli, &reply, accepted);
	client_reply_done(&reply);
	return code;
}

static int cmd_start(struct cli *cli)
{
	return command_vm(cli, "start", json_object(), "start requested");
}

static int stop_with(struct cli *cli, const char *verb, const char *accepted)
{
	int seconds = -1, code = cli_opt_seconds(cli, 't', &seconds);
	json_t *body;

	if (code)
		return code;
	body = json_object();
	if (seconds >= 0)
		json_put_int(body, "timeout_ms", (json_int_t)seconds * 1000);
	if (cli_flag(cli, 'F'))
		json_put_bool(body, "force", true);
	return command_vm(cli, verb, body, accepted);
}

static int cmd_stop(struct cli *cli)
{
	return stop_with(cli, "stop", "stop requested");
}

static int cmd_restart(struct cli *cli)
{
	return stop_with(cli, "restart", "restart requested");
}

static int cmd_kill(struct cli *cli)
{
	const char *given = cli_opt(cli, 'S');
	const char *name = given ? cli_signal(given) : "KILL";
	json_t *body;

	if (!name)
		return cli_fail(EXIT_FAILED, "Unknown signal \"%s\"", given);
	body = json_object();
	json_put_str(body, "signal", name);
	return command_vm(cli, "kill", body, "signal sent");
}

static int cmd_failreset(struct cli *cli)
{
	return command_vm(cli, "failreset", json_object(), "failure mode reset");
}

/* --- reload --- */

static void put_problems(struct slice problems)
{
	struct slice one;
	struct js_iter it;

	js_iter_init(&it, problems);
	while (js_next(&it, NULL, &one)) {
		AUTO_FREE char *file = js_member_string(one, "file");
		AUTO_FREE char *text = js_member_string(one, "text");

		/* the text names the file itself when it knows the line */
		if (file && !(text && str_starts(text, file)))
			cli_say("%s: %s", file, text ? text : "broken");
		else
			cli_say("%s", text ? text : "a definition is broken");
	}
}

static int cmd_reload(struct cli *cli)
{
	struct request rq = {
		.method = "POST", .target = "/reload", .body = "{}", .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	struct slice json, problems;
	int code = ask(cli, &rq, &reply);

	if (code)
		return code;
	json = js_value(reply.body, reply.len);
	problems = js_member(json, "problems");
	if (!cli_flag(cli, OPT_JSON)) {
		struct slice vms = js_member(json, "vms");

		(void)printf("reloaded: %.*s virtual machines\n", (int)(vms.p ? vms.len : 1),
			     vms.p ? vms.p : "?");
	}
	code = request_finish(cli, &reply, NULL);
	put_problems(problems);
	if (js_count(problems) > 0)
		code = EXIT_FAILED;
	client_reply_done(&reply);
	return code;
}

/* --- status --- */

/* A member as text; "-" when there is none. Control characters escaped. */
static void put_member(struct strbuf *sb, struct slice vm, const char *key)
{
	AUTO_FREE char *text = js_member_string(vm, key);

	strbuf_put_escaped(sb, text && *text ? text : "-");
}

static void put_padded(struct strbuf *sb, struct slice vm, const char *key, size_t width)
{
	size_t from = sb->len;

	put_member(sb, vm, key);
	while (sb->len < from + width)
		strbuf_putc(sb, ' ');
}

static void put_table(struct strbuf *sb, struct slice vms)
{
	struct js_iter it;
	struct slice vm;

	strbuf_printf(sb, "vmstated running, managing %zu virtual machines\n", js_count(vms));
	if (js_count(vms) == 0)
		return;
	strbuf_printf(sb, "%-16s %-6s %-8s\n", "Name", "Status", "Owner");
	for (int i = 0; i < RULE_WIDTH; i++)
		strbuf_putc(sb, '=');
	strbuf_putc(sb, '\n');
	js_iter_init(&it, vms);
	while (js_next(&it, NULL, &vm)) {
		put_padded(sb, vm, "name", 16);
		strbuf_puts(sb, "   ");
		put_member(sb, vm, "code");
		strbuf_putc(sb, ' ');
		put_padded(sb, vm, "owner", 8);
		strbuf_putc(sb, '\n');
	}
}

static int put_reply(struct cli *cli, const struct client_reply *reply, struct strbuf *sb)
{
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(js_value(reply->body, reply->len));
	else
		cli_put(sb->data, sb->len);
	return EXIT_OK;
}

static int status_all(struct cli *cli)
{
	struct request rq = {.method = "GET", .target = "/status", .limit_ms = READ_LIMIT_MS};
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	struct slice json;
	int code = ask(cli, &rq, &reply);

	if (code)
		return code;
	json = js_value(reply.body, reply.len);
	put_table(&sb, js_member(json, "vms"));
	code = put_reply(cli, &reply, &sb);
	put_problems(js_member(json, "problems"));
	client_reply_done(&reply);
	return code;
}

/* "group.key: value", or without the group when it is absent. */
static void put_line(struct strbuf *sb, struct slice group, struct slice key, struct slice value)
{
	const struct slice parts[] = {group, key, value};
	static const char *const behind[] = {".", ": ", "\n"};

	for (size_t i = group.p ? 0 : 1; i < ARRAY_SIZE(parts); i++) {
		AUTO_FREE char *text = js_string(parts[i]);

		if (text)
			strbuf_put_escaped(sb, text);
		else
			js_write(sb, parts[i], JS_COMPACT);
		strbuf_puts(sb, behind[i]);
	}
}

/* "key: value" for every member, those of objects as "key.member: value". */
static void put_lines(struct strbuf *sb, struct slice object)
{
	struct slice key, value, member, inner;
	struct js_iter it, in;

	js_iter_init(&it, object);
	while (js_next(&it, &key, &value)) {
		if (js_type(value) != '{') {
			put_line(sb, (struct slice){0}, key, value);
			continue;
		}
		js_iter_init(&in, value);
		while (js_next(&in, &member, &inner))
			put_line(sb, key, member, inner);
	}
}

static int status_one(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vms/", cli->args[0], "");
	struct request rq = {.method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	int code = ask(cli, &rq, &reply);

	if (code)
		return code;
	put_lines(&sb, js_value(reply.body, reply.len));
	code = put_reply(cli, &reply, &sb);
	client_reply_done(&reply);
	return code;
}

static int cmd_status(struct cli *cli)
{
	return cli->nargs ? status_one(cli) : status_all(cli);
}

/* clang-format off */
static const struct command commands[] = {
	{ "start", NULL, cmd_start, 1, 1, NULL, false, "VM",
	  "Start a VM." },
	{ "stop", NULL, cmd_stop, 1, 1, cli_stop_options, false, "[-F] [-t SEC] VM",
	  "Ask the guest to power off; it is forced when its time is over." },
	{ "restart", NULL, cmd_restart, 1, 1, cli_stop_options, false, "[-F] [-t SEC] VM",
	  "Stop and start." },
	{ "kill", NULL, cmd_kill, 1, 1, kill_options, false, "[-S NAME] VM",
	  "Send a signal to the VM's process; KILL unless another is given." },
	{ "failreset", NULL, cmd_failreset, 1, 1, NULL, false, "VM",
	  "Leave failure mode, so that the VM can be started again." },
	{ "status", NULL, cmd_status, 0, 1, NULL, false, "[VM]",
	  "Print all VMs as a table, or everything about one." },
	{ "reload", NULL, cmd_reload, 0, 0, NULL, false, "",
	  "Read all definitions again; problems are told and make it fail." },
	{ "help", NULL, cli_help, 0, 1, NULL, false, "[COMMAND]",
	  "Print help." },
};

static const struct tool vmstatedctl = {
	.name = "vmstatedctl",
	.doc = "Control the supervisor of virtual machines. VM is a name, a uuid, the first characters\n"
	       "of a uuid (four or more), or an alias that only one VM has.",
	.commands = commands,
	.ncommands = ARRAY_SIZE(commands),
	.options = tool_options,
	.texts = {
		.unknown_command = "Unknown command: @",
		.missing = "Missing arguments",
	},
};
/* clang-format on */

int main(int argc, char **argv)
{
	return cli_main(&vmstatedctl, argc, argv);
}
