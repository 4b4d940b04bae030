/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options, usage and help from a tool's table; see cli.h. Options may stand anywhere; those of
 * the command win over the global ones, which is why the command is looked for first.
 */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/table.h"
#include "cli/mdoc.h"

/* clang-format off */
const struct cli_option cli_globals[] = {
	{ OPT_HELP,    'h', "help",    NULL,  "print help" },
	{ OPT_HELP,    '?', NULL,      NULL,  NULL },
	{ OPT_ROOT,    0,   "root",    "DIR", "folder all paths derive from; default $DROVER_ROOT, else /" },
	{ OPT_JSON,    0,   "json",    NULL,  "print the result object on standard output" },
	{ OPT_NO_WAIT, 0,   "wait",    NULL,  "return when it is done; so it is without --no-wait", true },
	{ OPT_NO_WAIT, 0,   "no-wait", NULL,  "return when the request is accepted" },
	{ OPT_TIMEOUT, 0,   "timeout", "SEC", "how long to wait for the daemon's answer" },
	{ OPT_VERBOSE, 'v', "verbose", NULL,  "accepted, without effect" },
	{ OPT_DEBUG,   'd', "debug",   NULL,  "accepted, without effect" },
	{ 0 },
};

const struct cli_option cli_stop_options[] = {
	{ 'F', 'F', "force", NULL, "at once, without asking the guest" },
	{ 't', 't', NULL, "SEC", "how long the guest has; default the VM's stoptimeout" },
	{ 0 },
};
/* clang-format on */

const char *cli_opt(const struct cli *cli, char id)
{
	return cli->opts[(unsigned char)id & 127];
}

bool cli_flag(const struct cli *cli, char id)
{
	return cli_opt(cli, id) != NULL;
}

const char *cli_signal(const char *text)
{
	const char *name = str_starts(text, "SIG") ? text + 3 : text;
	char *end;
	long number = strtol(text, &end, 10);

	if (end != text && !*end)
		return number > 0 && number < NSIG ? sigabbrev_np((int)number) : NULL;
	for (int i = 1; i < NSIG; i++)
		if (str_eq(sigabbrev_np(i), name))
			return sigabbrev_np(i);
	return NULL;
}

/* --- talk --- */

static void __attribute__((format(printf, 1, 0))) say(const char *fmt, va_list ap)
{
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_FREE char *text = NULL;

	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	strbuf_put_escaped(&sb, text);
	strbuf_putc(&sb, '\n');
	(void)fwrite(sb.data, 1, sb.len, stderr);
}

void cli_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

int cli_fail(int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	return code;
}

/* --- data --- */

static int output_failed(void)
{
	if (errno == EPIPE)
		_exit(EXIT_OK); /* the reader has seen enough */
	(void)cli_fail(EXIT_FAILED, "cannot write to standard output: %s", strerror(errno));
	_exit(EXIT_FAILED);
}

void cli_put(const void *data, size_t len)
{
	if (len && fwrite(data, 1, len, stdout) != len)
		(void)output_failed();
}

int cli_flush(void)
{
	return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_OK : output_failed();
}

void cli_escape(struct strbuf *sb, const char *text, size_t len)
{
	while (len > 0) {
		size_t n = 0;

		while (n < len && text[n] && text[n] != '\n' && text[n] != '\t')
			n++;
		AUTO_FREE char *part = xstrndup(text, n);

		strbuf_put_escaped(sb, part);
		if (n < len && text[n])
			strbuf_putc(sb, text[n]);
		else if (n < len)
			strbuf_puts(sb, "\\x00");
		n += n < len;
		text += n;
		len -= n;
	}
}

void cli_put_json(struct slice v)
{
	AUTO_STRBUF struct strbuf sb = {0};

	js_write(&sb, v, 0);
	strbuf_putc(&sb, '\n');
	cli_put(sb.data, sb.len);
}

/* --- help --- */

