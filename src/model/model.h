/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be done with a struct vm without touching the world: read it from UCL or JSON, check
 * it, print it, change it by a payload, compare objects.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/states.h"

struct err;
struct problems;
struct ucl_value;
struct vm;

/*
 * One VM from its section of a definition file (keys of the file folded to lower case, name as
 * written). Problems carry FILE:LINE:COLUMN; unknown keys name the nearest known one. Returns a
 * VM even when there are problems (then not to be used but for its name), never NULL.
 * ns: host uuid; the uuid, when not given, is version 5 of ns and "<dir name>/<section name>".
 * dir: the folder of the file; relative paths of the definition start there (vm_finish).
 */
struct vm *vm_from_ucl(const char *section, const struct ucl_value *value, const char *ns,
		       const char *dir, struct problems *p);

/*
 * One VM from a create payload. Problems carry the JSON path ("nics[1].mac"). Unknown properties,
 * those not allowed on create, missing and bad ones are all reported. Returns a VM in any case,
 * not to be used when there are problems; the findings of vm_finish and vm_validate may follow.
 */
struct vm *vm_from_payload(const json_t *payload, struct problems *p);

/*
 * The finished VM an object of vm_to_json (vminfod's /vms) tells of; members that are not of the
 * definition are passed over. What readers are not shown (secrets) is missing, and so is the place
 * of NICs without a name in an array of a file; else an update gives the same changes as for the
 * VM itself. data_dir as in vm_finish. Returns a VM in any case, like vm_from_payload.
 */
struct vm *vm_from_object(const json_t *object, const char *data_dir, struct problems *p);

/*
 * Fill in defaults and what follows from other members: alias, zonename, derived MACs, interface
 * and element names, primary NIC, ip/ips, memory limits (smartos 7.3), disk paths
 * (data_dir/NAME.qcow2 for disks without path). data_dir may be NULL for a definition that gives
 * all paths. Idempotent.
 */
void vm_finish(struct vm *vm, const char *data_dir);

/* All rules that concern one VM alone, in field order. where of the findings: JSON path. */
void vm_validate(const struct vm *vm, struct problems *p);

/* Rules between two VMs, which are not the same one: same name, uuid, MAC, fixed vnc_port, IP in
 * one tag and vlan. */
void vm_conflicts(const struct vm *vm, const struct vm *other, struct problems *p);
/*
 * Tell add every claim of vm on what only one VM may have. vm_conflicts finds something in no pair
 * without a claim in common, so among many VMs only those pairs are worth its while.
 */
void vm_claims(const struct vm *vm, void (*add)(void *ctx, const char *claim), void *ctx);

/*
 * Give NICs of vm that got their MAC from us, and share it with a NIC of other, another one, which
 * then counts as given; those that old (may be NULL) has keep theirs. True when that happened:
 * those looked at before are to be looked at again.
 */
bool vm_avoid_macs(struct vm *vm, const struct vm *old, const struct vm *other);

/*
 * The VM object, members in the order of the table. facts (may be NULL): members of runtime rows
 * by their name, and overrides. secrets: include vnc_password, internal_metadata and the like.
 * Without facts the VM is installed and stopped. Values of facts are shared, not copied.
 */
json_t *vm_to_json(const struct vm *vm, const json_t *facts, bool secrets);

/* A whole definition file for a VM made by us; sorted as the table, only given members. */
char *vm_to_ucl(const struct vm *vm);

/* --- update --- */
struct vm_change {
	const struct prop *row;
	char *path;                /* "ram", "disks[/path].cache", "tags.k" */
	char *old_text, *new_text; /* compact JSON, NULL when absent */
	bool live;                 /* applies at once; else at the next start */
	bool metadata;             /* lies in a metadata file, not in the definition */
};

struct vm_changes {
	struct vm_change *items;
	size_t count;
};

void vm_changes_done(struct vm_changes *c);

/*
 * What differs between two finished VMs, row by row: rows of the VM in the order of the table, then
 * elements within theirs. *ret is the caller's: vm_changes_done.
 */
void vm_changes_of(const struct vm *old, const struct vm *new, struct vm_changes *ret);

/* The disk or NIC of that name becomes what it is in from: replaced, added last, or dropped. */
struct prop_table;
void vm_take_element(struct vm *to, const struct vm *from, const struct prop_table *t,
		     const char *name);

/* Give vm, as it was started, the members of now that apply at once. */
void vm_take_live(struct vm *vm, const struct vm *now);

/*
 * Apply an update payload (add_, remove_, update_ for disks and nics; set_, remove_ for the maps;
 * plain keys otherwise) to a copy of vm, which is finished. state: the VM's `state` ("stopped",
 * "running"), for rules that depend on it. Returns the finished new VM, or NULL with problems;
 * warnings may come with either. A value that is there already is no change; members that follow
 * from what was changed (max_physical_memory from ram) are in the list too.
 */
struct vm *vm_update(const struct vm *vm, const json_t *payload, const char *state,
		     struct vm_changes *ret_changes, struct problems *p);

/*
 * What must change in the definition file to turn old into new, as edits of ucl/edit.h below the
 * section `name`. *ret is one allocation tree; free with vm_edits_free.
 */
struct ucl_edit;
struct vm_edits {
	struct ucl_edit *items;
	size_t count;
};
void vm_edits(const struct vm *old, const struct vm *new, const char *section,
	      struct vm_edits *ret);
void vm_edits_free(struct vm_edits *e);

/* --- differences of objects, as vminfod's events carry them --- */
/*
 * A JSON array of {prettyPath, path, action, oldValue, newValue, ident}; empty when equal. disks
 * and nics at the root are matched by path and mac. Arrays compare as sets.
 * Source: smartos facts section 2, examples E1-E14.
 */
json_t *vm_diff(const json_t *old, const json_t *new);
