/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: a short-lived child of vmstated, for what may wait on the kernel or
 * on other programs: taps, filters, limits. It is killed, with what it started, after WORKER_MS.
 */
#pragma once

#include <jansson.h>

#include "daemon/child.h"

struct err;

#define WORKER_ARG "--worker"
#define WORKER_MS  20000u

/*
 * Let a worker do a plan. reply (borrowed, -1: none): a socket it sends taps on, one message each:
 * its index as uint32_t and the descriptor. What failed is said on its stderr, exit status 1.
 * Members of the plan, all optional: "make": [{index, tap, bridge, mac, mtu, vlan_id, in}],
 * "nft": commands, "shape": [{tap, in}], "remove": [tap], "audit": true, "write": [{path, value}].
 */
int worker_run(sd_event *event, const json_t *plan, int reply, run_done done, void *ctx,
	       struct child **ret, struct err *err);

/* How it went, for a person; 0 or an error. */
int worker_result(const struct child_exit *how, const char *errors, struct err *err);

/* The worker itself: main() when called with WORKER_ARG (tests, benchmarks), else a forked child.
 */
int worker_main(int reply);
