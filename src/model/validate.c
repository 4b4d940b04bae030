/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All rules about a VM: bounds and checks of each row, then the rule a row carries for what
 * involves other members, in the order of the tables. Then the rules between two VMs.
 * Sources: vmadm(8), create, update, validate; design, section 4.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/checks.h"
#include "model/model.h"
#include "model/rows.h"
#include "model/value.h"

#define ALL_IPS_MAX 32 /* addresses of one NIC, allowed ones included */

/* --- single rows --- */

static void recheck(const struct slot *s, const char *text)
{
	if (s->row->check)
		s->row->check(text, s->where, s->key, s->p);
}

void slot_check(const struct slot *s)
{
	const struct prop *row = s->row;
	void *at = row_at(row, s->el);
	AUTO_FREE char *text = NULL;
	int64_t value = 0;

	if (row->type >= PROP_DISKS || row->type == PROP_MAP || prop_is_default(row, s->el))
		return;
	if (row->check == check_name && !prop_given(s->t, elem_given(s->t, s->el), row))
		return; /* a section's name was judged where it stands */
	if (row->type == PROP_LIST) {
		struct str_list *list = at;

		for (size_t i = 0; i < list->count; i++)
			recheck(s, list->items[i]);
		return;
	}
	text = prop_text(row, s->el);
	recheck(s, text);
	if (row->check == check_path && text[0] != '/' && !path_has_protocol(text))
		problem_value(s->p, s->where, s->key, text,
			      "is a relative path (want an absolute one)");
	if (row->type == PROP_U32)
		value = *(uint32_t *)at;
	else if (row->type == PROP_I32)
		value = *(int32_t *)at;
	else if (row->type == PROP_U64)
		value = *(uint64_t *)at > INT64_MAX ? INT64_MAX : (int64_t) * (uint64_t *)at;
	else
		return;
	if (row->max && (value < row->min || value > row->max))
		problems_add(s->p, PROBLEM_BAD_VALUE, s->where, s->key,
			     "'%s' is out of range (want %" PRId64 " to %" PRId64 ")", text,
			     row->min, row->max);
}

/* "disks[2].path" and "disks.*.path" (or disks.2.path). Freed with where_done. */
struct where {
	char *where, *key;
};

static struct where where_of(const struct prop_table *t, size_t index, const struct prop *row)
{
	struct where w = {
		.where = xasprintf("%s[%zu].%s", t->what, index, row->name),
		.key = row->set & KEY_BY_INDEX ? xasprintf("%s.%zu.%s", t->what, index, row->name)
					       : xasprintf("%s.*.%s", t->what, row->name),
	};

	return w;
}

static void where_done(struct where *w)
{
	free(w->where);
	free(w->key);
}

#define AUTO_WHERE __attribute__((cleanup(where_done))) struct where
#define DISK_WHERE(i, field)                                                                       \
	where_of(&disk_props, (i), prop_at(&disk_props, offsetof(struct disk, field)))
#define NIC_WHERE(i, field)                                                                        \
	where_of(&nic_props, (i), prop_at(&nic_props, offsetof(struct nic, field)))

static void check_rows(const struct prop_table *t, void *el, size_t index, struct problems *p)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];
		AUTO_WHERE w = {0};

		if (row->type == PROP_BOOL || prop_is_default(row, el))
			continue;
		w = where_of(t, index, row);
		slot_check(&(struct slot){t, row, el, w.where, w.key, p});
	}
}

static void same_names(const struct vm *vm, const struct prop_table *t, struct problems *p)
{
	struct elem_list list = vm_elements(vm, t);

	for (size_t i = 0; i < list.count; i++) {
		for (size_t j = 0; j < i; j++) {
			const char *name = *elem_name(t, list.items[i]);
			AUTO_FREE char *where = NULL;

			if (!name || !str_eq(name, *elem_name(t, list.items[j])))
				continue;
			where = xasprintf("%s[%zu].name", t->what, i);
			problems_add(p, PROBLEM_BAD_VALUE, where, NULL,
				     "'%s' is the name of %s[%zu] too (want names that differ)",
				     name, t->what, j);
		}
	}
}

/* --- rules of the VM's rows --- */

void rule_uuid(const struct vm *vm, struct problems *p)
{
	if (!vm->uuid)
		problems_add(p, PROBLEM_MISSING, "uuid", "uuid", "is required");
}

