/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm doctor: what stands in the way of virtual machines on this host, a line each with what to
 * do about it. Facts come from doctor_facts.c, or with -f from a file that --json wrote, here or on
 * another host; the checks are in doctor_checks.c.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/doctor.h"
#include "cli/vmadm.h"

/* clang-format off */
const struct cli_option doctor_options[] = {
	{ 'f', 'f', "file", "FILE", "judge the facts in this file, written by doctor --json, not this host" },
	{ 0 },
};
/* clang-format on */

/* The facts of a file; *ret_file owns them. */
static int read_facts(const char *path, json_t **ret_file, json_t **ret_facts, struct err *err)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	int r = file_read(path, JSON_TEXT_MAX, &text, &len, NULL, err);

	if (r == 0)
		r = json_parse_object(text, len, path, ret_file, err);
	if (r < 0)
		return r;
	*ret_facts = json_object_get(*ret_file, "facts");
	if (!json_is_object(*ret_facts))
		return err_set(err, EINVAL,
			       "%s: no member \"facts\" (want what vmadm doctor "
			       "--json wrote)",
			       path);
	(void)json_incref(*ret_facts);
	return 0;
}

static void put_findings(const json_t *findings)
{
	AUTO_STRBUF struct strbuf sb = {0};
	const json_t *one;
	size_t i;

	json_array_foreach ((json_t *)findings, i, one) {
		const char *remedy = json_get_str(one, "remedy", NULL);

		strbuf_printf(&sb, "%-7s  %-11s  ", json_get_str(one, "result", "?"),
			      json_get_str(one, "check", "?"));
		strbuf_put_escaped(&sb, json_get_str(one, "text", ""));
		if (remedy)
			strbuf_puts(&sb, " -> ");
		strbuf_put_escaped(&sb, remedy ? remedy : "");
		strbuf_putc(&sb, '\n');
	}
	cli_put(sb.data, sb.len);
}

static void put_json(json_t *findings, json_t *facts)
{
	AUTO_JSON json_t *out = json_object();
	AUTO_FREE char *text = NULL;

	(void)json_object_set(out, "findings", findings);
	(void)json_object_set(out, "facts", facts);
	text = json_text(out);
	cli_put_json(js_value(text, strlen(text)));
}

int cmd_doctor(struct cli *cli)
{
	const char *path = cli_opt(cli, 'f');
	AUTO_JSON json_t *file = NULL, *facts = NULL, *findings = NULL;
	enum verdict worst;
	struct err err = {0};
	int r = 0;

	if (path)
		r = read_facts(path, &file, &facts, &err);
	else
		facts = doctor_facts(cli);
	if (r < 0)
		return cli_fail(EXIT_FAILED, "%s", err_text(&err, r));
	findings = doctor_judge(facts, &worst);
	if (cli_flag(cli, OPT_JSON))
		put_json(findings, facts);
	else
		put_findings(findings);
	r = cli_flush();
	return r == EXIT_OK && worst == VERDICT_BAD ? EXIT_FAILED : r;
}
