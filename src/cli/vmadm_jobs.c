/* SPDX-License-Identifier: Apache-2.0 */
/* vmadm jobs: what vmadmd is doing that takes a while, and has done; see vmadm.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/table.h"
#include "base/uuid.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define PREFIX_MIN 4

static int ask(struct cli *cli, const char *method, const char *target, struct client_reply *ret)
{
	const struct request rq = {
		.peer = PEER_VMADMD, .method = method, .target = target, .limit_ms = READ_LIMIT_MS};
	struct err err = {0};
	int code = request_run(cli, &rq, ret, &err);

	/* what is unknown is a job */
	return code ? request_fail(code == EXIT_UNKNOWN_VM ? EXIT_FAILED : code, NULL, &err) : 0;
}

/* --- the list --- */

static void put_jobs(struct slice jobs)
{
	static const struct table_column columns[] = {{"JOB", 36},  {"KIND", 10},   {"VM", 36},
						      {"STATE", 9}, {"PERCENT", 7}, {"STARTED", 24},
						      {"STEP", 12}};
	static const char *const members[] = {"id",      "kind",    "uuid", "state",
					      "percent", "started", "step"};

	cli_put_table(jobs, columns, members, ARRAY_SIZE(columns), NULL);
}

static int list(struct cli *cli)
{
	struct client_reply reply;
	int code = ask(cli, "GET", "/jobs", &reply);
	struct slice jobs;

	if (code)
		return code;
	jobs = js_member(js_value(reply.body, reply.len), "jobs");
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(jobs.p ? jobs : js_value("[]", 2));
	else
		put_jobs(jobs);
	client_reply_done(&reply);
	return EXIT_OK;
}

/* --- one of them --- */

/* A job's whole id of its first characters: 0, or the exit code, told. */
static int find(struct cli *cli, const char *given, char **ret)
{
	AUTO_FREE char *found = NULL;
	struct client_reply reply;
	struct js_iter it;
	struct slice job;
	int code, count = 0;

	if (uuid_valid(given)) {
		*ret = xstrdup(given);
		return 0;
	}
	code = ask(cli, "GET", "/jobs", &reply);
	if (code)
		return code;
	js_iter_init(&it, js_member(js_value(reply.body, reply.len), "jobs"));
	while (strlen(given) >= PREFIX_MIN && js_next(&it, NULL, &job)) {
		AUTO_FREE char *id = js_member_string(job, "id");

		if (!id || !str_starts(id, given))
			continue;
		count++;
		replace_str(&found, steal_ptr(id));
	}
	client_reply_done(&reply);
	if (count == 0)
		return cli_fail(EXIT_FAILED, "Job %s not found", given);
	if (count > 1)
		return cli_fail(EXIT_CONFLICT, "%s is ambiguous: %d jobs begin so", given, count);
	*ret = steal_ptr(found);
	return 0;
}

static int show(struct cli *cli, const char *id)
{
	AUTO_FREE char *target = request_target("/jobs/", id, "");
	struct client_reply reply;
	int code = ask(cli, "GET", target, &reply);

	if (code)
		return code;
	cli_put_json(js_value(reply.body, reply.len));
	client_reply_done(&reply);
	return EXIT_OK;
}

static int watch(struct cli *cli, const char *id)
{
	struct client_reply reply;
	struct err err = {0};
	int code = job_follow(cli, id, isatty(STDERR_FILENO) ? JOB_SHOW_BAR : JOB_SHOW_NOTHING,
			      &reply, &err);
	struct slice job;

	if (code)
		return request_fail(code, NULL, &err);
	job = js_value(reply.body, reply.len);
	code = job_outcome(job, &err);
	if (cli_flag(cli, OPT_JSON))
		cli_put_json(job);
	(void)cli_flush();
	client_reply_done(&reply);
	if (code)
		return cli_fail(code, "Job %s failed: %s", id, err_text(&err, -EIO));
	return cli_fail(EXIT_OK, "Job %s is done", id);
}

static int cancel(struct cli *cli, const char *id)
{
	AUTO_FREE char *target = request_target("/jobs/", id, "");
	struct client_reply reply;
	int code = ask(cli, "DELETE", target, &reply);

	if (code)
		return code;
	code = request_finish(cli, &reply, "Asked for the end of job %s", id);
	client_reply_done(&reply);
	return code;
}

int cmd_jobs(struct cli *cli)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *cli, const char *id);
	} verbs[] = {{"watch", watch}, {"cancel", cancel}};
	AUTO_FREE char *id = NULL;
	int code;

	if (cli->nargs == 0 || (cli->nargs == 1 && str_eq(cli->args[0], "list")))
		return list(cli);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (!str_eq(cli->args[0], verbs[i].name))
			continue;
		if (cli->nargs < 2)
			return cli_usage(cli, "Which job? (vmadm jobs lists them)");
		code = find(cli, cli->args[1], &id);
		return code ? code : verbs[i].run(cli, id);
	}
	if (cli->nargs > 1)
		return cli_usage(cli, "Unknown: jobs %s (want watch or cancel)", cli->args[0]);
	code = find(cli, cli->args[0], &id);
	return code ? code : show(cli, id);
}
