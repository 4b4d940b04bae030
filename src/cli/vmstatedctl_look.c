/* SPDX-License-Identifier: Apache-2.0 */
/* vmstatedctl's commands that show something: status, log, console, reload; see vmstatedctl.h. */
#include "cli/vmstatedctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/attach.h"
#include "cli/completion.h"

#define RULE_WIDTH          79
#define LOG_BOOTS_MAX       1000
#define LOG_LINES_MAX       1000000
#define LOG_FOLLOW_LINES    10   /* what -f begins with */
#define COMPLETION_LIMIT_MS 1000 /* somebody has pressed a key */

/* --- reload --- */

static void put_problems(struct slice problems)
{
	struct slice one;
	struct js_iter it;

	js_iter_init(&it, problems);
	while (js_next(&it, NULL, &one)) {
		AUTO_FREE char *file = js_member_string(one, "file");
		AUTO_FREE char *text = js_member_string(one, "text");

		/* the text names the file itself when it knows the line */
		if (file && !(text && str_starts(text, file)))
			cli_say("%s: %s", file, text ? text : "broken");
		else
			cli_say("%s", text ? text : "a definition is broken");
	}
}

int ctl_reload(struct cli *cli)
{
	struct request rq = {
		.method = "POST", .target = "/reload", .body = "{}", .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	struct slice json, problems;
	int code = ctl_ask(cli, &rq, &reply);

	if (code)
		return code;
	json = js_value(reply.body, reply.len);
	problems = js_member(json, "problems");
	if (!cli_flag(cli, OPT_JSON)) {
		struct slice vms = js_member(json, "vms");

		(void)printf("reloaded: %.*s virtual machines\n", (int)(vms.p ? vms.len : 1),
			     vms.p ? vms.p : "?");
	}
	code = request_finish(cli, &reply, NULL);
	put_problems(problems);
	if (js_count(problems) > 0)
		code = EXIT_FAILED;
	client_reply_done(&reply);
	return code;
}

/* --- status --- */

/* A member as text; "-" when there is none. Control characters escaped. */
static void put_member(struct strbuf *sb, struct slice vm, const char *key)
{
	AUTO_FREE char *text = js_member_string(vm, key);

	strbuf_put_escaped(sb, text && *text ? text : "-");
}

static void put_padded(struct strbuf *sb, struct slice vm, const char *key, size_t width)
{
	size_t from = sb->len;

	put_member(sb, vm, key);
	while (sb->len < from + width)
		strbuf_putc(sb, ' ');
}

static void put_table(struct strbuf *sb, struct slice vms)
{
	struct js_iter it;
	struct slice vm;

	strbuf_printf(sb, "vmstated running, managing %zu virtual machines\n", js_count(vms));
	if (js_count(vms) == 0)
		return;
	strbuf_printf(sb, "%-16s %-6s %-8s\n", "Name", "Status", "Owner");
	for (int i = 0; i < RULE_WIDTH; i++)
		strbuf_putc(sb, '=');
	strbuf_putc(sb, '\n');
	js_iter_init(&it, vms);
	while (js_next(&it, NULL, &vm)) {
		put_padded(sb, vm, "name", 16);
		strbuf_puts(sb, "   ");
		put_member(sb, vm, "code");
		strbuf_putc(sb, ' ');
		put_padded(sb, vm, "owner", 8);
		strbuf_putc(sb, '\n');
	}
}

static int put_reply(struct cli *cli, const struct client_reply *reply, struct strbuf *sb)
{
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(js_value(reply->body, reply->len));
	else
		cli_put(sb->data, sb->len);
	return EXIT_OK;
}

static int status_all(struct cli *cli)
{
	struct request rq = {.method = "GET", .target = "/status", .limit_ms = READ_LIMIT_MS};
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	struct slice json;
	int code = ctl_ask(cli, &rq, &reply);

	if (code)
		return code;
	json = js_value(reply.body, reply.len);
	put_table(&sb, js_member(json, "vms"));
	code = put_reply(cli, &reply, &sb);
	put_problems(js_member(json, "problems"));
	client_reply_done(&reply);
	return code;
}

/* "group.key: value", or without the group when it is absent. */
static void put_line(struct strbuf *sb, struct slice group, struct slice key, struct slice value)
{
	const struct slice parts[] = {group, key, value};
	static const char *const behind[] = {".", ": ", "\n"};

	for (size_t i = group.p ? 0 : 1; i < ARRAY_SIZE(parts); i++) {
		AUTO_FREE char *text = js_string(parts[i]);

		if (text)
			strbuf_put_escaped(sb, text);
		else
			js_write(sb, parts[i], JS_COMPACT);
		strbuf_puts(sb, behind[i]);
	}
}

/* "key: value" for every member, those of objects as "key.member: value". */
static void put_lines(struct strbuf *sb, struct slice object)
{
	struct slice key, value, member, inner;
	struct js_iter it, in;

	js_iter_init(&it, object);
	while (js_next(&it, &key, &value)) {
		if (js_type(value) != '{') {
			put_line(sb, (struct slice){0}, key, value);
			continue;
		}
		js_iter_init(&in, value);
		while (js_next(&in, &member, &inner))
			put_line(sb, key, member, inner);
	}
}

static int status_one(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vms/", cli->args[0], "");
	struct request rq = {.method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	int code = ctl_ask(cli, &rq, &reply);

	if (code)
		return code;
	put_lines(&sb, js_value(reply.body, reply.len));
	code = put_reply(cli, &reply, &sb);
	client_reply_done(&reply);
	return code;
}

int ctl_status(struct cli *cli)
{
	return cli->nargs ? status_one(cli) : status_all(cli);
}

/* --- log --- */

/* clang-format off */
const struct cli_option ctl_log_options[] = {
	{ 'f', 'f', "follow", NULL, "go on with what is written from now on" },
	{ 'b', 'b', "boot", "N", "only this start of the VM: 0 the present or last one, -1 the one before" },
	{ 'n', 'n', "lines", "LINES", "only the last so many lines; with -f 10 when not given" },
	{ 0 },
};
/* clang-format on */

/* A whole number of an option as "&WORD=N": 0, or the exit code, told. */
static int number_query(struct cli *cli, struct strbuf *sb, char id, const char *word, long min,
			long max)
{
	const char *text = cli_opt(cli, id);
	char *end;
	long value;

	if (!text)
		return 0;
	errno = 0;
	value = strtol(text, &end, 10);
	if (end == text || *end || errno || value < min || value > max)
		return cli_usage(cli, "Bad --%s: \"%s\" (want a number of %ld to %ld)", word, text,
				 min, max);
	strbuf_printf(sb, "%c%s=%ld", sb->len ? '&' : '?', word, value);
	return 0;
}

static int log_target(struct cli *cli, char **ret)
{
	AUTO_STRBUF struct strbuf query = {0};
	AUTO_FREE char *suffix = NULL;
	int code = number_query(cli, &query, 'b', "boot", -LOG_BOOTS_MAX, 0);

	if (code == 0)
		code = number_query(cli, &query, 'n', "lines", 0, LOG_LINES_MAX);
	if (code)
		return code;
	if (cli_flag(cli, 'f') && !cli_flag(cli, 'n'))
		strbuf_printf(&query, "%clines=%d", query.len ? '&' : '?', LOG_FOLLOW_LINES);
	if (cli_flag(cli, 'f'))
		strbuf_puts(&query, "&follow=1");
	suffix = xasprintf("/log%s", query.len ? query.data : "");
	*ret = request_target("/vms/", cli->args[0], suffix);
	return 0;
}

/* Lines as they come, until vmstated ends the stream. */
static int follow_log(struct cli *cli, struct client *c, const char *target, struct err *err)
{
	struct client_stream *s;
	const char *line;
	size_t len;
	int r = client_stream_open(c, target, &s, err);

	if (r < 0)
		return exit_from_errno(r);
	while ((r = client_line(s, cli->timeout_ms, &line, &len, err)) > 0) {
		AUTO_STRBUF struct strbuf sb = {0};

		cli_escape(&sb, line, len);
		strbuf_putc(&sb, '\n');
		cli_put(sb.data, sb.len);
		(void)cli_flush();
	}
	client_stream_close(s);
	if (r == -ETIMEDOUT)
		(void)err_set(err, ETIMEDOUT, "nothing was logged for %d s",
			      cli->timeout_ms / 1000);
	else if (r == 0 || r == -ECONNRESET)
		(void)err_set(err, ECONNRESET, "vmstated ended the log's stream");
	return r == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_UNREACHABLE;
}

static int whole_log(struct cli *cli, const char *target)
{
	struct request rq = {.method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	AUTO_STRBUF struct strbuf sb = {0};
	struct client_reply reply;
	int code = ctl_ask(cli, &rq, &reply);

	if (code)
		return code;
	cli_escape(&sb, reply.body, reply.len);
	cli_put(sb.data, sb.len);
	client_reply_done(&reply);
	return EXIT_OK;
}

int ctl_log(struct cli *cli)
{
	AUTO_FREE char *target = NULL;
	struct err err = {0};
	struct client c;
	int code = log_target(cli, &target);

	if (code)
		return code;
	if (!cli_flag(cli, 'f'))
		return whole_log(cli, target);
	ctl_socket(cli);
	code = request_open(cli, PEER_VMSTATED, NULL, &c, &err);
	if (code)
		return request_fail(code, NULL, &err);
	code = follow_log(cli, &c, target, &err);
	client_close(&c);
	return request_fail(code, NULL, &err);
}

/* --- console --- */

int ctl_console(struct cli *cli)
{
	AUTO_FREE char *target = request_target("/vms/", cli->args[0], "");
	struct request rq = {.method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	int code = ctl_ask(cli, &rq, &reply);

	if (code)
		return code;
	code = attach_console(cli, js_value(reply.body, reply.len), "vmstated");
	client_reply_done(&reply);
	return code;
}

/* --- completion --- */

static void known_vms(struct cli *cli, char **ret_text, struct slice *ret_vms)
{
	struct request rq = {.peer = PEER_VMSTATED,
			     .method = "GET",
			     .target = "/status",
			     .limit_ms = COMPLETION_LIMIT_MS};
	struct client_reply reply;

	ctl_socket(cli);
	if (!request_reachable(cli, PEER_VMSTATED) || request_run(cli, &rq, &reply, NULL))
		return;
	*ret_vms = js_member(js_value(reply.body, reply.len), "vms");
	*ret_text = steal_ptr(reply.body);
}

int ctl_completion(struct cli *cli)
{
	return completion_run(cli, known_vms);
}
