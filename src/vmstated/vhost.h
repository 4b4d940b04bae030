/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's back end of virtio NICs, which spares QEMU each packet; not every host has it. */
#pragma once

#define VHOST_NET "/dev/vhost-net"

/*
 * A descriptor of the device at path, close-on-exec, for one NIC's queue. Not there, not to be
 * opened, or a file that is no such device: -errno, and QEMU does it all by itself.
 */
int vhost_open(const char *path);
