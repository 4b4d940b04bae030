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

#define VM_DISKS_MAX    32
#define VM_NICS_MAX     32
#define VM_CONSOLES_MAX 4
#define VM_LIST_MAX     256

/* Which rows of the element's table were given by a person (index of the row). */
struct prop_set {
	uint64_t bits[3];
};

/* Which of them stand in the definition file under the row's ucl or ucl2 name. */
struct ucl_names {
	struct prop_set ucl, ucl2;
};

struct str_list {
	char **items;
	size_t count;
};

enum disk_media { MEDIA_DISK, MEDIA_CDROM };
#define DISK_MEDIA_COUNT 2
enum disk_model { DISK_VIRTIO, DISK_SCSI, DISK_IDE, DISK_NVME };
#define DISK_MODEL_COUNT 4
enum disk_cache { CACHE_WRITEBACK, CACHE_NONE, CACHE_WRITETHROUGH, CACHE_DIRECTSYNC, CACHE_UNSAFE };
#define DISK_CACHE_COUNT 5
enum disk_format { FORMAT_AUTO, FORMAT_RAW, FORMAT_QCOW2 };
#define DISK_FORMAT_COUNT 3
enum nic_model { NIC_VIRTIO, NIC_E1000, NIC_RTL8139 };
#define NIC_MODEL_COUNT 3
enum vga_model { VGA_STD, VGA_CIRRUS, VGA_VMWARE, VGA_QXL, VGA_XENFB, VGA_NONE };
#define VGA_MODEL_COUNT 6
enum vm_accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
#define VM_ACCEL_COUNT 3
enum on_failure { ON_FAILURE_RESTART, ON_FAILURE_FAIL };
#define ON_FAILURE_COUNT 2
enum on_reboot { ON_REBOOT_RESET, ON_REBOOT_RESTART };
#define ON_REBOOT_COUNT 2
enum vm_hostbridge { HOSTBRIDGE_Q35, HOSTBRIDGE_AMD };
#define VM_HOSTBRIDGE_COUNT 2
enum disk_compression {
	COMPRESSION_OFF,
	COMPRESSION_ON,
	COMPRESSION_GZIP,
	COMPRESSION_GZIP_1,
	COMPRESSION_GZIP_2,
	COMPRESSION_GZIP_3,
	COMPRESSION_GZIP_4,
	COMPRESSION_GZIP_5,
	COMPRESSION_GZIP_6,
	COMPRESSION_GZIP_7,
	COMPRESSION_GZIP_8,
	COMPRESSION_GZIP_9,
	COMPRESSION_LZ4,
	COMPRESSION_LZJB,
	COMPRESSION_ZLE
};
#define DISK_COMPRESSION_COUNT 15

/*
 * ucl_path of elements: the keys below the VM's section that lead to it in its definition file
 * ("disk", "root"; with a number for an element of an array); empty when it is not in a file.
 */
struct disk {
	char *name; /* section name; "disk0" when made from a payload */
	char *path;
	uint64_t size_mib;
	char *image; /* name of an image in the store, or a path to copy from */
	char *image_uuid;
	uint64_t image_size_mib;
	char *image_name;
	uint32_t block_size;
	bool boot;
	enum disk_media media;
	enum disk_model model;
	enum disk_format format;
	enum disk_cache cache;
	bool discard;
	bool readonly;
	bool iothread;
	char *serial;
	enum disk_compression compression;
	uint64_t refreservation_mib;
	bool nocreate; /* payload only, not stored */
	char *zpool;
	char *zfs_filesystem;
	bool missing; /* the backing is gone: set by who looks at disks, not by people */
	struct prop_set given;
	struct ucl_names spelled;
	struct str_list ucl_path;
};

struct nic {
	char *name; /* section name; = interface by default */
	char *mac;
	char *interface; /* "net0" */
	char *nic_tag;   /* alias bridge; "user" is user-mode networking */
	enum nic_model model;
	char *ip;
	struct str_list ips;
	char *netmask;
	char *gateway;
	struct str_list gateways;
	bool primary;
	uint32_t vlan_id;
	uint32_t mtu; /* 0: the default of the network */
	char *network_uuid;
	bool dhcp_server;
	bool allow_dhcp_spoofing, allow_ip_spoofing, allow_mac_spoofing, allow_restricted_traffic,
		allow_unfiltered_promisc;
	struct str_list allowed_ips;
	struct str_list blocked_outgoing_ports;
	struct str_list allowed_dhcp_cids;
	struct str_list forward; /* "tcp:127.0.0.1:2222-:22" */
	char *tap;               /* an existing tap interface */
	struct prop_set given;
	struct ucl_names spelled;
	struct str_list ucl_path;
};

struct console {
	char *name;
	char *backend;
	bool enabled;
	struct prop_set given;
	struct ucl_names spelled;
	struct str_list ucl_path;
};

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
	uint32_t vcpus;
	uint32_t sockets, cores, threads; /* 0: not given */
	char *cpu_type;
	enum vm_accel accel;
	char *machine; /* pinned machine version, "pc-q35-7.2"; NULL: newest */
	char *bootrom; /* firmware image; NULL: SeaBIOS */
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
	uint32_t max_lwps;
	uint32_t quota_gib; /* 0: none */
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
	/* policy */
	bool do_not_inventory, firewall_enabled, archive_on_delete;
	bool indestructible_zoneroot, indestructible_delegated;
	char *image_uuid;
	char *zpool;
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
struct nic *vm_add_nic(struct vm *vm);
struct console *vm_add_console(struct vm *vm);

void str_list_add(struct str_list *list, const char *text);
void str_list_done(struct str_list *list);

#define AUTO_VM __attribute__((cleanup(auto_vm_fn)))
static inline void auto_vm_fn(struct vm **vm)
{
	vm_free(*vm);
}
