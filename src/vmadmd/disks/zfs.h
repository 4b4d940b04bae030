/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs on ZFS datasets: what `zfs get` says of ZPOOL/UUID becomes facts of ours on the feed (quota,
 * compression, snapshots; docs/feeds.md). Asked by a child with a deadline, every ZFS_POLL_MS
 * while a dataset backs a VM. What was known and cannot be asked for stays, with its age.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "daemon/child.h"

struct err;
struct vmadmd;
struct zfs;

#define ZFS_COMPRESSION "zfs_root_compression" /* fact and property */
#define ZFS_POLL_MS     10000u
#define ZFS_REST_MS     60000u /* where no dataset backs a VM */
#define ZFS_LIMIT_MS    10000u /* of one child */
#define ZFS_OUTPUT_MAX  (8u << 20)
#define ZFS_POOLS_MAX   16

/* `zfs` as a child with our deadline; done gets what it says. */
int zfs_run(struct vmadmd *d, const char *const *argv, run_done done, void *ctx, struct child **ret,
	    struct err *err);

/* Asks at once. */
struct zfs *zfs_new(struct vmadmd *d);
void zfs_free(struct zfs *z);
/* Ask now, or once the answer under way has come. */
void zfs_poll(struct zfs *z);
/* A VM appeared; asks unless there was no ZFS the last time. */
void zfs_new_vm(struct zfs *z);

struct zfs_setting {
	const char *property, *value; /* "quota", "5G"; NULL: as its parent has it */
	run_done done;
	void *ctx;
};

/*
 * Set a property of the VM's dataset. 0: it has none, and done will not run. 1: *ret runs; done is
 * to call zfs_was_set, which judges the outcome and tells the new value (taken; null: ask) on the
 * feed as this fact.
 */
int zfs_set(struct zfs *z, const char *uuid, const struct zfs_setting *what, struct child **ret,
	    struct err *err);
int zfs_was_set(struct zfs *z, const char *uuid, const char *fact, json_t *value,
		const struct child_exit *how, const char *errors, struct err *err);
/* The quota as last seen, GiB; fallback without a dataset or where it is no whole number. */
uint32_t zfs_quota(struct vmadmd *d, const char *uuid, uint32_t fallback);
/* Its compression as last seen; NULL without a dataset. Borrowed from the guest. */
const char *zfs_compression(struct vmadmd *d, const char *uuid);
