/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm's commands that start, stop and poke a VM; see vmadm.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/request.h"
#include "cli/vmadm.h"

/* clang-format off */
const struct cli_option kill_options[] = {
	{ 's', 's', "signal", "SIGNAL", "name or number of the signal; -KILL and -9 mean the same" },
	{ 0 },
};
/* clang-format on */

/* One action of vmadmd and how its end reads. */
struct action {
	const char *query;   /* behind "?action=" */
	const char *success; /* '@' is the uuid */
	const char *word;    /* "Accepted the request to ..."; NULL: nothing to wait for */
	const char *failure; /* prefix of errors, '@' the VM as given; NULL: none */
	bool already_ok;     /* nothing to do is no error */
	int limit_ms;
};

static int accepted(struct cli *cli, const struct action *a, const char *uuid)
{
	if (cli_flag(cli, OPT_JSON)) {
		AUTO_JSON json_t *json = json_object();
		AUTO_FREE char *text = NULL;

		json_put_str(json, "uuid", uuid);
		json_put_bool(json, "accepted", true);
		text = json_text(json);
		cli_put_json(js_value(text, strlen(text)));
	}
	return cli_fail(EXIT_OK, "Accepted the request to %s VM %s", a->word, uuid);
}

static int act(struct cli *cli, const struct action *a)
{
	const char *id = cli->args[0];
	bool wait = a->word && !cli_flag(cli, OPT_NO_WAIT);
	AUTO_FREE char *query = xasprintf("?action=%s%s", a->query,
					  !a->word ? ""
					  : wait   ? "&wait=1"
						   : "&wait=0");
	AUTO_FREE char *target = request_target("/vm/", id, query), *uuid = NULL, *text = NULL;
	AUTO_FREE char *prefix = a->failure ? cli_fill_in(a->failure, id) : NULL;
	struct request rq = {
		.peer = PEER_VMADMD, .method = "POST", .target = target, .limit_ms = a->limit_ms};
	struct client_reply reply;
	struct err err = {0};
	int code = request_run(cli, &rq, &reply, &err);

	if (code) {
		bool already = err.code == EALREADY && a->already_ok;

		return request_fail(already ? EXIT_OK : code, prefix, &err);
	}
	uuid = request_uuid(&reply, id);
	if (a->word && !wait) {
		code = accepted(cli, a, uuid);
	} else {
		text = cli_fill_in(a->success, uuid);
		code = request_finish(cli, &reply, "%s", text);
	}
	client_reply_done(&reply);
	return code;
}

/* --- start --- */

static int check_media(struct cli *cli, const char *word, size_t key)
{
	const char *value = word + key + 1, *comma = strchr(value, ',');

	if (!comma || comma == value || !comma[1])
		return cli_usage(cli, "Parameter to %.*s must be: path,model", (int)key, word);
	return cli_fail(EXIT_USAGE,
			"%.*s= is not supported when starting a VM; add the disk with vmadm update "
			"(add_disks)",
			(int)key, word);
}

/* "order=dc" and the like: *ret_order borrowed. 0, or an exit code, told. */
static int start_words(struct cli *cli, const char **ret_order)
{
	*ret_order = NULL;
	for (int i = 1; i < cli->nargs; i++) {
		const char *word = cli->args[i];
		size_t key = strcspn(word, "=");

		if (str_starts(word, "disk=") || str_starts(word, "cdrom="))
			return check_media(cli, word, key);
		if (!str_starts(word, "order=") && !str_starts(word, "once="))
			return cli_usage(cli, "Invalid argument to start: %.*s", (int)key, word);
		if (*ret_order)
			return cli_usage(cli, "You can only specify 'order' once when starting "
					      "a VM");
		*ret_order = str_starts(word, "order=") ? word + key + 1 : word;
		if (!word[key + 1])
			return cli_usage(cli, "Parameter to %.*s must be letters of c, d, n",
					 (int)key, word);
	}
	return 0;
}

int cmd_start(struct cli *cli)
{
	AUTO_FREE char *escaped = NULL, *query = NULL;
	const char *order;
	int code = start_words(cli, &order);

	if (code)
		return code;
	escaped = order ? client_escape(order) : xstrdup("");
	query = xasprintf("start%s%s", order ? "&order=" : "", escaped);
	struct action a = {.query = query,
			   .success = "Successfully started VM @",
			   .word = "start",
			   .failure = "Unable to start VM @: ",
			   .already_ok = true,
			   .limit_ms = NO_LIMIT_MS};

	return act(cli, &a);
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
	*ret = xasprintf("%s%s%s", action, timeout, force ? "&force=1" : "");
	return 0;
}

int cmd_stop(struct cli *cli)
{
	AUTO_FREE char *query = NULL;
	int code = stop_query(cli, "stop", &query);
	struct action a = {.query = query,
			   .success = "Successfully completed stop for VM @",
			   .word = "stop",
			   .already_ok = true,
			   .limit_ms = NO_LIMIT_MS};

	return code ? code : act(cli, &a);
}

int cmd_reboot(struct cli *cli)
{
	bool force = cli_flag(cli, 'F');
	AUTO_FREE char *query = NULL;
	int code = stop_query(cli, "reboot", &query);
	struct action a = {.query = force ? "reset" : query,
			   .success = "Successfully completed reboot for VM @",
			   .word = "reboot",
			   .limit_ms = NO_LIMIT_MS};

	return code ? code : act(cli, &a);
}

/* --- sysrq and kill --- */

int cmd_sysrq(struct cli *cli)
{
	static const struct action nmi = {.query = "sysrq&request=nmi",
					  .success = "Sent NMI to VM @",
					  .limit_ms = READ_LIMIT_MS};
	static const struct action screenshot = {.query = "sysrq&request=screenshot",
						 .success = "Sent screenshot sysrq to VM @",
						 .limit_ms = READ_LIMIT_MS};

	if (cli->nargs != 2)
		return cli_usage(cli, "Wrong number of parameters to \"sysrq\"");
	if (str_eq(cli->args[1], "nmi"))
		return act(cli, &nmi);
	if (str_eq(cli->args[1], "screenshot"))
		return act(cli, &screenshot);
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
