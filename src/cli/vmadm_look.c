/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands that show something: info, console, events, completion; see vmadm.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/attach.h"
#include "cli/completion.h"
#include "cli/events.h"
#include "cli/find.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define COMPLETION_LIMIT_MS 1000 /* somebody has pressed a key */

/* --- info --- */

/* All type words, commas and blanks alike, as "?types=a,b". */
static char *info_query(const struct cli *cli)
{
	struct strbuf sb = {0};

	for (int i = 1; i < cli->nargs; i++) {
		AUTO_FREE char *types = xstrdup(cli->args[i]);
		char *rest = types, *type;

		while ((type = strsep(&rest, ", "))) {
			AUTO_FREE char *escaped = client_escape(type);

			if (*type)
				strbuf_printf(&sb, "%s%s", sb.len ? "," : "?types=", escaped);
		}
	}
	return strbuf_steal(&sb);
}

int cmd_info(struct cli *cli)
{
	const char *id = cli->args[0];
	AUTO_FREE char *query = info_query(cli), *suffix = xasprintf("/info%s", query);
	AUTO_FREE char *target = request_target("/vm/", id, suffix);
	AUTO_FREE char *prefix = xasprintf("Unable to get VM info for VM %s: ", id);
	struct request rq = {.peer = PEER_VMADMD,
			     .method = "GET",
			     .target = target,
			     .limit_ms = READ_LIMIT_MS,
			     .silent = "Unable to get info from vmadmd, query returned @."};
	struct client_reply reply;
	struct err err = {0};
	struct slice info;
	int code = request_run(cli, &rq, &reply, &err);

	if (code)
		return request_fail(code, prefix, &err);
	info = js_value(reply.body, reply.len);
	if (info.p)
		cli_put_json(info);
	else
		code = cli_fail(EXIT_FAILED, "%sthe answer is no JSON", prefix);
	client_reply_done(&reply);
	return code;
}

/* --- console --- */

int cmd_console(struct cli *cli)
{
	struct client_reply reply;
	struct err err = {0};
	int code = find_vm(cli, cli->args[0], "?fields=uuid,state", &reply, &err);

	if (code)
		return request_fail(code, NULL, &err);
	code = attach_console(cli, js_value(reply.body, reply.len), "vminfod");
	client_reply_done(&reply);
	return code;
}

/* --- events --- */

int cmd_events(struct cli *cli)
{
	const char *id = cli->nargs > 0 ? cli->args[0] : NULL;
	AUTO_FREE char *own = request_name_vmadm();
	AUTO_FREE char *name = xasprintf("VM.js events%s%s%s - %s", id ? " (zonename: " : "",
					 id ? id : "", id ? ")" : "", own);
	AUTO_FREE char *agent = request_agent(name);
	struct events_request rq = {.agent = agent, .id = id, .decoded = true};

	return events_run(cli, &rq);
}

/* --- completion --- */

static void known_vms(struct cli *cli, char **ret_text, struct slice *ret_vms)
{
	struct request rq = {.peer = PEER_VMINFOD,
			     .method = "GET",
			     .target = "/vms?fields=uuid,name",
			     .limit_ms = COMPLETION_LIMIT_MS};
	struct client_reply reply;

	if (!request_reachable(cli, PEER_VMINFOD) || request_run(cli, &rq, &reply, NULL))
		return;
	*ret_vms = js_value(reply.body, reply.len);
	*ret_text = steal_ptr(reply.body);
}

int cmd_completion(struct cli *cli)
{
	return completion_run(cli, known_vms);
}
