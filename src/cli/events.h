/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vminfod's event stream as lines, for `vminfo events` and `vmadm events`.
 * Source: smartos facts 4.2, 4.7.
 */
#pragma once

#include <stdbool.h>

#include "cli/cli.h"
#include "cli/js.h"

struct err;
struct strbuf;

struct event_view {
	bool ready;   /* -r: the ready event, too */
	bool full;    /* -f: whole date and zone name */
	bool json;    /* -j: one object per line; wins over full */
	bool decoded; /* of -j: `vms` as an object keyed by zonename instead of a string */
};

#define EVENT_ALIAS_MAX 30 /* characters */

/* Append the lines of one event; none for ready unless wanted. -EPROTO when it is no event. */
int event_lines(struct strbuf *sb, struct slice event, const struct event_view *view,
		struct err *err);

/* Options -f, -j, -r of both tools, with their long forms. */
extern const struct cli_option event_options[];

struct events_request {
	const char *agent; /* User-Agent */
	const char *id;    /* only this VM; NULL: all */
	bool decoded;
};

/* Print events until the stream ends, which is an error. Returns the exit code, all told. */
int events_run(struct cli *cli, const struct events_request *rq);
