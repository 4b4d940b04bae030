/* SPDX-License-Identifier: Apache-2.0 */
/* What the core wants to know of the host itself, as attributes, a line each. */
#pragma once

struct strbuf;

/* HOSTNAME ARCH MODELNAME CPUSPEED TOTALCPU TOTALMEMORY */
void host_put_static(struct strbuf *sb);
/* USEDCPU FREECPU (since boot) USEDMEMORY FREEMEMORY NETRX NETTX */
void host_put_usage(struct strbuf *sb);
/* DS_LOCATION_*_MB of location, and DS=[..] of each datastore in it that is marked .monitor. */
void host_put_datastores(struct strbuf *sb, const char *location);
