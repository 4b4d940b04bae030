/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of disks, NICs and consoles. Their order is the order of members in the VM object:
 * first those of the object we match (vmadm), then ours.
 */
#include "model/props.h"

#include "base/mem.h"
#include "model/checks.h"
#include "model/rows.h"

#define D_STR(key, field)               ROW_STR(struct disk, key, field)
#define D_BOOL(key, field)              ROW_BOOL(struct disk, key, field)
#define D_U32(key, field)               ROW_U32(struct disk, key, field)
#define D_U64(key, field)               ROW_U64(struct disk, key, field)
#define D_ENUM(key, field, T, table, n) ROW_ENUM(struct disk, key, field, T, table, n)
#define N_STR(key, field)               ROW_STR(struct nic, key, field)
#define N_BOOL(key, field)              ROW_BOOL(struct nic, key, field)
#define N_U32(key, field)               ROW_U32(struct nic, key, field)
#define N_LIST(key, field)              ROW_LIST(struct nic, key, field)
#define N_ENUM(key, field, T, table, n) ROW_ENUM(struct nic, key, field, T, table, n)
#define C_STR(key, field)               ROW_STR(struct console, key, field)
#define C_BOOL(key, field)              ROW_BOOL(struct console, key, field)

#define SIZE_MAX_MIB  (1ll << 34) /* 16 PiB */
#define BANDWIDTH_MAX 100000000   /* 100 Gbit/s, in kbit/s */

