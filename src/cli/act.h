/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One action of vmadmd from the request to the last line: every command that changes something is
 * a struct act and a call of act_run. What takes a while is a job of vmadmd (docs/wire-vmadmd.md,
 * Jobs): followed to its end, with a bar where standard error is a terminal. --no-wait, --timeout
 * and --json mean the same for all.
 */
#pragma once

#include <stdbool.h>

#include "cli/cli.h"
#include "cli/js.h"

struct act {
	const char *target;  /* NULL: "/vm/" + the first argument */
	const char *query;   /* "?action=start&order=c"; NULL: none. wait= is added */
	const char *method;  /* NULL: POST */
	const char *body;    /* JSON; NULL: none */
	const char *success; /* '@' is the uuid */
	const char *word;    /* "start VM": it can be waited for; NULL: it is done at once */
	const char *failure; /* prefix of errors, '@' the VM as given; NULL: none */
	bool already_ok;     /* nothing to do is no error */
	bool job;            /* vmadmd can make a job of it: a terminal is shown a bar */
	bool lines;          /* elsewhere, JSON lines about it */
	int limit_ms; /* without --timeout; 0: none, the daemons have deadlines of their own */
	void (*tell)(struct cli *cli, struct slice result); /* before the success; NULL: nothing */
};

struct client_reply;
struct err;

/* Do it and tell its end; returns the exit code. */
int act_run(struct cli *cli, const struct act *a);

/* A line on a terminal that is written over and over, and away. */
void bar_put(long percent, const char *step);
void bar_clear(void);

enum job_show { JOB_SHOW_NOTHING, JOB_SHOW_BAR, JOB_SHOW_LINES };

/*
 * Follow a job until it ended; *ret is the job's object as a reply to free. With show a bar, or
 * the job as JSON lines, on standard error. 0, or an exit code with err filled.
 */
int job_follow(const struct cli *cli, const char *id, enum job_show show, struct client_reply *ret,
	       struct err *err);
/* How an ended job went: 0, or the exit code with err filled. */
int job_outcome(struct slice job, struct err *err);
