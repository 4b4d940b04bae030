/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vmadmd knows of one VM at run time: vmstated's facts, our own facts, its monitor and its
 * VNC listener. Made when first heard of (feed or change), dropped when nothing is known any more.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/uuid.h"
#include "vmadmd/info.h"
#include "vmadmd/monitor.h"

struct agent;
struct err;
struct guest_stats;
struct late;
struct metaport;
struct plug;
struct monitor_command;
struct qmp;
struct shared_query;
struct vm;
struct vmadmd;
struct vnc_viewer;
struct vnc_waiter;

struct vnc {
	int fd; /* the listener, -1: none */
	sd_event_source *source, *retry;
	char *address;
	int32_t want;               /* vnc_port as configured when we began to listen */
	uint16_t port;              /* in fact */
	char *password;             /* QEMU has it; NULL: none sent */
	char *refused;              /* a password QEMU did not take: not sent again */
	bool asking;                /* set_password is under way */
	bool again;                 /* the definition changed meanwhile */
	bool complained;            /* the port could not be had, and the log says so */
	struct vnc_viewer *viewers; /* being handed over */
	size_t nviewers;
	uint64_t number; /* of the last viewer, for descriptor names */
	struct vnc_waiter *waiters;
	/* An update under way has opened a listener (-1: none) or told QEMU its password. */
	bool staging;
	int staged;
	uint16_t staged_port;
	int32_t staged_want;
	char *staged_address;
	bool file_read; /* the password of the VM's configfile, NULL: none */
	char *file_password;
};

struct guest {
	char uuid[UUID_LEN + 1];
	struct vmadmd *d;
	json_t *facts;        /* vmstated's; NULL: it has told none */
	bool stale;           /* not yet repeated in the snapshot under way */
	json_t *leases;       /* {MAC: {address: since}}, NULL: none */
	json_t *provisioning; /* facts of ours while a change is under way, NULL: none */
	json_t *zfs;          /* of its dataset, zfs_facts.h; NULL: none known */
	struct qmp *qmp;
	json_int_t qmp_pid; /* of the QEMU the monitor belongs to */
	bool qmp_silent;    /* it did not greet, and the log says so */
	sd_event_source *retry;
	struct monitor_command *commands; /* without an answer */
	json_t *paused; /* why QEMU stopped the guest, NULL: it did not; ioerror.c */
	struct monitor_watch io_watch;
	sd_event_source *ioretry;
	struct late *late;             /* devices given up to take out; trans.c */
	struct plug *settling;         /* what QEMU was not told at its start */
	struct monitor_watch *watches; /* who wants its events */
	json_t *snapshots;             /* newest first, as told; NULL: none */
	sd_event_source *repair;       /* of a live operation cut short: to be tried again */
	bool repairing;
	struct vnc vnc;
	struct metaport *metaport;                     /* NULL: not connected */
	struct agent *agent;                           /* NULL: it does not run */
	struct guest_stats *stats;                     /* NULL: never asked */
	struct shared_query *queries[INFO_TYPE_COUNT]; /* of info, without an answer */
};

/* --- guests.c --- */
struct guest *guest_find(struct vmadmd *d, const char *uuid);
struct guest *guest_get(struct vmadmd *d, const char *uuid); /* made when missing */
void guests_each(struct vmadmd *d, void (*fn)(struct guest *g, void *ctx), void *ctx);
void guests_free(struct vmadmd *d);

/* The VM's `state`: ours while a change is under way, vmstated's, "stopped" when vmstated does
 * not have it (yet), "unknown" while vmstated never told. */
const char *guest_state(struct vmadmd *d, const char *uuid);
/* QEMU is there, by vmstated's word. */
bool guest_runs(const struct guest *g);

/* All facts of ours; a new reference. */
json_t *guest_own_facts(const struct guest *g);

/* Our facts changed; provisioning is taken (NULL: none). Returns the feed's sequence number. */
uint64_t guest_publish(struct guest *g);
uint64_t guest_provisioning(struct guest *g, json_t *provisioning);
uint64_t guest_zfs(struct guest *g, json_t *zfs); /* taken, NULL: none */

/* Feed call-backs (net/feed.h); ctx is struct vmadmd. */
void guests_feed_line(void *ctx, const char *type, const json_t *line);
void guests_feed_link(void *ctx, bool up);

/* --- transient.c --- */
/* Facts of the VM changed: one that is transient and whose guest has ended is removed. */
void transient_look(struct guest *g);

/* --- vnc.c --- */
/* Listen, stop listening or tell QEMU the password, as definition and monitor say. */
void vnc_apply(struct guest *g);
/* As vnc_apply; done runs once when nothing is under way any more, maybe before this returns. */
void vnc_reload(struct guest *g, void (*done)(void *ctx), void *ctx);
void vnc_close(struct guest *g);
/*
 * Before an update is written: open the listener vm wants and tell QEMU its password. 1: done
 * will run, then ask vnc_staged; -EEXIST: the port is taken. vnc_stage_end follows in any case,
 * after the update was written or given up: what the definition then says is applied.
 */
int vnc_stage(struct guest *g, const struct vm *vm, void (*done)(void *ctx), void *ctx,
	      struct err *err);
int vnc_staged(struct guest *g, const struct vm *vm, struct err *err);
void vnc_stage_end(struct guest *g);
/* --- vncwant.c: what definition, configfile and vmstated's facts ask for --- */
struct vnc_want {
	char *address;
	int32_t port;   /* -1: none, 0: any */
	char *password; /* NULL: none */
};
void vnc_wanted(struct guest *g, const struct vm *vm, struct vnc_want *ret);
void vnc_want_done(struct vnc_want *want);
/* Somebody asked for a password: a viewer is not let in without. */
bool vnc_guarded(struct guest *g);

/* {"host","port","display"}, {} without a listener. */
json_t *vnc_info(const struct guest *g);
