/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where vminfod knows things from: the catalog of definitions, and the feeds of vmstated and
 * vmadmd. Exact reads are sources_sync(), called before each answer.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct cache;
struct catalog;
struct err;
struct paths;
struct sources;

#define HOLD_MS      10000u /* how long a mutation may withhold a VM's files */
#define GRACE_MS     2000u  /* a daemon's restart that is not worth telling */
#define ROUND_MS     300000u
#define SLICE_US     500u /* of one go of the scan: what a reader may have to wait */
#define SLICE_STEP   4u   /* directories between two looks at the clock */
#define SCANS_KEPT   5
#define ERRORS_KEPT  5
#define CHANGES_KEPT 100u /* of one round */

struct scan_log {
	uint64_t started_us, ended_us;
	size_t lost, slices;
	uint64_t longest_us; /* the longest go of the round */
	json_t *changes;     /* of cache_scan_end; NULL: none */
};

struct scan_error {
	char *text;
	uint64_t us;
};

/* A mutation under way. */
struct hold {
	char uuid[37];
	uint64_t deadline_ms; /* it began HOLD_MS before */
};

/* Loads all definitions. The catalog is the sources'. */
int sources_new(sd_event *event, const struct paths *paths, struct cache *cache,
		struct sources **ret, struct err *err);
void sources_free(struct sources *s);

/* Connect to the daemons that are there and take their snapshots, for timeout_ms at most. */
int sources_connect(struct sources *s, uint64_t timeout_ms, struct err *err);

/* Take in what is queued on all descriptors now, no more. */
void sources_sync(struct sources *s);
/*
 * Before an answer about one VM, or (NULL) about all: where events were lost, read again what it
 * is made of, now. All else is read again in slices.
 */
void sources_settle(struct sources *s, const char *uuid);
/* Begin to compare everything with the disk now, in slices. */
void sources_scan(struct sources *s);

uint64_t sources_slices(const struct sources *s); /* of scans and repairs */
struct catalog *sources_catalog(struct sources *s);
/* {"vmstated":{"connected","ready","lost"?},"vmadmd":{...}}; the caller owns it. */
json_t *sources_feeds(const struct sources *s);
/* The last rounds of the scan, the newest last; borrowed. */
size_t sources_scans(const struct sources *s, const struct scan_log **ret);
size_t sources_errors(const struct sources *s, const struct scan_error **ret);
size_t sources_holds(const struct sources *s, const struct hold **ret);
const char *sources_host_problem(const struct sources *s); /* NULL: none */
/* {"server_uuid",..., "links":[...], "unknown"?:{"links": since}}; the caller owns it. */
json_t *sources_host(const struct sources *s);
