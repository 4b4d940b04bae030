/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the bhyve_config translator share; nobody else includes this. One walk over
 * the variables (struct map) says what is wrong and writes the arguments. It is done twice: when
 * loading, for its findings, and for the vector.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qemu/argv_private.h"
#include "qemu/bhyve.h"
#include "qemu/bhyve_vars.h"

#define BHYVE_BUSES 256
#define BHYVE_SLOTS 32
#define BHYVE_FUNCS 8

/* --- the hardware --- */

enum bhyve_need_kind { NEED_FILE, NEED_FOLDER, NEED_CHAR, NEED_TAP, NEED_VFIO };

/* Something of the host, looked at by bhyve_check_host. */
struct bhyve_need {
	enum bhyve_need_kind kind;
	bool write;
	const struct bhyve_var *var; /* that names it */
	const char *value;           /* path, interface, "0000:02:00.0" */
};

/* What a walk finds out. Strings belong to the variables or to pool. */
struct bhyve_hw {
	struct bhyve_info info;
	const char *name;
	bool guest_in_core, wired, acpi, localtime, mptable, msix, x2apic, keep_msr, strictio;
	bool gdb_wait, ignored;
	struct argv globals, devices; /* options of the machine, then of its devices */
	struct argv taps, pool;
	struct bhyve_need *needs;
	size_t nneeds;
};
void bhyve_hw_done(struct bhyve_hw *hw);

struct bhyve {
	struct bhyve_vars *vars;
	char *generated;
	struct bhyve_hw hw;
};

/* One walk. */
struct map {
	struct bhyve_vars *vars;
	struct problems *p;
	struct bhyve_hw *hw;
	struct build b;                 /* out is hw's devices or globals */
	const struct bhyve_var *anchor; /* where a variable that is not set would stand */
	bool has_lpc, has_bridge, has_fbuf;
	unsigned lpc_seen;
	uint8_t functions[BHYVE_SLOTS]; /* bit per function that holds a device */
	long boot[256];                 /* indices in use */
	size_t nboot;
};

/* A PCI device of the file. */
struct bhyve_pci {
	unsigned slot, func;
	char at[32];          /* "pci.0.3.0." */
	char name[32];        /* "pci.0.3.0" */
	char id[QEMU_ID_MAX]; /* "pci-0-3-0" */
	const char *model;    /* as the file has it; NULL: none */
	const struct pci_model *row;
	struct bhyve_var var; /* stands for the node in messages */
};

/* --- reading variables (bhyve_read.c): NULL or fallback when not set or wrong, which p says --- */

struct bhyve_range {
	long min, max;
	int base; /* of strtol: 0, 10 */
};
const char *map_str(struct map *m, const char *at, const char *name);
bool map_bool(struct map *m, const char *at, const char *name, bool fallback);
long map_int(struct map *m, const char *at, const char *name, struct bhyve_range range,
	     long fallback);
/* Whether it is set, wrong or not. */
bool map_has(const struct map *m, const char *at, const char *name);
void map_error(struct map *m, const char *at, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void map_warn(struct map *m, const char *at, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* A text that lives as long as the hardware; takes it. */
const char *map_keep(struct map *m, char *text);
void map_need(struct map *m, const char *at, const char *name,
	      const struct bhyve_need *need); /* var is looked up */
/* An absolute path; a relative one starts from the folder of the file. NULL when not set. */
const char *map_path(struct map *m, const char *at, const char *name);
/* Position in the boot order into j, when set. */
void map_bootindex(struct map *m, const char *at, json_t *j);

/* --- parts of the walk --- */

void bhyve_map(struct map *m);         /* all of it */
void bhyve_map_globals(struct map *m); /* bhyve_map_global.c */
void bhyve_map_lpc(struct map *m);     /* bhyve_map_lpc.c */
/* Character device id for a COM port's or uart's value; false when there is none. */
bool bhyve_map_channel(struct map *m, const char *at, const char *id, const char *own_socket);
/* The device on its slot; no vectors where it is virtio and MSI-X is off. */
json_t *bhyve_map_device(struct map *m, const struct bhyve_pci *d, const char *driver);

void bhyve_map_virtio_blk(struct map *m, const struct bhyve_pci *d); /* bhyve_map_block.c */
void bhyve_map_ahci(struct map *m, const struct bhyve_pci *d);
void bhyve_map_ahci_hd(struct map *m, const struct bhyve_pci *d);
void bhyve_map_ahci_cd(struct map *m, const struct bhyve_pci *d);
void bhyve_map_nvme(struct map *m, const struct bhyve_pci *d);
void bhyve_map_virtio_net(struct map *m, const struct bhyve_pci *d); /* bhyve_map_net.c */
void bhyve_map_e1000(struct map *m, const struct bhyve_pci *d);
void bhyve_map_fbuf(struct map *m, const struct bhyve_pci *d); /* bhyve_map_device.c */
void bhyve_map_xhci(struct map *m, const struct bhyve_pci *d);
void bhyve_map_hda(struct map *m, const struct bhyve_pci *d);
void bhyve_map_uart(struct map *m, const struct bhyve_pci *d);
void bhyve_map_passthru(struct map *m, const struct bhyve_pci *d);
void bhyve_map_rnd(struct map *m, const struct bhyve_pci *d);
void bhyve_map_9p(struct map *m, const struct bhyve_pci *d);
void bhyve_map_console(struct map *m, const struct bhyve_pci *d);
void bhyve_map_input(struct map *m, const struct bhyve_pci *d);
void bhyve_map_scsi(struct map *m, const struct bhyve_pci *d);
