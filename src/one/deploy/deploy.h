/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deployment files of the OpenNebula core, and disks and NICs of its messages, as payloads of our
 * VMs. Two dialects: libvirt's <domain> (TYPE kvm, qemu) and the core's own <VM> or <TEMPLATE>
 * (TYPE xml). Each element we know is a row of the table in deploy_rows.c;
 * what a guest would miss is refused by name. Source: fact sheet, 7.
 */
#pragma once

#include <jansson.h>
#include <libxml/tree.h>
#include <stddef.h>

struct err;

#define DEPLOY_MAX (16u << 20) /* bytes of a deployment file */

/* Whether a file is there; for tests another one than access(2). */
typedef int (*deploy_exists)(const char *path);

struct deploy_place {
	const char *sysdir; /* the VM's directory in the system datastore; "" when not known */
	deploy_exists exists;
	/* Of the datastores, where sysdir is the front-end's own and holds no disks; else NULL. */
	const char *location;
	const char *vmid; /* of a disk's VM, where there is no more of it; else NULL */
};

/*
 * A create payload from text[len]: name "one-ID", alias, tags, memory, disks and NICs; transient,
 * without autoboot, uuid and owner. -EINVAL names everything that is wrong or not supported.
 */
int deploy_read(const char *text, size_t len, const struct deploy_place *place, json_t **ret,
		struct err *err);

/* The same from a <VM> element of a message. */
int deploy_read_vm(xmlNode *vm, const struct deploy_place *place, json_t **ret, struct err *err);

/* One DISK or NIC element of a message, as a member of add_disks or add_nics. */
int deploy_read_disk(xmlNode *disk, const struct deploy_place *place, json_t **ret,
		     struct err *err);
int deploy_read_nic(xmlNode *nic, json_t **ret, struct err *err);

/* "/a//b" without doubled slashes; caller frees. */
char *deploy_path(const char *path);
