/* SPDX-License-Identifier: Apache-2.0 */
/* vmstatedctl's commands that start, stop and poke a VM; see vmstatedctl.h. */
#include "cli/vmstatedctl.h"

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* clang-format off */
const struct cli_option ctl_kill_options[] = {
	{ 'S', 'S', "signal", "NAME", "signal for the VM's process; default KILL" },
	{ 0 },
};
/* clang-format on */

void ctl_socket(struct cli *cli)
{
	const char *path = cli_opt(cli, OPT_SOCKET);

	if (path)
		replace_str(&cli->paths.vmstated, xstrdup(path));
}

int ctl_ask(struct cli *cli, const struct request *like, struct client_reply *ret)
{
	struct request rq = *like;
	struct err err = {0};
	int code;

	ctl_socket(cli);
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

	code = ctl_ask(cli, &rq, &reply);
	if (code)
		return code;
	code = tell(cli, &reply, accepted);
	client_reply_done(&reply);
	return code;
}

int ctl_start(struct cli *cli)
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

int ctl_stop(struct cli *cli)
{
	return stop_with(cli, "stop", "stop requested");
}

int ctl_restart(struct cli *cli)
{
	return stop_with(cli, "restart", "restart requested");
}

int ctl_kill(struct cli *cli)
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

int ctl_failreset(struct cli *cli)
{
	return command_vm(cli, "failreset", json_object(), "failure mode reset");
}
