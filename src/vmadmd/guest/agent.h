/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest agent (qemu-ga) of a running VM: vmadmd is the one client of its channel, vm.agent.
 * QEMU tells when the guest opens its end; then the agent is asked to repeat a fresh number, and
 * whatever comes before that number is of earlier times. One command at a time, each with a
 * deadline; after a missed one the number comes first again. Everything a guest says is bounded.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "net/http.h"
#include "vmadmd/monitor.h"

struct err;
struct guest;

#define AGENT_LINE_MAX    (24u << 20) /* bytes: what qemu-ga keeps of an output, in base64 */
#define AGENT_QUEUE_MAX   32
#define AGENT_ANSWER_MS   5000u
#define AGENT_FREEZE_MS   10000u /* a guest thaws by then, unless told otherwise */
#define AGENT_FREEZE_MAX  300    /* s */
#define AGENT_SHUTDOWN_MS 5000u  /* of stopping, then the agent is asked too */
#define AGENT_LOOK_MS     30000u /* between two looks at the addresses */
#define AGENT_KEPT_MS     65000u /* after two looks in vain they are not known any more */

/* --- agent.c: the channel --- */
/* Open or close it as vmstated's facts say; and what follows from them. */
void agent_update(struct guest *g);
void agent_close(struct guest *g);
bool agent_answers(const struct guest *g);
/*
 * As monitor_ask: arguments are borrowed, a negative return (-ENOTCONN: nobody there) means done
 * will not run, else it runs once. -EREMOTEIO: the agent refused; err has its words.
 */
int agent_ask(struct guest *g, const char *command, const json_t *arguments, uint64_t timeout_ms,
	      monitor_done done, void *ctx, struct err *err);
/* {state: up, silent or down, since, frozen?, addresses?: {MAC: [address]}} into our facts, and
 * FACT_SAID. */
void agent_facts(const struct guest *g, json_t *facts);

/* --- agent_freeze.c --- */
/*
 * Freeze the guest's file systems; value is how many. They thaw after limit_ms whatever becomes of
 * the caller, or of us: who finds a guest frozen when he comes thaws it. -EALREADY: frozen.
 */
int agent_freeze(struct guest *g, uint64_t limit_ms, monitor_done done, void *ctx, struct err *err);
int agent_thaw(struct guest *g, monitor_done done, void *ctx, struct err *err);
bool agent_frozen(const struct guest *g);

/* --- agent_exec.c --- */
struct job;
struct vmadmd;
/* At our start: is it the job of a program in a guest, of which its agent still knows? */
bool agent_exec_again(struct vmadmd *d, const char *uuid, struct job *j);

/* --- agent_routes.c --- */
void handle_agent(struct http_request *req, void *ctx);
