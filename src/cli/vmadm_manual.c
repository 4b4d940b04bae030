/* SPDX-License-Identifier: Apache-2.0 */
/* The manual pages' generated parts; see vmadm_manual.h. A part is a row of the table at the end.
 */
#include "cli/vmadm_manual.h"

#include <inttypes.h>
#include <string.h>

#include "api/status.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "model/props.h"
#include "model/states.h"

/* A quoted macro argument, or a line of text. */
static void put_text(struct strbuf *sb, const char *text, bool quoted)
{
	if (!quoted && (*text == '.' || *text == '\''))
		strbuf_puts(sb, "\\&");
	for (const char *p = text; *p; p++) {
		if (*p == '\\')
			strbuf_puts(sb, "\\e");
		else if (*p == '"' && quoted)
			strbuf_puts(sb, "\\(dq");
		else
			strbuf_putc(sb, *p);
	}
}

typedef void put_row(struct strbuf *sb, const struct prop *row);

/* A list for each table of properties; rows for which put says nothing are left out. */
static void put_tables(struct strbuf *sb, const char *heading, put_row *put)
{
	for (size_t i = 0; i < HELP_TABLES; i++) {
		const struct prop_table *t = help_tables[i];

		strbuf_printf(sb, ".Ss %s %s\n", heading, t->what);
		if (t->key)
			strbuf_printf(sb, "They are told apart by\n.Va %s .\n", t->key);
		strbuf_puts(sb, ".Bl -tag -width Ds\n");
		for (size_t j = 0; j < t->count; j++)
			put(sb, &t->rows[j]);
		strbuf_puts(sb, ".El\n");
	}
}

static void put_property(struct strbuf *sb, const struct prop *row)
{
	AUTO_STRBUF struct strbuf kind = {0};

	help_kind(&kind, row);
	strbuf_printf(sb, ".It Va %s Pq \"", row->name);
	put_text(sb, kind.data, true);
	strbuf_puts(sb, "\"\n");
	put_text(sb, row->doc, false);
	strbuf_putc(sb, '\n');
	if (row->ucl)
		strbuf_printf(sb, "In files also\n.Va %s .\n", row->ucl);
}

static void properties(struct strbuf *sb)
{
	put_tables(sb, "Properties of", put_property);
}

/* What a definition file may hold, its bounds, and what holds when it says nothing. */
static void put_default(struct strbuf *sb, const struct prop *row)
{
	bool number = row->type == PROP_U32 || row->type == PROP_I32 || row->type == PROP_U64;

	if (number && row->max)
		strbuf_printf(sb, "From %" PRId64 " to %" PRId64 ".\n", row->min, row->max);
	if (row->def_str)
		strbuf_printf(sb, "Default:\n.Ql %s .\n", row->def_str);
	else if ((number || row->type == PROP_MS) && row->def)
		strbuf_printf(sb, "Default: %" PRId64 ".\n",
			      row->type == PROP_MS ? row->def / 1000 : row->def);
	else if (row->type == PROP_BOOL)
		strbuf_printf(sb, "Default: %s.\n", row->def ? "yes" : "no");
	else if (row->type == PROP_ENUM)
		strbuf_printf(sb, "Default:\n.Ql %s .\n", row->names[row->def]);
}

static void put_key(struct strbuf *sb, const struct prop *row)
{
	AUTO_STRBUF struct strbuf kind = {0};

	if (row->type == PROP_RUNTIME || row->type == PROP_MAP || (row->set & PAYLOAD_ONLY) ||
	    !(row->set & (ON_CREATE | BY_HAND)))
		return;
	help_kind(&kind, row);
	strbuf_printf(sb, ".It Ic %s", row->ucl ? row->ucl : row->name);
	if (row->ucl2)
		strbuf_printf(sb, " , %s", row->ucl2);
	if (row->ucl)
		strbuf_printf(sb, " , %s", row->name);
	kind.data[strcspn(kind.data, ";")] = '\0';
	strbuf_puts(sb, " Pq \"");
	put_text(sb, kind.data, true);
	strbuf_puts(sb, row->set & NEEDS_RESTART ? "; at next start\"\n" : "\"\n");
	put_text(sb, row->doc, false);
	strbuf_putc(sb, '\n');
	put_default(sb, row);
}

static void definition(struct strbuf *sb)
{
	put_tables(sb, "Keys of", put_key);
}

static const char *const show_words[] = {
	[SHOW_ALWAYS] = "always",
	[SHOW_SET] = "when set",
	[SHOW_TRUE] = "when true",
	[SHOW_SECRET] = "when set, to those who may read secrets",
};

static void put_member(struct strbuf *sb, const struct prop *row)
{
	if (row->show == SHOW_NEVER)
		return;
	strbuf_printf(sb, ".It Va %s Pq \"%s%s%s%s\"\n", row->name, row->unit ? row->unit : "",
		      row->unit ? "; " : "", show_words[row->show],
		      row->type == PROP_RUNTIME ? "; not to be set" : "");
	put_text(sb, row->doc, false);
	strbuf_putc(sb, '\n');
	if (row->column)
		strbuf_printf(sb, "Column\n.Li %s .\n", row->column);
}

static void object(struct strbuf *sb)
{
	put_tables(sb, "Members of", put_member);
}

static void states(struct strbuf *sb)
{
	strbuf_puts(sb, ".Bl -column PRESTOP_BEFORE_RESTART prestop_before_restart installed\n"
			".It Em state Ta Em hook Ta Em zone_state Ta Em state of the object\n");
	for (size_t i = 0; i < SUP_STATE_COUNT; i++)
		strbuf_printf(sb, ".It %s Ta %s Ta %s Ta %s\n", sup_states[i].label,
			      sup_states[i].hook ? sup_states[i].hook : "-",
			      sup_states[i].zone_state, sup_states[i].state);
	strbuf_puts(sb, ".El\n");
}

static void causes(struct strbuf *sb)
{
	for (size_t i = 0; i < END_CAUSE_COUNT; i++)
		strbuf_printf(sb, ".Cm %s%s\n", end_cause_names[i],
			      i + 1 < END_CAUSE_COUNT ? " ," : " .");
}

static void codes(struct strbuf *sb)
{
	strbuf_puts(sb, ".Bl -tag -width Ds -compact\n");
	for (int code = EXIT_OK; code <= EXIT_UNREACHABLE; code++)
		strbuf_printf(sb, ".It %d\n%s\n", code, exit_code_doc(code));
	strbuf_puts(sb, ".El\n");
}

static const struct part {
	const char *name;
	void (*put)(struct strbuf *sb);
} parts[] = {
	{"properties-mdoc", properties}, {"definition-mdoc", definition}, {"object-mdoc", object},
	{"states-mdoc", states},         {"causes-mdoc", causes},         {"codes-mdoc", codes},
};

bool manual_part(const char *name)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < ARRAY_SIZE(parts) && !sb.len; i++)
		if (str_eq(parts[i].name, name))
			parts[i].put(&sb);
	if (sb.len)
		cli_put(sb.data, sb.len);
	return sb.len > 0;
}
