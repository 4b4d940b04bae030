/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listens on the taps of NICs whose addresses come from others ("dhcp", "addrconf") and keeps the
 * sets of their filters as leases and routers say: for as long as an address is the guest's, and
 * no longer. Its rules let a lease of DHCP in by themselves, for when vmstated is away.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct guest;
struct nic;
struct strbuf;

/* The filter of nics[i] is in force: listen, when it learns; n NULL: do not (any more). */
void snoop_nic(struct guest *g, size_t i, const char *tap, const struct nic *n);
/* It does not run any more. */
void snoop_stop(struct guest *g);
/* A worker is at its sets. */
bool snoop_busy(const struct guest *g);
/*
 * Append nft commands that put all that is known of nics[i] into its sets, which may be new; when
 * nothing was heard since we began, what the neighbour table has.
 */
void snoop_known(const struct guest *g, size_t i, const char *tap, const struct nic *n,
		 struct strbuf *sb);
