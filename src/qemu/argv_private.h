/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the argument builder share; nobody else includes this. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "model/vm.h"
#include "qemu/argv.h"

struct err;

/* Slots of pcie.0 that are ours; 0 and 0x1f belong to the machine. */
enum argv_slot {
	SLOT_VGA = 1,
	SLOT_SCSI,
	SLOT_USB,
	SLOT_SERIAL,
	SLOT_RNG,
	SLOT_BALLOON,
	SLOT_PORTS = 0x10, /* root ports, eight to a slot */
};

/* What one build carries along. */
struct build {
	const struct vm *vm;
	const struct qemu_caps *caps;
	const struct qemu_fds *fds;
	struct argv *out;
	struct err *err;
	size_t port;                                        /* next free root port */
	unsigned scsi, ahci;                                /* targets and ports given so far */
	int boot_disk[VM_DISKS_MAX], boot_nic[VM_NICS_MAX]; /* boot indices, 0: none */
	bool net_boot;                                      /* NICs keep their boot ROM */
};

/* Move all of from to the end of a. */
void argv_join(struct argv *a, struct argv *from);

/* "-device {...}"; takes j. */
void argv_json(struct build *b, const char *option, json_t *j);
/* A device with an id on a bus; addr NULL: the bus has none. */
json_t *argv_device(const char *driver, const char *id, const char *bus, const char *addr);
/* The same on a slot of pcie.0. */
json_t *argv_pci(const char *driver, const char *id, enum argv_slot slot);
/* The same on the next root port. */
json_t *argv_on_port(struct build *b, const char *driver, const char *id);

/* Parts of the vector, each in its file. */
int argv_boot(struct build *b);
int argv_firmware(struct build *b);
int argv_disks(struct build *b);
int argv_nics(struct build *b);
/* Does the firmware keep its variables from the guest (secure boot)? */
bool argv_secure(const struct vm *vm);
