/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two VMs of one host may not share: name, uuid, MAC, fixed VNC port, an address in one
 * network. Source: vmadm(8), create; design, section 4.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/rows.h"

#define CONFLICT "Conflict detected with another vm, please check the MAC, IP, and VRID"

/* "web0 (54f1cc77-...), defined at FILE:LINE" */
static char *who(const struct vm *vm)
{
	AUTO_FREE char *file =
		vm->file ? xasprintf(", defined at %s:%d", vm->file, vm->line) : xstrdup("");

	return xasprintf("%s (%s)%s", vm->name ? vm->name : "?", vm->uuid ? vm->uuid : "?", file);
}

static void identity(const struct vm *vm, const struct vm *other, struct problems *p)
{
	AUTO_FREE char *text = NULL;
	bool same_uuid = vm->uuid && str_eq(vm->uuid, other->uuid);
	bool same_name = vm->name && str_eq(vm->name, other->name);

	if (!same_uuid && !same_name)
		return;
	text = who(other);
	if (same_uuid)
		problems_add(p, PROBLEM_BAD_VALUE, "uuid", "uuid",
			     "VM with UUID %s already exists: %s", vm->uuid, text);
	if (same_name)
		problems_add(p, PROBLEM_BAD_VALUE, "name", "name",
			     "'%s' is the name of another VM: %s", vm->name, text);
}

static void addresses(const struct vm *vm, size_t i, const struct vm *other, size_t j,
		      struct problems *p)
{
	const struct nic *n = vm->nics[i], *o = other->nics[j];

	if (!str_eq(n->nic_tag, o->nic_tag) || n->vlan_id != o->vlan_id ||
	    str_eq(n->nic_tag, "user"))
		return;
	for (size_t a = 0; a < n->ips.count; a++) {
		const char *ip = n->ips.items[a];
		size_t len = strcspn(ip, "/");

		for (size_t b = 0; b < o->ips.count; b++) {
			const char *theirs = o->ips.items[b];
			AUTO_FREE char *where = NULL, *text = NULL;

			if (str_eq(ip, "dhcp") || str_eq(ip, "addrconf") ||
			    strcspn(theirs, "/") != len || strncmp(ip, theirs, len) != 0)
				continue;
			text = who(other);
			where = xasprintf("nics[%zu].ip", i);
			problems_add(p, PROBLEM_BAD_VALUE, where, "nics.*.ip",
				     CONFLICT ": %.*s is taken by %s", (int)len, ip, text);
		}
	}
}

static void nics(const struct vm *vm, const struct vm *other, struct problems *p)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		for (size_t j = 0; j < other->nnics; j++) {
			const struct nic *n = vm->nics[i], *o = other->nics[j];
			AUTO_FREE char *where = NULL, *text = NULL;

			addresses(vm, i, other, j, p);
			if (!n->mac || !str_eq(n->mac, o->mac))
				continue;
			text = who(other);
			where = xasprintf("nics[%zu].mac", i);
			problems_add(p, PROBLEM_BAD_VALUE, where, "nics.*.mac",
				     CONFLICT ": %s is taken by %s", n->mac, text);
		}
	}
}

void vm_conflicts(const struct vm *vm, const struct vm *other, struct problems *p)
{
	identity(vm, other, p);
	nics(vm, other, p);
	if (vm->vnc_port > 0 && vm->vnc_port == other->vnc_port) {
		AUTO_FREE char *text = who(other);

		problems_add(p, PROBLEM_BAD_VALUE, "vnc_port", "vnc_port",
			     CONFLICT ": vnc_port %d is taken by %s", vm->vnc_port, text);
	}
}

static void claim(void (*add)(void *ctx, const char *claim), void *ctx, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void claim(void (*add)(void *ctx, const char *claim), void *ctx, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	add(ctx, text);
	free(text);
}

void vm_claims(const struct vm *vm, void (*add)(void *ctx, const char *claim), void *ctx)
{
	if (vm->uuid)
		claim(add, ctx, "uuid %s", vm->uuid);
	if (vm->name)
		claim(add, ctx, "name %s", vm->name);
	if (vm->vnc_port > 0)
		claim(add, ctx, "port %d", (int)vm->vnc_port);
	for (size_t i = 0; i < vm->nnics; i++) {
		const struct nic *n = vm->nics[i];

		if (n->mac)
			claim(add, ctx, "mac %s", n->mac);
		for (size_t a = 0; a < n->ips.count && !str_eq(n->nic_tag, "user"); a++) {
			const char *ip = n->ips.items[a];

			if (!str_eq(ip, "dhcp") && !str_eq(ip, "addrconf"))
				claim(add, ctx, "ip %.*s of %s %u", (int)strcspn(ip, "/"), ip,
				      n->nic_tag ? n->nic_tag : "", (unsigned)n->vlan_id);
		}
	}
}

static bool has_mac(const struct vm *vm, const char *mac)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		if (str_eq(vm->nics[i]->mac, mac))
			return true;
	}
	return false;
}

bool vm_avoid_macs(struct vm *vm, const struct vm *old, const struct vm *other)
{
	const struct prop *row = prop_at(&nic_props, offsetof(struct nic, mac));
	bool changed = false;

	for (size_t i = 0; i < vm->nnics; i++) {
		struct nic *n = vm->nics[i];

		if (NIC_GIVEN(n, mac) || !n->mac || !has_mac(other, n->mac) ||
		    (old && has_mac(old, n->mac)))
			continue;
		for (unsigned round = 1; has_mac(other, n->mac); round++) {
			AUTO_FREE char *mac = mac_of_round(vm, n, round);

			if (!has_mac(vm, mac))
				replace_str(&n->mac, steal_ptr(mac));
		}
		given_set(&n->given, row_index(&nic_props, row), true);
		changed = true;
	}
	return changed;
}
