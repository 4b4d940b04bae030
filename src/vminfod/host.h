/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every VM object says of its host: server_uuid, datacenter_name, headnode_id,
 * platform_buildstamp. From <etc>/host.json where it says them, else machine-id and os-release
 * below the root, else the uuid kept by the store. Source: smartos facts 7.1.
 */
#pragma once

#include <jansson.h>

struct host;
struct lookout;
struct paths;

/* changed runs inside lookout_sync. host_uuid: of the store; borrowed. */
struct host *host_new(const struct paths *paths, struct lookout *lookout, const char *host_uuid,
		      void (*changed)(void *ctx), void *ctx);
void host_free(struct host *h);
/* Borrowed until the next change. */
const json_t *host_facts(const struct host *h);
/* Why host.json is not believed, NULL: it is, or there is none. */
const char *host_problem(const struct host *h);
