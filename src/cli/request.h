/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking a daemon, and turning its answer into an exit code and a line on stderr. The only place
 * of the tools that knows sockets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "api/client.h"
#include "cli/cli.h"
#include "cli/js.h"

enum peer { PEER_VMSTATED, PEER_VMADMD, PEER_VMINFOD };
#define PEER_COUNT 3

#define PEER_WAIT_MS  2000  /* for a daemon that is starting anew */
#define READ_LIMIT_MS 60000 /* an answer without --timeout: reads and small requests */
#define NO_LIMIT_MS   (-1)  /* lifecycle: the daemon has deadlines of its own */

/* The socket's path (borrowed) and the daemon's name. */
const char *peer_path(const struct cli *cli, enum peer peer);
const char *peer_name(enum peer peer);

/*
 * "NAME - HOST/PID (PROGRAM)" as the User-Agent; caller frees. Source: smartos facts 4.1, 4.7.
 */
char *request_agent(const char *name);
/* vmadm's name of itself, with $VMADM_IDENT and $REQ_ID; caller frees. */
char *request_name_vmadm(void);

/* Connect: 0, or an exit code with err filled. agent may be NULL. */
int request_open(const struct cli *cli, enum peer peer, const char *agent, struct client *ret,
		 struct err *err);

/* Whether the daemon listens now; request_open waits a while for one that is starting anew. */
bool request_reachable(const struct cli *cli, enum peer peer);

struct request {
	enum peer peer;
	const char *method;
	const char *target;
	const char *body;   /* NULL: none */
	const char *agent;  /* NULL: the tool's name */
	int limit_ms;       /* without --timeout */
	const char *silent; /* message for an error without a body, '@' is the status; NULL: ours */
};

/*
 * One request. 0 and a 2xx reply, which the caller frees with client_reply_done; else the exit
 * code (never 0), err.code (errno) and err.msg. The reply is empty then, but for its status.
 */
int request_run(const struct cli *cli, const struct request *rq, struct client_reply *ret,
		struct err *err);

/* Tell err on one line, behind prefix (not for an unknown VM, which reads alike everywhere). */
int request_fail(int code, const char *prefix, const struct err *err);

/*
 * The end of a command that changed something: --json prints the reply, then the success line
 * (may be NULL) on stderr. EXIT_NOT_CONFIRMED with a line when the reply says so.
 */
int request_finish(const struct cli *cli, const struct client_reply *reply, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The uuid a reply names, in its object or as the last word of its text; else id. Caller frees. */
char *request_uuid(const struct client_reply *reply, const char *id);

/* "prefix" + id as one path segment + "suffix"; caller frees. */
char *request_target(const char *prefix, const char *id, const char *suffix);
