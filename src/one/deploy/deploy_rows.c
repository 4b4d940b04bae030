/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a deployment file may say, in both dialects: libvirt's domain as OpenNebula writes it (TYPE
 * kvm and qemu; strict, every element is here, and one that holds others is known by them), and the
 * core's own description of a VM (TYPE xml, and the VM of every message). Into the latter users put
 * any attribute of their own, so what has no row there is passed over. So is what a guest does not
 * need to work; what it would miss is refused. Source: fact sheet, 3.1 and 7.
 */
#include "base/mem.h"
#include "one/deploy/deploy_private.h"

#define NO_DEVICE "there is no such device for guests here"
#define NO_LAYOUT "the placing of memory on NUMA nodes is left to the kernel"
#define NO_LUKS   "encrypted disks are not opened here"
#define PASS(path)                                                                                 \
	{                                                                                          \
		path                                                                               \
	}

/* clang-format off */
static const struct deploy_row rows[] = {
	{ "@type", take_word, "accel", words_domain },
	{ "name", take_str, "name" },
	{ "title", take_str, "alias", NULL, "NAME" },
	{ "uuid", take_str, ".uuid", NULL, "OS/UUID" },
	{ "vcpu", take_int, ".vcpus_max" },
	{ "vcpu@current", take_int, "vcpus" },
	{ "cputune/shares", take_shares, "cpu_shares" },
	{ "cputune/vcpupin@cpuset", take_cpus, "cpu_affinity" },
	PASS("cputune/emulatorpin"),
	{ "memory", take_kib, "ram" },
	PASS("maxMemory"), /* room for hot-plug; resize says what it cannot */
	{ "currentMemory", take_kib, "balloon" },
	{ "os@firmware", take_str, ".firmware", NULL, "OS/FIRMWARE" },
	{ "os/type", take_word, ".hvm", words_arch },
	{ "os/type@arch", take_word, ".arch", words_arch, "OS/ARCH" },
	{ "os/type@machine", take_word, "machine", words_machine, "OS/MACHINE" },
	{ "os/kernel", take_path, "kernel", NULL, "OS/KERNEL" },
	{ "os/initrd", take_path, "initrd", NULL, "OS/INITRD" },
	{ "os/cmdline", take_str, "cmdline" },
	{ "os/bootloader", take_refuse, "set KERNEL, or boot from a disk", NULL, "OS/BOOTLOADER" },
	PASS("os/boot"),
	{ "os/loader", take_path, "bootrom" },
	{ "os/nvram", take_path, "nvram" },
	{ "os/nvram@format", take_word, ".format", words_raw },
	PASS("os/firmware*"),
	PASS("pm*"),
	{ "cpu@mode", take_word, "cpu_type", words_cpu },
	{ "cpu/model", take_str, "cpu_type" },
	{ "cpu/feature@name", take_features, ".features", NULL, "CPU_MODEL/FEATURES" },
	{ "cpu/topology@sockets", take_int, "sockets", NULL, "TOPOLOGY/SOCKETS" },
	{ "cpu/topology@cores", take_int, "cores", NULL, "TOPOLOGY/CORES" },
	{ "cpu/topology@threads", take_int, "threads", NULL, "TOPOLOGY/THREADS" },
	{ "cpu/numa/cell", take_once, ".cell" },
	PASS("cpu/numa*"),
	{ "numatune*", take_refuse, NO_LAYOUT },
	PASS("iothreads"),
	{ "memoryBacking/hugepages/page@size",
	  take_pages, "hugepages", NULL, "TOPOLOGY/HUGEPAGE_SIZE" },
	PASS("memoryBacking/source"),
	PASS("memoryBacking/access"),
	PASS("devices/emulator"), /* QEMU is found as for every VM */
	{ "devices/disk@type", take_word, ".type", words_type },
	{ "devices/disk@device", take_word, "media", words_media },
	{ "devices/disk/source@file", take_path, "path" },
	{ "devices/disk/source@dev", take_path, "path" },
	{ "devices/disk/source@protocol", take_word, ".protocol", words_protocol },
	{ "devices/disk/source@name", take_str, ".source" },
	PASS("devices/disk/source/host"), /* ceph.conf of the host names monitors */
	{ "devices/disk/auth@username", take_str, ".ceph_user", NULL, "DISK/CEPH_USER" },
	PASS("devices/disk/auth*"),
	{ "devices/disk/target@dev", take_str, "name", NULL, "DISK/TARGET" },
	{ "devices/disk/target@bus", take_word, "model", words_bus },
	{ "devices/disk/boot@order", take_int, ".order", NULL, "DISK/ORDER" },
	{ "devices/disk/readonly", take_present, "readonly" },
	{ "devices/disk/shareable", take_refuse, "a disk belongs to one VM" },
	{ "devices/disk/serial", take_str, "serial", NULL, "DISK/SERIAL" },
	{ "devices/disk/driver@type", take_word, "format", words_format, "DISK/DRIVER" },
	{ "devices/disk/driver@cache", take_word, "cache", words_cache, "DISK/CACHE" },
	{ "devices/disk/driver@io", take_word, "aio", words_io, "DISK/IO" },
	{ "devices/disk/driver@discard", take_word, "discard", words_discard, "DISK/DISCARD" },
	{ "devices/disk/driver@iothread", take_present, "iothread", NULL, "DISK/IOTHREAD" },
	{ "devices/disk/encryption*", take_refuse, NO_LUKS, NULL, "DISK/LUKS_SECRET" },
	{ "devices/disk/iotune/total_bytes_sec", take_int, "bps", NULL, "DISK/TOTAL_BYTES_SEC" },
	{ "devices/disk/iotune/read_bytes_sec", take_int, "bps_rd", NULL, "DISK/READ_BYTES_SEC" },
	{ "devices/disk/iotune/write_bytes_sec", take_int, "bps_wr", NULL, "DISK/WRITE_BYTES_SEC" },
	{ "devices/disk/iotune/total_iops_sec", take_int, "iops", NULL, "DISK/TOTAL_IOPS_SEC" },
	{ "devices/disk/iotune/read_iops_sec", take_int, "iops_rd", NULL, "DISK/READ_IOPS_SEC" },
	{ "devices/disk/iotune/write_iops_sec", take_int, "iops_wr", NULL, "DISK/WRITE_IOPS_SEC" },
	PASS("devices/disk/iotune*"), /* bursts: the limit holds without them */
	PASS("devices/disk/address"),
	PASS("devices/controller*"), /* ours follow from the disks and NICs */
	{ "devices/filesystem*", take_refuse, NO_DEVICE },
	{ "devices/interface@type", take_word, ".bridge", words_bridge },
	{ "devices/interface/source@bridge", take_str, "nic_tag", NULL, "NIC/BRIDGE" },
	PASS("devices/interface/virtualport"),
	{ "devices/interface/mac@address", take_str, "mac", NULL, "NIC/MAC" },
	{ "devices/interface/target@dev", take_ifname, "ifname", NULL, "NIC/TARGET" },
	{ "devices/interface/boot@order", take_int, ".order", NULL, "NIC/ORDER" },
	{ "devices/interface/script", take_refuse, "use a hook of the VM", NULL, "NIC/SCRIPT" },
	{ "devices/interface/model@type", take_word, "model", words_nic, "NIC/MODEL" },
	PASS("devices/interface/driver"),
	{ "devices/interface/filterref@filter", take_word, ".filter", words_filter, "NIC/FILTER" },
	{ "devices/interface/filterref/parameter@value", take_ip, "allowed_ips" },
	{ "devices/interface/bandwidth/inbound@peak",
	  take_kbyte, ".peak_in", NULL, "NIC/INBOUND_PEAK_BW" },
	{ "devices/interface/bandwidth/inbound@average",
	  take_kbyte, "bandwidth_in", NULL, "NIC/INBOUND_AVG_BW" },
	{ "devices/interface/bandwidth/outbound@peak",
	  take_kbyte, ".peak_out", NULL, "NIC/OUTBOUND_PEAK_BW" },
	{ "devices/interface/bandwidth/outbound@average",
	  take_kbyte, "bandwidth_out", NULL, "NIC/OUTBOUND_AVG_BW" },
	{ "devices/graphics@type", take_word, ".graphics", words_graphics, "GRAPHICS/TYPE" },
	{ "devices/graphics@listen", take_str, "vnc_address", NULL, "GRAPHICS/LISTEN" },
	{ "devices/graphics@port", take_port, "vnc_port", NULL, "GRAPHICS/PORT" },
	{ "devices/graphics@passwd", take_str, "vnc_password", NULL, "GRAPHICS/PASSWD" },
	PASS("devices/video/driver"),
	{ "devices/video/model@type", take_word, "vga", words_vga, "VIDEO/TYPE" },
	PASS("devices/video/model*"),
	PASS("devices/input"),
	PASS("devices/channel*"), /* the agent's is always there */
	{ "devices/sound", take_refuse, NO_DEVICE },
	{ "devices/redirdev", take_refuse, NO_DEVICE },
	{ "devices/iommu", take_refuse, NO_DEVICE },
	{ "devices/hostdev", take_refuse, NO_DEVICE, NULL, "PCI" },
	{ "devices/tpm", take_refuse, NO_DEVICE, NULL, "TPM" },
	{ "features/acpi", take_acpi },
	PASS("features/smm"),
	PASS("features*"), /* hints for speed, and what q35 has anyway */
	{ "clock@offset", take_str, ".clock" },
	PASS("clock*"),
	{ "launchSecurity*", take_refuse, NO_DEVICE },
	PASS("memtune*"),
	{ "commandline", take_refuse, "arguments of QEMU in RAW" },
	{ "metadata/vm/system_datastore", take_path, ".sysdir" },
	{ "metadata/vm/uname", take_str, ".uname" },
	{ "metadata/vm/gname", take_str, ".gname" },
	PASS("metadata/vm*"),

	/* What only the core's own description has, or says otherwise. */
	{ NULL, take_int, ".vmid", NULL, "VMID" },
	{ NULL, take_int, "ram", NULL, "MEMORY" },
	{ NULL, take_int, ".ram_max", NULL, "MEMORY_MAX" },
	{ NULL, take_str, ".resize_mode", NULL, "MEMORY_RESIZE_MODE" },
	{ NULL, take_int, "vcpus", NULL, "VCPU" },
	{ NULL, take_int, ".vcpus_max", NULL, "VCPU_MAX" },
	{ NULL, take_shares, "cpu_shares", NULL, "CPU" },
	{ NULL, take_cpu, "cpu_type", NULL, "CPU_MODEL/MODEL" },
	{ NULL, take_word, ".pin", words_pin, "TOPOLOGY/PIN_POLICY" },
	{ NULL, take_once, ".cell", NULL, "NUMA_NODE" },
	{ NULL, take_str, ".cmdline", NULL, "OS/KERNEL_CMD" },
	{ NULL, take_str, ".root", NULL, "OS/ROOT" },
	{ NULL, take_word, ".sd_bus", words_bus, "OS/SD_DISK_BUS" },
	{ NULL, take_str, ".boot", NULL, "OS/BOOT" },
	{ NULL, take_acpi_yes, NULL, NULL, "FEATURES/ACPI" },
	{ NULL, take_yes, ".localtime", NULL, "FEATURES/LOCALTIME" },
	{ NULL, take_int, ".id", NULL, "DISK/DISK_ID" },
	{ NULL, take_type, "media", words_template_type, "DISK/TYPE" },
	{ NULL, take_path, ".source", NULL, "DISK/SOURCE" },
	{ NULL, take_yes, ".clone", NULL, "DISK/CLONE" },
	{ NULL, take_type, "media", words_template_type, "DISK/DISK_TYPE" },
	{ NULL, take_str, ".pool", NULL, "DISK/POOL_NAME" },
	{ NULL, take_path, ".conf", NULL, "DISK/CEPH_CONF" },
	{ NULL, take_word, "format", words_format, "DISK/FORMAT" },
	{ NULL, take_yes, "readonly", NULL, "DISK/READONLY" },
	{ NULL, take_refuse_yes, "a disk belongs to one VM", NULL, "DISK/SHAREABLE" },
	{ NULL, take_int, ".context_id", NULL, "CONTEXT/DISK_ID" },
	{ NULL, take_str, ".context_target", NULL, "CONTEXT/TARGET" },
	{ NULL, take_ip, ".ips", NULL, "NIC/IP" },
	{ NULL, take_ip, ".ips", NULL, "NIC/IP6" },
	{ NULL, take_str, ".raw", NULL, "RAW/DATA" },
	{ NULL, take_str, ".raw_type", NULL, "RAW/TYPE" },
};
/* clang-format on */

const struct deploy_dialect deploy_libvirt = {
	.rows = rows,
	.count = ARRAY_SIZE(rows),
	.disk = "devices/disk",
	.nic = "devices/interface",
	.strict = true,
};

const struct deploy_dialect deploy_template = {
	.rows = rows,
	.count = ARRAY_SIZE(rows),
	.template = true,
	.disk = "DISK",
	.nic = "NIC",
};
