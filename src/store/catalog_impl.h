/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the catalog, cut by step: events.c takes inotify events and marks units, unit.c looks
 * at one unit on disk, meta.c reads metadata, apply.c turns what was found into changes of
 * entries, scan.c finds what no event told, catalog.c is the public face. Private to src/store.
 */
#pragma once

#include "store/catalog.h"
#include "store/map.h"
#include "store/watch.h"

/* One directory below the configuration directory, whether or not it holds a definition. */
struct unit {
	char *name;    /* of the directory */
	char *path;    /* <etc>/<name>, symbolic links not resolved */
	char **extras; /* other files it is made of: includes, configfiles, link targets */
	size_t nextras;
	int *wds; /* the watches it uses; the first is the directory's */
	size_t nwds;
	struct item *items; /* its VMs, in the file's order */
	struct catalog_problem *problems;
	size_t nproblems;
	uint64_t stat_print; /* of its files when scanned last, 0: not since it was read */
	bool queued;         /* in the catalog's queue */
	bool held_dirty;     /* changed while held */
	bool soft;           /* the last event of a definition file left it open for writing */
	bool meta_soft;      /* the same of a metadata file */
	bool withheld;       /* what was found is kept back, as it may be half written */
	bool blocked;        /* a VM in it is refused because another has its name or uuid */
	bool broken;         /* its last reading failed */
	bool disks_here;     /* disks lie in its directory: no IN_MODIFY for it */
	bool seen;           /* by the listing under way, or newer than it */
	bool doubted;        /* to be read again: events of it may be lost */
};

struct item {
	struct catalog_entry e;
	struct unit *unit;
	struct item *next; /* of the unit */
	char *section;
	uint64_t print; /* hash of what it was made from */
	bool vanishing; /* freed at the end of this round unless adopted */
	bool found;     /* mark of a round */
};

/* A user or group name resolved in this round. */
struct resolved {
	char *name;
	bool group;
	bool known;
	uint32_t id;
};

struct catalog {
	struct catalog_config config;
	char host_uuid[37];
	struct watches watches;
	int etc_wd, lib_wd, etc_parent_wd, lib_parent_wd;
	struct item **items; /* by number */
	size_t nitems;
	uint64_t next_number;
	struct map by_uuid, by_name;
	struct unit **units;
	size_t nunits;
	struct map by_dir;
	struct unit self; /* carries the problems that concern no unit */
	struct unit **queue;
	size_t nqueue, queue_cap;
	char **holds;
	size_t nholds;
	struct resolved *resolved;
	size_t nresolved;
	char *distrust; /* why nothing in the configuration directory is taken; NULL */
	bool list_failed;
	bool roots_changed; /* one of the two directories was made, moved or removed */
	bool applying;
	bool unblocked; /* a name or uuid became free */
	size_t nvanishing;
	void *dir;    /* DIR of the listing under way */
	char **names; /* new ones it found */
	size_t nnames, doubts, doubt_cursor;
	bool listing;
	bool doubtful;      /* events were lost: what is known may be old */
	uint64_t published; /* calls of changed() */
	size_t cursor;      /* of scans */
	struct catalog_problem *flat;
	struct catalog_stats stats;
};

/* --- what one look at a unit found --- */
struct found {
	char *section;
	struct vm *vm;
	char *error;   /* the definition's: vm is not to be used */
	char *warning; /* of metadata: vm is good, but not all of it is as the files say */
	uint64_t print;
};

struct reading {
	bool gone;        /* there is no such directory */
	char *error;      /* of the file or directory as a whole */
	char *file;       /* what error is about; NULL: the definition file */
	uint64_t print;   /* hash of the definition files */
	int64_t mtime_ms; /* newest of them */
	bool settled;     /* cannot be half written: a symbolic or hard link appeared */
	struct found *found;
	size_t nfound;
	char **extras;
	size_t nextras;
	int *wds;
	size_t nwds;
};

void reading_done(struct reading *r);
/* Add the watches and read all; never fails, what goes wrong is in *r. */
void unit_read(struct catalog *c, struct unit *u, struct reading *r);

struct unit *unit_new(struct catalog *c, const char *name);
void unit_free(struct catalog *c, struct unit *u);
/* Is path one of the unit's definition files, by its last part? */
bool unit_has_file(const struct unit *u, const char *name);

/* --- metadata --- */
#define META_FILES 3
extern const char *const meta_files[META_FILES]; /* "tags.json", ... */
/*
 * Watch and read the metadata of f->vm. A file that does not parse leaves what old (may be NULL)
 * has, and sets f->warning unless soft.
 */
void meta_read(struct catalog *c, struct unit *u, struct reading *r, struct found *f,
	       const struct vm *old, bool soft);
void reading_watch(struct reading *r, int wd);

/* --- applying --- */
void unit_queue(struct catalog *c, struct unit *u);
bool unit_held(const struct catalog *c, const struct unit *u);
/* Work off the queue. */
void catalog_apply(struct catalog *c);
void item_free(struct item *it);
/* Set the problems of a unit; takes problems[count]. */
void unit_set_problems(struct catalog *c, struct unit *u, struct catalog_problem *problems,
		       size_t count);
void unit_problem(struct catalog *c, struct unit *u, const char *file, const char *text);

/* --- the directory as a whole --- */
/* (Re)watch the configuration and data directories. */
void catalog_watch_roots(struct catalog *c);
