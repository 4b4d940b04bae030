/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over a file's PCI devices: which there are, whether q35 has a place for each, and who
 * translates it. Every device stands where the file says: bus pcie.0, same slot, same function.
 * Source: bhyve(8) -s; bhyve_config(5), pci.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/bhyve_map.h"

/* --- models --- */

static void host_bridge(struct map *m, const struct bhyve_pci *d)
{
	AUTO_FREE char *ids = xasprintf("%spcireg.", d->at);
	const struct bhyve_var *var = bhyve_first(m->vars, ids);

	if (m->has_bridge)
		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var, "only one host bridge");
	else if (d->slot != 0 || d->func != 0)
		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var, "host bridge must be at 0:0:0");
	m->has_bridge = true;
	if (var)
		bhyve_say(m->p, PROBLEM_WARNING, var, "host bridge ids cannot be changed");
}

static void amd_bridge(struct map *m, const struct bhyve_pci *d)
{
	bhyve_say(m->p, PROBLEM_WARNING, &d->var,
		  "amd_hostbridge is an old name (want hostbridge); host bridge ids cannot be "
		  "changed");
	host_bridge(m, d);
}

/* has_lpc is known before the walk; which of several it is does not matter. */
static void lpc_bridge(struct map *m, const struct bhyve_pci *d)
{
	if (m->lpc_seen++)
		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var, "only one LPC bridge");
	else if (d->slot != 31 || d->func != 0)
		bhyve_say(m->p, PROBLEM_WARNING, &d->var,
			  "the LPC bridge is at slot 31 function 0 here");
}

static const struct pci_model {
	const char *name;
	bool placed; /* takes its place; else the machine has it somewhere */
	void (*map)(struct map *m, const struct bhyve_pci *d);
} models[] = {
	{"hostbridge", false, host_bridge},
	{"amd_hostbridge", false, amd_bridge},
	{"lpc", false, lpc_bridge},
	{"virtio-blk", true, bhyve_map_virtio_blk},
	{"ahci", true, bhyve_map_ahci},
	{"ahci-hd", true, bhyve_map_ahci_hd},
	{"ahci-cd", true, bhyve_map_ahci_cd},
	{"nvme", true, bhyve_map_nvme},
	{"virtio-net", true, bhyve_map_virtio_net},
	{"e1000", true, bhyve_map_e1000},
	{"virtio-rnd", true, bhyve_map_rnd},
	{"virtio-9p", true, bhyve_map_9p},
	{"virtio-console", true, bhyve_map_console},
	{"virtio-input", true, bhyve_map_input},
	{"virtio-scsi", true, bhyve_map_scsi},
	{"fbuf", true, bhyve_map_fbuf},
	{"xhci", true, bhyve_map_xhci},
	{"hda", true, bhyve_map_hda},
	{"uart", true, bhyve_map_uart},
	{"passthru", true, bhyve_map_passthru},
};

static const struct pci_model *model_of(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(models); i++) {
		if (str_eq(models[i].name, name))
			return &models[i];
	}
	return NULL;
}

json_t *bhyve_map_device(struct map *m, const struct bhyve_pci *d, const char *driver)
{
	AUTO_FREE char *addr = xasprintf("0x%x.0x%x", d->slot, d->func);
	json_t *j = argv_device(driver, d->id, "pcie.0", addr);

	if (d->func == 0 && m->functions[d->slot] > 1)
		json_put_bool(j, "multifunction", true);
	if (!m->hw->msix && str_starts(driver, "virtio-"))
		json_put_int(j, "vectors", 0);
	return j;
}

/* --- addresses --- */

struct scan {
	struct bhyve_pci *items;
	size_t count;
};

/* "12." at *at, moved behind it; -1 when it is no number below limit. */
static long take_number(const char **at, long limit)
{
	size_t digits = strspn(*at, "0123456789");
	long n = digits > 0 && digits <= 3 ? strtol(*at, NULL, 10) : -1;

	if (n < 0 || n >= limit || (*at)[digits] != '.' || (digits > 1 && (*at)[0] == '0'))
		return -1;
	*at += digits + 1;
	return n;
}

/* Length of "pci.BUS.SLOT.FUNC", or of all that is there. */
static size_t node_length(const char *name)
{
	const char *p = name;

	for (int dots = 0; *p; p++) {
		if (*p == '.' && ++dots == 4)
			break;
	}
	return (size_t)(p - name);
}

static void refuse_address(struct map *m, const struct bhyve_var *var, const char *text)
{
	AUTO_FREE char *node = xstrndup(var->name, node_length(var->name));
	AUTO_FREE char *device_at = xasprintf("%s.", node);
	const struct bhyve_var *device = bhyve_find(m->vars, device_at, "device");
	struct bhyve_var at = device ? *device : *var;

	at.name = node;
	bhyve_say(m->p, PROBLEM_BAD_VALUE, &at, "%s", text);
}