void rule_name(const struct vm *vm, struct problems *p)
{
	if (!vm->name)
		problems_add(p, PROBLEM_MISSING, "name", "name", "is required");
}

void rule_hugepages(const struct vm *vm, struct problems *p)
{
	if (vm->hugepages_mib && vm->ram_mib % vm->hugepages_mib)
		problems_add(p, PROBLEM_BAD_VALUE, "ram", "ram",
			     "%u MiB are no whole number of huge pages of %u MiB", vm->ram_mib,
			     vm->hugepages_mib);
}

void rule_vcpus(const struct vm *vm, struct problems *p)
{
	uint64_t product = (vm->sockets ? vm->sockets : 1) * (uint64_t)(vm->cores ? vm->cores : 1) *
			   (vm->threads ? vm->threads : 1);
	bool all = vm->sockets && vm->cores && vm->threads;
	uint32_t most = vm->vcpus_max ? vm->vcpus_max : vm->vcpus;

	if (vm->vcpus > most)
		problems_add(p, PROBLEM_BAD_VALUE, "vcpus_max", "vcpus_max",
			     "'%u' is less than vcpus, %u", most, vm->vcpus);
	if (vm->vcpus == 0 || (all ? product != most : most % product != 0))
		problems_add(p, PROBLEM_BAD_VALUE, "vcpus", "vcpus",
			     "'%u' does not fit %u sockets, %u cores, %u threads (want their "
			     "product, 0 counting as any)",
			     most, vm->sockets, vm->cores, vm->threads);
}

static void disk_image(const struct disk *d, size_t i, struct problems *p)
{
	if (DISK_GIVEN(d, size_mib)) {
		AUTO_WHERE w = DISK_WHERE(i, size_mib);

		problems_add(p, PROBLEM_BAD_PROPERTY, w.where, w.key,
			     "cannot be given with image_uuid (want image_size)");
	}
	if (DISK_GIVEN(d, block_size)) {
		AUTO_WHERE w = DISK_WHERE(i, block_size);

		problems_add(p, PROBLEM_BAD_PROPERTY, w.where, w.key,
			     "cannot be given with image_uuid");
	}
	if (!DISK_GIVEN(d, image_size_mib) && !d->image_size_mib) {
		AUTO_WHERE w = DISK_WHERE(i, image_size_mib);

		problems_add(p, PROBLEM_MISSING, w.where, w.key, "is required with image_uuid");
	}
	if (d->image) {
		AUTO_WHERE w = DISK_WHERE(i, image);

		problems_add(p, PROBLEM_BAD_PROPERTY, w.where, w.key,
			     "cannot be given with image_uuid (want one of the two)");
	}
}

/* Where the bytes of a disk come from: an image, a size, or a file that is there. */
static void disk_source(const struct disk *d, size_t i, struct problems *p)
{
	bool made = d->image || d->size_mib || DISK_GIVEN(d, size_mib);

	if (d->image && *d->image != '/' && strchr(d->image, '/')) {
		AUTO_WHERE w = DISK_WHERE(i, image);

		problem_value(p, w.where, w.key, d->image,
			      "is a relative path (want an absolute one, or the name of an image)");
	}

	if (DISK_GIVEN(d, image_uuid) || d->image_uuid) {
		disk_image(d, i, p);
		return;
	}
	if (DISK_GIVEN(d, image_size_mib)) {
		AUTO_WHERE w = DISK_WHERE(i, image_size_mib);

		problems_add(p, PROBLEM_BAD_PROPERTY, w.where, w.key,
			     "cannot be given without image_uuid (want size)");
	}
	if (d->media == MEDIA_DISK && !made && !DISK_GIVEN(d, path)) {
		AUTO_WHERE w = DISK_WHERE(i, size_mib);

		problems_add(p, PROBLEM_MISSING, w.where, w.key,
			     "is required (or an image, or the path of a disk that exists)");
	}
}

static void same_paths(const struct vm *vm, size_t i, struct problems *p)
{
	for (size_t j = 0; j < i; j++) {
		AUTO_WHERE w = {0};

		if (!vm->disks[i]->path || !str_eq(vm->disks[i]->path, vm->disks[j]->path))
			continue;
		w = DISK_WHERE(i, path);
		problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
			     "'%s' is the path of disks[%zu] too", vm->disks[i]->path, j);
	}
}

