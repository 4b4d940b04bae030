/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from the given members: names, addresses, paths, memory limits. Everything here
 * gives the same result when done again, and never touches what a person gave except to clamp it.
 * Sources: vmadm(8); design, section 4.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/checks.h"
#include "model/model.h"
#include "model/rows.h"

#define CPU_SHARES_MAX   65535
#define PHYSICAL_OVER    1024 /* MiB a VM may use beyond its RAM, when nothing is given */
#define PHYSICAL_MINIMUM 256  /* MiB it needs beyond its RAM at least */
#define SWAP_MINIMUM     256

static uint32_t at_least(uint32_t value, uint32_t least)
{
	return value < least ? least : value;
}

static void finish_memory(struct vm *vm)
{
	uint32_t floor = vm->ram_mib + PHYSICAL_MINIMUM;

	if (!VM_GIVEN(vm, max_physical_memory_mib))
		vm->max_physical_memory_mib = vm->ram_mib + PHYSICAL_OVER;
	vm->max_physical_memory_mib = at_least(vm->max_physical_memory_mib, floor);
	if (!VM_GIVEN(vm, max_locked_memory_mib))
		vm->max_locked_memory_mib = vm->max_physical_memory_mib;
	vm->max_locked_memory_mib = at_least(vm->max_locked_memory_mib, floor);
	if (vm->max_locked_memory_mib > vm->max_physical_memory_mib)
		vm->max_locked_memory_mib = vm->max_physical_memory_mib;
	if (!VM_GIVEN(vm, max_swap_mib))
		vm->max_swap_mib = vm->max_physical_memory_mib;
	vm->max_swap_mib = at_least(vm->max_swap_mib, vm->max_physical_memory_mib);
	vm->max_swap_mib = at_least(vm->max_swap_mib, SWAP_MINIMUM);
}

static void finish_identity(struct vm *vm)
{
	if (!vm->name)
		vm->name = xstrdup(vm->uuid);
	if (!VM_GIVEN(vm, alias)) /* a uuid for a name says nothing to people */
		replace_str(&vm->alias, str_eq(vm->name, vm->uuid) ? NULL : xstrdup(vm->name));
	if (vm->cpu_shares > CPU_SHARES_MAX)
		vm->cpu_shares = CPU_SHARES_MAX;
}

static void finish_vcpus(struct vm *vm)
{
	uint64_t product = (uint64_t)at_least(vm->sockets, 1) * at_least(vm->cores, 1) *
			   at_least(vm->threads, 1);

	if (!VM_GIVEN(vm, vcpus) && product > vm->vcpus && product <= UINT16_MAX)
		vm->vcpus = (uint32_t)product;
}

/* Relative paths in a definition start from its folder. A name without '/' may be no path. */
static void resolve(const struct vm *vm, char **path, bool bare_is_path)
{
	if (!vm->dir || !*path || path_has_protocol(*path) || **path == '/' ||
	    (!bare_is_path && !strchr(*path, '/')))
		return;
	replace_str(path, xasprintf("%s/%s", vm->dir, *path));
}

/* "disk0", or the next number that no element has as name. */
static char *free_name(const struct vm *vm, const struct prop_table *t, const char *stem)
{
	struct elem_list list = vm_elements(vm, t);

	for (unsigned n = 0;; n++) {
		AUTO_FREE char *name = xasprintf("%s%u", stem, n);
		bool taken = false;

		for (size_t i = 0; i < list.count; i++)
			taken = taken || str_eq(*elem_name(t, list.items[i]), name);
		if (!taken)
			return steal_ptr(name);
	}
}

static void finish_disk(struct vm *vm, struct disk *d)
{
	const struct prop *model = prop_at(&disk_props, offsetof(struct disk, model));
	int driver = enum_value(model->names, model->nnames, vm->disk_driver);

	if (!d->name)
		d->name = free_name(vm, &disk_props, "disk");
	if (!DISK_GIVEN(d, model) && d->model == DISK_VIRTIO && driver > 0)
		d->model = (enum disk_model)driver;
	resolve(vm, &d->path, true);
	resolve(vm, &d->image, false);
	if (!d->path && vm->data_dir && d->media == MEDIA_DISK)
		d->path = xasprintf("%s/%s.%s", vm->data_dir, d->name,
				    d->format == FORMAT_RAW ? "raw" : "qcow2");
}

/* --- NICs --- */

static bool interface_taken(const struct vm *vm, const char *name)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		if (str_eq(vm->nics[i]->interface, name))
			return true;
	}
	return false;
}

static bool is_interface(const char *name)
{
	return name && str_starts(name, "net") && name[3] &&
	       strspn(name + 3, "0123456789") == strlen(name + 3) && strlen(name) <= 6 &&
	       (name[3] != '0' || !name[4]);
}

/* First those whose section is called netN, then the others get the lowest free numbers. */
static void finish_interfaces(struct vm *vm)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		struct nic *n = vm->nics[i];

		if (!n->interface && is_interface(n->name) && !interface_taken(vm, n->name))
			n->interface = xstrdup(n->name);
	}
	for (size_t i = 0; i < vm->nnics; i++) {
		struct nic *n = vm->nics[i];

		for (unsigned k = 0; !n->interface; k++) {
			AUTO_FREE char *name = xasprintf("net%u", k);

			if (!interface_taken(vm, name))
				n->interface = steal_ptr(name);
		}
		if (!n->name)
			n->name = xstrdup(n->interface);
	}
}

static bool mac_taken(const struct vm *vm, const char *mac)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		if (str_eq(vm->nics[i]->mac, mac))
			return true;
	}
	return false;
}

