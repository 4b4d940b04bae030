/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An update payload applied to a copy of a VM: wholly, or not at all. Order: plain properties,
 * removals, changes of what is there, additions; then what follows from the members is worked out
 * anew and the result validated like any other VM. Sources: vmadm(8), update.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/payload.h"
#include "model/rows.h"
#include "model/value.h"

enum update_op { OP_PLAIN, OP_REMOVE, OP_CHANGE, OP_ADD, OP_UNKNOWN };
#define UPDATE_OPS 4 /* that do something */

struct update {
	const struct vm *old;
	struct vm *vm;
	json_t *object; /* old as JSON, made when needed */
	const json_t *payload;
	const char *state;
	const char *refused; /* what was already refused about disks */
	struct problems *p;
};

/* "remove_nics" into OP_REMOVE and the row of nics. */
static enum update_op op_of(const char *name, const struct prop **ret_row)
{
	static const struct {
		const char *prefix;
		enum update_op op;
		bool elements, maps;
	} ops[] = {
		{"add_", OP_ADD, true, false},
		{"remove_", OP_REMOVE, true, true},
		{"update_", OP_CHANGE, true, false},
		{"set_", OP_CHANGE, false, true},
	};

	*ret_row = prop_find(&vm_props, name, false);
	if (*ret_row)
		return OP_PLAIN;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		const struct prop *row = NULL;

		if (str_starts(name, ops[i].prefix))
			row = prop_find(&vm_props, name + strlen(ops[i].prefix), false);
		if (row && (row->set & ON_UPDATE) &&
		    ((ops[i].elements && row_elements(row)) ||
		     (ops[i].maps && row->type == PROP_MAP))) {
			*ret_row = row;
			return ops[i].op;
		}
	}
	return OP_UNKNOWN;
}

/* --- plain properties --- */

/* What cannot change may be repeated, as payloads made from "get" do. */
static bool repeats(struct update *u, const struct prop *row, const json_t *value)
{
	if (!(row->set & ON_CREATE))
		return false;
	if (!u->object)
		u->object = vm_to_json(u->old, NULL, true);
	return json_equal(json_object_get(u->object, row->name), value);
}

static void refuse_plain(struct update *u, const struct prop *row, const char *name)
{
	if (row && row_elements(row) && (row->set & ON_UPDATE))
		problems_add(u->p, PROBLEM_BAD_PROPERTY, name, name,
			     "'%s' cannot be set as a whole (want add_%s, update_%s or remove_%s)",
			     name, name, name, name);
	else if (row && row->type == PROP_MAP)
		problems_add(u->p, PROBLEM_BAD_PROPERTY, name, name,
			     "'%s' cannot be set as a whole (want set_%s or remove_%s)", name, name,
			     name);
	else if (row && (row->set & ON_CREATE))
		problems_add(u->p, PROBLEM_BAD_PROPERTY, name, name,
			     "'%s' cannot be changed after creation", name);
	else
		problem_unknown(&vm_props, name, false, name, name, u->p);
}

static void set_plain(struct update *u, const struct prop *row, const char *name,
		      const json_t *value)
{
	size_t bit;

	if (row_elements(row) || row->type == PROP_MAP || !(row->set & ON_UPDATE)) {
		if (!repeats(u, row, value))
			refuse_plain(u, row, name);
		return;
	}
	/* quota is the one whose absence is told by its value. Source: vmadm(8), quota. */
	if (row->at == offsetof(struct vm, quota_gib) &&
	    (json_is_null(value) || (json_is_string(value) && !*json_string_value(value)))) {
		(void)slot_text(&(struct slot){&vm_props, row, u->vm, name, name, u->p}, "0");
		return;
	}
	if (slot_json(&(struct slot){&vm_props, row, u->vm, name, name, u->p}, value) < 0)
		return;
	bit = row_index(&vm_props, row);
	if (prop_same(row, u->old, u->vm))
		given_set(&u->vm->given, bit, given_get(&u->old->given, bit));
}

/* --- maps --- */

