/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of running guests out of the lease files of this host's DHCP servers (lease.h), as
 * vmadmd's fact "leases": {MAC: {address: since}}.
 */
#pragma once

#include <stdbool.h>

struct err;
struct guest;
struct vmadmd;

#define LEASE_FILES_MAX 8
#define LEASE_FILE      "var/lib/misc/dnsmasq.leases" /* below the root, when none is named */

/* Before leases_start: read this file, an absolute path, too. -EINVAL, -E2BIG. */
int leases_add_file(struct vmadmd *d, const char *path, struct err *err);
/* Read them, and again whenever they change. */
void leases_start(struct vmadmd *d);
void leases_free(struct vmadmd *d);

/* The VM began or ceased to run, or has other NICs: whether its leases are others now. */
bool leases_update(struct guest *g);
