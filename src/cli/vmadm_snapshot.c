/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands for snapshots; see vmadm.h. Source: smartos facts 6. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/table.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define OPT_MEMORY 'm'

/* clang-format off */
const struct cli_option snapshot_options[] = {
	{ OPT_MEMORY, 0, "memory", NULL, "with memory, as is the default where there is one" },
	{ 'n', 0, "no-memory", NULL, "disks only: going back means starting anew" },
	{ 0 },
};
/* clang-format on */

/* "/vm/ID/snapshots/NAME" and what follows; caller frees. */
static char *target_of(const struct cli *cli, const char *suffix)
{
	AUTO_FREE char *vm = request_target("/vm/", cli->args[0], "/snapshots/");

	return request_target(vm, cli->args[1], suffix);
}

/* Into the body: the choice that was made. False: two. */
static bool take_choice(const struct cli *cli, json_t *body)
{
	bool yes = cli_flag(cli, OPT_MEMORY), no = cli_flag(cli, 'n');

	if (yes || no)
		json_put_bool(body, "memory", yes);
	return !(yes && no);
}

static const char contradiction[] = "--memory and --no-memory contradict each other";

int cmd_create_snapshot(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], "/snapshots");
	AUTO_FREE char *success = xasprintf("Created snapshot %s for VM @", cli->args[1]);
	AUTO_FREE char *body = NULL;
	AUTO_JSON json_t *json = json_object();
	struct act a = {.target = target, .success = success, .word = "snapshot VM", .job = true};

	json_put_str(json, "name", cli->args[1]);
	if (!take_choice(cli, json))
		return cli_usage(cli, "%s", contradiction);
	body = json_text(json);
	a.body = body;
	return act_run(cli, &a);
}

int cmd_rollback_snapshot(struct cli *cli)
{
	AUTO_FREE char *target = target_of(cli, "/rollback");
	AUTO_FREE char *success = xasprintf("Rolled back snapshot %s for VM @", cli->args[1]);
	AUTO_JSON json_t *json = json_object();
	AUTO_FREE char *body = NULL;
	struct act a = {.target = target, .success = success, .word = "roll back VM", .job = true};

	if (!take_choice(cli, json))
		return cli_usage(cli, "%s", contradiction);
	if (json_object_size(json) > 0)
		a.body = body = json_text(json);
	return act_run(cli, &a);
}

int cmd_delete_snapshot(struct cli *cli)
{
	AUTO_FREE char *target = target_of(cli, "");
	AUTO_FREE char *success = xasprintf("Deleted snapshot %s for VM @", cli->args[1]);
	const struct act a = {.method = "DELETE",
			      .target = target,
			      .success = success,
			      .word = "delete a snapshot of VM",
			      .job = true};

	return act_run(cli, &a);
}

/* --- the list --- */

static char *cell(struct slice one, const char *name)
{
	struct slice v = js_member(one, name);

	if (!v.p)
		return NULL;
	if (strcmp(name, "memory") == 0)
		return xstrdup(v.len == 4 ? "yes" : "no");
	return js_type(v) == '"' ? js_string(v) : xasprintf("%.1f", strtod(v.p, NULL));
}

static void put_snapshots(struct slice list)
{
	static const struct table_column columns[] = {
		{"NAME", 20}, {"CREATED", 24}, {"MIB", 8}, {"MEMORY", 6}, {"PARENT", 20}};
	static const char *const members[] = {"name", "created_at", "size", "memory", "parent"};

	cli_put_table(list, columns, members, ARRAY_SIZE(columns), cell);
}

int cmd_list_snapshots(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], "/snapshots");
	const struct request rq = {
		.peer = PEER_VMADMD, .method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	struct err err = {0};
	struct slice body;
	int code = request_run(cli, &rq, &reply, &err);

	if (code)
		return request_fail(code, NULL, &err);
	body = js_value(reply.body, reply.len);
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(body);
	else
		put_snapshots(js_member(body, "snapshots"));
	client_reply_done(&reply);
	return cli_flush();
}
