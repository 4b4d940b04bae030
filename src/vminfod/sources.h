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

#define HOLD_MS    10000u /* how long a mutation may withhold a VM's files */
#define GRACE_MS   2000u  /* a daemon's restart that is not worth telling */
#define ROUND_MS   300000u
#define SLICE      100u /* directories compared at once */
#define SCANS_KEPT 5

struct scan_log {
	uint64_t started_us, ended_us;
	size_t lost;
};

/* Loads all definitions. The catalog is the sources'. */
int sources_new(sd_event *event, const struct paths *paths, struct cache *cache,
		struct sources **ret, struct err *err);
void sources_free(struct sources *s);

/* Connect to the daemons that are there and take their snapshots, for timeout_ms at most. */
int sources_connect(struct sources *s, uint64_t timeout_ms, struct err *err);

/* Take in what is queued on all descriptors now, no more. */
void sources_sync(struct sources *s);
/* Compare everything with the disk now. */
void sources_scan(struct sources *s);

struct catalog *sources_catalog(struct sources *s);
/* {"vmstated":{"connected","ready","lost"?},"vmadmd":{...}}; the caller owns it. */
json_t *sources_feeds(const struct sources *s);
/* The last rounds of the scan, the newest last; borrowed. */
size_t sources_scans(const struct sources *s, const struct scan_log **ret);
size_t sources_holds(const struct sources *s);
