/* SPDX-License-Identifier: Apache-2.0 */
/* The programs the network worker asks: nft and ovs-vsctl. Each call waits for its end. */
#pragma once

#include <stdint.h>

struct err;
struct strbuf;

/* Run `nft -f -` with these commands, all or nothing. -ENOENT when nft is not installed. */
int nft_run(const char *commands, struct err *err);
/* The names of all tables of the netdev family, one a line. */
int nft_tables(struct strbuf *ret, struct err *err);

/* Whether Open vSwitch has a bridge of this name: 0, -ENODEV, or -ENOENT without ovs-vsctl. */
int ovs_has_bridge(const char *bridge, struct err *err);
/* vlan_id 0: none. The port is marked as ours. */
int ovs_add_port(const char *bridge, const char *tap, uint32_t vlan_id, struct err *err);
int ovs_remove_port(const char *tap, struct err *err);
/* The names of the ports that are ours, one a line; none when Open vSwitch does not run. */
int ovs_ports(struct strbuf *ret, struct err *err);
