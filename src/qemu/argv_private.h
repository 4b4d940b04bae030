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
	size_t disk_port, nic_port;     /* next free root ports */
	unsigned scsi, ahci;            /* targets and ports given so far */
	bool scsi_there;                /* the controller */
	const struct qemu_place *place; /* of a machine that runs; NULL: a start */
	int boot_disk[VM_DISKS_MAX], boot_nic[VM_NICS_MAX]; /* boot indices, 0: none */
	bool net_boot;                                      /* NICs keep their boot ROM */
	bool dump_core; /* the guest's memory is part of QEMU's core files */
};

/* Move all of from to the end of a. */
void argv_join(struct argv *a, struct argv *from);

/* "-device {...}"; takes j. */
void argv_json(struct build *b, const char *option, json_t *j);
/* A device with an id on a bus; addr NULL: the bus has none. */
json_t *argv_device(const char *driver, const char *id, const char *bus, const char *addr);
/* The same on a slot of pcie.0. */
json_t *argv_pci(const char *driver, const char *id, enum argv_slot slot);
/* The same on a root port. */
json_t *argv_on_port(size_t port, const char *driver, const char *id);

/* In key=value options a comma inside a value is doubled. Caller frees. */
char *argv_doubled(const char *text);
/* A chardev on an inherited listening socket; false when fd is none. */
bool argv_socket(struct build *b, const char *id, int fd);
/* "-display none" and, unless vnc_port is -1, VNC on vm.vnc. False when nobody can see a screen. */
bool argv_vnc(struct build *b);
/* Nodes of a disk's path: "<id>-file" and, on it, "<id>". */
void argv_backend(struct build *b, const char *id, const struct disk *d);

/* Parts of the vector, each in its file; those above argv_boot are bhyve.c's as well. */
int argv_check(struct build *b);
int argv_identity(struct build *b);
int argv_core(struct build *b); /* machine, accelerator, processor, memory */
int argv_monitors(struct build *b);
int argv_extra(struct build *b);
int argv_boot(struct build *b);
int argv_firmware(struct build *b);
int argv_disks(struct build *b);
int argv_nics(struct build *b);
/* Does the firmware keep its variables from the guest (secure boot)? */
bool argv_secure(const struct vm *vm);