static void remove_keys(struct update *u, const struct prop *row, const char *name,
			const json_t *value)
{
	json_t **map = row_at(row, u->vm);
	size_t i;
	json_t *key;

	if (!json_is_array(value)) {
		problems_add(u->p, PROBLEM_BAD_VALUE, NULL, name, "%s must be an array.", name);
		return;
	}
	json_array_foreach ((json_t *)value, i, key) {
		AUTO_FREE char *where = xasprintf("%s[%zu]", name, i);

		if (!json_is_string(key))
			problems_add(u->p, PROBLEM_BAD_VALUE, where, name,
				     "is not a string (want the name of a key)");
		else if (*map)
			(void)json_object_del(*map, json_string_value(key));
	}
}

static void set_keys(struct update *u, const struct prop *row, const char *name,
		     const json_t *value)
{
	json_t **map = row_at(row, u->vm);
	AUTO_JSON json_t *before = json_deep_copy(*map);

	if (slot_json(&(struct slot){&vm_props, row, u->vm, name, name, u->p}, value) < 0 ||
	    !before)
		return;
	(void)json_object_update(before, *map);
	json_decref(*map);
	*map = steal_ptr(before);
}

/* --- disks and NICs --- */

/* zone_state that belongs to a state, for messages. Source: vmadm(8), state. */
static const char *zone_state_of(const char *state)
{
	if (strcmp(state, "stopping") == 0)
		return "running";
	if (strcmp(state, "stopped") == 0 || strcmp(state, "failed") == 0 ||
	    strcmp(state, "provisioning") == 0)
		return "installed";
	return state;
}

static bool disks_may_change(const struct update *u)
{
	return strcmp(u->state, "stopped") == 0 || strcmp(u->state, "provisioning") == 0;
}

/* Whole disks are plugged into a running machine, and out of it. */
static bool disks_may_plug(const struct update *u)
{
	return disks_may_change(u) || strcmp(u->state, "running") == 0;
}

static bool refuse_disks(struct update *u, const char *what, bool may)
{
	if (may)
		return false;
	if (!str_eq(u->refused, what))
		problems_add(u->p, PROBLEM_BAD_VALUE, NULL, "disks",
			     "%s only allowed when state is \"stopped\", currently: %s (%s)", what,
			     u->state, zone_state_of(u->state));
	u->refused = what;
	return true;
}

/* Index of the element with this path or MAC, -1. */
static long element_of(const struct vm *vm, const struct prop_table *t, const char *key)
{
	const struct prop *row = prop_find(t, t->key, false);
	struct elem_list list = vm_elements(vm, t);
	AUTO_FREE char *want = t == &nic_props ? mac_normal(key) : xstrdup(key);

	for (size_t i = 0; i < list.count; i++) {
		if (str_eq(*(char *const *)row_at(row, list.items[i]), want))
			return (long)i;
	}
	return -1;
}

static void remove_elements(struct update *u, const struct prop_table *t, const char *name,
			    const json_t *value)
{
	size_t i;
	json_t *item;

	json_array_foreach ((json_t *)value, i, item) {
		AUTO_FREE char *where = xasprintf("%s[%zu]", name, i);
		AUTO_FREE char *key = shown_json(item);
		long index =
			json_is_string(item) ? element_of(u->vm, t, json_string_value(item)) : -1;

		if (index >= 0)
			vm_drop_element(u->vm, t, (size_t)index);
		else if (json_is_string(item) && t == &nic_props)
			problems_add(u->p, PROBLEM_WARNING, where, name,
				     "no NIC has the MAC '%s': skipped", key);
		else
			problems_add(u->p, PROBLEM_BAD_VALUE, where, name,
				     "'%s' is the %s of no %s (want one that the VM has)", key,
				     t->key, t->one);
	}
}

static void unset(const struct prop_table *t, void *el, size_t at)
{
	slot_unset(&(struct slot){.t = t, .row = prop_at(t, at), .el = el});
}

