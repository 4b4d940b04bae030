/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtual machine is: plain data. Every member but the bookkeeping at the end is described
 * by one row of the tables in props.c; nobody else spells a property name in quotes. After
 * vm_finish() all members hold effective values (defaults filled in, names derived).
 * Strings, lists and elements are owned by the struct and freed with vm_free.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/elements.h"

struct vm {
	/* identity */
	char *uuid; /* lower-case */
	char *name; /* unique on the host */
	char *alias;
	char *hostname;
	char *owner_uuid, *billing_id, *package_name, *package_version;
	char *description, *os, *osversion;
	char *owner, *group; /* of the host */
	/* hardware */
	uint32_t ram_mib;
	uint32_t balloon_mib;             /* 0: the guest keeps all its memory */
	uint32_t vcpus, vcpus_max;        /* max 0: none can be added while it runs */
	uint32_t sockets, cores, threads; /* 0: not given */
	char *cpu_type;
	enum vm_accel accel;
	char *machine; /* pinned machine version, "pc-q35-7.2"; NULL: newest */
	char *bootrom; /* firmware image; NULL: SeaBIOS */
	char *nvram;   /* its variables; NULL: nvram.fd of the data directory */
	char *kernel, *initrd, *cmdline;
	char *boot; /* "order=cd" */
	enum vga_model vga;
	enum vm_hostbridge hostbridge;
	bool acpi, vmexit_on_halt, wire_memory;
	char *configfile; /* bhyve_config(5) */
	char *qemu_opts, *qemu_extra_opts;
	uint32_t virtio_txtimer_ns, virtio_txburst;
	char *disk_driver, *nic_driver;
	struct disk **disks;
	size_t ndisks;
	struct nic **nics;
	size_t nnics;
	struct console **consoles;
	size_t nconsoles;
	/* limits */
	uint32_t cpu_cap; /* percent of one CPU, 0: none */
	uint32_t cpu_shares;
	uint32_t zfs_io_priority;
	uint32_t max_physical_memory_mib, max_locked_memory_mib, max_swap_mib;
	uint64_t io_bps, io_iops; /* of all disks together, 0: none */
	uint32_t max_lwps;
	uint32_t quota_gib;     /* 0: none */
	char *cpu_affinity;     /* "0-1,4"; NULL: any CPU */
	uint32_t hugepages_mib; /* size of the pages of guest memory; 0: ordinary ones */
	/* display */
	int32_t vnc_port; /* 0 random, -1 off */
	char *vnc_address;
	char *vnc_password;
	int32_t spice_port;
	char *spice_password, *spice_opts;
	/* network of the guest */
	struct str_list resolvers;
	/* supervision */
	bool autoboot;
	struct str_list after;
	char *scriptpath; /* folder of the hooks; default the definition's */
	uint32_t maxrestart;
	uint64_t maxrestarttime_ms, hooktimeout_ms, stoptimeout_ms, readytimeout_ms;
	char *readyline;
	enum on_failure onfailure;
	enum on_reboot onreboot;
	uint64_t ioretry_ms; /* 0: a guest stopped by an I/O error waits for a person */
	/* policy */
	bool transient; /* goes with its guest */
	bool do_not_inventory, firewall_enabled, archive_on_delete;
	bool indestructible_zoneroot, indestructible_delegated;
	char *image_uuid;
	char *zpool;
	char *zfs_root_compression; /* NULL: as the pool has it */
	struct str_list internal_metadata_namespaces;
	char *create_timestamp; /* ISO; written by vmadmd */
	/* of the data directory's config JSON files; NULL is {} */
	json_t *tags, *customer_metadata, *internal_metadata, *routes;

	/* bookkeeping, no properties */
	struct prop_set given;
	struct ucl_names spelled;
	char *data_dir;  /* of vm_finish; NULL: not known */
	char *file;      /* definition file; NULL for a payload */
	int line;        /* of its section */
	char *dir;       /* folder of the definition file */
	bool made_by_us; /* directory named after the uuid: start and stop may write autoboot */
	uint32_t owner_uid, group_gid; /* UINT32_MAX: none; resolved when loaded */
	int64_t mtime_ms; /* newest of definition, includes, metadata files: last_modified */
};

struct vm *vm_new(void);
void vm_free(struct vm *vm); /* NULL is fine */
struct vm *vm_copy(const struct vm *vm);

struct disk *vm_add_disk(struct vm *vm); /* NULL at VM_DISKS_MAX */
void disk_keep_path(struct disk *d);     /* its path counts as given by a person from now on */
struct nic *vm_add_nic(struct vm *vm);
struct console *vm_add_console(struct vm *vm);

#define NIC_TAP_MAX 16
/*
 * The tap interface of a NIC: the one it names, else the one vmstated makes for a bridge, whose
 * name it may give, and which follows from uuid and MAC otherwise. False for user-mode networking,
 * which has none.
 */
bool vm_nic_tap(const struct vm *vm, const struct nic *nic, char name[NIC_TAP_MAX]);

void str_list_add(struct str_list *list, const char *text);
void str_list_done(struct str_list *list);

#define AUTO_VM __attribute__((cleanup(auto_vm_fn)))
static inline void auto_vm_fn(struct vm **vm)
{
	vm_free(*vm);
}
