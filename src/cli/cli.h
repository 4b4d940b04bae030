/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the three tools share: one table of commands per tool, from which options, argument counts,
 * usage and help come; talk on stderr, data on stdout; exit codes of api/status.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "api/status.h"
#include "base/paths.h"
#include "cli/js.h"

struct table_column;

struct cli;
struct err;
struct strbuf;

/* One option; tables end with a row whose id is 0. */
struct cli_option {
	char id;          /* asked for by cli_opt() */
	char letter;      /* "-x", 0: none */
	const char *name; /* "--name", NULL: none */
	const char *arg;  /* what its argument is called; NULL: a flag */
	const char *doc;
	bool off; /* takes back the flag of the same id */
};

#define CLI_ANY (-1) /* any number of arguments */

struct command {
	const char *name;
	const char *alias;                /* NULL: none */
	int (*run)(struct cli *cli);      /* returns the exit code */
	int min, max;                     /* arguments */
	const struct cli_option *options; /* win over the global ones; NULL: none */
	bool signals;                     /* "-KILL" and "-9" stand for "-s KILL" and "-s 9" */
	const char *synopsis;             /* behind the name */
	const char *doc;                  /* a sentence or two */
};

/* Texts in which '@' stands for the word at fault. */
struct tool_texts {
	const char *no_command; /* NULL: usage alone */
	const char *unknown_command;
	const char *missing; /* too few arguments; '@' is the command */
	bool blank_line;     /* between message and usage */
};

struct tool {
	const char *name;
	const char *doc;
	const struct command *commands;
	size_t ncommands;
	const struct cli_option *options; /* beside the global ones, NULL: none */
	struct tool_texts texts;
};

struct cli {
	const struct tool *tool;
	const struct command *command;
	struct paths paths;
	const char *opts[128]; /* by id: argument, "" for a given flag, NULL: not given */
	const char **args;     /* NULL-terminated */
	int nargs;
	int timeout_ms; /* how long the tool waits for an answer; -1: --timeout not given */
};

/* Ids of the options every command takes. */
enum cli_global {
	OPT_HELP = '?',
	OPT_ROOT = 'R',
	OPT_JSON = 'J',
	OPT_NO_WAIT = 'W', /* of two, the last one counts */
	OPT_TIMEOUT = 'T',
	OPT_VERBOSE = 'v',
	OPT_DEBUG = 'd',
};

/* All of a tool's main(). */
int cli_main(const struct tool *tool, int argc, char **argv);

const char *cli_opt(const struct cli *cli, char id);
bool cli_flag(const struct cli *cli, char id);
/* Whole seconds of an option into *ret (unchanged when absent): 0, or the exit code, told. */
int cli_opt_seconds(struct cli *cli, char id, int *ret);
#define CLI_SECONDS_MAX 31536000 /* a year */

/* The options of every command. */
extern const struct cli_option cli_globals[];
/* -F and -t of every command that stops. */
extern const struct cli_option cli_stop_options[];
/* "9", "KILL", "SIGKILL" as "KILL"; NULL when there is no such signal. */
const char *cli_signal(const char *text);

/* text with '@' replaced by word; caller frees. */
char *cli_fill_in(const char *text, const char *word);

/* Handler of `help [command|topic]`; `help synopsis` is for the manual page; tool-specific topics
 * are handled before by the caller. */
int cli_help(struct cli *cli);
/* Message (may be NULL) and usage on stderr; returns EXIT_USAGE. */
int cli_usage(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* One line on stderr, control characters escaped. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* cli_say and return code. */
int cli_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Write JSON, indented by two, and a newline to stdout. */
void cli_put_json(struct slice v);
/* Append bytes of a text with control characters but \n and \t escaped; NUL as \x00. */
void cli_escape(struct strbuf *sb, const char *text, size_t len);
/* Write bytes to stdout; a reader that went away ends the program quietly with 0. */
void cli_put(const void *data, size_t len);
/* Flush stdout: EXIT_OK, or EXIT_FAILED with a message; a broken pipe ends the program with 0. */
int cli_flush(void);

/*
 * A JSON array of objects as a table with a header: column i shows member members[i], an array its
 * length. cell has other words for it, NULL: these; what it returns is freed, NULL is an empty one.
 */
void cli_put_table(struct slice list, const struct table_column *columns,
		   const char *const *members, size_t count,
		   char *(*cell)(struct slice one, const char *name));