static const struct cli_option *find_option(const struct cli_option *options, char letter,
					    const char *name, size_t len)
{
	for (const struct cli_option *o = options; o && o->id; o++) {
		if (letter && o->letter == letter)
			return o;
		if (name && o->name && strlen(o->name) == len && memcmp(o->name, name, len) == 0)
			return o;
	}
	return NULL;
}

/* over: options that win over these, NULL for none. */
static void put_options(FILE *out, const struct cli_option *options, const struct cli_option *over)
{
	for (const struct cli_option *o = options; o && o->id; o++) {
		AUTO_STRBUF struct strbuf sb = {0};

		if (!o->doc || (o->name && find_option(over, 0, o->name, strlen(o->name))))
			continue;
		if (o->letter)
			strbuf_printf(&sb, "-%c%s", o->letter, o->name ? ", " : "");
		if (o->name)
			strbuf_printf(&sb, "--%s", o->name);
		if (o->arg)
			strbuf_printf(&sb, " %s", o->arg);
		(void)fprintf(out, "  %-17s %s\n", sb.data, o->doc);
	}
}

static void put_command(FILE *out, const struct tool *tool, const struct command *c)
{
	(void)fprintf(out, "usage: %s %s%s%s\n\n%s\n", tool->name, c->name, *c->synopsis ? " " : "",
		      c->synopsis, c->doc);
	if (c->alias)
		(void)fprintf(out, "Also called: %s\n", c->alias);
	(void)fputs("\noptions:\n", out);
	put_options(out, c->options, NULL);
	put_options(out, tool->options, c->options);
	put_options(out, cli_globals, c->options);
}

static void put_tool(FILE *out, const struct tool *tool)
{
	(void)fprintf(out, "usage: %s [option ...] command [argument ...]\n\n%s\n\ncommands:\n",
		      tool->name, tool->doc);
	for (size_t i = 0; i < tool->ncommands; i++) {
		const struct command *c = &tool->commands[i];

		(void)fprintf(out, "  %s%s%s", c->name, *c->synopsis ? " " : "", c->synopsis);
		if (c->alias)
			(void)fprintf(out, " (also: %s)", c->alias);
		(void)fprintf(out, "\n      %s\n", c->doc);
	}
	(void)fputs("\noptions, anywhere on the line:\n", out);
	put_options(out, tool->options, NULL);
	put_options(out, cli_globals, NULL);
}

static const struct command *find_command(const struct tool *tool, const char *name)
{
	for (size_t i = 0; i < tool->ncommands; i++)
		if (str_eq(tool->commands[i].name, name) || str_eq(tool->commands[i].alias, name))
			return &tool->commands[i];
	return NULL;
}

static void put_usage(FILE *out, const struct cli *cli)
{
	if (cli->command)
		put_command(out, cli->tool, cli->command);
	else
		put_tool(out, cli->tool);
}

char *cli_fill_in(const char *text, const char *word)
{
	struct strbuf sb = {0};

	for (const char *p = text; *p; p++) {
		if (*p == '@')
			strbuf_puts(&sb, word);
		else
			strbuf_putc(&sb, *p);
	}
	return strbuf_steal(&sb);
}

/* The message and what follows it; text may be NULL. */
static int usage_error(const struct cli *cli, const char *text)
{
	if (text)
		cli_say("%s", text);
	if (text && cli->tool->texts.blank_line)
		(void)fputc('\n', stderr);
	put_usage(stderr, cli);
	return EXIT_USAGE;
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	return usage_error(cli, text);
}

static int unknown_command(struct cli *cli, const char *name)
{
	AUTO_FREE char *text = cli_fill_in(cli->tool->texts.unknown_command, name);
	AUTO_FREE const char **names = xcalloc(2 * cli->tool->ncommands, sizeof(*names));
	const char *near;

	for (size_t i = 0; i < cli->tool->ncommands; i++) {
		names[2 * i] = cli->tool->commands[i].name;
		names[2 * i + 1] = cli->tool->commands[i].alias;
	}
	near = str_nearest(name, names, 2 * cli->tool->ncommands);
	cli_say("%s", text);
	if (near)
		cli_say("Did you mean \"%s\"?", near);
	if (cli->tool->texts.blank_line)
		(void)fputc('\n', stderr);
	cli->command = NULL;
	return usage_error(cli, NULL);
}

