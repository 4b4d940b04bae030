/* SPDX-License-Identifier: Apache-2.0 */
/* Tap interfaces, which QEMU has no right to open itself. */
#pragma once

struct err;

/* Open the existing tap `name` for a guest (virtio-net headers); -ENODEV: there is none. */
int tap_join(const char *name, int *ret_fd, struct err *err);