void rule_disks(const struct vm *vm, struct problems *p)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		check_rows(&disk_props, vm->disks[i], i, p);
		disk_source(vm->disks[i], i, p);
		same_paths(vm, i, p);
	}
	same_names(vm, &disk_props, p);
}

/* --- NICs --- */

static bool is_static(const char *ip)
{
	return ip && !str_eq(ip, "dhcp") && !str_eq(ip, "addrconf");
}

static bool has_ip(const struct nic *n, const char *ip, size_t len)
{
	for (size_t i = 0; i < n->ips.count; i++) {
		const char *other = n->ips.items[i];

		if (strcspn(other, "/") == len && strncmp(other, ip, len) == 0)
			return true;
	}
	return false;
}

static void nic_ips(const struct nic *n, size_t i, struct problems *p)
{
	AUTO_WHERE w = NIC_WHERE(i, ips);

	for (size_t k = 0; k < n->ips.count; k++) {
		const char *ip = n->ips.items[k];

		if (is_static(ip) && !strchr(ip, '/')) {
			AUTO_WHERE mask = NIC_WHERE(i, netmask);

			if (NIC_GIVEN(n, ips))
				problem_value(p, w.where, w.key, ip,
					      "has no prefix length (want 192.0.2.5/24)");
			else
				problems_add(p, PROBLEM_MISSING, mask.where, mask.key,
					     "is required with the address %s", ip);
		}
		for (size_t j = 0; j < k; j++) {
			if (str_eq(n->ips.items[j], ip))
				problem_value(p, w.where, w.key, ip, "is given twice");
		}
	}
	if (n->ips.count + n->allowed_ips.count > ALL_IPS_MAX)
		problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
			     "has %zu addresses with allowed_ips (want at most %d)",
			     n->ips.count + n->allowed_ips.count, ALL_IPS_MAX);
}

static void nic_network(const struct nic *n, size_t i, struct problems *p)
{
	bool user = str_eq(n->nic_tag, "user");

	if (!n->nic_tag && !NIC_GIVEN(n, nic_tag) && !n->tap) {
		AUTO_WHERE w = NIC_WHERE(i, nic_tag);

		problems_add(p, PROBLEM_MISSING, w.where, w.key,
			     "is required (want the name of a bridge, or \"user\")");
	}
	if (n->forward.count && !user) {
		AUTO_WHERE w = NIC_WHERE(i, forward);

		problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
			     "needs user-mode networking (want bridge = user)");
	}
	if ((n->bandwidth_in_kbit || n->bandwidth_out_kbit) && (user || n->tap)) {
		AUTO_WHERE w = n->bandwidth_in_kbit ? NIC_WHERE(i, bandwidth_in_kbit)
						    : NIC_WHERE(i, bandwidth_out_kbit);

		problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
			     "needs a bridge, and no tap (what a hook made is the hook's)");
	}
	if (n->tap && user) {
		AUTO_WHERE w = NIC_WHERE(i, tap);

		problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
			     "cannot be given with user-mode networking");
	}
}

/* The same MAC or address twice within the VM. Texts: vmadm(8). */
static void nic_twins(const struct vm *vm, size_t i, struct problems *p)
{
	const struct nic *n = vm->nics[i];

	for (size_t j = 0; j < i; j++) {
		const struct nic *o = vm->nics[j];

		if (n->mac && str_eq(n->mac, o->mac)) {
			AUTO_WHERE w = NIC_WHERE(i, mac);

			problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
				     "Cannot add multiple NICs with the same MAC: %s", n->mac);
		}
		if (n->interface && str_eq(n->interface, o->interface)) {
			AUTO_WHERE w = NIC_WHERE(i, interface);

			problem_value(p, w.where, w.key, n->interface, "is taken by another NIC");
		}
		for (size_t k = 0; k < n->ips.count; k++) {
			const char *ip = n->ips.items[k];
			size_t len = strcspn(ip, "/");
			AUTO_WHERE w = NIC_WHERE(i, ip);

			if (is_static(ip) && has_ip(o, ip, len))
				problems_add(p, PROBLEM_BAD_VALUE, w.where, w.key,
					     "Cannot add multiple NICs with the same IP: %.*s",
					     (int)len, ip);
		}
	}
}

