/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a NIC may send and is given, as rules of nftables for its tap interface. Pure text; golden
 * files in tests/golden/filter judge it. Source: vmadm(8), nics.*.allow_*; docs/decisions/0014.
 */
#pragma once

#include <stdbool.h>

struct nic;
struct strbuf;

/*
 * Append commands for `nft -f` that put the NIC's rules in force in place of those there were.
 * Without anything to filter they only take the old table away.
 */
void filter_nic(struct strbuf *sb, const char *tap, const struct nic *nic);

/* Commands that take the tap's table away, whether it is there or not. */
void filter_remove(struct strbuf *sb, const char *tap);

/* Tables are called this and the tap's name. */
#define FILTER_PREFIX "drover_"

/*
 * Does its filter take IPv4 addresses from leases ("dhcp"), or those of IPv6 from leases and
 * routers
 * ("addrconf")? They are in these sets of its table: of IPv6 addresses and prefixes, both as
 * sources and as what a neighbour advertisement claims.
 */
bool filter_learns(const struct nic *nic, bool v6);
#define FILTER_LEASED4           "leased4"
#define FILTER_LEASED6           "leased6"
#define FILTER_PREFIXES6         "prefixes6"
#define FILTER_CLAIMED6          "claimed6"
#define FILTER_CLAIMED6_PREFIXES "claimed6_prefixes"
#define FILTER_LIFE_S            86400u /* of what the rules learn themselves */
