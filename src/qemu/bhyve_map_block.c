/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a bhyve_config file: virtio-blk, AHCI with its ports, NVMe. Always raw bytes: the
 * format is never probed, so a guest cannot write itself another one. Source: bhyve(8), block
 * storage device backends; bhyve_config(5).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/vm.h"
#include "qemu/bhyve_map.h"

#define SERIAL_MAX 20 /* bytes of ATA, NVMe, virtio. Source: bhyve_config(5) */
#define REV_MAX    8
#define MODEL_MAX  40
#define AHCI_PORTS 6
#define SECTOR_MAX (2u << 20) /* of QEMU */
#define SERIAL_NS  "2c1dfe52-9a0c-4c0e-8a57-6d3f0b1b7a51"

/* One disk: its options, and who it is. at: "pci.0.2.0.port.1." */
struct block {
	const char *at, *id;
	struct disk disk;
	bool sync;
	unsigned logical, physical; /* 0: not given */
};

/* --- options --- */

static bool power_of_two(unsigned long n)
{
	return n > 0 && (n & (n - 1)) == 0;
}

static void read_sectors(struct map *m, struct block *b)
{
	const char *text = map_str(m, b->at, "sectorsize");
	unsigned long logical, physical;
	AUTO_FREE char *shown = NULL;
	char *end;

	if (!text)
		return;
	errno = 0;
	logical = strtoul(text, &end, 10);
	physical = *end == '/' ? strtoul(end + 1, &end, 10) : logical;
	if (errno == 0 && *end == '\0' && logical >= 512 && physical >= logical &&
	    physical <= SECTOR_MAX && power_of_two(logical) && power_of_two(physical)) {
		b->logical = (unsigned)logical;
		b->physical = (unsigned)physical;
		return;
	}
	shown = bhyve_show(text);
	map_error(m, b->at, "sectorsize",
		  "'%s' is not a sector size (want LOGICAL or LOGICAL/PHYSICAL, powers of two from "
		  "512, physical not smaller)",
		  shown);
}

/* False when there is nothing to open. */
static bool read_block(struct map *m, struct block *b)
{
	struct disk *d = &b->disk;
	bool cd = d->media == MEDIA_CDROM;
	bool direct = map_bool(m, b->at, "nocache", false);

	b->sync = map_bool(m, b->at, "sync", false);
	b->sync = map_bool(m, b->at, "direct", false) || b->sync;
	d->readonly = map_bool(m, b->at, "ro", false) || cd;
	d->discard = !map_bool(m, b->at, "nodelete", false) && !cd;
	d->format = FORMAT_RAW;
	d->cache = direct ? (b->sync ? CACHE_DIRECTSYNC : CACHE_NONE)
			  : (b->sync ? CACHE_WRITETHROUGH : CACHE_WRITEBACK);
	read_sectors(m, b);
	d->path = (char *)map_path(m, b->at, "path");
	if (!d->path && (!cd || map_has(m, b->at, "path"))) {
		if (!map_has(m, b->at, "path"))
			map_error(m, b->at, "path", "is missing");
		return false;
	}
	if (d->path)
		map_need(m, b->at, "path",
			 &(struct bhyve_need){
				 .kind = NEED_FILE, .write = !d->readonly, .value = d->path});
	return d->path != NULL;
}

/* A text of the device, or NULL; too long is an error. */
static const char *short_text(struct map *m, const char *at, const char *name, size_t max)
{
	const char *text = map_str(m, at, name);

	if (!text || strlen(text) <= max)
		return text;
	map_error(m, at, name, "is longer than %zu bytes", max);
	return NULL;
}

/* Made from the path when not given, so that it stays with the disk. */
static void put_serial(struct map *m, const struct block *b, json_t *j)
{
	const char *given = short_text(m, b->at, "ser", SERIAL_MAX);
	char hash[UUID_LEN + 1];
	AUTO_FREE char *made = NULL;

	uuid_derive(SERIAL_NS, b->disk.path ? b->disk.path : b->at, hash);
	made = xasprintf("DRVR-%.4s-%.4s-%.4s", hash, hash + 4, hash + 9);
	json_put_str(j, "serial", given ? given : made);
}

static void put_sectors(const struct block *b, json_t *j)
{
	if (!b->logical)
		return;
	json_put_int(j, "logical_block_size", b->logical);
	json_put_int(j, "physical_block_size", b->physical);
}

