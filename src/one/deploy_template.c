/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's own description of a VM (TYPE xml, and the VM of every message). Users may put any
 * attribute of their own into a template, so what has no row is passed over; what the core's
 * documentation promises and we cannot keep is refused. Source: fact sheet, 3.1 and 7.1.
 */
#include "base/mem.h"
#include "one/deploy_private.h"

#define NO_DEVICE "there is no such device for guests here"

/* clang-format off */
static const struct deploy_row rows[] = {
	{ "NAME", take_str, "alias", NULL },
	{ "VMID", take_int, ".vmid", NULL },
	{ "MEMORY", take_int, "ram", NULL },
	{ "MEMORY_MAX", take_int, ".ram_max", NULL },
	{ "MEMORY_RESIZE_MODE", take_str, ".resize_mode", NULL },
	{ "VCPU", take_int, "vcpus", NULL },
	{ "CPU", take_shares, "cpu_shares", NULL },
	{ "CPU_MODEL/MODEL", take_cpu, "cpu_type", NULL },
	{ "CPU_MODEL/FEATURES", take_features, "cpu_type", NULL },
	{ "TOPOLOGY/SOCKETS", take_int, "sockets", NULL },
	{ "TOPOLOGY/CORES", take_int, "cores", NULL },
	{ "TOPOLOGY/THREADS", take_int, "threads", NULL },
	{ "TOPOLOGY/HUGEPAGE_SIZE", take_pages, "hugepages", NULL },
	{ "OS/UUID", take_str, ".uuid", NULL },
	{ "OS/ARCH", take_word, ".arch", words_arch },
	{ "OS/MACHINE", take_word, "machine", words_machine },
	{ "OS/KERNEL", take_path, "kernel", NULL },
	{ "OS/INITRD", take_path, "initrd", NULL },
	{ "OS/KERNEL_CMD", take_str, ".cmdline", NULL },
	{ "OS/ROOT", take_str, ".root", NULL },
	{ "OS/BOOTLOADER", take_refuse, "set KERNEL, or boot from a disk", NULL },
	{ "OS/FIRMWARE", take_str, ".firmware", NULL },
	{ "OS/SD_DISK_BUS", take_word, ".sd_bus", words_bus },
	{ "OS/BOOT", take_str, ".boot", NULL },
	{ "FEATURES/ACPI", take_acpi_yes, NULL, NULL },
	{ "FEATURES/LOCALTIME", take_yes, ".localtime", NULL },
	{ "DISK/DISK_ID", take_int, ".id", NULL },
	{ "DISK/TYPE", take_type, "media", words_template_type },
	{ "DISK/CEPH_USER", take_str, ".ceph_user", NULL },
	{ "DISK/SOURCE", take_path, ".source", NULL },
	{ "DISK/TARGET", take_str, "name", NULL },
	{ "DISK/FORMAT", take_word, "format", words_format },
	{ "DISK/DRIVER", take_word, "format", words_format },
	{ "DISK/CACHE", take_word, "cache", words_cache },
	{ "DISK/DISCARD", take_word, "discard", words_discard },
	{ "DISK/READONLY", take_yes, "readonly", NULL },
	{ "DISK/SERIAL", take_str, "serial", NULL },
	{ "DISK/IOTHREAD", take_present, "iothread", NULL },
	{ "DISK/ORDER", take_int, ".order", NULL },
	{ "DISK/SHAREABLE", take_refuse_yes, "a disk belongs to one VM", NULL },
	{ "DISK/LUKS_SECRET", take_refuse, "encrypted disks are not opened here", NULL },
	{ "DISK/TOTAL_BYTES_SEC", take_int, "bps", NULL },
	{ "DISK/TOTAL_IOPS_SEC", take_int, "iops", NULL },
	{ "DISK/READ_BYTES_SEC", take_int, "bps_rd", NULL },
	{ "DISK/READ_IOPS_SEC", take_int, "iops_rd", NULL },
	{ "DISK/WRITE_BYTES_SEC", take_int, "bps_wr", NULL },
	{ "DISK/WRITE_IOPS_SEC", take_int, "iops_wr", NULL },
	{ "CONTEXT/DISK_ID", take_int, ".context_id", NULL },
	{ "CONTEXT/TARGET", take_str, ".context_target", NULL },
	{ "NIC/MAC", take_str, "mac", NULL },
	{ "NIC/BRIDGE", take_str, "nic_tag", NULL },
	{ "NIC/MODEL", take_word, "model", words_nic },
	{ "NIC/TARGET", take_str, ".target", NULL },
	{ "NIC/ORDER", take_int, ".order", NULL },
	{ "NIC/FILTER", take_word, ".filter", words_filter },
	{ "NIC/IP", take_ip, ".ips", NULL },
	{ "NIC/IP6", take_ip, ".ips", NULL },
	{ "NIC/INBOUND_PEAK_BW", take_kbyte, ".peak_in", NULL },
	{ "NIC/INBOUND_AVG_BW", take_kbyte, "bandwidth_in", NULL },
	{ "NIC/OUTBOUND_PEAK_BW", take_kbyte, ".peak_out", NULL },
	{ "NIC/OUTBOUND_AVG_BW", take_kbyte, "bandwidth_out", NULL },
	{ "NIC/SCRIPT", take_refuse, "use a hook of the VM", NULL },
	{ "GRAPHICS/TYPE", take_word, ".graphics", words_graphics },
	{ "GRAPHICS/LISTEN", take_str, "vnc_address", NULL },
	{ "GRAPHICS/PORT", take_port, "vnc_port", NULL },
	{ "GRAPHICS/PASSWD", take_str, "vnc_password", NULL },
	{ "VIDEO/TYPE", take_word, "vga", words_vga },
	{ "PCI", take_refuse, NO_DEVICE, NULL },
	{ "TPM", take_refuse, NO_DEVICE, NULL },
	{ "RAW/DATA", take_str, ".raw", NULL },
	{ "RAW/TYPE", take_str, ".raw_type", NULL },
};
/* clang-format on */

const struct deploy_dialect deploy_template = {
	.rows = rows,
	.count = ARRAY_SIZE(rows),
	.disk = "DISK",
	.nic = "NIC",
	.strict = false,
};
