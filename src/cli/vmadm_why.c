/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm why: what a VM is doing, how it last ended and who wanted that, the hook behind it, and
 * the log's lines about it: all from vmstated, which is the one that knows.
 */
#include <stdlib.h>
#include <string.h>

#include "api/client.h"
#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define LOG_LINES "20"
#define INDENT    "    "

/* One line: members joined by what stands before each. Lines without the first are left out. */
struct why_part {
	const char *before, *outer, *key; /* outer: object the key is in, NULL: the VM's own */
};
struct why_line {
	const char *label;
	struct why_part parts[5];
};

/* clang-format off */
static const struct why_line why_lines[] = {
	{ "state", { { "", NULL, FACT_STATE }, { " (", NULL, FACT_SUPERVISOR_STATE },
		     { "), QEMU says ", NULL, FACT_RUN_STATE } } },
	{ "failed", { { "", NULL, FACT_FAILED } } },
	{ "running hook", { { "", NULL, "hook" } } },
	{ "on its way to", { { "", NULL, FACT_TRANSITION_TO } } },
	{ "last request", { { "", NULL, "asked_by" } } },
	{ "definition", { { "", NULL, FACT_DEFINITION }, { ": ", NULL, FACT_DEFINITION_ERROR } } },
	{ "monitor", { { "", NULL, FACT_QMP }, { " since ", NULL, "qmp_since" } } },
	{ "running since", { { "", NULL, FACT_BOOT_TIMESTAMP } } },
	{ "last reset", { { "", NULL, FACT_LAST_RESET }, { ", number ", NULL, FACT_RESETS } } },
	{ "restarts by itself", { { "", NULL, FACT_INIT_RESTARTS } } },
	{ "last end", { { "", FACT_LAST_EXIT, "cause" }, { ": ", FACT_LAST_EXIT, "detail" },
			{ ", at ", FACT_LAST_EXIT, "time" }, { ", status ", FACT_LAST_EXIT, "status" },
			{ ", signal ", FACT_LAST_EXIT, "signal" } } },
};
/* clang-format on */

static const json_t *part_value(const json_t *vm, const struct why_part *part)
{
	return json_object_get(part->outer ? json_object_get(vm, part->outer) : vm, part->key);
}

static void put_text(struct strbuf *sb, const json_t *value)
{
	AUTO_FREE char *text =
		json_is_string(value) ? xstrdup(json_string_value(value)) : json_text(value);

	strbuf_put_escaped(sb, text);
}

static bool is_empty(const json_t *value)
{
	return !value || json_is_null(value) ||
	       (json_is_string(value) && !*json_string_value(value));
}

static void put_line(struct strbuf *sb, const json_t *vm, const struct why_line *line)
{
	if (is_empty(part_value(vm, &line->parts[0])))
		return;
	strbuf_printf(sb, "%s: ", line->label);
	for (size_t i = 0; i < ARRAY_SIZE(line->parts) && line->parts[i].key; i++) {
		const json_t *value = part_value(vm, &line->parts[i]);

		if (is_empty(value))
			continue;
		strbuf_puts(sb, line->parts[i].before);
		put_text(sb, value);
		if (str_starts(line->parts[i].before, " ("))
			strbuf_puts(sb, json_object_get(vm, FACT_RUN_STATE) ? "" : ")");
	}
	strbuf_putc(sb, '\n');
}

/* Escaped lines of a text, which may hold anything. */
static json_t *lines_of(const char *text, size_t len)
{
	json_t *lines = json_array();

	while (len > 0) {
		const char *end = memchr(text, '\n', len);
		size_t n = end ? (size_t)(end - text) : len;
		AUTO_STRBUF struct strbuf sb = {0};
		json_t *line;

		cli_escape(&sb, text, n);
		line = json_string(sb.data ? sb.data : "");
		(void)json_array_append_new(lines, line ? line : json_string("(not UTF-8)"));
		n += end ? 1 : 0;
		text += n;
		len -= n;
	}
	return lines;
}

/* The log's last lines as an array; NULL with a reason in err when there is no log to be had. */
static json_t *fetch_log(struct cli *cli, const char *id, struct err *err)
{
	AUTO_FREE char *target = request_target("/vms/", id, "/log?boot=0&lines=" LOG_LINES);
	struct request rq = {.peer = PEER_VMSTATED,
			     .method = "GET",
			     .target = target,
			     .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	json_t *lines;

	if (request_run(cli, &rq, &reply, err))
		return NULL;
	lines = lines_of(reply.body, reply.len);
	client_reply_done(&reply);
	return lines;
}

static void put_why(const json_t *vm, const json_t *log)
{
	AUTO_STRBUF struct strbuf sb = {0};
	const json_t *line;
	size_t i;

	strbuf_puts(&sb, "VM ");
	strbuf_put_escaped(&sb, json_get_str(vm, "name", "?"));
	strbuf_puts(&sb, " (");
	strbuf_put_escaped(&sb, json_get_str(vm, "uuid", "?"));
	strbuf_puts(&sb, ")\n");
	for (i = 0; i < ARRAY_SIZE(why_lines); i++)
		put_line(&sb, vm, &why_lines[i]);
	if (json_array_size(log))
		strbuf_puts(&sb, "log:\n");
	json_array_foreach ((json_t *)log, i, line)
		strbuf_printf(&sb, INDENT "%s\n", json_string_value(line));
	cli_put(sb.data, sb.len);
}

static void put_json(json_t *vm, json_t *log)
{
	AUTO_JSON json_t *out = json_object();
	AUTO_FREE char *text = NULL;

	(void)json_object_set(out, "vm", vm);
	(void)json_object_set(out, "log", log ? log : json_null());
	text = json_text(out);
	cli_put_json(js_value(text, strlen(text)));
}

int cmd_why(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vms/", cli->args[0], "");
	struct request rq = {.peer = PEER_VMSTATED,
			     .method = "GET",
			     .target = target,
			     .limit_ms = READ_LIMIT_MS};
	AUTO_JSON json_t *vm = NULL, *log = NULL;
	struct client_reply reply;
	struct err err = {0};
	int code = request_run(cli, &rq, &reply, &err), r;

	if (code)
		return request_fail(code, NULL, &err);
	r = json_parse_object(reply.body, reply.len, "vmstated's answer", &vm, &err);
	client_reply_done(&reply);
	if (r < 0)
		return cli_fail(EXIT_FAILED, "%s", err_text(&err, r));
	log = fetch_log(cli, json_get_str(vm, "uuid", cli->args[0]), &err);
	if (cli_flag(cli, OPT_JSON))
		put_json(vm, log);
	else
		put_why(vm, log);
	(void)cli_flush();
	if (!log)
		cli_say("The log cannot be read: %s", err.msg);
	return EXIT_OK;
}