/* --- virtio-blk --- */

void bhyve_map_virtio_blk(struct map *m, const struct bhyve_pci *d)
{
	struct block b = {.at = d->at, .id = d->id, .disk = {.media = MEDIA_DISK}};
	json_t *j;

	if (read_block(m, &b))
		argv_backend(&m->b, b.id, &b.disk);
	j = bhyve_map_device(m, d, "virtio-blk-pci");
	json_put_str(j, "drive", b.id);
	put_serial(m, &b, j);
	put_sectors(&b, j);
	json_put_str(j, "write-cache", b.sync ? "off" : "on");
	map_bootindex(m, d->at, j);
	argv_json(&m->b, "-device", j);
}

/* --- AHCI --- */

static void check_ata(struct map *m, const struct block *b)
{
	if (b->disk.media == MEDIA_CDROM)
		return;
	if (b->disk.readonly)
		map_error(m, b->at, "ro",
			  "a read-only AHCI disk is not possible; use virtio-blk or cd");
	if (b->logical && b->logical != 512)
		map_error(m, b->at, "sectorsize", "AHCI disks have 512-byte sectors here");
}

static void put_rotation(struct map *m, const struct block *b, json_t *j)
{
	long rate = map_int(m, b->at, "nmrr", (struct bhyve_range){0, 65535, 0}, 0);

	if (b->disk.media == MEDIA_CDROM)
		return;
	if (rate == 1 || (rate >= 1025 && rate <= 65534))
		json_put_int(j, "rotation_rate", rate);
	else if (rate != 0)
		map_warn(m, b->at, "nmrr",
			 "%ld is not a rotation rate and left out (want 0, 1 or 1025 to 65534)",
			 rate);
}

static void put_drive(struct map *m, const struct bhyve_pci *d, struct block *b, long port)
{
	bool cd = b->disk.media == MEDIA_CDROM;
	AUTO_FREE char *bus = xasprintf("%s.%ld", d->id, port);
	json_t *j;

	if (read_block(m, b))
		argv_backend(&m->b, b->id, &b->disk);
	check_ata(m, b);
	j = argv_device(cd ? "ide-cd" : "ide-hd", b->id, bus, NULL);
	json_put_int(j, "unit", 0);
	if (b->disk.path)
		json_put_str(j, "drive", b->id);
	put_serial(m, b, j);
	json_put_str(j, "ver", short_text(m, b->at, "rev", REV_MAX));
	json_put_str(j, "model", short_text(m, b->at, "model", MODEL_MAX));
	put_rotation(m, b, j);
	if (!cd) {
		put_sectors(b, j);
		json_put_str(j, "write-cache", b->sync ? "off" : "on");
	}
	map_bootindex(m, b->at, j);
	argv_json(&m->b, "-device", j);
}

static void ahci_port(struct map *m, const struct bhyve_pci *d, long port)
{
	AUTO_FREE char *at = xasprintf("%sport.%ld.", d->at, port);
	AUTO_FREE char *id = xasprintf("%s-p%ld", d->id, port);
	const char *type = map_str(m, at, "type");
	bool cd = type && str_eq(type, "cd");
	struct block b = {.at = at, .id = id, .disk = {.media = cd ? MEDIA_CDROM : MEDIA_DISK}};

	if (!bhyve_first(m->vars, at))
		return;
	if (!map_has(m, at, "type"))
		map_error(m, at, "type", "is missing (want hd or cd)");
	else if (type && !cd && !str_eq(type, "hd"))
		map_error(m, at, "type", "is not understood (want hd or cd)");
	else if (type)
		put_drive(m, d, &b, port);
}

/* Ports there are no places for. */
static void refuse_ports(struct map *m, const struct bhyve_pci *d)
{
	AUTO_FREE char *prefix = xasprintf("%sport.", d->at);
	const struct bhyve_var *end = m->vars->items + m->vars->count;

	for (const struct bhyve_var *var = bhyve_first(m->vars, prefix);
	     var && var < end && str_starts(var->name, prefix); var++) {
		const char *p = var->name + strlen(prefix);
		size_t digits = strspn(p, "0123456789");

		if (digits != 1 || p[0] >= '0' + AHCI_PORTS || p[1] != '.')
			bhyve_say(m->p, PROBLEM_BAD_VALUE, var,
				  "AHCI controller has 6 ports here (want %s0 to %s5)", prefix,
				  prefix);
	}
}

