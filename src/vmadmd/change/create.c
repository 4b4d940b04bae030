/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creation of a VM. In order: check everything; mark the data directory, so that a creation cut
 * short is removed at our next start; make the images; announce the VM as configured; write the
 * definition as one change; go through incomplete to installed; take the mark away, from where on
 * the VM is wholly there; start it when it is to boot. A start that fails leaves the VM there, and
 * the answer says so. Source: smartos facts 7.4, 7.5.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/change.h"
#include "vmadmd/change/create.h"
#include "vmadmd/disks/disks.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/guest.h"
#include "vmadmd/live/live.h"

/* How long a creation is expected to take, as smartos facts 7.5 has it. */
#define PROVISION_MS      300000
#define PROVISION_RAM_MIB 4096

static void mark_given(struct vm *vm, const void *member)
{
	size_t at = (size_t)((const char *)member - (const char *)vm);

	for (size_t i = 0; i < vm_props.count; i++) {
		if (vm_props.rows[i].type != PROP_RUNTIME && vm_props.rows[i].at == at)
			vm->given.bits[i / 64] |= UINT64_C(1) << i % 64;
	}
}

static void set_given(struct vm *vm, char **member, const char *text)
{
	replace_str(member, xstrdup(text));
	mark_given(vm, member);
}

/* The alias when it can be a name and nobody has it, else the uuid. */
static void choose_name(struct change *c)
{
	const struct prop *row = prop_find(&vm_props, "name", false);
	struct problems AUTO_PROBLEMS found = {0};
	struct catalog_entry *taken = NULL;
	struct vm *vm = c->new;
	const char *alias = vm->alias;

	if (alias && *alias && row && row->check)
		row->check(alias, "", "name", &found);
	if (alias && *alias)
		(void)catalog_find(c->d->catalog, alias, &taken, NULL);
	for (const struct change *other = c->d->changes; alias && other; other = other->next) {
		if (other != c && other->new &&str_eq(other->new->name, alias))
			alias = NULL;
	}
	if (!alias || !*alias || found.errors > 0 || (taken && str_eq(taken->vm->name, alias)))
		alias = c->uuid;
	set_given(vm, &vm->name, alias);
}

#define MAC_ROUNDS 16 /* each changes a MAC that had a chance of one in millions to be taken */

bool create_avoid_macs(struct change *c)
{
	bool again = true, changed = false;

	for (int round = 0; again && round < MAC_ROUNDS; round++) {
		again = false;
		for (size_t i = 0; i < catalog_count(c->d->catalog); i++)
			again |= vm_avoid_macs(c->new, c->old, catalog_at(c->d->catalog, i)->vm);
		for (const struct change *other = c->d->changes; other; other = other->next) {
			if (other != c && other->new)
				again |= vm_avoid_macs(c->new, c->old, other->new);
		}
		changed |= again;
	}
	return changed;
}

static int check(struct change *c, struct err *err)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	char now[ISO_TIME_LEN];
	int r;

	c->new = vm_from_payload(c->payload, &c->problems);
	r = change_problems(c, err);
	if (r < 0)
		return r;
	if (catalog_by_uuid(c->d->catalog, c->uuid) || file_exists(data))
		return err_set(err, EEXIST, "VM with UUID %s already exists", c->uuid);
	set_given(c->new, &c->new->uuid, c->uuid);
	if (!c->new->name || !*c->new->name)
		choose_name(c);
	set_given(c->new, &c->new->create_timestamp, clock_iso(clock_wall_ms(), now, sizeof(now)));
	disks_fill(c->d, c->new);
	vm_finish(c->new, data);
	(void)dataset_place(c);
	(void)create_avoid_macs(c);
	vm_validate(c->new, &c->problems);
	r = change_problems(c, err);
	if (r == 0)
		r = change_conflicts(c, err);
	if (r == 0)
		r = disks_plan(c, err);
	return r;
}

static int mark_files(struct change *c, struct err *err)
{
	AUTO_JSON json_t *content = json_object();

	json_object_set_new(content, "images", disks_paths(c));
	json_put_str(content, MARK_DATASET, c->dataset);
	return mark_new(c->d, c->uuid, content, err);
}

static int marked(struct change *c, struct err *err)
{
	c->touched = c->data_made = true;
	return 0;
}

static int mark(struct change *c, struct err *err)
{
	return change_work(c, mark_files, marked, err);
}