void rule_nics(const struct vm *vm, struct problems *p)
{
	size_t primaries = 0;

	for (size_t i = 0; i < vm->nnics; i++) {
		check_rows(&nic_props, vm->nics[i], i, p);
		nic_network(vm->nics[i], i, p);
		nic_ips(vm->nics[i], i, p);
		nic_twins(vm, i, p);
		primaries += vm->nics[i]->primary;
	}
	if (primaries > 1)
		problems_add(p, PROBLEM_BAD_VALUE, "nics", "nics.*.primary",
			     "payload specifies more than 1 primary NIC");
	same_names(vm, &nic_props, p);
}

void rule_consoles(const struct vm *vm, struct problems *p)
{
	for (size_t i = 0; i < vm->nconsoles; i++)
		check_rows(&console_props, vm->consoles[i], i, p);
	same_names(vm, &console_props, p);
}

/* --- routes, kernel, after --- */

static bool is_gateway(const struct vm *vm, const char *text)
{
	struct in_addr addr;
	size_t len = strlen(text);

	if (inet_pton(AF_INET, text, &addr) == 1)
		return true;
	if (str_starts(text, "nics[") && len > 6 && len < 10 && text[len - 1] == ']' &&
	    strspn(text + 5, "0123456789") == len - 6)
		return strtoul(text + 5, NULL, 10) < vm->nnics;
	for (size_t i = 0; str_starts(text, "macs[") && i < vm->nnics; i++) {
		AUTO_FREE char *want = xasprintf("macs[%s]", vm->nics[i]->mac);

		if (strcasecmp(want, text) == 0)
			return true;
	}
	return false;
}

static bool is_destination(const char *text)
{
	AUTO_PROBLEMS struct problems p = {0};

	check_cidr(text, NULL, NULL, &p);
	return p.count == 0 && !strchr(text, ':');
}

void rule_routes(const struct vm *vm, struct problems *p)
{
	const char *to;
	json_t *via;

	json_object_foreach (vm->routes, to, via) {
		AUTO_FREE char *where = xasprintf("routes.%s", to);

		if (!is_destination(to))
			problem_value(p, where, "routes", to,
				      "is not a destination (want an IPv4 address or network)");
		else if (!json_is_string(via) || !is_gateway(vm, json_string_value(via)))
			problems_add(p, PROBLEM_BAD_VALUE, where, "routes",
				     "'%s' is not a gateway (want an IPv4 address, nics[N] or "
				     "macs[MAC] of this VM)",
				     json_is_string(via) ? json_string_value(via) : "it");
	}
}

void rule_kernel(const struct vm *vm, struct problems *p)
{
	if (!vm->kernel && !VM_GIVEN(vm, kernel) && (vm->initrd || vm->cmdline))
		problems_add(p, PROBLEM_MISSING, "kernel", "kernel",
			     "is required with initrd or cmdline");
}

/* A bare name is one of the firmware's own; a path is whole, or whole by now. */
void rule_bootrom(const struct vm *vm, struct problems *p)
{
	const char *path = vm->bootrom;

	if (path && *path != '/' && strchr(path, '/'))
		problem_value(p, "bootrom", "bootrom", path,
			      "is a relative path (want an absolute one)");
}

void rule_nvram(const struct vm *vm, struct problems *p)
{
	if (vm->nvram && !vm->bootrom && !vm->configfile)
		problems_add(p, PROBLEM_MISSING, "bootrom", "bootrom", "is required with nvram");
}

void rule_after(const struct vm *vm, struct problems *p)
{
	for (size_t i = 0; i < vm->after.count; i++) {
		const char *name = vm->after.items[i];
		size_t len = strlen(name) - (str_ends(name, ":ready") ? 6 : 0);

		if ((vm->name && strlen(vm->name) == len && strncmp(name, vm->name, len) == 0) ||
		    (vm->uuid && strlen(vm->uuid) == len && strncmp(name, vm->uuid, len) == 0))
			problem_value(p, "after", "after", name, "is this VM itself");
	}
}

void vm_validate(const struct vm *vm, struct problems *p)
{
	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];

		slot_check(&(struct slot){&vm_props, row, (void *)vm, row->name, row->name, p});
		if (row->rule)
			row->rule(vm, p);
	}
}