static bool read_place(struct map *m, const struct bhyve_var *var, struct bhyve_pci *d)
{
	const char *p = var->name + strlen("pci.");
	long bus, slot, func;

	bus = take_number(&p, BHYVE_BUSES);
	if (bus < 0) {
		refuse_address(m, var, "bus must be 0 to 255 (want pci.BUS.SLOT.FUNC.VARIABLE)");
		return false;
	}
	slot = take_number(&p, BHYVE_SLOTS);
	if (slot < 0) {
		refuse_address(m, var, "slot must be 0 to 31");
		return false;
	}
	func = take_number(&p, BHYVE_FUNCS);
	if (func < 0) {
		refuse_address(m, var, "function must be 0 to 7");
		return false;
	}
	if (bus > 0) {
		refuse_address(m, var, "only bus 0 is supported");
		return false;
	}
	d->slot = (unsigned)slot;
	d->func = (unsigned)func;
	return true;
}

static void fill(struct map *m, const struct bhyve_var *var, struct bhyve_pci *d)
{
	const struct bhyve_var *device;

	(void)snprintf(d->at, sizeof(d->at), "pci.0.%u.%u.", d->slot, d->func);
	(void)snprintf(d->name, sizeof(d->name), "pci.0.%u.%u", d->slot, d->func);
	(void)snprintf(d->id, sizeof(d->id), "pci-0-%u-%u", d->slot, d->func);
	device = bhyve_find(m->vars, d->at, "device");
	d->var = device ? *device : *var;
	d->var.name = NULL; /* belongs to the table; see walk_device */
	d->model = map_str(m, d->at, "device");
	d->row = model_of(d->model);
}

static int by_place(const void *a, const void *b)
{
	const struct bhyve_pci *da = a, *db = b;

	return (int)(da->slot * BHYVE_FUNCS + da->func) - (int)(db->slot * BHYVE_FUNCS + db->func);
}

/* Each address once; at most 256 of them. */
static void scan(struct map *m, struct scan *s)
{
	const struct bhyve_var *end;
	bool seen[BHYVE_SLOTS][BHYVE_FUNCS] = {0};

	s->items = xcalloc(BHYVE_SLOTS * BHYVE_FUNCS, sizeof(s->items[0]));
	if (m->vars->count == 0)
		return;
	end = m->vars->items + m->vars->count;
	for (const struct bhyve_var *var = bhyve_first(m->vars, "pci.");
	     var && var < end && str_starts(var->name, "pci."); var++) {
		struct bhyve_pci d = {0};

		if (!read_place(m, var, &d) || seen[d.slot][d.func])
			continue;
		seen[d.slot][d.func] = true;
		fill(m, var, &d);
		s->items[s->count++] = d;
	}
	if (s->count > 1)
		qsort(s->items, s->count, sizeof(s->items[0]), by_place);
	for (size_t i = 0; i < s->count; i++) {
		const struct bhyve_pci *d = &s->items[i];

		m->has_lpc = m->has_lpc || str_eq(d->model, "lpc");
		if (d->row && d->row->placed)
			m->functions[d->slot] |= (uint8_t)(1u << d->func);
	}
}

/* --- places --- */

static const struct {
	unsigned slot, func;
	const char *holder;
} taken[] = {
	{0, 0, "host bridge"},
	{31, 0, "LPC bridge"},
	{31, 2, "machine's AHCI controller"},
	{31, 3, "SMBus controller"},
};

static void check_place(struct map *m, const struct bhyve_pci *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		if (d->slot == taken[i].slot && d->func == taken[i].func) {
			bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var,
				  "slot %u function %u is taken by the %s", d->slot, d->func,
				  taken[i].holder);
			return;
		}
	}
	if (d->slot == 0)
		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var,
			  "slot 0 holds the host bridge and nothing else (want another slot)");
	else if (d->func > 0 && d->slot != 31 && !(m->functions[d->slot] & 1))
		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var,
			  "function 0 of slot %u holds no device, so function %u cannot either",
			  d->slot, d->func);
}

static void walk_device(struct map *m, struct bhyve_pci *d)
{
	d->var.name = d->name;
	m->anchor = &d->var;
	if (!map_has(m, d->at, "device"))
		bhyve_say(m->p, PROBLEM_MISSING, &d->var,
			  "no device model is given (want %sdevice=...)", d->at);
	else if (d->model && !d->row) {
		AUTO_FREE char *shown = bhyve_show(d->model);

		bhyve_say(m->p, PROBLEM_BAD_VALUE, &d->var, "unknown device model \"%s\"", shown);
	}
	if (d->row) {
		if (d->row->placed)
			check_place(m, d);
		d->row->map(m, d);
	}
	m->anchor = NULL;
}

void bhyve_map(struct map *m)
{
	struct scan s = {0};

	m->b.out = &m->hw->devices;
	scan(m, &s);
	bhyve_map_globals(m);
	bhyve_map_lpc(m);
	for (size_t i = 0; i < s.count; i++)
		walk_device(m, &s.items[i]);
	free(s.items);
}
