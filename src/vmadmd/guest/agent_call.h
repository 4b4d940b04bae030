/* SPDX-License-Identifier: Apache-2.0 */
/* A request for a guest's agent, from its handler to its answer (agent_routes.c). */
#pragma once

#include <jansson.h>

#include "base/uuid.h"
#include "vmadmd/guest/agent.h"

struct agent_call;
struct err;
struct vmadmd;

struct agent_verb {
	const char *name;
	const char *member; /* of the answer, that has the agent's; NULL: none */
	int (*run)(struct agent_call *call, struct guest *g, struct err *err);
};

struct agent_call {
	struct vmadmd *d;
	const struct agent_verb *verb;
	struct http_request *req; /* NULL: the client left */
	char uuid[UUID_LEN + 1];
	json_t *body;
};

/* Answer and free it; value is taken. */
void agent_call_end(struct agent_call *call, int r, json_t *value, const struct err *err);

/* From run: answered by 202 with the job that goes on for it, and not to be used again. */
void agent_call_accepted(struct agent_call *call, const char *job);

/* --- agent_exec.c: {command: [words], input, timeout}: a program in the guest, to its end --- */
int agent_exec(struct agent_call *call, struct guest *g, struct err *err);
int agent_exec_status(struct agent_call *call, struct guest *g, struct err *err);