/* ip and ips, gateway and gateways say the same: the one that is changed wins. */
static void keep_in_step(struct update *u, struct nic *n, const json_t *partial)
{
	bool ip = json_object_get(partial, "ip"), ips = json_object_get(partial, "ips");
	bool one = json_object_get(partial, "gateway"), all = json_object_get(partial, "gateways");

	if (ip && !ips)
		unset(&nic_props, n, offsetof(struct nic, ips));
	if (ips && !ip)
		unset(&nic_props, n, offsetof(struct nic, ip));
	if ((ips || (ip && n->ip && strchr(n->ip, '/'))) && !json_object_get(partial, "netmask"))
		unset(&nic_props, n, offsetof(struct nic, netmask));
	if (one && !all)
		unset(&nic_props, n, offsetof(struct nic, gateways));
	if (all && !one)
		unset(&nic_props, n, offsetof(struct nic, gateway));
}

/* One NIC is primary: setting moves it. */
static void move_primary(struct vm *vm, const struct nic *to)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		if (vm->nics[i] != to)
			unset(&nic_props, vm->nics[i], offsetof(struct nic, primary));
	}
}

/* Has the partial object members of rows that a running VM does not take? */
static bool wants_stopped(const struct prop_table *t, const json_t *partial)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)partial, name, value) {
		const struct prop *row = prop_find(t, name, false);

		if (strcmp(name, t->key) != 0 && row && (row->set & ON_UPDATE) &&
		    !(row->set & LIVE))
			return true;
	}
	return false;
}

static void change_members(struct update *u, const struct prop_table *t, void *el,
			   const json_t *partial, const char *where)
{
	struct prop_set *given = elem_given(t, el);
	const struct elem_list before = vm_elements(u->old, t);
	long index = vm_element_named(u->old, t, *elem_name(t, el));
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)partial, name, value) {
		const struct prop *row = prop_find(t, name, false);

		if (strcmp(name, t->key) == 0)
			continue;
		if (row && !(row->set & ON_UPDATE) && index >= 0) {
			AUTO_JSON json_t *old = prop_json(row, before.items[index]);

			if (old && json_equal(old, value))
				continue;
		}
		payload_member(t, el, name, value, ON_UPDATE, where, u->p);
		if (row && row->type < PROP_DISKS && index >= 0 &&
		    prop_same(row, before.items[index], el))
			given_set(given, row_index(t, row),
				  prop_given(t, elem_given(t, before.items[index]), row));
	}
}

static void change_element(struct update *u, const struct prop_table *t, const json_t *partial,
			   const char *where)
{
	const char *key = json_get_str(partial, t->key, NULL);
	AUTO_FREE char *v = shown(key ? key : "");
	long index = key ? element_of(u->vm, t, key) : -1;
	void *el;

	if (!json_is_object(partial) || !key) {
		problems_add(u->p, PROBLEM_MISSING, where, t->what,
			     "has no %s (want an object with the %s of the %s to change)", t->key,
			     t->key, t->one);
		return;
	}
	if (index < 0) {
		problems_add(u->p, PROBLEM_BAD_VALUE, where, t->what,
			     "'%s' is the %s of no %s (want one that the VM has)", v, t->key,
			     t->one);
		return;
	}
	if (t == &disk_props && wants_stopped(t, partial) &&
	    refuse_disks(u, "at least one specified update to disks is", disks_may_change(u)))
		return;
	el = vm_elements(u->vm, t).items[index];
	change_members(u, t, el, partial, where);
	if (t == &nic_props) {
		keep_in_step(u, el, partial);
		if (json_is_true(json_object_get(partial, "primary")))
			move_primary(u->vm, el);
	}
}

static void change_elements(struct update *u, const struct prop_table *t, const char *name,
			    const json_t *value)
{
	size_t i;
	json_t *partial;

	json_array_foreach ((json_t *)value, i, partial) {
		AUTO_FREE char *where = xasprintf("%s[%zu]", name, i);

		change_element(u, t, partial, where);
	}
}

/*
 * A name no disk has or had before this update: the path is made from it, and one that is removed
 * in the same call must not be taken for the new one.
 */
static void name_disk(const struct update *u, struct disk *d)
{
	for (unsigned n = 0; !d->name; n++) {
		AUTO_FREE char *name = xasprintf("disk%u", n);

		if (vm_element_named(u->vm, &disk_props, name) < 0 &&
		    vm_element_named(u->old, &disk_props, name) < 0)
			d->name = steal_ptr(name);
	}
}

