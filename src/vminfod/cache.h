/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM objects: definition and metadata from the catalog, facts of the two feeds, put together
 * as text whenever one of them changes, with what changed told to the hub. Rebuilt from nothing
 * at any start; owns nothing that others could not say again.
 *
 * What cannot be known is said: while vmstated is away the last facts stay, and the member
 * "unknown" tells since when; without any facts the states are "unknown", never "stopped".
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/catalog.h"
#include "vminfod/text.h"

struct cache;
struct filters;
struct http_body;
struct paths;
struct sock_peer;

enum feed_source { FEED_OF_VMSTATED, FEED_OF_VMADMD };
#define FEED_SOURCES 2

/* One change of a VM, in full and as everybody may see it. Borrowed during the call. */
struct cache_event {
	const char *type; /* EVENT_CREATE, EVENT_MODIFY, EVENT_DELETE */
	const char *uuid;
	const struct text *full, *open; /* not for delete; the same where there is no secret */
	json_t *changes, *open_changes; /* modify; open_changes NULL: nothing everybody may see */
	const char *cause;              /* JSON text: {"by",...}, docs/wire-vminfod.md */
	uint32_t owner_uid, group_gid;  /* who may see full */
};

struct cache_config {
	const struct paths *paths;
	void (*event)(void *ctx, const struct cache_event *ev);
	bool (*listening)(void *ctx); /* does anybody want events? Else no differences are made */
	void *ctx;
};

struct cache *cache_new(const struct cache_config *config);
void cache_free(struct cache *c);

/* Where objects take the disks' headers and the host's facts from; either may be NULL. They are
 * the cache's until cache_drop_sources, which frees them; nothing is refreshed after it. */
struct disks;
struct host;
struct seen_disk;
void cache_use(struct cache *c, struct disks *disks, struct host *host);
void cache_drop_sources(struct cache *c);
/* For disks_new and host_new; ctx is the cache. */
void cache_on_disk(void *ctx, struct seen_disk *d);
void cache_on_host(void *ctx);

/* For catalog_config; ctx is the cache. */
void cache_on_catalog(void *ctx, struct catalog_entry *e, enum catalog_change what);

/* Everything is loaded: make all objects. Nothing is made or told before. */
void cache_start(struct cache *c);

/* --- facts --- */
/* facts NULL: the daemon knows this VM no more. Borrowed. */
void cache_facts(struct cache *c, enum feed_source from, const char *uuid, const json_t *facts);
void cache_feed_up(struct cache *c, enum feed_source from);    /* a snapshot follows */
void cache_feed_ready(struct cache *c, enum feed_source from); /* and is complete */
/* wall_ms: since when; say: show it in the objects now. */
void cache_feed_lost(struct cache *c, enum feed_source from, int64_t wall_ms, bool say);

/* --- mutations --- */
/*
 * From cache_begin on vmadmd's facts of this VM wait, as the catalog withholds its files. To
 * publish all as one record: cache_ending, catalog_release, cache_end. cause is borrowed and may
 * be NULL.
 */
void cache_begin(struct cache *c, const char *uuid, const json_t *cause);
void cache_ending(struct cache *c, const char *uuid);
void cache_end(struct cache *c, const char *uuid);

/* --- scans --- */
/* What changes from here on is the scan's finding: its cause, and kept for the log. */
void cache_scan_begin(struct cache *c);
/* {"cacheChanges":[...],"vmChanges":[...]}, as everybody may see it; the caller owns it. */
json_t *cache_scan_end(struct cache *c);

/* --- reading --- */
size_t cache_count(const struct cache *c);

/* Who looks. all: root, the suite's user. peer NULL: over TCP. */
struct viewer {
	bool all;
	const struct sock_peer *peer;
};

/* The array of all VMs, or of those that filters let through; fields NULL: whole. Kept until the
 * next change where there are no filters; the caller owns a reference. -E2BIG: too many fields. */
int cache_vms(struct cache *c, const struct viewer *who, const char *fields,
	      const struct filters *filters, struct http_body **ret);
/* The end of the ready record: the same array as one JSON string, a brace, a line end. uuids: only
 * these, a comma between two; NULL: all. */
struct http_body *cache_vms_quoted(struct cache *c, const struct viewer *who, const char *uuids);
/* One VM; -ENOENT, -E2BIG. */
int cache_vm(struct cache *c, const struct viewer *who, const char *uuid, const char *fields,
	     struct strbuf *to);
/* Forget the large body that only subscribing needs. */
void cache_drop_quoted(struct cache *c);

/* May who see all of a VM that belongs to these? */
bool viewer_may(const struct viewer *who, uint32_t owner_uid, uint32_t group_gid);
