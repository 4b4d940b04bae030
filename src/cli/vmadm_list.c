/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm list and lookup; see vmadm.h. Source: smartos facts 6.3-6.5. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/table.h"
#include "cli/request.h"
#include "cli/rows.h"
#include "cli/vmadm.h"
#include "model/props.h"

#define DEFAULT_COLUMNS "uuid,type,ram,state,alias"
#define DEFAULT_SORT    "ram,uuid"
#define MEMBER_UUID     "uuid"

/* clang-format off */
const struct cli_option list_options[] = {
	{ 'p', 'p', NULL, NULL,     "parseable: ':' between values, no padding, no header" },
	{ 'H', 'H', NULL, NULL,     "no header" },
	{ 'h', 'h', NULL, NULL,     "header even with -p" },
	{ 'o', 'o', NULL, "FIELDS", "columns, separated by commas; default " DEFAULT_COLUMNS },
	{ 's', 's', NULL, "FIELDS", "sort by these, -FIELD descending; default " DEFAULT_SORT },
	{ 0 },
};
const struct cli_option lookup_options[] = {
	{ 'j', 'j', NULL, NULL,     "print an array of VM objects" },
	{ '1', '1', NULL, NULL,     "fail unless exactly one VM matches" },
	{ 'o', 'o', NULL, "FIELDS", "with -j: only these members" },
	{ 0 },
};
/* clang-format on */

static int ask(struct cli *cli, const char *target, struct client_reply *ret, struct err *err)
{
	struct request rq = {
		.peer = PEER_VMINFOD, .method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};

	return request_run(cli, &rq, ret, err);
}

static int add_filters(struct cli *cli, struct rows_query *q, const char *word, struct err *err)
{
	for (int i = 0; i < cli->nargs; i++)
		if (rows_add_filter(q, cli->args[i], word, err) < 0)
			return EXIT_FAILED;
	return 0;
}

/* --- JSON of both --- */

/* One object with only the named members, in its own order; "" when none is left. */
static void put_members(struct strbuf *sb, const struct rows_query *only, struct slice object)
{
	struct slice key, value;
	struct js_iter it;
	const char *open = "{";

	js_iter_init(&it, object);
	while (js_next(&it, &key, &value))
		for (size_t i = 0; i < only->nmembers; i++) {
			if (!js_is(key, only->members[i]))
				continue;
			strbuf_puts(sb, open);
			strbuf_add(sb, key.p, key.len);
			strbuf_putc(sb, ':');
			strbuf_add(sb, value.p, value.len);
			open = ",";
			break;
		}
	if (*open == ',')
		strbuf_putc(sb, '}');
}

/* only: members to keep, NULL for whole objects. */
static void put_objects(const struct rows *rows, const struct rows_query *only)
{
	AUTO_STRBUF struct strbuf sb = {0};
	size_t before;

	strbuf_putc(&sb, '[');
	for (size_t i = 0; i < rows->count; i++) {
		before = sb.len;
		if (before > 1)
			strbuf_putc(&sb, ',');
		if (only)
			put_members(&sb, only, rows->items[i].object);
		else
			strbuf_add(&sb, rows->items[i].object.p, rows->items[i].object.len);
		if (sb.len == before + (before > 1))
			sb.len = before; /* nothing left of this one */
	}
	strbuf_putc(&sb, ']');
	cli_put_json((struct slice){sb.data, sb.len});
}

/* --- list --- */

/* Columns as members, also those that are computed or lie deeper; missing ones are left out. */
static void put_list_json(const struct rows_query *q, const struct rows *rows)
{
	AUTO_STRBUF struct strbuf sb = {0};

	strbuf_putc(&sb, '[');
	for (size_t i = 0; i < rows->count; i++) {
		const char *open = "{";

		strbuf_puts(&sb, i ? "," : "");
		for (size_t c = 0; c < q->ncolumns; c++) {
			struct slice v = rows_value(&rows->items[i], &q->columns[c]);
			AUTO_JSON json_t *name = json_string(q->columns[c].text);
			AUTO_FREE char *key = json_text(name);

			if (!v.p)
				continue;
			strbuf_printf(&sb, "%s%s:", open, key);
			strbuf_add(&sb, v.p, v.len);
			open = ",";
		}
		strbuf_puts(&sb, *open == '{' ? "{}" : "}");
	}
	strbuf_putc(&sb, ']');
	cli_put_json((struct slice){sb.data, sb.len});
}

static void put_rows(const struct rows_query *q, const struct rows *rows, const struct table *t)
{
	AUTO_FREE char **cells = xcalloc(q->ncolumns, sizeof(*cells));

	for (size_t i = 0; i < rows->count; i++) {
		for (size_t c = 0; c < q->ncolumns; c++)
			cells[c] = field_cell(rows_value(&rows->items[i], &q->columns[c]));
		table_row(t, (const char *const *)cells);
		for (size_t c = 0; c < q->ncolumns; c++)
			free(cells[c]);
	}
}