static void add_elements(struct update *u, const struct prop_table *t, const char *name,
			 const json_t *value)
{
	size_t before = vm_elements(u->vm, t).count;

	payload_add_elements(u->vm, t, value, name, u->p);
	for (size_t i = before; t == &disk_props && i < u->vm->ndisks; i++)
		name_disk(u, u->vm->disks[i]);
	for (size_t i = before; t == &nic_props && i < u->vm->nnics; i++) {
		if (u->vm->nics[i]->primary)
			move_primary(u->vm, u->vm->nics[i]);
	}
}

/* A guest may use all of a disk by now. */
static void refuse_shrinking(struct update *u)
{
	for (size_t i = 0; i < u->vm->ndisks; i++) {
		const struct disk *d = u->vm->disks[i];
		AUTO_FREE char *where = xasprintf("disks.%zu.size", i);

		for (size_t j = 0; j < u->old->ndisks; j++) {
			const struct disk *before = u->old->disks[j];

			if (str_eq(d->path, before->path) && d->size_mib > 0 &&
			    d->size_mib < before->size_mib)
				problems_add(u->p, PROBLEM_BAD_VALUE, where, where,
					     "%" PRIu64 " MiB is less than the %" PRIu64
					     " MiB the disk has: a disk can only grow",
					     d->size_mib, before->size_mib);
		}
	}
}

/* --- all of it --- */

static void apply(struct update *u, enum update_op op, const struct prop *row, const char *name,
		  const json_t *value)
{
	const struct prop_table *t = row_elements(row);

	if (op == OP_PLAIN) {
		set_plain(u, row, name, value);
	} else if (row->type == PROP_MAP) {
		if (op == OP_REMOVE)
			remove_keys(u, row, name, value);
		else
			set_keys(u, row, name, value);
	} else if (!json_is_array(value)) {
		problems_add(u->p, PROBLEM_BAD_VALUE, NULL, name, "%s must be an array.", name);
	} else if (op == OP_CHANGE) {
		change_elements(u, t, name, value);
	} else if (json_array_size(value) > 0 &&
		   !(t == &disk_props &&
		     refuse_disks(u, "updates to disks are", disks_may_plug(u)))) {
		if (op == OP_REMOVE)
			remove_elements(u, t, name, value);
		else
			add_elements(u, t, name, value);
	}
}

/* Explicit limits below the guest's memory. max_swap is raised instead. */
static void check_limits(struct update *u)
{
	static const size_t limits[] = {offsetof(struct vm, max_physical_memory_mib),
					offsetof(struct vm, max_locked_memory_mib)};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct prop *row = prop_at(&vm_props, limits[i]);
		uint32_t limit = *(uint32_t *)row_at(row, u->vm);

		if (json_object_get(u->payload, row->name) &&
		    prop_given(&vm_props, &u->vm->given, row) && limit < u->vm->ram_mib)
			problems_add(u->p, PROBLEM_BAD_VALUE, NULL, row->name,
				     "vm.%s (%u) cannot be lower than vm.ram (%u)", row->name,
				     limit, u->vm->ram_mib);
	}
}

/* The distance of a given limit to max_physical_memory is kept when that one moves. */
static void drag(struct update *u, size_t at, int64_t by)
{
	const struct prop *row = prop_at(&vm_props, at);
	uint32_t *limit = row_at(row, u->vm);
	int64_t moved = (int64_t)*limit + by;

	if (json_object_get(u->payload, row->name) || !prop_given(&vm_props, &u->vm->given, row))
		return;
	*limit = moved < 0 ? 0 : moved > row->max ? (uint32_t)row->max : (uint32_t)moved;
}