/* QEMU's prefix and 24 bits of a version 5 UUID of the NIC's name in the VM's uuid. */
char *mac_of_round(const struct vm *vm, const struct nic *n, unsigned round)
{
	AUTO_FREE char *seed =
		round ? xasprintf("nic/%s/%u", n->name, round) : xasprintf("nic/%s", n->name);
	char hash[UUID_LEN + 1];

	uuid_derive(vm->uuid ? vm->uuid : "", seed, hash);
	return xasprintf("52:54:00:%.2s:%.2s:%.2s", hash + 30, hash + 32, hash + 34);
}

static void derive_mac(struct vm *vm, struct nic *n)
{
	for (unsigned round = 0; !n->mac; round++) {
		AUTO_FREE char *mac = mac_of_round(vm, n, round);

		if (!mac_taken(vm, mac))
			n->mac = steal_ptr(mac);
	}
}

static char *netmask_of(unsigned prefix)
{
	char buf[INET_ADDRSTRLEN];
	struct in_addr addr = {.s_addr = prefix ? htonl(~0u << (32 - prefix)) : 0};

	return xstrdup(inet_ntop(AF_INET, &addr, buf, sizeof(buf)));
}

static unsigned prefix_of(const char *netmask)
{
	struct in_addr addr;

	return inet_pton(AF_INET, netmask, &addr) == 1 ? (unsigned)__builtin_popcount(addr.s_addr)
						       : 0;
}

/* ip and netmask from an entry of ips. */
static void take_ip(struct nic *n, const char *cidr)
{
	const char *slash = strchr(cidr, '/');

	replace_str(&n->ip, slash ? xstrndup(cidr, (size_t)(slash - cidr)) : xstrdup(cidr));
	if (slash)
		replace_str(&n->netmask, netmask_of((unsigned)strtoul(slash + 1, NULL, 10) % 33));
}

/* ips and ip say the same thing; ips has the last word. Source: vmadm(8), nics.*.ips. */
static void finish_ips(struct nic *n)
{
	bool is_static = n->ip && strchr(n->ip, '.');

	if (NIC_GIVEN(n, ips)) {
		for (size_t i = 0; i < n->ips.count; i++) {
			if (strchr(n->ips.items[i], ':') || str_eq(n->ips.items[i], "addrconf"))
				continue;
			take_ip(n, n->ips.items[i]);
			return;
		}
	}
	if (!NIC_GIVEN(n, ip) || !n->ip)
		return;
	if (is_static && strchr(n->ip, '/')) {
		AUTO_FREE char *cidr = xstrdup(n->ip);
		const struct prop *row = prop_at(&nic_props, offsetof(struct nic, netmask));

		take_ip(n, cidr);
		given_set(&n->given, row_index(&nic_props, row), true);
	}
	if (NIC_GIVEN(n, ips))
		return;
	str_list_done(&n->ips);
	if (is_static && n->netmask) {
		AUTO_FREE char *cidr = xasprintf("%s/%u", n->ip, prefix_of(n->netmask));

		str_list_add(&n->ips, cidr);
	} else {
		str_list_add(&n->ips, n->ip);
	}
}

static void finish_gateways(struct nic *n)
{
	if (NIC_GIVEN(n, gateways)) {
		replace_str(&n->gateway, xstrdup(n->gateways.count ? n->gateways.items[0] : NULL));
	} else if (NIC_GIVEN(n, gateway) && n->gateway) {
		str_list_done(&n->gateways);
		str_list_add(&n->gateways, n->gateway);
	}
}

/* Exactly one is primary: the one that says so, else the first. */
static void finish_primary(struct vm *vm)
{
	bool given = false;

	for (size_t i = 0; i < vm->nnics; i++)
		given = given || (NIC_GIVEN(vm->nics[i], primary) && vm->nics[i]->primary);
	for (size_t i = 0; i < vm->nnics; i++) {
		if (!NIC_GIVEN(vm->nics[i], primary) || !vm->nics[i]->primary)
			vm->nics[i]->primary = !given && i == 0;
	}
}

static void finish_nics(struct vm *vm)
{
	const struct prop *model = prop_at(&nic_props, offsetof(struct nic, model));
	int driver = enum_value(model->names, model->nnames, vm->nic_driver);

	finish_interfaces(vm);
	for (size_t i = 0; i < vm->nnics; i++) {
		struct nic *n = vm->nics[i];

		if (!NIC_GIVEN(n, model) && n->model == NIC_VIRTIO && driver > 0)
			n->model = (enum nic_model)driver;
		derive_mac(vm, n);
		finish_ips(n);
		finish_gateways(n);
	}
	finish_primary(vm);
}

void vm_finish(struct vm *vm, const char *data_dir)
{
	if (data_dir)
		replace_str(&vm->data_dir, xstrdup(data_dir));
	finish_identity(vm);
	finish_vcpus(vm);
	finish_memory(vm);
	for (size_t i = 0; i < vm->ndisks; i++)
		finish_disk(vm, vm->disks[i]);
	finish_nics(vm);
	for (size_t i = 0; i < vm->nconsoles; i++) {
		if (!vm->consoles[i]->name)
			vm->consoles[i]->name = free_name(vm, &console_props, "serial");
	}
	resolve(vm, &vm->kernel, true);
	resolve(vm, &vm->initrd, true);
	resolve(vm, &vm->bootrom, false);
	resolve(vm, &vm->nvram, true);
	resolve(vm, &vm->configfile, true);
	resolve(vm, &vm->scriptpath, true);
}
