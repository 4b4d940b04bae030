/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All definitions of the host in memory, exact: the configuration directory, includes and the
 * metadata files of the data directories are watched by inotify, and catalog_sync() takes in what
 * the kernel has queued, so a read that follows it sees every change whose close(2) or rename(2)
 * returned before. No event loop here: the daemon polls catalog_fd() and calls catalog_sync(),
 * and calls it again before each answer. Used alike by all three daemons.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct catalog;
struct err;
struct paths;
struct problems;
struct vm;

#define CATALOG_IGNORED "vmstated" /* the original's section about the daemon itself */
#define CATALOG_VMS_MAX 20000u

enum catalog_change {
	CATALOG_NEW,
	CATALOG_CHANGED, /* definition, metadata, error, or missing image changed */
	CATALOG_GONE,    /* the file or section vanished; the entry is freed after the call */
};

/*
 * One VM. A file that stops parsing keeps its last good definition in force, with error set. A
 * second definition of a name or uuid is a problem of the second file; the first stays.
 */
struct catalog_entry {
	char uuid[37];
	struct vm *vm;    /* finished, validated, owner resolved; never NULL */
	char *error;      /* why the file as it is now is not in force; NULL when it is */
	uint64_t number;  /* of its first loading: the order of listings */
	uint64_t version; /* counts changes */
	void *data;       /* the daemon's */
};

/* A definition that never was good, or a directory that cannot be read. */
struct catalog_problem {
	char *file;
	char *text; /* "FILE:LINE:COLUMN: ..." joined by "; " */
	char *name; /* of the section where known, else NULL */
};

struct catalog_stats {
	uint64_t events;    /* inotify events taken */
	uint64_t reloads;   /* files read again */
	uint64_t overflows; /* queue overflows: everything is read again */
	uint64_t lost;      /* changes only a scan found */
	uint64_t scans;     /* rounds ended */
};

struct catalog_config {
	const struct paths *paths; /* borrowed for the catalog's life */
	bool metadata;             /* also read and watch config/{tags,metadata,routes}.json */
	bool sliced; /* after lost events the daemon calls catalog_repair; else catalog_sync does */
	/* Runs inside catalog_load, catalog_sync, catalog_release, catalog_scan. */
	void (*changed)(void *ctx, struct catalog_entry *e, enum catalog_change what);
	/* A problem appeared, changed or (text NULL) went away. May be NULL. */
	void (*problem)(void *ctx, const char *file, const char *text);
	void *ctx;
};

/* Makes the host uuid and the directories when they are missing. */
int catalog_new(const struct catalog_config *config, struct catalog **ret, struct err *err);
void catalog_free(struct catalog *c);

/* Read everything; once, before anything else. -EACCES etc. when the directory cannot be read. */
int catalog_load(struct catalog *c, struct err *err);

int catalog_fd(const struct catalog *c); /* borrowed; readable when there is something to take */

/* Take what is queued on the descriptor at entry (FIONREAD), no more. Cheap when nothing is. */
void catalog_sync(struct catalog *c);

/*
 * Compare a slice of at most `files` files with the disk and repair what was missed; goes round,
 * each round begins with the names in the configuration directory. Returns the number of
 * differences found. CATALOG_VMS_MAX and more: a whole round now.
 */
size_t catalog_scan(struct catalog *c, size_t files);
void catalog_scan_anew(struct catalog *c); /* the next slice begins a round */

/*
 * Events were lost, and what is known may be old until catalog_repair has read it again: a step
 * of about 0.3 ms, or all. Returns the number of differences found. catalog_verify is for one VM.
 */
bool catalog_doubtful(const struct catalog *c);
size_t catalog_repair(struct catalog *c, bool all);

/* Read all of one VM's files again now, whether or not an event said so. */
void catalog_reload(struct catalog *c, const char *uuid);

/*
 * Make sure that what is known of this VM is what its files say, also of one whose directory,
 * named by the uuid, is new. True (and a lost change) when it was not.
 */
bool catalog_verify(struct catalog *c, const char *uuid);

/*
 * Withhold changes of one VM's files (also one that is not there yet: its directory is named by
 * the uuid) until catalog_release, which applies them all as one CATALOG_* call at most.
 */
void catalog_hold(struct catalog *c, const char *uuid);
void catalog_release(struct catalog *c, const char *uuid);

/*
 * Metadata of a VM as it is on disk now, put into vm; what is not there stays. For daemons whose
 * catalog has none. -EINVAL, -EPERM as for the definition.
 */
int metadata_read(const struct paths *paths, struct vm *vm, struct err *err);

/* Exact uuid. NULL when unknown. */
struct catalog_entry *catalog_by_uuid(struct catalog *c, const char *uuid);
/*
 * uuid, name, or a unique prefix of a uuid (at least 4 characters) or unique alias.
 * -ENOENT "VM ID not found"; -EEXIST "ID is ambiguous: matches A, B".
 */
int catalog_find(struct catalog *c, const char *id, struct catalog_entry **ret, struct err *err);

size_t catalog_count(const struct catalog *c);
/* In order of number; index < catalog_count. */
struct catalog_entry *catalog_at(struct catalog *c, size_t index);

size_t catalog_problems(const struct catalog *c, const struct catalog_problem **ret);
const struct catalog_stats *catalog_stats(const struct catalog *c);
const char *catalog_host_uuid(const struct catalog *c);
