/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event stream: who listens, and each record once for all of them. A record's text is made
 * once for all who want it alike, and once more where it holds secrets. The last records are kept
 * for who lost the connection. Source: smartos facts, section 1.3.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "vminfod/cache.h"

struct err;
struct hub;
struct http_request;

struct hub_stats {
	uint64_t records;
	uint64_t full, stalled; /* listeners cut off, by reason */
	uint64_t replayed, gaps;
	uint64_t seq; /* of the last record */
	size_t listeners, kept, kept_bytes;
	size_t queued, queued_bytes; /* of all listeners */
};

/* What a subscriber asked for; texts borrowed, NULL or 0: nothing. */
struct hub_wish {
	unsigned heartbeat_s;
	unsigned wants;    /* of record.h */
	const char *since; /* "BOOT:SEQ" */
	const char *uuids, *paths;
};

struct hub *hub_new(sd_event *event, struct cache *cache);
void hub_free(struct hub *h);

/* -EINVAL for a wish that makes no sense, with its reason. */
int hub_check(const struct hub_wish *wish, struct err *err);
/*
 * Answer a request with the stream: the ready record first, or what came since the record named,
 * or a gap record and ready.
 */
void hub_subscribe(struct hub *h, struct http_request *req, const struct viewer *who,
		   const struct hub_wish *wish);

/* For cache_config; ctx is the hub. */
void hub_event(void *ctx, const struct cache_event *ev);
/* Asked before each change: without listeners, nor any who may come back, it is not told. */
bool hub_listening(void *ctx);

void hub_stats(const struct hub *h, struct hub_stats *ret);
/* The member eventsListeners of /status; the caller owns it. */
json_t *hub_status(const struct hub *h);