void bhyve_map_ahci(struct map *m, const struct bhyve_pci *d)
{
	argv_json(&m->b, "-device", bhyve_map_device(m, d, "ich9-ahci"));
	refuse_ports(m, d);
	for (long port = 0; port < AHCI_PORTS; port++)
		ahci_port(m, d, port);
}

/* The models of the command line: one port, its options those of the device. */
static void single_drive(struct map *m, const struct bhyve_pci *d, enum disk_media media)
{
	AUTO_FREE char *id = xasprintf("%s-p0", d->id);
	struct block b = {.at = d->at, .id = id, .disk = {.media = media}};

	bhyve_say(m->p, PROBLEM_WARNING, &d->var,
		  "%s is an old name (want ahci with %sport.0.type=%s)", d->model, d->at,
		  media == MEDIA_CDROM ? "cd" : "hd");
	argv_json(&m->b, "-device", bhyve_map_device(m, d, "ich9-ahci"));
	put_drive(m, d, &b, 0);
}

void bhyve_map_ahci_hd(struct map *m, const struct bhyve_pci *d)
{
	single_drive(m, d, MEDIA_DISK);
}

void bhyve_map_ahci_cd(struct map *m, const struct bhyve_pci *d)
{
	single_drive(m, d, MEDIA_CDROM);
}

/* --- NVMe --- */

static void read_nvme(struct map *m, struct block *b)
{
	const char *dsm = map_str(m, b->at, "dsm");
	long sector = map_int(m, b->at, "sectsz", (struct bhyve_range){512, 8192, 10}, 0);

	if (sector && !power_of_two((unsigned long)sector))
		map_error(m, b->at, "sectsz", "%ld is not possible (want 512, 4096 or 8192)",
			  sector);
	else if (sector)
		b->logical = b->physical = (unsigned)sector;
	if (dsm && str_eq(dsm, "disable"))
		b->disk.discard = false;
	else if (dsm && !str_eq(dsm, "enable") && !str_eq(dsm, "auto"))
		map_error(m, b->at, "dsm", "is not understood (want auto, enable or disable)");
	for (size_t i = 0; i < 2; i++) {
		const char *name = i ? "ioslots" : "qsz";

		if (map_has(m, b->at, name))
			map_warn(m, b->at, name, "has no QEMU equivalent and is ignored");
	}
}

static void put_namespace(struct map *m, const struct bhyve_pci *d, const struct block *b)
{
	AUTO_FREE char *bus = xasprintf("%s", d->id);
	const char *eui = map_str(m, d->at, "eui64");
	json_t *j = argv_device("nvme-ns", b->id, bus, NULL);
	AUTO_FREE char *shown = eui ? bhyve_show(eui) : NULL;
	unsigned long long number;
	char *end;

	json_put_int(j, "nsid", 1);
	json_put_str(j, "drive", b->id);
	put_sectors(b, j);
	json_put_str(j, "write-cache", b->sync ? "off" : "on");
	if (eui) {
		errno = 0;
		number = strtoull(eui, &end, 0);
		if (errno || *end || end == eui || number > INT64_MAX || eui[0] == '-')
			map_error(m, d->at, "eui64", "'%s' is not a 63-bit number", shown);
		else
			json_put_int(j, "eui64", (json_int_t)number);
	}
	map_bootindex(m, d->at, j);
	argv_json(&m->b, "-device", j);
}

void bhyve_map_nvme(struct map *m, const struct bhyve_pci *d)
{
	AUTO_FREE char *id = xasprintf("%s-n1", d->id);
	struct block b = {.at = d->at, .id = id, .disk = {.media = MEDIA_DISK}};
	long queues = map_int(m, d->at, "maxq", (struct bhyve_range){1, 16, 10}, 16);
	bool opened;
	json_t *j;

	if (map_has(m, d->at, "ram")) {
		map_error(m, d->at, "ram", "RAM-backed NVMe is not supported");
		return;
	}
	opened = read_block(m, &b);
	read_nvme(m, &b);
	if (!opened)
		return;
	argv_backend(&m->b, b.id, &b.disk);
	j = bhyve_map_device(m, d, "nvme");
	put_serial(m, &b, j);
	json_put_int(j, "max_ioqpairs", queues);
	argv_json(&m->b, "-device", j);
	put_namespace(m, d, &b);
}
