/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are not files: nbd:, rbd: and iscsi: paths, as people write them, into what QEMU's
 * block layer takes. A secret in a path is refused: it would stand in QEMU's arguments.
 * Source: qemu(1), "Device URL Syntax" and -drive file=nbd:, rbd:.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct err;

/*
 * Driver and place of a path for which image_protocol() tells a protocol; new reference.
 *   nbd:unix:/SOCKET[:exportname=NAME]  nbd:HOST:PORT[:exportname=NAME]  nbd://HOST[:PORT][/NAME]
 *   rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:id=USER][:conf=FILE]
 *   iscsi://HOST[:PORT]/TARGET/LUN
 * -ENOTSUP for another protocol, -EINVAL for what is none of these forms.
 */
int source_parse(const char *path, json_t **ret, struct err *err);

/*
 * 0, or -ENOTSUP naming the block driver of path that this host's QEMU does not have. Drivers are
 * modules in a folder where distributions split QEMU; without such a folder they are built in.
 */
int source_driver_check(const char *path, struct err *err);