/* Source: vmadm(8), max_physical_memory; ram moves it, and it moves the two others. */
static void move_limits(struct update *u)
{
	struct vm *vm = u->vm;
	const struct prop *row = prop_at(&vm_props, offsetof(struct vm, max_physical_memory_mib));
	int64_t by;

	check_limits(u);
	if (vm->ram_mib != u->old->ram_mib && !json_object_get(u->payload, row->name) &&
	    prop_given(&vm_props, &vm->given, row))
		vm->max_physical_memory_mib = vm->ram_mib + 1024;
	if (!prop_given(&vm_props, &vm->given, row))
		vm->max_physical_memory_mib = vm->ram_mib + 1024;
	if (vm->max_physical_memory_mib < vm->ram_mib + 256)
		vm->max_physical_memory_mib = vm->ram_mib + 256;
	by = (int64_t)vm->max_physical_memory_mib - u->old->max_physical_memory_mib;
	drag(u, offsetof(struct vm, max_locked_memory_mib), by);
	drag(u, offsetof(struct vm, max_swap_mib), by);
}

/* A NIC known by its place in `nics [ ... ]` only: what was made from the place goes. */
static void forget_place(struct nic *n)
{
	if (NIC_GIVEN(n, name) || n->ucl_path.count < 2 ||
	    strspn(n->ucl_path.items[1], "0123456789") != strlen(n->ucl_path.items[1]) ||
	    str_eq(n->ucl_path.items[1], n->name))
		return;
	replace_str(&n->name, NULL);
	if (!NIC_GIVEN(n, interface))
		replace_str(&n->interface, NULL);
	if (!NIC_GIVEN(n, mac))
		replace_str(&n->mac, NULL);
}

/* Members that follow from others are worked out anew by vm_finish. */
static void forget_derived(struct vm *vm)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (!DISK_GIVEN(vm->disks[i], model) && vm->disk_driver)
			unset(&disk_props, vm->disks[i], offsetof(struct disk, model));
	}
	for (size_t i = 0; i < vm->nnics; i++) {
		forget_place(vm->nics[i]);
		if (!NIC_GIVEN(vm->nics[i], model) && vm->nic_driver)
			unset(&nic_props, vm->nics[i], offsetof(struct nic, model));
	}
	if (!VM_GIVEN(vm, vcpus) && (vm->sockets || vm->cores || vm->threads))
		vm->vcpus = 1;
}

static void apply_all(struct update *u)
{
	const char *name;
	json_t *value;

	for (int pass = 0; pass < UPDATE_OPS; pass++) {
		json_object_foreach ((json_t *)u->payload, name, value) {
			const struct prop *row;
			enum update_op op = op_of(name, &row);

			if (op == OP_UNKNOWN && pass == 0)
				refuse_plain(u, NULL, name);
			else if ((int)op == pass)
				apply(u, op, row, name, value);
		}
	}
}

static const struct disk *disk_at(const struct vm *vm, const char *path)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return vm->disks[i];
	}
	return NULL;
}

/* A path that followed from name, format and media is said from where they would lead elsewhere. */
static void keep_paths(const struct vm *old, struct vm *vm)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *d = vm->disks[i];
		const struct disk *was = d->path ? disk_at(old, d->path) : NULL;

		if (was && (was->media != d->media || was->format != d->format))
			disk_keep_path(d);
	}
}

struct vm *vm_update(const struct vm *vm, const json_t *payload, const char *state,
		     struct vm_changes *ret_changes, struct problems *p)
{
	struct update u = {.old = vm, .payload = payload, .p = p, .state = state ? state : "?"};
	size_t errors = p->errors;
	char *dir;

	*ret_changes = (struct vm_changes){0};
	if (!json_is_object(payload)) {
		problems_add(p, PROBLEM_BAD_VALUE, NULL, NULL,
			     "the payload is not an object (want { \"ram\": 2048, ... })");
		return NULL;
	}
	u.vm = vm_copy(vm);
	apply_all(&u);
	move_limits(&u);
	forget_derived(u.vm);
	dir = steal_ptr(u.vm->dir); /* in a payload no path begins there, whoever judges it */
	vm_finish(u.vm, NULL);
	keep_paths(vm, u.vm);
	refuse_shrinking(&u);
	json_decref(u.object);
	if (p->errors == errors)
		vm_validate(u.vm, p);
	u.vm->dir = dir;
	if (p->errors != errors) {
		vm_free(u.vm);
		return NULL;
	}
	vm_changes_of(vm, u.vm, ret_changes);
	return u.vm;
}
