/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion; see completion.h. The script knows the commands, their options and which of them
 * take VMs; for names it runs the tool. bash expands the words it is given, so no name with
 * a character that means something to it gets there.
 */
#include "cli/completion.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

#define VM_WORD      "VM"
#define COMMAND_WORD "COMMAND"

static const char script_head[] =
	"# bash completion of @, made by `@ completion bash`\n"
	"_@() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	"\tlocal command= options= words= vms= takes= i\n"
	"\tCOMPREPLY=()\n";

static const char script_command[] =
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tcase ${COMP_WORDS[i]} in\n"
	"\t\t--*=*) ;;\n"
	"\t\t-*) [[ $takes == *\" ${COMP_WORDS[i]} \"* ]] && i=$((i + 1)) ;;\n"
	"\t\t*) command=${COMP_WORDS[i]}; break ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\tcase $command in\n";

static const char script_tail[] =
	"\tesac\n"
	"\t[[ $prev == -* && $takes == *\" $prev \"* ]] && return\n"
	"\tif [[ $cur == -* ]]; then\n"
	"\t\twords=$options\n"
	"\telif [[ $vms ]]; then\n"
	"\t\twords=\"$words $(\"${COMP_WORDS[0]}\" completion names 2>/dev/null)\"\n"
	"\tfi\n"
	"\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	"}\n"
	"complete -o default -F _@ @\n";

static void put_filled(struct strbuf *sb, const char *text, const char *tool)
{
	/* so there may be no "${...[@]}" in the texts */
	AUTO_FREE char *filled = cli_fill_in(text, tool);

	strbuf_puts(sb, filled);
}

/* " -x --name" of every option; takes: only those with an argument. */
static void put_options(struct strbuf *sb, const struct cli_option *options, bool takes)
{
	for (const struct cli_option *o = options; o && o->id; o++) {
		if (!o->doc || (takes && !o->arg))
			continue;
		if (o->letter)
			strbuf_printf(sb, " -%c", o->letter);
		if (o->name)
			strbuf_printf(sb, " --%s", o->name);
	}
}

/* Words a synopsis writes as they are: "nmi", "properties", "order=". */
static void put_literals(struct strbuf *sb, const char *synopsis)
{
	for (const char *p = synopsis; *p; p++) {
		size_t len = strcspn(p, " []|,");

		if (len > 1 && islower((unsigned char)*p)) {
			const char *eq = memchr(p, '=', len);

			strbuf_printf(sb, " %.*s", (int)(eq ? eq - p + 1 : (long)len), p);
		}
		p += len;
		if (!*p)
			return;
	}
}

static bool takes_vm(const char *synopsis)
{
	for (const char *p = synopsis; (p = strstr(p, VM_WORD)); p++)
		if ((p == synopsis || strchr(" [", p[-1])) && strchr(" ]", p[strlen(VM_WORD)]))
			return true;
	return false;
}

/* All commands and aliases, each behind a blank. */
static void put_names_of_commands(struct strbuf *sb, const struct tool *tool)
{
	for (size_t i = 0; i < tool->ncommands; i++) {
		const struct command *c = &tool->commands[i];

		strbuf_printf(sb, " %s%s%s", c->name, c->alias ? " " : "",
			      c->alias ? c->alias : "");
	}
}

static void put_command(struct strbuf *sb, const struct tool *tool, const struct command *c)
{
	strbuf_printf(sb, "\t%s%s%s) options+='", c->name, c->alias ? " | " : "",
		      c->alias ? c->alias : "");
	put_options(sb, c->options, false);
	strbuf_puts(sb, "' takes+='");
	put_options(sb, c->options, true);
	strbuf_puts(sb, " ' words='");
	put_literals(sb, c->synopsis);
	if (strstr(c->synopsis, COMMAND_WORD))
		put_names_of_commands(sb, tool);
	strbuf_printf(sb, "'%s ;;\n", takes_vm(c->synopsis) ? " vms=1" : "");
}

static void put_script(const struct tool *tool)
{
	AUTO_STRBUF struct strbuf sb = {0};

	put_filled(&sb, script_head, tool->name);
	strbuf_puts(&sb, "\toptions='");
	put_options(&sb, cli_globals, false);
	put_options(&sb, tool->options, false);
	strbuf_puts(&sb, "'\n\ttakes='");
	put_options(&sb, cli_globals, true);
	put_options(&sb, tool->options, true);
	strbuf_puts(&sb, " '\n");
	strbuf_puts(&sb, script_command);
	strbuf_puts(&sb, "\t'') words='");
	put_names_of_commands(&sb, tool);
	strbuf_puts(&sb, "' ;;\n");
	for (size_t i = 0; i < tool->ncommands; i++)
		put_command(&sb, tool, &tool->commands[i]);
	put_filled(&sb, script_tail, tool->name);
	cli_put(sb.data, sb.len);
}

/* --- names --- */

static bool is_plain(const char *name)
{
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return false;
	return *name && *name != '-';
}

static void put_names(struct slice vms)
{
	static const char *const members[] = {"name", "uuid"};
	AUTO_STRBUF struct strbuf sb = {0};
	struct js_iter it;
	struct slice vm;

	js_iter_init(&it, vms);
	while (js_next(&it, NULL, &vm)) {
		for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
			AUTO_FREE char *text = js_member_string(vm, members[i]);

			if (text && is_plain(text))
				strbuf_printf(&sb, "%s\n", text);
		}
	}
	cli_put(sb.data ? sb.data : "", sb.len);
}

int completion_run(struct cli *cli,
		   void (*vms)(struct cli *cli, char **ret_text, struct slice *ret_vms))
{
	AUTO_FREE char *text = NULL;
	struct slice found = {0};

	if (str_eq(cli->args[0], "bash")) {
		put_script(cli->tool);
	} else if (str_eq(cli->args[0], "names")) {
		vms(cli, &text, &found);
		put_names(found);
	} else {
		return cli_usage(cli, "Invalid argument to completion: \"%s\" (want bash or names)",
				 cli->args[0]);
	}
	return EXIT_OK;
}