static void put_table(struct cli *cli, const struct rows_query *q, const struct rows *rows)
{
	AUTO_FREE struct table_column *columns = xcalloc(q->ncolumns, sizeof(*columns));
	struct table t = {.columns = columns,
			  .count = q->ncolumns,
			  .parseable = cli_flag(cli, 'p'),
			  .out = stdout};

	for (size_t i = 0; i < q->ncolumns; i++)
		columns[i] = (struct table_column){q->columns[i].header, q->columns[i].width};
	if (!cli_flag(cli, 'H') && (!t.parseable || cli_flag(cli, 'h')))
		table_header(&t);
	put_rows(q, rows, &t);
}

/* Setting the locale costs more than everything else; only other than ASCII text needs it. */
static void prepare_widths(const struct client_reply *reply)
{
	for (size_t i = 0; i < reply->len; i++)
		if (reply->body[i] & 0x80) {
			(void)setlocale(LC_CTYPE, "");
			return;
		}
}

static int list_query(struct cli *cli, struct rows_query *q, struct err *err)
{
	const char *columns = cli_opt(cli, 'o'), *sort = cli_opt(cli, 's');

	if (rows_add_columns(q, columns ? columns : DEFAULT_COLUMNS, err) < 0 ||
	    rows_add_sort(q, sort ? sort : DEFAULT_SORT, err) < 0)
		return EXIT_FAILED;
	return add_filters(cli, q, "filter", err);
}

static int list(struct cli *cli, struct rows_query *q, struct err *err)
{
	AUTO_FREE char *target = NULL;
	struct client_reply reply;
	struct rows rows;
	int code = list_query(cli, q, err), r;

	if (code)
		return code;
	target = rows_target(q);
	code = ask(cli, target, &reply, err);
	if (code)
		return code;
	r = rows_read(q, reply.body, reply.len, &rows, err);
	if (r == 0) {
		prepare_widths(&reply);
		if (cli_flag(cli, OPT_JSON))
			put_list_json(q, &rows);
		else
			put_table(cli, q, &rows);
		rows_done(&rows);
	}
	client_reply_done(&reply);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}

int cmd_list(struct cli *cli)
{
	struct rows_query q = {0};
	struct err err = {0};
	int code = list(cli, &q, &err);

	rows_query_done(&q);
	return code ? request_fail(code, NULL, &err) : EXIT_OK;
}

/* --- lookup --- */

/* -o names members of the VM object, columns or not. */
static int lookup_members(struct rows_query *q, const char *list, struct err *err)
{
	AUTO_FREE char *copy = xstrdup(list);
	char *rest = copy, *name;

	while ((name = strsep(&rest, ","))) {
		if (!prop_find(&vm_props, name, false))
			return err_set(err, EINVAL, "Invalid lookup key: \"%s\"", name);
		(void)rows_need(q, name);
	}
	return 0;
}

static int put_found(struct cli *cli, const struct rows *rows, const struct rows_query *only,
		     struct err *err)
{
	if (cli_flag(cli, '1') && rows->count != 1) {
		(void)err_set(err, EINVAL, "Requested unique lookup but found %zu results.",
			      rows->count);
		return EXIT_FAILED;
	}
	if (cli_flag(cli, 'j') || cli_flag(cli, OPT_JSON)) {
		put_objects(rows, only->nmembers ? only : NULL);
		return EXIT_OK;
	}
	for (size_t i = 0; i < rows->count; i++) {
		AUTO_FREE char *uuid = js_member_string(rows->items[i].object, MEMBER_UUID);
		AUTO_STRBUF struct strbuf sb = {0};

		strbuf_put_escaped(&sb, uuid ? uuid : "");
		strbuf_putc(&sb, '\n');
		cli_put(sb.data, sb.len);
	}
	return EXIT_OK;
}

static int lookup(struct cli *cli, struct rows_query *q, struct rows_query *only, struct err *err)
{
	bool json = cli_flag(cli, 'j') || cli_flag(cli, OPT_JSON);
	const char *members = cli_opt(cli, 'o');
	AUTO_FREE char *target = NULL;
	struct client_reply reply;
	struct rows rows;
	int code, r;

	if (members && (lookup_members(only, members, err) < 0 || lookup_members(q, members, err)))
		return EXIT_FAILED;
	(void)rows_need(q, MEMBER_UUID);
	code = add_filters(cli, q, "lookup", err);
	if (code)
		return code;
	target = json && !members ? xstrdup("/vms") : rows_target(q);
	code = ask(cli, target, &reply, err);
	if (code)
		return code;
	r = rows_read(q, reply.body, reply.len, &rows, err);
	if (r == 0) {
		code = put_found(cli, &rows, only, err);
		rows_done(&rows);
	}
	client_reply_done(&reply);
	return r < 0 ? EXIT_FAILED : code;
}

int cmd_lookup(struct cli *cli)
{
	struct rows_query q = {0}, only = {0};
	struct err err = {0};
	int code;

	if (cli_flag(cli, 'o') && !cli_flag(cli, 'j') && !cli_flag(cli, OPT_JSON))
		return cli_usage(cli, "Cannot specify -o without -j");
	code = lookup(cli, &q, &only, &err);
	rows_query_done(&q);
	rows_query_done(&only);
	return code ? request_fail(code, NULL, &err) : EXIT_OK;
}
