/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands as text; see driver_shell.h. The shell of the host reads commands from its input; a
 * script's input comes as a here-document whose end word is quoted, so that nothing in the
 * message is expanded, and chosen so that it is not a line of it.
 */
#include "one/driver/driver_shell.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/driver/driver_plan.h"

#define CODE_TEXT "ExitCode: "

void shell_nonce(char buf[SHELL_NONCE + 1])
{
	uint64_t v;

	if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != sizeof(v))
		v = clock_us() * 0x9e3779b97f4a7c15u;
	(void)snprintf(buf, SHELL_NONCE + 1, "%016llx", (unsigned long long)v);
}

/* Bare where it can be, else with backslashes, as the stock driver writes guest commands. */
static void put_escaped(struct strbuf *sb, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n') {
			strbuf_puts(sb, "'\n'");
			continue;
		}
		if (!isalnum((unsigned char)*text) && !strchr("_-.,:+/@=", *text) &&
		    (unsigned char)*text < 0x80)
			strbuf_putc(sb, '\\');
		strbuf_putc(sb, *text);
	}
}

static void put_args(struct strbuf *sb, const struct plan *plan, const struct command *c,
		     bool for_log)
{
	if (c->step->driver == STEP_VNM && c->argc)
		strbuf_putc(sb, ' ');
	for (size_t i = 0; i < c->argc; i++) {
		const char *arg = command_arg(plan, c, i);

		if (for_log && plan->payload && str_eq(arg, plan->payload))
			arg = "<payload base64>";
		strbuf_putc(sb, ' ');
		if (i < c->fixed && c->step->driver != STEP_TM)
			strbuf_put_quoted(sb, arg);
		else if (for_log)
			strbuf_puts(sb, arg);
		else
			put_escaped(sb, arg);
	}
}

static void put_command(struct strbuf *sb, const struct plan *plan, const struct command *c,
			bool for_log)
{
	if (c->step->driver == STEP_DIR || c->step->driver == STEP_PUT) {
		strbuf_puts(sb, c->step->driver == STEP_DIR ? "/bin/mkdir -p " : "/bin/cat - >");
		strbuf_put_quoted(sb, c->path);
		return;
	}
	put_escaped(sb, c->path);
	put_args(sb, plan, c, for_log);
}

/* A word that is not a line of text. */
static void choose_end(struct strbuf *word, const char *text)
{
	bool found;

	strbuf_puts(word, "EOT");
	do {
		const char *at = text;

		found = false;
		while (!found && (at = strstr(at, word->data))) {
			found = (at == text || at[-1] == '\n') &&
				(at[word->len] == '\n' || !at[word->len]);
			at++;
		}
		if (found)
			strbuf_putc(word, '_');
	} while (found);
}

static void put_with_input(struct strbuf *sb, const struct plan *plan, const struct command *c)
{
	AUTO_STRBUF struct strbuf end = {0};

	strbuf_putc(sb, '(');
	put_command(sb, plan, c, false);
	if (!c->in) {
		strbuf_puts(sb, " < /dev/null)");
		return;
	}
	choose_end(&end, c->in);
	strbuf_printf(sb, " << '%s'\n", end.data);
	strbuf_add(sb, c->in, c->in_len);
	strbuf_printf(sb, "\n%s\n)", end.data);
}

void shell_feed(struct strbuf *sb, const struct plan *plan, const struct command *c,
		const char *nonce)
{
	bool script = c->step->driver == STEP_VMM || c->step->driver == STEP_VNM;

	if (script) {
		strbuf_puts(sb, "if [ -x ");
		strbuf_put_quoted(sb, c->path);
		strbuf_puts(sb, " ]; then ");
	}
	put_with_input(sb, plan, c);
	strbuf_printf(sb, "; echo \"" CODE_TEXT "$? EOF_ERR_%s\" 1>&2", nonce);
	if (script)
		strbuf_printf(sb, "; else echo \"" CODE_TEXT "none EOF_ERR_%s\" 1>&2; fi", nonce);
	strbuf_printf(sb, "; echo \"EOF_OUT_%s\"\n", nonce);
}

/* Where mark begins, or NULL. */
static char *find_mark(const struct strbuf *sb, const char *mark)
{
	return sb->len ? memmem(sb->data, sb->len, mark, strlen(mark)) : NULL;
}

enum shell_end shell_check(struct strbuf *out, struct strbuf *errors, const char *nonce,
			   int *ret_code)
{
	AUTO_FREE char *out_mark = xasprintf("EOF_OUT_%s", nonce);
	AUTO_FREE char *err_mark = xasprintf(" EOF_ERR_%s", nonce);
	char *out_end = find_mark(out, out_mark), *err_end = find_mark(errors, err_mark), *code;

	if (!out_end || !err_end)
		return SHELL_RUNNING;
	*out_end = *err_end = '\0';
	out->len = (size_t)(out_end - out->data);
	for (code = err_end; code > errors->data && !str_starts(code, CODE_TEXT); code--)
		;
	if (str_starts(code, CODE_TEXT "none"))
		return SHELL_NO_SCRIPT;
	*ret_code =
		str_starts(code, CODE_TEXT) ? (int)strtol(code + strlen(CODE_TEXT), NULL, 10) : 255;
	*code = '\0';
	errors->len = (size_t)(code - errors->data);
	return SHELL_ENDED;
}

char *shell_one_shot(const struct plan *plan, const struct command *c)
{
	struct strbuf sb = {0};

	strbuf_printf(&sb, "if [ -x \"%s\" ]; then ", c->path);
	put_escaped(&sb, c->path);
	strbuf_putc(&sb, ' ');
	for (size_t i = 0; i < c->argc; i++) {
		if (i || !c->fixed)
			strbuf_putc(&sb, ' ');
		put_escaped(&sb, command_arg(plan, c, i));
	}
	strbuf_puts(&sb, "; else exit 42; fi");
	return strbuf_steal(&sb);
}

char *shell_log_text(const struct plan *plan, const struct command *c, enum era era)
{
	struct strbuf sb = {0};

	if (c->via == VIA_SSH) {
		AUTO_FREE char *text = shell_one_shot(plan, c);

		return xasprintf("'%s'", text);
	}
	if (c->via == VIA_SHELL)
		strbuf_puts(&sb, era == ERA_5 ? "cat << EOT | " : "cat << 'EOT' | ");
	put_command(&sb, plan, c, true);
	return strbuf_steal(&sb);
}
