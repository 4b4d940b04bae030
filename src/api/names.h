/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words that more than one program must spell alike: feed lines, facts, event types. Paths of
 * sockets are in base/paths.h, routes in each daemon's route table.
 */
#pragma once

/*
 * Feeds: JSON lines over a unix stream socket (docs/feeds.md). Server to client:
 *   {"type":"hello","feed":1,"daemon":"vmstated","version":"0.1.0","seq":N}
 *   {"type":"vm","seq":N,"uuid":U,"facts":{...}}    all facts of that VM (also the snapshot's form)
 *   {"type":"gone","seq":N,"uuid":U}
 *   {"type":"ready","seq":N}                        the snapshot is complete
 *   {"type":"begin","seq":N,"uuid":U,"cause":{...}} vmadmd: hold file changes of this VM
 *   {"type":"commit","seq":N,"uuid":U}              vmadmd: publish them as one change
 *   {"type":"job","seq":N,"uuid":U,"job":{...}}     vmadmd: a job began, went on or ended
 *   {"type":"gap"...} never: a client that falls behind is disconnected and starts anew.
 * Client to server: {"hello":"vminfod","confirms":true} once, then {"ack":N}.
 */
#define FEED_VERSION 1
#define FEED_HELLO   "hello"
#define FEED_VM      "vm"
#define FEED_GONE    "gone"
#define FEED_READY   "ready"
#define FEED_BEGIN   "begin"
#define FEED_COMMIT  "commit"
#define FEED_JOB     "job"

/* Types of vminfod's event records. */
#define EVENT_READY  "ready"
#define EVENT_CREATE "create"
#define EVENT_MODIFY "modify"
#define EVENT_DELETE "delete"
#define EVENT_GAP    "gap" /* records between are lost; ready follows. On request only */

/* Kinds of cause, the member "by" of a record's cause. */
#define CAUSE_COMMAND    "command" /* with uid and command */
#define CAUSE_EDITOR     "editor"  /* somebody wrote a file */
#define CAUSE_GUEST      "guest"
#define CAUSE_SUPERVISOR "supervisor"
#define CAUSE_SCAN       "scan" /* no event told of it */
#define CAUSE_DISK       "disk" /* a disk was written, with qemu-img or so */

/* vmadmd's journal in a VM's data directory; while it has the member, a text, no QEMU of the VM is
 * started here but one that waits for its memory. */
#define JOURNAL_FILE      "operation"
#define JOURNAL_VERSION   1
#define JOURNAL_KEEP_AWAY "keep_away"

/*
 * Facts vmstated sends per VM (members absent when they do not apply). Those without a note are
 * members of the VM object under the same name.
 */
#define FACT_SUPERVISOR_STATE  "supervisor_state" /* label of the state table: "RUNNING" */
#define FACT_ZONE_STATE        "zone_state"
#define FACT_STATE             "state"
#define FACT_PID               "pid"
#define FACT_ZONEID            "zoneid"
#define FACT_BOOT_TIMESTAMP    "boot_timestamp"
#define FACT_EXIT_STATUS       "exit_status"
#define FACT_EXIT_TIMESTAMP    "exit_timestamp"
#define FACT_LAST_EXIT         "last_exit" /* {cause, detail, time, status?, signal?} */
#define FACT_TRANSITION_TO     "transition_to"
#define FACT_TRANSITION_EXPIRE "transition_expire"
#define FACT_FAILED            "failed" /* text: why */
#define FACT_READY             "ready"
#define FACT_LAST_RESET        "last_reset"
#define FACT_RESETS            "resets"
#define FACT_INIT_RESTARTS     "init_restarts"
#define FACT_DEFINITION        "definition" /* "broken" or "missing", with definition_error */
#define FACT_DEFINITION_ERROR  "definition_error"
#define FACT_PENDING           "pending"   /* true: definition differs from the one running */
#define FACT_RUN_STATE         "run_state" /* QEMU's: running, paused, io-error, ... */
#define FACT_QMP               "qmp"       /* "unresponsive" or "busy" with qmp_since */
#define FACT_ACCEL             "accel_in_use"
#define FACT_FBUF              "fbuf" /* {address, port} of a frame buffer of configfile; for vmadmd */
/* Addresses of guests and since when they are known: {MAC: {address: time}}. In the object
 * FACT_ADDRESSES and FACT_SOURCES are members of each NIC. */
#define FACT_NEIGHBOURS "neighbours"      /* the host's neighbour table */
#define FACT_ADDRESSES  "addresses"       /* [address] */
#define FACT_SOURCES    "address_sources" /* {address: {source, since}} */
#define FACT_UNKNOWN    "unknown"         /* {whose word is missing: since when} */
/* Facts of vmadmd. */
#define FACT_PROVISIONING "provisioning"
/* {quota?, zfs_root_compression?, snapshots, disks?: {VOLUME: {compression}}, unknown?: since} */
#define FACT_ZFS               "zfs"
#define FACT_SNAPSHOTS         "snapshots"         /* [{name, size, created_at, memory, parent?}] */
#define FACT_SNAPSHOTS_CHANGED "snapshots_changed" /* time; counts for last_modified */
#define FACT_LEASES            "leases" /* as FACT_NEIGHBOURS, of this host's DHCP servers */
#define FACT_SAID              "said"   /* as FACT_NEIGHBOURS, of guest agents */
#define FACT_PAUSED            "paused" /* {cause, disk, operation, reason, nospace, since} */
#define FACT_AGENT             "agent"  /* {state, since, frozen?, addresses?: {MAC: [address]}} */
#define FACT_VNC               "vnc" /* {host, port, display}; merged into info, not the object */
