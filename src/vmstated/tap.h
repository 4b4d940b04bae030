/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tap interfaces and their place in the host's network, for the network worker: all of this may
 * wait for the kernel. A tap lives as long as somebody has it open: QEMU, in the end.
 */
#pragma once

#include <stdint.h>

struct err;
struct rtnl_link;

/* A NIC as the worker is told of it; strings borrowed. */
struct tap_spec {
	const char *name;   /* of the tap */
	const char *bridge; /* NULL: the tap is there, made by a hook, and is only opened */
	const char *mac;    /* of the guest */
	uint32_t mtu, vlan_id, in_kbit;
};

/*
 * Open the tap, making it when the spec has a bridge. -ENODEV, -EBUSY, -EPERM, ... naming what is
 * missing and what would help.
 */
int tap_open(const struct tap_spec *t, int *ret_fd, struct err *err);

/* Put a tap that is still down into its bridge, with MTU and VLAN, and bring it up. */
int tap_connect(const struct tap_spec *t, struct err *err);

/*
 * The part of tap_connect that puts interface `index` into a bridge of the kernel, asked on fd
 * (rtnl_open): with a vlan_id it is in that VLAN only, untagged. -ENOTSUP: the bridge cannot.
 */
int tap_to_bridge(int fd, int index, const struct tap_spec *t, const struct rtnl_link *bridge,
		  struct err *err);

/* Shape what goes to the guest; 0 lifts the limit. */
int tap_shape(const char *tap, uint32_t kbit, struct err *err);
