/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm edit: what can be changed of a VM as JSON in the person's editor; judged here before it
 * counts, and only the difference is sent. A text that is refused is never lost: it can be edited
 * again, or stays in its file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "cli/now.h"
#include "cli/payload.h"
#include "cli/vmadm.h"

struct edit {
	struct cli *cli;
	const json_t *now;
	json_t *settable;
	char *path; /* of the text */
};

/* Private to the person: there may be secrets in it. */
static int make_file(struct edit *e, struct err *err)
{
	static const char *const places[] = {"TMPDIR", "XDG_RUNTIME_DIR", "HOME"};
	AUTO_FREE char *text = json_pretty(e->settable), *line = xasprintf("%s\n", text);
	AUTO_FD int fd = -1;
	const char *dir = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(places) && (!dir || !*dir); i++)
		dir = getenv(places[i]);
	e->path = xasprintf("%s/vmadm-edit-XXXXXX.json", dir && *dir ? dir : ".");
	fd = mkostemps(e->path, (int)strlen(".json"), O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "cannot make '%s' (is $TMPDIR writable?)", e->path);
	r = fd_write_all(fd, line, strlen(line));
	return r < 0 ? err_sys(err, -r, "cannot write '%s'", e->path) : 0;
}

/* $VISUAL or $EDITOR may have arguments, so a shell takes it apart; the path is an argument. */
static void run_editor(const char *path)
{
	static const char script[] = "exec ${VISUAL:-${EDITOR:-vi}} \"$1\"";

	(void)execl("/bin/sh", "sh", "-c", script, "vmadm edit", path, (char *)NULL);
	_exit(127);
}

static int call_editor(const struct edit *e, struct err *err)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return err_sys(err, errno, "cannot start the editor");
	if (pid == 0)
		run_editor(e->path);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_sys(err, errno, "cannot wait for the editor");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(err, ENOENT, "the editor cannot be run (set $EDITOR)");
	return err_set(err, ECANCELED, "the editor failed");
}

/* What the text asks for as an update payload, judged. Findings are told. */
static int judge(const struct edit *e, json_t **ret_payload)
{
	AUTO_JSON json_t *wanted = NULL, *payload = NULL;
	AUTO_WOULD struct would w = {0};
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	size_t len;
	int r = file_read(e->path, PAYLOAD_MAX, &text, &len, NULL, &err);

	if (r == 0)
		r = json_parse_object(text, len, e->path, &wanted, &err);
	if (r < 0)
		return cli_fail(EXIT_FAILED, "%s", err_text(&err, r));
	payload = now_towards(e->settable, wanted, true);
	r = now_update(e->cli, e->now, payload, &w);
	if (r == 0 && w.changes.count > 0)
		r = now_conflicts(e->cli, &w);
	now_tell(&w.problems);
	if (r)
		return r;
	*ret_payload = steal_ptr(payload);
	return 0;
}

static bool asked_again(void)
{
	char answer[16];

	if (!isatty(STDIN_FILENO))
		return false;
	(void)fputs("Edit again? [Y/n] ", stderr);
	return fgets(answer, sizeof(answer), stdin) && answer[0] != 'n' && answer[0] != 'N';
}

/* The rounds of editing: 0 and a payload, or the exit code. */
static int edit_until_right(const struct edit *e, json_t **ret_payload)
{
	struct err err = {0};
	int code;

	for (;;) {
		int r = call_editor(e, &err);

		if (r < 0) { /* so people leave an editor when they think better of it */
			(void)unlink(e->path);
			return cli_fail(EXIT_FAILED, "%s; nothing was changed", err.msg);
		}
		code = judge(e, ret_payload);
		if (code == 0)
			return 0;
		if (!asked_again())
			return cli_fail(code, "Nothing was changed; the text is kept in %s",
					e->path);
	}
}

static int edit(struct edit *e)
{
	const char *uuid = json_get_str(e->now, "uuid", e->cli->args[0]);
	AUTO_JSON json_t *payload = NULL;
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	int r = make_file(e, &err), code;

	if (r < 0)
		return cli_fail(EXIT_FAILED, "%s", err_text(&err, r));
	code = edit_until_right(e, &payload);
	if (code)
		return code;
	if (json_object_size(payload) == 0) {
		code = cli_fail(EXIT_OK, "Nothing differs; VM %s was not changed", uuid);
	} else {
		text = json_text(payload);
		code = update_send(e->cli, uuid, text);
	}
	if (code == EXIT_OK || code == EXIT_NOT_CONFIRMED)
		(void)unlink(e->path);
	else
		cli_say("The text is kept in %s", e->path);
	return code;
}

int cmd_edit(struct cli *cli)
{
	AUTO_JSON json_t *now = NULL;
	struct edit e = {.cli = cli};
	int code = now_fetch(cli, cli->args[0], &now);

	if (code)
		return code;
	e.now = now;
	e.settable = now_settable(now);
	code = edit(&e);
	json_decref(e.settable);
	free(e.path);
	return code;
}
