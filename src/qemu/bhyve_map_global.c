/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variables of the machine itself: processors, memory, clock, debugger, SMBIOS. What bhyve has
 * and QEMU has not is said once and left out. Source: bhyve_config(5).
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "qemu/bhyve_map.h"

#define MIB          (1ull << 20)
#define RAM_DEFAULT  256u /* MiB. Source: bhyve_config(5) */
#define RAM_MIN      16u  /* MiB */
#define RAM_MAX      (4u << 20)
#define CPUS_MAX     288   /* of q35 */
#define TOPOLOGY_MAX 65535 /* Source: bhyve(8) */
#define GDB_PORT_MAX 65535

/* --- booleans --- */

#define HW_AT(member) offsetof(struct bhyve_hw, member)

static const struct boolean {
	const char *name;
	bool fallback;
	size_t at;
	int warn_if; /* -1: never */
	const char *warning;
} booleans[] = {
	{"memory.wired", false, HW_AT(wired), -1, NULL},
	{"memory.guest_in_core", false, HW_AT(guest_in_core), -1, NULL},
	{"acpi_tables", false, HW_AT(acpi), -1, NULL},
	{"rtc.use_localtime", true, HW_AT(localtime), -1, NULL},
	{"destroy_on_poweroff", false, HW_AT(ignored), -1, NULL},
	{"virtio_msix", true, HW_AT(msix), false,
	 "virtio devices get no MSI-X; MSI in its place is not possible here"},
	{"gdb.wait", false, HW_AT(gdb_wait), -1, NULL},
	{"config.dump", false, HW_AT(ignored), true, "is ignored: the VM is started"},
	{"x86.mptable", true, HW_AT(ignored), false, "the firmware makes an MP table all the same"},
	{"x86.x2apic", false, HW_AT(x2apic), -1, NULL},
	{"x86.strictio", false, HW_AT(ignored), true, "has no QEMU equivalent and is ignored"},
	{"x86.strictmsr", true, HW_AT(ignored), false,
	 "has no QEMU equivalent (a setting of the host's kvm module) and is ignored"},
	{"x86.vmexit_on_hlt", false, HW_AT(ignored), -1, NULL},
	{"x86.vmexit_on_pause", false, HW_AT(ignored), -1, NULL},
};

static void read_booleans(struct map *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(booleans); i++) {
		const struct boolean *row = &booleans[i];
		bool value = map_bool(m, "", row->name, row->fallback);

		*(bool *)((char *)m->hw + row->at) = value;
		if (row->warn_if >= 0 && map_has(m, "", row->name) && value == row->warn_if)
			map_warn(m, "", row->name, "%s", row->warning);
	}
}

/* --- processors and memory --- */

static uint32_t count_of(struct map *m, const char *name, long max)
{
	return (uint32_t)map_int(m, "", name, (struct bhyve_range){1, max, 0}, 0);
}

/* Not given: one core per socket, one thread per core, a socket per CPU. */
static void read_topology(struct map *m)
{
	struct bhyve_info *i = &m->hw->info;
	uint32_t cpus = count_of(m, "cpus", TOPOLOGY_MAX);
	uint32_t sockets = count_of(m, "sockets", TOPOLOGY_MAX);
	uint32_t cores = count_of(m, "cores", TOPOLOGY_MAX);
	uint32_t threads = count_of(m, "threads", TOPOLOGY_MAX);
	uint64_t product;

	i->cores = cores ? cores : 1;
	i->threads = threads ? threads : 1;
	i->sockets = sockets;
	if (!sockets) /* the wrong product of cores that were given is refused below */
		i->sockets = cpus && !cores && !threads ? cpus
			     : cpus > i->cores * (uint64_t)i->threads
				     ? cpus / (i->cores * i->threads)
				     : 1;
	product = (uint64_t)i->sockets * i->cores * i->threads;
	i->vcpus = cpus ? cpus : 1;
	if (!cpus && product <= CPUS_MAX)
		i->vcpus = (uint32_t)product;
	if (product != i->vcpus)
		map_error(m, "", cpus ? "cpus" : "sockets",
			  "topology %u x %u x %u does not match %u cpus", i->sockets, i->cores,
			  i->threads, i->vcpus);
	else if (i->vcpus > CPUS_MAX)
		map_error(m, "", "cpus", "%u is more than the %d that are possible here", i->vcpus,
			  CPUS_MAX);
}

/* Bytes, 0 when text is no size. Below 1 MiB a bare number is megabytes. Source: bhyve(8), -m. */
static uint64_t parse_size(const char *text)
{
	static const char units[] = "KMGTPE";
	const char *unit;
	uint64_t n, factor = 1;
	char *end;

	errno = 0;
	n = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
	if (n == 0 || errno != 0)
		return 0;
	if (*end == '\0')
		return n < MIB ? n * MIB : n;
	unit = strchr(units, toupper((unsigned char)*end));
	if (!unit || (end[1] && (toupper((unsigned char)end[1]) != 'B' || end[2])))
		return 0;
	for (const char *u = units; u <= unit; u++)
		factor *= 1024;
	return n > UINT64_MAX / factor ? UINT64_MAX : n * factor;
}

