/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices a running QEMU has: asked, and looked up by what definitions call them. Pure but for
 * machine_ask.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct err;
struct guest;

struct machine {
	json_t *block; /* query-block with the `device` of old */
	json_t *ports; /* {"port3": id of the device on it, "" when free} */
	json_t *macs;  /* {"nic0": "52:54:..."} */
	json_t *has;   /* {"blockdev-add": {"disk0": true}}: by the command that makes it */
};

struct machine_ask;
typedef void (*machine_done)(void *ctx, int r, const struct err *err);
/* Fill m; done runs once, from the loop. */
int machine_ask(struct guest *g, struct machine *m, machine_done done, void *ctx, struct err *err);
void machine_done_with(struct machine *m);

/* Is there what this command makes (object-add, blockdev-add, netdev_add, device_add), by its id?
 */
bool machine_has(const struct machine *m, const char *maker, const char *id);
/* The row of query-block whose medium is that file, or the empty drive with that id; NULL. */
const json_t *machine_disk(const struct machine *m, const char *path, const char *id);
/* Id of the NIC with that MAC, NULL. Borrowed. */
const char *machine_nic(const struct machine *m, const char *mac);
/* Number of the port a device is on, -1. */
long machine_port_of(const struct machine *m, const char *id);
/* A free port, from first on, else any; -1: none. */
long machine_free_port(const struct machine *m, size_t first);
/* The lowest number from n on that no device "diskN" or "nicN" has, nor what belongs to one. */
size_t machine_free_number(const struct machine *m, bool nic, size_t n);
