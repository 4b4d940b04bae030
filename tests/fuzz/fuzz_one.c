/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what comes to the OpenNebula driver. What begins with a letter is a line of the
 * core; what begins with '<' is the XML in one, tried with every action of both eras; all else is
 * what a script printed. Every accepted message becomes a plan or a reason; every line to the
 * core is one line.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/deploy/deploy.h"
#include "one/driver/driver_message.h"
#include "one/driver/driver_options.h"
#include "one/driver/driver_plan.h"
#include "one/driver/driver_shell.h"
#include "one/driver/driver_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "broken: %s\n", what);
	abort();
}

static void check_command(const struct plan *plan,
			  const struct command *c) /* NOLINT(misc-no-recursion) */
{
	AUTO_STRBUF struct strbuf feed = {0};
	AUTO_FREE char *text = NULL, *log = NULL;

	require(c->log_name && c->step, "a command has a name");
	for (size_t i = 0; c->path && i < c->argc; i++)
		require(command_arg(plan, c, i), "an argument");
	for (size_t i = 0; i < c->undo_count; i++)
		check_command(plan, &c->undo[i]);
	if (!c->path)
		return;
	shell_feed(&feed, plan, c, "0123456789abcdef");
	text = shell_one_shot(plan, c);
	log = shell_log_text(plan, c, ERA_5);
	require(feed.len && *text && *log, "a command as text");
}

static void check_message(struct message *m, const struct err *err)
{
	char *argv[] = {(char *)"one_vmm_exec", (char *)"-l migrate=migrate_local,save,post kvm"};
	AUTO_OPTIONS struct driver_options o = {.dir = NULL};
	AUTO_PLAN struct plan plan = {0};
	struct err why = {0};

	if (m->kind == MESSAGE_REFUSED || m->kind == MESSAGE_NOISE)
		require(err->code && *err->msg, "a reason");
	if (m->kind != MESSAGE_ACTION) {
		message_done(m);
		return;
	}
	require(driver_options_read(2, argv, &o, NULL) == 0, "options");
	if (plan_make(m, &o, &plan, &why) < 0)
		require(*why.msg, "a reason for no plan");
	else
		require(plan.count == 0 || plan.commands[plan.count - 1].last, "a whole step");
	for (size_t i = 0; !why.code && i < plan.count; i++)
		check_command(&plan, &plan.commands[i]);
	message_done(m);
}

static void check_line(const char *line, size_t len)
{
	struct message m;
	struct err err = {0};

	message_read(line, len, &m, &err);
	check_message(&m, &err);
	err = (struct err){0};
	message_read_long(line, len, 64u << 20, &m, &err);
	require(!m.xml, "a line cut short has no message");
	message_done(&m);
}

static int nothing(const char *path)
{
	return -1;
}

static void check_deployment(const uint8_t *data, size_t size)
{
	const struct deploy_place place = {.sysdir = "/ds/0/7", .exists = nothing};
	AUTO_JSON json_t *payload = NULL;
	struct err err = {0};
	int r = deploy_read((const char *)data, size, &place, &payload, &err);

	require(r == 0 ? json_is_object(payload) : *err.msg != '\0', "a payload or a reason");
}

static void check_xml(const uint8_t *data, size_t size)
{
	AUTO_FREE char *coded = base64_encode(data, size), *back = NULL;
	const struct action *a;
	size_t len;

	require(base64_decode(coded, strlen(coded), &back, &len, NULL) == 0 && len == size &&
			memcmp(back, data, size) == 0,
		"base64 there and back");
	check_deployment(data, size);
	for (unsigned i = 0; (a = action_at(i)); i++) {
		AUTO_FREE char *old = xasprintf("%s 7 %s", a->word, coded);
		AUTO_FREE char *new = xasprintf("%s  7 %s", a->word, coded);

		check_line(old, strlen(old));
		check_line(new, strlen(new));
	}
}

static void check_printed(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	AUTO_STRBUF struct strbuf out = {0}, errors = {0};
	struct out lines = {.fd = -1};
	int code = 0;

	for (int i = 0; i < 8; i++) {
		enum era era = i & 1 ? ERA_6 : ERA_5;
		struct ended e = {.code = i & 2 ? 1 : 0, .shell = i & 4, .command = text};
		AUTO_FREE char *answer = text_answer(text), *reason = NULL;
		size_t before;

		e.out = e.errors = text;
		text_log(&lines, era, 7, &e);
		reason = text_reason(era, &e, "because");
		require(*answer && *reason && !strchr(answer, '\n'), "an answer of one line");
		before = lines.lines.len;
		out_result(&lines, "POLL", false, 7, reason);
		require(memchr(lines.lines.data + before, '\n', lines.lines.len - before) ==
				lines.lines.data + lines.lines.len - 1,
			"a result of one line");
	}
	strbuf_add(&out, data, size);
	strbuf_add(&errors, data, size);
	(void)shell_check(&out, &errors, "n", &code);
	strbuf_done(&lines.lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (isalpha(data[0]))
		check_line((const char *)data, size);
	else if (data[0] == '<')
		check_xml(data, size);
	else
		check_printed(data, size);
	return 0;
}
