/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds: how a daemon tells its facts to others, and learns that vminfod has them. Lines and
 * members: api/names.h, docs/feeds.md. A subscriber that falls behind is disconnected and starts
 * anew with a snapshot.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct err;
struct feed_server;
struct feed_client;

#define FEED_CONFIRM_MS 1000u       /* how long a command waits for the acknowledgement */
#define FEED_QUEUE_MAX  (16u << 20) /* bytes queued for one subscriber */
#define FEED_LINE_MAX   (1u << 20)
#define FEED_RETRY_MS   25u       /* from the first attempt to reach a server to the second */
#define FEED_REST_MS    10000u    /* between attempts after many: its appearance is watched for */
#define FEED_BLIND_MS   1000u     /* the same where the folder cannot be watched */
#define FEED_READER     "vminfod" /* the user who may subscribe where config names none */

struct feed_server_config {
	const char *path;   /* of the socket; mode 0600 */
	const char *daemon; /* "vmstated" */
	/* Call feed_snapshot_vm for each VM. */
	void (*snapshot)(struct feed_server *s, void *ctx);
	void *ctx;
	/* A user beside root and ours who may subscribe (vminfod's own); the socket becomes his.
	 * Without: as root, FEED_READER where there is such a user. */
	bool has_reader;
	uid_t reader;
};

/* The user of an option --feed-user, for reader above. -EINVAL. */
int feed_find_reader(const char *name, uid_t *ret, struct err *err);

/* Only root, our own user and config->reader may subscribe (SO_PEERCRED). path and daemon are
 * borrowed and must outlive the server. */
int feed_server_new(sd_event *event, const struct feed_server_config *config,
		    struct feed_server **ret, struct err *err);
void feed_server_free(struct feed_server *s); /* forgets all waits: their done will not run */

/* Publish; facts and cause are borrowed. Returns the line's sequence number, from 1. */
uint64_t feed_vm(struct feed_server *s, const char *uuid, const json_t *facts);
uint64_t feed_gone(struct feed_server *s, const char *uuid);
uint64_t feed_begin(struct feed_server *s, const char *uuid, const json_t *cause);
/* News of a job of that VM; subscribers that do not know jobs skip it. */
uint64_t feed_job(struct feed_server *s, const char *uuid, const json_t *job);
uint64_t feed_commit(struct feed_server *s, const char *uuid);
void feed_snapshot_vm(struct feed_server *s, const char *uuid, const json_t *facts);

/* The number of the last line published. */
uint64_t feed_seq(const struct feed_server *s);

/*
 * done(ctx, confirmed) once the subscriber that confirms (vminfod) has acknowledged seq, or
 * FEED_CONFIRM_MS have passed, or none is attached (then confirmed is false). With several that
 * confirm, all must. Never runs before this returns; w is dead once done runs.
 */
struct feed_wait;
struct feed_wait *feed_when_seen(struct feed_server *s, uint64_t seq,
				 void (*done)(void *ctx, bool confirmed), void *ctx);
void feed_wait_cancel(struct feed_wait *w);

struct feed_client_config {
	const char *path;
	const char *name; /* "vminfod" */
	bool confirms;
	/* One line, parsed; acknowledged after this returned. */
	void (*line)(void *ctx, const char *type, const json_t *line);
	/* true: connected and about to get a snapshot; false: lost (a new attempt follows). */
	void (*link)(void *ctx, bool up);
	void *ctx;
};

/* Connects now or as soon as the server is there; reconnects for ever. */
int feed_client_new(sd_event *event, const struct feed_client_config *config,
		    struct feed_client **ret, struct err *err);
void feed_client_free(struct feed_client *c);
bool feed_client_ready(const struct feed_client *c);     /* the snapshot is complete */
bool feed_client_connected(const struct feed_client *c); /* somebody listens at the path */
/* Take what has arrived on the socket already, without waiting: before an exact read. */
void feed_client_drain(struct feed_client *c);
