/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm agent: what a guest's agent is asked for, a row per verb; see vmadm.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define ANSWER_MS  30000
#define PROGRAM_MS 120000 /* the daemon's own deadline is a minute */

struct verb {
	const char *name;
	const char *success;                                     /* NULL: the answer is all */
	int (*tell)(const struct cli *cli, struct slice answer); /* NULL: nothing on stdout */
	bool words;                                              /* takes a command */
};

/* --- addresses: NAME MAC ADDRESS/PREFIX, a line each --- */

static void put_interface(struct slice interface)
{
	AUTO_FREE char *name = js_member_string(interface, "name");
	AUTO_FREE char *mac = js_member_string(interface, "hardware-address");
	struct js_iter it;
	struct slice one;

	js_iter_init(&it, js_member(interface, "ip-addresses"));
	while (js_next(&it, NULL, &one)) {
		AUTO_FREE char *address = js_member_string(one, "ip-address");
		struct slice prefix = js_member(one, "prefix");
		AUTO_STRBUF struct strbuf line = {0};
		AUTO_STRBUF struct strbuf text = {0};

		strbuf_printf(&line, "%s %s %s/%.*s", name ? name : "-", mac ? mac : "-",
			      address ? address : "-", prefix.p ? (int)prefix.len : 1,
			      prefix.p ? prefix.p : "-");
		strbuf_put_escaped(&text, line.data);
		strbuf_putc(&text, '\n');
		cli_put(text.data, text.len);
	}
}

static int tell_addresses(const struct cli *cli, struct slice answer)
{
	struct js_iter it;
	struct slice one;

	js_iter_init(&it, js_member(answer, "interfaces"));
	while (js_next(&it, NULL, &one))
		put_interface(one);
	return EXIT_OK;
}

/* --- exec: what the program wrote, where it wrote it --- */

static void put_output(struct slice answer, const char *member, FILE *file)
{
	AUTO_FREE char *coded = js_member_string(answer, member);
	AUTO_FREE char *data = NULL;
	size_t len;

	if (!coded || base64_decode(coded, strlen(coded), &data, &len, NULL) < 0)
		return;
	if (file == stdout)
		cli_put(data, len);
	else
		(void)fwrite(data, 1, len, file);
}

static int tell_program(const struct cli *cli, struct slice answer)
{
	struct slice code = js_member(answer, "exitcode"), signal = js_member(answer, "signal");

	put_output(answer, "out-data", stdout);
	(void)cli_flush();
	put_output(answer, "err-data", stderr);
	if (js_type(js_member(answer, "out-truncated")) == 't' ||
	    js_type(js_member(answer, "err-truncated")) == 't')
		cli_say("the agent kept only the beginning of the output");
	if (signal.p)
		return cli_fail(EXIT_FAILED, "the program died of signal %.*s", (int)signal.len,
				signal.p);
	if (code.p && strtol(code.p, NULL, 10) != 0)
		return cli_fail(EXIT_FAILED, "the program ended with exit code %.*s", (int)code.len,
				code.p);
	return EXIT_OK;
}

static const struct verb verbs[] = {
	/* clang-format off */
	{ "ping",      "The guest agent of VM @ answers", NULL, false },
	{ "addresses", NULL, tell_addresses, false },
	{ "exec",      NULL, tell_program, true },
	{ "freeze",    "Froze the file systems of VM @", NULL, false },
	{ "thaw",      "Thawed the file systems of VM @", NULL, false },
	{ "set-time",  "Set the clock of VM @", NULL, false },
	/* clang-format on */
};

static char *body_of(const struct cli *cli, const struct verb *verb)
{
	AUTO_JSON json_t *body = json_object();
	json_t *words = json_array();

	for (int i = 2; i < cli->nargs; i++)
		(void)json_array_append_new(words, json_string(cli->args[i]));
	if (verb->words)
		(void)json_object_set(body, "command", words);
	if (verb->words && cli->timeout_ms > 0)
		json_put_int(body, "timeout", (cli->timeout_ms + 999) / 1000);
	json_decref(words);
	return json_object_size(body) ? json_text(body) : NULL;
}

static int ask(struct cli *cli, const struct verb *verb)
{
	AUTO_FREE char *suffix = xasprintf("/agent/%s", verb->name);
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], suffix);
	AUTO_FREE char *body = body_of(cli, verb);
	const struct request rq = {.peer = PEER_VMADMD,
				   .method = "POST",
				   .target = target,
				   .body = body,
				   .limit_ms = verb->words ? PROGRAM_MS : ANSWER_MS};
	struct client_reply reply = {0};
	AUTO_FREE char *text = NULL, *uuid = NULL;
	struct err err = {0};
	struct slice answer;
	int code = request_run(cli, &rq, &reply, &err);

	if (code)
		return request_fail(code, NULL, &err);
	answer = js_value(reply.body ? reply.body : "", reply.len);
	uuid = request_uuid(&reply, cli->args[0]);
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(answer);
	else if (verb->tell)
		code = verb->tell(cli, answer);
	client_reply_done(&reply);
	if (cli_flush() && code == EXIT_OK)
		code = EXIT_FAILED;
	if (code || !verb->success)
		return code;
	text = cli_fill_in(verb->success, uuid);
	return cli_fail(EXIT_OK, "%s", text);
}

int cmd_agent(struct cli *cli)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (!str_eq(verbs[i].name, cli->args[1]))
			continue;
		if (verbs[i].words && cli->nargs < 3)
			return cli_usage(cli, "exec: want the program's path, and its arguments");
		if (!verbs[i].words && cli->nargs > 2)
			return cli_usage(cli, "%s takes no arguments", verbs[i].name);
		return ask(cli, &verbs[i]);
	}
	return cli_usage(cli, "'%s' is none of ping, addresses, exec, freeze, thaw, set-time",
			 cli->args[1]);
}