/* clang-format off */
static const struct prop disk_rows[] = {
	{ D_STR("path", path), .set = ON_CREATE, .show = SHOW_SET, .check = check_path,
	  .source = "vmadm(8), disks.*.path",
	  .doc = "File or block device; NAME.qcow2 in the VM's data directory when not given; a CD drive "
		 "without is empty." },
	{ D_U64("size", size_mib), .unit = "MiB", .min = 1, .max = SIZE_MAX_MIB,
	  .set = CU_LIVE | KEY_BY_INDEX, .show = SHOW_SET, .source = "vmadm(8), disks.*.size",
	  .doc = "Size of a disk to be made; it can grow later, while the VM runs too." },
	{ D_STR("image_uuid", image_uuid), .set = ON_CREATE | KEY_BY_INDEX, .show = SHOW_SET,
	  .check = check_uuid, .source = "vmadm(8), disks.*.image_uuid",
	  .doc = "Image to make the disk from." },
	{ D_U64("image_size", image_size_mib), .unit = "MiB", .min = 1, .max = SIZE_MAX_MIB,
	  .set = ON_CREATE | KEY_BY_INDEX, .show = SHOW_SET, .source = "vmadm(8), disks.*.image_size",
	  .doc = "Size of that image." },
	{ D_STR("image_name", image_name), .set = ON_CREATE | KEY_BY_INDEX, .show = SHOW_SET,
	  .max = 256, .source = "vmadm(8), disks.*.image_name", .doc = "Name of that image; carried." },
	{ D_U32("block_size", block_size), .unit = "B", .def = 8192, .set = ON_CREATE | KEY_BY_INDEX,
	  .show = SHOW_SET, .check = check_block_size, .source = "vmadm(8), disks.*.block_size",
	  .doc = "Block size of the volume, a power of two from 512 to 131072." },
	{ D_BOOL("boot", boot), .set = CU_RESTART, .show = SHOW_ALWAYS,
	  .source = "vmadm(8), disks.*.boot", .doc = "Boot from this disk first." },
	{ D_ENUM("media", media, disk_media, disk_media_names, DISK_MEDIA_COUNT), .set = CU_RESTART,
	  .show = SHOW_ALWAYS, .source = "vmadm(8), disks.*.media", .doc = "A disk or a CD-ROM." },
	{ D_ENUM("model", model, disk_model, disk_model_names, DISK_MODEL_COUNT), .set = CU_RESTART,
	  .show = SHOW_ALWAYS, .source = "vmadm(8), disks.*.model",
	  .refusal = "\"$v\" is not a valid disk model for kvm brand. Valid are: $n",
	  .doc = "Controller the guest sees." },
	{ D_ENUM("compression", compression, disk_compression, disk_compression_names,
		 DISK_COMPRESSION_COUNT), .set = CU_LIVE, .show = SHOW_ALWAYS,
	  .source = "vmadm(8), disks.*.compression", .doc = "Compression of the volume; carried." },
	{ D_U64("refreservation", refreservation_mib), .unit = "MiB", .max = SIZE_MAX_MIB,
	  .set = CU_LIVE, .show = SHOW_SET, .source = "vmadm(8), disks.*.refreservation",
	  .doc = "Space reserved for the volume; carried." },
	{ D_BOOL("nocreate", nocreate), .set = ON_CREATE | PAYLOAD_ONLY, .show = SHOW_NEVER,
	  .source = "vmadm(8), disks.*.nocreate", .doc = "The disk exists: use it as it is." },
	{ D_STR("zpool", zpool), .set = ON_CREATE, .show = SHOW_SET, .max = 64, .check = check_word,
	  .source = "vmadm(8), disks.*.zpool", .doc = "Name of the storage pool; carried." },
	{ D_STR("zfs_filesystem", zfs_filesystem), .set = BY_HAND, .show = SHOW_SET,
	  .source = "vmadm(8), disks.*.zfs_filesystem", .doc = "Name of the volume; carried." },
	{ D_BOOL("missing", missing), .show = SHOW_TRUE, .source = "vmadm(8), disks.*.missing",
	  .doc = "The file or device is gone." },
	{ D_STR("name", name), .set = ON_CREATE, .show = SHOW_SET, .check = check_name,
	  .source = "design, section 4", .doc = "Name of the disk within the VM: its section." },
	{ D_STR("image", image), .set = ON_CREATE | KEY_BY_INDEX, .show = SHOW_SET,
	  .source = "design, section 4",
	  .doc = "Image of the store, or path of a file, to make the disk from." },
	{ D_ENUM("format", format, disk_format, disk_format_names, DISK_FORMAT_COUNT),
	  .set = CU_RESTART, .show = SHOW_SET, .source = "design, section 4",
	  .doc = "Format of the file; auto looks at it." },
	{ D_ENUM("preallocation", preallocation, disk_preallocation, disk_preallocation_names,
		 DISK_PREALLOCATION_COUNT), .set = ON_CREATE | KEY_BY_INDEX, .show = SHOW_SET,
	  .source = "design, section 4",
	  .doc = "How much of a new disk is laid out when it is made." },
	{ D_ENUM("cache", cache, disk_cache, disk_cache_names, DISK_CACHE_COUNT), .set = CU_RESTART,
	  .show = SHOW_SET, .source = "design, section 4", .doc = "Cache mode of the host." },
	{ D_ENUM("aio", aio, disk_aio, disk_aio_names, DISK_AIO_COUNT), .set = CU_RESTART,
	  .show = SHOW_SET, .source = "qemu-block-drivers(7), aio",
	  .doc = "How QEMU waits for a file or device: threads, native (cache none or directsync only), "
		 "io_uring where the kernel allows it; auto is native where it can be, else threads." },
	{ D_BOOL("discard", discard), .set = CU_RESTART, .show = SHOW_TRUE,
	  .source = "design, section 4", .doc = "Give space the guest frees back to the host." },
	{ D_BOOL("readonly", readonly), .set = CU_RESTART, .show = SHOW_TRUE,
	  .source = "design, section 4", .doc = "The guest may not write." },
	{ D_BOOL("iothread", iothread), .set = CU_RESTART, .show = SHOW_TRUE,
	  .source = "design, section 4", .doc = "Serve the disk from a thread of its own." },
	{ D_STR("serial", serial), .set = CU_RESTART, .show = SHOW_SET, .max = 20,
	  .check = check_word, .source = "design, section 4", .doc = "Serial number the guest sees." },
	{ D_ENUM("werror", werror, disk_error, disk_error_names, DISK_ERROR_COUNT), .set = CU_RESTART,
	  .show = SHOW_SET, .source = "qemu(1), -device werror",
	  .doc = "When a write fails: stop the guest (also of enospc, when the host's disk is full), "
		 "report it to the guest, or ignore it." },
	{ D_ENUM("rerror", rerror, disk_error, disk_error_names, DISK_ERROR_COUNT), .set = CU_RESTART,
	  .show = SHOW_SET, .source = "qemu(1), -device rerror",
	  .doc = "The same when a read fails." },
	{ D_U64("bps", bps), .max = LIMIT_MAX, .set = CU_LIVE, .show = SHOW_SET,
	  .source = "qemu-qmp-ref(7), block_set_io_throttle",
	  .doc = "Bytes a second, read and written; 0 is no limit." },
	{ D_U64("bps_rd", bps_rd), .max = LIMIT_MAX, .set = CU_LIVE, .show = SHOW_SET,
	  .source = "qemu-qmp-ref(7), block_set_io_throttle", .doc = "Bytes a second read." },
	{ D_U64("bps_wr", bps_wr), .max = LIMIT_MAX, .set = CU_LIVE, .show = SHOW_SET,
	  .source = "qemu-qmp-ref(7), block_set_io_throttle", .doc = "Bytes a second written." },
	{ D_U64("iops", iops), .max = LIMIT_MAX, .set = CU_LIVE, .show = SHOW_SET,
	  .source = "qemu-qmp-ref(7), block_set_io_throttle", .doc = "Operations a second." },
	{ D_U64("iops_rd", iops_rd), .max = LIMIT_MAX, .set = CU_LIVE, .show = SHOW_SET,
	  .source = "qemu-qmp-ref(7), block_set_io_throttle", .doc = "Reads a second." },
	{ D_U64("iops_wr", iops_wr), .max = LIMIT_MAX, .set = CU_LIVE, .show = SHOW_SET,
	  .source = "qemu-qmp-ref(7), block_set_io_throttle", .doc = "Writes a second." },
};

