/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtual machine is made of: disks, NICs, consoles and the enums of their and its
 * members. Plain data, owned and freed with the struct vm they are in; see vm.h, which is what to
 * include.
 */
#pragma once

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
enum disk_error { ERROR_STOP, ERROR_ENOSPC, ERROR_REPORT, ERROR_IGNORE };
#define DISK_ERROR_COUNT 4
enum disk_preallocation {
	PREALLOCATION_OFF,
	PREALLOCATION_METADATA,
	PREALLOCATION_FALLOC,
	PREALLOCATION_FULL
};
#define DISK_PREALLOCATION_COUNT 4
enum disk_aio { AIO_AUTO, AIO_THREADS, AIO_NATIVE, AIO_IO_URING };
#define DISK_AIO_COUNT 4
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
/* clang-format off */
enum disk_compression {
	COMPRESSION_OFF, COMPRESSION_ON, COMPRESSION_GZIP, COMPRESSION_GZIP_1, COMPRESSION_GZIP_2,
	COMPRESSION_GZIP_3, COMPRESSION_GZIP_4, COMPRESSION_GZIP_5, COMPRESSION_GZIP_6,
	COMPRESSION_GZIP_7, COMPRESSION_GZIP_8, COMPRESSION_GZIP_9, COMPRESSION_LZ4,
	COMPRESSION_LZJB, COMPRESSION_ZLE
};
/* clang-format on */
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
	enum disk_preallocation preallocation;
	enum disk_aio aio;
	enum disk_cache cache;
	bool discard;
	bool readonly;
	bool iothread;
	char *serial;
	enum disk_error werror, rerror;
	uint64_t bps, bps_rd, bps_wr, iops, iops_rd, iops_wr; /* limits, 0: none */
	bool shares_limits; /* no property: they are the VM's, of all such disks together */
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
	uint32_t mtu;                                   /* 0: the default of the network */
	uint32_t bandwidth_in_kbit, bandwidth_out_kbit; /* as the guest sees it; 0: no limit */
	char *network_uuid;
	bool dhcp_server;
	bool allow_dhcp_spoofing, allow_ip_spoofing, allow_mac_spoofing, allow_restricted_traffic,
		allow_unfiltered_promisc;
	struct str_list allowed_ips;
	struct str_list blocked_outgoing_ports;
	struct str_list allowed_dhcp_cids;
	struct str_list forward;   /* "tcp:127.0.0.1:2222-:22" */
	char *tap;                 /* an existing tap interface */
	char *ifname;              /* of the one that is made */
	struct str_list addresses; /* set by who shows the VM, not by people */
	bool link_down;
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
