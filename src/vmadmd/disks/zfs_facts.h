/* SPDX-License-Identifier: Apache-2.0 */
/* What `zfs get` printed, as facts of VMs. Pure function. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#define ZFS_PROPERTIES "type,quota,compression,creation,used"
#define ZFS_COLUMNS    "name,property,value"

/*
 * text: lines NAME<tab>PROPERTY<tab>VALUE of `zfs get -H -p`, the lines of a dataset together.
 * {UUID: {"quota"?, "zfs_root_compression"?, "snapshots": [...], "disks"?: {NAME: {...}}}} of the
 * VMs that backs() knows in that pool: POOL/UUID is the VM's, POOL/UUID-* are its volumes,
 * POOL/UUID@vmsnap-NAME its snapshots, newest first. Anything else is passed over. New reference.
 * Source: smartos facts 7.1, snapshots; 8, cases 30 and 33.
 */
json_t *zfs_facts(const char *text, bool (*backs)(void *ctx, const char *pool, const char *uuid),
		  void *ctx);
