/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a message to the list of commands it means: pure, but for reading the deployment file and
 * looking which transfer scripts exist. All that can be wrong with the message is found here, so
 * nothing is run for a message that cannot be finished.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "one/driver/driver_steps.h"

struct driver_options;
struct err;
struct message;

enum command_via {
	VIA_LOCAL, /* a process on the front-end */
	VIA_SHELL, /* a line to the shell kept open on the host */
	VIA_SSH,   /* ssh HOST COMMAND */
};
#define COMMAND_VIAS 3

/* In argv: the deploy id, known when deploy has answered. */
extern const char plan_deploy_id[];

struct command {
	const struct step *step;
	enum command_via via;
	bool last;        /* of its step */
	char *log_name;   /* owned */
	char *network;    /* network driver, or NULL; owned */
	const char *host; /* borrowed from the plan */
	char *path;       /* of the script, or of the file or directory; owned */
	char **argv; /* arguments, without the path, NULL at the end; owned but plan_deploy_id */
	size_t argc;
	size_t fixed;   /* the first so many are parameters, the rest VM id and host */
	const char *in; /* standard input, borrowed from the plan, or NULL */
	size_t in_len;
	struct command *undo; /* owned */
	size_t undo_count;
};

struct plan {
	struct command *commands;
	size_t count;
	char *host, *migr_host, *prefix, *deploy_id;
	bool delegate;           /* ssh forwards the agent */
	char *ins[STEP_INS * 2]; /* texts by enum step_in, plain and base64 */
	char *payload;
};

#define AUTO_PLAN __attribute__((cleanup(plan_done)))

/* -EINVAL and the like with what the core is to be told; *ret is to be freed in any case. */
int plan_make(const struct message *m, const struct driver_options *o, struct plan *ret,
	      struct err *err);
void plan_done(struct plan *plan);

/* argument i as text. */
const char *command_arg(const struct plan *plan, const struct command *c, size_t i);