static void read_memory(struct map *m)
{
	const char *text = map_str(m, "", "memory.size");
	uint64_t bytes = text ? parse_size(text) : RAM_DEFAULT * MIB;
	AUTO_FREE char *shown = text ? bhyve_show(text) : NULL;
	uint64_t mib = bytes / MIB + (bytes % MIB != 0);

	m->hw->info.ram_mib = RAM_DEFAULT;
	if (bytes == 0)
		map_error(m, "", "memory.size", "'%s' is not a size (want 512M, 4G, ...)", shown);
	else if (mib < RAM_MIN || mib > RAM_MAX)
		map_error(m, "", "memory.size", "'%s' is out of bounds (want 16M to 4T)", shown);
	else
		m->hw->info.ram_mib = (uint32_t)mib;
	if (bytes % MIB != 0 && mib <= RAM_MAX && mib >= RAM_MIN)
		map_warn(m, "", "memory.size", "'%s' is rounded up to %uM", shown,
			 m->hw->info.ram_mib);
}

/* --- identity --- */

static void read_identity(struct map *m)
{
	const char *uuid = map_str(m, "", "uuid");
	AUTO_FREE char *low = NULL;

	m->hw->name = map_str(m, "", "name");
	if (!map_has(m, "", "name"))
		map_error(m, "", "name", "is missing");
	m->hw->info.uuid = m->b.vm->uuid ? map_keep(m, xstrdup(m->b.vm->uuid)) : NULL;
	if (!uuid)
		return;
	if (!uuid_valid(uuid)) {
		AUTO_FREE char *shown = bhyve_show(uuid);

		map_error(m, "", "uuid", "'%s' is not a UUID", shown);
		return;
	}
	low = xstrdup(uuid);
	for (char *c = low; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	m->hw->info.uuid = map_keep(m, steal_ptr(low));
}

/* --- SMBIOS, clock, keyboard, debugger --- */

static const struct smbios {
	int type;
	const char *at; /* node */
	struct {
		const char *name, *key;
	} rows[7];
} smbios[] = {
	{0, "bios.", {{"vendor", "vendor"}, {"version", "version"}, {"release_date", "date"}}},
	{1,
	 "system.",
	 {{"manufacturer", "manufacturer"},
	  {"product_name", "product"},
	  {"version", "version"},
	  {"serial_number", "serial"},
	  {"sku", "sku"},
	  {"family_name", "family"}}},
	{2,
	 "board.",
	 {{"manufacturer", "manufacturer"},
	  {"product_name", "product"},
	  {"version", "version"},
	  {"serial_number", "serial"},
	  {"asset_tag", "asset"},
	  {"location", "location"}}},
	{3,
	 "chassis.",
	 {{"manufacturer", "manufacturer"},
	  {"version", "version"},
	  {"serial_number", "serial"},
	  {"asset_tag", "asset"},
	  {"sku", "sku"}}},
};

static void put_smbios(struct map *m, const struct smbios *table)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < ARRAY_SIZE(table->rows) && table->rows[i].name; i++) {
		const char *value = map_str(m, table->at, table->rows[i].name);
		AUTO_FREE char *text = value ? argv_doubled(value) : NULL;

		if (text)
			strbuf_printf(&sb, ",%s=%s", table->rows[i].key, text);
	}
	if (!sb.len)
		return;
	argv_add(&m->hw->globals, "-smbios");
	argv_add(&m->hw->globals, "type=%d%s", table->type, sb.data);
}

static void put_gdb(struct map *m)
{
	long port = map_int(m, "gdb.", "port", (struct bhyve_range){0, GDB_PORT_MAX, 0}, 0);
	const char *address = map_str(m, "gdb.", "address");

	if (address && strpbrk(address, ", \t")) {
		AUTO_FREE char *shown = bhyve_show(address);

		map_error(m, "gdb.", "address", "'%s' is not an address", shown);
		return;
	}
	if (port > 0) {
		argv_add(&m->hw->globals, "-gdb");
		argv_add(&m->hw->globals, "tcp:%s:%ld", address ? address : "localhost", port);
	} else if (m->hw->gdb_wait) {
		map_warn(m, "gdb.", "wait", "is ignored without gdb.port");
	}
	m->hw->info.wait = port > 0 && m->hw->gdb_wait;
}

static void put_options(struct map *m)
{
	const char *layout = map_str(m, "keyboard.", "layout");

	argv_add(&m->hw->globals, "-rtc");
	argv_add(&m->hw->globals, "base=%s", m->hw->localtime ? "localtime" : "utc");
	if (layout && strspn(layout, "abcdefghijklmnopqrstuvwxyz-") != strlen(layout)) {
		AUTO_FREE char *shown = bhyve_show(layout);

		map_error(m, "keyboard.", "layout",
			  "'%s' is not a keyboard layout (want de, en-us, ...)", shown);
	} else if (layout) {
		argv_add(&m->hw->globals, "-k");
		argv_add(&m->hw->globals, "%s", layout);
	}
	for (size_t i = 0; i < ARRAY_SIZE(smbios); i++)
		put_smbios(m, &smbios[i]);
	put_gdb(m);
}

/* --- what is not possible --- */

static void refuse_others(struct map *m)
{
	static const char *const arm[] = {"console", "bootrom"};
	const struct bhyve_var *var = bhyve_first(m->vars, "domains.");

	if (var)
		bhyve_say(m->p, PROBLEM_BAD_VALUE, var, "NUMA domains are not supported");
	for (size_t i = 0; i < ARRAY_SIZE(arm); i++) {
		if (map_has(m, "", arm[i]))
			map_error(m, "", arm[i], "is for arm64 (want lpc.com1.path, lpc.bootrom)");
	}
	var = bhyve_first(m->vars, "vcpu.");
	if (var)
		bhyve_say(m->p, PROBLEM_WARNING, var,
			  "virtual CPUs are not pinned here (cpuset is ignored)");
}

void bhyve_map_globals(struct map *m)
{
	read_identity(m);
	read_topology(m);
	read_memory(m);
	read_booleans(m);
	refuse_others(m);
	put_options(m);
}
