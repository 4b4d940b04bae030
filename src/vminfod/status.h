/* SPDX-License-Identifier: Apache-2.0 */
/* The answer of /status: the original's members in its order, then ours. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct cache;
struct http_server;
struct hub;
struct sources;

struct status_of {
	struct cache *cache;
	struct hub *hub;
	struct sources *sources;
	struct http_server *http;
	uint64_t started_us;
	sd_event *event;
	const char *vmadmd;                      /* its control socket */
	uint64_t requests, sync_us, sync_max_us; /* what requests waited for queued events */
};

/* full: also refreshLog and fswatcher. The caller owns it. Source: smartos facts, section 3.4. */
json_t *status_make(const struct status_of *of, bool full);
