/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands that make, change, remove and print definitions; see vmadm.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/find.h"
#include "cli/now.h"
#include "cli/payload.h"
#include "cli/request.h"
#include "cli/vmadm.h"

int cmd_create(struct cli *cli)
{
	AUTO_FREE char *payload = NULL, *uuid = NULL;
	struct client_reply reply;
	struct err err = {0};
	int code = payload_read(cli, &payload);

	if (code)
		return code;
	if (cli_flag(cli, OPT_DRY_RUN))
		return dry_create(cli, payload);
	struct request rq = {.peer = PEER_VMADMD,
			     .method = "POST",
			     .target = "/vms",
			     .body = payload,
			     .limit_ms = NO_LIMIT_MS};

	code = request_run(cli, &rq, &reply, &err);
	if (code)
		return request_fail(code, NULL, &err);
	uuid = request_uuid(&reply, "(vmadmd did not say which)");
	code = request_finish(cli, &reply, "Successfully created VM %s", uuid);
	client_reply_done(&reply);
	return code;
}

/* "key: old -> new (live|next start)" for each change on stderr. */
static void tell_changes(const struct client_reply *reply)
{
	AUTO_STRBUF struct strbuf sb = {0};

	now_put_changes(&sb, js_member(js_value(reply->body, reply->len), "changes"));
	(void)fwrite(sb.data ? sb.data : "", 1, sb.len, stderr);
}

int update_send(struct cli *cli, const char *id, const char *payload)
{
	AUTO_FREE char *uuid = NULL, *target = request_target("/vm/", id, "");
	struct request rq = {.peer = PEER_VMADMD,
			     .method = "PUT",
			     .target = target,
			     .body = payload,
			     .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	struct err err = {0};
	int code = request_run(cli, &rq, &reply, &err);

	if (code)
		return request_fail(code, NULL, &err);
	tell_changes(&reply);
	uuid = request_uuid(&reply, id);
	code = request_finish(cli, &reply, "Successfully updated VM %s", uuid);
	client_reply_done(&reply);
	return code;
}

int cmd_update(struct cli *cli)
{
	const char *id = cli->args[0];
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
		return dry_update(cli, id, payload);
	return update_send(cli, id, payload);
}

int cmd_delete(struct cli *cli)
{
	const char *id = cli->args[0];
	AUTO_FREE char *uuid = NULL, *target = request_target("/vm/", id, "");
	AUTO_FREE char *prefix = xasprintf("Failed to delete VM %s: ", id);
	struct request rq = {
		.peer = PEER_VMADMD, .method = "DELETE", .target = target, .limit_ms = NO_LIMIT_MS};
	struct client_reply reply;
	struct err err = {0};
	int code;

	if (cli_flag(cli, OPT_DRY_RUN))
		return dry_delete(cli, id);
	code = request_run(cli, &rq, &reply, &err);
	if (code)
		return request_fail(code, prefix, &err);
	uuid = request_uuid(&reply, id);
	code = request_finish(cli, &reply, "Successfully deleted VM %s", uuid);
	client_reply_done(&reply);
	return code;
}

int cmd_get(struct cli *cli)
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
