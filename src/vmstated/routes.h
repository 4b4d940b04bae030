/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of the control socket beside those of single guests, and what handlers share. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct err;
struct guest;
struct http_request;
struct supervisor;

/* Answers 403 and returns true when the peer may not act on g (NULL: on the whole host). */
bool routes_refused(struct supervisor *sup, struct http_request *req, const struct guest *g);

/* The guest of a request; NULL: it was answered that there is none. */
struct guest *routes_guest(struct http_request *req, struct supervisor *sup);
/* The guest and body of a request; < 0: it was answered with a refusal. *ret_body is the caller's.
 */
int routes_take(struct http_request *req, void *ctx, struct guest **ret, json_t **ret_body);
/* -EPERM: the request is not of the daemon that acts, nor of whom it may be. */
int routes_for_vmadmd(struct http_request *req, struct err *err);

/* --- answer.c --- */
enum goal { GOAL_RUNNING, GOAL_STOPPED, GOAL_RESET };

#define RESET_MS 5000u /* until the machine was reset */

/*
 * Answer when g is there and vminfod has seen it. least: of GOAL_RUNNING the zoneid, of GOAL_RESET
 * the count of resets, which is to come within RESET_MS.
 */
void answer_when(struct guest *g, struct http_request *req, enum goal goal, uint32_t least);

/* --- applied.c: the running machine has what the definition says of the elements named --- */
void route_applied(struct http_request *req, void *ctx);

/* --- net_plug.c --- */
void route_plug_nic(struct http_request *req, void *ctx);
void route_unplug_nic(struct http_request *req, void *ctx);

/* --- facts.c --- */
/* of_known: also of VMs that go on as their file was before, whose facts say "broken", and
 * configfiles that are not there. */
json_t *definition_problems(const struct supervisor *sup, bool of_known);

/* --- host.c --- */
void post_shutdown_all(struct http_request *req, void *ctx);
void post_upgrade(struct http_request *req, void *ctx);
/* A guest's state changed: go on with a shutdown under way. */
void shutdown_check(struct supervisor *sup);
void shutdown_free(struct supervisor *sup);
/* Where to find our own program again, before it may be replaced. */
void upgrade_prepare(struct supervisor *sup, char **argv);
/* Environment of a program executed anew: numbers of the descriptors handed over. */
#define UPGRADE_LISTEN_FD "DROVER_LISTEN_FD"
#define UPGRADE_LOCK_FD   "DROVER_LOCK_FD"
/* A descriptor handed over by ourselves before an upgrade; -1: none. */
int upgrade_inherited(const char *name);

/* --- dryrun.c --- */
void route_pending(struct http_request *req, void *ctx);
void route_argv(struct http_request *req, void *ctx);

/* --- logs.c --- */
void get_log(struct http_request *req, void *ctx);
