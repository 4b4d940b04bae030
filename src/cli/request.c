/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the daemons and their ends; see request.h. */
#include "cli/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "cli/cli.h"

#define HOST_MAX 65

static const struct {
	const char *name;
	size_t at; /* of the socket in struct paths */
} peers[PEER_COUNT] = {
	[PEER_VMSTATED] = {"vmstated", offsetof(struct paths, vmstated)},
	[PEER_VMADMD] = {"vmadmd", offsetof(struct paths, vmadmd)},
	[PEER_VMINFOD] = {"vminfod", offsetof(struct paths, vminfod)},
};

const char *peer_path(const struct cli *cli, enum peer peer)
{
	return *(char *const *)(const void *)((const char *)&cli->paths + peers[peer].at);
}

const char *peer_name(enum peer peer)
{
	return peers[peer].name;
}

char *request_agent(const char *name)
{
	char host[HOST_MAX] = "localhost";

	(void)gethostname(host, sizeof(host) - 1);
	return xasprintf("%s - %s/%ld (%s)", name, host, (long)getpid(), program_invocation_name);
}

char *request_name_vmadm(void)
{
	const char *ident = getenv("VMADM_IDENT"), *id = getenv("REQ_ID");

	return xasprintf("vmadm CLI%s%s%s%s%s", ident ? " - " : "", ident ? ident : "",
			 id ? " - (req_id: " : "", id ? id : "", id ? ")" : "");
}

int request_open(const struct cli *cli, enum peer peer, const char *agent, struct client *ret,
		 struct err *err)
{
	AUTO_FREE char *own = agent ? NULL : request_agent(cli->tool->name);
	int r = client_open(ret, peer_path(cli, peer), agent ? agent : own, PEER_WAIT_MS, err);

	if (r >= 0)
		return 0;
	if (r == -EACCES || r == -EPERM)
		return EXIT_DENIED;
	(void)err_wrap(err, r, "%s does not answer (is it running?)", peers[peer].name);
	return EXIT_UNREACHABLE;
}

bool request_reachable(const struct cli *cli, enum peer peer)
{
	struct client c;

	if (client_open(&c, peer_path(cli, peer), NULL, 0, NULL) < 0)
		return false;
	client_close(&c);
	return true;
}

static int limit_of(const struct cli *cli, const struct request *rq)
{
	return cli->timeout_ms >= 0 ? cli->timeout_ms : rq->limit_ms;
}

/* The daemon took the request, perhaps, but gave no answer. */
static int no_answer(const struct cli *cli, const struct request *rq, int r, struct err *err)
{
	const char *name = peers[rq->peer].name;
	bool read_only = str_eq(rq->method, "GET");

	if (r == -ETIMEDOUT)
		err_set(err, ETIMEDOUT, "%s has not answered within %d s%s", name,
			limit_of(cli, rq) / 1000,
			read_only ? "" : "; what was asked for may still happen");
	else if (r == -ECONNRESET)
		err_set(err, ECONNRESET, "%s closed the connection without an answer%s", name,
			read_only ? "" : "; what was asked for may have been done");
	return exit_from_errno(r);
}

static void say_status(const char *text, int status, int errnum, struct err *err)
{
	AUTO_FREE char *number = xasprintf("%d", status);
	AUTO_FREE char *message = cli_fill_in(text, number);

	(void)err_set(err, errnum, "%s", message);
}

int request_run(const struct cli *cli, const struct request *rq, struct client_reply *ret,
		struct err *err)
{
	struct client c;
	int code = request_open(cli, rq->peer, rq->agent, &c, err), r;

	*ret = (struct client_reply){0};
	if (code)
		return code;
	r = client_call(&c, rq->method, rq->target, rq->body, limit_of(cli, rq), ret, err);
	client_close(&c);
	if (r < 0)
		return no_answer(cli, rq, r, err);
	r = client_reply_error(ret, err);
	if (r == 0)
		return 0;
	code = exit_from_errno(r);
	if (code == EXIT_FAILED)
		code = exit_from_status(ret->status);
	if (ret->len == 0 && rq->silent)
		say_status(rq->silent, ret->status, -r, err);
	free(ret->body);
	ret->body = NULL;
	ret->len = 0;
	return code ? code : EXIT_FAILED;
}

int request_fail(int code, const char *prefix, const struct err *err)
{
	bool bare = code == EXIT_UNKNOWN_VM || code == EXIT_UNREACHABLE;

	return cli_fail(code, "%s%s", bare || !prefix ? "" : prefix, err_text(err, -EIO));
}

int request_finish(const struct cli *cli, const struct client_reply *reply, const char *fmt, ...)
{
	struct slice json = js_value(reply->body ? reply->body : "", reply->len), confirmed;
	AUTO_FREE char *text = NULL;
	va_list ap;

	if (cli_flag(cli, OPT_JSON) && js_type(json) == '{')
		cli_put_json(json);
	(void)cli_flush();
	if (fmt) {
		va_start(ap, fmt);
		if (vasprintf(&text, fmt, ap) < 0)
			abort();
		va_end(ap);
		cli_say("%s", text);
	}
	confirmed = js_member(json, "confirmed");
	if (js_type(confirmed) != 'f')
		return EXIT_OK;
	return cli_fail(
		EXIT_NOT_CONFIRMED,
		"Not confirmed: this is done, but vminfod has not said that readers see it");
}

char *request_uuid(const struct client_reply *reply, const char *id)
{
	const char *text = reply->body ? reply->body : "", *space = strrchr(text, ' ');
	char *uuid = js_member_string(js_value(text, reply->len), "uuid");

	if (uuid)
		return uuid;
	return xstrdup(space && uuid_valid(space + 1) ? space + 1 : id);
}

char *request_target(const char *prefix, const char *id, const char *suffix)
{
	AUTO_FREE char *escaped = client_escape(id);

	return xasprintf("%s%s%s", prefix, escaped, suffix);
}
