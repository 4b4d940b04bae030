/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands that start, stop and poke a VM; see vmadm.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

/* clang-format off */
const struct cli_option kill_options[] = {
	{ 's', 's', "signal", "SIGNAL", "name or number of the signal; -KILL and -9 mean the same" },
	{ 0 },
};
/* clang-format on */

/* --- start --- */

static int add_media(struct cli *cli, const char *word, size_t key, struct strbuf *query)
{
	const char *value = word + key + 1, *comma = strrchr(value, ',');
	AUTO_FREE char *escaped = client_escape(value);

	if (!comma || comma == value || !comma[1])
		return cli_usage(cli, "Parameter to %.*s must be: path,model", (int)key, word);
	strbuf_printf(query, "&%.*s=%s", (int)key, word, escaped);
	return 0;
}

static int add_order(struct cli *cli, const char *word, size_t key, struct strbuf *query)
{
	const char *order = str_starts(word, "order=") ? word + key + 1 : word;
	AUTO_FREE char *escaped = client_escape(order);

	if (strstr(query->data, "&order="))
		return cli_usage(cli, "You can only specify 'order' once when starting a VM");
	if (!word[key + 1])
		return cli_usage(cli, "Parameter to %.*s must be letters of c, d, n", (int)key,
				 word);
	strbuf_printf(query, "&order=%s", escaped);
	return 0;
}

/* "order=dc", "cdrom=install.iso,ide" and the like: 0, or an exit code, told. */
static int start_words(struct cli *cli, struct strbuf *query)
{
	int code = 0;

	for (int i = 1; i < cli->nargs && code == 0; i++) {
		const char *word = cli->args[i];
		size_t key = strcspn(word, "=");

		if (str_starts(word, "disk=") || str_starts(word, "cdrom="))
			code = add_media(cli, word, key, query);
		else if (str_starts(word, "order=") || str_starts(word, "once="))
			code = add_order(cli, word, key, query);
		else
			code = cli_usage(cli, "Invalid argument to start: %.*s", (int)key, word);
	}
	return code;
}

int cmd_start(struct cli *cli)
{
	AUTO_STRBUF struct strbuf query = {0};
	bool dry = cli_flag(cli, OPT_DRY_RUN);
	struct act a = {.success = "Successfully started VM @",
			.word = "start VM",
			.failure = "Unable to start VM @: ",
			.already_ok = true};
	int code;

	strbuf_puts(&query, "?action=start");
	code = start_words(cli, &query);
	if (code)
		return code;
	if (dry) {
		strbuf_puts(&query, "&dry_run=1");
		a.success = "Dry run: VM @ was not started";
		a.word = NULL;
		a.limit_ms = READ_LIMIT_MS;
		a.tell = put_arguments;
	}
	a.query = query.data;
	return act_run(cli, &a);
}

/* --- stop and reboot --- */

static int stop_query(struct cli *cli, const char *action, char **ret)
{
	bool force = cli_flag(cli, 'F');
	AUTO_FREE char *timeout = NULL;
	int seconds = -1, code = cli_opt_seconds(cli, 't', &seconds);

	if (code)
		return code;
	timeout = seconds >= 0 ? xasprintf("&timeout=%d", seconds) : xstrdup("");
	*ret = xasprintf("?action=%s%s%s", action, timeout, force ? "&force=1" : "");
	return 0;
}

int cmd_stop(struct cli *cli)
{
	AUTO_FREE char *query = NULL;
	int code = stop_query(cli, "stop", &query);
	struct act a = {.query = query,
			.success = "Successfully completed stop for VM @",
			.word = "stop VM",
			.already_ok = true};

	return code ? code : act_run(cli, &a);
}

int cmd_reboot(struct cli *cli)
{
	bool force = cli_flag(cli, 'F');
	AUTO_FREE char *query = NULL;
	int code = stop_query(cli, "reboot", &query);
	struct act a = {.query = force ? "?action=reset" : query,
			.success = "Successfully completed reboot for VM @",
			.word = "reboot VM"};

	return code ? code : act_run(cli, &a);
}

/* --- sysrq and kill --- */

int cmd_sysrq(struct cli *cli)
{
	static const struct act nmi = {.query = "?action=sysrq&request=nmi",
				       .success = "Sent NMI to VM @",
				       .limit_ms = READ_LIMIT_MS};
	static const struct act screenshot = {.query = "?action=sysrq&request=screenshot",
					      .success = "Sent screenshot sysrq to VM @",
					      .limit_ms = READ_LIMIT_MS};

	if (cli->nargs != 2)
		return cli_usage(cli, "Wrong number of parameters to \"sysrq\"");
	if (str_eq(cli->args[1], "nmi"))
		return act_run(cli, &nmi);
	if (str_eq(cli->args[1], "screenshot"))
		return act_run(cli, &screenshot);
	return cli_usage(cli, "Invalid sysrq type: %s", cli->args[1]);
}

int cmd_kill(struct cli *cli)
{
	const char *id = cli->args[0], *given = cli_opt(cli, 's'), *name;
	AUTO_FREE char *target = request_target("/vms/", id, "/kill");
	AUTO_FREE char *body = NULL, *uuid = NULL;
	AUTO_JSON json_t *json = json_object();
	struct client_reply reply;
	struct err err = {0};
	int code;

	if (!given)
		given = "SIGTERM";
	name = cli_signal(given);
	if (!name)
		return cli_fail(EXIT_FAILED, "Unknown signal \"%s\"", given);
	json_put_str(json, "signal", name);
	body = json_text(json);
	struct request rq = {.peer = PEER_VMSTATED,
			     .method = "POST",
			     .target = target,
			     .body = body,
			     .limit_ms = READ_LIMIT_MS};

	code = request_run(cli, &rq, &reply, &err);
	if (code)
		return request_fail(code, NULL, &err);
	uuid = request_uuid(&reply, id);
	code = request_finish(cli, &reply, "Sent signal \"%s\" to init process for VM %s", given,
			      uuid);
	client_reply_done(&reply);
	return code;
}