int cli_help(struct cli *cli)
{
	cli->command = NULL;
	if (cli->nargs > 0 && str_eq(cli->args[0], "synopsis")) {
		mdoc_synopsis(cli->tool);
		return EXIT_OK;
	}
	if (cli->nargs > 0) {
		cli->command = find_command(cli->tool, cli->args[0]);
		if (!cli->command)
			return unknown_command(cli, cli->args[0]);
	}
	put_usage(stdout, cli);
	return EXIT_OK;
}

/* --- options --- */

static const struct cli_option *option_of(const struct cli *cli, char letter, const char *name,
					  size_t len)
{
	const struct cli_option *const tables[] = {
		cli->command ? cli->command->options : NULL,
		cli->tool->options,
		cli_globals,
	};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		const struct cli_option *o = find_option(tables[i], letter, name, len);

		if (o)
			return o;
	}
	return NULL;
}

/* The arguments not yet looked at. */
struct argv_rest {
	int argc;
	char **argv;
	int at;
};

static int take_argument(struct cli *cli, const struct cli_option *o, const char *attached,
			 struct argv_rest *rest)
{
	const char *value = attached;

	if (!value && rest->at < rest->argc)
		value = rest->argv[rest->at++];
	if (!value && o->name)
		return cli_usage(cli, "Option --%s needs an argument: %s", o->name, o->arg);
	if (!value)
		return cli_usage(cli, "Option -%c needs an argument: %s", o->letter, o->arg);
	cli->opts[(unsigned char)o->id & 127] = value;
	return 0;
}

static int take_long(struct cli *cli, const char *word, struct argv_rest *rest)
{
	size_t len = strcspn(word, "=");
	const struct cli_option *o = option_of(cli, 0, word, len);

	if (!o)
		return cli_usage(cli, "Unknown option: --%.*s", (int)len, word);
	if (o->arg)
		return take_argument(cli, o, word[len] ? word + len + 1 : NULL, rest);
	if (word[len])
		return cli_usage(cli, "Option --%s takes no argument", o->name);
	cli->opts[(unsigned char)o->id & 127] = o->off ? NULL : "";
	return 0;
}

static int take_short(struct cli *cli, const char *letters, struct argv_rest *rest)
{
	for (const char *p = letters; *p; p++) {
		const struct cli_option *o = option_of(cli, *p, NULL, 0);

		if (!o)
			return cli_usage(cli, "Unknown option: -%c", *p);
		if (o->arg)
			return take_argument(cli, o, p[1] ? p + 1 : NULL, rest);
		cli->opts[(unsigned char)o->id & 127] = "";
	}
	return 0;
}

/* "-KILL" or "-9" of a command that takes signals; 's' is the id of its option. */
static bool is_signal(const struct cli *cli, const char *word)
{
	if (!cli->command || !cli->command->signals || word[1] == '-' || word[1] == 's')
		return false;
	return word[2] || !option_of(cli, word[1], NULL, 0);
}

static int take_option(struct cli *cli, const char *word, struct argv_rest *rest)
{
	if (is_signal(cli, word)) {
		cli->opts['s'] = word + 1;
		return 0;
	}
	if (word[1] == '-')
		return take_long(cli, word + 2, rest);
	return take_short(cli, word + 1, rest);
}