static const struct prop nic_rows[] = {
	{ N_STR("mac", mac), .set = ON_CREATE, .show = SHOW_SET, .check = check_mac,
	  .source = "vmadm(8), nics.*.mac",
	  .doc = "Ethernet address; made from the VM's uuid and the NIC's name when not given." },
	{ N_STR("nic_tag", nic_tag), .ucl = "bridge", .set = CU_RESTART, .show = SHOW_SET,
	  .check = check_nic_tag, .source = "vmadm(8), nics.*.nic_tag; design, section 4",
	  .doc = "Bridge of the host; \"user\" is user-mode networking." },
	{ N_ENUM("model", model, nic_model, nic_model_names, NIC_MODEL_COUNT), .set = CU_RESTART,
	  .show = SHOW_ALWAYS, .source = "vmadm(8), nics.*.model",
	  .refusal = "\"$v\" is not a valid NIC model for kvm brand. Valid are: $n",
	  .doc = "Network card the guest sees." },
	{ N_STR("interface", interface), .set = ON_CREATE, .show = SHOW_SET,
	  .check = check_interface, .source = "vmadm(8), nics.*.interface",
	  .doc = "netN, the lowest free N when not given." },
	{ N_LIST("ips", ips), .set = CU_RESTART, .show = SHOW_SET, .check = check_nic_ip, .max = 20,
	  .source = "vmadm(8), nics.*.ips",
	  .doc = "Addresses with prefix length, \"dhcp\" (those leased) or \"addrconf\" "
		 "(of routers, DHCPv6)." },
	{ N_STR("ip", ip), .set = CU_RESTART, .show = SHOW_SET, .check = check_nic_ip,
	  .source = "vmadm(8), nics.*.ip", .doc = "The first IPv4 address, or \"dhcp\"." },
	{ N_LIST("gateways", gateways), .set = CU_RESTART, .show = SHOW_SET, .check = check_ip4,
	  .source = "vmadm(8), nics.*.gateways", .doc = "IPv4 routers." },
	{ N_STR("gateway", gateway), .set = CU_RESTART, .show = SHOW_SET, .check = check_ip4,
	  .source = "vmadm(8), nics.*.gateway", .doc = "The first IPv4 router." },
	{ N_STR("netmask", netmask), .set = CU_RESTART, .show = SHOW_SET, .check = check_netmask,
	  .source = "vmadm(8), nics.*.netmask", .doc = "Netmask of ip; kept in step with ips." },
	{ N_BOOL("primary", primary), .set = CU_RESTART, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.primary",
	  .doc = "The NIC whose gateway and resolvers the guest uses; exactly one." },
	{ N_U32("vlan_id", vlan_id), .max = 4095, .set = CU_RESTART, .show = SHOW_SET,
	  .source = "vmadm(8), nics.*.vlan_id", .doc = "VLAN; 0 is none." },
	{ N_U32("mtu", mtu), .min = 576, .max = 9000, .set = CU_RESTART, .show = SHOW_SET,
	  .source = "vmadm(8), nics.*.mtu",
	  .doc = "Largest packet; the network's when not given." },
	{ N_STR("network_uuid", network_uuid), .set = CU_LIVE, .show = SHOW_SET, .check = check_uuid,
	  .source = "vmadm(8), nics.*.network_uuid", .doc = "Identity of the network; carried." },
	{ N_BOOL("dhcp_server", dhcp_server), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.dhcp_server",
	  .doc = "The guest serves DHCP, as with allow_dhcp_spoofing." },
	{ N_BOOL("allow_dhcp_spoofing", allow_dhcp_spoofing), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.allow_dhcp_spoofing",
	  .doc = "The guest may serve DHCP and send router advertisements." },
	{ N_BOOL("allow_ip_spoofing", allow_ip_spoofing), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.allow_ip_spoofing",
	  .doc = "The guest may send from addresses beside ips and allowed_ips." },
	{ N_BOOL("allow_mac_spoofing", allow_mac_spoofing), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.allow_mac_spoofing",
	  .doc = "The guest may send from Ethernet addresses beside its own." },
	{ N_BOOL("allow_restricted_traffic", allow_restricted_traffic), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.allow_restricted_traffic",
	  .doc = "The guest may send what is neither IPv4, IPv6 nor ARP, VLAN tags among it." },
	{ N_BOOL("allow_unfiltered_promisc", allow_unfiltered_promisc), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "vmadm(8), nics.*.allow_unfiltered_promisc",
	  .doc = "The guest is given frames for other Ethernet addresses too." },
	{ N_LIST("allowed_ips", allowed_ips), .set = CU_LIVE, .show = SHOW_SET, .check = check_cidr,
	  .max = 13, .source = "vmadm(8), nics.*.allowed_ips",
	  .doc = "Further addresses and networks the guest may send from." },
	{ N_LIST("blocked_outgoing_ports", blocked_outgoing_ports), .set = CU_LIVE,
	  .show = SHOW_SET, .check = check_port, .source = "vmadm(8), nics.*.blocked_outgoing_ports",
	  .doc = "TCP and UDP ports the guest may not send to." },
	{ N_LIST("allowed_dhcp_cids", allowed_dhcp_cids), .set = CU_LIVE, .show = SHOW_SET,
	  .max = 20, .source = "vmadm(8), nics.*.allowed_dhcp_cids",
	  .doc = "DHCP client identifiers; carried." },
	{ N_STR("name", name), .set = ON_CREATE, .show = SHOW_SET, .check = check_name,
	  .source = "design, section 4",
	  .doc = "Name of the NIC within the VM: its section; the interface when not given." },
	{ N_LIST("forward", forward), .set = CU_RESTART, .show = SHOW_SET, .check = check_forward,
	  .source = "design, section 4",
	  .doc = "Ports of the host led to the guest in user-mode networking: "
		 "tcp:127.0.0.1:2222-:22." },
	{ N_U32("bandwidth_in", bandwidth_in_kbit), .unit = "kbit/s", .max = BANDWIDTH_MAX,
	  .set = CU_LIVE, .show = SHOW_SET, .source = "design, section 4",
	  .doc = "Most the guest may receive over a bridge; 0 is no limit." },
	{ N_U32("bandwidth_out", bandwidth_out_kbit), .unit = "kbit/s", .max = BANDWIDTH_MAX,
	  .set = CU_LIVE, .show = SHOW_SET, .source = "design, section 4",
	  .doc = "Most the guest may send over a bridge; 0 is no limit." },
	{ N_STR("tap", tap), .set = BY_HAND | NEEDS_RESTART, .show = SHOW_SET, .check = check_ifname,
	  .source = "design, section 4", .doc = "An existing tap interface to use." },
	{ N_STR("ifname", ifname), .set = CU_RESTART, .show = SHOW_SET, .check = check_ifname,
	  .source = "design, section 4",
	  .doc = "Name of the tap interface that is made for a bridge; derived when not given." },
	{ N_BOOL("link_down", link_down), .set = CU_LIVE, .show = SHOW_TRUE,
	  .source = "qemu-qmp-ref(7), set_link", .doc = "The cable is pulled." },
	{ N_LIST("addresses", addresses), .show = SHOW_SET, .source = "design, section 4",
	  .doc = "Addresses of the running guest: its agent's word, else leases and neighbours." },
	{ .name = "address_sources", .type = PROP_RUNTIME, .show = SHOW_SET,
	  .source = "design, section 4",
	  .doc = "Of each of these: source (agent, lease, neighbour) and since when it is known." },
};

