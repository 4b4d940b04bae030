/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands that make, change, remove and print definitions; see vmadm.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/act.h"
#include "cli/find.h"
#include "cli/now.h"
#include "cli/payload.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define OPT_PENDING 'P'

/* clang-format off */
const struct cli_option get_options[] = {
	{ OPT_PENDING, 0, "pending", NULL, "print what the next start will change" },
	{ 0 },
};
/* clang-format on */

int cmd_create(struct cli *cli)
{
	AUTO_FREE char *payload = NULL;
	int code = payload_read(cli, &payload);

	if (code)
		return code;
	if (cli_flag(cli, OPT_DRY_RUN))
		return dry_create(cli, payload);
	const struct act a = {.target = "/vms",
			      .body = payload,
			      .success = "Successfully created VM @",
			      .word = "create VM",
			      .job = true};

	return act_run(cli, &a);
}

/* "key: old -> new (live|next start)" for each change on stderr. */
static void tell_changes(struct cli *cli, struct slice result)
{
	AUTO_STRBUF struct strbuf sb = {0};

	now_put_changes(&sb, js_member(result, "changes"));
	(void)fwrite(sb.data ? sb.data : "", 1, sb.len, stderr);
}

int update_send(struct cli *cli, const char *id, const char *payload)
{
	AUTO_FREE char *target = request_target("/vm/", id, "");
	const struct act a = {.target = target,
			      .method = "PUT",
			      .body = payload,
			      .success = "Successfully updated VM @",
			      .word = "update VM",
			      .job = true,
			      .tell = tell_changes};

	return act_run(cli, &a);
}

int cmd_update(struct cli *cli)
{
	AUTO_FREE char *payload = NULL;
	int code;

	if (cli->nargs > 1 && cli_flag(cli, 'f'))
		return cli_usage(cli, "Give a payload file or key=value, not both");
	if (cli->nargs > 1)
		code = payload_from_words(cli, cli->args + 1, cli->nargs - 1, &payload);
	else
		code = payload_read(cli, &payload);
	if (code)
		return code;
	if (cli_flag(cli, OPT_DRY_RUN))
		return dry_update(cli, cli->args[0], payload);
	return update_send(cli, cli->args[0], payload);
}

int cmd_delete(struct cli *cli)
{
	static const struct act a = {.method = "DELETE",
				     .success = "Successfully deleted VM @",
				     .word = "delete VM",
				     .failure = "Failed to delete VM @: ",
				     .job = true};

	return cli_flag(cli, OPT_DRY_RUN) ? dry_delete(cli, cli->args[0]) : act_run(cli, &a);
}

/* Another QEMU is installed than the one it runs in. */
static void put_qemu(struct strbuf *sb, struct slice qemu)
{
	AUTO_STRBUF struct strbuf line = {0};

	if (js_type(js_member(qemu, "changes")) != 't')
		return;
	strbuf_puts(&line, "qemu: ");
	js_put_string(&line, js_member(qemu, "running"));
	strbuf_puts(&line, " -> ");
	js_put_string(&line, js_member(qemu, "installed"));
	strbuf_puts(&line, " (next start)");
	strbuf_put_escaped(sb, line.data);
	strbuf_putc(sb, '\n');
}

static void say_nothing_pending(const struct cli *cli, struct slice qemu)
{
	AUTO_STRBUF struct strbuf sb = {0};

	js_put_string(&sb, js_member(qemu, "running"));
	cli_say("Nothing is pending for VM %s%s%s%s", cli->args[0], sb.len ? " (QEMU " : "",
		sb.len ? sb.data : "", sb.len ? ")" : "");
}

/* What the next start will change of the VM that runs. */
static int get_pending(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vms/", cli->args[0], "/pending");
	const struct request rq = {.peer = PEER_VMSTATED,
				   .method = "GET",
				   .target = target,
				   .limit_ms = READ_LIMIT_MS};
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	struct err err = {0};
	int code = request_run(cli, &rq, &reply, &err);
	struct slice json;

	if (code)
		return request_fail(code, NULL, &err);
	json = js_value(reply.body, reply.len);
	if (cli_flag(cli, OPT_JSON)) {
		cli_put_json(json);
	} else {
		now_put_changes(&sb, js_member(json, "pending"));
		put_qemu(&sb, js_member(json, "qemu"));
		cli_put(sb.data, sb.len);
		(void)cli_flush();
		if (js_type(js_member(json, "running")) != 't')
			cli_say("VM %s is not running", cli->args[0]);
		else if (sb.len == 0)
			say_nothing_pending(cli, js_member(json, "qemu"));
	}
	client_reply_done(&reply);
	return EXIT_OK;
}

static int get_object(struct cli *cli)
{
	struct client_reply reply;
	struct err err = {0};
	struct slice vm;
	int code = find_vm(cli, cli->args[0], "", &reply, &err);

	if (code)
		return request_fail(code, NULL, &err);
	vm = js_value(reply.body, reply.len);
	if (js_type(vm) == '{')
		cli_put_json(vm);
	else
		code = cli_fail(EXIT_FAILED, "vminfod's answer is no JSON object");
	client_reply_done(&reply);
	return code;
}

int cmd_get(struct cli *cli)
{
	return cli_flag(cli, OPT_PENDING) ? get_pending(cli) : get_object(cli);
}

int cmd_reprovision(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], "/reprovision");
	AUTO_FREE char *payload = NULL;
	int code;

	if (cli->nargs > 1)
		code = payload_from_words(cli, cli->args + 1, cli->nargs - 1, &payload);
	else
		code = payload_read(cli, &payload);
	if (code)
		return code;
	const struct act a = {.target = target,
			      .body = payload,
			      .success = "Successfully reprovisioned VM @",
			      .word = "reprovision VM",
			      .failure = "Failed to reprovision VM @: ",
			      .job = true};

	return act_run(cli, &a);
}

int cmd_install(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], "/install");
	const struct act a = {.target = target,
			      .success = "Successfully installed VM @",
			      .word = "install VM",
			      .failure = "Failed to install VM @: ",
			      .already_ok = true,
			      .job = true};

	return act_run(cli, &a);
}
