/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm help: beside the commands the properties; see vmadm_manual.c for the manual pages. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/vmadm.h"
#include "cli/vmadm_manual.h"
#include "model/props.h"

static const char *const type_names[] = {
	[PROP_STR] = "string",        [PROP_BOOL] = "boolean",
	[PROP_U32] = "number",        [PROP_I32] = "number",
	[PROP_U64] = "number",        [PROP_MS] = "duration",
	[PROP_ENUM] = "one of",       [PROP_LIST] = "list",
	[PROP_MAP] = "map",           [PROP_DISKS] = "list of disks",
	[PROP_NICS] = "list of nics", [PROP_CONSOLES] = "list of consoles",
	[PROP_RUNTIME] = "shown",
};

/* When a property may be set, in words. */
static const struct {
	unsigned flag;
	const char *word;
} set_words[] = {
	{ON_CREATE, "create"},  {ON_UPDATE, "update"},
	{LIVE, "live"},         {NEEDS_RESTART, "at next start"},
	{BY_HAND, "file only"}, {PAYLOAD_ONLY, "not stored"},
};

const struct prop_table *const help_tables[HELP_TABLES] = {&vm_props, &disk_props, &nic_props,
							   &console_props};

/* "number, MiB; create, update" */
void help_kind(struct strbuf *sb, const struct prop *row)
{
	const char *sep = "";

	strbuf_puts(sb, type_names[row->type]);
	for (size_t i = 0; row->type == PROP_ENUM && i < row->nnames; i++)
		strbuf_printf(sb, "%s%s", i ? ", " : " ", row->names[i]);
	if (row->unit)
		strbuf_printf(sb, ", %s", row->unit);
	strbuf_puts(sb, row->set ? "; " : "");
	for (size_t i = 0; i < ARRAY_SIZE(set_words); i++) {
		if (!(row->set & set_words[i].flag))
			continue;
		strbuf_printf(sb, "%s%s", sep, set_words[i].word);
		sep = ", ";
	}
}

static void put_property(struct strbuf *sb, const struct prop *row)
{
	strbuf_printf(sb, "  %s  (", row->name);
	help_kind(sb, row);
	strbuf_putc(sb, ')');
	if (row->ucl)
		strbuf_printf(sb, "  in files also: %s", row->ucl);
	strbuf_printf(sb, "\n      %s\n", row->doc);
}

static int help_properties(void)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < HELP_TABLES; i++) {
		const struct prop_table *t = help_tables[i];

		strbuf_printf(&sb, "%sProperties of %s%s%s%s:\n", i ? "\n" : "", t->what,
			      t->key ? " (told apart by " : "", t->key ? t->key : "",
			      t->key ? ")" : "");
		for (size_t j = 0; j < t->count; j++)
			put_property(&sb, &t->rows[j]);
	}
	cli_put(sb.data, sb.len);
	return EXIT_OK;
}

int cmd_help(struct cli *cli)
{
	if (cli->nargs > 0 && str_eq(cli->args[0], "properties"))
		return help_properties();
	if (cli->nargs > 0 && manual_part(cli->args[0]))
		return EXIT_OK;
	return cli_help(cli);
}