static const struct prop console_rows[] = {
	{ C_STR("name", name), .set = ON_CREATE, .show = SHOW_SET, .check = check_name,
	  .source = "vmstated(8), consoles", .doc = "Name of the console: its section." },
	{ C_STR("backend", backend), .set = ON_CREATE, .show = SHOW_SET,
	  .source = "vmstated(8), consoles",
	  .doc = "Device of the host to connect; a socket in the run directory when not given." },
	{ C_BOOL("enabled", enabled), .def = 1, .set = ON_CREATE, .show = SHOW_ALWAYS,
	  .source = "vmstated(8), consoles", .doc = "Whether the guest has the port." },
};
/* clang-format on */

const struct prop_table disk_props = {
	.what = "disks",
	.one = "disk",
	.rows = disk_rows,
	.count = ARRAY_SIZE(disk_rows),
	.key = "path",
	.given_at = offsetof(struct disk, given),
	.spelled_at = offsetof(struct disk, spelled),
};

const struct prop_table nic_props = {
	.what = "nics",
	.one = "NIC",
	.rows = nic_rows,
	.count = ARRAY_SIZE(nic_rows),
	.key = "mac",
	.given_at = offsetof(struct nic, given),
	.spelled_at = offsetof(struct nic, spelled),
};

const struct prop_table console_props = {
	.what = "consoles",
	.one = "console",
	.rows = console_rows,
	.count = ARRAY_SIZE(console_rows),
	.key = "name",
	.given_at = offsetof(struct console, given),
	.spelled_at = offsetof(struct console, spelled),
};
