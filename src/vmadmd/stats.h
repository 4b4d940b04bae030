/* SPDX-License-Identifier: Apache-2.0 */
/* What the last sample of a VM's counters told; see stats.c. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct guest;
struct http_request;
struct vmadmd;

#define STATS_VCPUS_MAX 256

struct guest_stats {
	uint64_t sampled_ms; /* clock_ms() of the last complete answer, 0: none yet */
	size_t pending;      /* queries without an answer */
	bool broken;         /* one of them failed */
	json_t *block;       /* NULL: not known */
	json_int_t balloon;  /* bytes, -1: not known */
	pid_t threads[STATS_VCPUS_MAX];
	size_t nthreads;
};

void guest_stats_free(struct guest *g);

void handle_stats(struct http_request *req, void *ctx);
void stats_free(struct vmadmd *d);