static json_t *facts_of(struct change *c, const char *zone_state)
{
	json_int_t share = c->new->ram_mib / PROVISION_RAM_MIB;
	json_t *facts = json_object();

	if (!c->expire_wall_ms)
		c->expire_wall_ms = clock_wall_ms() + PROVISION_MS * (share > 1 ? share : 1);

	json_put_bool(facts, FACT_PROVISIONING, true);
	json_put_str(facts, FACT_STATE, "provisioning");
	if (zone_state)
		json_put_str(facts, FACT_ZONE_STATE, zone_state);
	json_put_str(facts, FACT_TRANSITION_TO, c->new->autoboot ? "running" : "stopped");
	json_put_int(facts, FACT_TRANSITION_EXPIRE, c->expire_wall_ms);
	return facts;
}

int create_announce(struct change *c, struct err *err)
{
	c->seq = guest_provisioning(guest_get(c->d, c->uuid), facts_of(c, "configured"));
	return 0;
}

static int store_files(struct change *c, struct err *err)
{
	return store_create(c->d->paths, c->new, c->d->sync, err);
}

static int stored(struct change *c, struct err *err)
{
	c->stored = true;
	catalog_sync(c->d->catalog);
	(void)catalog_verify(c->d->catalog, c->uuid); /* not by the kernel's word alone */
	if (catalog_by_uuid(c->d->catalog, c->uuid))
		return 0;
	return err_set(err, EIO, "the definition of VM %s was written but cannot be read back",
		       c->uuid);
}

int create_store(struct change *c, struct err *err)
{
	return change_work(c, store_files, stored, err);
}

static int unmark_files(struct change *c, struct err *err)
{
	mark_remove(c->d, c->uuid, MARK_CREATE);
	return 0;
}

/* From here the VM is wholly there. */
static int installed(struct change *c, struct err *err)
{
	c->touched = false;
	log_info("vm=%s created name='%s' uid=%u", c->uuid, c->new->name, c->uid);
	return 0;
}

int create_install(struct change *c, struct err *err)
{
	struct guest *g = guest_get(c->d, c->uuid);

	(void)guest_provisioning(g, facts_of(c, "incomplete"));
	c->seq = guest_provisioning(g, facts_of(c, "installed"));
	return change_work(c, unmark_files, installed, err);
}

static int start(struct change *c, struct err *err)
{
	if (!c->new->autoboot)
		return 0;
	/* From here the zone state is vmstated's to tell; `state` stays provisioning. */
	c->seq = guest_provisioning(guest_get(c->d, c->uuid), facts_of(c, NULL));
	return live_vm_start(c);
}

int create_settle(struct change *c, struct err *err)
{
	c->seq = guest_provisioning(guest_get(c->d, c->uuid), NULL);
	return 0;
}

int create_answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	feed_client_drain(c->d->states); /* vmstated told the state before it answered */
	json_put_str(out, "uuid", c->uuid);
	json_put_str(out, "name", c->new->name);
	json_put_str(out, "state", guest_state(c->d, c->uuid));
	if (c->start_error)
		log_warn("vm=%s created but not started: %s", c->uuid, c->start_error);
	return change_answer(c, out, "created");
}

int create_undo_files(struct change *c, struct err *err)
{
	int r = 0;

	disks_undo(c);
	/* First, since it is mounted within; when that fails the mark stays, for our next start. */
	if (c->dataset && c->data_made)
		r = dataset_destroy(c->dataset, c->uuid, err);
	if (r < 0)
		return r;
	if (c->stored)
		r = store_delete(c->d->paths, c->new, err);
	if (c->data_made)
		data_remove(c->d, c->uuid);
	return r;
}

void create_undo(struct change *c)
{
	struct guest *g = guest_find(c->d, c->uuid);

	catalog_sync(c->d->catalog);
	if (g && g->provisioning)
		(void)guest_provisioning(g, NULL);
}

/* Steps in order; images come before the announcement, since vminfod withholds for 10 s only. */
static const change_step steps[] = {
	dataset_step_pool, check,          step_job,        mark,          dataset_step_make,
	step_lock,         step_images,    create_announce, step_begin,    create_store,
	step_commit,       create_install, start,           create_settle, step_seen,
	create_answer,
};

const struct change_kind change_create = {"create", steps, ARRAY_SIZE(steps), create_undo_files,
					  create_undo};
