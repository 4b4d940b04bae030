/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the cache: cache.c keeps the VMs, object.c makes one VM's object, body.c the lists. */
#pragma once

#include "vminfod/cache.h"

/* What made an object change. */
enum why {
	WHY_START,
	WHY_NEW,
	WHY_FILES,
	WHY_GONE,
	WHY_SUPERVISOR,
	WHY_GUEST,
	WHY_VMADMD,
	WHY_SNAPSHOT,
	WHY_LOSS,
	WHY_DISK,
	WHY_STORAGE,
	WHY_HOST,
};
#define WHYS 12

struct cached {
	char uuid[37];
	bool visible; /* told to the world */
	bool held;    /* a mutation of it is under way */
	bool ending;  /* what is told now is its outcome */
	bool pending; /* held: as it was before; vmstated may see the files first */
	bool has_deferred;
	bool disks_changed;          /* while held */
	bool installed;              /* as vmadmd last said of its creation */
	bool shows_unknown;          /* its object depends on a feed's absence */
	struct catalog_entry *entry; /* NULL: no definition, or none any more */
	struct vm *ghost;            /* definition as last known of one that runs without */
	char *facts[FEED_SOURCES];   /* JSON text, NULL: none */
	unsigned generation[FEED_SOURCES];
	char *deferred; /* vmadmd's facts that wait for the end of the mutation */
	char *cause;
	struct text full, open; /* open.data NULL: the same as full */
	uint32_t owner_uid, group_gid;
	struct seen_disk **disks; /* those its object was made with */
	size_t ndisks;
};

struct feed_state {
	bool up, ready, ever;
	bool said; /* its absence is shown in objects */
	int64_t lost_wall_ms;
	unsigned generation; /* of its snapshots */
};

#define FIELD_BODIES 4

struct field_body {
	char *fields;
	struct http_body *body;
	uint64_t used;
};

struct cached_bodies {
	struct http_body *whole, *quoted;
	struct field_body fields[FIELD_BODIES];
};

struct cache {
	struct cache_config config;
	void *by_uuid;       /* tsearch of struct cached */
	struct cached **vms; /* visible ones, in order of appearance */
	size_t count;
	struct disks *disks;
	struct host *host;
	bool started, scanning;
	json_t *scan_vms, *scan_changes; /* what the scan under way found */
	struct feed_state feeds[FEED_SOURCES];
	int64_t born_wall_ms;
	struct cached_bodies bodies[2]; /* [1]: full, [0]: for everybody */
	uint64_t clock;                 /* of uses of field bodies */
};

struct cached *cache_find(const struct cache *c, const char *uuid);

/* Give back the disks of v. */
void object_forget_disks(const struct cache *c, struct cached *v);
/* The object as it is now, with secrets; the caller owns it. v has a definition. */
json_t *object_make(const struct cache *c, struct cached *v);
/* The definition in force, NULL: none. */
const struct vm *object_vm(const struct cached *v);
/* A VM that runs without a definition, and was not seen with one: as it was started. */
struct vm *object_started(const struct paths *paths, const char *uuid);
bool facts_run(const char *facts);
bool facts_pending(const char *facts);

/* Make the object anew and tell what changed. */
void cache_refresh(struct cache *c, struct cached *v, enum why why);
void cache_drop_bodies(struct cache *c);