/* All words: options into opts, the command, the others into args. */
static int parse(struct cli *cli, int argc, char **argv)
{
	struct argv_rest rest = {argc, argv, 1};
	bool only_args = false;
	int r;

	while (rest.at < argc) {
		const char *word = argv[rest.at++];

		if (!only_args && strcmp(word, "--") == 0) {
			only_args = true;
		} else if (!only_args && word[0] == '-' && word[1]) {
			r = take_option(cli, word, &rest);
			if (r)
				return r;
		} else if (!cli->command) {
			cli->command = find_command(cli->tool, word);
			if (!cli->command)
				return unknown_command(cli, word);
		} else {
			cli->args[cli->nargs++] = word;
		}
	}
	return 0;
}

int cli_opt_seconds(struct cli *cli, char id, int *ret)
{
	const char *text = cli_opt(cli, id);
	char *end;
	long value;

	if (!text)
		return 0;
	errno = 0;
	value = strtol(text, &end, 10);
	if (end == text || *end || errno || value < 0 || value > CLI_SECONDS_MAX)
		return cli_usage(cli, "Not a number of seconds: \"%s\" (want 0 to %d)", text,
				 CLI_SECONDS_MAX);
	*ret = (int)value;
	return 0;
}

/* --- running --- */

static int check_counts(struct cli *cli)
{
	const struct command *c = cli->command;
	AUTO_FREE char *text = NULL;

	if (cli->nargs < c->min) {
		text = cli_fill_in(cli->tool->texts.missing, c->name);
		return usage_error(cli, text);
	}
	if (c->max != CLI_ANY && cli->nargs > c->max)
		return cli_usage(cli, "Too many arguments for %s: \"%s\"", c->name,
				 cli->args[c->max]);
	return 0;
}

static int run_command(struct cli *cli)
{
	struct err err = {0};
	int r = check_counts(cli), seconds = -1;

	if (r)
		return r;
	r = cli_opt_seconds(cli, OPT_TIMEOUT, &seconds);
	if (r)
		return r;
	/* poll() counts milliseconds in an int */
	cli->timeout_ms = seconds > 2000000 ? 2000000000 : seconds * 1000;
	if (seconds < 0)
		cli->timeout_ms = -1;
	r = paths_init(&cli->paths, cli_opt(cli, OPT_ROOT), &err);
	if (r < 0)
		return cli_fail(EXIT_FAILED, "%s", err_text(&err, r));
	return cli->command->run(cli);
}

int cli_main(const struct tool *tool, int argc, char **argv)
{
	AUTO_FREE const char **args = xcalloc((size_t)argc + 1, sizeof(*args));
	struct cli cli = {.tool = tool, .args = args, .timeout_ms = -1};
	int code;

	(void)signal(SIGPIPE, SIG_IGN); /* cli_put sees EPIPE instead */
	code = parse(&cli, argc, argv);
	if (code == 0) {
		if (cli_flag(&cli, OPT_HELP))
			put_usage(stdout, &cli);
		else if (!cli.command)
			code = usage_error(&cli, tool->texts.no_command);
		else
			code = run_command(&cli);
	}
	paths_done(&cli.paths);
	(void)cli_flush();
	return code;
}

static char *cell_of(struct slice one, const char *name)
{
	struct slice v = js_member(one, name);

	if (js_type(v) == '[')
		return xasprintf("%zu", js_count(v));
	if (!v.p)
		return NULL;
	return js_type(v) == '"' ? js_string(v) : xstrndup(v.p, v.len);
}

void cli_put_table(struct slice list, const struct table_column *columns,
		   const char *const *members, size_t count,
		   char *(*cell)(struct slice one, const char *name))
{
	const struct table t = {.columns = columns, .count = count, .out = stdout};
	AUTO_FREE char **cells = xcalloc(count, sizeof(*cells));
	struct js_iter it;
	struct slice one;

	table_header(&t);
	js_iter_init(&it, list);
	while (js_next(&it, NULL, &one)) {
		for (size_t i = 0; i < count; i++)
			cells[i] = cell ? cell(one, members[i]) : cell_of(one, members[i]);
		table_row(&t, (const char *const *)cells);
		for (size_t i = 0; i < count; i++)
			free(cells[i]);
	}
}
