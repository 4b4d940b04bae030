/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands for the hardware of a running VM: disks, NICs, media, a pause; see vmadm.h. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/act.h"
#include "cli/payload.h"
#include "cli/request.h"
#include "cli/vmadm.h"

/* clang-format off */
const struct cli_option medium_options[] = {
	{ 'F', 'F', "force", NULL, "open a drive the guest has locked" },
	{ 0 },
};
/* clang-format on */

/* POST /vm/VM/VERB with json (taken). */
static int post(struct cli *cli, const char *verb, json_t *json, const char *success,
		const char *word)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], verb);
	AUTO_FREE char *body = json_text(json);
	const struct act a = {
		.target = target, .body = body, .success = success, .word = word, .job = true};

	json_decref(json);
	return act_run(cli, &a);
}

static bool is_kind(const char *word)
{
	return str_eq(word, "disk") || str_eq(word, "nic");
}

int cmd_attach(struct cli *cli)
{
	const char *kind = cli->args[1];
	AUTO_FREE char *text = NULL;
	json_t *element = NULL, *body = json_object();
	int code;

	if (!is_kind(kind)) {
		json_decref(body);
		return cli_usage(cli, "'%s' is neither disk nor nic", kind);
	}
	code = payload_from_words(cli, (const char *const *)cli->args + 2, cli->nargs - 2, &text);
	if (code) {
		json_decref(body);
		return code;
	}
	element = json_loads(text, 0, NULL);
	json_object_set_new(body, kind, element);
	return post(cli, "/attach", body, "Attached to VM @", "attach to VM");
}

int cmd_detach(struct cli *cli)
{
	if (!is_kind(cli->args[1]))
		return cli_usage(cli, "'%s' is neither disk nor nic", cli->args[1]);
	return post(cli, "/detach", json_pack("{s:s}", cli->args[1], cli->args[2]),
		    "Detached from VM @", "detach from VM");
}

int cmd_resize_disk(struct cli *cli)
{
	return post(cli, "/resize",
		    json_pack("{s:s,s:s}", "disk", cli->args[1], "size", cli->args[2]),
		    "Resized a disk of VM @", "resize a disk of VM");
}

int cmd_medium(struct cli *cli)
{
	json_t *body = json_pack("{s:s}", "disk", cli->args[1]);

	if (cli->nargs > 2)
		json_put_str(body, "path", cli->args[2]);
	if (cli_flag(cli, 'F'))
		json_put_bool(body, "force", true);
	return post(cli, "/medium", body, "Changed the medium of VM @", "change the medium of VM");
}

int cmd_pause(struct cli *cli)
{
	const struct act a = {
		.query = "?action=pause", .success = "Paused VM @", .word = "pause VM"};

	return act_run(cli, &a);
}

int cmd_resume(struct cli *cli)
{
	const struct act a = {
		.query = "?action=resume", .success = "Resumed VM @", .word = "resume VM"};

	return act_run(cli, &a);
}
