/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event stream: who listens, and each record once for all of them. A record's text is made
 * once, twice where it holds secrets. Source: smartos facts, section 1.3.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "vminfod/cache.h"

struct hub;
struct http_request;

struct hub_stats {
	uint64_t records;
	uint64_t full, stalled; /* listeners cut off, by reason */
};

struct hub *hub_new(sd_event *event, struct cache *cache);
void hub_free(struct hub *h);

/* Answer a request with the stream, the ready record first. heartbeat_s: 0 for none. */
void hub_subscribe(struct hub *h, struct http_request *req, const struct viewer *who,
		   unsigned heartbeat_s);

/* For cache_config; ctx is the hub. */
void hub_event(void *ctx, const struct cache_event *ev);
bool hub_listening(void *ctx);

const struct hub_stats *hub_stats(const struct hub *h);
/* The member eventsListeners of /status; the caller owns it. */
json_t *hub_status(const struct hub *h);

/* One record, line end included; open: as everybody may see it. NULL: nothing for everybody. */
char *record_text(const struct cache_event *ev, int64_t wall_ms, bool open);
